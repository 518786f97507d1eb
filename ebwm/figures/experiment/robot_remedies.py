"""Ways to train an EBT-Policy that may close its distance to cloning: starts, steps, step sizes, shapes, averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ebwm import settings
from ebwm.evaluation.cost import flops
from ebwm.policy.chunks import Chunks, Windows
from ebwm.policy.demonstrations import Demonstrations
from ebwm.policy.models import ChunkModel
from ebwm.policy.policies import PolicySettings
from ebwm.policy.predictors import EnergyPolicy, Prediction, Predictor
from ebwm.policy.trunks import ChunkShape
from ebwm.policy.walk import PolicyWalk, policy_kernel
from ebwm.randomness import normal_like
from ebwm.sampler import Kernel, run
from ebwm.schedules import random_steps

__all__ = ["TWINS", "WAYS", "ChunkWay", "WaySettings", "WayWalks", "cost_of", "errors_by_step", "episode_errors",
           "held_out_windows", "layer_weights", "settings_of"]

TWO_STEPS = PolicyWalk(least=2, most=2)
NO_AVERAGE = 1e-9  # decay of a moving average that is the last value


@dataclass(frozen=True)
class ChunkWay:
    """A policy and how it is trained."""

    title: str
    kind: str = "ebt"  # "ebt" | "cloning"
    walk: PolicyWalk = TWO_STEPS  # of an EBT, in training and in the test
    start: str = "noise"  # of walks: "noise" | "middle" of the range of actions | "proposal" of a policy that learns with it
    decay: float = 1.0  # each step size of a walk, relative to the one before
    average: bool = True  # whether the policy predicts with the moving average of its weights
    updates: float = 1.0  # relative to the other ways
    layers: float = 1.0  # number of layers, relative to the others
    width: float = 1.0  # relative to the others

    @property
    def proposes(self) -> bool:
        """Whether walks start at the prediction of a second model."""
        return self.start == "proposal"


WAYS = {
    "cloning": ChunkWay("cloning", "cloning"),
    "cloning_flops": ChunkWay("cloning, 5 x updates", "cloning", updates=5),
    "cloning_deep": ChunkWay("cloning, 2 x layers", "cloning", layers=2),
    "cloning_wide": ChunkWay("cloning, wider", "cloning", width=2**0.5),
    "ebt": ChunkWay("EBT: 2 steps from noise"),
    "longer": ChunkWay("1.8 x updates", updates=1.8),
    "steps": ChunkWay("4 steps", walk=PolicyWalk(least=4, most=4)),
    "many": ChunkWay("6 to 9 steps", walk=PolicyWalk(least=6, most=9)),
    "middle": ChunkWay("starts at the middle", start="middle"),
    "proposal": ChunkWay("refines cloning, equal weights", start="proposal", layers=0.5),
    "proposal_full": ChunkWay("refines cloning, 2 x weights", start="proposal"),
    "decay": ChunkWay("second step half as long", decay=0.5),
    "last_weights": ChunkWay("no average of the weights", average=False),
    "wide": ChunkWay("half the layers, wider", layers=0.5, width=2**0.5),
}
TWINS = {"proposal": ("cloning",), "proposal_full": ("cloning_deep", "cloning_wide")}  # as many weights, in one pass


# Policies


class WayWalks(EnergyPolicy):
    """An EBT-Policy whose walks start as its way says; a proposal learns with it, by its own error alone."""

    def __init__(
        self,
        model: ChunkModel,  # with the output "energy"
        way: ChunkWay,
    ):
        super().__init__(model, way.walk)
        self.way = way

    def loss(self, context: Mapping[str, Tensor], target: Tensor, generator: torch.Generator) -> Tensor:
        """Error of the chunks at the end of the walk, and of the proposals."""
        start, error = self.starts(context, target, generator), 0.0
        if self.way.proposes:
            start, error = start.detach(), F.smooth_l1_loss(start, target)
        steps = random_steps(self.walk.least, self.walk.most, generator)
        found = run(self.model.landscape(context), start, self.kernels(self.model.step_size, steps), steps, generator,
                    torch.is_grad_enabled(), unroll=1, final_energy=False)
        return F.smooth_l1_loss(found.state.y, target) + error

    @torch.no_grad()
    def predict(
        self, context: Mapping[str, Tensor], generator: torch.Generator, steps: int | None = None
    ) -> Prediction:
        """Walk from the start."""
        steps, landscape = steps or self.walk.most, self.model.landscape(context)
        like = landscape.memory[0].new_empty(len(landscape.memory[0]), self.model.shape.predict, self.model.shape.action_dim)
        start = self.starts(context, like, generator)
        found = run(landscape, start, self.kernels(self.model.step_size.detach(), steps), steps)
        count = torch.full((len(start),), steps, device=start.device)
        return Prediction(found.state.y, count, count, found.state.energy)

    def starts(self, context: Mapping[str, Tensor], like: Tensor, generator: torch.Generator) -> Tensor:
        """Starts of walks, of the shape of `like`."""
        if self.way.proposes:
            return self.model.proposal(context)
        return normal_like(like, generator) if self.way.start == "noise" else torch.zeros_like(like)

    def kernels(self, step_size: Tensor, steps: int) -> list[Kernel]:
        """The steps of a walk."""
        return [policy_kernel(self.walk, step_size * self.way.decay**index) for index in range(steps)]


@dataclass(frozen=True)
class WaySettings(PolicySettings):
    """Settings of a policy that is trained in one of the ways."""

    way: ChunkWay = field(default_factory=lambda: WAYS["ebt"])

    def predictor(
        self,
        shape: ChunkShape,  # sizes of the model
        seed: int = 0,  # fixes the initial weights
    ) -> Predictor:
        """The untrained predictor."""
        if self.kind == "cloning":
            return super().predictor(shape, seed)
        model = ChunkModel(shape, "energy", generator=settings.generator(seed, "weights"))
        if self.way.proposes:
            model.proposal = ChunkModel(shape, "actions", generator=settings.generator(seed, "proposal"))
        return WayWalks(model, self.way)


def settings_of(
    way: ChunkWay,
    sizes: Mapping[str, Any],  # dim, depth, trunk, updates and batch of the other ways
    factor: float = 1.0,  # of the measured step size
    **chosen: Any,  # such as learning_rate
) -> WaySettings:
    """The settings of a policy; a width is rounded to a multiple of 8."""
    dim, depth = 8 * round(sizes["dim"] * way.width / 8), max(1, round(sizes["depth"] * way.layers))
    changes = dict(dim=dim, depth=depth, updates=round(sizes["updates"] * way.updates))
    average = {} if way.average else {"average": NO_AVERAGE}
    walk = replace(way.walk, factor=factor)
    options = {"kind": way.kind, "walk": walk, "way": replace(way, walk=walk)}
    return WaySettings(**options, **dict(sizes) | changes | average | chosen)


def layer_weights(
    predictor: Predictor,
) -> int:
    """Number of weights in the layers of a policy and of its proposals."""
    model = predictor.model
    parts = [model, model.proposal] if hasattr(model, "proposal") else [model]
    return sum(weight.numel() for part in parts for weight in part.trunk.layers.parameters())


# Measures


def held_out_windows(
    demonstrations: Demonstrations,  # that no policy learns from
    chunks: Chunks,  # whose normalisation applies
    device: torch.device | str = "cpu",  # receives the windows
) -> list[dict[str, Tensor]]:  # the windows of each episode
    """Normalised windows of further demonstrations."""
    scale, config, found = chunks.normaliser, chunks.config, []
    for episode in demonstrations.episodes:
        steps = {"state": scale.state(torch.from_numpy(episode.observations["state"])),
                 "action": scale.action(torch.from_numpy(episode.actions))}
        windows = Windows(steps, torch.tensor([len(episode.actions)]), config.observe, config.predict).whole()
        found.append({name: part.to(device) for name, part in windows.items()})
    return found


@torch.no_grad()
def episode_errors(
    predictor: Predictor,  # trained
    windows: Sequence[Mapping[str, Tensor]],  # from `held_out_windows`
    generator: torch.Generator,  # noise of the predictions
) -> np.ndarray:  # [episodes]
    """SmoothL1 error of predicted chunks, the mean of each episode's windows."""
    pairs = [Chunks.pair(dict(part)) for part in windows]
    return np.array([F.smooth_l1_loss(predictor.predict(context, generator).value, target).item()
                     for context, target in pairs])


