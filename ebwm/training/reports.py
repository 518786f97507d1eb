"""Reports on training runs: list, show, compare."""

import contextlib
import math
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from safetensors import SafetensorError, safe_open

from ebwm.data.configs import CONFIGS
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.configuration import ENERGY_MODELS, Config, as_dict, flat
from ebwm.training.history import Run, history, read
from ebwm.training.presets import PRESETS

__all__ = ["compare", "listing", "scores", "show"]

WRITTEN = ("config.json", "log.jsonl", "events.jsonl", "result.json")
MAX_ROWS = 10  # rows of a table
RECENT = 20  # updates over which the loss of a run is averaged


# All runs


def listing(
    runs: Mapping[str, Path],  # folders by name
) -> str:
    """A table of runs, one a line."""
    head = ("run", "data", "model", "recipe", "updates", "state", "loss", "valid", "test", "faults", "last written")
    rows = [_row(name, read(path)) for name, path in runs.items()]
    return _table([head, *rows], "llllrlrrrll")


def _row(name: str, run: Run) -> tuple[str, ...]:
    losses = [run.last.get("loss"), run.last.get("valid_loss"), run.test_loss]
    return (name, _data(run), _model(run), _recipe(run), f"{run.made}/{run.total}", run.state, *map(_number, losses),
            _faults(run), _written(run.path))


def _data(run: Run) -> str:
    """Kind and source of the data, and a seed other than 0."""
    source, seed = run.values.get("data.source"), run.values.get("seed")
    words = run.values.get("data.kind", "?"), Path(str(source)).name if source else "", f"seed {seed}" if seed else ""
    return " ".join(str(word) for word in words if word)


def _model(run: Run) -> str:
    shape = "x".join(str(run.values.get(f"model.{name}", "?")) for name in ("depth", "dim"))
    weights = _weights(run.path)
    return f"{run.values.get('model.kind', '?')} {shape}" + (f", {_short(weights)}" if weights else "")


def _short(count: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _recipe(run: Run) -> str:
    kind = run.values.get("model.kind")
    return run.values.get("recipe.name", "?") if kind is None or kind in ENERGY_MODELS else "-"


def _faults(run: Run) -> str:
    counts = Counter(event["kind"] for event in run.events)
    kinds = ("skipped", "rolled back", "refused")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind]) or "-"


def _written(path: Path) -> str:
    times = [file.stat().st_mtime for name in WRITTEN if (file := path / name).exists()]
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(max(times))) if times else "-"


# One run


def show(
    path: Path,  # of a run
) -> str:
    """Report on a run: configuration, losses, pace, events, and the next command."""
    run, rows = read(path), history(path)
    parts = [_heading(run), _settings(run), _losses(rows, run), _pace(rows), _events(run), _next(run)]
    return "\n\n".join(part for part in parts if part)


def _heading(run: Run) -> str:
    recipe = f", recipe {_recipe(run)}" if _recipe(run) != "-" else ""
    place = f"{run.path}: {run.state}, {run.made} of {run.total} updates, last written {_written(run.path)}"
    return f"{place}\n{_model(run)} weights{recipe}"


def _settings(run: Run) -> str:
    """The entries that differ from those of the most similar preset of the same task."""
    presets = {f"preset {name}": config for name, config in PRESETS.items() if config.data.kind == run.kind}
    starts = presets or {"default": Config(data=CONFIGS[run.kind]())}
    found = [(name, _different(run.values, dict(flat(as_dict(config))))) for name, config in starts.items()]
    name, rows = min(found, key=lambda each: len(each[1]))
    heading = f"Configuration, where it differs from the {name}:"
    return f"{heading}\n{_table(rows, 'lll')}" if rows else f"Configuration of the {name}."


