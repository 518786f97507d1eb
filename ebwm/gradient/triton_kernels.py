"""Triton kernels of fused attention: one program for each block of candidates, or of context states."""

# Candidate i has the scores s_ij = c q_i·K_j with the context states j <= positions[i], and s_ii = c q_i·k_i
# with itself; c = e**-0.5. The formulas hold for all columns j; in the column of the candidate itself, K and V
# are k and v. A dot marks a tangent, a bar an adjoint. K and V have no tangent.
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
# D, D_dot and the mean (the tangent of lse) follow from rows alone, before the context is read. Hence each
# kernel reads the context once, block by block; `adjoint_tangent` has two kernels. P is recomputed from lse.

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    triton = tl = constexpr = None

__all__ = ["ADJOINT", "ADJOINT_TANGENT", "CONTEXT", "FORWARD", "TANGENT", "Heads", "Positions", "Sizes"]


# Parts of kernels. Parameters in capitals are compile-time constants.


def _jit(function: Callable) -> Any:
    """Compile a function with Triton, without the wrapper of a run-time type checker."""
    return triton.jit(inspect.unwrap(function)) if triton else function


class Heads(NamedTuple):
    """A tensor [batch, head, row, column]: its first element, and strides."""

    start: Tensor
    batch: int
    head: int
    row: int


class Sizes(NamedTuple):
    """Sizes that kernels take as numbers."""

    heads: int
    n: int  # candidates
    s: int  # states in the context


class Positions(NamedTuple):
    """Positions [batch, row]: the first element, and the stride of the batch."""

    start: Tensor
    batch: int


@_jit
def _place(sizes, rows, BLOCK):
    """The batch and head of this program, both as one index, and the first row of its block."""
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
    """Load rows of a tensor; zeros outside of it."""
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
    """The last state that each candidate sees; -1 for rows beyond the last candidate."""
    last = tl.load(positions.start + batch * positions.batch + rows, mask=rows < sizes.n, other=-1)
    return tl.minimum(last, sizes.s - 1)


@_jit
def _dot(a, b):
    """A matrix product in the precision of its factors, accumulated in a wider dtype."""
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
    """Attention from scores and their log-sum-exp; 0 where a state is hidden."""
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
    """The part of the candidates; stores D and D_dot for the part of the context."""
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
    """The first candidate that sees a column or a later one, and the index after the last one."""
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
    """The part of the context: one block of states, all candidates that see it."""
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


FORWARD, ADJOINT, TANGENT = _forward_kernel, _adjoint_kernel, _tangent_kernel
ADJOINT_TANGENT, CONTEXT = _adjoint_tangent_kernel, _context_kernel
