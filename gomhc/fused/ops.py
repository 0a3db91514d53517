"""The fused mixers as operators of PyTorch: `torch.ops.gomhc.mix` and its derivative.

An operator takes the stages as a flat list of integers, three a stage, since a schema has no other
structure to offer. `torch.compile` keeps it as it is, without a graph break.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gomhc.fused.derivatives import gradients_below
from gomhc.fused.stages import Stage, check_stages, order_of, reference, tables

SHARE = 1024  # tokens that are worth a thread


def stages_of(flat: Sequence[int]) -> tuple[Stage, ...]:
    """Stages out of the integers of an operator."""
    return tuple(Stage(*flat[k : k + 3]) for k in range(0, len(flat), 3))


def _on_cpu(theta: Tensor, slope: Tensor, flat: Sequence[int], out: Tensor) -> Tensor:
    """Fill `out`, all threads of PyTorch at work; returns the numbers of hard tokens."""
    from gomhc.fused.cpu import WIDTH, families, room, sweep
    from gomhc.fused.threads import rooms, spread

    stages, tokens = stages_of(flat), len(theta)
    d = order_of(stages)
    check_stages(stages, theta.shape[1], d)
    if len(slope) and slope.shape != (tokens, d, d):
        raise ValueError(f"expected a slope {(tokens, d, d)}, got {tuple(slope.shape)}")
    arrays = [x.detach().float().flatten(1).contiguous().numpy() for x in (theta, slope)]
    arrays += [out.flatten(1).numpy(), np.zeros(tokens, bool)]
    whole = tokens // WIDTH * WIDTH
    r = room(stages)

    def work(shares: int, arrays: Sequence[np.ndarray]) -> None:
        w = rooms(shares, r.lanes * WIDTH)
        spread(sweep, shares, tables(stages), r, w, *arrays, families(stages))

    if whole:
        shares = max(1, min(torch.get_num_threads(), whole // SHARE))
        work(shares, [x[:whole] for x in arrays])
    if whole < tokens:
        # The rest of them, the last one repeated.
        rows = np.minimum(np.arange(whole, whole + WIDTH), tokens - 1)
        rest = [x[rows] if len(x) else x for x in arrays]
        work(1, rest)
        for all_of_them, few in zip(arrays[2:], rest[2:], strict=True):
            all_of_them[whole:] = few[: tokens - whole]
    return torch.from_numpy(np.flatnonzero(arrays[-1]))


@torch.library.custom_op(
    "gomhc::mix",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor theta, int[] stages) -> Tensor",
)
def mix(theta: Tensor, stages: Sequence[int]) -> Tensor:
    """(tokens, g) generators to (tokens, d, d) matrices."""
    d = order_of(stages_of(stages))
    theta = theta.detach().float()
    out = theta.new_empty(len(theta), d, d)
    hard = _on_cpu(theta, theta.new_empty(0, d, d), stages, out)
    if len(hard):
        out[hard] = reference(theta[hard], stages_of(stages))
    return out


@torch.library.custom_op(
    "gomhc::mix_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor slope, Tensor theta, int[] stages) -> Tensor",
)
def mix_backward(slope: Tensor, theta: Tensor, stages: Sequence[int]) -> Tensor:
    """(tokens, g) derivative by the generators, from that by the matrices."""
    wide = theta.detach().float()
    out = torch.empty_like(wide, memory_format=torch.contiguous_format)
    hard = _on_cpu(wide, slope, stages, out)
    if len(hard):
        few = [wide[hard]], [slope[hard]]
        out[hard] = gradients_below(reference, *few, stages_of(stages))[0]
    return out.to(theta.dtype)


@mix.register_kernel("cuda")
def _(theta: Tensor, stages: Sequence[int]) -> Tensor:
    from gomhc.fused import gpu

    with torch.cuda.device_of(theta):
        return gpu.mix(theta.detach(), stages_of(stages))


@mix_backward.register_kernel("cuda")
def _(slope: Tensor, theta: Tensor, stages: Sequence[int]) -> Tensor:
    from gomhc.fused import gpu

    with torch.cuda.device_of(theta):
        return gpu.mix_backward(slope.detach(), theta.detach(), stages_of(stages))


@mix.register_fake
def _(theta: Tensor, stages: Sequence[int]) -> Tensor:
    d = order_of(stages_of(stages))
    return theta.new_empty(theta.shape[0], d, d, dtype=torch.float32)


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
    """The derivative of the derivative, rarely wanted: through PyTorch, and on from there."""
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, as the slope may itself depend on θ, by a path that is not ours to follow.
        own = [x.view_as(x) if further else x.detach() for x in ctx.saved_tensors]
        slope, theta = (x if x.requires_grad else x.requires_grad_() for x in own)
        matrices = reference(theta.float(), stages_of(ctx.stages))
        (once,) = torch.autograd.grad(matrices, theta, slope, create_graph=True)
        by_slope, by_theta = torch.autograd.grad(once, (slope, theta), change, create_graph=further)
    return by_slope, by_theta, None


mix.register_autograd(_backward, setup_context=_keep)
mix_backward.register_autograd(_twice, setup_context=_keep)


def _batched(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    """vmap: more tokens."""
    *tensors, flat = arguments
    rows = []
    for x, dim in zip(tensors, in_dims[:-1], strict=True):
        each = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        rows.append(each.flatten(0, 1))
    operator = mix if len(tensors) == 1 else mix_backward
    return operator(*rows, flat).unflatten(0, (info.batch_size, -1)), 0


torch.library.register_vmap("gomhc::mix", _batched)
torch.library.register_vmap("gomhc::mix_backward", _batched)
