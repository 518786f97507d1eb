"""Fused attention of candidates to their context and to themselves, with its derivatives, for GPUs."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import checks
from . import triton_kernels as code
from .triton_kernels import tl, triton

__all__ = ["QKV", "Context", "adjoint", "adjoint_tangent", "available", "forward", "tangent"]

Rows = Float[Tensor, "b h n e"]  # one row for each candidate
Scalars = Float[Tensor, "b h n"]  # one number for each candidate

WIDTHS = range(8, 129)  # of a head
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SMALLEST = 16  # smallest side of a block that tl.dot takes


class QKV(NamedTuple):
    """Queries, keys and values of the candidates, or their tangents or adjoints."""

    q: Rows
    k: Rows
    v: Rows


class Context(NamedTuple):
    """The context of the candidates."""

    k: Float[Tensor, "b h s e"]  # keys
    v: Float[Tensor, "b h s e"]  # values
    positions: Int[Tensor, "*b n"]  # last state that each candidate sees, -1 for none; fastest as sorted int32


def available(
    device: torch.device | str,  # of the tensors
) -> bool:
    """Whether Triton is installed and compiles for the device, a GPU (Ampere or newer)."""
    if triton is None:
        return False
    if not isinstance(tl.max, triton.JITFunction):
        return True  # TRITON_INTERPRET=1 was set when triton was imported: it interprets, on any device
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def forward(
    qkv: QKV,  # of the candidates
    context: Context,  # keys, values and positions
) -> tuple[Rows, Scalars]:  # o, the output of attention; lse, the log-sum-exp of the scores
    """Attention of each candidate to the visible context and to itself (EBT, appendix C.3)."""
    made = {"o": _like(qkv.q), "lse": _scalars_like(qkv.q)}
    _launch(code.FORWARD, _named(qkv, context), made)
    return tuple(made.values())


def adjoint(
    o_bar: Rows,  # gradient of a scalar with respect to o
    qkv: QKV,  # of the candidates
    o: Rows,  # from `forward`
    context: Context,  # keys, values and positions
    lse: Scalars,  # from `forward`
) -> QKV:  # gradients with respect to queries, keys and values
    """The backward pass of `forward`, without gradients of the context (EBT, appendix C.3)."""
    made = {name: _like(qkv.q) for name in ("q_bar", "k_bar", "v_bar")}
    _launch(code.ADJOINT, {"o_bar": o_bar} | _named(qkv, context) | {"o": o, "lse": lse}, made)
    return QKV(*made.values())


def tangent(
    qkv_dot: QKV,  # tangents of queries, keys and values
    qkv: QKV,  # of the candidates
    o: Rows,  # from `forward`
    context: Context,  # keys, values and positions; without tangents
    lse: Scalars,  # from `forward`
) -> tuple[Rows, Scalars]:  # o_dot, tangent of o; mean, tangent of lse: the mean of the scores' tangents
    """The derivative of `forward` along tangents of the candidates."""
    given = _dotted(qkv_dot) | _named(qkv, context) | {"o": o, "lse": lse}
    made = {"o_dot": _like(qkv.q), "mean": _scalars_like(qkv.q)}
    _launch(code.TANGENT, given, made)
    return tuple(made.values())


def adjoint_tangent(
    o_bar_dot: Rows,  # tangent of o_bar
    o_bar: Rows,  # gradient of a scalar with respect to o
    qkv_dot: QKV,  # tangents of queries, keys and values
    qkv: QKV,  # of the candidates
    o: Rows,  # from `forward`
    o_dot: Rows,  # from `tangent`
    context: Context,  # keys, values and positions; without tangents
    lse: Scalars,  # from `forward`
    mean: Scalars,  # from `tangent`
) -> tuple[QKV, tuple[Tensor, Tensor]]:  # tangents of the adjoints; the same of the context's keys and values
    """The derivative of `adjoint` along the tangents, and those of the gradients of the context."""
    given = {"o_bar_dot": o_bar_dot, "o_bar": o_bar} | _dotted(qkv_dot) | _named(qkv, context)
    given |= {"o": o, "lse": lse, "o_dot": o_dot, "mean": mean}
    made = {name: _like(qkv.q) for name in ("q_bar_dot", "k_bar_dot", "v_bar_dot")}
    sums = {name: _scalars_like(qkv.q) for name in ("d", "d_dot")}
    _launch(code.ADJOINT_TANGENT, given, made | sums)
    of_context = {name: _like(context.k) for name in ("context_k_bar_dot", "context_v_bar_dot")}
    _launch(code.CONTEXT, {name: given[name] for name in _CONTEXT_READS} | sums, of_context)
    return QKV(*made.values()), tuple(of_context.values())


_CONTEXT_READS = ("o_bar_dot", "o_bar", "q_dot", "q", "context_k", "context_v", "positions", "lse", "mean")


def _named(qkv: QKV, context: Context) -> dict[str, Tensor]:
    """Tensors by their names in the kernels."""
    k, v, positions = context
    return {**qkv._asdict(), "context_k": k, "context_v": v, "positions": positions}


def _dotted(qkv_dot: QKV) -> dict[str, Tensor]:
    return {f"{name}_dot": part for name, part in qkv_dot._asdict().items()}


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor with the same memory layout, contiguous in its last axis."""
    empty = torch.empty_like(tensor)
    return empty if empty.stride(-1) == 1 else empty.contiguous()


