"""A hyper-connection's passes over its streams as operators of PyTorch, and the same in PyTorch.

With x' the streams of a token, all of them or their mean, divided by their root mean square:
`read_streams` gives H_pre X, Y = H_res X and H_post, `write_streams` Y + H_postᵀ F. Autograd keeps
X, F, x'W and what is smaller; everything else is made again on the way back. A list of stages that
is empty says that H_res is the identity.

On a CPU tokens for which the compiled code is not exact enough go through PyTorch. On a GPU their
mixed streams are NaN, as their derivatives by X, and with them those by W_res, b_res and α_res.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gomhc.fused.derivatives import gradients, gradients_below
from gomhc.fused.ops import stages_of
from gomhc.fused.projection import inner, project, project_backward
from gomhc.fused.stages import FREE, Stage, check_stages, reference, tables
from gomhc.maps import full_precision

SHARE = 2**15  # numbers of streams that are worth a thread


# In PyTorch


def matrices(
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    mix: Callable[[Tensor], Tensor],
    norm_eps: float | None = None,
    read_eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """H_res, H_pre and H_post as `HyperConnection` defines them, of streams (..., d, C)."""
    d = X.shape[-2]
    sizes = [len(bias) - 2 * d, d, d]
    x = X.flatten(-2) if weight.shape[1] == d * X.shape[-1] else X.mean(-2)
    # PyTorch up to 2.6 adds bfloat16's own rounding, 0.008, to the mean square.
    finest = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    eps = finest if norm_eps is None else norm_eps
    dynamic = F.linear(F.rms_norm(x, x.shape[-1:], eps=eps), weight)
    with full_precision(X):
        wide = torch.promote_types(dynamic.dtype, torch.float32)
        parts, static = dynamic.to(wide).split(sizes, -1), bias.to(wide).split(sizes)
        theta, pre, post = (
            a * part + start for a, part, start in zip(alpha.to(wide), parts, static, strict=True)
        )
        read = pre.sigmoid() + read_eps if read_eps else pre.sigmoid()
        return mix(theta), read, 2 * post.sigmoid()


def _read_reference(
    X: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor, narrow: torch.dtype, flat: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `read_streams` gives of the first three."""

    def mix(theta: Tensor) -> Tensor:
        if flat:
            return reference(theta, stages_of(flat))
        return torch.eye(X.shape[1], dtype=theta.dtype, device=X.device).expand(len(X), -1, -1)

    plain = X.dtype == weight.dtype == narrow
    with torch.autocast(X.device.type, dtype=narrow, enabled=not plain):
        H_res, H_pre, H_post = matrices(X, weight, bias, alpha, mix)
    with full_precision(X):
        wide = X.to(H_res.dtype)
        read = (H_pre[:, None] @ wide).squeeze(1)
        return read.to(X.dtype), (H_res @ wide).to(X.dtype), H_post


def write_reference(mixed: Tensor, answer: Tensor, post: Tensor) -> Tensor:
    wide = mixed.to(post.dtype) + post[..., None] * answer[:, None].to(post.dtype)
    return wide.to(mixed.dtype)


# On a CPU


