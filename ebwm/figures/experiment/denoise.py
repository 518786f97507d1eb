"""Denoising of images: learners of three kinds, and their errors by noise level and number of passes."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ebwm import settings
from ebwm.checks import one_of
from ebwm.data.images import Images, image_splits, to_patches
from ebwm.denoising import Denoiser, DenoisingEBT, add_noise, psnr, remove_noise
from ebwm.evaluation.cost import seconds
from ebwm.evaluation.statistics import student_crossed
from ebwm.figures.errors import FigureError
from ebwm.figures.experiment.tables import Interval
from ebwm.objective import S1
from ebwm.thinking import predict
from ebwm.training.learner import Learner
from ebwm.walk import Walk

__all__ = ["KINDS", "PatchRows", "Way", "decibel", "denoised", "denoising_learner", "errors_by_image", "image_rows",
           "level_noise", "measured_ways", "psnr_interval", "psnr_shares", "update_cost", "verdict"]

KINDS = {"ebt": "EBT", "one_pass": "one pass", "dit": "DiT"}
Levels = tuple[int, int]  # lowest and highest noise level in training


class PatchRows(torch.utils.data.Dataset):
    """Images as the rows of their patches, without an order in time."""

    def __init__(
        self,
        images: Images,  # of one split
        patch: int,  # pixels along each side of a patch
    ):
        self.images, self.patch = images, patch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Float[Tensor, "rows features"]:
        return to_patches(self.images[index][None], self.patch)[0]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape and pixels."""
        return self.images.digest

    def whole(
        self,
        limit: int | None = None,  # number of images from the start; None: all
    ) -> Float[Tensor, "n rows features"]:
        """The patches of all images in their order."""
        return to_patches(self.images.whole(limit), self.patch)


def image_rows(
    source: str,  # as for `image_splits`
    patch: int,  # pixels along each side of a patch
    **options: Any,  # of `image_splits`
) -> dict[str, PatchRows]:  # by split
    """The splits of a source as rows of patches."""
    return {split: PatchRows(images, patch) for split, images in image_splits(source, **options).items()}


