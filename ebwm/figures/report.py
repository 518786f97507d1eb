"""The ledger of the papers' claims, and the pages "Results" and "What we learned", in Markdown."""

import html
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ebwm import settings
from ebwm.figures.carried import carried
from ebwm.figures.claims import VERDICTS, Measured, Verdict, agreed, expected, shown, verdicts
from ebwm.figures.ends import ends, table_of_ends
from ebwm.figures.findings import answers, stated, with_run
from ebwm.figures.registry import Figure, Lesson, Planned, Registry, StandIn, registry
from ebwm.figures.style import seeds_text
from ebwm.files import write_whole
from ebwm.settings import Settings

__all__ = ["PAGES", "cause", "learned", "ledger", "measured_in_short", "results", "sentences", "tally", "write_pages"]

WIDTH = 100
CLAUSE = re.compile(r".+?(?=[,:;] | \(|\. |$)")  # the beginning of a sentence that stands for itself
LIKELY = 0.05  # share of 95 % intervals that miss the value

RULES = (
    "**Here** is our setting: small models on stand-ins for the papers' data, at the scale on record. A claim is reproduced "
    "here where the whole 95 % interval of our statistic lies where the claim expects it, not reproduced where none of it does, "
    "and undecided otherwise. Where a slope has an interval over seeds and one of its fit, both must agree. A statistic "
    "without an interval decides as a number. Bounds other than 0, and margins around a printed value, are ours. Where the paper "
    "trains the two models on different data or noise, the same difference is also measured with both trained alike; a claim that is "
    "reproduced in the paper's comparison alone is counted separately, as reproduced, but not trained alike. How loss scales stays "
    "undecided where models predict worse than a trivial rule; other checks of a comparison that fail are named beside the claim. "
    "Where a rule was changed after a result had been seen, the claim says so, with the verdict before.",
    "**Carried over changes of code** means that the run is older than the present code: after each change, runs at scale `smoke` "
    "with the old and the new code gave the same tables, which proves nothing of code that only runs at larger scales.",
    "**In the paper's own setting** a claim is not tested where a named data set, weight or machine is missing; the command that "
    "comes closest stands beside it, and `make test` runs its figure at scale `smoke`. A stand-in decides no claim about the "
    "paper's setting, whichever way it comes out.",
)


def ledger(
    config: Settings | None = None,  # default: the settings in effect
) -> str:  # Markdown
    """Every claim with what the paper says, what is measured and the verdict; stand-ins; the papers' figures and tables."""
    config = config or settings.load()
    known, rows = registry(config), verdicts(config)
    models, arithmetic = _split(rows)
    parts = ["# Claims of the papers", *map(_wrapped, _summary(models, arithmetic)), *map(_wrapped, RULES),
             "## Claims about models"]
    for paper, members in _by_paper(models, known):
        parts += [f"### {paper}", _table(members), *(_item(row, known, config) for row in members)]
    if arithmetic:
        parts += ["## Arithmetic on the papers' own points", _wrapped(ARITHMETIC), _table(arithmetic)]
    parts += ["## How far the stand-ins are from the papers' settings", *_distances(known, config),
              "## Choice of settings", *_choices(config), "## Figures and tables of the papers", *_coverage(known)]
    return "\n\n".join(parts)


ARITHMETIC = ("These are about the numbers that the paper prints, not about models: the percentage is computed again from the "
              "points of its figures.")