def _shares(X: Tensor) -> int:
    return max(1, min(torch.get_num_threads(), X.numel() // SHARE))


@functools.lru_cache(maxsize=64)
def _plan(flat: tuple[int, ...]) -> tuple[Any, ...]:
    """Tables of the stages, where their matrices lie, and which code they need."""
    from gomhc.fused.cpu import families, room

    stages = stages_of(flat) or (Stage(FREE, 1),)
    needed = families(stages) if flat else (None,) * 5
    return tables(stages), room(stages), bool(flat) or None, needed


def _rooms(X: Tensor, size: int, flat: Sequence[int], shares: int) -> tuple[Any, ...]:
    """What the reading passes need to work, as their first arguments: see `gomhc.fused.streams`."""
    from gomhc.fused.lanes import WIDTH
    from gomhc.fused.threads import rooms

    d, C = X.shape[1:]
    stages, r, mixing, needed = _plan(tuple(flat))
    w = rooms(shares, (r.lanes + 4 * size + 2 * d + 2) * WIDTH)
    row, weights = (rooms(shares, n, np.float32) for n in (C, d + d * d))
    return stages, r, w, row, weights, mixing, needed


def _wide(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


@torch.library.custom_op(
    "gomhc::read_streams",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor X, Tensor weight, Tensor bias, Tensor alpha, ScalarType narrow, int[] "
    "stages) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def read_streams(
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    narrow: torch.dtype,
    stages: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """H_pre X, H_res X, H_post, and for the way back x'W without its norm, and the norm's inverse.

    Args:
        X: (tokens, d, C).
        weight: (g + 2d, dC) or (g + 2d, C).
        bias: (g + 2d,).
        alpha: (3,).
        narrow: dtype of the product x'W.
        stages: of the mixer, as a flat list; empty for the identity.
    """
    from gomhc.fused import streams
    from gomhc.fused.entries import bits
    from gomhc.fused.threads import spread

    tokens, d, C = X.shape
    rows, width = weight.shape
    if stages:
        check_stages(stages_of(stages), rows - 2 * d, d)
    if width not in (C, d * C) or bias.shape != (rows,) or alpha.shape != (3,):
        shapes = [tuple(x.shape) for x in (X, weight, bias, alpha)]
        raise ValueError(f"expected streams, weight, bias and alpha that agree, got {shapes}")
    X = X.detach().contiguous()
    read, mixed = X.new_empty(tokens, C), torch.empty_like(X)
    post, scales = X.new_empty(tokens, d, dtype=torch.float32), X.new_empty(tokens).float()
    if not tokens:
        return read, mixed, post, X.new_empty(0, len(bias), dtype=narrow), scales
    x = inner(X, weight)
    products = project(x, weight, narrow)
    hard, shares = np.zeros(tokens, bool), _shares(X)
    spread(
        streams.read,
        shares,
        *_rooms(X, len(bias), stages, shares),
        *(bits(X), bits(x), bits(products), _wide(bias), _wide(alpha)),
        *(torch.finfo(torch.float32).eps, d, C),
        *(bits(read), bits(mixed), bits(post), bits(scales), hard),
    )
    if hard.any():
        few = torch.from_numpy(np.flatnonzero(hard))
        exact = _read_reference(X[few], weight, bias, alpha, narrow, stages)
        for out, values in zip((read, mixed, post), exact, strict=True):
            out[few] = values
    return read, mixed, post, products, scales


@torch.library.custom_op(
    "gomhc::read_streams_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor by_read, Tensor by_mixed, Tensor by_post, Tensor X, Tensor weight, "
    "Tensor bias, Tensor alpha, Tensor products, Tensor scales, ScalarType narrow, "
    "int[] stages) -> (Tensor, Tensor, Tensor, Tensor)",
)
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
    """Derivatives by X, W, b and α."""
    from gomhc.fused import streams
    from gomhc.fused.entries import bits
    from gomhc.fused.threads import spread

    tokens, d, C = X.shape
    size = len(bias)
    tensors = [X.detach().contiguous(), weight.detach(), bias.detach(), alpha.detach()]
    X, W = tensors[:2]
    slopes = [x.detach().contiguous() for x in (by_read, by_mixed, by_post)]
    by_X = torch.empty_like(X)
    if not tokens:
        return by_X, torch.zeros_like(W), torch.zeros_like(bias), torch.zeros_like(alpha)
    by_products, by_inner = X.new_empty(tokens, size, dtype=torch.float32), torch.empty_like(scales)
    sums = np.zeros((-(-tokens // streams.CHUNK), 2, size))
    hard, shares = np.zeros(tokens, bool), _shares(X)
    spread(
        streams.read_backward,
        shares,
        *_rooms(X, size, stages, shares),
        *(bits(X), bits(products), bits(scales), _wide(bias), _wide(alpha), d, C, W.shape[1]),
        *(bits(x) for x in slopes),
        *(bits(by_X), bits(by_products), bits(by_inner), sums.reshape(-1), hard),
    )
    by_weight = project_backward(X, W, by_products, by_inner, by_X, narrow)
    by_bias, by_alpha = torch.from_numpy(sums.sum(0))
    parts = by_alpha.split([size - 2 * d, d, d])
    by_bias, by_alpha = by_bias.to(bias), torch.stack([x.sum() for x in parts]).to(alpha)
    if hard.any():
        few = torch.from_numpy(np.flatnonzero(hard))
        own, slopes = [X[few], *tensors[1:]], [x[few] for x in slopes]
        exact = gradients_below(_read_reference, own, slopes, narrow, stages)
        by_X[few] = exact[0]
        for total, part in zip((by_weight, by_bias, by_alpha), exact[1:], strict=True):
            total += part
    return by_X, by_weight, by_bias, by_alpha


@torch.library.custom_op(
    "gomhc::write_streams",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor mixed, Tensor answer, Tensor post) -> Tensor",
)
def write_streams(mixed: Tensor, answer: Tensor, post: Tensor) -> Tensor:
    """Y + H_postᵀ F of (tokens, d, C), (tokens, C) and (tokens, d)."""
    from gomhc.fused import streams
    from gomhc.fused.entries import bits
    from gomhc.fused.threads import spread

    tokens, d, C = mixed.shape
    if answer.shape != (tokens, C) or post.shape != (tokens, d):
        shapes = [tuple(x.shape) for x in (mixed, answer, post)]
        raise ValueError(f"expected streams, answer and post that agree, got {shapes}")
    mixed, answer, post = (x.detach().contiguous() for x in (mixed, answer, post))
    out, (d, C) = torch.empty_like(mixed), mixed.shape[1:]
    arguments = bits(mixed), bits(answer), bits(post), d, C, bits(out)
    spread(streams.write, _shares(mixed), *arguments)
    return out


@torch.library.custom_op(
    "gomhc::write_streams_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor slope, Tensor answer, Tensor post) -> (Tensor, Tensor)",
)
def write_streams_backward(slope: Tensor, answer: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives by F and H_post; that by Y is the slope."""
    from gomhc.fused import streams
    from gomhc.fused.entries import bits
    from gomhc.fused.threads import rooms, spread

    slope, answer, post = (x.detach().contiguous() for x in (slope, answer, post))
    by_answer, by_post = torch.empty_like(answer), torch.empty_like(post)
    shares, (d, C) = _shares(slope), slope.shape[1:]
    row = rooms(shares, C, np.float32)
    arrays = [bits(x) for x in (slope, answer, post)]
    spread(
        streams.write_backward,
        shares,
        row,
        *arrays,
        d,
        C,
        bits(by_answer),
        bits(by_post).reshape(-1),
    )
    return by_answer, by_post


# On a GPU


def _on_gpu(name: str, *arguments: Any) -> Any:
    """The operator of this name, see `gomhc.fused.gpu_streams`."""
    from gomhc.fused import gpu_streams

    with torch.cuda.device_of(arguments[0]):
        return getattr(gpu_streams, name)(*arguments)


read_streams.register_kernel("cuda", functools.partial(_on_gpu, "read_streams"))
read_streams_backward.register_kernel("cuda", functools.partial(_on_gpu, "read_streams_backward"))
write_streams.register_kernel("cuda", functools.partial(_on_gpu, "write_streams"))
write_streams_backward.register_kernel("cuda", functools.partial(_on_gpu, "write_streams_backward"))


# For torch.compile


@read_streams.register_fake
def _(
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    narrow: torch.dtype,
    stages: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tokens, d, C = X.shape
    return (
        X.new_empty(tokens, C),
        X.new_empty(tokens, d, C),
        X.new_empty(tokens, d, dtype=torch.float32),
        X.new_empty(tokens, weight.shape[0], dtype=narrow),
        X.new_empty(tokens, dtype=torch.float32),
    )


@read_streams_backward.register_fake
def _(
    by_read: Tensor,
    by_mixed: Tensor,
    by_post: Tensor,
    X: Tensor,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, second, third, fourth = (x.new_empty(x.shape) for x in (X, weight, bias, alpha))
    return first, second, third, fourth


@write_streams.register_fake
def _(mixed: Tensor, answer: Tensor, post: Tensor) -> Tensor:
    return mixed.new_empty(mixed.shape)


@write_streams_backward.register_fake
def _(slope: Tensor, answer: Tensor, post: Tensor) -> tuple[Tensor, Tensor]:
    return answer.new_empty(answer.shape), post.new_empty(post.shape)


# For autograd


def _keep_read(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.narrow, ctx.stages = inputs
    ctx.save_for_backward(*tensors, *output[3:])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _read_back(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, products, scales = ctx.saved_tensors
    slopes = slopes[:3]
    if all(x is None for x in slopes):
        return (None,) * 6
    if torch.is_grad_enabled():
        return *gradients(_read_reference, tensors, slopes, ctx.narrow, ctx.stages), None, None
    X = tensors[0]
    by_read, by_mixed, by_post = slopes
    by_read = X.new_zeros(X[:, 0].shape) if by_read is None else by_read
    by_mixed = torch.zeros_like(X) if by_mixed is None else by_mixed
    by_post = scales.new_zeros(X.shape[:2]) if by_post is None else by_post
    rest = products, scales, ctx.narrow, ctx.stages
    return *read_streams_backward(by_read, by_mixed, by_post, *tensors, *rest), None, None


def _keep_written(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _write_back(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    answer, post = ctx.saved_tensors
    if torch.is_grad_enabled():
        # Of plain shape: the slope may be a batch of them, which an output may not.
        none = torch.zeros(*post.shape, answer.shape[-1], dtype=slope.dtype, device=slope.device)
        call = lambda answer, post: write_reference(none, answer, post)  # noqa: E731
        by_answer, by_post = gradients(call, (answer, post), (slope,))
    else:
        by_answer, by_post = write_streams_backward(slope, answer, post)
    return slope, by_answer, by_post


read_streams.register_autograd(_read_back, setup_context=_keep_read)
write_streams.register_autograd(_write_back, setup_context=_keep_written)
