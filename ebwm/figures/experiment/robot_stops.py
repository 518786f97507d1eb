"""Walks of a policy that stop by item, and episodes with them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from ebwm import settings
from ebwm.figures.experiment.robots import attempts, episode_rows, episodes_of
from ebwm.figures.experiment.runs import Experiment
from ebwm.policy.chunks import Chunks
from ebwm.policy.policies import Policy, PolicySettings
from ebwm.policy.predictors import EnergyPolicy
from ebwm.policy.walk import walk_chunks
from ebwm.randomness import normal_like

__all__ = ["MOST", "attempt_stopping", "stopping"]

MOST = 20  # steps of a walk that does not stop earlier, as in the authors' code


@torch.no_grad()
def stopping(
    policy: Policy,  # an EBT; unchanged
    chunks: Chunks,  # their validation windows set the tolerance
    stop: str,  # "gradient" | "energy"
    seed: int,  # of the noise with which the tolerance is measured
) -> Policy:
    """The same policy with walks that stop by item, after MOST steps at the latest.

    The tolerance is the median over validation windows after the fewest steps of its training: of the gradient's norm,
    or of the last change of the energy.
    """
    predictor, (context, target) = policy.predictor, Chunks.pair(chunks.items("valid"))
    context = {name: part.to(policy.device) for name, part in context.items()}
    start = normal_like(target.to(policy.device), settings.generator(seed, "tolerance", policy.device))
    landscape, alpha = predictor.model.landscape(context), predictor.model.step_size.detach()
    info = walk_chunks(landscape, start, predictor.walk, alpha, max(2, predictor.walk.least), final_energy=False).info
    found = info.grad_norm[-1] if stop == "gradient" else (info.energy[-1] - info.energy[-2]).abs()
    walk = replace(predictor.walk, stop=stop, tolerance=float(found.median()), predicted=MOST)
    changed = EnergyPolicy(predictor.model, walk, predictor.samples)
    return Policy(changed, policy.normaliser, replace(policy.options, walk=walk), policy.encoder)


def attempt_stopping(
    exp: Experiment,
    chunks: Chunks,  # to learn from
    options: PolicySettings,  # that may diverge
    simulator: str,  # name
    seed: int,  # of training
    count: int,  # episodes
    rules: Sequence[str],  # "gradient", "energy"
) -> dict[str, dict[str, pd.DataFrame | dict]]:  # by rule, "" without one: tables "episodes" and "runs"
    """Train once, and evaluate without a stopping rule and with each."""
    def episodes(policy: Policy, rule: str) -> pd.DataFrame:
        return episode_rows(episodes_of(stopping(policy, chunks, rule, seed) if rule else policy, simulator, seed, count))

    ways = {rule: partial(episodes, rule=rule) for rule in ("", *rules)}
    found, facts = attempts(exp, chunks, options, seed, count, ways)
    return {rule: {"episodes": rows.assign(batch=1), "runs": facts} for rule, rows in found.items()}