def denoising_learner(
    kind: str,  # one of KINDS
    shape: dict[str, int],  # dim, depth and heads
    example: Float[Tensor, "rows features"],  # patches of an image
    levels: Levels,  # noise in training; each image gets a level of its own
    seed: int,  # of the initial weights
    step_size: float | str = "auto",  # initial alpha of the EBT
) -> Learner:  # contexts and targets are both clean images; loss and prediction add the noise
    """A denoiser with its loss; its errors are those of one pass at levels of the training."""
    one_of("kind", kind, KINDS, FigureError)
    (rows, features), weights = example.shape, settings.generator(seed, "weights")
    if kind == "ebt":
        model: nn.Module = DenoisingEBT(**shape, rows=rows, candidate_dim=features, step_size=step_size, generator=weights)
    else:
        model = Denoiser(**shape, candidate_dim=features, predicts="noise" if kind == "dit" else "clean", generator=weights)
    recipe = S1(Walk(1, "last"))

    def drawn(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.randint(levels[0], levels[1] + 1, (len(clean),), generator=generator, device=clean.device)
        return *add_noise(clean, chosen, generator), chosen

    def loss(clean: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        noisy, noise, chosen = drawn(clean, generator)
        if kind == "dit":
            return F.mse_loss(model(noisy, chosen), noise)
        return recipe(model, noisy, target, generator=generator) if kind == "ebt" else F.smooth_l1_loss(model(noisy), target)

    def one_pass(clean: Tensor, generator: torch.Generator) -> Tensor:
        noisy, _, chosen = drawn(clean, generator)
        if kind != "dit":
            return denoised(kind, model, noisy, Way("best", 1, 1, 0))
        found = [remove_noise(model, part[None], int(level)) for part, level in zip(noisy, chosen, strict=True)]
        return torch.cat(found)

    same = lambda batch: (batch, batch)
    return Learner(model, loss, one_pass, errors=errors_by_image, pair=same)


def update_cost(
    learners: Mapping[str, Learner],  # from `denoising_learner`, by kind, that of the EBT first; they are changed
    clean: Float[Tensor, "b rows features"],  # patches of a batch of images
    rounds: int = 15,  # updates of each that are counted
) -> dict[str, float]:  # by kind
    """Seconds of an update of the first learner divided by those of each; updates are made in turns."""
    def updates(learner: Learner) -> Callable[[], None]:
        learner.model.to(clean.device)
        optimiser = torch.optim.AdamW(learner.model.parameters())
        noise = torch.Generator(clean.device).manual_seed(0)

        def update() -> None:
            optimiser.zero_grad()
            learner.loss(clean, clean, noise).backward()
            optimiser.step()

        return update

    found = seconds({kind: updates(learner) for kind, learner in learners.items()}, rounds)
    return {kind: 1 / timing.ratio for kind, timing in found.items()}


class Way(NamedTuple):
    """A way to denoise."""

    name: str  # "best": only among the ways of which the best is chosen; other names: the last one of a name is kept too
    passes: int  # forward passes of a run
    repeats: int  # runs, each on the result of the one before
    told: int  # noise level that the DiT is given


@torch.no_grad()
def denoised(
    kind: str,  # of KINDS
    model: nn.Module,  # of a `denoising_learner`
    noisy: Float[Tensor, "b rows features"],  # patches of noisy images
    way: Way,  # numbers of passes, and the level that the DiT is given
) -> Float[Tensor, "b rows features"]:
    """Clean images by some forward passes."""
    if kind == "dit":
        return remove_noise(model, noisy, way.told, way.passes, way.repeats)
    if kind == "ebt":
        return predict(model, noisy, Walk(way.passes * way.repeats, "last")).value
    for _ in range(way.passes * way.repeats):
        noisy = model(noisy)
    return noisy


def errors_by_image(
    found: Float[Tensor, "b rows features"],  # denoised patches; clamped as in the official code
    clean: Float[Tensor, "b rows features"],  # true patches
) -> Float[Tensor, " b"]:
    """Mean squared error of each image, on the scale from -1 to 1; infinite if it is NaN."""
    errors = (found.clamp(-1, 1) - clean).square().mean((1, 2))
    return errors.masked_fill(errors.isnan(), torch.inf)


def level_noise(
    clean: Float[Tensor, "b rows features"],  # images
    level: int,  # of the noise
    seed: int,  # of the run; all models of a seed see the same noise
) -> Float[Tensor, "b rows features"]:
    """Noisy images, the same for all models of a seed."""
    levels = torch.full((len(clean),), level, device=clean.device)
    return add_noise(clean, levels, settings.generator(seed, f"level {level}", clean.device))[0]


def decibel(
    found: Float[Tensor, "b rows features"],  # denoised patches
    clean: Float[Tensor, "b rows features"],  # true patches
) -> float:
    """PSNR of the mean error of all images, as in the official code."""
    return float(psnr(errors_by_image(found, clean).mean()))


def measured_ways(
    kind: str,  # of KINDS
    model: nn.Module,  # of a `denoising_learner`
    splits: tuple[Tensor, Tensor],  # validation and test images
    level: int,  # of the noise
    seed: int,  # of the noise
    ways: Sequence[Way],  # to compare
) -> Mapping[str, pd.DataFrame]:  # PSNR of all ways (`curves`), errors of the chosen ones by image, first images
    """Denoise in several ways; "best" is the one of them all that has the highest PSNR on the validation images."""
    starts, rows, errors, shown = [level_noise(part, level, seed) for part in splits], [], {}, []
    for way in ways:
        valid, test = (denoised(kind, model, start, way) for start in starts)
        row = dict(level=level, way=way.name, passes=way.passes * way.repeats, valid=decibel(valid, splits[0]),
                   test=decibel(test, splits[1]))
        mse = errors_by_image(test, splits[1]).cpu().numpy()
        images = dict(image=range(len(mse)), mse=mse)
        if way.name != "best":
            errors[way.name] = row | images
        if row["valid"] > max([one["valid"] for one in rows], default=-np.inf):
            errors["best"] = row | {"way": "best"} | images
            pixels = [image.ravel().tolist() for image in test[:3].clamp(-1, 1).cpu().numpy()]
            shown = [dict(level=level, image=n, pixels=some) for n, some in enumerate(pixels)]
        rows.append(row)
    return {"curves": pd.DataFrame(rows), "errors": pd.concat(map(pd.DataFrame, errors.values())),
            "shown": pd.DataFrame(shown)}


def psnr_shares(
    errors: Float[np.ndarray, "seeds images"],  # mean squared errors
) -> Float[np.ndarray, "seeds images"]:  # in decibel
    """Contributions of images to the PSNR of the mean error of each seed, to first order."""
    means = errors.mean(1, keepdims=True)
    return 10 * np.log10(4) - 10 / np.log(10) * (np.log(means) + errors / means - 1)


def psnr_interval(
    ours: Float[np.ndarray, "seeds images"],  # mean squared errors
    theirs: Float[np.ndarray, "seeds images"] | Sequence[float] = (),  # of another model; default: none
) -> Interval:  # in decibel
    """PSNR, or the difference of two, with Student's interval over seeds and images; one seed has none."""
    values = psnr_shares(ours) - (psnr_shares(np.asarray(theirs)) if len(theirs) else 0)
    if len(values) > 1 and np.isfinite(values).all():
        return student_crossed(values)._asdict()
    return dict(value=float(values.mean()), low=None, high=None)


def verdict(
    interval: Interval,  # of a difference
) -> str:
    """Whether the first of two is higher, lower, or not distinguished by the interval."""
    if interval["low"] is None or interval["low"] <= 0 <= interval["high"]:
        return "not distinguished"
    return "higher" if interval["low"] > 0 else "lower"
