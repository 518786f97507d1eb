"""Success rates and settings of the policies in the figures, as tables."""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ebwm.figures.experiment.robots import KINDS, chosen_settings
from ebwm.figures.findings import with_numbers
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


SHIFTS = {"none": "undisturbed", "noise": "noise on observations", "slow": "slower motion", "fast": "faster motion",
          "push": "a push in mid-episode", "early push": "a push before the hand is there", "drop": "the object drops",
          "block": "actions have no effect for a while"}


def policy_tables(
    root: Path,  # root of the repository
) -> str:  # Markdown, relative to nbs
    """Success rates of all policies in all figures, their settings, and success rates of the scripted experts."""
    return f"{success_table(root)}\n\n{settings_tables(root)}\n\n{experts_table(root)}"


def success_table(
    root: Path,  # root of the repository
) -> str:  # Markdown, relative to nbs
    """The success rate of each policy in each setting on record, with its interval."""
    found = [*_rates(root / "figures")]
    rows = [(f"[{setting}](figures/{id}.ipynb)", *(_rate(rates.get(kind)) for kind in KINDS))
            for id, setting, rates in found]
    return "\n\n".join(["## Success rates of policies", RATES.format(processors=_processors(root, found)),
                        _table(("Setting", *KINDS.values()), rows)])


RATES = (
    "Shares of the episodes, with 95 % intervals over seeds and episodes. Without another number, a policy makes as "
    "many steps as in its training, diffusion 16, cloning and the mixture one. Pick-place with 10 or 20 and Lift with "
    "20 demonstrations stand in two rows each, undisturbed: demonstrations, seeds, settings and initial states are the "
    "same. Where such rows differ, the policies were trained on processors that round differently ({processors}), and "
    "training multiplies such differences.")


def _processors(root: Path, found: Sequence[tuple[str, str, Any]]) -> str:
    """The processors of the records, with the figures made on each."""
    by_name: dict[str, list[str]] = {}
    for id in dict.fromkeys(id for id, *_ in found):
        by_name.setdefault(load_manifest(root / "figures" / id)["cpu"], []).append(f"`{id}`")
    return "; ".join(f"{name}: {', '.join(ids)}" for name, ids in by_name.items())


def _rate(interval: dict[str, float] | None) -> str:
    return "–" if interval is None else with_numbers("{rate:.2f}", {"rate": interval}, "success rate")


def _rates(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The figure, the setting, and the intervals by kind of policy."""
    def of(id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        record = load_manifest(folder / id)
        return record["results"]["success"], record["parameters"]["effective"]

    by = lambda found, key: {kind: values[key] for kind, values in found.items() if key in values}
    found, used = of("policy_steps")
    place = f"pick-place, {used['demonstrations']} demonstrations"
    once = by(found, "steps_1")
    one_pass = {kind: once[kind] for kind in ("cloning", "mixture")}
    yield "policy_steps", f"{place}, in 2 steps (cloning, mixture: in one pass)", by(found, "steps_2") | one_pass
    yield "policy_steps", f"{place}, diffusion in 100 steps", by(found, "steps_100")
    found, used = of("policy_data")
    for style, rates in found.items():
        of_whom = "" if style == "clean" else f" of a {style} expert"
        for count in used["counts"]:
            yield "policy_data", f"pick-place, {count} demonstrations{of_whom}", by(rates, f"count_{count}")
    for id, task in (("policy_shift", "pick-place"), ("policy_recovery", "Lift")):
        found, used = of(id)
        for key, words in SHIFTS.items():
            if key in found["ebt"]:
                yield id, f"{task}, {used['demonstrations']} demonstrations, {words}", by(found, key)
    found, used = of("policy_tasks")
    for name, count in zip(used["simulators"], used["demonstrations"], strict=True):
        task = name.partition(":")[2]
        yield "policy_tasks", f"{task}, {count} demonstrations", by(found, task)


def experts_table(
    root: Path,  # root of the repository
) -> str:  # Markdown
    """The success rates of the experts, as measured by `python -m benchmarks.experts`."""
    measured = (root / "figures/benchmarks/experts.md").read_text(encoding="utf-8").strip()
    about = ("Demonstrations are episodes of scripted experts; those that fail are left out. The figures use experts "
             "as they are; `ebwm policy demos --style clumsy` records clumsy ones. `python -m benchmarks.experts` "
             "measures how often they succeed.")
    return "\n\n".join(["## Success rates of the scripted experts", about, measured])


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
