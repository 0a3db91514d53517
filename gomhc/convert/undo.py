"""A model without streams again, where these changed nothing."""

from collections import Counter

import torch
from torch import nn

from gomhc.convert.blocks import Streamed
from gomhc.convert.configuration import forget
from gomhc.convert.order import unwatch
from gomhc.hyper_connections import HyperConnection
from gomhc.mixers import Mixer

__all__ = ["remove_streams"]


def remove_streams(model: nn.Module) -> None:
    """Take the streams of `add_streams` out again, in place, where that changes no output.

    So it is where the gates are what they were at the start, up to the rounding of float32,
    whatever the blocks have learned since: every token reads the mean of the streams, writes with
    weights of mean 1, and the columns of H_res sum to 1.

    Args:
        model: with streams, or one or more of its stacks.

    Raises:
        TypeError: if the model is no module.
        ValueError: if it has no streams, or a part of a stack alone, or some connection would not
            be a plain residual, or a block got another class or forward since; the model then is
            what it was.

    Source: Note [Kept function] in `gomhc.hyper_connections`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model with streams, got {type(model).__name__}")
    blocks = {name: m for name, m in model.named_modules() if isinstance(m, Streamed)}
    if not blocks:
        kind = type(model).__name__
        raise ValueError(f"expected a model with streams of add_streams, got {kind} without any")
    parts = [block.hyper_connections for block in blocks.values()]
    seen = Counter((part.stack, part.index) for part in parts)
    for part in parts:
        # Models with stacks of one name have every index as often.
        if len({seen[part.stack, index] for index in range(part.count)}) > 1:
            raise ValueError(
                f"expected all {part.count} blocks of the stack {part.stack!r}, got some of them: "
                "the others need the streams"
            )
    for name, block in blocks.items():
        if "forward" in vars(block) or type(block).__bases__ != (Streamed, block.gomhc_plain):
            raise ValueError(
                f"expected blocks as add_streams left them, but {name or 'the model'} got another "
                "forward or class since, as from accelerate, FSDP or a parametrization; undo that "
                "first"
            )
        for index, connection in enumerate(block.hyper_connections):
            if not isinstance(connection, HyperConnection):
                raise ValueError(
                    f"expected a HyperConnection as {name}.hyper_connections.{index}, got "
                    f"{type(connection).__name__}; take out what is around it first"
                )
            trained = departure(connection)
            if trained:
                raise ValueError(
                    "expected connections that are plain residuals on the mean of the streams, "
                    f"but {name}.hyper_connections.{index} {trained}: without streams the model "
                    "would compute something else"
                )
    unwatch(model, set(parts))
    forget(model, {part.stack for part in parts})
    for block in blocks.values():
        del block.hyper_connections
        block.__class__ = block.gomhc_plain  # type: ignore[assignment]


@torch.no_grad()
def departure(connection: HyperConnection) -> str | None:
    """What keeps a connection from being x + F(x) on the mean of the streams; None if nothing."""
    mixer = connection.mixer
    assert isinstance(mixer, Mixer)
    if not all(weight.isfinite().all() for weight in connection.parameters()):
        return "has weights that are not finite"
    d, g = mixer.d, mixer.num_parameters
    tolerance = 8 * torch.finfo(torch.float32).eps  # weights may have been in it, now or before
    res, pre, post = (
        bool((alpha * rows).any())
        for alpha, rows in zip(connection.alpha, connection.weight.split([g, d, d]), strict=True)
    )
    b_res, b_pre, b_post = connection.bias.double().split([g, d, d])
    if pre or (b_pre.sigmoid() - 1 / d).abs().max() > tolerance:
        return "reads other than the mean of the streams"
    if post or ((2 * b_post.sigmoid()).mean() - 1).abs() > tolerance:
        return "writes with weights whose mean is not 1"
    if not mixer.exact and (res or (mixer(b_res).sum(-2) - 1).abs().max() > tolerance):
        return "mixes the streams by a matrix whose columns do not sum to 1"
    return None
