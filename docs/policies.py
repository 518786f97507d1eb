"""The settings of policies in the figures, as tables."""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ebwm.figures.experiment.robots import KINDS, chosen_settings
from ebwm.figures.manifest import load_manifest
from ebwm.policy.models import LEVELS
from ebwm.policy.policies import PolicySettings
from ebwm.policy.predictors import Diffusion
from ebwm.policy.walk import PRESETS, PolicyWalk

COMPARED = {"policy_steps": "Meta-World", "policy_tasks": "robosuite"}  # figures with trials
HEAD = ("Simulator", "Policy", "Updates", "Learning rate", "Weight decay", "Average of weights", "Steps in training",
        "Steps of a prediction", "Own settings")
PRESETTINGS = (
    "The presets of EBT-Policy's walk, where they differ; their meaning is in [the walk](policy/01_walk.ipynb). "
    "`paper` and `authors` are templates of the authors' code, at the date of the paper and at its last commit. "
    "Where nothing is set, the step size is measured on a batch, and a prediction takes the most steps of "
    "training.")


def settings_tables(
    root: Path,  # root of the repository
) -> str:  # Markdown, relative to nbs
    """What each kind of policy was trained with, from trials on record, and the presets of EBT-Policy's walk."""
    chosen = {name: dict(_chosen(root / "figures" / id)) for id, name in COMPARED.items()}
    rows = [_row(name, kind, options) for name, found in chosen.items() for kind, options in found.items()]
    return "\n\n".join(["## Settings of the policies", _shared(chosen), _table(HEAD, rows), PRESETTINGS, _presets()])


def _chosen(record: Path) -> Iterator[tuple[str, PolicySettings]]:
    """The settings of each kind in a figure on record, by its name."""
    parameters = load_manifest(record)["parameters"]["effective"]
    trials = json.loads((record / "tuning.json").read_text(encoding="utf-8"))
    for kind, name in KINDS.items():
        yield name, chosen_settings(parameters, trials, kind)


def _shared(chosen: dict[str, dict[str, PolicySettings]]) -> str:
    """What all kinds have in common."""
    found = [options for by_kind in chosen.values() for options in by_kind.values()]
    same = {SHARED.format(**{name: getattr(options, name) for name in NAMES}) for options in found}
    simulators = [f"{name} ([{id}](figures/{id}.ipynb))" for id, name in COMPARED.items()]
    return (f"All kinds have the same trunk and data: {'; or '.join(sorted(same))}. As many trials for each kind, on "
            "further demonstrations, chose the learning rate, the weight decay or average of weights, and the kind's "
            f"own settings, for {' and '.join(simulators)}.")


NAMES = ("depth", "dim", "trunk", "batch", "observe", "predict", "execute")
SHARED = ("{depth} layers of width {dim} (`{trunk}`), batches of {batch} windows, {observe} observations, chunks of "
          "{predict} actions of which {execute} are executed")


def _row(simulator: str, name: str, found: PolicySettings) -> tuple[Any, ...]:
    walk = found.walk
    usual = inspect.signature(Diffusion).parameters["steps"].default
    drawn = f"{walk.least} to {walk.most}" if walk.most > walk.least else walk.most
    steps = {"ebt": (drawn, walk.predicted or walk.most),
             "diffusion": (f"{LEVELS} levels", found.steps or usual)}.get(found.kind, (1, 1))
    loss = f"loss on {'all steps' if walk.every else 'the last step'}"
    own = {"ebt": f"normalise={walk.normalise}, factor={walk.factor:g}, {loss}",
           "diffusion": f"output={found.output}"}.get(found.kind, "")
    return (simulator, name, f"{found.updates:,}", f"{found.learning_rate:g}", f"{found.weight_decay:g}",
            f"{found.average:g}", *steps, own)


def _presets() -> str:
    """The settings in which presets of the walk differ."""
    values = {field.name: [getattr(walk, field.name) for walk in PRESETS.values()] for field in fields(PolicyWalk)}
    rows = [(f"`{name}`", *map(_shown, found)) for name, found in values.items() if len(set(found)) > 1]
    return _table(("Setting", *[f"`{name}`" for name in PRESETS]), rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " to ".join(map(_shown, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)
