"""Pages for Sphinx with myst-nb from the notebooks that nbdev has processed.

Front matter becomes a title, directives become tags, `show_doc` cells become sections (symbols.py), callouts
become admonitions, pictures on record get their dark variants, tables are filled (records.py), words of the index
become entries that the search finds first, marks become explorers (explorers.py), and folders become the sidebar
(sidebar.py).
"""

import json
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import explorers
import records
import reference
import sidebar
import symbols
import yaml

# pages made of files outside the folder of notebooks
MADE = {"CONTRIBUTING.md": "extend/contributing.md", "figures/report.md": "figures/claims.md",
        "figures/benchmarks/table.md": "figures/benchmarks.md", "data/README.md": "reference/data.md",
        "CHANGELOG.md": "reference/changes.md"}
FILMS = "films"  # folder of the site
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}
DIRECTIVE = re.compile(r"^\s*#\|\s*([\w-]+)\s*:?[ \t]*(.*?)[ \t]*$\n?", re.MULTILINE)
TAGS = {
    ("echo", "false"): "remove-input",
    ("output", "false"): "remove-output",
    ("include", "false"): "remove-cell",
    ("code-fold", "true"): "hide-input",
    ("warning", "false"): "remove-stderr",
}
SHOW_DOC = re.compile(r"^show_doc\(([\w.]+)", re.MULTILINE)
CALLOUT = re.compile(r'^(:{3,})\s*\{\.callout-(\w+)(?:[^}\n]*?title="([^"]*)")?[^}\n]*\}\s*$', re.MULTILINE)
INDEX = re.compile(r"^<!-- index: (.+?) -->$", re.MULTILINE)  # words under which the index and the search list a page
OF_SITE = re.compile(r"<!-- site: (.+?) -->")  # text for the site alone
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Site:
    """Folders of a site, and the names that have a section."""

    root: Path  # root of the repository
    processed: Path  # folder of the notebooks processed by nbdev
    out: Path  # folder of the pages
    sections: dict[str, str]  # section by nbdev's address of a name (core/sampler.html#run)

    @property
    def notebooks(self) -> Path:
        return self.root / "nbs"


def write_pages(
    root: Path,  # root of the repository
    processed: Path,  # folder of the notebooks processed by nbdev
    out: Path,  # folder of the pages; replaced
    only: str = "",  # regular expression of the sources, relative to the folder of notebooks; "": all
) -> None:
    """Write the pages of the site."""
    shutil.rmtree(out, ignore_errors=True)
    found = find_sources(root / "nbs")
    sources = [source for source in found if re.match(only, source.relative_to(root / "nbs").as_posix())]
    site = Site(root, processed, out, _sections(root / "nbs", sources))
    for source in sources:
        target = out / page_name(source.relative_to(site.notebooks))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(_text(source.read_text(encoding="utf-8"), source, site), encoding="utf-8")
        else:
            _write(target, _page(source, site))
    pages = [page_name(source.relative_to(site.notebooks)) for source in sources]
    ordered = _in_order(pages, root) + _made_pages(site)
    toctrees = _markdown(sidebar.toctrees(out, ordered))
    _write(out / "index.ipynb", [*_read(out / "index.ipynb")["cells"], toctrees])
    (out / "llms.txt").write_text(sidebar.plain_index(out, ordered), encoding="utf-8")


def find_sources(
    notebooks: Path,  # folder of notebooks
) -> list[Path]:  # notebooks and Markdown files, in the order of the sidebar
    """The sources of pages."""
    found = (path for path in notebooks.rglob("*") if path.suffix in (".ipynb", ".md"))
    visible = (path for path in found if not any(p[0] in "._" for p in path.relative_to(notebooks).parts))
    return sorted(visible, key=lambda path: _order(path.relative_to(notebooks)))


def _order(path: Path) -> tuple[int, bool, str]:
    folder = path.parts[0] if len(path.parts) > 1 else ""
    known = ("", *sidebar.FOLDERS)
    rank = known.index(folder) if folder in known else len(known)
    return rank, path.stem != "index", re.sub(r"\d+", lambda number: number[0].zfill(3), str(path))


def page_name(
    path: Path,  # path of a notebook
) -> Path:  # path of its page
    """The name that nbdev gives to a page: without the number that orders the notebooks."""
    return path.with_name(re.sub(r"^\d+[a-zA-Z]?_", "", path.name))


