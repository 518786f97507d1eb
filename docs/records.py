"""Figures on pages: commands, records, tables, and pictures for light and dark themes."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from policies import policy_tables

from ebwm import settings
from ebwm.figures.claims import Verdict, expected, verdicts
from ebwm.figures.findings import MARK, answer_cell, answers
from ebwm.figures.registry import Figure, registry
from ebwm.figures.report import cause, ledger, measured_in_short, sentences, tally
from ebwm.figures.style import seeds_text

PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*?figures/(\w+)/(\w+)\.(?:png|gif))\)")
HARDWARE = {"smoke": "2 cores", "cpu": "2 cores", "long": "2 cores", "gpu": "one GPU"}
RELATIVE = re.compile(r"\]\((?!\w+:|#)")  # beginning of the target of a relative link
TABLE = re.compile(r"<!-- table: (\w+) -->")  # placeholder in a notebook's Markdown


def section(
    notebook: Path,  # path relative to the root of the repository
    root: Path,  # root of the repository
) -> str:  # empty for a notebook without an entry in the registry
    """Command, cost and record of a figure."""
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
    return "\n\n".join([table, *_claims(figure.id, root), *_pictures(folder, notebook, root)])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [head := tuple(head), ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def figures(
    root: Path,  # root of the repository
) -> list[Figure]:
    """The figures that have a notebook, in the registry's order."""
    exists = (root / "figures" / "figures.yaml").is_file()
    return list(registry(settings.load(root)).figures.values()) if exists else []


def _claims(id: str, root: Path) -> list[str]:
    """The papers' claims that the figure tests, and the verdicts."""
    rows = [row for row in verdicts(settings.load(root)) if row.figure.id == id]
    in_paper = {row.in_paper for row in rows}
    columns = 4 if len(in_paper) == 1 else 5
    cells = [(f"{row.claim.says} ({row.claim.source})", _with_cause(row),
              measured_in_short(row) if row.measured else "", expected(row.claim.expect), row.in_paper)[:columns]
             for row in rows]
    head = ("Claim", "Here", "Ours (95 % interval)", "Expected", "In the paper's setting")[:columns]
    last = [f"In the paper's setting: {in_paper.pop()}."] if columns == 4 else []
    return [_table(head, cells), *last] if rows else []


def _with_cause(row: Verdict) -> str:
    return f"{row.verdict}: {why}" if (why := cause(row)) else row.verdict


def place_tables(
    text: str,  # Markdown of a page
    root: Path,  # root of the repository
    folder: Path | None = None,  # folder of the page; default: nbs
) -> str:
    """Replace the placeholders of tables, such as `<!-- table: figures -->`."""
    up = os.path.relpath(root / "nbs", folder) + "/" if folder else ""
    return TABLE.sub(lambda match: RELATIVE.sub(f"]({up}", TABLES[match[1]](root)), text)


def figures_table(
    root: Path,  # root of the repository
) -> str:
    """Every figure with its command and expected times."""
    head = ("Figure", "Command", *(f"Scale `{scale}`" for scale in HARDWARE))
    rows = [(f"[{_title(figure.notebook)}]({_from_nbs(figure, root)})", f"`ebwm figures run {figure.id}`",
             *(_cell(figure, scale) for scale in HARDWARE)) for figure in figures(root)]
    return f"## Figures\n\n{_table(head, rows)}"


def _cell(figure: Figure, scale: str) -> str:
    """The expected time of a figure at a scale."""
    if not figure.has(scale):
        return "–"
    return f"{time(figure.minutes[scale])} on {HARDWARE[scale]}" if scale in figure.minutes else "not measured"


def findings_table(
    root: Path,  # root of the repository
) -> str:
    """Every finding of the registry, with the numbers on record."""
    rows = [(answer.asks, answer.found, _link(answer.figure, root)) for answer in answers(settings.load(root))]
    return _table(("Question", "Answer", "Figure"), rows)


def headlines(
    root: Path,  # root of the repository
) -> str:
    """The lessons of the home page, as a list."""
    config = settings.load(root)
    known = registry(config)
    short = [lesson.model_copy(update={"found": lesson.home}) for lesson in known.learned if lesson.home]
    return "\n".join(f"- {text} ({_link(figure, root)})." for figure, text in sentences(short, known, config))


def count_of_claims(
    root: Path,  # root of the repository
) -> str:
    """The number of claims by verdict, in one sentence."""
    return tally(settings.load(root))


def gallery(
    root: Path,  # root of the repository
) -> str:
    """Every figure on record: picture, answer, command and time."""
    return "\n\n".join(_entry(figure, root) for figure in figures(root)
                       if (root / "figures" / figure.id / "manifest.json").is_file())


def _entry(figure: Figure, root: Path) -> str:
    folder, link = root / "figures" / figure.id, _from_nbs(figure, root)
    light = [path.name for path in _light(folder)]
    name = f"{figure.id}.png" if f"{figure.id}.png" in light else light[0]
    answer = answer_cell(figure, settings.load(root)).removeprefix(MARK).partition("\n\n")[0] if figure.answer else ""
    picture = f"![{figure.title}](../figures/{figure.id}/{name})"
    parts = [f"## [{_title(figure.notebook)}]({link})", picture, " ".join(answer.split()),
             f"`ebwm figures run {figure.id}`: {_times(figure.minutes)}."]
    return "\n\n".join(filter(None, parts))


