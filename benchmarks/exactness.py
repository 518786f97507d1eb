"""Differences between our results and those of the official code, in float64 with the same weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from benchmarks import official as theirs
from benchmarks.cases import EAGER, OURS, Case, data, our_model
from ebwm.interop import from_official, to_official
from ebwm.objective import S1, smooth_l1
from ebwm.sampler import evaluate
from ebwm.settings import generator

KINDS = ("default", "time_embed", "adaln")
SIZES = {"dim": 48, "depth": 3, "heads": 4}
BATCH, LENGTH, STEPS, WORDS = 2, 7, 2, 61


def perturbed(model: nn.Module) -> nn.Module:
    """Perturb the initial weights, so that every part of the model has an effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim:
                noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator(0, name))
                parameter.add_(0.3 * noise)
    return model


def relative_difference(ours: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    return ((ours - other).abs().max() / other.abs().max().clamp_min(1e-300)).item()


def differences(official: theirs.Official, kind: str, modality: str) -> dict[str, float]:
    """Differences of energies, a loss, and gradients with respect to all inputs and weights."""
    g, text = generator(0, "data"), modality == "text"
    make = theirs.text if text else theirs.video
    shape = (*SIZES.values(), LENGTH, STEPS)
    model = perturbed(make(official, *((WORDS,) if text else ()), *shape, kind=kind, dtype=torch.float64,
                        mcmc_step_size=1.2))
    ours = from_official(model.state_dict(), heads=SIZES["heads"])
    double = {"dtype": torch.float64, "generator": g}
    width = WORDS if text else SIZES["dim"]
    sequences = torch.randint(1, WORDS, (BATCH, LENGTH + 1), generator=g) if text else torch.randn(
        BATCH, LENGTH + 1, width, **double)
    start, states, targets = torch.randn(BATCH, LENGTH, width, **double), sequences[:, :-1], sequences[:, 1:]
    found = {"energies": 0.0, "candidates": 0.0}
    for step in range(STEPS):
        energies, gradient = theirs.inner_gradient(model, states, start, step)
        here = evaluate(ours.landscape(states).at_step(step), start.softmax(-1) if text else start)
        found["energies"] = max(found["energies"], relative_difference(here.energy, energies))
        found["candidates"] = max(found["candidates"], relative_difference(here.grad, gradient))
    if not text:  # tokens have no gradient, their vectors are parameters
        found["context"] = context_difference(model, ours, states, targets, start)
    return found | training_differences(model, ours, sequences, states, targets, start)


def context_difference(model, ours, states, targets, start) -> float:
    """Difference of the gradient of an S1 loss with respect to the states of the context."""
    seen = [states.clone().requires_grad_() for _ in range(2)]
    with theirs.exact(model), theirs.starting_from(model, start):
        ends = model(seen[0], learning=True)[0]
    sum(smooth_l1(end, targets) for end in ends).div(STEPS).backward()
    S1(STEPS)(ours, seen[1], targets, start=start).backward()
    return relative_difference(seen[1].grad, seen[0].grad)


def training_differences(model, ours, sequences, states, targets, start) -> dict[str, float]:
    """Differences of one S1 step: loss and gradients, by official parameter names."""
    loss = theirs.training_step(model, sequences, start)
    loss.backward()
    value = S1(STEPS)(ours, states, targets, start=start)
    value.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(gradients[name])
    named, wanted = to_official(ours), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    largest = max(gradient.abs().max() for gradient in wanted.values())
    parameters = {n: ((named[n] - gradient).abs().max() / largest).item() for n, gradient in wanted.items()}
    found = {"loss": relative_difference(value.detach(), loss.detach()), "step size": parameters.pop("alpha")}
    return found | {"parameters": max(parameters.values())}


def on_device(case: Case, names: Sequence[str]) -> dict[str, float]:
    """Differences of the gradients of all weights from eager ones in float32, relative to the largest, by contender.

    Of two contexts of at most 1,024 states, for which eager attention has the memory.
    """
    case, found = replace(case, batch=min(case.batch, 2), length=min(case.length, 1024), precision="float32"), {}
    for name in (EAGER, *names):
        model, (sequences, start) = our_model(case, **OURS[name]), data(case)
        S1(case.steps, stream=name != EAGER)(model, sequences[:, :-1], sequences[:, 1:], start=start).backward()
        found[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return {name: relative_difference(found[name], found[EAGER]) for name in names}


def table(official: theirs.Official) -> dict[str, dict[str, float]]:
    """Differences for all kinds and modalities."""
    return {f"{modality}, {kind}": differences(official, kind, modality)
            for modality in ("video", "text") for kind in KINDS}
