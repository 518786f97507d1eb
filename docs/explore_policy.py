"""The included policies as data of a page: weights in half precision, normalisation, and initial states."""

import base64
from pathlib import Path
from typing import Any

import explorers
import numpy as np
from torch import Tensor

from ebwm.explore.policy import shipped_policies
from ebwm.policy.evaluation import evaluation_seeds
from ebwm.policy.policies import Policy
from ebwm.policy.reach import Reach

TASKS = 24  # initial states


def write(
    folder: Path,  # of the scripts of explorers in the built site
) -> None:
    """Write the data as a script, which also loads from a file."""
    data = {"policies": {name: described(policy) for name, policy in shipped_policies().items()}, "tasks": tasks()}
    explorers.write_data(folder, "policy", data)


def described(
    policy: Policy,  # of the task `reach`
) -> dict[str, Any]:
    """A policy as JSON."""
    shape, model, scale = policy.model.shape, policy.model, policy.normaliser
    facts = {"kind": policy.options.kind, "dim": shape.dim, "depth": shape.depth, "observe": shape.observe,
             "predict_count": shape.predict, "action_dim": shape.action_dim, "execute": policy.execute,
             "mean": scale.states.mean, "std": scale.states.std,
             "centre": scale.actions.mean, "half": scale.actions.std}
    if policy.options.kind == "ebt":
        facts["step_size"] = float(model.step_size.detach())
    else:
        facts["signal"] = policy.predictor.levels.alphas_cumprod.double().tolist()
    weights = {name: _half(value) for name, value in model.state_dict().items() if value.ndim}
    return facts | {"weights": weights}


def _half(values: Tensor) -> str:
    return base64.b64encode(values.detach().cpu().numpy().astype("<f2").tobytes()).decode()


def tasks() -> list[dict[str, list[float]]]:
    """Initial places and goals of the first episodes of an evaluation."""
    states = [Reach().reset(seed)["state"].astype(np.float64).tolist() for seed in evaluation_seeds(TASKS)]
    return [{"start": state[:2], "goal": state[2:]} for state in states]
