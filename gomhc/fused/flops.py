"""What PyTorch's flop counter takes the operators for: it would pass over what it does not know.

As it counts for its own: products of matrices at 2mnk, and what goes element by element for free,
exponentials too. It has no price for a linear solve; (I + A)⁻¹ of order n is 8n³/3 here, by
elimination with n right-hand sides.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

import gomhc.fused.layer  # noqa: F401 (makes the operators)
from gomhc.fused.ops import stages_of
from gomhc.fused.stages import CAYLEY, PERMUTATIONS

Shape = Sequence[int]


def _solve(n: int) -> int:
    return 8 * n**3 // 3


def _mix(tokens: int, flat: Sequence[int], backward: bool = False) -> int:
    """Of the mixing matrices; on the way back they are made again."""
    total = 0
    for stage in stages_of(flat):
        if stage.kind == CAYLEY:
            total += _solve(stage.order) + backward * 4 * stage.order**3
        elif stage.kind == PERMUTATIONS:
            total += 2 * math.factorial(stage.size) * stage.size**2
    return tokens * total


def _read(X: Shape, weight: Shape, flat: Sequence[int]) -> int:
    """Of x'W, H_pre X and H_res X."""
    (tokens, d, C), (rows, width) = X, weight
    return 2 * tokens * (rows * width + d * C + bool(flat) * d * d * C)


@register_flop_formula(torch.ops.gomhc.mix)
def _(theta: Shape, stages: Sequence[int], **_: Any) -> int:
    return _mix(theta[0], stages)


@register_flop_formula(torch.ops.gomhc.mix_backward)
def _(slope: Shape, theta: Shape, stages: Sequence[int], **_: Any) -> int:
    return _mix(theta[0], stages, backward=True)


@register_flop_formula(torch.ops.gomhc.read_streams)
def _(
    X: Shape, weight: Shape, bias: Shape, alpha: Shape, narrow: Any, stages: Sequence[int], **_: Any
) -> int:
    return _read(X, weight, stages) + _mix(X[0], stages)


@register_flop_formula(torch.ops.gomhc.read_streams_backward)
def _(
    by_read: Shape, by_mixed: Shape, by_post: Shape, X: Shape, weight: Shape, *rest: Any, **_: Any
) -> int:
    stages = rest[-1]
    return 2 * _read(X, weight, stages) + _mix(X[0], stages, backward=True)


@register_flop_formula([torch.ops.gomhc.write_streams, torch.ops.gomhc.write_streams_backward])
def _(*_: Any, **__: Any) -> int:
    return 0  # an outer product, which goes element by element
