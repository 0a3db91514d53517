"""Mixers on a GPU, in Triton: every program takes a few tokens through a map in its registers.

Note [Padding]
    Sizes of Triton's tensors are powers of two. A matrix of order ds is held as D·S × D·S with D
    and S the next powers of two, its rows and columns indexed by (block, row in the block): so
    sums over blocks are sums over axes, for any d and s. Rows and columns that are not there have
    a one on the diagonal, which the inverse keeps.

Note [Precision on a GPU]
    What comes in and goes out is float32 or narrower, and everything in between float64, as on a
    CPU. (bfloat16 becomes float64 by way of float32, which Triton's interpreter needs.) Elimination
    without pivoting loses digits as |θ| grows: at 1e5 the matrices still have those of float32,
    and gradients five. A token with |θ| above `LARGEST_ANGLE`, logits further apart than
    `LARGEST_SPREAD`, or θ not finite gives NaN: to look for such tokens and take another path would
    stop the GPU.

Note [Any number of tokens]
    What a token gives does not depend on how many there are, to the last bit: a program takes as
    many of them whether they are there or not.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN, TRANSPORT, Stage
from gomhc.maps import permutations

LARGEST_ANGLE = tl.constexpr(1e5)
LARGEST_SPREAD = tl.constexpr(600.0)
NUMBERS = 1024  # of the matrices of one program, for its four warps


@triton.jit
def _tokens(tokens, T: tl.constexpr):
    """The tokens of this program, and which of them there are."""
    token = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)
    return token, token < tokens


@triton.jit
def _square(token, inside, d: tl.constexpr, D: tl.constexpr):
    """Offsets of (tokens, d, d) entries padded to (T, D, D), and which of them there are."""
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    offsets = token[:, None, None] * (d * d) + (i * d + j)[None, :, :]
    return offsets, inside[:, None, None] & ((i < d) & (j < d))[None, :, :]


@triton.jit
def _load_square(source, token, inside, d: tl.constexpr, D: tl.constexpr):
    """Such entries, zero where there are none, with their offsets and which there are."""
    offsets, mask = _square(token, inside, d, D)
    return tl.load(source + offsets, mask=mask, other=0.0), offsets, mask


@triton.jit
def _places(d: tl.constexpr, s: tl.constexpr, D: tl.constexpr, S: tl.constexpr):
    """Index of a padded row in the matrix of order ds, and whether it is there."""
    k = tl.arange(0, D * S)
    block, inner = k // S, k % S
    return block * s + inner, (block < d) & (inner < s)


@triton.jit
def _position(a, b, n: tl.constexpr):
    """Where the entry (a, b), a < b, of A stands in θ."""
    return a * (2 * n - a - 1) // 2 + b - a - 1


@triton.jit
def _inverse(
    theta, row, token, inside, d: tl.constexpr, s: tl.constexpr, D: tl.constexpr, S: tl.constexpr
):
    """(tokens, DS, DS): (I + A)⁻¹ by Gauss–Jordan without pivoting; NaN where θ is too large."""
    n: tl.constexpr = d * s
    k = tl.arange(0, D * S)
    place, real = _places(d, s, D, S)
    a, b = place[:, None], place[None, :]
    used = real[:, None] & real[None, :] & (a != b)
    position = _position(tl.minimum(a, b), tl.maximum(a, b), n)
    pointers = theta + token[:, None, None] * row + position[None, :, :]
    angle = tl.load(pointers, mask=inside[:, None, None] & used[None, :, :], other=0.0)
    angle = angle.to(tl.float32).to(tl.float64)
    good = tl.abs(angle) <= LARGEST_ANGLE  # false for NaN too
    bad = tl.max(tl.max(tl.where(good, 0, 1), 2), 1)
    sign = tl.where(a < b, 1.0, -1.0).to(tl.float64)
    M = tl.where(good, angle, 0.0) * sign[None, :, :]
    M += tl.where(k[:, None] == k[None, :], 1.0, 0.0).to(tl.float64)[None, :, :]
    row_of, column_of = k[None, :, None], k[None, None, :]
    for step in range(D * S):
        pivots = tl.sum(tl.where(row_of == step, M, 0.0), 1)
        column = tl.sum(tl.where(column_of == step, M, 0.0), 2)
        scale = 1.0 / tl.sum(tl.where(k[None, :] == step, pivots, 0.0), 1)
        pivots = tl.where(k[None, :] == step, 1.0, pivots) * scale[:, None]
        column = tl.where(k[None, :] == step, -1.0, column)
        M = tl.where((row_of == step) | (column_of == step), 0.0, M)
        M -= column[:, :, None] * pivots[:, None, :]
    return tl.where(bad[:, None, None] > 0, float("nan"), M)


@triton.jit
def _cayley_forward(
    theta,
    row,
    out,
    tokens,
    squared: tl.constexpr,
    d: tl.constexpr,
    s: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    T: tl.constexpr,
):
    """Φ(2K − I), or where it is not squared, and s = 1, 2K − I."""
    token, inside = _tokens(tokens, T)
    K = _inverse(theta, row, token, inside, d, s, D, S)
    k = tl.arange(0, D * S)
    place, real = _places(d, s, D, S)
    own = (k[:, None] == k[None, :])[None, :, :]
    if squared:
        squares = K * K + tl.where(own, 0.25 - K, 0.0)
        squares = tl.where((real[:, None] & real[None, :])[None, :, :], squares, 0.0)
        entries = tl.sum(tl.sum(tl.reshape(squares, (T, D, S, D, S)), 4), 2) * (4.0 / s)
    else:
        entries = 2.0 * K - tl.where(own, 1.0, 0.0)
    offsets, mask = _square(token, inside, d, D)
    tl.store(out + offsets, entries.to(tl.float32).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _product(X, Y, P: tl.constexpr):
    """Matrix products by outer products: `tl.dot` has no small ones in float64."""
    k = tl.arange(0, P)
    total = tl.zeros_like(X)
    for step in range(P):
        column = tl.sum(tl.where(k[None, None, :] == step, X, 0.0), 2)
        pivots = tl.sum(tl.where(k[None, :, None] == step, Y, 0.0), 1)
        total += column[:, :, None] * pivots[:, None, :]
    return total


@triton.jit
def _cayley_backward(
    theta,
    row,
    slope,
    out,
    out_row,
    tokens,
    squared: tl.constexpr,
    d: tl.constexpr,
    s: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    T: tl.constexpr,
):
    """(dL/dA)ᵀ = −½ (I + Q) G_Qᵀ (I + Q) = −2 K G_Qᵀ K, of which θ sees the skew part."""
    P: tl.constexpr = D * S
    token, inside = _tokens(tokens, T)
    K = _inverse(theta, row, token, inside, d, s, D, S)
    k = tl.arange(0, P)
    place, real = _places(d, s, D, S)
    # The slope of an entry of Q is that of its block: so it is read once for every entry.
    i, j = (k // S)[:, None], (k // S)[None, :]
    pointers = slope + token[:, None, None] * (d * d) + (i * d + j)[None, :, :]
    mask = inside[:, None, None] & (real[:, None] & real[None, :])[None, :, :]
    G = tl.load(pointers, mask=mask, other=0.0).to(tl.float32).to(tl.float64)
    if squared:
        own = tl.where((k[:, None] == k[None, :])[None, :, :], 1.0, 0.0)
        G = G * (2.0 * K - own) * (2.0 / s)
    R = _product(_product(K, tl.permute(G, (0, 2, 1)), P), K, P)
    R = 2.0 * (R - tl.permute(R, (0, 2, 1)))
    a, b = place[:, None], place[None, :]
    upper = real[:, None] & real[None, :] & (a < b)
    pointers = out + token[:, None, None] * out_row + _position(a, b, d * s)[None, :, :]
    mask = inside[:, None, None] & upper[None, :, :]
    tl.store(pointers, R.to(tl.float32).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _weights(theta, row, token, inside, count: tl.constexpr, P: tl.constexpr):
    """(tokens, P): softmax of logits, NaN for a bad θ, zero beyond the permutations."""
    k = tl.arange(0, P)
    mask = inside[:, None] & (k < count)[None, :]
    x = tl.load(theta + token[:, None] * row + k[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32).to(tl.float64)
    bad = tl.max(tl.where(tl.abs(x) < float("inf"), 0, 1), 1)
    # A finite number in their place, as max may pass over NaN.
    x = tl.where(bad[:, None] > 0, 0.0, x)
    largest = tl.max(tl.where(k[None, :] < count, x, -float("inf")), 1)
    weight = tl.where(k[None, :] < count, tl.exp(x - largest[:, None]), 0.0)
    weight = weight / tl.sum(weight, 1)[:, None]
    return tl.where(bad[:, None] > 0, float("nan"), weight)


@triton.jit
def _permutations_forward(
    theta,
    row,
    images,
    out,
    tokens,
    d: tl.constexpr,
    count: tl.constexpr,
    P: tl.constexpr,
    T: tl.constexpr,
):
    token, inside = _tokens(tokens, T)
    weight = _weights(theta, row, token, inside, count, P)
    k = tl.arange(0, P)
    for i in range(d):
        image = tl.load(images + k * d + i, mask=k < count, other=-1)
        for j in range(d):
            entry = tl.sum(tl.where(image[None, :] == j, weight, 0.0), 1)
            pointers = out + token * (d * d) + i * d + j
            tl.store(pointers, entry.to(tl.float32).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _permutations_backward(
    theta,
    row,
    images,
    slope,
    out,
    out_row,
    tokens,
    d: tl.constexpr,
    count: tl.constexpr,
    P: tl.constexpr,
    T: tl.constexpr,
):
    token, inside = _tokens(tokens, T)
    weight = _weights(theta, row, token, inside, count, P)
    k = tl.arange(0, P)
    mask = inside[:, None] & (k < count)[None, :]
    gain = tl.zeros_like(weight)
    for i in range(d):
        image = tl.load(images + k * d + i, mask=k < count, other=0)
        pointers = slope + token[:, None] * (d * d) + (i * d + image)[None, :]
        gain += tl.load(pointers, mask=mask, other=0.0).to(tl.float32).to(tl.float64)
    gain -= tl.sum(weight * gain, 1)[:, None]
    result = (weight * gain).to(tl.float32).to(out.dtype.element_ty)
    tl.store(out + token[:, None] * out_row + k[None, :], result, mask=mask)


@triton.jit
def _exponentials(theta, row, token, inside, d: tl.constexpr, D: tl.constexpr):
    """(tokens, D, D): exp of logits less the largest of a column; NaN where too far apart."""
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    real = ((i < d) & (j < d))[None, :, :]
    pointers = theta + token[:, None, None] * row + (i * d + j)[None, :, :]
    x = tl.load(pointers, mask=inside[:, None, None] & real, other=0.0)
    x = x.to(tl.float32).to(tl.float64)
    high = tl.max(tl.max(tl.where(real, x, -float("inf")), 2), 1)
    low = tl.min(tl.min(tl.where(real, x, float("inf")), 2), 1)
    good = tl.min(tl.min(tl.where(tl.abs(x) < float("inf"), 1, 0), 2), 1) > 0
    good = good & (high - low <= LARGEST_SPREAD)
    largest = tl.max(tl.where(real, x, -float("inf")), 1)
    largest = tl.where((tl.arange(0, D) < d)[None, :], largest, 0.0)
    entry = tl.exp(tl.where(good[:, None, None], x - largest[:, None, :], float("nan")))
    return tl.where(real, entry, 0.0)


@triton.jit
def _columns(kernel, u, d: tl.constexpr, D: tl.constexpr):
    """The scalings that give columns the sum one."""
    total = tl.sum(kernel * u[:, :, None], 1)
    return 1.0 / tl.where((tl.arange(0, D) < d)[None, :], total, 1.0)


@triton.jit
def _rows(kernel, v, d: tl.constexpr, D: tl.constexpr):
    total = tl.sum(kernel * v[:, None, :], 2)
    return 1.0 / tl.where((tl.arange(0, D) < d)[None, :], total, 1.0)


@triton.jit
def _sinkhorn_forward(
    theta,
    row,
    out,
    tokens,
    iterations: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
):
    token, inside = _tokens(tokens, T)
    kernel = _exponentials(theta, row, token, inside, d, D)
    u = tl.full((T, D), 1.0, tl.float64)
    v = tl.full((T, D), 1.0, tl.float64)
    for _ in range(iterations):
        v = _columns(kernel, u, d, D)
        u = _rows(kernel, v, d, D)
    offsets, mask = _square(token, inside, d, D)
    result = u[:, :, None] * kernel * v[:, None, :]
    tl.store(out + offsets, result.to(tl.float32).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _sinkhorn_backward(
    theta,
    row,
    slope,
    scalings,
    out,
    out_row,
    tokens,
    iterations: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
):
    """The scalings of all steps go to (tokens, iterations, 2, D) of memory and come back."""
    token, inside = _tokens(tokens, T)
    kernel = _exponentials(theta, row, token, inside, d, D)
    k = tl.arange(0, D)[None, :]
    known = inside[:, None] & (k < d)
    saved = scalings + token[:, None] * (iterations * 2 * D) + k
    u = tl.full((T, D), 1.0, tl.float64)
    v = tl.full((T, D), 1.0, tl.float64)
    for step in range(iterations):
        tl.store(saved + step * 2 * D, u, mask=known)
        v = _columns(kernel, u, d, D)
        tl.store(saved + step * 2 * D + D, v, mask=known)
        u = _rows(kernel, v, d, D)
    tl.debug_barrier()  # another thread may read what this one wrote
    G, offsets, mask = _load_square(slope, token, inside, d, D)
    G = G.to(tl.float64)
    by_row = tl.sum(G * kernel * v[:, None, :], 2)
    by_column = tl.sum(G * kernel * u[:, :, None], 1)
    change = G * u[:, :, None] * v[:, None, :]
    for back in range(iterations):
        step = iterations - 1 - back
        v = tl.load(saved + step * 2 * D + D, mask=known, other=0.0)
        by_row = by_row * u * u
        change -= by_row[:, :, None] * v[:, None, :]
        by_column -= tl.sum(by_row[:, :, None] * kernel, 1)
        u = tl.load(saved + step * 2 * D, mask=known, other=0.0)
        by_column = by_column * v * v
        change -= by_column[:, None, :] * u[:, :, None]
        by_row = -tl.sum(by_column[:, None, :] * kernel, 2)
        by_column = tl.zeros_like(by_column)
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    pointers = out + token[:, None, None] * out_row + (i * d + j)[None, :, :]
    tl.store(pointers, (change * kernel).to(tl.float32).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _transport_entry(
    theta, row, token, inside, columns, rest, i, j, d: tl.constexpr, D: tl.constexpr
):
    """An entry, with σ(θ), U − L, whether L is more than zero, and whether U is the column's."""
    k = tl.arange(0, D)[None, :]
    own = tl.sum(tl.where(k == j, columns, 0.0), 1)
    spare = rest - tl.sum(tl.where((k > j) & (k < d), columns, 0.0), 1)
    forced, over = spare > 0, rest > own
    low = tl.where(forced, spare, 0.0)
    width = tl.maximum(tl.where(over, own, rest) - low, 0.0)
    logit = tl.load(theta + token * row + i * (d - 1) + j, mask=inside, other=0.0)
    share = 1.0 / (1.0 + tl.exp(-logit.to(tl.float32).to(tl.float64)))
    return low + width * share, share, width, forced, over


