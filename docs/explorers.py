"""Explorers on pages: an element for each, its data, and its scripts as one; they also run from a file."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "_static" / "explore"
MARK = re.compile(r"^<!-- explorer: (\w+) -->$", re.MULTILINE)  # an explorer's place on a page
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)
REMEDY = "This explorer needs JavaScript."
SMALL = "landscape_small", "explorers/landscape_page.html"  # on the home page
RECORDED = ("frames", "plane", "policy", "tokens")  # have data, from the module explore_NAME
DATA = '<script src="../_static/explore/{}_data.js"></script>'


def place(
    text: str,  # of a page, as Markdown
) -> str:
    """The text with an explorer at each mark."""
    return MARK.sub(lambda match: mounted(match[1], f"{match[1]}_view.js"), text)


def write(
    folder: Path,  # of the scripts of explorers in the built site
) -> None:
    """Write the data of all explorers that have any."""
    for name in RECORDED:
        importlib.import_module(f"explore_{name}").write(folder)


def write_data(
    folder: Path,  # of the scripts of explorers in the built site
    name: str,  # of the explorer
    values: dict[str, Any],  # as JSON
) -> None:
    """Write the data of an explorer as a script, which also loads from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, separators=(",", ":"))
    (folder / f"{name}_data.js").write_text(f"window.ebwm{name.capitalize()} = {text};\n", encoding="utf-8")


def home() -> str:
    """The small landscape of the home page."""
    name, link = SMALL
    return mounted(name, f"{name}.js", f' data-link="{link}"')


def mounted(
    name: str,  # of the explorer
    script: str,  # its main file in SCRIPTS
    attributes: str = "",  # more of the element
) -> str:
    """The element of an explorer and its scripts as HTML."""
    data = f"{DATA.format(name)}\n\n" if name in RECORDED else ""
    element = f'<div data-explorer="{name}"{attributes}><noscript>{REMEDY}</noscript></div>'
    return f"{data}{element}\n\n<script>\n(() => {{\n{joined(SCRIPTS / script)}}})();\n</script>"


def joined(
    script: Path,  # a module
) -> str:
    """A module after all modules that it imports, as one text; their names must differ."""
    return "".join(EXPORT.sub("", IMPORT.sub("", path.read_text(encoding="utf-8"))) for path in _imported(script))


def _imported(script: Path) -> list[Path]:
    """The module after those that it imports, each once."""
    names = IMPORT.findall(script.read_text(encoding="utf-8"))
    before = [path for name in names for path in _imported(script.with_name(name))]
    return list(dict.fromkeys([*before, script]))
