"""The fused mixers as operators of PyTorch: `torch.ops.gomhc.mix` and its derivative.

An operator takes the stages as a flat list of integers, three a stage, since a schema has no other
structure to offer. `torch.compile` keeps it as it is, without a graph break.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gomhc.fused.stages import PERMUTATIONS, Stage, images, reference

CACHED = 2**15  # numbers of an array of a block of tokens, so that all of them fit into a cache
# Tokens in a block, odd multiples of 8: powers of 2 would map the columns of a matrix to few sets
# of the cache, which then evict each other.
LANES = 72, 40, 24, 8


def stages_of(flat: Sequence[int]) -> list[Stage]:
    """Stages out of the integers of an operator."""
    return [Stage(*flat[k : k + 3]) for k in range(0, len(flat), 3)]


@functools.lru_cache(maxsize=64)
def _tables(flat: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The first five arguments of `sweep`."""
    stages = stages_of(flat)
    tables = [images(s.size) if s.kind == PERMUTATIONS else np.zeros((1, 1), int) for s in stages]
    shape = np.max([table.shape for table in tables], axis=0)
    padded = np.zeros((len(tables), *shape), np.int64)
    for row, table in zip(padded, tables, strict=True):
        row[: table.shape[0], : table.shape[1]] = table
    kind, size, option = np.array(stages, np.int64).T.copy()
    first = np.cumsum([0, *(stage.num_parameters for stage in stages)])
    return kind, size, option, first, padded


def _lanes(flat: Sequence[int]) -> int:
    order = max(s.size * max(s.option, 1) if s.kind == 0 else s.size for s in stages_of(flat))
    return next((lanes for lanes in LANES if lanes * order**2 <= CACHED), LANES[-1])


def _on_cpu(theta: Tensor, slope: Tensor, flat: Sequence[int], out: Tensor) -> Tensor:
    """Fill `out`, all threads of PyTorch at work; returns which tokens are hard."""
    from gomhc.fused.cpu import sweep

    tokens, lanes, threads = len(theta), _lanes(flat), torch.get_num_threads()
    hard = np.zeros(tokens, bool)
    arrays = theta.numpy(), slope.numpy()
    share = -(-tokens // (threads * lanes)) * lanes  # whole blocks

    def work(begin: int) -> None:
        end = min(begin + share, tokens)
        sweep(*_tables(tuple(flat)), *arrays, begin, end, lanes, out.flatten(1).numpy(), hard)

    if share >= tokens:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(0, tokens, share)))
    return torch.from_numpy(hard)


@torch.library.custom_op("gomhc::mix", mutates_args=(), device_types="cpu")
def mix(theta: Tensor, stages: Sequence[int]) -> Tensor:
    """(tokens, g) generators to (tokens, d, d) matrices."""
    d = int(np.prod([stage.size for stage in stages_of(stages)]))
    theta = theta.detach().contiguous()
    out = theta.new_empty(len(theta), d, d)
    hard = _on_cpu(theta, theta.new_empty(0, d, d), stages, out)
    if hard.any():
        out[hard] = reference(theta[hard], stages_of(stages))
    return out


@torch.library.custom_op("gomhc::mix_backward", mutates_args=(), device_types="cpu")
def mix_backward(slope: Tensor, theta: Tensor, stages: Sequence[int]) -> Tensor:
    """(tokens, g) derivative by the generators, from that by the matrices."""
    theta, slope = theta.detach().contiguous(), slope.detach().contiguous()
    out = torch.empty_like(theta)
    hard = _on_cpu(theta, slope, stages, out) if len(theta) else torch.zeros(0, dtype=torch.bool)
    if hard.any():
        out[hard] = _reference_backward(slope[hard], theta[hard], stages)
    return out


def _reference_backward(slope: Tensor, theta: Tensor, flat: Sequence[int]) -> Tensor:
    with torch.enable_grad():
        theta = theta if theta.requires_grad else theta.detach().requires_grad_()
        matrices = reference(theta, stages_of(flat))
        create = torch.is_grad_enabled() and slope.requires_grad
        return torch.autograd.grad(matrices, theta, slope, create_graph=create)[0]


@mix.register_fake
def _(theta: Tensor, stages: Sequence[int]) -> Tensor:
    d = int(np.prod([stage.size for stage in stages_of(stages)]))
    return theta.new_empty(theta.shape[0], d, d)


@mix_backward.register_fake
def _(slope: Tensor, theta: Tensor, stages: Sequence[int]) -> Tensor:
    return torch.empty_like(theta, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.stages = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
    (theta,) = ctx.saved_tensors
    return mix_backward(slope, theta, ctx.stages), None


def _twice(ctx: Any, change: Tensor) -> tuple[Tensor, Tensor, None]:
    """The derivative of the derivative, which is rarely wanted: through PyTorch."""
    slope, theta = ctx.saved_tensors
    with torch.enable_grad():
        slope, theta = slope.detach().requires_grad_(), theta.detach().requires_grad_()
        matrices = reference(theta, stages_of(ctx.stages))
        (once,) = torch.autograd.grad(matrices, theta, slope, create_graph=True)
        by_slope, by_theta = torch.autograd.grad(once, (slope, theta), change)
    return by_slope, by_theta, None


mix.register_autograd(_backward, setup_context=_keep)
mix_backward.register_autograd(_twice, setup_context=_keep)


def _batched(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    """vmap: more tokens."""
    *tensors, flat = arguments
    moved = [
        (x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)).flatten(0, 1)
        for x, dim in zip(tensors, in_dims[:-1], strict=True)
    ]
    operator = mix if len(tensors) == 1 else mix_backward
    return operator(*moved, flat).unflatten(0, (info.batch_size, -1)), 0


torch.library.register_vmap("gomhc::mix", _batched)
torch.library.register_vmap("gomhc::mix_backward", _batched)
