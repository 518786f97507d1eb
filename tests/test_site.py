"""The built site in a browser without a network: search, navigation, themes, explorers, and a phone's width."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
PAGES = r"index|explorers/|guides/(gallery|results)|protocol|core/0[12]_"  # a fifth of the time of all
BUILD = f"import sys; sys.path.insert(0, 'docs'); import build; sys.exit(build.sphinx(only={PAGES!r}))"
COPIED = ("docs", "nbs", "pyproject.toml", "settings.ini", "CONTRIBUTING.md")  # read, or read and written beside
LINKED = ("ebwm", "figures", "data", "benchmarks")
EXPLORERS = {"landscape": "[data-explorer=landscape] canvas", "frames": ".explore-plot", "tokens": ".tk-energies",
             "policy": ".ex-task", "training": ".ex-panel svg"}  # and its pictures
PICTURES = """(pictures) => [...document.querySelectorAll(pictures)].map((picture) => {
    if (picture.tagName === "CANVAS") return picture.toDataURL();
    const lines = [...picture.querySelectorAll("path, polyline")];  // without those that have the colour of the text
    return lines.filter((line) => line.getAttribute("stroke") !== "currentColor")
        .map((line) => getComputedStyle(line).stroke + line.getAttribute("d")).join();
})"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(19, 20, 22)"  # of the theme's pages
WIDTH = "document.documentElement.scrollWidth"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The folder of the site, built once for all processes of a test run, or before."""
    if "EBWM_SITE" in os.environ:
        return Path(os.environ["EBWM_SITE"])
    pytest.importorskip("myst_nb", reason="myst-nb is not installed: pip install 'ebwm[docs]'")
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            _build(root)
    return root / "_docs"


def _build(root: Path) -> None:
    root.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in COPIED:
        source, target = ROOT / name, root / name
        shutil.copytree(source, target, ignore=ignore) if source.is_dir() else shutil.copy(source, target)
    for name in LINKED:
        (root / name).symlink_to(ROOT / name)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=root, text=True, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture
def visit(site, browser):
    """Open a page of the site; at the end, no page asked another host, and none printed an error."""
    files = {f"/{path.relative_to(site).as_posix()}": path for path in site.rglob("*") if path.is_file()}
    with lab.visiting(browser, console=True) as visit:
        yield lambda path="index.html", width=1200, **options: visit(
            files, path, viewport=dict(width=width, height=800), **options)


def link(page, path):
    """A link of the navigation beside the page."""
    return page.locator(f".sidebar-tree a[href$='{path}']").first


def explorer_of(page, name):
    """Wait until an explorer is there; its element."""
    found = page.locator(f"[data-explorer={name}]")
    found.locator("canvas, svg").first.wait_for()
    return found


def test_the_search_finds_a_word_and_leads_to_its_page(visit):
    page = visit()
    page.locator(".sidebar-search").fill("leapfrog")
    page.locator(".sidebar-search").press("Enter")
    first = page.locator("ul.search li a").first
    first.wait_for()
    assert "search.html?q=leapfrog" in page.url and first.inner_text().strip()
    first.click()
    page.wait_for_load_state()
    assert "search.html" not in page.url and "leapfrog" in page.locator("article").inner_text().lower()
    nothing = visit("search.html?q=zyxwvut")
    nothing.get_by_text("did not match any documents").wait_for()
    assert nothing.locator("ul.search li").count() == 0


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_opens_from_the_navigation_and_follows_the_theme(visit, name):
    page = visit(color_scheme="light")
    link(page, f"explorers/{name}_page.html").click()
    explorer_of(page, name)
    seen = {}
    for theme in ("light", "dark"):
        choose(page, theme)
        seen[theme] = settled(page, EXPLORERS[name])
    assert seen["light"] and all(one != other for one, other in zip(seen["light"], seen["dark"], strict=True))
    page.reload()
    explorer_of(page, name)
    assert page.evaluate("document.body.dataset.theme") == "dark" and page.evaluate(BACKGROUND) == DARK


def choose(page, theme):
    """Press the button of the theme until it is this one, and see that the page follows."""
    for _ in range(3):
        if page.evaluate("document.body.dataset.theme") != theme:
            page.locator("button.theme-toggle:visible").first.click()
    assert page.evaluate("document.body.dataset.theme") == theme
    lab.wait_until(lambda: page.evaluate(BACKGROUND) == {"light": LIGHT, "dark": DARK}[theme], page)


def settled(page, pictures):
    """The pictures once they do not change any more."""
    seen = [None]

    def still():
        seen.append(page.evaluate(PICTURES, pictures))
        page.wait_for_timeout(150)
        return seen[-1] == seen[-2]

    lab.wait_until(still, page)
    return seen[-1]


def test_the_landscape_of_the_home_page_moves_unless_motion_is_reduced(visit):
    page, pictures = visit(reduced_motion="no-preference"), ".explorer canvas"
    explorer_of(page, "landscape_small").scroll_into_view_if_needed()
    first, others = page.evaluate(PICTURES, pictures), lambda: page.evaluate(PICTURES, pictures)
    assert len(first) == 3
    lab.wait_until(lambda: all(one != other for one, other in zip(others(), first, strict=True)), page)
    still = visit()
    explorer_of(still, "landscape_small").scroll_into_view_if_needed()
    before = settled(still, pictures)
    still.wait_for_timeout(600)
    assert len(before) == 3 and still.evaluate(PICTURES, pictures) == before


@pytest.mark.parametrize("path", ["index.html", "guides/results.html", "core/sampler.html", "explorers/frames.html",
                                  *(f"explorers/{name}_page.html" for name in EXPLORERS)])
def test_a_page_is_not_wider_than_a_phone(visit, path):
    page = visit(path, width=390)
    page.wait_for_load_state("load")
    assert page.locator("article h1").count() == 1 and page.evaluate(WIDTH) <= 390


@pytest.mark.parametrize("width", [800, 1010, 1100])
def test_the_home_page_is_not_wider_than_a_window(visit, width):
    page = visit("index.html", width=width)
    page.wait_for_load_state("load")
    assert page.evaluate(WIDTH) <= width


def test_a_picture_on_record_loads_when_seen_and_is_a_link_to_its_file_in_the_theme(visit, site):
    page = visit("guides/gallery.html", color_scheme="light")
    choose(page, "light")
    links = {kind: page.locator(f"a.picture.only-{kind}") for kind in ("light", "dark")}
    assert links["light"].count() == links["dark"].count() > 20
    assert links["light"].first.is_visible() and not links["dark"].first.is_visible()
    assert (site / "guides" / links["light"].first.get_attribute("href")).is_file()
    assert {picture.get_attribute("loading") for picture in page.locator("article img").all()} == {"lazy"}
    seen = page.evaluate("[...document.querySelectorAll('article img')].filter((one) => one.naturalWidth).length")
    assert 0 < seen < links["light"].count() / 2
    choose(page, "dark")
    assert links["dark"].first.is_visible() and not links["light"].first.is_visible()


@pytest.mark.parametrize("width", [1313, 1400])
def test_the_contents_beside_a_page_are_not_cut_off(visit, width):
    page = visit("guides/results.html", width=width)
    box = page.locator(".toc-drawer").bounding_box()
    assert box["x"] + box["width"] <= width and page.evaluate(WIDTH) <= width


def test_settings_in_an_address_of_the_site_are_restored(visit):
    page = visit("explorers/training_page.html")
    explorer_of(page, "training").get_by_role("button", name="Beside a Transformer").click()
    lab.wait_until(lambda: "#training=" in page.url, page)
    again = visit(page.url.removeprefix(lab.SITE))
    shown = json.loads(explorer_of(again, "training").locator("textarea").input_value())
    assert shown["runs"] == ["step size auto", "Transformer"]
