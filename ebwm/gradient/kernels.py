"""Fused attention of candidates to their context and to themselves, with its derivatives, for GPUs."""

# Candidate i has the scores s_ij = c q_i·K_j with the context states j <= positions[i], and s_ii = c q_i·k_i
# with itself; c = e**-0.5. What follows holds for all of its columns, where in the column of the candidate
# itself k and v stand for K and V; a dot marks a tangent, a bar an adjoint. K and V have no tangent.
#
#     forward            lse = log sum_j exp(s_j)       P_j = exp(s_j - lse)         o = sum_j P_j V_j
#     adjoint            P_bar_j = o_bar·V_j            D = sum_j P_j P_bar_j = o_bar·o
#                        S_bar_j = P_j (P_bar_j - D)
#                        q_bar = c sum_j S_bar_j K_j    k_bar = c S_bar_i q          v_bar = P_i o_bar
#     tangent            S_dot_j = c q_dot·K_j          S_dot_i = c (q_dot·k + q·k_dot)
#                        mean = sum_j P_j S_dot_j       P_dot_j = P_j (S_dot_j - mean)
#                        o_dot = sum_j P_dot_j V_j + P_i v_dot = sum_j P_j S_dot_j V_j - mean o + P_i v_dot
#     adjoint_tangent    P_bar_dot_j = o_bar_dot·V_j    P_bar_dot_i = o_bar_dot·v + o_bar·v_dot
#                        D_dot = o_bar_dot·o + o_bar·o_dot
#                        S_bar_dot_j = P_j ((S_dot_j - mean) (P_bar_j - D) + P_bar_dot_j - D_dot)
#                        q_bar_dot = c (sum_j S_bar_dot_j K_j + S_bar_i k_dot)
#                        k_bar_dot = c (S_bar_dot_i q + S_bar_i q_dot)
#                        v_bar_dot = P_dot_i o_bar + P_i o_bar_dot
#                        K_bar_dot_j = c sum_i (S_bar_dot_ij q_i + S_bar_ij q_dot_i)
#                        V_bar_dot_j = sum_i (P_dot_ij o_bar_i + P_ij o_bar_dot_i)
#
# D, D_dot and the mean, which is the tangent of lse, are known from rows alone before the context is read: so
# each function reads the context once, and `adjoint_tangent` twice, block by block. P comes back from lse.

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    triton = constexpr = None

__all__ = ["adjoint", "adjoint_tangent", "available", "forward", "tangent"]

Rows = Float[Tensor, "b h n e"]  # one row for each candidate
Context = Float[Tensor, "b h s e"]  # one row for each state of the context
Scalars = Float[Tensor, "b h n"]  # one number for each candidate
Positions = Int[Tensor, " n"] | Int[Tensor, "b n"]  # the last state that each candidate sees; -1 for none

WIDTHS = range(8, 129)  # of a head
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SMALLEST = 16  # side of a block that tl.dot takes


def available(
    device: torch.device | str,  # where the tensors would be
) -> bool:  # whether the kernels run there
    """Whether triton is installed and the device a GPU that it compiles for (Ampere or newer)."""
    if triton is None:
        return False
    if not isinstance(tl.max, triton.JITFunction):
        return True  # TRITON_INTERPRET=1 was set when triton was imported: it interprets, on any device
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


# What kernels are made of. Parameters in capitals are constants of a compilation.


def _jit(function: Callable) -> Any:
    """A kernel, or a part of one, freed of what a type checker has wrapped around it."""
    return triton.jit(inspect.unwrap(function)) if triton else function


class _Heads(NamedTuple):
    """A tensor [batch, head, row, column] as kernels take it: where it begins and how far its steps are."""

    start: Tensor
    batch: int
    head: int
    row: int


class _Sizes(NamedTuple):
    heads: int
    n: int  # candidates
    s: int  # states in the context


class _Seen(NamedTuple):
    """Positions [batch, row] as kernels take them."""

    start: Tensor
    batch: int