def _scalars_like(q: Tensor) -> Tensor:
    return torch.empty(q.shape[:-1], dtype=_wide(q.dtype), device=q.device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _launch(kernel: Any, given: dict[str, Tensor], made: dict[str, Tensor]) -> None:
    """Run one program for each block of result rows, of each head of each item."""
    _check(given)
    q = given["q"]
    batch, heads, n, _ = q.shape
    sizes = code.Sizes(heads, n, given["context_k"].shape[2])
    constants = _constants(kernel, q, sizes)
    rows, block = (sizes.s, "BLOCK_S") if kernel is code.CONTEXT else (n, "BLOCK_N")
    grid = (batch * heads * triton.cdiv(rows, constants[block]),)
    tensors = {name: _argument(tensor, batch) for name, tensor in (given | made).items()}
    with torch.cuda.device_of(q):
        kernel[grid](**tensors, sizes=sizes, **constants)


def _argument(tensor: Tensor, batch: int) -> "code.Heads | code.Positions | Tensor":
    """A tensor as an argument of a kernel: rows and positions with strides, scalars contiguous."""
    if tensor.ndim == 3 or tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    if tensor.ndim == 4:
        return code.Heads(tensor, *tensor.stride()[:3])
    if tensor.ndim < 3:
        tensor = tensor.to(torch.int32).expand(batch, -1)
        return code.Positions(tensor, tensor.stride(0))
    return tensor


def _constants(kernel: Any, q: Tensor, sizes: "code.Sizes") -> dict[str, Any]:
    """Compile-time constants: a program holds one block of rows and loops over blocks of the others."""
    block_e = _side(q.shape[-1], 128)
    held, looped, warps = _plan(q.dtype, block_e)
    of_context = kernel is code.CONTEXT
    n, s = (looped, held) if of_context else (held, looped)
    constants = {
        "E": q.shape[-1],
        "BLOCK_E": block_e,
        "BLOCK_N": _side(sizes.n, n),
        "BLOCK_S": _side(sizes.s, s),
        "WIDE": tl.float64 if q.dtype == torch.float64 else tl.float32,
        "num_warps": warps,
        "num_stages": 2,
    }
    return constants | ({"SCAN": 1024} if of_context else {})


def _plan(dtype: torch.dtype, block_e: int) -> tuple[int, int, int]:
    """Rows held, rows of a loop step, and warps; chosen so that few registers spill on sm_80 and sm_90."""
    broad = block_e > 64
    if dtype.itemsize == 2:
        return 64, 32, 8 if broad else 4
    return (32, 16 if broad else 32, 8) if dtype.itemsize == 4 else (16, 16, 4)


def _side(length: int, most: int) -> int:
    return min(most, max(SMALLEST, triton.next_power_of_2(length)))


def _check(given: dict[str, Tensor]) -> None:
    """Refuse tensors that the kernels cannot take."""
    if triton is None:
        raise ImportError("triton is not installed: fused attention needs it; use pip install triton")
    q, context_k = given["q"], given["context_k"]
    if q.dtype not in DTYPES:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise checks.refusal("q.dtype", q.dtype, f"must be one of {allowed}")
    if q.ndim != 4 or context_k.ndim != 4 or q.shape[-1] not in WIDTHS:
        rule = f"must be [b h n e] beside [b h s e], with e from {WIDTHS[0]} to {WIDTHS[-1]}"
        raise checks.refusal("q.shape", list(q.shape), rule)
    for name, tensor in given.items():
        _check_one(name, tensor, q, context_k.shape[2])
    if not available(q.device):
        raise checks.refusal("q.device", str(q.device), "must be a GPU of compute capability 8.0 or more")


def _check_one(name: str, tensor: Tensor, q: Tensor, s: int) -> None:
    batch, heads, n, e = q.shape
    if tensor.device != q.device:
        raise checks.refusal(f"{name}.device", str(tensor.device), f"must be {q.device}, as for q")
    if name == "positions":
        dtypes, shapes = (torch.int32, torch.int64), ([n], [batch, n])
    elif name in ("lse", "mean", "d", "d_dot"):
        dtypes, shapes = (_wide(q.dtype),), ([batch, heads, n],)
    else:
        dtypes, shapes = (q.dtype,), ([batch, heads, s if name.startswith("context_") else n, e],)
    if tensor.dtype not in dtypes:
        raise checks.refusal(f"{name}.dtype", tensor.dtype, f"must be {dtypes[-1]} beside q of {q.dtype}")
    if list(tensor.shape) not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise checks.refusal(f"{name}.shape", list(tensor.shape), f"must be {allowed}")
