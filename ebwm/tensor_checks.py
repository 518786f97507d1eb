"""Checks of tensors and step sizes, for the messages of `ebwm.checks`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import checks

__all__ = ["check_dense", "check_integers", "check_same_shape", "check_step_size", "check_target",
           "check_temperature", "check_tensor", "check_tokens", "check_values"]


def check_tensor(
    name: str,  # of the argument
    value: Any,  # that was given
) -> None:
    """Refuse what is not a dense tensor of real floating-point numbers; its entries are not read."""
    checks.instance(name, value, Tensor, "must be a tensor", f"use torch.as_tensor({name})")
    if not value.is_floating_point():
        raise checks.refusal(f"{name}.dtype", value.dtype, "must be floating point", f"use {name}.float()")
    check_dense(name, value)


def check_dense(
    name: str,  # of the argument
    value: Tensor,  # that was given
) -> None:
    """Refuse a sparse tensor."""
    if value.layout != torch.strided:
        raise checks.refusal(f"{name}.layout", value.layout, "must be dense", f"use {name}.to_dense()")


def check_integers(
    name: str,  # of the argument
    value: Any,  # that was given
) -> None:
    """Refuse what is not a tensor of integers; its entries are not read."""
    checks.instance(name, value, Tensor, "must be a tensor of integers")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise checks.refusal(f"{name}.dtype", value.dtype, "must be an integer type", error=TypeError)


def check_tokens(
    states: Tensor,  # that were given
    count: int,  # tokens in the vocabulary
) -> None:
    """Refuse what are not tokens [batch, sequence]; on a GPU their values are not read, that would synchronise."""
    if states.ndim != 2 or states.dtype not in (torch.int64, torch.int32):
        given = f"{states.dtype} of shape {list(states.shape)}"
        raise ValueError(f"states is {given}: tokens must be int64 or int32, of shape [batch, sequence]")
    if states.device.type == "cpu" and not ((states >= 0) & (states < count)).all():
        rule = f"must be from 0 to {count - 1}"
        raise ValueError(f"states has tokens from {states.min()} to {states.max()}: {rule}")


def check_values(
    name: str,  # of the argument
    value: Tensor,  # that was given
) -> None:
    """Refuse what is not a dense tensor of finite floating-point numbers; on a GPU this synchronises."""
    check_tensor(name, value)
    if value.is_meta:
        raise checks.refusal(f"{name}.device", "meta", "must be a device that stores values")
    if not value.isfinite().all():
        raise ValueError(f"{name} has {int((~value.isfinite()).sum())} non-finite entries: must be finite")


def check_same_shape(
    name: str,  # of the argument
    value: Tensor,  # that was given
    shape: Sequence[int],  # that of the predictions
) -> None:
    """Refuse a tensor that would be broadcast to the shape of the predictions."""
    if list(value.shape) != list(shape):
        raise checks.refusal(f"{name}.shape", list(value.shape), f"must be {list(shape)}, as the predictions")


def check_target(
    target: Tensor,  # true states
    device: torch.device,  # of the model
) -> None:
    """Refuse targets that are no tensor, empty, or on another device than the model."""
    checks.instance("target", target, Tensor, "must be a tensor")
    if not target.numel():
        raise checks.refusal("target.shape", list(target.shape), "must not be empty")
    if target.device != device:
        raise checks.refusal("target.device", str(target.device), f"must be {device}, as the model")


def check_step_size(
    step_size: float | Tensor,  # a number, or one for each item
    positive: bool = False,  # also refuse 0
) -> None:
    """Refuse a negative or infinite step size; a tensor on a GPU is not read, because that would synchronise."""
    if isinstance(step_size, Tensor) and step_size.device.type != "cpu":
        return
    try:
        sizes = torch.as_tensor(step_size).detach()
        smallest, largest = (float(part) for part in sizes.aminmax())
    except (RuntimeError, TypeError, ValueError):  # no numbers, complex numbers, or none at all
        rule = "must be a number, or one for each item"
        raise checks.refusal("step_size", step_size, rule, error=TypeError) from None
    if not smallest >= 0 or (positive and smallest == 0):
        raise checks.refusal("step_size", smallest, f"must be {'above 0' if positive else '0 or more'}")
    if largest == math.inf:
        raise checks.refusal("step_size", largest, "must be finite")


def check_temperature(
    temperature: float,  # T of the density exp(-energy / T)
    positive: bool = False,  # also refuse 0
) -> None:
    """Refuse a negative temperature."""
    (checks.positive if positive else checks.finite)("temperature", temperature)
