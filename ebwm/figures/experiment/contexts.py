"""Tables by context of forking digits: what is known of each, what a model says of it, and frames of one of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ebwm.figures.experiment.forks import Answer, Forks, answer, fitted_temperature, measured, scores_of_futures

__all__ = ["context_table", "fork_frames", "known_table"]


def _places(futures: Any) -> dict[str, np.ndarray]:
    """Clip and step of each context."""
    clip, step = np.indices(futures.taken.shape).reshape(2, -1)
    return dict(clip=clip, step=step)


def known_table(
    world: Forks,  # clips with their futures
) -> pd.DataFrame:  # one row for each context of the test clips
    """Whether a context is a fork, its probabilities, and the entropy and variance of its next state."""
    futures = world.futures["test"]
    places, (left, right) = _places(futures), futures.states.unbind(2)
    known = pd.DataFrame(places | dict(
        fork=futures.turns.expand_as(futures.taken).flatten().numpy(), chance=world.raw["test"].chances[places["clip"]],
        entropy=futures.entropy.flatten().numpy(), left_came=(futures.taken == 0).flatten().numpy(),
        variance=((left - right).square().mean(-1) * futures.probabilities.prod(-1)).flatten().numpy()))
    known["clip_entropy"] = known.groupby("clip").entropy.transform("max")
    return known


def context_table(
    kind: str,  # of model
    model: nn.Module,  # trained
    world: Forks,  # clips with their futures
    clips: Mapping[str, Tensor],  # valid and test, on the device
    steps: int,  # of a walk, or denoising steps
    samples: int,  # number
    radius: float,  # of `shares_near`
    generator: torch.Generator,  # source of randomness
) -> tuple[Answer, pd.DataFrame]:  # one row for each context of the test clips
    """Predictions and samples of a model, and the errors, scores, shares and probabilities of each context."""
    futures, noise = world.futures, generator
    scored = {split: scores_of_futures(kind, model, clips[split][:, :-1], futures[split], noise)
              for split in ("valid", "test")}
    temperature = fitted_temperature(scored["valid"], futures["valid"])
    found = answer(kind, model, clips["test"][:, :-1], steps, samples, noise)
    columns = measured(found, scored["test"], futures["test"], clips["test"][:, 1:].cpu(), radius)
    columns["chance_of_left"] = torch.sigmoid((scored["test"][1] - scored["test"][0]).double() / temperature)
    table = pd.DataFrame({name: values.flatten().double().numpy() for name, values in columns.items()})
    return found, table.assign(**_places(futures["test"]), temperature=temperature)


def fork_frames(
    world: Forks,  # clips with their futures
    clip: int,  # a test clip
    step: int,  # one of its forks
    found: Mapping[str, Answer],  # of each kind of model
    names: Mapping[str, str],  # of the kinds
) -> pd.DataFrame:  # columns `column` and `pixels`
    """The frames before a fork, both futures and their mean, and up to three samples of each model."""
    data, futures = world.data["test"], world.futures["test"]
    frames, (left, right) = data.whole()[clip].cpu(), futures.states[clip, step]
    columns = {"context $t-1$": frames[step - 1], "context $t$": frames[step], "left": left, "right": right,
               "mean": futures.mean[clip, step]}
    for kind, name in names.items():
        drawn = found[kind].samples[:3, clip, step]
        labels = [f"{name} {number}" if len(drawn) > 1 else name for number in range(1, len(drawn) + 1)]
        columns |= dict(zip(labels, drawn, strict=True))
    return pd.DataFrame([dict(column=name, pixels=data.images(state).flatten().tolist())
                         for name, state in columns.items()])
