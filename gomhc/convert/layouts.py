"""Blocks whose attention and MLP can be told apart, and the proof that this is all they do.

Note [Proof]
    Children of the same names do not make the same block: Granite names them as Llama does and
    multiplies the branches; others add both branches to the same stream. So a block is known by
    what it computes. Its own `forward` runs with random matrices in place of its children, and so
    does the sum of the two branches; both have to give the same numbers and gradients, and to hand
    each child the same arguments: in training and in evaluation, with all the arguments and without
    any. A few tokens of a few texts are enough, and no weight takes part. A block with weights
    beside its children, such as a scale that is trained, is refused, as it may be 1 today; so is
    one that draws random numbers, as it may skip a branch another time.
"""

import functools
import inspect
import itertools
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

Branch = tuple[str, ...]


class Layout(NamedTuple):
    """The children of a block, branch by branch, in the order in which each is applied."""

    attention: Branch
    mlp: Branch

    @property
    def layer(self) -> str:
        """The attention among its norms: what gets the arguments of the block."""
        return next(name for name in self.attention if name in ATTENTIONS)


LAYOUTS: Mapping[str, Layout] = {
    "GPT-2 or nanoGPT": Layout(("ln_1", "attn"), ("ln_2", "mlp")),
    "Llama": Layout(("input_layernorm", "self_attn"), ("post_attention_layernorm", "mlp")),
    "OLMo 2": Layout(
        ("self_attn", "post_attention_layernorm"), ("mlp", "post_feedforward_layernorm")
    ),
    "ViT": Layout(
        ("layernorm_before", "attention", "dropout"), ("layernorm_after", "mlp", "dropout")
    ),
}
ATTENTIONS = ("attn", "self_attn", "attention")  # what gets the arguments of the block
CROSS = ("encoder_hidden_states", "encoder_attention_mask")  # of blocks with a third branch
WIDTH = 8  # of the proof
WHOLE = "whole_blocks=True with dim= takes a block as one branch"
UNKNOWN = "has a forward that cannot be followed"


def children(block: nn.Module) -> set[str]:
    """Names of the modules right inside a block."""
    return {name for name, _ in block.named_children()}


def known_layout(block: nn.Module) -> Layout | None:
    """The layout of a block with these children, which may compute something else all the same."""
    for layout in LAYOUTS.values():
        if children(block) == {*layout.attention, *layout.mlp}:
            return layout
    return None


def described() -> str:
    """The layouts, for a message."""
    return "; ".join(
        f"{', '.join(dict.fromkeys(layout.attention + layout.mlp))} ({name})"
        for name, layout in LAYOUTS.items()
    )


def apply(
    block: nn.Module, branch: Branch, x: Float[Tensor, "*batch C"], options: Mapping[str, Any]
) -> Float[Tensor, "*batch C"]:
    """F(x) of one branch, where the options go to the attention."""
    for name in branch:
        child = getattr(block, name)
        answer = child(x, **options) if name in ATTENTIONS else child(x)
        x = answer[0] if isinstance(answer, tuple) else answer
    return x


def signature(kind: type[nn.Module]) -> inspect.Signature:
    """What a class of modules is called with, the stream first."""
    known = inspect.signature(kind.forward)
    return known.replace(parameters=list(known.parameters.values())[1:])