@triton.jit
def _transport_forward(
    theta,
    row,
    out,
    kept,
    tokens,
    keep: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
):
    """See Note [Chart] in `gomhc.transportation`; what the way back needs goes to `kept`."""
    token, inside = _tokens(tokens, T)
    k = tl.arange(0, D)[None, :]
    columns = tl.where(k < d, 1.0, 0.0).to(tl.float64) + tl.zeros((T, D), tl.float64)
    for i in range(d - 1):
        rest = tl.full((T,), 1.0, tl.float64)
        for j in range(d - 1):
            entry, share, width, forced, over = _transport_entry(
                theta, row, token, inside, columns, rest, i, j, d, D
            )
            if keep:
                place = kept + (token * ((d - 1) * (d - 1)) + i * (d - 1) + j) * 4
                tl.store(place, share, mask=inside)
                tl.store(place + 1, width, mask=inside)
                tl.store(place + 2, forced.to(tl.float64), mask=inside)
                tl.store(place + 3, over.to(tl.float64), mask=inside)
            else:
                tl.store(out + token * (d * d) + i * d + j, entry.to(tl.float32), mask=inside)
            columns = tl.where(k == j, tl.maximum(columns - entry[:, None], 0.0), columns)
            rest = tl.maximum(rest - entry, 0.0)
        if not keep:
            tl.store(out + token * (d * d) + i * d + d - 1, rest.to(tl.float32), mask=inside)
        columns = tl.where(k == d - 1, tl.maximum(columns - rest[:, None], 0.0), columns)
    if not keep:
        last = out + token[:, None] * (d * d) + (d - 1) * d + k
        tl.store(last, columns.to(tl.float32), mask=inside[:, None] & (k < d))


