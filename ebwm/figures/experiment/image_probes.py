"""Linear probes of images: which class an image shows, from features inside a model of patches."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ebwm.compat import require
from ebwm.denoising import DenoisingEBT
from ebwm.figures.experiment.denoise import PatchRows

__all__ = ["Probed", "denoiser_features", "probe_classes"]

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of regularisation that are tried


class Probed(NamedTuple):
    """Result of a linear probe."""

    right: Bool[np.ndarray, " images"]  # whether a test image's class was found
    layer: int  # whose features were chosen, from 1
    valid: float  # share of validation images whose class was found


@torch.no_grad()
def denoiser_features(
    model: nn.Module,  # a `DenoisingEBT` or a `Denoiser`
    images: Float[Tensor, "b rows features"],  # clean patches
    batch: int = 256,  # images at once
) -> list[Float[np.ndarray, "b dim"]]:  # of each layer
    """Outputs of each layer at clean images, averaged over the patches."""
    found: list[list[Tensor]] = [[] for _ in model.blocks]
    keep = lambda part: lambda module, inputs, output: part.append(output.mean(1).float().cpu())
    hooks = [block.register_forward_hook(keep(part)) for block, part in zip(model.blocks, found, strict=True)]
    try:
        for part in images.split(batch):
            if isinstance(model, DenoisingEBT):
                model.landscape()(part)
            else:
                levels = None if model.predicts == "clean" else torch.zeros(len(part), dtype=torch.long, device=part.device)
                model(part, levels)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(parts).numpy() for parts in found]


def probe_classes(
    features: Mapping[str, Sequence[np.ndarray]],  # by split: of each layer, [images dim]
    data: Mapping[str, PatchRows],  # splits with labels
) -> Probed:
    """Multinomial logistic regression on standardised features; layer and penalty are chosen on validation images."""
    linear, pipeline, scaling = (require(f"sklearn.{name}", "figures") for name in ("linear_model", "pipeline", "preprocessing"))
    labels = {split: part.images.labels.numpy()[:len(features[split][0])] for split, part in data.items()}
    best = Probed(np.zeros(len(labels["test"]), bool), 0, -1.0)
    for layer, (train, valid, test) in enumerate(zip(*(features[split] for split in ("train", "valid", "test")), strict=True), 1):
        for penalty in PENALTIES:
            model = linear.LogisticRegression(C=penalty, max_iter=500)
            fitted = pipeline.make_pipeline(scaling.StandardScaler(), model).fit(train, labels["train"])
            score = fitted.score(valid, labels["valid"])
            if score > best.valid:
                best = Probed(fitted.predict(test) == labels["test"], layer, score)
    return best
