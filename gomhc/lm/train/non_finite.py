"""Losses and gradients that are infinite or NaN: where it began."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gomhc.hyper_connections import HyperConnection
from gomhc.lm.model import GPT
from gomhc.lm.train.config import Progress
from gomhc.mixers import Mixer

__all__ = ["NonFiniteError"]


class NonFiniteError(RuntimeError):
    """A loss or a gradient was infinite or NaN; the message says where it began.

    Attributes:
        seen: the run up to there.
    """

    def __init__(self, message: str, seen: Progress) -> None:
        super().__init__(message)
        self.seen = seen

    def __reduce__(self) -> tuple[type, tuple[str, Progress]]:
        """How it gets from one process to another."""
        return type(self), (str(self), self.seen)


def first_non_finite(model: GPT, pieces: Sequence[tuple[Tensor, Tensor]], narrow: bool) -> str:
    """Where it begins: a weight, the output of a module, mixing matrices, or a weight's gradient.

    Args:
        model: with the gradients as they were found.
        pieces: tokens and targets of the step, run through the model once more.
        narrow: whether it ran under bfloat16 autocast.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name}"
    places: list[str] = []

    def note(parts: Iterable[Any], what: str) -> None:
        if not all(part.isfinite().all() for part in parts if isinstance(part, Tensor)):
            places.append(what)

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Mixer):  # all connections share one
            continue
        what = f"the output of {name or 'the model'} ({type(module).__name__})"
        handles.append(
            module.register_forward_hook(
                lambda _, __, output, what=what: note(
                    output if isinstance(output, tuple) else [output], what
                )
            )
        )
        if isinstance(module, HyperConnection):
            what = f"the mixing matrices of {name}"
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, inputs, what=what: note(module.matrices(inputs[0]), what)
                )
            )
    try:
        for x, y in pieces:
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=narrow):
                model(x, y)
    finally:
        for handle in handles:
            handle.remove()
    if places:
        return places[0]
    for name, weight in reversed(list(model.named_parameters())):
        if weight.grad is not None and not weight.grad.isfinite().all():
            return f"the gradient of {name}"
    return "a batch of which only a part was not finite"
