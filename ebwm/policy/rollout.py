"""Episodes of a policy in a simulator: what happened, what each chunk cost, and how often a task was tried again."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import refusal
from ..compat import MissingPart
from ..settings import generator
from ..usage import UsageError
from .simulators import Disturbance, Observation, Simulator

__all__ = ["OUTCOMES", "Actor", "EpisodeResult", "count_retries", "run_episodes", "state_std"]

OUTCOMES = ("success", "failure", "error", "crashed")  # "error": of the policy; "crashed": of the simulator
CLOSED, HELD = 0.3, 5  # size of a gripper's command at which it moves, and steps for which it lasts until it has
REACHES = {"reach": "agent", "metaworld:reach-wall": "current"}  # part of the state that begins with the position
NEAR, RETREAT = 0.5, 0.25  # distance to the goal, and its growth from there, as shares of the first distance


@runtime_checkable
class Actor(Protocol):
    """What an evaluation needs of a policy."""

    facts: list[dict[str, Any]]  # one entry for each chunk since `reset`

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Forget observations and queued actions; noise comes from the generator."""

    def select_action(self, observation: dict[str, Tensor]) -> Float[Tensor, "batch action_dim"]:
        """The next action of each environment."""


@dataclass(frozen=True)
class EpisodeResult:
    """What happened in an episode."""

    seed: int
    outcome: str  # one of OUTCOMES
    steps: int
    chunks: list[dict[str, Any]] = field(default_factory=list)  # facts of each prediction of the batch; "at": its step
    retries: int = 0  # by the rule of `count_retries`
    seconds: float = 0.0  # of the episode, with the simulator; of the whole batch if there are several
    message: str = ""  # of an error or a crash
    trace: dict[str, list] | None = None  # "states" [steps+1 state_dim] and "actions" [steps action_dim]

    @property
    def success(self) -> bool:
        """Whether the task was done."""
        return self.outcome == "success"


class Record:
    """An episode that runs: its simulator, its last observation and what happened."""

    def __init__(self, simulator: Simulator, seed: int, disturbance: Disturbance, std: np.ndarray | None):
        self.simulator, self.seed, self.outcome, self.message = simulator, seed, "", ""
        self.noise, self.std, self.random = disturbance.noise, std, generator(seed, "observation noise")
        self.states, self.actions, self.chunks, self.observation = [], [], [], None
        try:
            self.see(simulator.reset(seed, disturbance))
        except Exception as error:
            self.crash(error)

    def see(self, observation: Observation) -> None:
        """Take an observation; the policy sees its state with noise, the trace holds it without."""
        self.states.append(observation["state"])
        if self.noise:
            state = observation["state"]
            drawn = torch.randn(len(state), generator=self.random).numpy()
            noise = np.float32(self.noise) * self.std[:len(state)] * drawn  # features of images may follow the state
            observation = observation | {"state": state + noise}
        self.observation = observation

    def act(self, action: Float[np.ndarray, " action_dim"]) -> None:
        """Step the simulator; success, the limit of steps and an exception of the simulator end the episode."""
        self.actions.append(action)
        try:
            step = self.simulator.step(action)
        except Exception as error:
            self.crash(error)
            return
        self.see(step.observation)
        if step.success:
            self.outcome = "success"
        elif len(self.actions) >= self.simulator.limit:
            self.outcome = "failure"

    def crash(self, error: Exception) -> None:
        """End the episode because of an exception of the simulator."""
        _raise_if_avoidable(error)
        self.outcome, self.message = "crashed", _line(error)

    def fail(self, error: Exception) -> None:
        """End the episode because of an error of the policy."""
        self.outcome, self.message = "error", _line(error)

    def result(self, seconds: float, trace: bool) -> EpisodeResult:
        """The result of an ended episode."""
        states, actions, steps = np.array(self.states), np.array(self.actions), len(self.actions)
        found = {"states": states.tolist(), "actions": actions.tolist()} if trace else None
        retries = count_retries(self.simulator, states, actions) if steps else 0
        return EpisodeResult(self.seed, self.outcome, steps, self.chunks, retries, seconds, self.message, found)