def _different(values: dict[str, Any], start: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Names and values of changed entries, with the values before."""
    return [(f"  {key}", _word(value), f"({_word(start.get(key, 'unknown'))})") for key, value in values.items()
            if key not in start or start[key] != value]


def _word(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


SHOWN = {"update": "update", "loss": "loss", "valid_loss": "valid", "grad_norm": "gradient norm",
         "learning_rate": "learning rate", "step_size": "step size", "energy_gap": "energy gap"}


def _losses(rows: list[dict[str, Any]], run: Run) -> str:
    if not rows:
        return "No updates yet."
    columns = [key for key in SHOWN if any(key in row for row in rows)]
    scored = [row for row in rows if "valid_loss" in row] or rows
    chosen = _few(scored)
    chosen = [rows[0], *chosen] if chosen[0] is not rows[0] else chosen
    chosen += [rows[-1]] if chosen[-1] is not rows[-1] else []
    body = [[_number(row.get(key)) for key in columns] for row in chosen]
    return _table([[SHOWN[key] for key in columns], *body], "r" * len(columns)) + _left_out(scored) + _test(run)


def _left_out(rows: list[Any]) -> str:
    """How many rows of a table are not shown."""
    more = len(rows) - MAX_ROWS
    return f"\n{more} more rows are in log.jsonl." if more > 0 else ""


def _test(run: Run) -> str:
    return f"\n{scores(run)}" if scores(run) else ""


def scores(
    run: Run,  # any run
) -> str:  # a few lines; empty without a test loss
    """The test loss, its description by the task, trivial baselines, whether one of these is better, and a late alarm."""
    if run.test_loss is None:
        return ""
    text = ""
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a summary of other entries
        text = run.task.describe(run.result.get("summary", {}))
    lines = [f"test loss {_number(run.test_loss)}{f' ({text})' if text else ''}"]
    if run.baselines:
        parts = [f"{name} {_number(loss)}" for name, loss in run.baselines.items()]
        lines.append(f"trivial baselines: {', '.join(parts)}")
        best = min(run.baselines, key=run.baselines.get)
        if not run.test_loss < run.baselines[best]:
            lines.append(f"Not better than the trivial baseline {best!r}: train longer, or change "
                         "optimiser.learning_rate or walk.step_size.")
    return "\n".join([*lines, *_late_alarm(run)])


def _late_alarm(run: Run) -> list[str]:
    """The last alarm in the second half of a run, which training has not removed."""
    late = [event for event in run.events if event["kind"] == "alarm" and 2 * event.get("update", 0) >= run.made]
    return [f"Alarm at update {late[-1]['update']}: {late[-1].get('what', '')}."] if late else []


def _few(rows: list[Any]) -> list[Any]:
    """Evenly spaced rows, with the first and the last."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[round(place * (len(rows) - 1) / (MAX_ROWS - 1))] for place in range(MAX_ROWS)]


def _pace(rows: list[dict[str, Any]]) -> str:
    """Medians over updates, because the first update of a process takes longer."""
    if not rows:
        return ""
    seconds = sum(row.get("seconds", 0) for row in rows)
    memory = max((row["peak_mib"] for row in rows if "peak_mib" in row), default=None)
    values = (("{:.4g} items/s", _median(rows, "items_per_second")), ("peak memory {} MiB", memory),
            ("{:.1%} of the measured peak of matrix products", _median(rows, "flops_utilisation")))
    parts = [form.format(value) for form, value in values if value is not None]
    return f"Pace: {', '.join([*parts, f'{_duration(seconds)} in updates'])}"


def _median(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return median(values) if values else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _events(run: Run) -> str:
    if not run.events:
        return "No events."
    counts = Counter(event["kind"] for event in run.events)
    rows = [(f"  update {e['update']}", e["kind"], str(e.get("what", ""))) for e in run.events]
    earlier = len(rows) - MAX_ROWS
    more = f"  ... {earlier} earlier\n" if earlier > 0 else ""
    total = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"Events: {total}\n{more}{_table(rows[-MAX_ROWS:], 'lll')}"


def _next(run: Run) -> str:
    if run.running:
        return "The run is in progress; SIGINT or SIGTERM stops it after the current update and saves it."
    if run.state == "unreadable":
        return f"{run.path / 'config.json'} is not a configuration in JSON."
    if run.state == "finished":
        loaded = f"Load the model, and the task with its units: ebwm.training.learner.load_run({str(run.path)!r})"
        return "\n".join(filter(None, (loaded, run.task.usage(run.path))))
    if Checkpoints(run.path / "checkpoints").all():
        return f"Resume: ebwm train --resume {shlex.quote(str(run.path))}"
    again = f"ebwm train {shlex.quote(str(run.path / 'config.json'))}"
    return f"There is no checkpoint to resume from; start again: {again}"


# Several runs


def compare(
    folders: Mapping[str, Path],  # of runs, by name
) -> str:
    """Compare runs: different entries of their configurations, and their losses."""
    runs = {name: read(path) for name, path in folders.items()}
    logs = {name: history(run.path) for name, run in runs.items()}
    parts = [_differing(runs) if len(runs) > 1 else "", _outcomes(runs, logs), _validation(logs)]
    return "\n\n".join(part for part in parts if part)


def _differing(runs: dict[str, Run]) -> str:
    keys = dict.fromkeys(key for run in runs.values() for key in run.values)
    values = {key: [_word(run.values.get(key, "-")) for run in runs.values()] for key in keys}
    rows = [(key, *row) for key, row in values.items() if len(set(row)) > 1]
    if not rows:
        return "The configurations are the same."
    return _table([("configuration", *runs), *rows], "l" * (1 + len(runs)))


def _outcomes(runs: dict[str, Run], logs: dict[str, list[dict[str, Any]]]) -> str:
    losses = (f"loss of last {RECENT}", "best valid", "at update", "last valid", "test")
    rows = [(name, *_outcome(run, logs[name])) for name, run in runs.items()]
    return _table([("run", "updates", "state", *losses, "items/s"), *rows], "lrlrrrrrr")


def _outcome(run: Run, rows: list[dict[str, Any]]) -> list[str]:
    losses = [row["loss"] for row in rows[-RECENT:] if "loss" in row]
    scored = [row for row in rows if math.isfinite(row.get("valid_loss", math.nan))]
    best = min(scored, key=lambda row: row["valid_loss"], default={})
    values = [fmean(losses) if losses else None, best.get("valid_loss"), best.get("update"),
              run.last.get("valid_loss"), run.test_loss, _median(rows, "items_per_second")]
    return [f"{run.made}/{run.total}", run.state, *map(_number, values)]


def _validation(logs: dict[str, list[dict[str, Any]]]) -> str:
    """Validation losses at the updates that all runs have."""
    scored = ([row for row in rows if "valid_loss" in row] for rows in logs.values())
    found = [{row["update"]: row["valid_loss"] for row in rows} for rows in scored]
    shared = sorted(set.intersection(*map(set, found)))
    if not shared:
        return "No update has a validation loss in all runs."
    rows = [(str(update), *(_number(losses[update]) for losses in found)) for update in _few(shared)]
    return _table([("valid at update", *logs), *rows], "r" * (1 + len(logs))) + _left_out(shared)


# Text


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _table(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Align columns: "l" or "r" for each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.ljust(width) if side == "l" else cell.rjust(width)
              for cell, width, side in zip(row, widths, sides, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in cells)


def _weights(path: Path) -> int | None:
    """Number of weights of a run's model, from the header of its newest file."""
    files = {path / "model.safetensors": ""}
    files |= dict.fromkeys(reversed(Checkpoints(path / "checkpoints").all()), "model.")
    for file, prefix in files.items():
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, "pt") as tensors:
            chosen = [name for name in tensors.keys() if name.startswith(prefix)]
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in chosen)
    return None
