"""Settings whose best value is the smallest or largest one tried, and whether the next value is better."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import settings
from ebwm.figures.trials import BEYOND, GRID, MEASURED, TUNING, best, beyond, by_kind, values_of
from ebwm.settings import Settings

__all__ = ["End", "Ends", "ends", "table_of_ends"]


class End(NamedTuple):
    """A setting whose best value is at an end of those tried."""

    figure: str
    kind: str  # of model, recipe, ...
    setting: str
    value: float  # best of those tried
    further: float  # the next value in that direction
    losses: tuple[float | None, float | None] | None  # on validation, with each; None within: diverged; None: not tried

    @property
    def better(self) -> bool:
        """Whether the next value has the lower loss."""
        return self.losses is not None and self.losses[1] is not None and (
            self.losses[0] is None or self.losses[1] < self.losses[0])


class Ends(NamedTuple):
    """All settings at an end."""

    choices: int  # settings chosen among three values or more, of all kinds and figures
    rows: list[End]


def ends(
    config: Settings | None = None,  # default: the settings in effect
) -> Ends:
    """The settings at an end in the trials of all figures, with the further trials of `ebwm figures tune ID --beyond`."""
    config = config or settings.load()
    choices, rows = 0, []
    for path in sorted(config.figures.glob(f"*/{TUNING}")):
        further = _read(path.with_name(BEYOND)).get("trials", {})
        for kind, trials in by_kind(_read(path)["trials"]).items():
            choices += sum(len(values_of(trials, name)) >= GRID for name in best(trials))
            rows += _ends_of(path.parent.name, kind, trials, further.get(kind, []))
    return Ends(choices, rows)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _ends_of(figure: str, kind: str, trials: list[dict[str, Any]], further: list[dict[str, Any]]) -> Iterator[End]:
    """The ends of one kind; further trials count only if they repeat the best trial on record."""
    chosen = best(trials)
    repeated, *others = further or [{}]
    same = all(repeated.get(name) == chosen[name] for name in chosen.keys() - {*MEASURED})
    found = {row["beyond"]: row for row in others if same}
    for name, value in beyond(trials).items():
        row = found.get(name)
        losses = (repeated["valid_loss"], row["valid_loss"]) if row and row[name] == value else None
        yield End(figure, kind, name, chosen[name], value, losses)


def table_of_ends(
    found: Ends,  # of all figures
) -> list[str]:  # paragraphs in Markdown: a summary, and a table of the further trials
    """What the further trials found, in words and as a table."""
    tried = [row for row in found.rows if row.losses]
    better = [row for row in tried if row.better]
    text = (f"Settings are chosen by trials on validation data. Of {found.choices} choices among three values or more, "
            f"{len(found.rows)} are the smallest or the largest of them. The next value in that direction was tried for "
            f"{len(tried)} of these, with the best of the other settings and one seed: its validation loss is lower for {len(better)}"
            f"{_by_how_much(better)}. The records keep the chosen "
            "values, unless the page of the figure says otherwise.")
    lines = ["| figure | model | setting | chosen | next | loss | with the next |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row.figure} | {row.kind} | {row.setting} | {_short(row.value)} | {_short(row.further)} | "
              f"{_loss(row.losses[0])} | {_loss(row.losses[1])}{' (lower)' if row.better else ''} |" for row in tried]
    return [text, *(["\n".join(lines)] if tried else [])]


def _by_how_much(better: Sequence[End]) -> str:
    """The largest relative decrease."""
    shares = [1 - further / loss for loss, further in (row.losses for row in better) if loss]
    return f", by at most {100 * max(shares):.0f} %" if shares else ""


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _loss(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4g}"
