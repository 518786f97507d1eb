"""Walks of the landscape explorer: from settings to trajectories and their summary, without widgets."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import between, one_of, refusal
from ..energy import as_landscape
from ebwm.modifiers import guarded, noisy
from ebwm.sampler import Info, Kernel, State, gradient_descent, hmc, langevin, mala, nesterov, run
from ..settings import generator
from .analytic import ClosedForm
from .moves import LEAPFROGS, MOMENTUM, Moves, Recorder, moves_of
from .scenes import MAX_WALKS, Scene, Settings, Slice

__all__ = ["MAX_STEPS", "NONE", "SAMPLERS", "THERMAL", "Trajectories", "check_settings", "compute", "share_in_plane",
           "single", "summary_lines", "walk", "warning"]

MAX_STEPS = 200
NONE = "none"  # no second or third sampler
THERMAL = ("Langevin", "MALA", "HMC")  # samplers with a temperature


def _with_noise(kernel: Kernel, settings: Settings) -> Kernel:
    return noisy(kernel, settings.noise) if settings.noise else kernel


SAMPLERS: dict[str, Callable[[Settings], Kernel]] = {
    "gradient descent": lambda s: _with_noise(gradient_descent(s.step_size), s),
    "Nesterov": lambda s: _with_noise(nesterov(s.step_size, MOMENTUM), s),
    "guarded descent": lambda s: guarded(_with_noise(gradient_descent(s.step_size), s)),
    "Langevin": lambda s: langevin(s.step_size, s.temperature),
    "MALA": lambda s: mala(s.step_size, s.temperature),
    "HMC": lambda s: hmc(s.step_size, LEAPFROGS, s.temperature),
}


class Trajectories(NamedTuple):
    """Walks of one sampler, and those of others from the same starts."""

    settings: Settings
    slice: Slice  # the plane of the initial candidates
    note: str  # description of the energy
    candidates: Float[Tensor, "places walks dim"]  # from the start to the end
    energies: Float[Tensor, "places walks"]  # of the candidates
    accepted: Bool[Tensor, "steps walks"]  # whether the step was accepted
    evaluations: int  # energy evaluations of each walk
    moves: Moves  # the parts of each step
    slot: int = 0  # 0 for the first sampler of the settings, 1 for the second, 2 for the third
    others: tuple["Trajectories", ...] = ()  # of the other samplers

    @property
    def points(self) -> Float[Tensor, "places walks 2"]:
        """Projections of the candidates on the plane."""
        return self.slice.points(self.candidates)

    @property
    def finite(self) -> Bool[Tensor, "places walks"]:
        """Whether candidate and energy are finite."""
        return self.candidates.isfinite().all(-1) & self.energies.isfinite()

    @property
    def runs(self) -> tuple["Trajectories", ...]:
        """The walks of each sampler."""
        return (self, *self.others)


def check_settings(
    scenes: dict[str, Scene],  # available energies, by name
    settings: Settings,  # to check
) -> None:
    """Refuse settings that are not available; samplers check their own arguments."""
    one_of("energy", settings.energy, scenes)
    one_of("sampler", settings.sampler, SAMPLERS)
    for name in ("sampler_2", "sampler_3"):
        one_of(name, getattr(settings, name), (NONE, *SAMPLERS))
    one_of("start", settings.start, scenes[settings.energy].starts)
    between("steps", settings.steps, 1, MAX_STEPS)
    between("step", settings.shown, 0, settings.steps)
    between("walks", settings.walks, 1, MAX_WALKS)
    between("angle", settings.angle, 0, 90)
    if (settings.x is None) != (settings.y is None):
        raise refusal("x", settings.x, f"must be given together with y, not with y={settings.y}")


def single(
    settings: Settings,  # of several samplers
) -> dict[int, Settings]:  # by slot
    """The settings of each sampler alone; the shown step is left out."""
    alone = replace(Settings(), **{name: getattr(settings, name) for name in SHARED})
    found = {0: replace(alone, sampler=settings.sampler)}
    for slot in (2, 3):
        sampler, *own = (getattr(settings, f"{name}_{slot}") for name in ("sampler", "step_size", "temperature"))
        given = {name: value for name, value in zip(OWN, own, strict=True) if value is not None}
        if sampler != NONE:
            found[slot - 1] = replace(alone, sampler=sampler, **given)
    return found


OWN = ("step_size", "temperature")  # a second and third sampler can have their own
SHARED = (*OWN, "energy", "noise", "steps", "walks", "start", "x", "y", "seed", "angle")


def compute(
    scenes: dict[str, Scene],  # available energies, by name
    settings: Settings,  # of the walks
    walk_of: Callable[[Settings], Trajectories] | None = None,  # as `walk`, for example with a cache
) -> Trajectories:
    """Run the walks of all samplers of some settings; equal settings give equal walks.

    If `walk_of` returns the first steps only, all walks are cut to the fewest steps.
    """
    check_settings(scenes, settings)
    walk_of = walk_of or (lambda alone: walk(scenes, alone))
    runs = [walk_of(alone)._replace(slot=slot) for slot, alone in single(settings).items()]
    steps = min(len(run.accepted) for run in runs)
    if steps < settings.steps:
        settings = replace(settings, step=min(settings.shown, steps - 1))  # a step that has a next one
        runs = [_first(run, steps) for run in runs]
    return runs[0]._replace(settings=settings, others=tuple(runs[1:]))


def _first(walks: Trajectories, steps: int) -> Trajectories:
    """The first steps of the walks of one sampler."""
    moves = Moves(*(part[:steps] for part in walks.moves))
    return walks._replace(
        candidates=walks.candidates[: steps + 1], energies=walks.energies[: steps + 1], accepted=walks.accepted[:steps],
        evaluations=walks.evaluations * steps // len(walks.accepted), moves=moves,
        note=f"{walks.note}; the first {steps} of {walks.settings.steps} steps so far")


def walk(
    scenes: dict[str, Scene],  # available energies, by name
    settings: Settings,  # of one sampler
    seconds: float = math.inf,  # after this time no step begins, so that the result may have the first steps only
) -> Trajectories:
    """Run the walks of one sampler."""
    deadline = time.monotonic() + seconds
    scene = scenes[settings.energy]
    where = scene.slice(settings.start, settings.seed, settings.angle)
    starts = where.starts[: settings.walks]
    if settings.x is not None:
        point = torch.tensor([[settings.x, settings.y]], dtype=torch.float32)
        starts = where.candidates(point).repeat(settings.walks, 1)
    recorder, kernel = Recorder(where.energy), SAMPLERS[settings.sampler](settings)

    def after_step(index: int, state: State, info: Info) -> None:
        recorder.after_step(index, state, info)
        if time.monotonic() > deadline:
            raise _TimeIsUp

    closed = isinstance(where.energy, ClosedForm)
    with suppress(_TimeIsUp), torch.inference_mode(closed):  # without autograd, its bookkeeping would be a sixth of the time
        run(recorder, starts, kernel, settings.steps, generator(settings.seed, "walk"), callback=after_step)
    evaluations, candidates = recorder.evaluations, torch.cat([starts[None], recorder.ends])
    energies, grads = as_landscape(where.energy).value_and_grad(candidates.flatten(0, 1))
    energies, grads = energies.reshape(candidates.shape[:2]), grads.reshape(candidates.shape)
    moves = moves_of(settings.sampler, settings.step_size, recorder, candidates[:-1], grads[:-1])
    return Trajectories(settings, where, scene.note, candidates, energies, recorder.accepted, evaluations, moves)


class _TimeIsUp(Exception):
    """Ends a walk before its last step."""


def share_in_plane(
    walks: Trajectories,  # of one sampler
) -> float:  # from 0 to 1; NaN if no walk is finite or none moves
    """How much of the length of the walks lies in the plane: length of their projections by their length."""
    steps = walks.candidates[:, walks.finite.all(0)].diff(dim=0)
    return float((steps @ walks.slice.axes.T).norm(dim=-1).sum() / steps.norm(dim=-1).sum())


def _arrow(values: Tensor) -> str:
    return " → ".join(f"{float(value):.4g}" for value in values)


def summary_lines(
    walks: Trajectories,  # to summarise
) -> dict[str, str | tuple[str, ...]]:  # value of each quantity, by name; one for each sampler if there are several
    """Energies, distances and costs; means over the walks that are finite."""
    if not walks.others:
        return _summary(walks)
    columns = [_short_summary(one) for one in walks.runs]
    return {name: tuple(column[name] for column in columns) for name in columns[0]}


def _short_summary(walks: Trajectories) -> dict[str, str]:
    """The summary of one of several samplers."""
    lines = _summary(walks)
    energies = lines.get("Energy, start → end", "→ –").split("→")[1].strip()
    distance = next((value for name, value in lines.items() if name.startswith("Distance to")), "–")
    return {"Sampler": walks.settings.sampler, "Energy at the end": energies,
            f"Distance to the {walks.slice.known_name}": distance, "Accepted steps": lines["Accepted steps"],
            "Evaluations": str(walks.evaluations), "Finite walks": lines["Finite walks"]}


def _summary(walks: Trajectories) -> dict[str, str]:
    good, where = walks.finite.all(0), walks.slice
    costs = {"Evaluations of each walk": str(walks.evaluations),
             "Accepted steps": f"{float(walks.accepted.float().mean()):.0%}",
             "Finite walks": f"{int(good.sum())} of {len(good)}"}
    if not good.any():
        return costs
    ends = walks.candidates[-1, good]
    nearest = "nearest " if len(where.known) > 1 else ""
    lines = {"Energy, start → end": _arrow(walks.energies[:, good].mean(1)[[0, -1]]),
             f"Distance to the {nearest}{where.known_name}":
             f"{float(torch.cdist(ends, where.known).min(-1).values.mean()):.3g}", **costs}
    return lines | (_model_summary(walks, ends) if where.loss else {})


def _model_summary(walks: Trajectories, ends: Tensor) -> dict[str, str]:
    """How far a model's walk leaves the plane, and how well its ends fit the data."""
    where = walks.slice
    off_plane = (ends - where.candidates(where.points(ends))).norm(dim=-1).mean()
    first_last = walks.candidates[[0, -1]][:, walks.finite.all(0)].mean(1)
    way = where.known[0] - where.starts[0]
    return {"Length of the walk in the plane": f"{share_in_plane(walks):.0%}",
            "Way to the truth in the plane": f"{float((where.axes @ way).norm() / way.norm()):.0%}",
            "Distance from the plane": f"{float(off_plane):.3g}",
            "SmoothL1 to the truth": _arrow(where.loss(first_last)) if len(ends) == 1
            else f"{float(where.loss(ends).mean()):.4g}",
            "SmoothL1 of the last state": f"{where.last_loss:.4g}"}


def warning(
    walks: Trajectories,  # to check
) -> str:  # one line; empty if there is no problem
    """Name the walks that diverged, or that increased the energy although they should decrease it."""
    for one in walks.runs:
        if line := _warning(one):
            return f"{one.settings.sampler}: {line[0].lower()}{line[1:]}" if walks.others else line
    return ""


def _warning(walks: Trajectories) -> str:
    bad = ~walks.finite
    if bad.any():
        first = int(bad.any(1).nonzero()[0])
        return f"Walk {_numbers(bad.any(0))} diverged: not finite from step {first} on. Lower the step size."
    rising = walks.energies[-1] > walks.energies[0]
    if walks.settings.sampler not in THERMAL and not walks.settings.noise and rising.any():
        return f"Walk {_numbers(rising)} increased the energy. Lower the step size."
    return ""


def _numbers(which: Bool[Tensor, " walks"]) -> str:
    return ", ".join(str(int(walk) + 1) for walk in which.nonzero())
