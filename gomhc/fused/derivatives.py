"""Derivatives by way of PyTorch, for what compiled code leaves to it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


def gradients(
    call: Callable[..., Any], tensors: Sequence[Tensor], slopes: Sequence[Tensor | None], *rest: Any
) -> list[Tensor]:
    """Derivatives by tensors, with a graph of their own where they are to be differentiated again.

    Args:
        call: of the tensors and the rest; gives one tensor or a tuple.
        tensors: where the derivatives are taken.
        slopes: the derivative by each of what `call` gives; None is zero.
        rest: further arguments of `call`.

    Returns:
        One a tensor; zero where nothing depends on it.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        own = [x.view_as(x) if again and x.requires_grad else x.detach() for x in tensors]
        own = [x if x.requires_grad else x.requires_grad_() for x in own]
        given = call(*own, *rest)
        given = given if isinstance(given, tuple) else (given,)
        pairs = [(x, by) for x, by in zip(given, slopes, strict=True) if by is not None]
        outputs, slopes = zip(*pairs, strict=True)
        derived = torch.autograd.grad(outputs, own, slopes, create_graph=again, allow_unused=True)
    return [torch.zeros_like(x) if by is None else by for x, by in zip(own, derived, strict=True)]


def gradients_below(*arguments: Any) -> list[Tensor]:
    """The same from within an operator, which runs below autograd: a new thread has autograd."""

    def call() -> list[Tensor]:
        with torch.no_grad():
            return gradients(*arguments)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()