@triton.jit
def _transport_backward(
    slope, kept, out, out_row, tokens, d: tl.constexpr, D: tl.constexpr, T: tl.constexpr
):
    """From the last entry to the first, with derivatives by what is left of row and columns."""
    token, inside = _tokens(tokens, T)
    k = tl.arange(0, D)[None, :]
    G = slope + token * (d * d)
    last = slope + token[:, None] * (d * d) + (d - 1) * d + k
    by_columns = tl.load(last, mask=inside[:, None] & (k < d), other=0.0).to(tl.float64)
    for step in range(d - 1):
        i = d - 2 - step
        by_rest = tl.load(G + i * d + d - 1, mask=inside, other=0.0).to(tl.float64)
        by_rest -= tl.sum(tl.where(k == d - 1, by_columns, 0.0), 1)
        for back in range(d - 1):
            j = d - 2 - back
            place = kept + (token * ((d - 1) * (d - 1)) + i * (d - 1) + j) * 4
            share = tl.load(place, mask=inside, other=0.0)
            width = tl.load(place + 1, mask=inside, other=0.0)
            forced = tl.load(place + 2, mask=inside, other=0.0)
            over = tl.load(place + 3, mask=inside, other=0.0)
            by = tl.load(G + i * d + j, mask=inside, other=0.0).to(tl.float64)
            by -= by_rest + tl.sum(tl.where(k == j, by_columns, 0.0), 1)
            result = by * width * share * (1.0 - share)
            pointers = out + token * out_row + i * (d - 1) + j
            tl.store(pointers, result.to(tl.float32).to(out.dtype.element_ty), mask=inside)
            by_low, by_high = by * (1.0 - share) * forced, by * share
            by_rest += by_low + by_high * (1.0 - over)
            by_columns += tl.where(k == j, (by_high * over)[:, None], 0.0)
            by_columns -= tl.where((k > j) & (k < d), by_low[:, None], 0.0)