def _sections(notebooks: Path, sources: list[Path]) -> dict[str, str]:
    result = {}
    for source in (s for s in sources if s.suffix == ".ipynb"):
        cells = _read(source)["cells"]
        page = page_name(source.relative_to(notebooks)).with_suffix(".html").as_posix()
        for name in (n for cell in cells for n in symbols.defined(cell)):
            result[f"{page}#{name.lower()}"] = symbols.target(name, cells)
    return result


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, cells: list[dict]) -> None:
    numbered = [{**cell, "id": f"cell-{index}"} for index, cell in enumerate(cells)]
    notebook = {"cells": numbered, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")


def _in_order(pages: list[Path], root: Path) -> list[Path]:
    """The pages, with figures in the order of the registry."""
    known = [page_name(f.notebook.relative_to(root / "nbs")) for f in records.figures(root)]
    results = sorted((page for page in pages if page in known), key=known.index)
    return [page if page not in known else results.pop(0) for page in pages]


def _made_pages(site: Site) -> list[Path]:
    """Write the pages without a source in the folder of notebooks; returns their paths."""
    texts = {"figures/claims.md": records.claims_page(site.root),
             "figures/benchmarks.md": records.benchmarks_page(site.root)}
    texts |= _contributing(site.root) | reference.pages(site.root / "ebwm", set(site.sections.values()))
    texts |= {page: (site.root / name).read_text(encoding="utf-8") for name, page in MADE.items()
              if page.startswith("reference/") and (site.root / name).is_file()}
    pages = {Path(name): text for name, text in texts.items() if text}
    for page, text in pages.items():
        (site.out / page).parent.mkdir(parents=True, exist_ok=True)
        (site.out / page).write_text(_text(text, site.notebooks / page, site), encoding="utf-8")
    return list(pages)


def _contributing(root: Path) -> dict[str, str]:
    """CONTRIBUTING.md in two pages by their names: its section "How to add", and the others."""
    if not (source := root / "CONTRIBUTING.md").is_file():
        return {}
    text = source.read_text(encoding="utf-8").replace("](nbs/", "](../")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    how, *others = sorted(sections, key=lambda section: not section.startswith("How to add"))
    return {"extend/how_to_add.md": f"# {how}", MADE[source.name]: "## ".join([head, *others])}


# Cells


def _page(source: Path, site: Site) -> list[dict]:
    original = _read(source)["cells"]
    processed = _read(site.processed / source.relative_to(site.notebooks))["cells"]
    cells = [c for c in (_convert(cell, original) for cell in _with_folds(processed, original)) if c]
    if record := records.section(source.relative_to(site.root), site.root):
        cells.insert(1, _markdown(record))
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = _text(cell["source"], source, site)
    if source == site.notebooks / "index.ipynb":
        cells.insert(1, _markdown(explorers.home()))
    return cells


def _with_folds(processed: list[dict], original: list[dict]) -> list[dict]:
    """Cells with the source of exported cells, which nbdev drops, folded after their sections."""
    places = {cell.get("id"): (index, 0) for index, cell in enumerate(original)}
    for index, cell in enumerate(original):
        places |= {name: (index, node.lineno) for name, node in symbols.defined(cell).items()}
    placed = [(places.get(_shown(cell) or cell.get("id"), (-1, 0)), cell) for cell in processed]
    placed += [((index, math.inf), _markdown(symbols.fold(cell))) for index, cell in enumerate(original)]
    return [cell for _, cell in sorted(placed, key=lambda item: item[0])]


def _shown(cell: dict) -> str | None:
    match = SHOW_DOC.search("".join(cell["source"])) if cell["cell_type"] == "code" else None
    return match and match[1]


def _convert(cell: dict, original: list[dict]) -> dict | None:
    source = "".join(cell["source"])
    if not source.strip() or source.startswith("<!-- WARNING"):
        return None
    if cell["cell_type"] == "raw":
        return _markdown(_title(source))
    if name := _shown(cell):
        return _markdown(symbols.section(name, cell, original))
    return _markdown(source) if cell["cell_type"] == "markdown" else _code(source, cell["outputs"])


def _markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _title(front_matter: str) -> str:
    values = yaml.safe_load(front_matter.strip().strip("-")) or {}
    lead = f"\n\n{{.lead}}\n{values['description']}" if values.get("description") else ""
    return f"# {values.get('title', 'Untitled')}{lead}"


def _code(source: str, outputs: list[dict]) -> dict:
    found = {(name, value.lower()) for name, value in DIRECTIVE.findall(source)}
    tags = sorted(tag for directive, tag in TAGS.items() if directive in found)
    return {"cell_type": "code", "execution_count": None, "metadata": {"tags": tags}, "outputs": outputs,
            "source": DIRECTIVE.sub("", source)}


# Text


def _text(source: str, page: Path, site: Site) -> str:
    source = OF_SITE.sub(r"\1", INDEX.sub(_index, source))
    source = records.place_tables(source, site.root, page.parent)
    source = records.place_pictures(CALLOUT.sub(_admonition, source), page, site.root, site.out)
    return explorers.place(LINK.sub(lambda match: _link(match, page, site), source))


def _index(match: re.Match) -> str:
    """Main entries of the index, which the search lists before pages that only contain the words."""
    return f"```{{index}} {', '.join(f'! {words.strip()}' for words in match[1].split(','))}\n```"


def _admonition(match: re.Match) -> str:
    fence, kind, title = match.groups()
    return f"{fence}{{admonition}} {title}\n:class: {kind}" if title else f"{fence}{{{kind}}}"


def _link(match: re.Match, page: Path, site: Site) -> str:
    """A link to a page for a notebook, to a section for nbdev's link to a name, and text for other files."""
    text, path, anchor = match[1], match[2], match[3] or ""
    if section := site.sections.get(path.lstrip("/") + anchor.split(".")[0]):
        return f"[{text}](#{section})"
    file = Path(os.path.normpath(page.parent / path))
    if made := MADE.get(os.path.relpath(file, site.root)):
        return f"[{text}]({os.path.relpath(site.notebooks / made, page.parent)})"
    if file.suffix == ".mp4" and file.is_file():
        return _film(text, file, page, site)
    if file.is_relative_to(site.notebooks) and file.suffix in (".ipynb", ".md"):
        return f"[{text}]({page_name(Path(path)).as_posix()}{anchor})"
    return text if file.exists() else match[0]


def _film(text: str, file: Path, page: Path, site: Site) -> str:
    """A film that is played on the page, from a copy of its file in the folder FILMS of the pages."""
    (site.out / FILMS).mkdir(exist_ok=True)
    shutil.copyfile(file, site.out / FILMS / file.name)
    source = Path(os.path.relpath(site.notebooks, page.parent), FILMS, file.name).as_posix()
    return f'<video controls loop muted playsinline preload="metadata" title="{text}" src="{source}"></video>'
