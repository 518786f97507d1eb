"""Figures on a page: how to make one, what is on record, and its pictures for light and dark pages."""

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ebwm import settings
from ebwm.figures.claims import expected, report, shown, verdicts
from ebwm.figures.registry import Figure, registry

PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*?figures/(\w+)/(\w+)\.png)\)")
HARDWARE = {"smoke": "2 cores", "cpu": "2 cores", "gpu": "one GPU"}


def section(
    notebook: Path,  # from the root of the repository
    root: Path,  # the repository
) -> str:  # nothing for a notebook that makes no figure of the registry
    """A figure's command, cost and record."""
    figure = next((f for f in figures(root) if f.notebook == root / notebook), None)
    if not figure:
        return ""
    folder = root / "figures" / figure.id
    rows = {
        "Command": f"`ebwm figures run {figure.id}`",
        "Notebook": f"`{notebook.as_posix()}`",
        "Expected time": _times(figure.minutes) or "unknown",
        "On record": _record(folder / "manifest.json"),
    }
    table = _table(("", ""), rows.items())
    return "\n\n".join([table, *_claims(figure.id, root), *_pictures(folder, notebook)])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [head := tuple(head), ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def figures(
    root: Path,  # the repository
) -> list[Figure]:
    """The figures that have a notebook, in the registry's order."""
    there = (root / "figures" / "figures.yaml").is_file()
    return list(registry(settings.load(root)).figures.values()) if there else []


def _claims(id: str, root: Path) -> list[str]:
    """What the papers say that the figure bears on, and the verdicts."""
    rows = [row for row in verdicts(settings.load(root)) if row.figure == id]
    told = [(row.claim.says, row.claim.source, shown(row.measured) if row.measured else "",
             expected(row.claim.expect), row.verdict) for row in rows]
    return [_table(("What is claimed", "by", "ours", "expected", "verdict"), told)] if rows else []


def claims_page(
    root: Path,  # the repository
) -> str:  # Markdown; nothing where there is no registry
    """Every claim of the papers with its verdict."""
    return report(settings.load(root)) if figures(root) else ""


def benchmarks_page(
    root: Path,  # the repository
) -> str:  # Markdown; nothing where no benchmark is on record
    """What the benchmark measured."""
    folder, up = root / "figures" / "benchmarks", Path("..", "..", "figures", "benchmarks")
    if not (table := folder / "table.md").is_file():
        return ""
    pictures = [f"![{name}]({(up / name).as_posix()}.png)" for name in ("training", "cost")
                if (folder / f"{name}.png").is_file()]
    return "\n\n".join(["# Benchmarks", "What an EBT costs, by `make bench`.", *pictures, table.read_text()])


def _times(minutes: dict[str, float]) -> str:
    scales = [scale for scale in HARDWARE if scale in minutes]
    return ", ".join(f"{scale} {time(minutes[scale])} on {HARDWARE[scale]}" for scale in scales)


def time(
    minutes: float,  # from the registry
) -> str:
    """A duration as people say it."""
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:g} min"


def _record(path: Path) -> str:
    if not path.is_file():
        return "nothing yet"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    seeds = ", ".join(map(str, manifest["seeds"]))
    return f"scale {manifest['scale']}, seeds {seeds}, {manifest['seconds']:.0f} s on {manifest['device']}"


def _pictures(folder: Path, notebook: Path) -> list[str]:
    """The pictures on record, by paths that hold from the notebook."""
    light = sorted(p for p in folder.glob("*.png") if not p.stem.endswith("-dark"))
    up = os.path.relpath(Path("figures"), notebook.parent)
    return [f"![{p.stem.replace('_', ' ')}]({Path(up, folder.name, p.name).as_posix()})" for p in light]


def place_pictures(
    text: str,  # Markdown
    page: Path,  # the notebook that it is from
    root: Path,  # the repository
    out: Path,  # where the pages go
) -> str:
    """Copy pictures on record beside the pages; where there is a dark twin, each shows on its own theme."""
    up = os.path.relpath(root / "nbs", page.parent)

    def place(match: re.Match) -> str:
        words, _, id, name = match.groups()
        pair = {f"{name}.png": "{.only-light}", f"{name}-dark.png": "{.only-dark}"}
        found = [file for file in pair if (root / "figures" / id / file).is_file()]
        for file in found:
            (out / "record" / id).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / "figures" / id / file, out / "record" / id / file)
        shown = (f"![{words}]({Path(up, 'record', id, file).as_posix()})" for file in found)
        kinds = (pair[file] if len(found) == 2 else "" for file in found)
        return "\n".join(map("".join, zip(shown, kinds, strict=True))) or match[0]

    return PICTURE.sub(place, text)
