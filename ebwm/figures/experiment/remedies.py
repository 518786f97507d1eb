"""Ways to train an EBT that may close its distance to one pass: starts, step sizes, walk lengths, shapes, averages."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ebwm import checks, settings
from ebwm.baselines import Transformer
from ebwm.data.task import StateSpec
from ebwm.ebt import EBT
from ebwm.energy import as_landscape
from ebwm.evaluation.statistics import student_crossed
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tables import Interval, crossed
from ebwm.figures.experiment.video import VideoClips, video_clips
from ebwm.figures.experiment.walks import trace
from ebwm.objective import S1
from ebwm.randomness import Randomness
from ebwm.sampler import Info, Kernel, State, gradient_descent, softmax_descent
from ebwm.thinking import predict
from ebwm.training.learner import Learner, ebt_learner
from ebwm.training.optimiser import update_average
from ebwm.training.trainer import load_weights
from ebwm.walk import Walk

__all__ = ["TWINS", "WAYS", "Way", "corrected", "from_last_state", "layer_weights", "learner_of", "logit_descent",
           "losses_by_step", "moving_photographs", "refiner", "shrinking", "train"]

MakeKernel = Callable[[Any], Any]  # step size -> a kernel, or one for each step


@dataclass(frozen=True)
class Way:
    """A model and how it is trained."""

    title: str
    kind: str = "ebt"  # "ebt" | "transformer"
    steps: int = 2  # of a walk, in training and in the test
    start: str = "noise"  # "noise" | "last": to which a Transformer++ adds its output | "proposal": of one that learns with it
    candidates: str = "state"  # "state" | "latent"
    decay: float = 1.0  # each step size of a walk, relative to the one before
    average: float | None = None  # decay of an average of the weights, with which the model predicts
    updates: float = 1.0  # relative to the other ways
    shape: Mapping[str, int] = field(default_factory=dict)  # of the model, where it differs: dim, depth, heads
    vectors_only: bool = False  # whether it is undefined for tokens

    @property
    def proposes(self) -> bool:
        """Whether walks start at the prediction of a second model."""
        return self.start == "proposal"


WAYS = {
    "transformer": Way("Transformer++", "transformer"),
    "transformer_flops": Way("Transformer++, 5 x updates", "transformer", updates=5),
    "transformer_deep": Way("Transformer++, 2 x weights, deeper", "transformer", shape={"depth": 4}),
    "transformer_wide": Way("Transformer++, 2 x weights, wider", "transformer"),  # the shape depends on the width
    "transformer_last": Way("Transformer++ from the last state", "transformer", start="last", vectors_only=True),
    "ebt": Way("EBT: 2 steps from noise"),
    "longer": Way("1.8 x updates", updates=1.8),
    "steps": Way("4 steps", steps=4),
    "last": Way("starts at the last state", start="last", vectors_only=True),
    "last_steps": Way("4 steps from the last state", steps=4, start="last", vectors_only=True),
    "proposal": Way("refines one pass, equal weights", start="proposal", shape={"depth": 1}),
    "proposal_full": Way("refines one pass, 2 x weights", start="proposal"),
    "latent": Way("latent candidates", candidates="latent", vectors_only=True),
    "decay": Way("second step half as long", decay=0.5),
    "average": Way("average of the weights", average=0.99),
    "wide": Way("1 layer, wider", shape={"depth": 1}),
}
TWINS = {  # Transformer++ with as many weights in the layers, or the same start
    "proposal": ("transformer",),
    "proposal_full": ("transformer_deep", "transformer_wide"),
    "last": ("transformer_last",),
}


# Data


def moving_photographs(
    experiment: Experiment,  # gives the device
    fields: Mapping[str, Any],  # instead of the parameters that `video_clips` reads
) -> VideoClips:
    """Features of a camera's clips, with settings of their own beside those of other data."""
    own = copy.copy(experiment)
    own.parameters = experiment.parameters | dict(fields)
    return video_clips(own)


# Kernels


def shrinking(
    base: Callable[[Any], Kernel],  # step size -> kernel
    steps: int,  # of a walk
    decay: float,  # each step size relative to the one before
) -> MakeKernel:
    """Kernels of a walk whose steps become shorter."""
    checks.whole("steps", steps)
    checks.positive("decay", decay)

    def make(step_size: float | Tensor) -> list[Kernel]:
        return [base(step_size * decay**index) for index in range(steps)]

    return make


def logit_descent(
    step_size: float | Tensor,  # alpha: a number or a scalar tensor
) -> Kernel:
    """Entropic mirror descent on a distribution over tokens: its logits less `step_size * dE/dp`.

    Unlike `softmax_descent` it keeps the logits that it starts from, as a proposal needs.
    """
    descend = softmax_descent(step_size)

    def step(
        landscape: Callable, state: State, *, generator: Randomness = None, create_graph: bool = False
    ) -> tuple[State, Info]:
        moved, info = descend(landscape, state, generator=generator, create_graph=create_graph)
        return State(state.y + moved.y - as_landscape(landscape).unwrap(state.y)[1]), info

    return step


# Models


