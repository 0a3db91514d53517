"""Blocks that hand on streams: the same modules, with another class and a few weights more.

Note [Class]
    A block stays the object that it was: its weights keep their names, hooks, caches and what holds
    the block keep working, and only its class changes, to a subclass of its own with a `forward`
    over streams. The subclass has the same name, by which others find blocks that must not be
    split; and it is a subclass of transformers' `GradientCheckpointingLayer` where the block was,
    which wraps it, so that switching activation checkpointing on still acts.
"""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gomhc.convert.layouts import Layout, apply, bind, for_attention, signature
from gomhc.hyper_connections import HyperConnection, expand_streams, reduce_streams


class Connections(nn.ModuleList):
    """The hyper-connections of one block.

    Attributes:
        first: whether the block makes the streams.
        last: whether it makes one of them.
        layout: of its two branches; None where the whole block is one.
        d: number of streams.
    """

    def __init__(
        self, connections: list[HyperConnection], first: bool, last: bool, layout: Layout | None
    ) -> None:
        super().__init__(connections)
        self.first, self.last, self.layout = first, last, layout
        self.d = connections[0].mixer.d


def attention(
    x: Float[Tensor, "*batch C"], block: "Streamed", options: Mapping[str, Any]
) -> Float[Tensor, "*batch C"]:
    """The first branch of a block with two."""
    layout = block.hyper_connections.layout
    assert layout is not None
    return apply(block, layout.attention, x, options)


def mlp(x: Float[Tensor, "*batch C"], block: "Streamed") -> Float[Tensor, "*batch C"]:
    """The second branch of a block with two."""
    layout = block.hyper_connections.layout
    assert layout is not None
    return apply(block, layout.mlp, x, {})


def change(
    x: Float[Tensor, "*batch C"],
    block: "Streamed",
    others: list[Any],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Float[Tensor, "*batch C"]:
    """block(x) − x; what the block returns beside the stream goes to the list."""
    answer = block.plain.forward(block, x, *arguments, **options)
    if isinstance(answer, tuple):
        answer, *rest = answer
        others.append(rest)
    if not isinstance(answer, Tensor) or answer.shape != x.shape:
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        kind = block.plain.__name__
        raise ValueError(f"expected {kind} to return a stream {tuple(x.shape)}, got {got}")
    return answer - x


class Streamed(nn.Module):
    """What a block with streams does in place of its own `forward`.

    Attributes:
        plain: class of the block without streams.
        known: what that is called with.
        hyper_connections: one for the attention and one for the MLP, or one for the whole block.
    """

    plain: type[nn.Module]
    known: inspect.Signature
    hyper_connections: Connections

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Take the streams, or the first of them, and all that the block takes besides."""
        own = self.hyper_connections
        if own.layout is not None:
            x, named = bind(self.known, arguments, options)
        elif arguments:
            x, *rest = arguments
            arguments = tuple(rest)
        else:
            x = options.pop(next(iter(self.known.parameters)))
        X = expand_streams(x, own.d) if own.first else x
        others: list[Any] = []
        if own.layout is None:
            X = own[0](X, self, others, arguments, options)
        else:
            X = own[1](own[0](X, self, for_attention(named)), self)
        x = reduce_streams(X) if own.last else X
        return (x, *others[0]) if others else x

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a block can be pickled though nobody can import its class."""
        return _blank, (self.plain,), self.__dict__


@functools.cache
def streamed(plain: Any) -> type[Streamed]:
    """The class of blocks with streams made of another (Note [Class] in this module)."""
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
    own = {"plain": plain, "known": signature(plain)}
    if issubclass(plain, nn.Sequential):
        own["__iter__"] = _without_connections
    return type(plain.__name__, (Streamed, plain), names | own)


def _without_connections(block: Streamed) -> Iterator[nn.Module]:
    """What a `Sequential` applies one after the other: all its children but the new one."""
    return (child for child in block.children() if child is not block.hyper_connections)


def _blank(plain: Any) -> Streamed:
    return Streamed.__new__(streamed(plain))
