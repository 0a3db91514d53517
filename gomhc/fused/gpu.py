"""Mixers on a GPU, in Triton: every program takes a few tokens through a whole map in registers.

Note [Padding]
    Sizes of Triton's tensors are powers of two. A matrix of order ds is held as D·S × D·S with D
    and S the next powers of two, its rows and columns indexed by (block, row in the block): so
    sums over blocks are sums over axes, for any d and s. Rows and columns that are not there have
    a one on the diagonal, which the inverse keeps.

Note [Precision]
    What comes in and goes out is float32 or narrower; elimination runs in float64, as its error
    grows with the condition of I + A, and float32 has no digits to spare. Where entries of θ are
    beyond `LARGEST_ANGLE` the result is NaN.
"""

# ruff: noqa: N803, PLR0913 -- constants of a kernel are written in capitals
import torch
import triton
import triton.language as tl
from torch import Tensor

from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN, Stage

LARGEST_ANGLE = tl.constexpr(1e4)
ELEMENTS = 1024  # of the matrices of one program, by four warps


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
def _inverse(theta, token, there, d: tl.constexpr, s: tl.constexpr, D: tl.constexpr, S: tl.constexpr):
    """(tokens, DS, DS): (I + A)⁻¹ by Gauss–Jordan without pivoting; NaN where θ is too large."""
    n: tl.constexpr = d * s
    g: tl.constexpr = n * (n - 1) // 2
    k = tl.arange(0, D * S)
    place, real = _places(d, s, D, S)
    a, b = place[:, None], place[None, :]
    low, high = tl.minimum(a, b), tl.maximum(a, b)
    used = real[:, None] & real[None, :] & (a != b)
    pointers = theta + token[:, None, None] * g + _position(low, high, n)[None, :, :]
    angle = tl.load(pointers, mask=there[:, None, None] & used[None, :, :], other=0.0)
    angle = angle.to(tl.float64)
    good = tl.abs(angle) <= LARGEST_ANGLE  # false for NaN too
    bad = tl.max(tl.max(tl.where(good, 0, 1), 2), 1)
    sign = tl.where(a < b, 1.0, -1.0).to(tl.float64)
    M = tl.where(good, angle, 0.0) * sign[None, :, :]
    M += tl.where(k[:, None] == k[None, :], 1.0, 0.0).to(tl.float64)[None, :, :]
    row_of, column_of = k[None, :, None], k[None, None, :]
    for step in range(D * S):
        row = tl.sum(tl.where(row_of == step, M, 0.0), 1)
        column = tl.sum(tl.where(column_of == step, M, 0.0), 2)
        pivot = 1.0 / tl.sum(tl.where(k[None, :] == step, row, 0.0), 1)
        row = tl.where(k[None, :] == step, 1.0, row) * pivot[:, None]
        column = tl.where(k[None, :] == step, 0.0, column)
        M = tl.where(column_of == step, 0.0, M)
        M = tl.where(row_of == step, 0.0, M)
        M -= column[:, :, None] * row[:, None, :]
        M += tl.where(row_of == step, row[:, None, :], 0.0)
    return tl.where(bad[:, None, None] > 0, float("nan"), M)


@triton.jit
def _cayley_forward(
    theta, out, tokens,
    d: tl.constexpr, s: tl.constexpr, D: tl.constexpr, S: tl.constexpr, T: tl.constexpr,
):
    token = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)
    there = token < tokens
    K = _inverse(theta, token, there, d, s, D, S)
    k = tl.arange(0, D * S)
    place, real = _places(d, s, D, S)
    own = (k[:, None] == k[None, :])[None, :, :]
    squares = K * K + tl.where(own, 0.25 - K, 0.0)
    squares = tl.where((real[:, None] & real[None, :])[None, :, :], squares, 0.0)
    blocks = tl.sum(tl.sum(tl.reshape(squares, (T, D, S, D, S)), 4), 2) * (4.0 / s)
    i, j = tl.arange(0, D)[:, None], tl.arange(0, D)[None, :]
    pointers = out + token[:, None, None] * (d * d) + (i * d + j)[None, :, :]
    mask = there[:, None, None] & ((i < d) & (j < d))[None, :, :]
    tl.store(pointers, blocks.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _product(X, Y, P: tl.constexpr):
    """Matrix products by outer products: `tl.dot` has no small ones in float64."""
    k = tl.arange(0, P)
    total = tl.zeros_like(X)
    for step in range(P):
        column = tl.sum(tl.where(k[None, None, :] == step, X, 0.0), 2)
        row = tl.sum(tl.where(k[None, :, None] == step, Y, 0.0), 1)
        total += column[:, :, None] * row[:, None, :]
    return total


@triton.jit
def _cayley_backward(
    theta, slope, out, tokens,
    d: tl.constexpr, s: tl.constexpr, D: tl.constexpr, S: tl.constexpr, T: tl.constexpr,
):
    """(dL/dA)ᵀ = −½ (I + Q) G_Qᵀ (I + Q) = −2 K G_Qᵀ K, of which θ sees the skew part."""
    P: tl.constexpr = D * S
    n: tl.constexpr = d * s
    token = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)
    there = token < tokens
    K = _inverse(theta, token, there, d, s, D, S)
    k = tl.arange(0, P)
    place, real = _places(d, s, D, S)
    # The slope of an entry of Q is that of its block: so it is read once for every entry.
    i, j = (k // S)[:, None], (k // S)[None, :]
    pointers = slope + token[:, None, None] * (d * d) + (i * d + j)[None, :, :]
    mask = there[:, None, None] & (real[:, None] & real[None, :])[None, :, :]
    G = tl.load(pointers, mask=mask, other=0.0).to(tl.float64)
    own = tl.where((k[:, None] == k[None, :])[None, :, :], 1.0, 0.0)
    G = G * (2.0 * K - own) * (2.0 / s)
    R = _product(_product(K, tl.permute(G, (0, 2, 1)), P), K, P)
    R = 2.0 * (R - tl.permute(R, (0, 2, 1)))
    a, b = place[:, None], place[None, :]
    upper = real[:, None] & real[None, :] & (a < b)
    pointers = out + token[:, None, None] * (n * (n - 1) // 2) + _position(a, b, n)[None, :, :]
    mask = there[:, None, None] & upper[None, :, :]
    tl.store(pointers, R.to(out.dtype.element_ty), mask=mask)
