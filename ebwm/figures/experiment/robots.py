"""What figures of policies share: demonstrations, trained policies, and their episodes as tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from ebwm.compat import MissingPart
from ebwm.evaluation.statistics import Interval, paired_difference, paired_rates, wilson
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tables import over_seeds, within
from ebwm.figures.experiment.tuning import search
from ebwm.policy.chunks import Chunks, ChunksConfig
from ebwm.policy.demonstrations import Demonstrations, collect
from ebwm.policy.evaluation import FIRST_SEED, evaluate_policy, evaluation_seeds
from ebwm.policy.policies import Policy, PolicySettings
from ebwm.policy.training import Trained, fit_policy
from ebwm.policy.reach import Reach, side_of_path
from ebwm.policy.rollout import EpisodeResult, run_episodes
from ebwm.policy.simulators import Disturbance, Observation, make_simulator

__all__ = ["KINDS", "OWN", "RATES", "ROLES", "SharedStarts", "attempt", "attempts", "chosen_settings", "demonstrated", "difference",
           "episode_rows", "episodes_of", "filmed", "learned", "rate", "sides_from_states", "tuned", "windows", "with_steps"]

KINDS = {"ebt": "EBT-Policy", "ebt_few": "EBT-Policy trained for 2 steps", "diffusion": "diffusion", "cloning": "cloning",
         "mixture": "mixture"}
RATES = "learning_rate", (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
_WALK = ((("factor", (3.0,)), ("normalise", ("sample",))), dict(factor=1.0, normalise="none"))
_DECAY = ((("weight_decay", (0.01,)), ("average", (0.98,))), dict(weight_decay=1e-6, average=0.995))
OWN = {"ebt": _WALK, "ebt_few": _WALK, "cloning": _DECAY, "mixture": _DECAY,
       "diffusion": ((("output", ("noise",)), ("average", (0.98,))), dict(output="clean", average=0.995))}
ROLES = {"ebt": "ebt", "ebt_few": "gru", "diffusion": "diffusion", "cloning": "transformer", "mixture": "floor"}


def demonstrated(
    simulator: str,  # name
    count: int,  # episodes
    seed: int,  # of the training seed: each has demonstrations of its own
    style: str = "clean",  # of the expert
) -> Demonstrations:
    """Demonstrations of a training seed."""
    return collect(simulator, count, seed, style)


def windows(
    demonstrations: Demonstrations,
    seed: int,  # fixes which episodes are held out
    held_out: float = ChunksConfig.held_out,  # share of the episodes for validation, and for test
) -> Chunks:
    """Windows of demonstrations."""
    return Chunks.of(demonstrations, ChunksConfig(held_out=held_out), seed)


def tuned(
    exp: Experiment,  # its trials
    simulator: str,  # name
    count: int,  # demonstrations to learn from
    held_out: int,  # further demonstrations whose error chooses
) -> dict[str, Any]:  # as of `Experiment.tune`
    """Choose the settings of each kind by as many trials: learning rates, then two settings of its own."""
    share = held_out / (count + 2 * held_out)

    @cache
    def data(seed: int) -> Chunks:
        return windows(demonstrated(simulator, count + 2 * held_out, seed), seed, share)

    def error(kind: str, seed: int, **chosen: Any) -> float:
        options = chosen_settings(exp.parameters, {"chosen": {kind: chosen}}, kind)
        return learned(exp, data(seed), options, seed).log[-1]["valid_loss"]

    searches = {kind: search(RATES, *stages, **first) for kind, (stages, first) in OWN.items()}
    shared = {name: exp.parameters[name] for name in ("batch", "dim", "depth")}
    return exp.tune(searches, error, dict(simulator=simulator, demonstrations=count, held_out=held_out) | shared)


def chosen_settings(
    parameters: Mapping[str, Any],  # of the figure: they give updates and sizes, if it has them
    trials: Mapping[str, Any],  # from `Experiment.tune` or `Experiment.tuning`: "chosen" settings by kind
    kind: str,  # in KINDS
    **changes: Any,  # of `PolicySettings` or of the walk
) -> PolicySettings:
    """The settings of a kind after tuning."""
    skipped = {"model", "valid_loss", "seconds"}
    tuned = {name: value for name, value in trials["chosen"][kind].items() if name not in skipped}
    named = ("dim", "depth", "batch", "trunk")
    sizes = {name: parameters[name] for name in named if name in parameters}
    few = {"preset": "two_steps"} if kind == "ebt_few" else {}
    updates = parameters.get(f"updates_{kind}", parameters.get("updates", 1000))
    return PolicySettings.named(kind.partition("_")[0], **{"updates": updates} | sizes | few | tuned | changes)


def learned(
    exp: Experiment,  # its progress bar follows
    chunks: Chunks,  # to learn from
    options: PolicySettings,
    seed: int,  # fixes initial weights, batches and noise
    keep: Sequence[int] = (),  # numbers of updates after which the weights are kept
) -> Trained:
    """A trained policy."""
    return fit_policy(chunks, options, seed, lambda row: exp.progress.update(), keep, exp.device)


def with_steps(
    policy: Policy,  # unchanged
    steps: int | None,  # of its predictions; None: its own
) -> Policy:
    """The same policy with another number of steps."""
    return Policy(policy.predictor, policy.normaliser, replace(policy.options, steps=steps), policy.encoder)


def episodes_of(
    policy: Policy,
    simulator: str,  # name
    seed: int,  # training seed: each has initial states of its own, the same for all policies
    count: int,  # episodes
    batch: int = 1,  # episodes side by side; above 1 their noise is not that of single ones
    **options: Any,  # of `evaluate_policy`: disturbance, trace
) -> list[EpisodeResult]:
    """Episodes of a policy, in this process."""
    seeds = evaluation_seeds(count, FIRST_SEED + 1000 * seed)
    return evaluate_policy(policy, simulator, seeds, workers=0, batch=batch, **options)


def episode_rows(
    results: Sequence[EpisodeResult],  # of one policy
    **facts: Any,  # columns with one value: the kind, its steps
) -> pd.DataFrame:  # one row an episode
    """Episodes as a table."""
    mean = lambda result, name: np.mean([chunk[name] for chunk in result.chunks if chunk.get(name) is not None] or [np.nan])
    rows = [dict(episode=result.seed % 1000, success=result.success, steps=result.steps, retries=result.retries,
                 outcome=result.outcome, evaluations=mean(result, "evaluations"), energy=mean(result, "energy"),
                 milliseconds=1000 * mean(result, "seconds")) for result in results]
    return pd.DataFrame(rows).assign(**facts)


def filmed(
    policy: Policy,
    simulator: str,  # name
    seed: int,  # of the episode, as of `EpisodeResult`
    count: int = 6,  # pictures; evenly spaced, but for the first one and those before and after an object is dropped
    size: int = 72,  # pixels along each side
    disturbance: Disturbance | None = None,
) -> pd.DataFrame:  # columns at (the step), pixels, energy (of the present chunk), outcome; empty without graphics
    """Pictures of an episode."""
    pictures, environment = [], make_simulator(simulator)
    see = lambda _, shown, chunks: pictures.append((shown.picture(size), chunks[-1].get("energy"), shown.dropped))
    try:
        [result] = run_episodes(policy, [environment], [seed], disturbance, watch=see)
    except MissingPart:
        return pd.DataFrame(columns=["at", "pixels", "energy", "outcome"])
    finally:
        environment.close()
    steps = _shown_steps(np.array([dropped for *_, dropped in pictures]), count)
    return pd.DataFrame([dict(at=int(step), pixels=pictures[step][0].ravel().tolist(), energy=pictures[step][1],
                              outcome=result.outcome) for step in steps])


def _shown_steps(dropped: Bool[np.ndarray, " steps"], count: int) -> Int[np.ndarray, " shown"]:
    first = int(dropped.argmax())  # 0: nothing is dropped
    before = [0, first - 1] if first > 0 else []
    after = np.linspace(first, len(dropped) - 1, count - len(before)).round().astype(int)
    return np.unique([*before, *after])


def rate(
    rows: pd.DataFrame,  # episodes, with the column `success`
) -> dict[str, float]:  # value, low, high
    """Success rate of policies of several seeds: the wider bounds of Student's interval over seeds and Wilson's over episodes.

    Wilson's alone holds for other episodes of these policies, not for other trained policies. One seed has Wilson's.
    """
    pooled, seeds = wilson(int(rows.success.sum()), len(rows)), over_seeds(rows.groupby("seed").success.mean())
    return within(_wider(pooled, seeds), 0, 1)


def _wider(over_episodes: Interval, seeds: Mapping[str, float | None]) -> dict[str, float]:
    if seeds["low"] is None:
        return over_episodes._asdict()
    return dict(value=over_episodes.value, low=min(over_episodes.low, seeds["low"]),
                high=max(over_episodes.high, seeds["high"]))


def difference(
    ours: pd.DataFrame,  # episodes of all seeds of training
    theirs: pd.DataFrame,  # of another policy, with the same seeds and episodes
    column: str = "success",  # what differs: "success" or "retries"
) -> dict[str, float | None]:  # value, low, high; a single seed has no interval
    """Paired difference: the wider bounds of Student's interval over seeds and of one over episodes.

    Each seed has initial states of its own, so that its episodes are nested in it. Of few seeds, all may differ by the same
    number; the interval over episodes, Agresti and Min's for success and Student's for retries, has a width there too.
    """
    one, other = (rows.pivot(index="seed", columns="episode", values=column) for rows in (ours, theirs))
    seeds = over_seeds((one.astype(float) - other.astype(float)).mean(axis=1))
    if seeds["low"] is None:
        return seeds
    statistic = paired_rates if column == "success" else paired_difference
    return _wider(statistic(*(table.to_numpy().ravel() for table in (one, other))), seeds)


# Two ways around an obstacle


class SharedStarts(Reach):
    """The simulator `reach`, where as many neighbouring seeds as there are samples begin in the same state."""

    def __init__(
        self,
        first: int,  # the first seed
        samples: int,  # seeds of one state
    ):
        super().__init__()
        self.first, self.samples = first, samples

    def reset(self, seed: int, disturbance: Disturbance | None = None) -> Observation:
        """Start an episode in the state of its group of seeds."""
        return super().reset(self.first + (seed - self.first) // self.samples, disturbance)


def sides_from_states(
    policy: Policy,
    seed: int,  # training seed: each has initial states of its own
    states: int,  # number of initial states
    samples: int,  # episodes of each, with other noise of the policy
) -> pd.DataFrame:  # columns state, sample, side ("left", "right" or "failed"), x and y of the path
    """Which way episodes go around the obstacle of `reach`."""
    seeds = evaluation_seeds(states * samples, FIRST_SEED + 1000 * seed)
    make = partial(SharedStarts, seeds[0], samples)
    results = evaluate_policy(policy, make, seeds, workers=0, batch=len(seeds), trace=True)
    rows = []
    for number, result in enumerate(results):
        path = np.array(result.trace["states"])[:, :2]
        side = (side_of_path(path) if result.success else None) or "failed"
        rows.append(dict(state=number // samples, sample=number % samples, side=side, x=path[:, 0].tolist(),
                         y=path[:, 1].tolist()))
    return pd.DataFrame(rows)


def attempts(
    exp: Experiment,
    chunks: Chunks,  # to learn from
    options: PolicySettings,  # that may diverge
    seed: int,  # of training
    count: int,  # episodes
    ways: Mapping[Any, Callable[[Policy], pd.DataFrame]],  # policy -> rows of episodes, by name
) -> tuple[dict[Any, pd.DataFrame], dict[str, Any]]:  # episodes by name; validation loss, and whether it diverged
    """Train once and evaluate in some ways; what is not finite, in training or prediction, fails in all its episodes."""
    before, facts, found = exp.progress.n, dict(valid_loss=np.inf, diverged=True), {}
    lost = pd.DataFrame(dict(episode=range(count), success=False, steps=0, retries=0, outcome="error"))
    try:
        trained = learned(exp, chunks, options, seed)
        loss = trained.log[-1]["valid_loss"]
        facts = dict(valid_loss=loss, diverged=not np.isfinite(loss))
        for name, evaluate in ways.items():
            found[name] = evaluate(trained.policy)
    except FloatingPointError:
        exp.progress.update(options.updates - (exp.progress.n - before))
    return {name: found.get(name, lost) for name in ways}, facts


def attempt(
    exp: Experiment,
    chunks: Chunks,  # to learn from
    options: PolicySettings,  # that may diverge
    simulator: str,  # name
    seed: int,  # of training
    count: int,  # episodes
    batches: Sequence[int] = (1,),  # numbers of episodes side by side
) -> dict[str, Any]:  # tables "episodes" and "runs"
    """Train, and evaluate by some numbers of episodes side by side."""
    ways = {batch: lambda policy, batch=batch: episode_rows(episodes_of(policy, simulator, seed, count, batch))
            for batch in batches}
    found, facts = attempts(exp, chunks, options, seed, count, ways)
    return {"episodes": pd.concat([rows.assign(batch=batch) for batch, rows in found.items()], ignore_index=True),
            "runs": facts}