@_jit
def _place(sizes, rows, BLOCK):
    """The batch and head of this program, the two as one index, and where its block of rows begins."""
    blocks = tl.cdiv(rows, BLOCK)
    program = tl.program_id(0)
    pair = (program // blocks).to(tl.int64)
    return pair // sizes.heads, pair % sizes.heads, pair, (program % blocks) * BLOCK


@_jit
def _tile(heads, batch, head, rows, E, BLOCK_E):
    columns = tl.arange(0, BLOCK_E)
    offsets = rows[:, None] * heads.row + columns[None, :]
    return heads.start + batch * heads.batch + head * heads.head + offsets, columns[None, :] < E


@_jit
def _read(heads, batch, head, rows, length, E, BLOCK_E):
    """Some rows of a tensor; zeros outside of it."""
    place, inside = _tile(heads, batch, head, rows, E, BLOCK_E)
    return tl.load(place, mask=inside & (rows[:, None] < length), other=0.0)


@_jit
def _write(heads, values, batch, head, rows, length, E, BLOCK_E):
    place, inside = _tile(heads, batch, head, rows, E, BLOCK_E)
    tl.store(place, values.to(heads.start.dtype.element_ty), mask=inside & (rows[:, None] < length))


@_jit
def _read_scalars(start, pair, rows, n):
    return tl.load(start + pair * n + rows, mask=rows < n, other=0.0)


@_jit
def _write_scalars(start, values, pair, rows, n):
    tl.store(start + pair * n + rows, values, mask=rows < n)


@_jit
def _last_seen(positions, batch, rows, sizes):
    """The last state that each candidate sees; -1 for rows that are no candidates."""
    last = tl.load(positions.start + batch * positions.batch + rows, mask=rows < sizes.n, other=-1)
    return tl.minimum(last, sizes.s - 1)


@_jit
def _dot(a, b):
    """A product with wide accumulation, exact to the dtype of its factors."""
    return tl.dot(a, b, input_precision="ieee")


@_jit
def _scores(a, b, E):
    """Scaled scores of all rows of a with all rows of b."""
    return _dot(a, tl.trans(b)) * (E**-0.5)


@_jit
def _own(a, b, WIDE):
    """Products of each row of a with the same row of b."""
    return tl.sum(a.to(WIDE) * b.to(WIDE), axis=1)


@_jit
def _probabilities(scores, lse, seen):
    """Attention from scores and their log-sum-exp, 0 where there is nothing to see."""
    return tl.exp(tl.where(seen, scores - lse, float("-inf")))


@_jit
def _forward_kernel(
    q, k, v, context_k, context_v, positions, o, lse, sizes,
    E: constexpr, BLOCK_E: constexpr, BLOCK_N: constexpr, BLOCK_S: constexpr, WIDE: constexpr,
):
    batch, head, pair, begin = _place(sizes, sizes.n, BLOCK_N)
    rows = begin + tl.arange(0, BLOCK_N)
    last = _last_seen(positions, batch, rows, sizes)
    q_rows = _read(q, batch, head, rows, sizes.n, E, BLOCK_E)
    k_rows = _read(k, batch, head, rows, sizes.n, E, BLOCK_E)
    top = _own(q_rows, k_rows, WIDE) * (E**-0.5)
    total = tl.full([BLOCK_N], 1.0, WIDE)
    mixed = _read(v, batch, head, rows, sizes.n, E, BLOCK_E).to(WIDE)
    for start in range(0, tl.max(last, axis=0) + 1, BLOCK_S):
        columns = start + tl.arange(0, BLOCK_S)
        keys = _read(context_k, batch, head, columns, sizes.s, E, BLOCK_E)
        values = _read(context_v, batch, head, columns, sizes.s, E, BLOCK_E)
        scores = _scores(q_rows, keys, E)
        scores = tl.where(columns[None, :] <= last[:, None], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(weights, axis=1)
        mixed = mixed * shrink[:, None] + _dot(weights.to(values.dtype), values)
        top = higher
    _write(o, mixed / total[:, None], batch, head, rows, sizes.n, E, BLOCK_E)
    _write_scalars(lse, top + tl.log(total), pair, rows, sizes.n)


@_jit
def _adjoint_kernel(
    o_bar, q, k, v, context_k, context_v, positions, o, lse, q_bar, k_bar, v_bar, sizes,
    E: constexpr, BLOCK_E: constexpr, BLOCK_N: constexpr, BLOCK_S: constexpr, WIDE: constexpr,
):
    batch, head, pair, begin = _place(sizes, sizes.n, BLOCK_N)
    rows = begin + tl.arange(0, BLOCK_N)
    last = _last_seen(positions, batch, rows, sizes)
    q_rows = _read(q, batch, head, rows, sizes.n, E, BLOCK_E)
    o_bar_rows = _read(o_bar, batch, head, rows, sizes.n, E, BLOCK_E)
    lse_rows = _read_scalars(lse, pair, rows, sizes.n)
    d = _own(o_bar_rows, _read(o, batch, head, rows, sizes.n, E, BLOCK_E), WIDE)
    total = tl.zeros([BLOCK_N, BLOCK_E], WIDE)
    for start in range(0, tl.max(last, axis=0) + 1, BLOCK_S):
        columns = start + tl.arange(0, BLOCK_S)
        keys = _read(context_k, batch, head, columns, sizes.s, E, BLOCK_E)
        values = _read(context_v, batch, head, columns, sizes.s, E, BLOCK_E)
        seen = columns[None, :] <= last[:, None]
        p = _probabilities(_scores(q_rows, keys, E), lse_rows[:, None], seen)
        s_bar = p * (_dot(o_bar_rows, tl.trans(values)) - d[:, None])
        total += _dot(s_bar.to(keys.dtype), keys)
    k_rows = _read(k, batch, head, rows, sizes.n, E, BLOCK_E)
    v_rows = _read(v, batch, head, rows, sizes.n, E, BLOCK_E)
    p_own = tl.exp(_own(q_rows, k_rows, WIDE) * (E**-0.5) - lse_rows)
    s_bar_own = (p_own * (_own(o_bar_rows, v_rows, WIDE) - d) * (E**-0.5))[:, None]
    _write(q_bar, total * (E**-0.5) + s_bar_own * k_rows, batch, head, rows, sizes.n, E, BLOCK_E)
    _write(k_bar, s_bar_own * q_rows, batch, head, rows, sizes.n, E, BLOCK_E)
    _write(v_bar, p_own[:, None] * o_bar_rows, batch, head, rows, sizes.n, E, BLOCK_E)


@_jit
def _tangent_kernel(
    q_dot, k_dot, v_dot, q, k, v, context_k, context_v, positions, o, lse, o_dot, mean, sizes,
    E: constexpr, BLOCK_E: constexpr, BLOCK_N: constexpr, BLOCK_S: constexpr, WIDE: constexpr,
):
    batch, head, pair, begin = _place(sizes, sizes.n, BLOCK_N)
    rows = begin + tl.arange(0, BLOCK_N)
    last = _last_seen(positions, batch, rows, sizes)
    q_rows = _read(q, batch, head, rows, sizes.n, E, BLOCK_E)
    k_rows = _read(k, batch, head, rows, sizes.n, E, BLOCK_E)
    q_dot_rows = _read(q_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    k_dot_rows = _read(k_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    lse_rows = _read_scalars(lse, pair, rows, sizes.n)
    p_own = tl.exp(_own(q_rows, k_rows, WIDE) * (E**-0.5) - lse_rows)
    average = p_own * (_own(q_dot_rows, k_rows, WIDE) + _own(q_rows, k_dot_rows, WIDE)) * (E**-0.5)
    total = average[:, None] * _read(v, batch, head, rows, sizes.n, E, BLOCK_E)
    for start in range(0, tl.max(last, axis=0) + 1, BLOCK_S):
        columns = start + tl.arange(0, BLOCK_S)
        keys = _read(context_k, batch, head, columns, sizes.s, E, BLOCK_E)
        values = _read(context_v, batch, head, columns, sizes.s, E, BLOCK_E)
        seen = columns[None, :] <= last[:, None]
        p = _probabilities(_scores(q_rows, keys, E), lse_rows[:, None], seen)
        weighted = p * _scores(q_dot_rows, keys, E)
        average += tl.sum(weighted, axis=1)
        total += _dot(weighted.to(values.dtype), values)
    total -= average[:, None] * _read(o, batch, head, rows, sizes.n, E, BLOCK_E)
    total += p_own[:, None] * _read(v_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    _write(o_dot, total, batch, head, rows, sizes.n, E, BLOCK_E)
    _write_scalars(mean, average, pair, rows, sizes.n)


@_jit
def _adjoint_tangent_kernel(
    o_bar_dot, o_bar, q_dot, k_dot, v_dot, q, k, v, context_k, context_v, positions, o, lse, o_dot, mean,
    q_bar_dot, k_bar_dot, v_bar_dot, d, d_dot, sizes,
    E: constexpr, BLOCK_E: constexpr, BLOCK_N: constexpr, BLOCK_S: constexpr, WIDE: constexpr,
):
    """The candidates' part; leaves D and D_dot to the kernel of the context's part."""
    batch, head, pair, begin = _place(sizes, sizes.n, BLOCK_N)
    rows = begin + tl.arange(0, BLOCK_N)
    last = _last_seen(positions, batch, rows, sizes)
    q_rows = _read(q, batch, head, rows, sizes.n, E, BLOCK_E)
    q_dot_rows = _read(q_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    o_bar_rows = _read(o_bar, batch, head, rows, sizes.n, E, BLOCK_E)
    o_bar_dot_rows = _read(o_bar_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    o_rows = _read(o, batch, head, rows, sizes.n, E, BLOCK_E)
    o_dot_rows = _read(o_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    lse_rows = _read_scalars(lse, pair, rows, sizes.n)
    mean_rows = _read_scalars(mean, pair, rows, sizes.n)
    d_rows = _own(o_bar_rows, o_rows, WIDE)
    d_dot_rows = _own(o_bar_dot_rows, o_rows, WIDE) + _own(o_bar_rows, o_dot_rows, WIDE)
    _write_scalars(d, d_rows, pair, rows, sizes.n)
    _write_scalars(d_dot, d_dot_rows, pair, rows, sizes.n)
    total = tl.zeros([BLOCK_N, BLOCK_E], WIDE)
    for start in range(0, tl.max(last, axis=0) + 1, BLOCK_S):
        columns = start + tl.arange(0, BLOCK_S)
        keys = _read(context_k, batch, head, columns, sizes.s, E, BLOCK_E)
        values = _read(context_v, batch, head, columns, sizes.s, E, BLOCK_E)
        seen = columns[None, :] <= last[:, None]
        p = _probabilities(_scores(q_rows, keys, E), lse_rows[:, None], seen)
        s_bar_dot = _scores(q_dot_rows, keys, E) - mean_rows[:, None]
        s_bar_dot *= _dot(o_bar_rows, tl.trans(values)) - d_rows[:, None]
        s_bar_dot += _dot(o_bar_dot_rows, tl.trans(values)) - d_dot_rows[:, None]
        total += _dot((p * s_bar_dot).to(keys.dtype), keys)
    k_rows = _read(k, batch, head, rows, sizes.n, E, BLOCK_E)
    k_dot_rows = _read(k_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    v_rows = _read(v, batch, head, rows, sizes.n, E, BLOCK_E)
    v_dot_rows = _read(v_dot, batch, head, rows, sizes.n, E, BLOCK_E)
    p_own = tl.exp(_own(q_rows, k_rows, WIDE) * (E**-0.5) - lse_rows)
    s_dot_own = (_own(q_dot_rows, k_rows, WIDE) + _own(q_rows, k_dot_rows, WIDE)) * (E**-0.5)
    p_bar_dot_own = _own(o_bar_dot_rows, v_rows, WIDE) + _own(o_bar_rows, v_dot_rows, WIDE)
    p_dot_own = p_own * (s_dot_own - mean_rows)
    p_bar_own = _own(o_bar_rows, v_rows, WIDE) - d_rows
    s_bar_own = (p_own * p_bar_own * (E**-0.5))[:, None]
    s_bar_dot_own = p_dot_own * p_bar_own + p_own * (p_bar_dot_own - d_dot_rows)
    s_bar_dot_own = (s_bar_dot_own * (E**-0.5))[:, None]
    total = total * (E**-0.5) + s_bar_dot_own * k_rows + s_bar_own * k_dot_rows
    _write(q_bar_dot, total, batch, head, rows, sizes.n, E, BLOCK_E)
    total = s_bar_dot_own * q_rows + s_bar_own * q_dot_rows
    _write(k_bar_dot, total, batch, head, rows, sizes.n, E, BLOCK_E)
    total = p_dot_own[:, None] * o_bar_rows + p_own[:, None] * o_bar_dot_rows
    _write(v_bar_dot, total, batch, head, rows, sizes.n, E, BLOCK_E)


@_jit
def _candidates_that_see(positions, batch, first_column, sizes, BLOCK):
    """The first candidate that sees a column or one after it, and the end of the last such candidate."""
    begin = tl.zeros([], tl.int32) + sizes.n
    end = tl.zeros([], tl.int32)
    for start in range(0, sizes.n, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        sees = _last_seen(positions, batch, rows, sizes) >= first_column
        begin = tl.minimum(begin, tl.min(tl.where(sees, rows, sizes.n), axis=0))
        end = tl.maximum(end, tl.max(tl.where(sees, rows + 1, 0), axis=0))
    return begin, end


@_jit
def _context_kernel(
    o_bar_dot, o_bar, q_dot, q, context_k, context_v, positions, lse, mean, d, d_dot,
    context_k_bar_dot, context_v_bar_dot, sizes,
    E: constexpr, BLOCK_E: constexpr, BLOCK_N: constexpr, BLOCK_S: constexpr, WIDE: constexpr,
    SCAN: constexpr,
):
    """The context's part of `adjoint_tangent`, one block of states by all candidates that see it."""
    batch, head, pair, first_column = _place(sizes, sizes.s, BLOCK_S)
    columns = first_column + tl.arange(0, BLOCK_S)
    keys = _read(context_k, batch, head, columns, sizes.s, E, BLOCK_E)
    values = _read(context_v, batch, head, columns, sizes.s, E, BLOCK_E)
    k_total = tl.zeros([BLOCK_S, BLOCK_E], WIDE)
    v_total = tl.zeros([BLOCK_S, BLOCK_E], WIDE)
    begin, end = _candidates_that_see(positions, batch, first_column, sizes, SCAN)
    for start in range(begin // BLOCK_N * BLOCK_N, end, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        q_rows = _read(q, batch, head, rows, sizes.n, E, BLOCK_E)
        q_dot_rows = _read(q_dot, batch, head, rows, sizes.n, E, BLOCK_E)
        o_bar_rows = _read(o_bar, batch, head, rows, sizes.n, E, BLOCK_E)
        o_bar_dot_rows = _read(o_bar_dot, batch, head, rows, sizes.n, E, BLOCK_E)
        seen = columns[:, None] <= _last_seen(positions, batch, rows, sizes)[None, :]
        p = _probabilities(_scores(keys, q_rows, E), _read_scalars(lse, pair, rows, sizes.n)[None, :], seen)
        s_dot = _scores(keys, q_dot_rows, E) - _read_scalars(mean, pair, rows, sizes.n)[None, :]
        p_dot = p * s_dot
        v_total += _dot(p_dot.to(values.dtype), o_bar_rows) + _dot(p.to(values.dtype), o_bar_dot_rows)
        p_bar = _dot(values, tl.trans(o_bar_rows))
        p_bar -= _read_scalars(d, pair, rows, sizes.n)[None, :]
        p_bar_dot = _dot(values, tl.trans(o_bar_dot_rows))
        p_bar_dot -= _read_scalars(d_dot, pair, rows, sizes.n)[None, :]
        s_bar_dot = p_dot * p_bar + p * p_bar_dot
        k_total += _dot(s_bar_dot.to(keys.dtype), q_rows) + _dot((p * p_bar).to(keys.dtype), q_dot_rows)
    _write(context_k_bar_dot, k_total * (E**-0.5), batch, head, columns, sizes.s, E, BLOCK_E)
    _write(context_v_bar_dot, v_total, batch, head, columns, sizes.s, E, BLOCK_E)


# What people call. A kernel's tensors have the names of the function's parameters.


def forward(
    q: Rows,  # the candidates' queries
    k: Rows,  # their keys
    v: Rows,  # their values
    context_k: Context,  # the context's keys
    context_v: Context,  # its values
    positions: Positions,  # index of the last state that each candidate sees, best int32 and in order
) -> tuple[Rows, Scalars]:  # o, what each candidate attends to; lse, the log-sum-exp of its scores
    """Each candidate looks at the visible context and at itself (EBT, appendix C.3)."""
    given = dict(locals())
    made = {"o": _like(q), "lse": _scalars_like(q)}
    _launch(_forward_kernel, given, made)
    return tuple(made.values())


def adjoint(
    o_bar: Rows,  # gradient of a scalar with respect to o
    q: Rows,  # the candidates' queries
    k: Rows,  # their keys
    v: Rows,  # their values
    context_k: Context,  # the context's keys
    context_v: Context,  # its values
    positions: Positions,  # index of the last state that each candidate sees, best int32 and in order
    o: Rows,  # from `forward`
    lse: Scalars,  # from `forward`
) -> tuple[Rows, Rows, Rows]:  # q_bar, k_bar, v_bar: its gradients with respect to q, k and v
    """The backward pass of `forward`; the context gets no gradient (EBT, appendix C.3)."""
    given = dict(locals())
    made = {name: _like(q) for name in ("q_bar", "k_bar", "v_bar")}
    _launch(_adjoint_kernel, given, made)
    return tuple(made.values())


def tangent(
    q_dot: Rows,  # tangent of q
    k_dot: Rows,  # tangent of k
    v_dot: Rows,  # tangent of v
    q: Rows,  # the candidates' queries
    k: Rows,  # their keys
    v: Rows,  # their values
    context_k: Context,  # the context's keys, which stay
    context_v: Context,  # its values, which stay
    positions: Positions,  # index of the last state that each candidate sees, best int32 and in order
    o: Rows,  # from `forward`
    lse: Scalars,  # from `forward`
) -> tuple[Rows, Scalars]:  # o_dot, tangent of o; mean, tangent of lse: the mean of the scores' tangents
    """The derivative of `forward` along tangents of the candidates."""
    given = dict(locals())
    made = {"o_dot": _like(q), "mean": _scalars_like(q)}
    _launch(_tangent_kernel, given, made)
    return tuple(made.values())


def adjoint_tangent(
    o_bar_dot: Rows,  # tangent of o_bar
    o_bar: Rows,  # gradient of a scalar with respect to o
    q_dot: Rows,  # tangent of q
    k_dot: Rows,  # tangent of k
    v_dot: Rows,  # tangent of v
    q: Rows,  # the candidates' queries
    k: Rows,  # their keys
    v: Rows,  # their values
    context_k: Context,  # the context's keys, which stay
    context_v: Context,  # its values, which stay
    positions: Positions,  # index of the last state that each candidate sees, best int32 and in order
    o: Rows,  # from `forward`
    lse: Scalars,  # from `forward`
    o_dot: Rows,  # from `tangent`
    mean: Scalars,  # from `tangent`
) -> tuple[Rows, Rows, Rows, Context, Context]:  # tangents of the adjoints of q, k, v, context_k, context_v
    """The derivative of `adjoint` along the tangents, and those of the context's gradients."""
    given = dict(locals())
    made = {name: _like(q) for name in ("q_bar_dot", "k_bar_dot", "v_bar_dot")}
    kept = {name: _scalars_like(q) for name in ("d", "d_dot")}
    _launch(_adjoint_tangent_kernel, given, made | kept)
    used = {name: given[name] for name in _CONTEXT_READS}
    context = {name: _like(context_k) for name in ("context_k_bar_dot", "context_v_bar_dot")}
    _launch(_context_kernel, used | kept, context)
    return *made.values(), *context.values()


_CONTEXT_READS = ("o_bar_dot", "o_bar", "q_dot", "q", "context_k", "context_v", "positions", "lse", "mean")


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same layout in memory, its last axis without gaps."""
    empty = torch.empty_like(tensor)
    return empty if empty.stride(-1) == 1 else empty.contiguous()


def _scalars_like(q: Tensor) -> Tensor:
    return torch.empty(q.shape[:-1], dtype=_wide(q.dtype), device=q.device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _launch(kernel: Any, given: dict[str, Tensor], made: dict[str, Tensor]) -> None:
    """Run a kernel with a program for each block of the rows that it makes, of each head of each item."""
    _check(given)
    q = given["q"]
    batch, heads, n, _ = q.shape
    sizes = _Sizes(heads, n, given["context_k"].shape[2])
    constants = _constants(kernel, q, sizes)
    rows, block = (sizes.s, "BLOCK_S") if kernel is _context_kernel else (n, "BLOCK_N")
    grid = (batch * heads * triton.cdiv(rows, constants[block]),)
    tensors = {name: _argument(tensor, batch) for name, tensor in (given | made).items()}
    with torch.cuda.device_of(q):
        kernel[grid](**tensors, sizes=sizes, **constants)


def _argument(tensor: Tensor, batch: int) -> _Heads | _Seen | Tensor:
    """A tensor as kernels take it: rows and positions with their steps, scalars without gaps."""
    if tensor.ndim == 3 or tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    if tensor.ndim == 4:
        return _Heads(tensor, *tensor.stride()[:3])
    if tensor.ndim < 3:
        tensor = tensor.to(torch.int32).expand(batch, -1)
        return _Seen(tensor, tensor.stride(0))
    return tensor


def _constants(kernel: Any, q: Tensor, sizes: _Sizes) -> dict[str, Any]:
    """What a kernel is compiled for: its programs keep one block of rows and walk over blocks of others."""
    block_e = _side(q.shape[-1], 128)
    kept, walked, warps = _plan(q.dtype, block_e)
    of_context = kernel is _context_kernel
    n, s = (walked, kept) if of_context else (kept, walked)
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
    """Rows kept, rows walked over at a time, and warps: for sm_80 and sm_90 such that few registers spill."""
    broad = block_e > 64
    if dtype.itemsize == 2:
        return 64, 32, 8 if broad else 4
    return (32, 16 if broad else 32, 8) if dtype.itemsize == 4 else (16, 16, 4)


def _side(length: int, most: int) -> int:
    return min(most, max(SMALLEST, triton.next_power_of_2(length)))


def _check(given: dict[str, Tensor]) -> None:
    """One line for the first argument that a kernel cannot take."""
    if triton is None:
        raise ImportError("'triton', which fused attention needs, cannot be imported: pip install triton")
    q, context_k = given["q"], given["context_k"]
    if q.dtype not in DTYPES:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ValueError(f"q is {q.dtype}; fused attention takes {allowed}")
    if q.ndim != 4 or context_k.ndim != 4 or q.shape[-1] not in WIDTHS:
        raise ValueError(
            f"q is {list(q.shape)}, context_k {list(context_k.shape)}; they must be [b h n e] and [b h s e] "
            f"with heads of {WIDTHS[0]} to {WIDTHS[-1]}"
        )
    for name, tensor in given.items():
        _check_one(name, tensor, q, context_k.shape[2])
    if not available(q.device):
        raise ValueError(f"q is on {q.device}; fused attention needs a GPU of compute capability 8.0 or more")


def _check_one(name: str, tensor: Tensor, q: Tensor, s: int) -> None:
    batch, heads, n, e = q.shape
    if tensor.device != q.device:
        raise ValueError(f"{name} is on {tensor.device}, q on {q.device}; move all to one device")
    if name == "positions":
        dtypes, shapes = (torch.int32, torch.int64), ([n], [batch, n])
    elif name in ("lse", "mean", "d", "d_dot"):
        dtypes, shapes = (_wide(q.dtype),), ([batch, heads, n],)
    else:
        dtypes, shapes = (q.dtype,), ([batch, heads, s if name.startswith("context_") else n, e],)
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} is {tensor.dtype}; beside q of {q.dtype} it must be {dtypes[-1]}")
    if list(tensor.shape) not in shapes:
        raise ValueError(f"{name} is {list(tensor.shape)}; it must be {' or '.join(map(str, shapes))}")
