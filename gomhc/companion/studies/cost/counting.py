"""FLOPs and trainable numbers of a mixer, counted on what runs.

Note [What is counted]
    torch.utils.flop_counter knows matrix products, convolutions and attention. To it a linear
    solve, an exponential and a sum are free, so that the 20 iterations of Sinkhorn count as 0.
    `PRICES` adds the rest: one FLOP for each element that an elementwise operation writes
    (whatever the function; comparisons too) and for each element that a reduction reads; a solve
    with k right-hand sides by LU factorization is ⅔n³ + 2n²k; RMSNorm is its square, mean, sum,
    root and product. A product of (m, k) and (k, n) is 2mkn, as torch has it. Moving, copying,
    filling and selecting is free. An operation in none of the lists is an error, so nothing is left
    out unseen.

Note [The whole hyper-connection]
    A mixing matrix is made once a token, for all C features; but its generator is made from all
    d·C numbers of the token. So the cost of `HyperConnection` is counted too, around a branch that
    does nothing. It is counted, never run: its tensors are on the device "meta", where they have
    shapes and no values, as the largest would not fit into memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # so documented, and with no other name
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from gomhc.hyper_connections import HyperConnection
from gomhc.mixers import BirkhoffVonNeumann, Kronecker, Orthostochastic, Sinkhorn
from gomhc.mixers.base import Mixer

__all__ = ["count_flops", "count_parameters", "published_flops"]

aten = torch.ops.aten
FREE = {
    aten._to_copy,
    aten._unsafe_view,
    aten.alias,
    aten.cat,
    aten.clone,
    aten.copy_,
    aten.detach,
    aten.empty,
    aten.empty_like,
    aten.expand,
    aten.eye,
    aten.fill_,
    aten.full,
    aten.full_like,
    aten.index_copy,
    aten.index_select,
    aten.lift_fresh,
    aten.new_ones,
    aten.new_zeros,
    aten.ones_like,
    aten.permute,
    aten.scalar_tensor,
    aten.select,
    aten.slice,
    aten.split,
    aten.split_with_sizes,
    aten.stack,
    aten.squeeze,
    aten.t,
    aten.transpose,
    aten.triu_indices,
    aten.unbind,
    aten.unsqueeze,
    aten.view,
    aten.where,
    aten.zeros,
    aten.zeros_like,
}


def _writes(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return math.prod(out_shape)


def _reads(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return math.prod(shape)


def _logsumexp(shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Maximum, difference, exponential and sum of what is read; a logarithm and a sum written."""
    return 4 * math.prod(shape) + 2 * math.prod(out_shape)