def bind(
    known: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The stream that a module is called with, and by name all else, defaults too.

    Raises:
        TypeError: if the module takes no such arguments.
    """
    bound = known.bind(*arguments, **options)
    bound.apply_defaults()
    stream, *names = known.parameters
    named: dict[str, Any] = {}
    for name in names:
        extra = known.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        named |= bound.arguments[name] if extra else {name: bound.arguments[name]}
    return bound.arguments[stream], named


def for_attention(named: Mapping[str, Any]) -> dict[str, Any]:
    """What of the arguments of a block its attention gets.

    Raises:
        ValueError: if the states of an encoder are among them.
    """
    if named.get(CROSS[0]) is not None:
        raise ValueError(f"expected no {CROSS[0]}, as the block has no cross-attention")
    return {name: value for name, value in named.items() if name not in CROSS}


class _Part(nn.Module):
    """A random matrix in place of a child; keeps the arguments that it is called with."""

    def __init__(self, child: nn.Module, pair: bool, seed: int) -> None:
        super().__init__()
        self.known, self.pair = signature(type(child)), pair
        self.matrix = _random(WIDTH, seed)
        self.seen: list[dict[str, Any]] = []

    def forward(self, *arguments: Any, **options: Any) -> Any:
        stream, named = bind(self.known, arguments, options)
        self.seen.append(named)
        answer = stream @ self.matrix
        return (answer, None) if self.pair else answer


def _random(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, dtype=torch.float64, device="cpu", generator=generator)


def _dice() -> list[Any]:
    """Where the sources of random numbers stand."""
    numpy: Any = np.random.get_state()  # noqa: NPY002 (what others draw from)
    return [random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()]


@functools.cache
def _subclass(kind: Any) -> Any:
    """What blocks with streams have as well, so that no checkpointing wraps the forward of `kind`.

    That of transformers acts where a class has its outermost forward.
    """
    return type(kind.__name__, (kind,), {"__module__": kind.__module__})


@torch.inference_mode(False)
@torch.enable_grad()
def _difference(
    block: nn.Module, layout: Layout, pair: bool, training: bool, full: bool
) -> str | None:
    """What a block does besides x + attention(x) and then x + MLP(x); None if nothing."""
    parts = {
        name: _Part(child, pair and name in ATTENTIONS, seed)
        for seed, (name, child) in enumerate(block.named_children())
    }
    kind: Any = type(block)
    probe = nn.Module.__new__(_subclass(kind))
    probe.__dict__.update(block.__dict__, _modules=parts, training=training)
    known = signature(kind)
    given = {
        name: object()
        for name, parameter in list(known.parameters.items())[1:]
        if name not in CROSS and (full or parameter.default is parameter.empty)
    }
    x, slope = (_random(15, seed).unflatten(0, (3, 5)) for seed in (98, 99))
    x.requires_grad_()
    stood = _dice()
    try:
        answer = kind.forward(probe, x.clone(), **given)
        if _dice() != stood:
            return "draws random numbers"
        calls = [part.seen.copy() for part in parts.values()]
        options = for_attention(bind(known, (x,), given)[1])
        expected = x + apply(probe, layout.attention, x, options)
        expected = expected + apply(probe, layout.mlp, expected, {})
        if not isinstance(answer, Tensor):
            return f"returns a {type(answer).__name__}"
        if answer.shape != expected.shape or not torch.allclose(answer, expected):
            return "does not add its branches one after the other, or scales them"
        total = sum(len(part.seen) for part in parts.values())
        answer.backward(slope)
        if sum(len(part.seen) for part in parts.values()) > total:
            return "runs its branches again in the backward pass (activation checkpointing)"
        if not torch.allclose(x.grad, torch.autograd.grad(expected, x, slope)[0]):
            return "does not pass on the gradient of its branches"
    except Exception as error:
        return f"{UNKNOWN} ({type(error).__name__}: {error})"
    own = [part.seen[len(seen) :] for part, seen in zip(parts.values(), calls, strict=True)]
    return None if own == calls else "hands its attention or MLP other arguments"


def prove(place: str, block: nn.Module, layout: Layout) -> None:
    """See that a block is x + attention(x) and then x + MLP(x) (Note [Proof] in this module).

    Raises:
        ValueError: if it is not; the message says what differs.
    """
    own = [*block.named_parameters(recurse=False), *block.named_buffers(recurse=False)]
    difference = f"has weights beside those, {own[0][0]}" if own else None
    for training, full in itertools.product((True, False), repeat=2):
        # An attention returns its answer alone, or with the weights that it attended with.
        seen = [_difference(block, layout, pair, training, full) for pair in (True, False)]
        if None not in seen:
            difference = difference or min(seen, key=lambda text: str(text).startswith(UNKNOWN))
    if difference is not None:
        raise ValueError(
            f"expected a block that is x + attention(x), then x + MLP(x); {place} "
            f"({type(block).__name__}) {difference}. {WHOLE}"
        )
