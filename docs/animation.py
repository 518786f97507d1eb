"""Animations on the home page, one for each theme: the frames explorer, step by step, from pictures of its page."""

import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import explore_frames
import explorers
from PIL import Image

CLIP, POSITION, WIDTH = 1, 7, 840  # of the recorded predictions; of the page in pixels
SECONDS, LAST = 0.6, 2.5  # of each step, and of the last
NAMES = {"light": "walk.gif", "dark": "walk-dark.gif"}
SHOWN = """
body { margin: 0; padding: 12px; background: #fff; font: 16px/1.4 sans-serif; --color-foreground-primary: #1f2937;
  --color-foreground-secondary: #6b7280; --color-background-border: #e5e7eb; --color-foreground-border: #9ca3af; }
body[data-theme="dark"] { background: #131416; --color-foreground-primary: #cfd0d0;
  --color-foreground-secondary: #9ca0a5; --color-background-border: #303335; --color-foreground-border: #666666; }
.explore > :not(.explore-frames, .explore-plots, .explore-legend) { display: none; }
.explore-legend { margin-bottom: 0; }
"""


def write(
    root: Path,  # root of the repository
) -> list[Path]:  # of the animations; empty without a browser: those that are there remain
    """Write the animation for each theme as GIF."""
    written = []
    with tempfile.TemporaryDirectory() as folder, _page(Path(folder)) as page:
        for theme, name in NAMES.items() if page else ():
            page.evaluate("(theme) => { document.body.dataset.theme = theme; }", theme)
            pictures = [_picture(page, step) for step in range(explore_frames.STEPS + 1)]
            written.append(root / "figures" / "next_frame" / name)
            _save(written[-1], pictures)
    return written


def _save(path: Path, pictures: list[Image.Image]) -> None:
    durations = [1000 * SECONDS] * explore_frames.STEPS + [1000 * LAST]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


@contextmanager
def _page(folder: Path) -> Iterator[Any]:
    """The explorer alone on a page; None without a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if browser is None:
        yield None
        return
    explore_frames.write(folder)
    style = (explorers.SCRIPTS / "frames.css").read_text(encoding="utf-8") + SHOWN
    data = (folder / "frames_data.js").read_text(encoding="utf-8")
    body = explorers.place("<!-- explorer: frames -->")
    text = f"<!doctype html><meta charset='utf-8'><style>{style}</style><script>{data}</script>{body}"
    (folder / "page.html").write_text(text, encoding="utf-8")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = opened.new_page(viewport=dict(width=WIDTH, height=900), reduced_motion="reduce")
        page.goto((folder / "page.html").as_uri())
        yield page
        opened.close()


def _picture(page: Any, step: int) -> Image.Image:
    """The page at a step."""
    state = json.dumps({"clip": CLIP, "position": POSITION, "walk": 0, "step": step})
    page.evaluate("(state) => { location.hash = `frames=${encodeURIComponent(state)}`; }", state)
    page.wait_for_function("(text) => document.querySelector('.explore-step').textContent.startsWith(text)",
                           arg=f"step {step} ")
    taken = Image.open(io.BytesIO(page.screenshot(full_page=False, clip=_box(page))))
    return taken.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)


def _box(page: Any) -> dict[str, float]:
    """The part of the page that is filled."""
    height = page.evaluate("document.querySelector('.explore').getBoundingClientRect().bottom")
    return dict(x=0, y=0, width=WIDTH, height=height + 8)
