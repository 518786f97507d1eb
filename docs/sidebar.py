"""The sidebar, overviews of folders, and the index in plain text."""

import json
import re
from pathlib import Path

# order of pages and groups; other folders follow
FOLDERS = ("guides", "tutorials", "explorers", "howto", "core", "gradient", "data", "training", "policy", "evaluation",
           "figures")
GROUPS = ("Guides", "Tutorials", "Explorers", "How to", "Lessons", "Results", "Extend", "Reference")
CAPTIONS = {"howto": "How to"}  # groups of folders whose name is another one
# folders whose pages are below an overview: its group and its title
OVERVIEWS = {"core": ("Lessons", "Energies and models"), "gradient": ("Lessons", "Gradients"),
             "data": ("Lessons", "Data"), "training": ("Lessons", "Training"),
             "policy": ("Lessons", "Policies of robots"),
             "evaluation": ("Lessons", "Evaluation"),
             "figures": ("Results", "Figures")}
EXPLORERS = [f"explorers/{name}" for name in (
    "explorers", "landscape_page", "frames_page", "tokens_page", "policy_page", "training_page", "landscape", "frames",
    "tokens", "policy", "training", "play", "explore")]  # on pages first, then notebooks
RESULTS = ("guides/learned", "guides/gallery", "guides/results", "figures/claims", "figures/benchmarks", "protocol")
LEAD = "Energy-Based World Models and Energy-Based Transformers in PyTorch"


def toctrees(
    out: Path,  # folder of the pages
    pages: list[Path],  # relative to it, in the order of the sidebar
) -> str:  # Markdown for the home page
    """Write the overviews, and list all pages and overviews by group."""
    groups = {}
    for (group, folder), members in _grouped(pages).items():
        names = [_name(page) for page in members]
        if folder:
            (out / folder / "index.md").write_text(_overview(out, folder, members), encoding="utf-8")
            names = [f"{folder}/index"]
        groups.setdefault(group, []).extend(names)
    return "\n\n".join(_toctree(group, names) for group, names in groups.items())


def plain_index(
    out: Path,  # folder of the pages
    pages: list[Path],  # relative to it, in the order of the sidebar
) -> str:
    """Every page with its title and its lead, as plain text for programs that read the site."""
    parts = [f"# ebwm\n\n> {LEAD}\n\n{_entry(out, Path('index.ipynb'), '.html')}"]
    for (group, folder), members in _grouped(pages).items():
        head = f"{group}: {OVERVIEWS[folder][1].lower()}" if folder else group
        parts.append("\n".join([f"## {head}\n", *(_entry(out, page, ".html") for page in members)]))
    return "\n\n".join(parts) + "\n"


def _grouped(pages: list[Path]) -> dict[tuple[str, str], list[Path]]:
    """Pages by group and folder of their overview, without the home page."""
    found: dict[tuple[str, str], list[Path]] = {}
    for page in pages:
        if _name(page) != "index":
            found.setdefault(_place(page), []).append(page)
    if results := found.get(("Results", "")):
        results.sort(key=lambda page: RESULTS.index(_name(page)))
    if guides := found.get(("Guides", "")):
        guides.sort(key=lambda page: _name(page) != "guides/install")
    if explorers := found.get(("Explorers", "")):
        explorers.sort(key=lambda page: EXPLORERS.index(_name(page)))
    order = {group: rank for rank, group in enumerate(GROUPS)}
    rank = lambda place: (order.get(place[0], len(GROUPS)), place == ("Results", "figures"))
    return {place: found[place] for place in sorted(found, key=rank)}


def _place(page: Path) -> tuple[str, str]:
    """The group of a page, and the folder whose overview lists it; "" for none."""
    folder = page.parts[0] if len(page.parts) > 1 else ""
    if _name(page) in RESULTS:
        return "Results", ""
    if folder in OVERVIEWS:
        return OVERVIEWS[folder][0], folder
    return CAPTIONS.get(folder, folder.capitalize()), ""


def _name(page: Path) -> str:
    return page.with_suffix("").as_posix()


def _overview(out: Path, folder: str, pages: list[Path]) -> str:
    entries = "\n".join(_entry(out, page.relative_to(folder), folder=folder) for page in pages)
    names = [_name(page.relative_to(folder)) for page in pages]
    return f"# {OVERVIEWS[folder][1]}\n\n{entries}\n\n{_toctree('', names)}\n"


def _entry(out: Path, page: Path, suffix: str = "", folder: str = "") -> str:
    title, lead = _heading(out / folder / page)
    return f"- [{title}]({page.with_suffix(suffix or page.suffix).as_posix()}){f': {lead}' if lead else ''}"


def _heading(page: Path) -> tuple[str, str]:
    """Title and lead of a page."""
    text = page.read_text(encoding="utf-8")
    source = text if page.suffix == ".md" else "".join(json.loads(text)["cells"][0]["source"])
    title, _, rest = source.lstrip("# ").partition("\n")
    lead = re.match(r"\s*\{\.lead\}\n(.*)", rest)
    return title.strip(), lead[1].strip() if lead else ""


def _toctree(caption: str, names: list[str]) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *names, "```"])
