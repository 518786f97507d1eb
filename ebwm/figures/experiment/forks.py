"""Measurements on forking digits, whose futures are known: samples, scores, the state inside a model, and modes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, stats
from torch import Tensor, nn

from ebwm import settings
from ebwm.data.encoders import Encoded, principal
from ebwm.data.forks import forking_digits
from ebwm.diffusion import denoising_error, diffuse, noise_scheduler
from ebwm.evaluation.uncertainty import mode_coverage
from ebwm.figures.experiment.walks import initial, state_losses, trace
from ebwm.objective import smooth_l1
from ebwm.sampler import init_candidates
from ebwm.stopping import budget, energy_change
from ebwm.thinking import choose, propose
from ebwm.walk import Walk

__all__ = ["Adapted", "Answer", "Forks", "adaptive_denoising", "adaptive_walk", "answer", "auroc_parts", "bell",
           "correlation_parts", "draw", "fitted_temperature", "forking_clips", "inner_change", "known_losses", "measured",
           "mode_shares", "oracle", "scores", "scores_of_futures", "shares_near", "state_errors"]

PART = 128  # clips at once
HALF_WAY = 500  # noise level half-way down


class Forks(NamedTuple):
    """Forking digits as principal components, with their futures."""

    data: dict[str, Encoded]  # by split
    raw: dict[str, Any]  # clips of pixels, by split
    futures: dict[str, Any]  # of the validation and test clips, encoded


def forking_clips(
    parameters: Mapping[str, Any],  # frames, size, every, digits, features, train_clips and eval_clips
) -> Forks:
    """The three splits."""
    world = {name: parameters[name] for name in ("frames", "size", "every", "digits")}
    counts = {"train": parameters["train_clips"], "valid": parameters["eval_clips"], "test": parameters["eval_clips"]}
    raw = {split: forking_digits(split, clips=count, **world) for split, count in counts.items()}
    data = principal(raw, parameters["features"])
    encode = data["train"].encoder.encode
    known = {split: raw[split].futures() for split in ("valid", "test")}
    return Forks(data, raw, {split: found._replace(states=encode(found.states)) for split, found in known.items()})


def state_errors(
    guess: Tensor,  # predicted states [b s c]
    target: Tensor,  # true states
) -> Float[np.ndarray, "b s"]:
    """SmoothL1 of each state."""
    return smooth_l1(guess, target, reduction="none").mean(-1).cpu().numpy()


# Predictions, samples and scores


@torch.no_grad()
def draw(
    kind: str,  # of model
    model: nn.Module,  # trained
    context: Tensor,  # [b s c]
    steps: int,  # of a walk, or denoising steps
    samples: int,  # number; models that predict in one pass have one
    generator: torch.Generator,  # source of randomness
) -> Tensor:  # [samples b s c]
    """Samples of the next states."""
    if kind == "ebt":
        return propose(model, context, steps, samples=samples, generator=generator).value
    if kind == "diffusion":
        return diffuse(model, context, steps, generator, samples).samples
    return model(context)[None]


@torch.no_grad()
def scores(
    kind: str,  # of model
    model: nn.Module,  # trained
    context: Tensor,  # [b s c]
    candidates: Tensor,  # [n b s c]
    generator: torch.Generator,  # noise of the denoising error
) -> Tensor:  # [n b s], lower is better
    """The energy, the denoising error, or the squared distance to a prediction in one pass."""
    if kind == "ebt":
        landscape = model.landscape(context)
        return torch.stack([landscape(candidate) for candidate in candidates])
    if kind != "diffusion":
        return (model(context) - candidates).square().mean(-1)
    flat = candidates.transpose(0, 1).flatten(1, 2)
    errors = denoising_error(model, context, flat, generator)
    return errors.unflatten(1, candidates.shape[::2]).transpose(0, 1)


class Answer(NamedTuple):
    """A model's prediction of the next states, its samples and their scores."""

    prediction: Tensor  # [b s c]
    samples: Tensor  # [samples b s c]
    scores: Tensor  # [samples b s]


@torch.no_grad()
def answer(
    kind: str,  # of model
    model: nn.Module,  # trained
    context: Tensor,  # [b s c]
    steps: int,  # of a walk, or denoising steps
    samples: int,  # number
    generator: torch.Generator,  # source of randomness
) -> Answer:  # on the CPU
    """Predictions and samples, some clips at once."""
    parts = [_answer(kind, model, part, steps, samples, generator) for part in context.split(PART)]
    axes = Answer(prediction=0, samples=1, scores=1)
    return Answer(*(torch.cat(field, axis).cpu() for *field, axis in zip(*parts, axes, strict=True)))


