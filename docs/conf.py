"""Sphinx configuration of the pages that adapter.py writes."""

import functools
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.images import get_image_size
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).parents[1]))

from ebwm import __version__

project = "ebwm"
author = "The ebwm authors"
project_copyright = "The ebwm authors, Apache-2.0"
release = __version__

extensions = ["myst_nb"]
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs are stored in the notebooks
nb_merge_streams = True
nb_ipywidgets_js = {}  # no scripts from other hosts
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"ebwm {release}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css", *(f"explore/{name}.css" for name in ("explore", "frames", "tokens"))]
html_js_files = ["versions.js"]
templates_path = ["_templates"]
html_sidebars = {"**": [f"sidebar/{part}.html" for part in (
    "brand", "versions", "search", "scroll-start", "navigation", "scroll-end")]}
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


TEX = {r"\\frac(\w)(\w)": r"\\frac{\1}{\2}", r"\\dots\b": r"\\ldots"}  # commands unknown to docutils
# Without a mathematical font, browsers draw accents into the letter, and do not draw the bar of docutils at all
ACCENTS = {'<mover accent="true">': '<mover accent="false">', "\N{MODIFIER LETTER MACRON}": "\N{MACRON}"}


def _mathml(self, node: nodes.Element) -> None:
    """Formulas as MathML, which browsers draw without scripts."""
    block = isinstance(node, nodes.math_block)
    latex = functools.reduce(lambda text, rule: re.sub(*rule, text), TEX.items(), node.astext())
    try:
        formula = tex2mathml(latex, as_block=block)
        formula = functools.reduce(lambda text, pair: text.replace(*pair), ACCENTS.items(), formula)
    except MathError as error:
        logging.getLogger(__name__).warning("formula %s: %s", node.astext(), error, location=node)
        raise nodes.SkipNode from None
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


THEMES = {"only-light", "only-dark"}


def _visit_image(self, node: nodes.image) -> None:
    """Pictures load when they come into view; those on record are links to their files."""
    node["loading"] = "lazy"
    recorded = "record/" in node["uri"] and not isinstance(node.parent, nodes.reference)
    if recorded and (size := get_image_size(self.builder.srcdir / node["uri"])):
        node["width"], node["height"] = map(str, size)  # the page keeps its height while they load
    HTML5Translator.visit_image(self, node)  # which replaces the address by that of the copy
    if recorded:
        classes = " ".join(["picture", *THEMES.intersection(node["classes"])])
        self.body[-1] = f'<a class="{classes}" href="{node["uri"]}">{self.body[-1].strip()}</a>\n'


def _depart_image(self, node: nodes.image) -> None:
    HTML5Translator.depart_image(self, node)


def setup(app) -> None:
    app.add_node(nodes.image, override=True, html=(_visit_image, _depart_image))
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
