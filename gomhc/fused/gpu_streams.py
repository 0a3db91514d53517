"""The passes of a hyper-connection over its streams on a GPU, in Triton; one program a token.

`_read` makes what the branch reads and the mixed streams from one pass over X, `_write` adds the
branch's answer. On the way back `_read_slopes` gives the derivatives by the small matrices, and
with those by x'W `_read_back` gives that by X. Between them stand `gpu.mix`, for H_res, and
PyTorch, for what is small and for the products around W.

Note [Order of sums]
    Sums are float32. Along a row they are taken column by column, in as many partial sums as a
    program holds columns, and these are added up at the end; so their order depends on sizes alone,
    and a token gives the same whatever stands beside it. Nothing is added to memory that another
    program writes. A matrix product of PyTorch may sum otherwise for another number of tokens.

Sizes of Triton's tensors are powers of two: D ≥ d streams, B columns at a time. Lengths are known
when kernels are compiled, since interpreters of some versions of Triton need that for loops.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gomhc.fused import gpu
from gomhc.fused.ops import stages_of
from gomhc.fused.projection import inner, project, project_backward

EPSILON = tl.constexpr(torch.finfo(torch.float32).eps)  # of the norm, as PyTorch's own for float32
COLUMNS = (
    1024  # four warps, each thread with eight columns of every stream: sums over d need no other
)
NUMBERS = 8192  # of the streams that a program holds, at most
PRODUCTS = 4096  # and of the products of two streams


@triton.jit
def _row(source, start, n: tl.constexpr, B: tl.constexpr):
    """B numbers of a row from `start` on as float32, with their columns and which there are."""
    column = start + tl.arange(0, B)
    return tl.load(source + column, mask=column < n, other=0.0).to(tl.float32), column, column < n


@triton.jit
def _rows(source, start, n: tl.constexpr, d: tl.constexpr, D: tl.constexpr, B: tl.constexpr):
    """(D, B) numbers of d rows of n, with their offsets and which there are."""
    row, column = tl.arange(0, D)[:, None], start + tl.arange(0, B)[None, :]
    offsets, mask = row * n + column, (row < d) & (column < n)
    return tl.load(source + offsets, mask=mask, other=0.0).to(tl.float32), offsets, mask


@triton.jit
def _weights(source, step: tl.constexpr, d: tl.constexpr, D: tl.constexpr):
    """(D, 1) weights, each `step` after the one before."""
    k = tl.arange(0, D)[:, None]
    return tl.load(source + k * step, mask=k < d, other=0.0)


@triton.jit
def _store(place, value, mask):
    tl.store(place, value.to(place.dtype.element_ty), mask=mask)


@triton.jit
def _norm(x, scales, n: tl.constexpr, B: tl.constexpr):
    """One over the root mean square of a row."""
    token = tl.program_id(0).to(tl.int64)
    total = tl.zeros((B,), tl.float32)
    for start in range(0, n, B):
        row, _column, _real = _row(x + token * n, start, n, B)
        total += row * row
    tl.store(scales + token, 1.0 / tl.sqrt(tl.sum(total, 0) / n + EPSILON))


@triton.jit
def _read(
    X,
    pre,
    H,
    read,
    mixed,
    mixes: tl.constexpr,
    n: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """H_pre X and H_res X, or X itself where streams stay apart."""
    token, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * B
    x, offsets, mask = _rows(X + token * d * n, start, n, d, D, B)
    column = start + tl.arange(0, B)
    total = tl.sum(_weights(pre + token * d, 1, d, D) * x, 0)
    _store(read + token * n + column, total, column < n)
    if mixes:
        for i in tl.static_range(d):
            total = tl.sum(_weights(H + (token * d + i) * d, 1, d, D) * x, 0)
            _store(mixed + (token * d + i) * n + column, total, column < n)
    else:
        _store(mixed + token * d * n + offsets, x, mask)


@triton.jit
def _read_slopes(
    X,
    by_read,
    by_mixed,
    by_pre,
    by_H,
    mixes: tl.constexpr,
    n: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """Derivatives by H_pre and H_res: products of streams with what comes back."""
    token = tl.program_id(0).to(tl.int64)
    first = tl.zeros((D, B), tl.float32)
    rest = tl.zeros((D, D, B), tl.float32)
    for start in range(0, n, B):
        x, _offsets, _mask = _rows(X + token * d * n, start, n, d, D, B)
        g, _column, _real = _row(by_read + token * n, start, n, B)
        first += g[None, :] * x
        if mixes:
            G, _offsets, _mask = _rows(by_mixed + token * d * n, start, n, d, D, B)
            rest += G[:, None, :] * x[None, :, :]
    j = tl.arange(0, D)
    tl.store(by_pre + token * d + j, tl.sum(first, 1), mask=j < d)
    if mixes:
        i = j[:, None]
        place = by_H + (token * d + i) * d + j[None, :]
        tl.store(place, tl.sum(rest, 2), mask=(i < d) & (j[None, :] < d))


@triton.jit
def _read_back(
    X,
    pre,
    H,
    factor,
    by_read,
    by_mixed,
    by_X,
    mixes: tl.constexpr,
    n: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """H_resᵀ and H_preᵀ times what comes back, and the part of the norm, a factor of X."""
    token, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * B
    G, offsets, mask = _rows(by_mixed + token * d * n, start, n, d, D, B)
    g, column, real = _row(by_read + token * n, start, n, B)
    own = tl.load(factor + token)
    if mixes:
        for j in tl.static_range(d):
            place = (token * d + j) * n + column
            total = tl.sum(_weights(H + token * d * d + j, d, d, D) * G, 0)
            total += tl.load(pre + token * d + j) * g
            total += own * tl.load(X + place, mask=real, other=0.0).to(tl.float32)
            _store(by_X + place, total, real)
    else:
        x, offsets, mask = _rows(X + token * d * n, start, n, d, D, B)
        total = G + _weights(pre + token * d, 1, d, D) * g[None, :] + own * x
        _store(by_X + token * d * n + offsets, total, mask)


@triton.jit
def _write(
    mixed,
    answer,
    post,
    out,
    n: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    token, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * B
    y, offsets, mask = _rows(mixed + token * d * n, start, n, d, D, B)
    f, _column, _real = _row(answer + token * n, start, n, B)
    y += _weights(post + token * d, 1, d, D) * f[None, :]
    _store(out + token * d * n + offsets, y, mask)


@triton.jit
def _write_back(
    slope,
    answer,
    post,
    by_answer,
    by_post,
    n: tl.constexpr,
    d: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """Derivatives by the answer and by H_post."""
    token = tl.program_id(0).to(tl.int64)
    weights = _weights(post + token * d, 1, d, D)
    total = tl.zeros((D, B), tl.float32)
    for start in range(0, n, B):
        g, _offsets, _mask = _rows(slope + token * d * n, start, n, d, D, B)
        f, column, real = _row(answer + token * n, start, n, B)
        total += g * f[None, :]
        _store(by_answer + token * n + column, tl.sum(weights * g, 0), real)
    j = tl.arange(0, D)
    tl.store(by_post + token * d + j, tl.sum(total, 1), mask=j < d)


def _launch(kernel: Any, tokens: int, blocks: int, *arguments: Any, **sizes: int) -> None:
    """Run a kernel, so many programs a token."""
    if tokens:
        kernel[(tokens, blocks)](*arguments, **sizes)


def _columns(n: int, most: int) -> int:
    return max(16, min(triton.next_power_of_2(n), most))


def _pass(kernel: Any, X: Tensor, *arguments: Any, products: bool = False, **sizes: int) -> None:
    """Run a kernel over streams (tokens, d, C): a program a block of columns, or a token."""
    tokens, d, n = X.shape
    D = triton.next_power_of_2(d)
    B = _columns(n, PRODUCTS // D**2 if products else min(COLUMNS, NUMBERS // D))
    blocks = 1 if kernel in (_read_slopes, _write_back) else triton.cdiv(n, B)
    _launch(kernel, tokens, blocks, X, *arguments, **sizes, n=n, d=d, D=D, B=B)


def _small(
    products: Tensor, scales: Tensor, bias: Tensor, alpha: Tensor, d: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What α multiplies, θ, H_pre, and σ of the other gates: half of H_post."""
    sizes = [len(bias) - 2 * d, d, d]
    raw = products.float() * scales[:, None]
    theta, pre, post = (
        part * a + b
        for part, a, b in zip(raw.split(sizes, 1), alpha.float(), bias.split(sizes), strict=True)
    )
    return raw, theta, pre.sigmoid(), post.sigmoid()