def speed(
    root: Path,  # root of the repository
) -> str:
    """Cost relative to the official code, in one sentence, from the recorded benchmark."""
    recorded = json.loads((root / "figures" / "benchmarks" / "benchmarks.json").read_text(encoding="utf-8"))
    cases = [case for case in recorded["cases"] if "official / manual" in case]
    times = lambda kind, ours, theirs: _range([
        case["seconds"][ours]["median"] / case["seconds"][theirs]["median"] for case in cases
        if case["case"]["kind"] == kind and {ours, theirs} <= case["seconds"].keys()])
    ratios = {f"{kind}_{name}": times(kind, *pair) for kind in KINDS for name, pair in PAIRS.items()}
    memory = _range([case["memory"]["manual"] / case["memory"]["official"] for case in cases if "memory" in case])
    worst = max(value for row in recorded["exactness"].values() for value in row.values())
    return SPEED.format(**ratios, memory=memory, exponent=math.ceil(math.log10(worst)))


KINDS = ("training", "generation")
PAIRS = {"cost": ("manual", "Transformer++"), "gain": ("official", "manual")}
SPEED = """\
On one CPU thread the official code takes {training_gain} times as long for a training step, in which this one
  needs {memory} of its memory and agrees with it to 1e{exponent} in float64, and {generation_gain} times as long to
  generate, as it has no KV cache. An EBT still costs
  {training_cost} times the training step of a Transformer++ of the same size, and {generation_cost} times its
  generation ([benchmarks](../figures/benchmarks/table.md)). No GPU has been measured yet."""


def _range(values: list[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}"


TABLES = {"figures": figures_table, "gallery": gallery, "findings": findings_table, "headlines": headlines,
          "policies": policy_tables, "speed": speed, "verdicts": count_of_claims}


def _link(figure: Figure, root: Path) -> str:
    return f"[{figure.id}]({_from_nbs(figure, root)})"


def _from_nbs(figure: Figure, root: Path) -> str:
    return figure.notebook.relative_to(root / "nbs").as_posix()


def _title(notebook: Path) -> str:
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    return "".join(first["source"]).splitlines()[0].lstrip("# ")


def claims_page(
    root: Path,  # root of the repository
) -> str:  # Markdown; empty without a registry
    """Every claim of the papers with its verdict."""
    return ledger(settings.load(root)) if figures(root) else ""


def benchmarks_page(
    root: Path,  # root of the repository
) -> str:  # Markdown; empty without a recorded benchmark
    """Results of the benchmark."""
    folder, up = root / "figures" / "benchmarks", Path("..", "..", "figures", "benchmarks")
    if not (table := folder / "table.md").is_file():
        return ""
    pictures = [f"![{name}]({(up / name).as_posix()}.png)" for name in ("training", "cost")
                if (folder / f"{name}.png").is_file()]
    lead = "Cost of an EBT, measured by `make bench`."
    return "\n\n".join(["# Benchmarks", lead, *pictures, table.read_text()])


def _times(minutes: dict[str, float]) -> str:
    scales = [scale for scale in HARDWARE if scale in minutes]
    return ", ".join(f"{scale} {time(minutes[scale])} on {HARDWARE[scale]}" for scale in scales)


def time(
    minutes: float,  # duration in the registry
) -> str:
    """A duration in seconds or minutes."""
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:g} min"


def _record(path: Path) -> str:
    if not path.is_file():
        return "nothing"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    seeds = seeds_text(manifest["seeds"])
    jobs = " over all jobs" if len(manifest.get("parts") or ()) > 1 else ""
    return f"scale {manifest['scale']}, seeds {seeds}, {_duration(manifest['seconds'])}{jobs} on {manifest['device']}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _pictures(folder: Path, notebook: Path, root: Path) -> list[str]:
    """The pictures on record that the notebook does not show, with paths relative to the notebook."""
    text = (root / notebook).read_text(encoding="utf-8")
    shown = {match[4] for match in PICTURE.finditer(text) if match[3] == folder.name}
    hidden = [path for path in _light(folder) if path.stem not in shown]
    up = os.path.relpath(Path("figures"), notebook.parent)
    return [f"![{p.stem.replace('_', ' ')}]({Path(up, folder.name, p.name).as_posix()})" for p in hidden]


def _light(folder: Path) -> list[Path]:
    """The pictures of a record for the light theme."""
    return sorted(path for path in folder.glob("*.png") if not path.stem.endswith("-dark"))


def place_pictures(
    text: str,  # Markdown
    page: Path,  # path of its notebook
    root: Path,  # root of the repository
    out: Path,  # folder of the pages
) -> str:
    """Copy pictures on record to the pages; a picture with a dark variant is shown by theme."""
    up = os.path.relpath(root / "nbs", page.parent)

    def place(match: re.Match) -> str:
        words, _, id, name = match.groups()
        light, dark = "{.only-light}", "{.only-dark}"
        pair = {f"{name}.png": light, f"{name}-dark.png": dark, f"{name}.gif": light, f"{name}-dark.gif": dark}
        found = [file for file in pair if (root / "figures" / id / file).is_file()]
        for file in found:
            (out / "record" / id).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / "figures" / id / file, out / "record" / id / file)
        shown = (f"![{words}]({Path(up, 'record', id, file).as_posix()})" for file in found)
        kinds = (pair[file] if len(found) == 2 else "" for file in found)
        return "\n".join(map("".join, zip(shown, kinds, strict=True))) or match[0]

    return PICTURE.sub(place, text)
