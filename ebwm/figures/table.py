"""Table of all figures: state, command, and what is on record."""

import textwrap

from ebwm import settings
from ebwm.figures.errors import FigureError
from ebwm.figures.job import up_to_date
from ebwm.figures.ledger import staleness
from ebwm.figures.manifest import MANIFEST, load_manifest
from ebwm.figures.plan import checked_scale, jobs_of, plan
from ebwm.figures.registry import Figure, registry
from ebwm.settings import Settings

__all__ = ["table"]

COLUMNS = 100


def table(
    scale: str | None = None,  # scale of the expected times; default: the settings' scale
    config: Settings | None = None,  # default: the settings in effect
) -> str:
    """All figures of the registry: expected time, command, last run and record."""
    config = config or settings.load()
    scale, known = checked_scale(scale or config.scale), registry(config)
    rows = [_row(figure, scale, config) for figure in known.figures.values()]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    lines = [line for row in rows for line in _lines(row, widths)]
    if known.planned:
        names = f"planned: {', '.join(known.planned)}"
        lines += ["", *textwrap.wrap(names, COLUMNS, subsequent_indent=" " * len("planned: "))]
    return "\n".join(lines)


def _row(figure: Figure, scale: str, config: Settings) -> tuple[str, str, str, str]:
    command = f"ebwm figures run {figure.id}" + (f" --scale {scale}" if scale != config.scale else "")
    details = f"{_last_run(figure, scale, config)}; {_on_record(figure, config)}"
    return figure.id, _duration(figure.minutes.get(scale)), command, f"{figure.title} ({details})"


def _last_run(figure: Figure, scale: str, config: Settings) -> str:
    """Whether there is a run at a scale, with the registry's parameters and the present code."""
    if not (figure.has(scale) and (config.figures / figure.id / "runs" / scale / MANIFEST).is_file()):
        return f"no run at scale {scale}"
    job = jobs_of(plan(figure.id, scale, config=config, means=False))[-1]
    return f"run at scale {scale}: {'up to date' if up_to_date(job) else 'other parameters or older code'}"


def _on_record(figure: Figure, config: Settings) -> str:
    path = config.figures / figure.id / MANIFEST
    if not path.is_file():
        return "nothing on record"
    try:
        manifest = load_manifest(path.parent)
    except FigureError:
        return "on record, but damaged: ebwm figures check"
    return f"on record at scale {manifest['scale']}{', stale' if staleness(figure, manifest, config) else ''}"


def _lines(row: tuple[str, str, str, str], widths: list[int]) -> list[str]:
    id, state, where, title = row
    head = f"{id:<{widths[0]}}  {state:<{widths[1]}}  {where}"
    return [head, *textwrap.wrap(title, COLUMNS, initial_indent="    ", subsequent_indent="    ")]


def _duration(minutes: int | float | None) -> str:
    if minutes is None:
        return "time unknown"
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
