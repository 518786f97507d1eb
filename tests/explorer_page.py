"""Pages with one explorer and nothing else, and what they have in common: settings as text, pictures, a width."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lab

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explorers

PHONE = 360  # pixels


@contextmanager
def pages(browser: Any, explorer: str, script: str = "", sheets: Any = ("explore.css",)) -> Iterator[Callable]:
    """A function that opens a page, without motion; at the end, no page asked another host or raised an error.

    `script`: runs before the explorer, such as its data. `served`: more files of the site, by path.
    """
    style = "".join((explorers.SCRIPTS / name).read_text(encoding="utf-8") for name in sheets)
    element = explorers.home() if explorer == "home" else explorers.place(f"<!-- explorer: {explorer} -->")
    element = element.replace(explorers.DATA.format(explorer), "")
    modules = {f"/_static/explore/{file.name}": file for file in explorers.SCRIPTS.glob("*.js")}

    def opened(path: str = "", width: int = 900, served: Any = (), script: str = script, **options: Any) -> Any:
        text = f"{lab.HEAD}<style>{style}</style><body data-theme='light'><script>{script}</script>{element}"
        return visit({"/": text} | modules | dict(served), path, viewport=dict(width=width, height=900), **options)

    with lab.visiting(browser) as visit:
        yield opened


def recorded(explorer: str, make: Callable[[], dict]) -> dict[str, Any]:
    """The data of a page: of the site if it was built before, as for tests/test_site.py, or made here."""
    if "EBWM_SITE" not in os.environ:
        return make()
    script = Path(os.environ["EBWM_SITE"], f"_static/explore/{explorer}_data.js").read_text(encoding="utf-8")
    return json.loads(script.partition(" = ")[2].rstrip(";\n"))


def settings_of(page: Any) -> dict[str, Any]:
    return json.loads(page.get_by_label("Settings as JSON").input_value())


def paste(page: Any, settings: str | dict[str, Any]) -> None:
    """Paste settings and apply them."""
    if not page.locator(".ex-saving[open]").count():
        page.locator(".ex-saving summary").click()
    page.get_by_label("Settings as JSON").fill(settings if isinstance(settings, str) else json.dumps(settings))
    page.get_by_role("button", name="Apply the pasted settings").click()


def picture(page: Any, canvas: str) -> str:
    """The pixels of the first of some canvases."""
    return page.locator(canvas).first.evaluate("canvas => canvas.toDataURL()")


def fits_a_phone(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth") <= PHONE