@triton.jit
def _five(token, inside, m: tl.constexpr, M: tl.constexpr, k: tl.constexpr, K: tl.constexpr):
    """Offsets of V ⊗ U, (tokens, mk, mk), as (T, M, K, M, K), and which entries there are."""
    a, i = tl.arange(0, M)[:, None, None, None], tl.arange(0, K)[None, :, None, None]
    b, j = tl.arange(0, M)[None, None, :, None], tl.arange(0, K)[None, None, None, :]
    place = (a * k + i) * (m * k) + b * k + j
    real = (a < m) & (i < k) & (b < m) & (j < k)
    size: tl.constexpr = m * m * k * k
    return (
        token[:, None, None, None, None] * size + place[None, :, :, :, :],
        inside[:, None, None, None, None] & real[None, :, :, :, :],
    )


@triton.jit
def _kronecker_forward(
    V,
    U,
    out,
    tokens,
    m: tl.constexpr,
    M: tl.constexpr,
    k: tl.constexpr,
    K: tl.constexpr,
    T: tl.constexpr,
):
    token, inside = _tokens(tokens, T)
    outer, offsets, mask = _load_square(V, token, inside, m, M)
    inner, offsets, mask = _load_square(U, token, inside, k, K)
    product = outer[:, :, None, :, None] * inner[:, None, :, None, :]
    offsets, mask = _five(token, inside, m, M, k, K)
    tl.store(out + offsets, product, mask=mask)