def read_streams(
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    narrow: torch.dtype,
    stages: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `gomhc.fused.layer`, and so the others."""
    X = X.detach().contiguous()
    tokens, d, C = X.shape
    x = inner(X, weight)
    products = project(x, weight, narrow)
    scales = X.new_empty(tokens, dtype=torch.float32)
    n = x.shape[1]
    _launch(_norm, tokens, 1, x, scales, n=n, B=_columns(n, 4 * COLUMNS))
    _, theta, pre, post = _small(products, scales, bias.detach(), alpha.detach(), d)
    H = gpu.mix(theta, stages_of(stages)) if stages else pre  # which is not read then
    read, mixed = X.new_empty(tokens, C), torch.empty_like(X)
    _pass(_read, X, pre, H, read, mixed, mixes=bool(stages))
    return read, mixed, 2 * post, products, scales


def read_streams_backward(
    by_read: Tensor,
    by_mixed: Tensor,
    by_post: Tensor,
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    products: Tensor,
    scales: Tensor,
    narrow: torch.dtype,
    stages: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_read, by_mixed, X = (x.detach().contiguous() for x in (by_read, by_mixed, X))
    tokens, d, C = X.shape
    raw, theta, pre, post = _small(products, scales, bias.detach(), alpha.detach(), d)
    H, by_theta = pre, theta
    by_pre, by_H = torch.empty_like(pre), pre.new_empty(tokens, d, d)
    if stages:
        H = gpu.mix(theta, stages_of(stages))
    mixes = bool(stages)
    _pass(_read_slopes, X, by_read, by_mixed, by_pre, by_H, mixes=mixes, products=mixes)
    if stages:
        by_theta = gpu.mix_backward(by_H, theta, stages_of(stages))
    by_pre = by_pre * pre * (1 - pre)
    by_post = 2 * by_post.detach() * post * (1 - post)
    by_gates = torch.cat([by_theta, by_pre, by_post], 1)

    slopes = by_gates * raw
    sizes = [theta.shape[1], d, d]
    by_alpha = torch.stack([part.sum() for part in slopes.sum(0).split(sizes)])
    spread = zip(alpha.detach().float(), sizes, strict=True)
    factors = torch.cat([a.expand(size) for a, size in spread])  # of every row of W
    by_inner = -(slopes * factors).sum(1) * scales.square() / weight.shape[1]
    factor = by_inner if weight.shape[1] == d * C else torch.zeros_like(by_inner)
    by_X = torch.empty_like(X)
    _pass(_read_back, X, pre, H, factor, by_read, by_mixed, by_X, mixes=mixes)
    by_products = by_gates * factors * scales[:, None]
    by_weight = project_backward(X, weight, by_products, by_inner, by_X, narrow)
    return by_X, by_weight, by_gates.sum(0).to(bias), by_alpha.to(alpha)


def write_streams(mixed: Tensor, answer: Tensor, post: Tensor) -> Tensor:
    mixed, answer, post = (x.detach().contiguous() for x in (mixed, answer, post))
    out = torch.empty_like(mixed)
    _pass(_write, mixed, answer, post, out)
    return out


def write_streams_backward(slope: Tensor, answer: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
    slope, answer, post = (x.detach().contiguous() for x in (slope, answer, post))
    by_answer, by_post = torch.empty_like(answer), torch.empty_like(post)
    _pass(_write_back, slope, answer, post, by_answer, by_post)
    return by_answer, by_post
