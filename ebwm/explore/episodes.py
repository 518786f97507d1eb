"""Episodes of the policy explorer: from settings to paths and candidate chunks, without widgets."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import between, one_of, whole
from ..policy.evaluation import FIRST_SEED
from ..policy.policies import Policy, load_policy
from ..policy.predictors import EnergyPolicy
from ..policy.reach import SPEED, Reach, side_of_path
from ..policy.rollout import count_retries
from ..settings import generator
from ..writing import INCLUDED

__all__ = ["MAX_PUSH", "MAX_SAMPLES", "MAX_STEPS", "POLICIES", "Choice", "Episode", "EpisodeSettings", "check_settings",
           "compute", "shipped_policies", "summary_lines"]

POLICIES = {"EBT-Policy": "reach", "Diffusion Policy": "reach_diffusion"}  # folders of the included policies
MAX_STEPS, MAX_SAMPLES = 20, 16
MAX_PUSH = 0.5  # length of a push


@dataclass(frozen=True)
class EpisodeSettings:
    """An episode, and what of it is shown."""

    policy: str = "EBT-Policy"  # name of one of the policies
    seed: int = 0  # of the episode: its start, goal and noise
    steps: int = 9  # of a prediction
    samples: int = 8  # candidate chunks that are drawn at each choice
    push_at: int = 0  # step before which the point is pushed; 0: never
    push_x: float = 0.0  # the push
    push_y: float = 0.0
    step: int = 0  # that is shown


class Choice(NamedTuple):
    """A prediction of a chunk of actions."""

    at: int  # step of the episode
    chunk: Float[np.ndarray, "places 2"]  # positions that the chosen chunk would lead to
    samples: Float[np.ndarray, "samples places 2"]  # positions of candidate chunks from other noise
    energy: float | None  # of the chosen chunk
    energies: Float[np.ndarray, " samples"] | None  # of the candidates


@dataclass(frozen=True)
class Episode:
    """An episode of `reach`."""

    settings: EpisodeSettings
    path: Float[np.ndarray, "times 2"]  # positions
    goal: Float[np.ndarray, "2"]
    choices: list[Choice]
    success: bool
    touched: bool  # the obstacle
    retries: int  # as of `count_retries`

    @property
    def step(self) -> int:
        """The step that is shown."""
        return min(self.settings.step, len(self.path) - 1)

    @property
    def choice(self) -> Choice:
        """The last choice before the step that is shown."""
        return [choice for choice in self.choices if choice.at <= self.step][-1]


class _Pushed(Reach):
    """The simulator `reach` with a push by hand."""

    def push(self, dx: float, dy: float) -> Float[np.ndarray, "4"]:
        self._move(dx, dy)
        return self._state()


def shipped_policies() -> dict[str, Policy]:  # by name
    """The policies that are included, trained on 100 scripted episodes of `reach`."""
    return {name: load_policy(INCLUDED / folder) for name, folder in POLICIES.items()}


def check_settings(
    policies: Mapping[str, Policy],  # available policies, by name
    settings: EpisodeSettings,  # to check
) -> None:
    """Refuse settings that are not available."""
    one_of("policy", settings.policy, policies)
    whole("seed", settings.seed, 0, 9999)
    whole("steps", settings.steps, 1, MAX_STEPS)
    whole("samples", settings.samples, 1, MAX_SAMPLES)
    whole("push_at", settings.push_at, 0, Reach.limit)
    whole("step", settings.step, 0, Reach.limit)
    for name in ("push_x", "push_y"):
        between(name, getattr(settings, name), -MAX_PUSH, MAX_PUSH)


def compute(
    policies: Mapping[str, Policy],  # available policies, by name
    settings: EpisodeSettings,  # of the episode
) -> Episode:
    """Run an episode; equal settings give equal episodes, whatever step of it is shown."""
    check_settings(policies, settings)
    episode = _run(policies[settings.policy], replace(settings, step=0))
    return replace(episode, settings=settings)


@lru_cache(maxsize=16)
def _run(policy: Policy, settings: EpisodeSettings) -> Episode:
    simulator, seed = _Pushed(), FIRST_SEED + settings.seed
    states, actions, choices = [simulator.reset(seed)["state"]], [], []
    waiting: deque[Tensor] = deque()
    policy.reset(generator(seed, "policy", policy.device))
    success = False
    while not success and len(actions) < simulator.limit:
        if settings.push_at and len(actions) == settings.push_at:
            states[-1] = simulator.push(settings.push_x, settings.push_y)
        policy.add_observation({"state": torch.from_numpy(states[-1])[None]})
        if not waiting:
            chunk = _predict(policy, policy.context(), policy.generator, settings.steps)
            choices.append(_choice(policy, settings, states[-1], len(actions), chunk))
            waiting.extend(chunk[0][0, : policy.execute])
        actions.append(waiting.popleft().numpy())
        step = simulator.step(actions[-1])
        states.append(step.observation["state"])
        success = step.success
    states, actions = np.array(states), np.array(actions)
    return Episode(settings, states[:, :2], states[0, 2:], choices, bool(success), bool(simulator.touched),
                   count_retries(simulator, states, actions))


def _predict(
    policy: Policy, context: dict[str, Tensor], noise: torch.Generator, steps: int
) -> tuple[Float[Tensor, "b predict 2"], Float[Tensor, " b"] | None]:
    """Chunks of actions, and their energies from a model that has any."""
    found = policy.predictor.predict(context, noise, steps).value
    energies = None
    if isinstance(policy.predictor, EnergyPolicy):
        with torch.no_grad():
            energies = policy.model.landscape(context)(found).cpu()
    return policy.normaliser.restore(found.cpu()), energies


def _choice(policy: Policy, settings: EpisodeSettings, state: np.ndarray, at: int, chosen: tuple) -> Choice:
    """The chunk that was chosen at a step, and others from other noise."""
    context = {name: part.expand(settings.samples, *part.shape[1:]) for name, part in policy.context().items()}
    noise = generator(settings.seed, f"samples {at}", policy.device)
    actions, energies = _predict(policy, context, noise, settings.steps)
    energy = None if energies is None else float(chosen[1])
    places = None if energies is None else energies.numpy()
    return Choice(at, _positions(state, chosen[0])[0], _positions(state, actions), energy, places)


def _positions(state: np.ndarray, actions: Tensor) -> Float[np.ndarray, "samples places 2"]:
    """Where actions lead without an obstacle."""
    moves = SPEED * actions.clamp(-1, 1).numpy().cumsum(1)
    return np.concatenate([np.zeros_like(moves[:, :1]), moves], 1) + state[:2]


def summary_lines(
    episode: Episode,  # to summarise
) -> dict[str, str]:  # value of each quantity, by name
    """Outcome, side and costs of an episode."""
    choice = episode.choice
    lines = {"Outcome": "success" if episode.success else "touched the obstacle" if episode.touched else "out of time",
             "Side": side_of_path(episode.path) or "none", "Steps": str(len(episode.path) - 1),
             "Retries": str(episode.retries), "Predictions": str(len(episode.choices))}
    if choice.energy is not None:
        lines[f"Energy of the chunk from step {choice.at}"] = f"{choice.energy:.3g}"
        lines["Spread of the candidates' energies"] = f"{float(choice.energies.std()):.2g}"
    ends = choice.samples[:, -1]
    return lines | {"Candidates that end on the left": f"{int((ends[:, 0] < 0).sum())} of {len(ends)}"}
