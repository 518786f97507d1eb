"""Walks of the landscape explorer: from settings to trajectories and their summary, without widgets."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import between, one_of, refusal
from ..diagnostics import Trace, energy_trace
from ..evaluation.cost import Counted
from ebwm.modifiers import guarded, noisy
from ebwm.sampler import Kernel, gradient_descent, hmc, langevin, mala, nesterov, run
from ..settings import generator
from .scenes import MAX_WALKS, Scene, Settings, Slice

__all__ = ["MAX_STEPS", "SAMPLERS", "THERMAL", "Trajectories", "check_settings", "compute", "summary_lines", "warning"]

MAX_STEPS = 200
THERMAL = ("Langevin", "MALA", "HMC")  # samplers with a temperature


def _with_noise(kernel: Kernel, settings: Settings) -> Kernel:
    return noisy(kernel, settings.noise) if settings.noise else kernel


SAMPLERS: dict[str, Callable[[Settings], Kernel]] = {
    "gradient descent": lambda s: _with_noise(gradient_descent(s.step_size), s),
    "Nesterov": lambda s: _with_noise(nesterov(s.step_size), s),
    "guarded descent": lambda s: guarded(_with_noise(gradient_descent(s.step_size), s)),
    "Langevin": lambda s: langevin(s.step_size, s.temperature),
    "MALA": lambda s: mala(s.step_size, s.temperature),
    "HMC": lambda s: hmc(s.step_size, temperature=s.temperature),
}


class Trajectories(NamedTuple):
    """Walks that were computed from some settings."""

    settings: Settings
    slice: Slice  # the plane of the initial candidates
    note: str  # description of the energy
    candidates: Float[Tensor, "places walks dim"]  # from the start to the end
    energies: Float[Tensor, "places walks"]  # of the candidates
    accepted: Bool[Tensor, "steps walks"]  # whether the step was accepted
    evaluations: int  # energy evaluations of each walk

    @property
    def points(self) -> Float[Tensor, "places walks 2"]:
        """Projections of the candidates on the plane."""
        return self.slice.points(self.candidates)

    @property
    def finite(self) -> Bool[Tensor, "places walks"]:
        """Whether candidate and energy are finite."""
        return self.candidates.isfinite().all(-1) & self.energies.isfinite()


def check_settings(
    scenes: dict[str, Scene],  # available energies, by name
    settings: Settings,  # to check
) -> None:
    """Refuse settings that are not available; samplers check their own arguments."""
    one_of("energy", settings.energy, scenes)
    one_of("sampler", settings.sampler, SAMPLERS)
    one_of("start", settings.start, scenes[settings.energy].starts)
    between("steps", settings.steps, 1, MAX_STEPS)
    between("walks", settings.walks, 1, MAX_WALKS)
    if (settings.x is None) != (settings.y is None):
        raise refusal("x", settings.x, f"must be given together with y, not with y={settings.y}")


def compute(
    scenes: dict[str, Scene],  # available energies, by name
    settings: Settings,  # of the walks
) -> Trajectories:
    """Run the walks of some settings; equal settings give equal walks."""
    check_settings(scenes, settings)
    scene = scenes[settings.energy]
    where, trace = scene.slice(settings.start, settings.seed), Trace()
    starts = where.starts[: settings.walks]
    if settings.x is not None:
        point = torch.tensor([[settings.x, settings.y]], dtype=torch.float32)
        starts = where.candidates(point).repeat(settings.walks, 1)
    energy, kernel = Counted(where.energy), SAMPLERS[settings.sampler](settings)
    result = run(energy, starts, kernel, settings.steps, generator(settings.seed, "walk"), callback=trace)
    candidates, energies = torch.cat([starts[None], trace.places]), energy_trace(result)
    if settings.sampler == "Nesterov" or settings.noise:  # evaluates the energy elsewhere than at the candidates
        with torch.no_grad():
            energies = where.energy(candidates.flatten(0, 1)).reshape(candidates.shape[:2])
    return Trajectories(settings, where, scene.note, candidates, energies, result.info.accepted,
                        energy.evaluations // settings.walks)


def _arrow(values: Tensor) -> str:
    return " → ".join(f"{float(value):.4g}" for value in values)


def summary_lines(
    walks: Trajectories,  # to summarise
) -> dict[str, str]:  # value of each quantity, by name
    """Energies, distances and costs; means over the walks that are finite."""
    good, where = walks.finite.all(0), walks.slice
    costs = {"Energy evaluations of each walk": str(walks.evaluations),
             "Accepted steps": f"{float(walks.accepted.float().mean()):.0%}",
             "Finite walks": f"{int(good.sum())} of {len(good)}"}
    if not good.any():
        return costs
    ends = walks.candidates[-1, good]
    nearest = "nearest " if len(where.known) > 1 else ""
    lines = {"Energy, start → end": _arrow(walks.energies[:, good].mean(1)[[0, -1]]),
             f"Distance to the {nearest}{where.known_name}":
             f"{float(torch.cdist(ends, where.known).min(-1).values.mean()):.3g}", **costs}
    if where.loss:
        off_plane = (ends - where.candidates(where.points(ends))).norm(dim=-1).mean()
        first_last = walks.candidates[[0, -1]][:, good].mean(1)
        lines |= {"Distance from the plane": f"{float(off_plane):.3g}",
                  "SmoothL1 to the truth": _arrow(where.loss(first_last)) if len(ends) == 1
                  else f"{float(where.loss(ends).mean()):.4g}",
                  "SmoothL1 of the last state": f"{where.last_loss:.4g}"}
    return lines


def warning(
    walks: Trajectories,  # to check
) -> str:  # one line; empty if there is no problem
    """Name the walks that diverged, or that increased the energy although they should decrease it."""
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
