"""Linear probes: which digit moves in a clip, and how fast, from features of its context."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.compat import require
from ebwm.data.cache import SPLITS
from ebwm.data.configs import ClipsConfig
from ebwm.data.digits import SCAN, UNIT, bounce, choose, digit_scans, draw, moving_digits, raw_words
from ebwm.data.encoders import Encoded

__all__ = ["Probe", "Probed", "context_values"]

PENALTIES = [10.0**power for power in range(-5, 2)]


class Probed(NamedTuple):
    """Clips of one split, and what is known of them."""

    states: Float[Tensor, "clips frames features"]
    digit: Tensor  # class of each clip
    speed: Float[Tensor, "clips 2"]  # along both axes


class Probe:
    """Ridge regressions from features of a clip to its digit and its speed."""

    def __init__(
        self,
        clips: ClipsConfig,  # sizes of the clips
        count: int,  # clips of each split
        encoder: Any,  # of the states
        device: torch.device,  # of the states
    ):
        self.splits = {split: _known(split, clips, count, encoder, device) for split in SPLITS}

    def __call__(
        self,
        features: Mapping[str, Float[Tensor, "clips features"]],  # of each split, in float64
    ) -> pd.DataFrame:  # one row for each test clip: `right`, and `speed_explained`, whose mean is a share of variance
        """Fit on the training split with the best penalty on the validation split, and score the test split."""
        digits, speeds = ({split: part[index] for split, part in self.splits.items()} for index in (1, 2))
        hot = {split: torch.nn.functional.one_hot(part, 10).double() for split, part in digits.items()}
        right = _fitted(features, hot).argmax(1) == digits["test"]
        missed = (_fitted(features, speeds) - speeds["test"]).square() / speeds["test"].var(0, correction=0)
        return pd.DataFrame(dict(clip=range(len(right)), right=right.double().numpy(),
                                 speed_explained=1 - missed.mean(1).numpy()))

    def model(
        self,
        model: nn.Module,  # an EBT
    ) -> pd.DataFrame:
        """Scores of the features of a model's context."""
        return self({split: context_values(model, part.states) for split, part in self.splits.items()})

    def states(self) -> pd.DataFrame:
        """Scores of the states themselves, averaged over a clip."""
        return self({split: part.states.mean(1).double().cpu() for split, part in self.splits.items()})


@torch.no_grad()
def context_values(
    model: nn.Module,  # an EBT
    states: Float[Tensor, "clips frames features"],  # clips
) -> Float[Tensor, "clips dim"]:  # in float64
    """The values of the last layer to which candidates attend, averaged over a clip."""
    _, last = model.encode_context(states)[-1]
    return last.mean(2).flatten(1).double().cpu()


def _known(split: str, clips: ClipsConfig, count: int, encoder: Any, device: torch.device) -> Probed:
    """Make the clips of a split again, with their digits and speeds."""
    scans, words = digit_scans(split), raw_words(count, clips.frames + 1, 0, split)
    chosen, limit = choose(words[:, 0], 0, len(scans)), (clips.size - SCAN) * UNIT
    corners = np.stack([choose(words[:, 0], place, limit + 1) for place in (1, 2)], axis=-1)
    path = bounce(corners, words[:, 1:], limit)
    source = moving_digits(split, clips=count, frames=clips.frames, size=clips.size)
    if not np.array_equal(draw(scans[chosen], path, clips.size), source.clips):
        raise ValueError("the clips differ from those of moving_digits; adapt the probe to its generator")
    every = require("sklearn.datasets", "figures").load_digits()
    classes = {scan.astype(np.uint8).tobytes(): digit for scan, digit in zip(every.images, every.target, strict=True)}
    digit = torch.tensor([classes[scan.tobytes()] for scan in scans])[torch.from_numpy(chosen)]
    speed = torch.from_numpy(np.abs(np.diff(path, axis=1)).max(1)).double()
    return Probed(Encoded(source, encoder).whole().to(device), digit, speed)


def _fitted(features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    trials = [_ridge(features, targets, penalty) for penalty in PENALTIES]
    return min(trials, key=lambda guess: (guess["valid"] - targets["valid"]).square().mean())["test"]


def _ridge(features: Mapping[str, Tensor], targets: Mapping[str, Tensor], penalty: float) -> dict[str, Tensor]:
    middle, scale = features["train"].mean(0), features["train"].std(0).clamp_min(1e-9)
    x = {split: (part - middle) / scale for split, part in features.items()}
    centre = targets["train"].mean(0)
    brake = penalty * len(x["train"]) * torch.eye(len(middle), dtype=torch.double)
    weights = torch.linalg.solve(x["train"].T @ x["train"] + brake, x["train"].T @ (targets["train"] - centre))
    return {split: part @ weights + centre for split, part in x.items()}
