"""The settings of policies in the figures, as tables of the page "Results"."""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ebwm.figures.manifest import load_manifest
from ebwm.figures.registry import Registry
from ebwm.settings import Settings

if TYPE_CHECKING:
    from ebwm.policy.policies import PolicySettings

__all__ = ["settings_of_policies"]

COMPARED = {"policy_steps": "Meta-World", "policy_tasks": "robosuite"}  # figures with trials, whose settings others use too
HEAD = ("Simulator", "Policy", "Updates", "Learning rate", "Weight decay", "Average of weights", "Steps in training",
        "Steps of a prediction", "Own settings")


def settings_of_policies(
    known: Registry,
    config: Settings,  # settings in effect
) -> list[str]:  # paragraphs in Markdown, relative to nbs/guides; none without these figures on record
    """What each kind of policy was trained with, from trials on record, and the presets of EBT-Policy's walk."""
    chosen = {name: dict(_chosen(id, config)) for id, name in COMPARED.items()
              if id in known.figures and (config.figures / id / "tuning.json").is_file()}
    if not chosen:
        return []
    rows = [_row(name, kind, options) for name, found in chosen.items() for kind, options in found.items()]
    return ["## Settings of the policies", _shared(chosen), _table(HEAD, rows), PRESETTINGS, _presets()]


PRESETTINGS = ("The presets of EBT-Policy's walk, where they differ; their meaning is in [the walk](../policy/01_walk.ipynb). "
               "`paper` and `authors` are templates of the authors' code, at the date of the paper and at its last commit. Where "
               "nothing is set, the step size is measured on a batch, and a prediction takes the most steps of training.")


def _chosen(id: str, config: Settings) -> Iterator[tuple[str, "PolicySettings"]]:
    """The settings of each kind in a figure on record, by its name."""
    from ebwm.figures.experiment.robots import KINDS, chosen_settings
    from ebwm.figures.experiment.runs import Experiment

    recorded = Experiment.__new__(Experiment)  # without a run: of it only the parameters are asked for
    recorded.parameters = load_manifest(config.figures / id)["parameters"]["effective"]
    trials = json.loads((config.figures / id / "tuning.json").read_text(encoding="utf-8"))
    for kind, name in KINDS.items():
        yield name, chosen_settings(recorded, trials, kind)


def _shared(chosen: dict[str, dict[str, "PolicySettings"]]) -> str:
    """What all kinds have in common."""
    same = {(found.trunk, found.depth, found.dim, found.batch, found.observe, found.predict, found.execute)
            for by_kind in chosen.values() for found in by_kind.values()}
    said = [f"{depth} layers of width {dim} (`{trunk}`), batches of {batch} windows, {observe} observations, chunks of {predict} "
            f"actions of which {execute} are executed" for trunk, depth, dim, batch, observe, predict, execute in sorted(same)]
    return (f"All kinds have the same trunk and data: {'; or '.join(said)}. Seven trials of each kind on further demonstrations "
            f"chose the learning rate, the weight decay or average of weights, and the kind's own settings, for "
            f"{' and '.join(f'{name} ([{id}](../figures/{id}.ipynb))' for id, name in COMPARED.items() if name in chosen)}.")


def _row(simulator: str, name: str, found: "PolicySettings") -> tuple[Any, ...]:
    from ebwm.policy.models import LEVELS
    from ebwm.policy.predictors import Diffusion

    walk = found.walk
    usual = inspect.signature(Diffusion).parameters["steps"].default
    steps = {"ebt": (f"{walk.least} to {walk.most}" if walk.most > walk.least else walk.most, walk.predicted or walk.most),
             "diffusion": (f"{LEVELS} levels", found.steps or usual)}.get(found.kind, (1, 1))
    own = {"ebt": f"normalise={walk.normalise}, factor={walk.factor:g}, loss on {'all steps' if walk.every else 'the last step'}",
           "diffusion": f"output={found.output}"}.get(found.kind, "")
    return (simulator, name, f"{found.updates:,}", f"{found.learning_rate:g}", f"{found.weight_decay:g}",
            f"{found.average:g}", *steps, own)


def _presets() -> str:
    """The settings in which presets of the walk differ."""
    from ebwm.policy.walk import PRESETS, PolicyWalk

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