def _solve(shape: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    *batch, n, k = right
    return math.prod(batch) * round(2 / 3 * n**3 + 2 * n**2 * k)


def _rms_norm(shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Square, mean and product of all numbers; a sum and a root for each norm."""
    return 3 * math.prod(shape) + 2 * math.prod(shape[:-1])


PRICES: dict[Any, Callable[..., int]] = {
    aten._linalg_solve_ex: _solve,
    aten.logsumexp: _logsumexp,
    **dict.fromkeys([aten.all, aten.amax, aten.mean, aten.sum], _reads),
    **dict.fromkeys(
        [
            aten.abs,
            aten.add,
            aten.add_,
            aten.div,
            aten.eq,
            aten.exp,
            aten.gt,
            aten.le,
            aten.lt,
            aten.mul,
            aten.ne,
            aten.neg,
            aten.pow,
            aten.rsqrt,
            aten.sigmoid,
            aten.sigmoid_backward,
            aten.sub,
        ],
        _writes,
    ),
}
# Older versions of torch do not have it: there its parts run, which have prices.
if hasattr(aten, "_fused_rms_norm"):
    PRICES[aten._fused_rms_norm] = _rms_norm


class _Refuse(TorchDispatchMode):
    """Raise on an operation without a price."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet = func._overloadpacket
        if func.namespace == "aten" and not {packet} & (
            FREE | PRICES.keys() | flop_registry.keys()
        ):
            raise NotImplementedError(f"expected an operation with a price, got {func}")
        return func(*args, **(kwargs or {}))


# A token's share is the difference of two batches, which leaves out what all tokens share, such as
# the places of θ in A. With a single token some products take another way.
TOKENS = (2, 4)
STEP = TOKENS[1] - TOKENS[0]


@contextmanager
def _counting(device: str) -> Iterator[FlopCounterMode]:
    """Count all that runs inside, on tensors made there: without values on the device "meta"."""
    with ExitStack() as stack:
        stack.enter_context(torch.device(device))
        # The counter takes an operation apart before it passes it on, so it stands inside.
        stack.enter_context(_Refuse())
        yield stack.enter_context(FlopCounterMode(display=False, custom_mapping=PRICES))


def count_flops(mixer: Mixer, width: int | None = None, backward: bool = False) -> dict[str, float]:
    """FLOPs a token, operation by operation (Note [What is counted] above).

    Args:
        mixer: any mixer.
        width: None counts the mixer alone; a number C counts the whole hyper-connection around a
            layer of that width, without the layer (Note [The whole hyper-connection]).
        backward: whether to add the gradient in θ; of the mixer alone.

    Returns:
        aten operation -> FLOPs; those that cost nothing are left out.

    Raises:
        ValueError: if backward is asked for the whole hyper-connection.
        NotImplementedError: if the mixer runs an operation that has no price.
    """
    if width is not None and backward:
        raise ValueError(f"expected width=None with backward, got {width}")
    counts = []
    for tokens in TOKENS:
        theta = thetas(mixer, tokens)
        layer = None if width is None else _layer(mixer, width)
        with _counting("cpu" if width is None else "meta") as counter:
            if layer is None:
                step(mixer, theta, backward)
            else:
                layer(torch.empty(tokens, mixer.d, layer.dim))
        counts.append(counter.get_flop_counts().get("Global", {}))
    fewer, more = counts
    per_token = {str(packet): (more[packet] - fewer[packet]) / STEP for packet in more}
    return {name: count for name, count in per_token.items() if count}


def count_parameters(mixer: Mixer, width: int) -> int:
    """Trainable numbers of one hyper-connection, counted on its tensors.

    Args:
        mixer: any mixer.
        width: C.

    Returns:
        The number, which does not come from a formula.
    """
    return sum(weight.numel() for weight in _layer(mixer, width).parameters())


def _layer(mixer: Mixer, width: int) -> HyperConnection:
    """The hyper-connection around nothing, its weights without values."""
    with torch.device("meta"):
        return HyperConnection(width, nn.Identity(), mixer)


def published_flops(mixer: Mixer) -> int | None:
    """The order of FLOPs that the papers give, without its constant and its factor C.

    mHC S·d² with S iterations; mHC-lite d²·d!; KromHC Σ i²·i! + d² over its factors of order i;
    go-mHC s³·d³. None for a mixer of which none is published.

    Source: go-mHC, arXiv 2604.02309; KromHC, arXiv 2601.21579.
    """
    match mixer:
        case Sinkhorn(d=d, iterations=iterations):
            return iterations * d**2
        case BirkhoffVonNeumann(d=d):
            return d**2 * math.factorial(d)
        case Orthostochastic(d=d, s=s):
            return (s * d) ** 3
        case Kronecker(d=d, factors=factors):
            if all(isinstance(factor, BirkhoffVonNeumann) for factor in factors):
                return d**2 + sum(f.d**2 * math.factorial(f.d) for f in factors)
    return None


def step(mixer: Mixer, theta: Tensor, backward: bool = True) -> None:
    """One forward and, where anything depends on θ, one backward pass."""
    theta.grad = None
    matrix = mixer(theta)
    if backward and matrix.requires_grad:
        matrix.backward(torch.ones_like(matrix))


def thetas(mixer: Mixer, tokens: int) -> Tensor:
    """Random generators of some tokens, in float32."""
    generator = torch.Generator().manual_seed(0)
    shape = (tokens, mixer.num_parameters)
    return torch.randn(shape, generator=generator, dtype=torch.float32).requires_grad_()
