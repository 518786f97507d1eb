"""Denoising: noise by level, the energy whose candidate is the noisy image, and diffusers' steps."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ebwm.data.images import Images
from ebwm.denoising import Denoiser, DenoisingEBT, add_noise, linear_noise, psnr, remove_noise
from ebwm.figures.experiment.denoise import (
    KINDS,
    PatchRows,
    Way,
    denoised,
    denoising_learner,
    errors_by_image,
    level_noise,
    measured_ways,
    psnr_interval,
    psnr_shares,
    verdict,
)
from ebwm.figures.experiment.image_probes import denoiser_features, probe_classes
from ebwm.figures.experiment.patches import completed
from ebwm.objective import S1
from ebwm.settings import generator
from ebwm.thinking import predict
from ebwm.training.configuration import ModelConfig
from ebwm.training.learner import evaluate, make_learner
from ebwm.walk import Walk
from tests.helpers import draw

if find_spec("diffusers") is None:  # imported by the tests that need it, not by every process that collects them
    pytest.skip("diffusers is not installed", allow_module_level=True)
SHAPE = {"dim": 16, "depth": 2, "heads": 2}


def image_data(count=24, seed=0):
    """Small images of two classes, dark and bright, with some noise."""
    pixels = np.random.default_rng(seed).integers(40, size=(count, 1, 4, 4))
    classes = np.arange(count) % 2
    pixels = (pixels + 180 * classes[:, None, None, None]).astype(np.uint8)
    return PatchRows(Images(pixels, torch.from_numpy(classes)), 2)


def test_the_noise_is_that_of_the_papers():
    signal = linear_noise().alphas_cumprod
    assert signal.sqrt()[[99, 199]].tolist() == pytest.approx([0.947, 0.812], abs=5e-4)
    assert (1 - signal).sqrt()[[99, 199]].tolist() == pytest.approx([0.321, 0.584], abs=5e-4)
    clean, levels = torch.ones(2, 3, 4), torch.tensor([0, 999])
    noisy, noise = add_noise(clean, levels, generator(0))
    assert (noisy[0] - clean[0]).abs().max() < 0.1 and torch.allclose(noisy[1], noise[1], atol=0.02)
    assert psnr(torch.tensor(4 * 142.98 / 255**2)).item() == pytest.approx(26.58, abs=0.01)  # EBT, Table 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoiser_learns_and_works_for_one_image_and_any_number_of_passes(kind):
    data = image_data()
    learner = denoising_learner(kind, SHAPE, data[0], (0, 199), 0, 1.0)
    rows, optimiser = data.whole(), torch.optim.Adam(learner.model.parameters(), 1e-2)
    before = evaluate(learner, rows, 0)
    for _ in range(30):
        optimiser.zero_grad()
        learner.loss(*learner.pair(rows), generator(1)).backward()
        optimiser.step()
    assert evaluate(learner, rows, 0) < 0.8 * before
    noisy = level_noise(rows, 99, 0)
    several = denoised(kind, learner.model, noisy, Way("best", 2, 2, 99))
    alone = denoised(kind, learner.model, noisy[:1], Way("best", 2, 2, 99))
    assert torch.allclose(several[:1], alone, atol=1e-5) and several.shape == rows.shape
    assert level_noise(rows, 99, 0).equal(noisy) and not level_noise(rows, 99, 1).equal(noisy)


def test_the_sizes_are_equal_to_about_one_percent():
    models = (DenoisingEBT(64, 2, 2, 16, 4), Denoiser(64, 2, 2, 4), Denoiser(64, 2, 2, 4, "noise"))
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    assert max(sizes) < 1.01 * min(sizes)


def test_the_walk_of_the_ebt_starts_at_the_noisy_image():
    model, noisy, clean = DenoisingEBT(16, 1, 2, 4, 3, 2.0, generator(0)), draw(2, 4, 3).float(), torch.zeros(2, 4, 3)
    _, gradient = model.landscape().value_and_grad(noisy)
    found = predict(model, noisy, Walk(1, "last"))
    assert torch.allclose(found.value, noisy - 2 * gradient, atol=1e-6) and found.evaluations.tolist() == [2, 2]
    loss = S1(Walk(1, "last"))(model, noisy, clean)
    assert loss.item() == pytest.approx(torch.nn.functional.smooth_l1_loss(found.value, clean).item(), rel=1e-5)


def test_diffusion_takes_the_named_levels_and_ends_at_the_estimate(monkeypatch):
    asked, model = [], Denoiser(16, 1, 2, 3, "noise", generator(0))
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda y, levels: asked.append(int(levels[0])) or forward(y, levels))
    noisy = draw(2, 4, 3).float()
    one = remove_noise(model, noisy, 99)
    signal = linear_noise().alphas_cumprod[99]
    estimate = (noisy - (1 - signal).sqrt() * forward(noisy, torch.full((2,), 99))) / signal.sqrt()
    assert torch.allclose(one, estimate, atol=1e-5)
    remove_noise(model, noisy, 199, 4, repeats=2)
    assert asked == [99, *[199, 149, 99, 49] * 2]


def test_the_best_of_all_ways_is_chosen_on_validation_images_and_the_paper_s_is_its_last():
    data = image_data()
    learner = denoising_learner("one_pass", SHAPE, data[0], (99, 99), 0)
    rows = data.whole()
    ways = [Way("best", 1, count, 99) for count in (4, 2)] + [Way("paper", 1, count, 99) for count in (1, 3)]
    found = measured_ways("one_pass", learner.model, (rows[:12], rows[12:]), 99, 0, ways)
    curves, errors = found["curves"], found["errors"]
    best = curves.set_index("passes").valid.idxmax()
    assert errors.groupby("way").passes.unique().map(list).to_dict() == {"best": [best], "paper": [3]}
    noisy = level_noise(rows[12:], 99, 0)
    expected = errors_by_image(denoised("one_pass", learner.model, noisy, Way("best", 1, int(best), 99)), rows[12:])
    assert errors[errors.way == "best"].mse.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_psnr_of_seeds_and_images():
    errors = np.random.default_rng(0).uniform(0.01, 0.02, (3, 50))
    exact = (10 * np.log10(4 / errors.mean(1))).mean()
    assert psnr_shares(errors).mean() == pytest.approx(exact)
    found = psnr_interval(errors, errors * 2)
    assert found["value"] == pytest.approx(10 * np.log10(2)) and verdict(found) == "higher"
    assert psnr_interval(errors[:1])["low"] is None and verdict(psnr_interval(errors[:1])) == "not distinguished"
    assert verdict(psnr_interval(errors * 2, errors)) == "lower"


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_finds_classes_that_pixels_tell(kind):
    splits = {split: image_data(24, seed) for seed, split in enumerate(("train", "valid", "test"))}
    model = denoising_learner(kind, SHAPE, splits["train"][0], (0, 99), 0).model
    features = {split: denoiser_features(model, part.whole(), 7) for split, part in splits.items()}
    assert [part.shape for part in features["test"]] == [(24, 16)] * 2
    probed = probe_classes(features, splits)
    assert probed.right.all() and probed.layer in (1, 2) and not model.blocks[0]._forward_hooks


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
def test_images_are_completed_from_their_own_patches(kind):
    model = make_learner(ModelConfig(kind, dim=16, depth=1, heads=2), 3, 0).model
    given = draw(2, 3, 3).float()
    found = completed(model, given, 6, 2, generator(0))
    assert found.shape == (2, 6, 3) and found[:, :3].equal(given)
    if kind == "transformer":
        assert torch.allclose(found[:, 5], model(found[:, :5])[:, -1], atol=1e-5)
