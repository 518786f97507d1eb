"""Scenes of the landscape explorer: an energy, a plane through it, and the points where walks start."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checks import between, instance, refusal
from ..data.task import Task
from ..data.tasks import ClipsConfig, load_task
from ..ebt import EBT
from ..energy import Landscape
from ..landscape import CausalLandscape
from ..objective import smooth_l1
from ..sampler import gradient_descent, init_candidates, run
from ..settings import generator
from ..training.configuration import Config, ModelConfig, OptimiserConfig
from ..training.learner import Learner, batches_of, evaluate, load_run, make_learner
from ..training.trainer import fit
from .analytic import curved_valley, gaussian_modes, stiff_bowl, two_wells

__all__ = ["MAX_WALKS", "SMALL", "Frames", "OnePosition", "Scene", "Settings", "Slice", "analytic", "analytic_scenes",
           "next_frame", "plane_axes", "run_scene", "trained_scene", "true_candidate", "turned"]

MAX_WALKS = 8


@dataclass(frozen=True)
class Settings:
    """Settings of the landscape explorer: plain values that can be saved as JSON."""

    energy: str = "double well"  # name of a scene
    sampler: str = "gradient descent"  # name of a sampler
    step_size: float = 0.03  # alpha, 0 or more
    noise: float = 0.0  # standard deviation of the noise added before each step; descent methods only
    temperature: float = 1.0  # T of the density exp(-energy / T); Langevin, MALA and HMC only
    steps: int = 40  # of each walk
    walks: int = 1  # number of walks
    start: str = "noise"  # initial candidates: "noise" | "zeros" | "last"
    x: float | None = None  # with y: point of the plane where all walks start, instead of `start`
    y: float | None = None  # see x
    seed: int = 0  # of the initial candidates and of the sampler's noise
    step: int | None = None  # shown step, from 0; None: the last
    sampler_2: str = "none"  # a second sampler on the same energy from the same start, or "none"
    step_size_2: float | None = None  # its alpha; None: that of the first
    temperature_2: float | None = None  # its T; None: that of the first
    sampler_3: str = "none"  # a third sampler
    step_size_3: float | None = None
    temperature_3: float | None = None
    angle: float = 0.0  # degrees by which the plane of a model's energy is turned from the truth to a random direction

    @property
    def shown(self) -> int:
        """The shown step."""
        return self.steps if self.step is None else self.step


class Frames(NamedTuple):
    """Candidates as images, if they are frames of a video."""

    image: Callable[[Tensor], Tensor]  # candidates [n dim] -> images [n height width]
    last: Float[Tensor, "height width"]  # last frame of the context
    truth: Float[Tensor, "height width"]  # true next frame


@dataclass(frozen=True)
class Slice:
    """A plane through the space of candidates, and known facts about the energy."""

    energy: Callable  # candidates [*items dim] -> energies [*items]
    starts: Float[Tensor, "walks dim"]  # initial candidates, unless a point is chosen
    known: Float[Tensor, "known dim"]  # candidates whose energy should be low
    origin: Float[Tensor, " dim"]  # candidate at (0, 0)
    axes: Float[Tensor, "2 dim"]  # orthonormal directions
    centre: tuple[float, float]  # of the plotted square
    half_width: float  # of the plotted square
    axis_names: tuple[str, str] = ("y[0]", "y[1]")
    known_name: str = "minimum"  # of the known candidates
    loss: Callable[[Tensor], Tensor] | None = None  # candidates [n dim] -> SmoothL1 to the true state [n]
    last_loss: float = float("nan")  # SmoothL1 of repeating the last state
    frames: Frames | None = None  # images of the candidates
    ceiling: float | None = None  # highest energy that is plotted; None: that of 60% of the square
    density: bool = False  # whether the plane is the whole space, so that exp(-energy / T) is the density on it

    def candidates(
        self,
        points: Float[Tensor, "*n 2"],  # of the plane
    ) -> Float[Tensor, "*n dim"]:
        """Candidates at points of the plane."""
        return self.origin + points @ self.axes

    def points(
        self,
        candidates: Float[Tensor, "*n dim"],  # anywhere
    ) -> Float[Tensor, "*n 2"]:
        """Orthogonal projections of candidates on the plane."""
        return (candidates - self.origin) @ self.axes.T

    @cached_property
    def grid(self) -> tuple[Tensor, Tensor, Tensor]:  # x [n], y [n], energies [n n] with one row for each y
        """Energies on a grid of the plotted square."""
        return self._grid(64)

    @cached_property
    def coarse_grid(self) -> tuple[Tensor, Tensor, Tensor]:  # as `grid`
        """The grid, with fewer points unless the fine one is there."""
        return self.grid if "grid" in self.__dict__ else self._grid(24)

    def _grid(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y = (torch.linspace(c - self.half_width, c + self.half_width, size) for c in self.centre)
        with torch.no_grad():
            energies = self.energy(self.candidates(torch.cartesian_prod(y, x).flip(-1)))
        return x, y, energies.reshape(size, size)


class Scene(NamedTuple):
    """An energy of an explorer."""

    slice: Callable[..., Slice]  # (start, seed, angle=0.0) -> the plane of these initial candidates
    settings: Settings  # suited to the energy
    starts: tuple[str, ...]  # available initial candidates
    note: str  # description
    turns: bool = False  # whether the plane can be turned


# Analytic energies


def analytic(
    energy: Callable,  # candidates [*items 2] -> energies [*items]
    known: Float[Tensor, "known 2"],  # its minima
    settings: Settings,  # suited to the energy
    half_width: float,  # of the plotted square
    note: str = "",  # description
    **plot: Any,  # other entries of the `Slice`: centre, known_name, ceiling
) -> Scene:
    """An energy of two coordinates."""

    @lru_cache(maxsize=8)
    def slice_at(start: str, seed: int, angle: float = 0.0) -> Slice:
        starts = init_candidates(start, torch.zeros(MAX_WALKS, 2), generator(seed, "start"))
        shape = dict(centre=(0.0, 0.0), half_width=half_width, density=True) | plot
        return Slice(energy, starts, known, torch.zeros(2), torch.eye(2), **shape)

    return Scene(slice_at, settings, ("noise", "zeros"), note)


def analytic_scenes() -> dict[str, Scene]:  # by name
    """Energies with known minima."""
    return {
        "double well": analytic(*two_wells(), Settings(x=0.2, y=1.7), 2.2,
                                "two minima of energy 0, separated by a barrier of height 4"),
        "quadratic": analytic(
            *stiff_bowl(), Settings("quadratic", step_size=0.1, x=-2.2, y=2.0), 3.0,
            "12 times stiffer along y[1]: gradient descent diverges for step sizes above 1/6"),
        "mixture": analytic(
            *gaussian_modes(), Settings("mixture", "Langevin", 0.1, steps=150, x=-0.3, y=0.2), 4.0,
            "three Gaussians with weights 0.2, 0.3 and 0.5", known_name="mode"),
        "banana": analytic(
            *curved_valley(), Settings("banana", "HMC", 0.1, steps=60, x=-1.0, y=1.0), 4.0,
            "a narrow curved valley: the density along y[0] is normal, with mean 1 and variance 1",
            centre=(0.75, 3.25), ceiling=15.0),
    }


# Energies of models


class OnePosition(Landscape):
    """The energy of candidates for the state after one context, by a model's landscape."""

    def __init__(
        self,
        landscape: CausalLandscape,  # of a batch of one context
    ):
        self.landscape = landscape.last()
        self._repeated: dict[int, CausalLandscape] = {}  # each prepares its context once

    def energy(
        self,
        y: Float[Tensor, "n dim"],  # candidates for the next state
    ) -> Float[Tensor, " n"]:
        """Energy of each candidate."""
        return self._of(len(y)).energy(y[None])[0]

    def value_and_grad(
        self,
        y: Float[Tensor, "n dim"],  # candidates for the next state
        create_graph: bool = False,  # as for a landscape
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n dim"]]:
        """Energies and gradient, by the rule of the model."""
        energies, grad = self._of(len(y)).value_and_grad(y[None], create_graph)
        return energies[0], grad[0]

    def _of(self, count: int) -> CausalLandscape:
        """The landscape of so many candidates at the position."""
        if count not in self._repeated:
            positions = self.landscape.positions.repeat_interleave(count, -1)
            self._repeated[count] = self.landscape.changed(positions=positions)
        return self._repeated[count]


def true_candidate(
    model: nn.Module,  # an EBT
    target: Float[Tensor, " state_dim"],  # true next state
) -> Float[Tensor, " dim"]:
    """The target as a candidate: itself, or the latent whose decoded state is nearest to it."""
    return torch.linalg.lstsq(model.decode.weight, target[:, None]).solution[:, 0] if model.latent else target


def plane_axes(
    first: Float[Tensor, " dim"],  # direction of the x axis
    second: Float[Tensor, " dim"],  # in the plane, above the x axis
) -> Float[Tensor, "2 dim"]:
    """Orthonormal axes of a plane."""
    axes, factors = torch.linalg.qr(torch.stack([first, second], 1))
    signs = factors.diagonal().sign().where(factors.diagonal() != 0, 1)
    return (axes * signs).T.contiguous()


def turned(
    axes: Float[Tensor, "2 dim"],  # orthonormal, of a plane
    angle: float,  # degrees
    generator: torch.Generator,  # draws the direction
) -> Float[Tensor, "2 dim"]:  # orthonormal
    """Turn the second axis towards a random direction that is orthogonal to the plane; at 90, it is this direction."""
    if not angle:
        return axes
    noise = torch.randn(axes.shape[1], generator=generator)
    away = noise - (axes @ noise) @ axes
    turn = torch.tensor(angle).deg2rad()
    return torch.stack([axes[0], turn.cos() * axes[1] + turn.sin() * away / away.norm()])


def _square_around(points: Float[Tensor, "n 2"]) -> tuple[tuple[float, float], float]:
    """Centre and half width of a square around some points."""
    low, high = points.min(0).values, points.max(0).values
    x, y = ((low + high) / 2).tolist()
    return (x, y), max(0.8 * float((high - low).max()), 1e-3)


def _grey(images: Tensor) -> Tensor:
    return images.mean(-1) if images.ndim > 3 else images


def next_frame(
    model: nn.Module,  # a trained EBT of vectors
    states: Float[Tensor, "s state_dim"],  # a sequence; the last state is predicted from the others
    settings: Settings,  # suited to the energy; steps and start are those of the model's walk
    images: Callable[[Tensor], Tensor] | None = None,  # states -> images [n height width], or with colours
    note: str = "",  # description
) -> Scene:
    """The energy of a sequence's last state, on the plane through start, end of the model's walk, and truth."""
    model.requires_grad_(False)
    energy, target = OnePosition(model.landscape(states[None, :-1])), states[-1]
    truth = true_candidate(model, target)
    recent = model.encode(states[None, :-1])[0, -1].expand(MAX_WALKS, -1)
    loss = lambda found: smooth_l1(found, target.expand_as(found), reduction="none").mean(-1)
    frames = None
    if images:
        frames = Frames(lambda y: _grey(images(model.decode(y))), *_grey(images(states[-2:])))

    @lru_cache(maxsize=8)
    def slice_at(start: str, seed: int, angle: float = 0.0) -> Slice:
        starts = init_candidates(start, recent, generator(seed, "start"))
        end = run(energy, starts[:1], gradient_descent(model.step_size), settings.steps).state.y[0]
        if not end.isfinite().all():
            step_size = float(model.step_size.detach())
            raise refusal("model.step_size", step_size, "the model's walk is not finite", "train with a smaller one")
        axes = turned(plane_axes(end - starts[0], truth - starts[0]), angle, generator(seed, "plane"))
        centre, half_width = _square_around((torch.stack([starts[0], end, truth]) - starts[0]) @ axes.T)
        second = "towards the truth" if not angle else f"turned by {angle:.0f}° from the truth"
        return Slice(energy, starts, truth[None], starts[0], axes, centre, half_width,
                     ("along the model's walk", second), "truth",
                     lambda y: loss(model.decode(y)), float(loss(states[-2:-1])), frames)

    return Scene(slice_at, settings, ("noise", "last", "zeros"), note, turns=True)


# Trained models


SMALL = Config(
    model=ModelConfig(dim=64, depth=2, heads=4, candidates="latent"),
    data=ClipsConfig(frames=6, train_clips=2048, eval_clips=64),
    optimiser=OptimiserConfig(updates=400, batch=16, learning_rate=3e-3, warmup=20),
    eval_every=400,
)


def trained_scene(
    config: Config = SMALL,  # an EBT and its data
    clip: int = 0,  # index of a clip of the validation split
    updates: int | None = None,  # of the training; None: as many as the config says
) -> Scene:
    """The energy of a small EBT, trained here in seconds."""
    instance("config", config, Config, "must be a Config", "for a run's folder, use run_scene")
    if updates is not None:
        config = replace(config, optimiser=replace(config.optimiser, updates=updates))
    task = load_task(config.data, config.seed)
    learner = make_learner(config.model, task, config.seed, config.recipe, config.walk)
    batches = batches_of(task.splits["train"], config.optimiser.batch, config.seed)
    fit(learner, batches, task.items("valid"), config)
    return _model_scene(learner, task, config, clip, f"trained for {config.optimiser.updates} updates")


def run_scene(
    folder: Path,  # of a finished run
    clip: int = 0,  # index of a clip of the run's validation split
) -> Scene:
    """The energy of the model of a finished run."""
    instance("folder", folder, (str, Path), "must be a path")
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise refusal("folder", str(folder), "must be a finished run with a config.json")
    learner, _, config = load_run(folder)
    _check_model(learner.model, folder)
    trained = f"run {folder.name}, trained for {config.optimiser.updates} updates"
    return _model_scene(learner, load_task(config.data), config, clip, trained)


def _check_model(model: nn.Module, folder: Path) -> None:
    """Refuse a model without an energy of vectors."""
    if not hasattr(model, "landscape"):
        raise refusal("folder", str(folder), f"must contain a model with an energy, not a {type(model).__name__}")
    if model.tokens is not None:
        remedy = f"continue a text with: ebwm generate --model {folder}"
        raise refusal("folder", str(folder), "must contain a model of vectors, not of tokens", remedy)
    if not isinstance(model, EBT) or model.embed_actions is not None:
        rule = "must contain an EBT that predicts the next of its states, without actions"
        raise refusal("folder", str(folder), rule, "for games and videos use FramesExplorer")


def _model_scene(learner: Learner, task: Task, config: Config, clip: int, trained: str) -> Scene:
    valid, items = task.splits["valid"], task.items("valid")
    between("clip", clip, 0, len(valid) - 1)
    context, target = task.pair(items)
    baseline, loss = float(smooth_l1(context, target)), evaluate(learner, items, config.seed)
    note = (f"{trained} on {config.data.items}, width {config.model.dim}; SmoothL1 of the next states of "
            f"{len(items)} validation items: {loss:.3f}, and {baseline:.3f} of repeating the last state")
    alpha = float(learner.model.step_size.detach())
    settings = Settings("next-frame EBT", step_size=alpha, temperature=1e-3, steps=config.walk.steps,
                        start=config.walk.start)
    return next_frame(learner.model, valid[clip], settings, getattr(valid, "images", None), note)