@torch.no_grad()
def errors_by_step(
    predictor: WayWalks,  # trained
    windows: Sequence[Mapping[str, Tensor]],  # from `held_out_windows`
    steps: int,  # of the longest walk
    generator: torch.Generator,  # draws the starts
) -> pd.DataFrame:  # step, item (the episode), loss: at the start and after each step
    """Errors of walks with more steps than in training."""
    rows = []
    for item, part in enumerate(windows):
        context, target = Chunks.pair(dict(part))
        start = predictor.starts(context, target, generator)
        chunks = [start]
        run(predictor.model.landscape(context), start, predictor.kernels(predictor.model.step_size.detach(), steps), steps,
            final_energy=False, callback=lambda index, state, info, chunks=chunks: chunks.append(state.y))
        rows += [dict(step=step, item=item, loss=F.smooth_l1_loss(y, target).item()) for step, y in enumerate(chunks)]
    return pd.DataFrame(rows)


def cost_of(
    predictor: Predictor,
    batch: Mapping[str, Tensor],  # windows
    generator: torch.Generator,
) -> dict[str, float]:  # FLOPs
    """What an update and a prediction of the batch cost."""
    context, target = Chunks.pair(dict(batch))
    update = flops(lambda: predictor.loss(context, target, generator).backward()).total
    return {"update": update, "prediction": flops(lambda: predictor.predict(context, generator)).total}