def _answer(kind: str, model: nn.Module, context: Tensor, steps: int, samples: int, noise: torch.Generator) -> Answer:
    if kind == "ebt":
        found = propose(model, context, steps, samples=samples, generator=noise)
        return Answer(choose(found).value, found.value, found.energy)
    if kind == "diffusion":
        found = diffuse(model, context, steps, noise, samples)
        return Answer(found.value, found.samples, scores(kind, model, context, found.samples, noise))
    prediction = model(context)
    return Answer(prediction, prediction[None], torch.zeros_like(prediction[None, ..., 0]))


def scores_of_futures(
    kind: str,  # of model
    model: nn.Module,  # trained
    context: Tensor,  # [b s c]
    futures: Any,  # of the same clips
    generator: torch.Generator,  # noise of the denoising error
) -> Tensor:  # [3 b s], on the CPU
    """Scores of the left future, the right one and their mean."""
    ways = torch.cat([futures.states, futures.mean[:, :, None]], 2).to(context.device)
    parts = zip(context.split(PART), ways.split(PART), strict=True)
    found = [scores(kind, model, part, way.movedim(2, 0), generator) for part, way in parts]
    return torch.cat(found, 1).cpu()


# The state inside a model


def inner_change(
    kind: str,  # of model
    model: nn.Module,  # trained, with a last norm
    clips: Tensor,  # [b s+1 c]
    generator: Callable[[], torch.Generator],  # a new generator of the same noise for each candidate
) -> Float[np.ndarray, " b"]:
    """How far the state inside a model moves, relative to its norm, if another clip's state replaces the prediction.

    The state is that before the last norm's output. For models without candidates the replaced state is fed back.
    """
    context, truth = clips[:, :-1], clips[:, 1:]
    if kind in ("ebt", "diffusion"):
        pair = [_inside(model, lambda y=y: _scored(kind, model, context, y, generator)) for y in (truth, truth.roll(1, 0))]
    else:
        fed = torch.cat([context[:, :-1], context.roll(1, 0)[:, -1:]], 1)
        pair = [_inside(model, lambda states=states: model(states))[:, -1:] for states in (context, fed)]
    moved, length = (pair[0] - pair[1]).norm(dim=-1), pair[0].norm(dim=-1)
    return (moved.mean(1) / length.mean()).cpu().numpy()


def _scored(kind: str, model: nn.Module, context: Tensor, y: Tensor, generator: Callable[[], torch.Generator]) -> None:
    if kind == "ebt":
        model.landscape(context)(y)
        return
    levels = torch.full(y.shape[:2], HALF_WAY, device=y.device)
    model.denoise(model.add_noise(y, levels, generator()), model.encode_context(context), levels)


def _inside(model: nn.Module, work: Callable[[], Any]) -> Tensor:
    kept: list[Tensor] = []
    handle = model.norm.register_forward_hook(lambda module, given, made: kept.append(made))
    with torch.no_grad():
        work()
    handle.remove()
    return kept[-1]


# Adaptive compute


class Adapted(NamedTuple):
    """Steps of each item, and errors with these steps, with the same steps in random order, and with the usual ones."""

    used: np.ndarray  # [b s]
    adapted: np.ndarray  # [b s]
    random: np.ndarray  # [b s]
    usual: np.ndarray  # [b s]


def _shuffled(used: Tensor, seed: int) -> Tensor:
    order = torch.randperm(used.numel(), generator=settings.generator(seed, "lots"))
    return used.flatten()[order.to(used.device)].reshape(used.shape)


@torch.no_grad()
def adaptive_walk(
    model: nn.Module,  # an EBT
    valid: Tensor,  # clips that set the tolerance: the median change of the second step
    clips: Tensor,  # clips to predict
    steps: int,  # usual number
    most: int,  # largest number
    seed: int,  # of the noise
) -> Adapted:
    """Stop an item when its energy changed by less than a tolerance between the last two evaluations."""
    noise, truth = settings.generator(seed, "walk", clips.device), clips[:, 1:]
    start = initial(model, valid[:, 1:], noise)
    known = trace(model, model.landscape(valid[:, :-1]), start, 3, state_losses(valid[:, 1:])).result
    stop = energy_change(float(known.info.energy.diff(dim=0)[1].abs().median()))
    landscape, start = model.landscape(clips[:, :-1]), initial(model, clips[:, :-1], noise)
    walk = lambda count, rule=None: Walk(count, stop=rule).run(model, landscape, start)
    found = walk(most, stop)
    used = found.info.evaluations.sum(0)
    ends = found, walk(most, budget(_shuffled(used, seed))), walk(steps)
    return Adapted(used.cpu().numpy(), *(state_errors(end.state.y, truth) for end in ends))