def learner_of(
    experiment: Experiment,  # gives shape and device
    way: Way,  # what to make
    task: Any,  # a task, or the specification of its states
    seed: int,  # fixes the initial weights
    step_size: float | None = None,  # initial alpha of an EBT
    **model: Any,  # fields of `ModelConfig`
) -> Learner:
    """The learner of a way."""
    state: StateSpec = getattr(task, "state", task)
    walk = experiment.walk(step_size, "noise" if way.proposes else way.start, steps=way.steps)
    model |= way.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="state_dim=.* is larger than dim")  # as in the papers
        learner = experiment.learner(way.kind, task, seed, walk, candidates=way.candidates, **model)
    if way.kind == "transformer":
        return from_last_state(learner, state) if way.start == "last" else learner
    if way.proposes:
        return refiner(learner, state, way, seed)
    if way.decay == 1:
        return learner
    base = gradient_descent if learner.model.tokens is None else softmax_descent
    shorter = Walk(way.steps, way.start, kernel=shrinking(base, way.steps, way.decay))
    return ebt_learner(learner.model, state, S1(shorter, stream=False))._replace(pair=learner.pair)


def from_last_state(
    learner: Learner,  # of a model that predicts vectors in one pass
    state: StateSpec,  # what it predicts
) -> Learner:
    """A model whose output is added to the last state."""
    predicted = lambda context: context + learner.model(context)
    return learner._replace(loss=lambda context, target, g: state.loss(predicted(context), target),
                            predict=lambda context, g: predicted(context))


def refiner(
    learner: Learner,  # of an EBT, which becomes the refining part
    state: StateSpec,  # what it predicts
    way: Way,  # number of steps
    seed: int,  # fixes the initial weights of the proposing part
) -> Learner:
    """A Transformer++ of the EBT's size that proposes, and the EBT, whose walks start there; both learn at once.

    The proposal learns by its own error alone: no gradient reaches it through the walk.
    """
    ebt: EBT = learner.model
    shape = dict(generator=settings.generator(seed, "proposal"), **state.sizes())
    ebt.proposal = Transformer(ebt.dim, ebt.depth, ebt.heads, **shape).to(ebt.head.weight.device)
    walk = Walk(way.steps, kernel=None if ebt.tokens is None else logit_descent)
    recipe = S1(walk, stream=ebt.tokens is None)

    def loss(context: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        proposed = ebt.proposal(context)
        refined = recipe(ebt, context, target, generator=generator, start=proposed.detach())
        return state.loss(proposed, target) + refined

    def refine(context: Tensor, generator: torch.Generator) -> Tensor:
        return predict(ebt, context, walk, start=ebt.proposal(context), generator=generator).value

    return Learner(ebt, loss, refine, errors=state.errors, pair=learner.pair)


def layer_weights(
    model: torch.nn.Module,  # of `learner_of`
) -> int:
    """Number of weights in the layers of a model and of its proposing part."""
    parts = [model, *([model.proposal] if hasattr(model, "proposal") else [])]
    return sum(weight.numel() for part in parts for weight in part.blocks.parameters())


# Training


def train(
    experiment: Experiment,  # gives the device
    way: Way,  # how it is trained
    learner: Learner,  # of the way; predicts with the average of its weights afterwards if the way has one
    data: Any,  # the training split
    seed: int,  # fixes the order of the batches and the noise
    valid: Tensor,  # items to evaluate on at the end
    **optimiser: Any,  # of `Experiment.optimiser`: learning_rate, updates and batch
) -> pd.DataFrame:  # the log, one row an update
    """Train a learner."""
    updates = round(optimiser.pop("updates") * way.updates)
    settings_of_run = experiment.optimiser(updates=updates, average=way.average, **optimiser)
    average = {name: weight.detach().clone() for name, weight in learner.model.named_parameters() if way.average}

    def note(row: Mapping[str, Any]) -> None:
        if average:
            update_average(average, learner.model, way.average, row["update"] - 1)

    log = experiment.train(learner, data, seed, settings_of_run, valid=valid, note=note)
    load_weights(learner.model, average)
    return log


# Measures


@torch.no_grad()
def losses_by_step(
    learner: Learner,  # of an EBT
    way: Way,  # how it was made; not for shrinking steps
    items: Tensor,  # of the test
    steps: int,  # of the longest walk
    generator: torch.Generator,  # draws the starts
) -> pd.DataFrame:  # step, item, loss: at the start and after each step
    """Losses of walks with more steps than in training."""
    model, (context, target) = learner.model, learner.pair(items)
    kernel = logit_descent if way.proposes and model.tokens is not None else None
    walk = Walk(steps, "noise" if way.proposes else way.start, kernel=kernel)
    start = model.proposal(context) if way.proposes else walk.initial(model.encode(context), generator)
    measure = lambda y: learner.errors(model.decode(y), target).flatten(1).nanmean(1)
    losses = trace(model, model.landscape(context), start, walk, measure).values.cpu().numpy()
    step, item = np.indices(losses.shape)
    return pd.DataFrame(dict(step=step.ravel(), item=item.ravel(), loss=losses.ravel()))


def corrected(
    values: np.ndarray,  # differences [seeds items]
    looks: int,  # number of differences that are looked at
) -> Interval:
    """Mean with Student's interval over seeds and items, by Bonferroni at 1 - 0.05 / looks; one seed has no bounds."""
    checks.whole("looks", looks)
    if len(values) < 2 or not np.isfinite(values).all():
        return crossed(values)
    return student_crossed(values, 1 - 0.05 / looks)._asdict()