@triton.jit
def _kronecker_backward(
    V,
    U,
    slope,
    dV,
    dU,
    tokens,
    m: tl.constexpr,
    M: tl.constexpr,
    k: tl.constexpr,
    K: tl.constexpr,
    T: tl.constexpr,
):
    token, inside = _tokens(tokens, T)
    outer, outers, outer_mask = _load_square(V, token, inside, m, M)
    inner, inners, inner_mask = _load_square(U, token, inside, k, K)
    offsets, mask = _five(token, inside, m, M, k, K)
    G = tl.load(slope + offsets, mask=mask, other=0.0)
    tl.store(dV + outers, tl.sum(tl.sum(G * inner[:, None, :, None, :], 4), 2), mask=outer_mask)
    tl.store(dU + inners, tl.sum(tl.sum(G * outer[:, :, None, :, None], 3), 1), mask=inner_mask)


def _launch(kernel: Any, tokens: int, numbers: int, *arguments: Any, **sizes: int) -> None:
    """Run a kernel, with `numbers` a token in its largest tensor."""
    T = max(1, NUMBERS // numbers)
    if tokens:
        kernel[(triton.cdiv(tokens, T),)](*arguments, **sizes, T=T)


@functools.cache
def _images(d: int, device: torch.device) -> Tensor:
    return torch.from_numpy(permutations(d)).to(device, torch.int32)


def _run(stage: Stage, theta: Tensor, slope: Tensor | None, out: Tensor) -> None:
    """A stage's matrices, or with the derivative by them that by θ; parts of larger arrays."""
    tokens, d = len(theta), stage.size
    D = triton.next_power_of_2(d)
    back = slope is not None
    ends = (theta, theta.stride(0)), ((slope, out, out.stride(0)) if back else (out,))
    if stage.kind == CAYLEY:
        s = max(stage.option, 1)
        sizes = {
            "d": d,
            "s": s,
            "D": D,
            "S": triton.next_power_of_2(s),
            "squared": stage.option > 0,
        }
        kernel = _cayley_backward if back else _cayley_forward
        _launch(kernel, tokens, (D * sizes["S"]) ** 2, *ends[0], *ends[1], tokens, **sizes)
    elif stage.kind == PERMUTATIONS:
        count = stage.num_parameters
        sizes = {"d": d, "count": count, "P": triton.next_power_of_2(count)}
        kernel = _permutations_backward if back else _permutations_forward
        table = _images(d, theta.device)
        _launch(kernel, tokens, sizes["P"], *ends[0], table, *ends[1], tokens, **sizes)
    elif stage.kind == SINKHORN:
        iterations = stage.option
        sizes = {"iterations": iterations, "d": d, "D": D}
        if back:
            scalings = theta.new_empty(tokens, iterations, 2, D, dtype=torch.float64)
            arguments = *ends[0], slope, scalings, out, out.stride(0)
            _launch(_sinkhorn_backward, tokens, D * D, *arguments, tokens, **sizes)
        else:
            _launch(_sinkhorn_forward, tokens, D * D, *ends[0], out, tokens, **sizes)
    elif stage.kind == TRANSPORT:
        good = theta.isfinite().all(1)
        kept = theta.new_empty((tokens, d - 1, d - 1, 4) if back else 0, dtype=torch.float64)
        sizes = {"d": d, "D": D}
        _launch(_transport_forward, tokens, D, *ends[0], out, kept, tokens, keep=back, **sizes)
        if back:
            _launch(_transport_backward, tokens, D, slope, kept, *ends[1][1:], tokens, **sizes)
        out.masked_fill_(~good.unflatten(0, (-1, *[1] * (out.ndim - 1))), float("nan"))
    else:
        good = theta.isfinite().all(1, keepdim=True)
        result = (theta if slope is None else slope.flatten(1)).where(good, float("nan"))
        out.copy_(result.unflatten(1, out.shape[1:]))


def _parts(theta: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...]:
    """The generators of every stage, as views."""
    return theta.split([stage.num_parameters for stage in stages], 1)


def _factors(theta: Tensor, stages: Sequence[Stage]) -> tuple[list[Tensor], list[Tensor]]:
    """The matrix of every stage, and the Kronecker products of the first of them."""
    each: list[Tensor] = []
    products: list[Tensor] = []
    for stage, part in zip(stages, _parts(theta, stages), strict=True):
        out = theta.new_empty(len(theta), stage.size, stage.size, dtype=torch.float32)
        _run(stage, part, None, out)
        each.append(out)
        products.append(_kronecker(products[-1], out) if products else out)
    return each, products


def _launch_product(kernel: Any, V: Tensor, U: Tensor, *others: Tensor) -> None:
    """Run a kernel on Kronecker products V ⊗ U."""
    tokens, m, k = len(V), V.shape[-1], U.shape[-1]
    M, K = triton.next_power_of_2(m), triton.next_power_of_2(k)
    _launch(kernel, tokens, (M * K) ** 2, V, U, *others, tokens, m=m, M=M, k=k, K=K)


def _kronecker(V: Tensor, U: Tensor) -> Tensor:
    order = V.shape[-1] * U.shape[-1]
    out = V.new_empty(len(V), order, order)
    _launch_product(_kronecker_forward, V, U, out)
    return out


def mix(theta: Tensor, stages: Sequence[Stage]) -> Tensor:
    """(tokens, g) generators to (tokens, d, d) matrices in float32."""
    return _factors(theta.contiguous(), stages)[1][-1]


def mix_backward(slope: Tensor, theta: Tensor, stages: Sequence[Stage]) -> Tensor:
    """(tokens, g) derivative by the generators, from that by the matrices."""
    theta, slope = theta.contiguous(), slope.contiguous()
    out = torch.empty_like(theta)
    each, products = _factors(theta, stages) if len(stages) > 1 else ([], [])
    angles, gradients = _parts(theta, stages), _parts(out, stages)
    for f in range(len(stages) - 1, -1, -1):
        rest, own = slope, slope
        if f > 0:
            V, U = products[f - 1], each[f]
            rest, own = torch.empty_like(V), torch.empty_like(U)
            _launch_product(_kronecker_backward, V, U, slope, rest, own)
        _run(stages[f], angles[f], own, gradients[f])
        slope = rest
    return out