def run_episodes(
    policy: Actor,  # is reset first
    simulators: Sequence[Simulator],  # one for each seed; with several, the policy acts on a batch
    seeds: Sequence[int],  # of the episodes; that of the first fixes the noise of the policy
    disturbance: Disturbance | None = None,  # the same for every policy
    trace: bool = False,  # keep states and actions
    watch: Callable[[int, Simulator, list[dict]], None] | None = None,  # before a step: (episode, simulator, chunks)
) -> list[EpisodeResult]:  # in the order of the seeds
    """Run episodes side by side until each has ended; those that have ended stay in the batch as they were.

    An exception of the policy ends its episodes as "error", and an action that is not finite the episode that it is
    for; an exception of a simulator ends its own as "crashed". What the user can put right, such as a missing package,
    is raised.
    """
    begun, disturbance = time.perf_counter(), disturbance or Disturbance()
    std = state_std(policy) if disturbance.noise else None
    records = [Record(simulator, seed, disturbance, std) for simulator, seed in zip(simulators, seeds, strict=True)]
    batch = [record for record in records if record.observation is not None]
    policy.reset(generator(seeds[0], "policy", getattr(policy, "device", "cpu")))
    while active := [record for record in batch if not record.outcome]:
        try:
            actions = _choose(policy, batch)
        except Exception as error:
            _raise_if_avoidable(error)
            for record in active:
                record.fail(error)
            break
        for record, action in zip(batch, actions, strict=True):
            if record.outcome:
                continue
            if not np.isfinite(action).all():
                record.fail(FloatingPointError("actions: must be finite"))
            else:
                if watch:
                    watch(records.index(record), record.simulator, record.chunks)
                record.act(action)
    seconds = time.perf_counter() - begun
    return [record.result(seconds, trace) for record in records]


def _choose(policy: Actor, batch: list[Record]) -> Float[np.ndarray, "batch action_dim"]:
    """The next action of each episode; facts of a new chunk are kept with it."""
    names, known = batch[0].observation, len(policy.facts)
    observation = {name: torch.from_numpy(np.stack([record.observation[name] for record in batch])) for name in names}
    actions = torch.as_tensor(policy.select_action(observation)).detach().cpu().numpy()
    sizes = (len(batch), batch[0].simulator.action_dim)
    if actions.shape != sizes:
        raise refusal("actions.shape", actions.shape, f"must be {sizes}", error=UsageError)
    for record in batch:
        if not record.outcome:
            record.chunks += [{"at": len(record.actions), **_as_json(fact)} for fact in policy.facts[known:]]
    return actions


def state_std(
    policy: Actor,  # with the attribute `state_std`, as of `Policy`
) -> Float[np.ndarray, " state_dim"]:
    """Standard deviations of the state over the demonstrations of a policy, the unit of noise."""
    std = getattr(policy, "state_std", None)
    if std is None:
        rule = "has no standard deviations of the state, the unit of noise, in its attribute `state_std`"
        remedy = "evaluate a trained policy that sees the state, or without noise"
        raise refusal("policy", type(policy).__name__, rule, remedy, UsageError)
    return np.asarray(std, dtype=np.float32)


def _as_json(fact: dict[str, Any]) -> dict[str, Any]:
    """Facts of a chunk with Python's own numbers; None for those that are not finite."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in fact.items()}
    infinite = [name for name, value in plain.items() if isinstance(value, float) and not math.isfinite(value)]
    return plain | dict.fromkeys(infinite)


def _raise_if_avoidable(error: Exception) -> None:
    """Raise an error that the user can put right: it would end every episode."""
    if isinstance(error, UsageError | MissingPart | ImportError):
        raise error


def _line(error: Exception) -> str:
    """An exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


# Retries


def count_retries(
    simulator: Simulator,  # for its name, and the layout of its state
    states: Float[np.ndarray, "states state_dim"],  # from the first observation on
    actions: Float[np.ndarray, "steps action_dim"],  # that led from one to the next
) -> int:
    """How often the task was tried again, by a rule that was fixed before any policy was evaluated.

    Where a goal is reached for (REACHES): how often the goal was near, at less than half of the first distance, and
    then the distance has grown by a quarter of the first; the next one counts after it has shrunk by as much. A detour
    around an obstacle, far from the goal, does not count.
    Elsewhere the last number of an action is the command of a gripper: how often the gripper has closed, less the
    first time; an open one has closed after five steps in a row with commands above 0.3, and a closed one has opened
    after five below -0.3.
    """
    if simulator.name not in REACHES:
        return max(0, _closings(actions[:, -1]) - 1)
    parts = _parts(simulator.layout)
    goal = states[:, parts["goal"]]
    place = states[:, parts[REACHES[simulator.name]]][:, :goal.shape[1]]
    return _retreats(np.linalg.norm(place - goal, axis=1))


def _parts(layout: dict[str, int]) -> dict[str, slice]:
    """Where each part of a state lies."""
    ends = np.cumsum(list(layout.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(layout.items(), ends, strict=True)}


def _retreats(distances: Float[np.ndarray, " states"]) -> int:
    extreme, away, found = np.inf, False, 0
    for share in distances / distances[0]:
        extreme = max(extreme, share) if away else min(extreme, share)
        if not away and extreme < NEAR and share > extreme + RETREAT:
            extreme, away, found = share, True, found + 1
        elif away and share < extreme - RETREAT:
            extreme, away = share, False
    return found


def _closings(commands: Float[np.ndarray, " steps"]) -> int:
    closed, found, length, last = False, 0, 0, 0.0
    for mark in np.sign(commands) * (np.abs(commands) > CLOSED):
        length, last = (length + 1 if mark == last else 1), mark
        if mark and length == HELD and closed != (mark > 0):
            closed, found = mark > 0, found + int(mark > 0)
    return found
