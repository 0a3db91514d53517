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
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gomhc.convert.layouts import Layout, apply, bind, for_attention, signature
from gomhc.hyper_connections import HyperConnection, expand_streams, reduce_streams


class _InThread(threading.local):
    """What a thread knows of its own call; copies begin anew."""

    def __init__(self) -> None:  # which a thread calls when it first looks
        self.ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _InThread, ()


class Connections(nn.ModuleList):
    """The hyper-connections of one block.

    Attributes:
        stack: name of the stack that the block is in.
        index: of the block there; the first makes the streams.
        count: of blocks there; the last makes one of the streams.
        layout: of its two branches; None where the whole block is one.
        config: of the transformers model that holds the stack, and keeps its options; None without.
        d: number of streams.
        dim: C.
        here: `ran` says whether this thread called the block since it called the model.
    """

    def __init__(
        self,
        connections: list[HyperConnection],
        stack: str,
        index: int,
        count: int,
        layout: Layout | None,
        config: Any,
    ) -> None:
        super().__init__(connections)
        self.stack, self.index, self.count, self.layout = stack, index, count, layout
        self.config = config
        self.d, self.dim, self.here = connections[0].mixer.d, connections[0].dim, _InThread()

    def forward(self, *arguments: Any, **options: Any) -> None:
        """Say what a block does that calls them."""
        raise ValueError(
            "expected a block that names the children that it runs, but it runs all that it has, "
            "and its hyper_connections are among them now"
        )


def run(
    x: Float[Tensor, "*batch C"], branch: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*batch C"]:
    """What all connections are around; each call brings the branch, as a function.

    The block itself is no argument, as loaders that move arguments to a device would move it.
    """
    return branch(x)


def change(
    x: Float[Tensor, "*batch C"],
    block: "Streamed",
    others: list[Any],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Float[Tensor, "*batch C"]:
    """block(x) − x; the tuple that a block may return goes to the list."""
    # Of a copy, as a block may write its answer into what it is given.
    answer = block.gomhc_plain.forward(block, x.clone(), *arguments, **options)
    if isinstance(answer, tuple):
        others.append(answer)
        answer = answer[0]
    if not isinstance(answer, Tensor) or answer.shape != x.shape:
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        kind = block.gomhc_plain.__name__
        raise ValueError(f"expected {kind} to return a stream {tuple(x.shape)}, got {got}")
    return answer - x


class Streamed(nn.Module):
    """What a block with streams does in place of its own `forward`.

    Attributes:
        gomhc_plain: class of the block without streams; so named as a block may have a `plain`.
        gomhc_known: what that is called with.
        hyper_connections: one for the attention and one for the MLP, or one for the whole block.
    """

    gomhc_plain: type[nn.Module]
    gomhc_known: inspect.Signature
    hyper_connections: Connections

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Take the streams, or the first of them, and all that the block takes besides."""
        own = self.hyper_connections
        own.here.ran = True
        if own.layout is not None:
            x, named = bind(self.gomhc_known, arguments, options)
        elif arguments:
            x, *rest = arguments
            arguments = tuple(rest)
        elif (stream := next(iter(self.gomhc_known.parameters))) in options:
            x = options.pop(stream)
        else:
            kind = self.gomhc_plain.__name__
            raise TypeError(f"expected the stream as the first argument of {kind}, got none")
        X = self._streams_of(x) if own.index == 0 else x
        others: list[Any] = []
        if own.layout is None:
            X = own[0](X, lambda x: change(x, self, others, arguments, options))
        else:
            given = for_attention(named)
            X = own[0](X, lambda x: apply(self, own.layout.attention, x, given))
            X = own[1](X, lambda x: apply(self, own.layout.mlp, x, {}))
        x = reduce_streams(X) if own.index == own.count - 1 else X
        if not others:
            return x
        make = getattr(type(others[0]), "_make", tuple)  # of a named tuple, which it stays
        return make((x, *others[0][1:]))

    def _streams_of(self, x: Any) -> Float[Tensor, "*batch d C"]:
        """The streams that the first block makes of what it is called with."""
        own = self.hyper_connections
        if getattr(x, "is_nested", False):
            raise ValueError("expected a dense stream (..., C), got a nested tensor")
        if x.shape[-1] != own.dim:
            why = ", as dim says" if own.layout is None else ""
            raise ValueError(f"expected a stream (..., {own.dim}){why}, got {tuple(x.shape)}")
        return expand_streams(x, own.d)

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a block can be pickled though nobody can import its class."""
        return _blank, (self.gomhc_plain,), self.__getstate__()


@functools.cache
def streamed(plain: Any) -> type[Streamed]:
    """The class of blocks with streams made of another (Note [Class] in this module)."""
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
    own = {"gomhc_plain": plain, "gomhc_known": signature(plain)}
    if issubclass(plain, nn.Sequential | nn.ModuleList):
        own |= {"__iter__": _iterate, "__len__": _length, "__getitem__": _item}
    return type(plain.__name__, (Streamed, plain), names | own)


# What a `Sequential` or `ModuleList` runs over are all its children but the new one.


def _iterate(block: Streamed) -> Iterator[nn.Module]:
    return (child for child in block.children() if not isinstance(child, Connections))


def _length(block: Streamed) -> int:
    return len(list(_iterate(block)))


def _item(block: Streamed, index: int | slice) -> nn.Module:
    children = list(_iterate(block))
    if not isinstance(index, slice):
        return children[index]
    if isinstance(block, nn.ModuleList):
        return block.gomhc_plain(children[index])
    return nn.Sequential(*children[index])


def _blank(plain: Any) -> Streamed:
    return Streamed.__new__(streamed(plain))