@torch.no_grad()
def adaptive_denoising(
    model: nn.Module,  # a diffusion transformer
    valid: Tensor,  # clips that set the tolerance: the median move half-way
    clips: Tensor,  # clips to predict
    steps: int,  # of the schedule
    seed: int,  # of the noise
) -> Adapted:
    """Stop an item when the clean state moved by less than a tolerance in the last step: a substitute."""
    noise, truth = settings.generator(seed, "walk", clips.device), clips[:, 1:]
    tolerance = _clean_states(model, valid[:, :-1], steps, noise)[1][steps // 2 - 1].median()
    found, moves = _clean_states(model, clips[:, :-1], steps, noise)
    stops = torch.cat([moves < tolerance, torch.ones_like(moves[:1], dtype=torch.bool)])
    used = (stops.float().argmax(0) + 2).clamp(max=steps)
    at = lambda counts: found.gather(0, (counts - 1)[None, ..., None].expand(1, *found.shape[1:]))[0]
    ends = at(used), at(_shuffled(used, seed)), found[-1]
    return Adapted(used.cpu().numpy(), *(state_errors(end, truth) for end in ends))


def _clean_states(model: nn.Module, context: Tensor, steps: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clean states after each denoising step [steps b s c], and their moves [steps - 1, b s]."""
    scheduler, encoded = noise_scheduler(), model.encode_context(context)
    scheduler.set_timesteps(steps)
    y, found = init_candidates("noise", context, noise), []
    for number in scheduler.timesteps.tolist():
        found.append(model.denoise(y, encoded, torch.full(y.shape[:2], number, device=y.device)))
        y = scheduler.step(found[-1], number, y).prev_sample
    states = torch.stack(found)
    return states, states.diff(dim=0).square().mean(-1).sqrt()


# Modes


def mode_shares(
    drawn: Tensor,  # samples [n b s c]
    futures: Any,  # known futures, with two ways each
    forks: Tensor,  # whether a step can go both ways [b s]
) -> Float[np.ndarray, "4 clips"]:  # left, right, neither, and the less visited of both; clips with forks
    """Shares of samples within a quarter of the two futures' distance of each, averaged over the forks of a clip."""
    found: dict[int, list] = {}
    for clip, step in forks.nonzero().tolist():
        modes = futures.states[clip, step].numpy()
        radius = float(np.linalg.norm(modes[0] - modes[1])) / 4
        near = mode_coverage(drawn[:, clip, step].numpy(), modes, radius)
        found.setdefault(clip, []).append([part.value for part in (*near.modes, near.rest)])
    means = lambda rows: [*np.mean(rows, 0), np.min(np.array(rows)[:, :2], 1).mean()]
    return np.array([means(rows) for rows in found.values()]).T


def bell(
    drawn: Tensor,  # samples [n ...]
    seed: int,  # of the noise
) -> Tensor:  # as many
    """Samples of the Gaussian with the mean and the covariance of the given ones."""
    weights = torch.randn(len(drawn), len(drawn), generator=settings.generator(seed, "bell"))
    middle = drawn.mean(0)
    return middle + torch.einsum("nm,m...->n...", weights, drawn - middle) / max(1, len(drawn) - 1) ** 0.5


def oracle(
    futures: Any,  # known futures, with two ways each
    samples: int,  # number
    seed: int,  # of the randomness
) -> Tensor:  # [samples b s c]
    """Samples by the true probabilities."""
    left = futures.probabilities[..., :1]
    drawn = torch.rand(samples, *left.shape, generator=settings.generator(seed, "oracle"))
    return torch.where(drawn < left, futures.states[:, :, 0], futures.states[:, :, 1])


# Statistics by clip


def auroc_parts(
    values: Float[np.ndarray, "clips items"],  # scores
    errors: Float[np.ndarray, "clips items"],  # an item is bad if its error is above the median
) -> Float[np.ndarray, " clips"]:  # whose mean is the area
    """Area under the curve of bad items by their score, plus the influence of each clip (DeLong)."""
    flat, bad = values.ravel(), (errors > np.median(errors)).ravel()
    ranks, ahead = stats.rankdata(flat), np.zeros(flat.size)
    for part, other in ((bad, ~bad), (~bad, bad)):
        ahead[part] = (ranks[part] - stats.rankdata(flat[part])) / other.sum()
    ahead[~bad] = 1 - ahead[~bad]
    value, share = ahead[bad].mean(), np.where(bad, bad.mean(), 1 - bad.mean())
    return (value + (ahead - value) / share).reshape(errors.shape).mean(1)


def correlation_parts(
    x: Float[np.ndarray, "clips items"],  # values
    y: Float[np.ndarray, "clips items"],  # values of the same items
) -> Float[np.ndarray, " clips"]:  # whose mean is Spearman's rank correlation
    """Spearman's rank correlation plus the influence of each clip."""
    first, second = _standard_ranks(x), _standard_ranks(y)
    value = (first * second).mean()
    return (value + first * second - value * (first**2 + second**2) / 2).reshape(x.shape).mean(1)


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    ranks = stats.rankdata(values)
    return (ranks - ranks.mean()) / (ranks.std() or 1)


# What is measured in each context


def shares_near(
    drawn: Tensor,  # samples [n b s c]
    futures: Any,  # known futures, with two ways each
    radius: float,  # relative to the distance of the two futures
) -> dict[str, Tensor]:  # [b s] each
    """Shares of samples near the left future, the right one, and neither; `mode_coverage` for all contexts at once."""
    left, right = futures.states.unbind(2)
    reach = radius * (left - right).norm(dim=-1)
    near = [((drawn - way).norm(dim=-1) <= reach).float().mean(0) for way in (left, right)]
    return {"near_left": near[0], "near_right": near[1], "near_none": 1 - near[0] - near[1]}


def _within_contexts(values: Tensor, errors: Tensor) -> Tensor:
    """Rank correlation of scores and errors [n b s] over the samples of each context [b s]; 0 where all are equal."""
    middle = (len(values) + 1) / 2
    first, second = (stats.rankdata(part.numpy(), axis=0) - middle for part in (values, errors))
    length = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    agreement = (first * second).sum(0)
    return torch.from_numpy(np.divide(agreement, length, where=length > 0, out=np.zeros_like(length)))


def measured(
    found: Answer,  # of a model
    by_future: Tensor,  # scores of the left future, the right one and their mean [3 b s]
    futures: Any,  # known futures
    truth: Tensor,  # actual next states [b s c]
    radius: float,  # of `shares_near`
) -> dict[str, Tensor]:  # [b s] each
    """Errors, scores and shares of each context."""
    errors = smooth_l1(found.samples, truth.expand_as(found.samples), reduction="none").mean(-1)
    columns = {"error": smooth_l1(found.prediction, truth, reduction="none").mean(-1), "one_error": errors[0],
               "expected_error": futures.expected(found.prediction), **shares_near(found.samples, futures, radius),
               "score_left": by_future[0], "score_right": by_future[1], "score_mean": by_future[2]}
    if len(found.samples) > 1:
        columns |= {"spread": found.samples.var(0, correction=1).mean(-1), "score": found.scores.mean(0),
                    "best_score": found.scores.amin(0), "within": _within_contexts(found.scores, errors)}
    return columns


def fitted_temperature(
    by_future: Tensor,  # scores of the left and the right future
    futures: Any,  # known futures, with the turns that were taken
) -> float:
    """The temperature of the probability of a future by its score, by likelihood at the forks."""
    came = torch.where(futures.taken == 0, 1.0, -1.0)[:, futures.turns].double()
    gap = (by_future[1] - by_future[0])[:, futures.turns].double() * came
    surprise = lambda log: -torch.nn.functional.logsigmoid(gap / np.exp(log)).mean().item()
    return float(np.exp(optimize.minimize_scalar(surprise, bounds=(-12, 6), method="bounded").x))


def known_losses(
    futures: Any,  # known futures
    last: Tensor,  # last states [b s c]
) -> dict[str, dict[str, float]]:  # for all steps and at forks
    """Expected losses of predictors that know both futures, and of the last state."""
    losses = {name: futures.expected(getattr(futures, name)) for name in ("best_smooth_l1", "mean")}
    ways = torch.stack([futures.expected(way) for way in futures.states.unbind(2)], -1)
    losses |= {"sample": (ways * futures.probabilities).sum(-1), "last_frame": futures.expected(last)}
    return {name: dict(all=loss.mean().item(), forks=loss[:, futures.turns].mean().item())
            for name, loss in losses.items()}