def _split(rows: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """Claims about models, and arithmetic."""
    return tuple([row for row in rows if row.claim.about == about] for about in ("models", "arithmetic"))


def _summary(models: Sequence[Verdict], arithmetic: Sequence[Verdict]) -> Iterator[str]:
    """Counts, and what they do not account for."""
    in_paper = Counter(row.in_paper for row in models)
    intervals = {(row.figure.id, one.path) for row in models for one in row.measured[:1] if one.low < one.high}
    yield f"{len(models)} claims about models. In our setting: {_counts(models)}. In the papers' own settings: " + (
        "; ".join(f"{count} {name}" for name, count in in_paper.items()) or "none") + "."
    if intervals:
        missed = LIKELY * len(intervals)
        yield (f"The verdicts are not corrected for their number: of {len(intervals)} intervals at 95 %, about {missed:.1f} are "
               "expected to miss the value that they estimate. Claims of one figure share its runs, so they are not independent.")
    if arithmetic:
        yield f"Apart from these, {len(arithmetic)} statements are arithmetic on the papers' own points: {_counts(arithmetic)}."


def _counts(rows: Sequence[Verdict]) -> str:
    counts = Counter(row.verdict for row in rows)
    return "; ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name]) or "none"


def _by_paper(rows: Sequence[Verdict], known: Registry) -> Iterator[tuple[str, list[Verdict]]]:
    """Claims by the paper with which their source begins."""
    names = {paper.name: f"{paper.name} (arXiv:{paper.arxiv})" for paper in known.papers}
    of = lambda row: re.match(r"[\w-]*", row.claim.source)[0]
    for name in dict.fromkeys([*names, *map(of, rows)]):
        if members := [row for row in rows if of(row) == name]:
            yield names.get(name, name), members


# Parts of a claim


def measured_in_short(
    row: Verdict,  # on a claim
) -> str:
    """The statistic in short, with all its intervals; those of the same value without it."""
    if not row.measured:
        return "none"
    first, *others = dict.fromkeys(map(shown, row.measured))
    value, *interval = first.partition(" (")
    same = lambda other: any(interval) and other.startswith(f"{value} (")
    return ", ".join([first, *(f"also {other.removeprefix(value).strip() if same(other) else other}" for other in others)])


def cause(
    row: Verdict,  # on a claim
) -> str:  # empty where the first interval shows it
    """Why a measured claim is undecided, in short: the first clause of its reason, or that its statistics disagree."""
    if row.verdict != "undecided" or not row.measured:
        return ""
    if row.reason:
        return CLAUSE.match(row.reason)[0]
    first, *others = (agreed(row.claim, [item]) for item in row.measured)
    if first == "undecided" or {*others} <= {first}:
        return ""
    return "the values disagree" if {*others} - {first, "undecided"} else "the further interval leaves it open"


def _statistic(row: Verdict, whole: bool) -> str:
    """What is measured, where the claim expects it, and how this compares with the paper's value; of the whole, with paths."""
    reason = row.reason[:1].upper() + row.reason[1:]
    if not row.measured:
        return reason
    first, *others = row.measured
    words = "" if whole else row.claim.measures
    number = _with_level if words else lambda item: f"`{item.path}` = {_with_level(item)}"
    head = f"{words[:1].upper()}{words[1:]}: " if words else ""
    text = f"{head}{number(first)}, expected {expected(row.claim.expect)}"
    text += "".join(f"; {'also ' if words else ''}{number(item)}" for item in others)
    text += f"; trained alike, {' and '.join(map(number, row.alike))}" if row.alike else ""
    if row.claim.printed is not None:
        inside = [item.low <= row.claim.printed <= item.high for item in row.measured]
        place = "inside" if all(inside) else "inside one of them" if any(inside) else "outside"
        text += f"; the paper's {row.claim.printed:g} is {place}"
    return f"{reason}. {text}" if reason else text


def _with_level(measured: Measured) -> str:
    return shown(measured).replace("(", "(95 % interval ") if measured.low < measured.high else f"{shown(measured)}, no interval"


def _record(row: Verdict, whole: bool) -> str:
    """Scale, seeds, duration, machine and command of a record; of the whole, also the changes of code since."""
    if row.manifest is None:
        return f"Figure `{row.figure.id}`"
    made, seeds = row.manifest, row.manifest["seeds"]
    machine = made.get("cpu") if made.get("device") == "cpu" else made.get("device")
    duration = f"{made['seconds'] / 60:.0f} min" if made.get("seconds") else ""
    command = f"`ebwm figures run {row.figure.id} --scale {made['scale']}`"
    if whole:
        parts = [f"Scale {made['scale']}", f"seeds {seeds_text(seeds)}" if seeds else "", machine, duration, carried(made)]
    else:
        count = f", {len(seeds)} seed{'s' * (len(seeds) > 1)}" if seeds else ""
        parts = [f"Scale `{made['scale']}`{count}", f"{duration} over all jobs" if duration else "", machine]
    return ", ".join([*filter(None, parts), command])


def _details(row: Verdict, known: Registry, config: Settings, whole: bool = True) -> Iterator[tuple[str, str]]:
    """Labels and sentences on a claim; of the whole, also paths and changes of code."""
    yield f"Here: {row.verdict}", f"{_statistic(row, whole)}. {_record(row, whole)}."
    if row.claim.note and row.manifest is not None:
        yield "Note", stated(row.claim.note, row.figure, config, f"note of claim {row.claim.name!r}").removesuffix(".") + "."
    if row.claim.revised:
        yield "Rule changed after a result", row.claim.revised.removesuffix(".") + "."
    if row.in_paper == "not tested":
        missing = "" if isinstance(row.figure, Planned) else f"Missing: {row.figure.stand_in.missing}. "
        command = f"Closest run: `{row.claim.command}`." if row.claim.command else f"Figure `{row.figure.id}` is planned."
        yield "In the paper's own setting: not tested", f"{missing}{command}"
    for counter in known.counter_evidence:
        if row.claim.name in counter.claims:
            yield "Others", f"{counter.found} ([{counter.source}]({counter.link}))."


# The ledger


def _wrapped(text: str, indent: str = "", first: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


def _table(rows: Sequence[Verdict]) -> str:
    lines = ["| claim | paper | ours | verdict here |", "|---|---|---|---|"]
    named = lambda row: ": ".join(filter(None, [row.claim.measures if row.measured else "", measured_in_short(row)]))
    return "\n".join([*lines, *(f"| {row.claim.name} | {row.claim.says} ({row.claim.source}) | {named(row)} | {row.verdict} |"
                                for row in rows)])


def _item(row: Verdict, known: Registry, config: Settings) -> str:
    """A claim as an item of a list."""
    lines = [_wrapped(f"**{row.claim.name}** ({row.claim.source}): {row.claim.says}.", "  ", "- ")]
    return "\n".join([*lines, *(_wrapped(f"{label}{'.' if ':' in label else ':'} {text}", "    ", "  - ")
                                for label, text in _details(row, known, config))])


def _distances(known: Registry, config: Settings) -> Iterator[str]:
    for row in {row.figure.id: row for row in verdicts(config)}.values():
        if isinstance(row.figure, Figure) and row.figure.stand_in and row.manifest is not None:
            here, paper = _distance(row, row.figure.stand_in)
            yield _wrapped(f"**{row.figure.id}**. Here: {here}. The paper: {paper}. Missing: {row.figure.stand_in.missing}.",
                           "  ", "- ")


def _distance(row: Verdict, stand_in: StandIn) -> tuple[str, str]:
    """The setting on record, and the paper's."""
    return with_run(stand_in.here, row.manifest, f"figure {row.figure.id!r}: stand_in"), stand_in.paper


def _choices(config: Settings) -> Iterator[str]:
    """How far trials went, and a table of those beyond."""
    summary, *table = table_of_ends(ends(config))
    yield _wrapped(summary)
    yield from table


def _coverage(known: Registry) -> Iterator[str]:
    for paper in known.papers:
        yield f"### Of {paper.name} (arXiv:{paper.arxiv})"
        lines = ["| there | what it shows | here |", "|---|---|---|"]
        for item in paper.items:
            state = "" if item.figure in known.figures else " (planned)"
            here = f"`{item.figure}`{state}" if item.figure else item.reason
            lines.append(f"| {item.item} | {item.shows} | {here} |")
        yield "\n".join(lines)


# The page "Results"


def results(
    config: Settings | None = None,  # default: the settings in effect
) -> str:  # Markdown with folded parts in HTML, relative to nbs/guides
    """The claims by paper in one line each, with details folded below; then the answers of the figures."""
    config = config or settings.load()
    known, rows = registry(config), verdicts(config)
    models, arithmetic = _split(rows)
    parts = ["# Results", "Every claim of the papers, what is measured here, and the verdict in this setting. In five minutes: "
             "[what we learned](learned.md). For programs and reviewers: [the ledger](../../figures/report.md). How comparisons "
             "are made: [protocol](../protocol.ipynb).",
             *_summary(models, arithmetic), *RULES, "Open a claim for intervals, records, commands and counter-evidence."]
    for paper, members in _by_paper(models, known):
        parts += [f"## Claims of {paper}", *(_folded(row, known, config) for row in members)]
    if arithmetic:
        parts += ["## Arithmetic on the papers' own points", ARITHMETIC, *(_folded(row, known, config) for row in arithmetic)]
    asked = [f"- **{answer.asks}** {answer.found} ([{answer.figure.id}]({_notebook(answer.figure, config)}))."
             for answer in answers(config)]
    summary, *tables = table_of_ends(ends(config))
    parts += ["## Choice of settings", summary]
    parts += ["\n\n".join(["<details><summary>Further trials</summary>", *tables, "</details>"])] if tables else []
    parts += ["## Questions", "\n".join(asked), "<!-- table: policies -->", "<!-- table: figures -->",
              "The manifest of each record states its scale, seeds, versions and machine."]
    return "\n\n".join(parts)


APART = '<span class="apart"> · </span>'  # between the parts of a line, where no style sheet sets them apart


def _folded(row: Verdict, known: Registry, config: Settings) -> str:
    """A claim as one line, and its details below."""
    kind = row.verdict.replace(",", "").replace(" ", "-")
    cells = {"source": row.claim.source, "says": row.claim.says, "ours": measured_in_short(row)}
    shown_cells = {name: html.escape(text, quote=False) for name, text in cells.items()}
    if row.measured:
        shown_cells["ours"] += f'{APART}<span class="expected">expected {expected(row.claim.expect)}</span>'
    if why := cause(row):
        shown_cells["ours"] += f'{APART}<span class="cause">undecided: {html.escape(why, quote=False)}</span>'
    head = APART.join([f'<b class="verdict {kind}">{row.verdict}</b>',
                       *(f'<span class="{name}">{text}</span>' for name, text in shown_cells.items() if text)])
    lines = [f"- **{label}.** {text}" for label, text in _details(row, known, config, whole=False)]
    if isinstance(row.figure, Figure):
        lines.append(f"- **Figure.** [{row.figure.id}]({_notebook(row.figure, config)}): {row.figure.title}.")
        if row.figure.stand_in and row.manifest is not None:
            here, paper = _distance(row, row.figure.stand_in)
            lines[-1:-1] = [f"- **Distance.** Here: {here}. The paper: {paper}."]
    return "\n".join([f'<details class="claim"><summary>{head}</summary>', "", *lines, "", "</details>"])


def _notebook(figure: Figure, config: Settings) -> str:
    """Address of a figure's notebook, relative to nbs/guides."""
    return f"../{figure.notebook.relative_to(config.root / 'nbs').as_posix()}"


# The page "What we learned"

TOPIC, EMPHASISED = re.compile(r"^([^:.]{3,60}:)"), r"*\1*"  # the words before the colon with which a lesson begins


def learned(
    config: Settings | None = None,  # default: the settings in effect
) -> str:  # Markdown, relative to nbs/guides
    """What an EBT is good for as measured here, what not, and what is undecided."""
    config = config or settings.load()
    known = registry(config)
    lessons = {group: [lesson for lesson in known.learned if lesson.group == group]
               for group in Lesson.model_fields["group"].annotation.__args__}
    parts = ["# What we learned", LEARNED]
    for group, members in lessons.items():
        if members:
            said = [f"{text} ([{figure.id}]({_notebook(figure, config)}))." for figure, text in sentences(members, known, config)]
            parts += [f"## {group}", said[0] if len(said) == 1
                      else "\n".join(f"- {TOPIC.sub(EMPHASISED, text)}" for text in said)]
    return "\n\n".join([*parts, f"{tally(config)} [All results](results.md)."])


def tally(
    config: Settings | None = None,  # default: the settings in effect
) -> str:
    """The number of claims about models by verdict, in one sentence."""
    rows = _split(verdicts(config or settings.load()))[0]
    return f"Of {len(rows)} claims of the papers about models, here: {_counts(rows)}."


LEARNED = (
    "Should I use an Energy-Based Transformer (EBT)? All of this is about small models, trained on small public data in place of the "
    "papers'; in parentheses are 95 % intervals. It decides nothing about models of the papers' size.")


def sentences(
    lessons: Sequence[Lesson],  # of the registry
    known: Registry,
    config: Settings,  # settings in effect
) -> Iterator[tuple[Figure, str]]:
    """The figure and the sentence of each lesson, without its full stop, with the numbers on record."""
    for lesson in lessons:
        figure = known[lesson.figure]
        yield figure, stated(lesson, figure, config, f"lesson {lesson.found[:30]!r}").removesuffix(".")


PAGES: dict[str, Callable[[Settings], str]] = {  # by path in the repository
    "figures/report.md": ledger, "nbs/guides/results.md": results, "nbs/guides/learned.md": learned}


def write_pages(
    config: Settings | None = None,  # default: the settings in effect
) -> list[Path]:  # the files
    """Write the ledger and the two pages into the repository."""
    config = config or settings.load()
    texts = {config.root / name: page(config) for name, page in PAGES.items()}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda draft, text=text: draft.write_text(text + "\n", encoding="utf-8"))
    return list(texts)
