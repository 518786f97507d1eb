"""Scores of a policy's state along episodes: energies, and the disagreement of several predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ebwm import settings
from ebwm.figures.experiment.tables import Interval, over_seeds
from ebwm.policy.policies import Policy
from ebwm.policy.rollout import EpisodeResult

__all__ = ["Contexts", "along", "areas", "around_fault", "contexts_of", "disagreement", "over_defined", "walks"]


@dataclass(frozen=True)
class Contexts:
    """Observations at some times of episodes."""

    states: Float[Tensor, "contexts observe state_dim"]  # in the simulator's units
    facts: pd.DataFrame  # columns episode, time, success


def contexts_of(
    results: Sequence[EpisodeResult],  # with their traces
    policy: Policy,  # says how many observations are a context
    times: Sequence[int],  # steps of an episode; those after its end are left out
) -> Contexts:
    """The last observations before some times of each episode."""
    states, facts = [], []
    for result in results:
        path = np.asarray(result.trace["states"], dtype=np.float32)
        for time in times:
            if time < result.steps:
                states.append(path[np.maximum(np.arange(time - policy.options.observe + 1, time + 1), 0)])
                facts.append(dict(episode=result.seed % 1000, time=time, success=result.success))
    return Contexts(torch.from_numpy(np.stack(states)), pd.DataFrame(facts))


def _normalised(policy: Policy, contexts: Contexts) -> dict[str, Tensor]:
    return {"state": policy.normaliser.state(contexts.states.to(policy.device))}


def walks(
    policy: Policy,  # an EBT
    contexts: Contexts,
    samples: int,  # walks of each context
    seed: int,  # of their noise
) -> tuple[Float[Tensor, "samples contexts"], Float[Tensor, "samples contexts"]]:
    """Energies of predicted chunks, and the steps of their walks."""
    generator = settings.generator(seed, "energies", policy.device)
    with torch.no_grad():
        landscape = policy.predictor.model.landscape(context := _normalised(policy, contexts))
        found = [policy.predictor.predict(context, generator) for _ in range(samples)]
        energies, steps = [landscape(one.value) for one in found], [one.steps.float() for one in found]
        return torch.stack(energies).cpu(), torch.stack(steps).cpu()


def along(
    results: Sequence[EpisodeResult],
) -> pd.DataFrame:  # columns episode, success, at (the step of the episode), energy, walk (steps of the walk)
    """Energy and steps of the walk of each chunk that was executed."""
    return pd.DataFrame([dict(episode=result.seed % 1000, success=result.success, at=chunk["at"], energy=chunk["energy"],
                              walk=chunk["steps"]) for result in results for chunk in result.chunks])


def around_fault(
    usual: Sequence[EpisodeResult],  # with their traces
    faulty: Sequence[EpisodeResult],  # episodes of the same seeds with a fault
) -> pd.DataFrame:  # columns episode, success, fault (its step), before, after, twin, last
    """Energies of the executed chunks around a fault: the last one before it, the first one after it, and the last of all.

    `twin` is the energy at the time of `after` in the episode without the fault, which is the same until then; not a number
    if that has ended. Episodes without a fault are left out.
    """
    rows = []
    for one, other in zip(usual, faulty, strict=True):
        paths = [np.asarray(result.trace["states"]) for result in (one, other)]
        length = min(map(len, paths))
        differ = (paths[0][:length] != paths[1][:length]).any(-1)
        energies = pd.Series({chunk["at"]: chunk["energy"] for chunk in other.chunks})
        fault = int(differ.argmax()) if differ.any() else len(paths[1])
        before, after = energies[energies.index < fault], energies[energies.index >= fault]
        if len(before) and len(after):
            twin = {chunk["at"]: chunk["energy"] for chunk in one.chunks}.get(after.index[0], np.nan)
            rows.append(dict(episode=other.seed % 1000, success=other.success, fault=fault, before=before.iloc[-1],
                             after=after.iloc[0], twin=twin, last=after.iloc[-1]))
    kinds = dict(episode=int, success=bool, fault=int, before=float, after=float, twin=float, last=float)
    return pd.DataFrame(rows, columns=[*kinds]).astype(kinds)


def disagreement(
    policies: Sequence[Policy],  # one prediction of each, with noise of its own
    contexts: Contexts,
    seed: int,  # of the noise
) -> Float[Tensor, " contexts"]:
    """Standard deviation over predictions, as a root mean square over the executed actions in the simulator's units."""
    found, generator = [], settings.generator(seed, "disagreement", policies[0].device)
    for policy in policies:
        value = policy.predictor.predict(_normalised(policy, contexts), generator, policy.options.steps).value
        found.append(policy.normaliser.restore(value[:, : policy.execute].cpu()))
    return torch.stack(found).var(0).mean((-1, -2)).sqrt()


def areas(
    scores: pd.DataFrame,  # columns seed, time, success, and the scores by name
    name: str,  # of a score
    time: int,  # step of the episode
) -> Float[np.ndarray, " seeds"]:  # 0.5 is chance; not a number without failures or without successes
    """Area under the curve of each seed: whether failing episodes have higher scores."""
    found = []
    for _, rows in scores[scores.time == time].groupby("seed"):
        failed, passed = (rows[name][rows.success == flag].to_numpy() for flag in (False, True))
        above = (failed[:, None] > passed) + 0.5 * (failed[:, None] == passed)
        found.append(float(above.mean()) if above.size else np.nan)
    return np.array(found)


def over_defined(
    values: Float[np.ndarray, " seeds"],  # not a number for some seeds, as of `areas`
) -> Interval:
    """Mean over the seeds that have a value, with Student's interval."""
    values = values[np.isfinite(values)]
    return over_seeds(values) if len(values) else dict(value=None, low=None, high=None)
