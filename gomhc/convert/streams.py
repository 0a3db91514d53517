"""Streams in a model that has none, and out of it again, without changing what it computes."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import nn

from gomhc.checks import check_count
from gomhc.convert.blocks import Connections, run, streamed
from gomhc.convert.configuration import place_of, remember
from gomhc.convert.order import check_parent, watch
from gomhc.convert.stacks import (
    check_block,
    check_shape,
    check_undivided,
    find_stack,
    layout_of,
    sample_weight,
    width_of,
)
from gomhc.fused import Backend
from gomhc.hyper_connections import HyperConnection
from gomhc.mixers import Mixer, make_mixer

__all__ = ["Conversion", "add_streams"]


@dataclass(frozen=True)
class Conversion:
    """What `add_streams` has done.

    Attributes:
        stack: dotted name of the stack of blocks.
        mixer: name of the mixer.
        d: number of streams.
        places: dotted names of the branches that are wrapped, one for each connection.
        parameters: trainable numbers that came in; a frozen θ is none.
    """

    stack: str
    mixer: str
    d: int
    places: tuple[str, ...]
    parameters: int

    def __str__(self) -> str:
        """One line."""
        return (
            f"{len(self.places)} connections in {self.stack or 'the model'} ({self.mixer}, "
            f"{self.d} streams), {self.parameters:,} parameters"
        )


def add_streams(
    model: nn.Module,
    mixer: str,
    d: int = 4,
    *,
    stack: str | nn.Module | None = None,
    whole_blocks: bool = False,
    dim: int | None = None,
    off_diagonal_mass: float = 0.01,
    inputs: Literal["all", "mean"] = "all",
    backend: Backend = "auto",
    frozen: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Conversion:
    """Give a model's residual d streams, in place, so that it computes what it did.

    The first block of a stack makes copies of its input, the last returns their mean, and between
    them go (..., d, C): that is what hooks of blocks and `output_hidden_states` see, and
    `reduce_streams` makes the plain (..., C) of it. The model has to run its blocks one after the
    other, all of them, and do nothing else with what goes from one to the next. Only a part of that
    can be seen: a call that leaves out the first block or the last raises an error.

    Old weights keep their names; new ones are `hyper_connections` of each block, in its dtype, but
    b and α in float32 at least. In half precision the start is kept as well as that can hold it.
    The θ of the first and of the last connection never have a gradient (Note [Kept function] in
    `gomhc.hyper_connections`).

    A model of transformers keeps the options in its configuration, of which it gets a copy: convert
    the model that you save, or what holds it, not a part of it. See `from_pretrained`.

    Args:
        model: with blocks as those of GPT-2, nanoGPT, Llama (also Mistral, Qwen, OLMo, OLMo 2) and
            ViT, where attention and MLP become a branch each; or any with whole_blocks.
        mixer: a name in `MIXERS`. The start is exact for those whose columns sum to 1, which hc and
            orthogonal see to at the start alone, and mhc within what its iteration leaves.
        d: number of streams, at least 2.
        stack: the `ModuleList` or `Sequential` of the blocks, or its dotted name; the only one with
            known blocks if None.
        whole_blocks: whether a branch is block(x) − x. The blocks then may be any that map
            (..., C) to (..., C), or to a tuple that begins with it.
        dim: C; only for whole blocks, and needed there. That it is not theirs shows at the first
            call of the model.
        off_diagonal_mass: of H_res at the start, see `HyperConnection`.
        inputs: see `HyperConnection`.
        backend: see `HyperConnection`.
        frozen: whether θ stays what it is at the start, see `HyperConnection.freeze_mixing`.
        generator: source of randomness for mixers with a random start.
        options: of the mixer, such as s, see `make_mixer`.

    Returns:
        What was converted; it prints as one line.

    Raises:
        TypeError: if a size is no integer, a flag no bool, the mixer has no such option or is no
            name, or the stack is none.
        ValueError: if there is no such stack, mixer or d; a block is not one of those, already has
            streams, is in the stack twice or changes the shape of its input; dim is missing; the
            model is known to use what goes from block to block, or is in DDP or FSDP. The model
            then is what it was.

    Source: Note [Kept function] in `gomhc.hyper_connections`.
    """
    if not isinstance(mixer, str):
        raise TypeError(f"expected the name of a mixer, got {type(mixer).__name__}")
    for flag, value in {"whole_blocks": whole_blocks, "frozen": frozen}.items():
        if not isinstance(value, bool):
            raise TypeError(f"expected {flag} as True or False, got {value!r}")
    for option in options:  # that of a mixer is like none of these
        near = get_close_matches(option, inspect.signature(add_streams).parameters, 1, cutoff=0.8)
        if near:
            raise TypeError(f"expected no option {option}; did you mean {near[0]}?")
    given: dict[str, Any] = {
        "mixer": mixer,
        "d": check_count("number of streams d", d, least=2),
        "whole_blocks": whole_blocks,
        "dim": None if dim is None else check_count("dim", dim, least=1),
        "off_diagonal_mass": plain(off_diagonal_mass),
        "inputs": inputs,
        "backend": backend,
        "frozen": frozen,
        "options": {key: plain(value) for key, value in options.items()},
    }
    name, found = find_stack(model, stack)
    check_undivided(model)
    check_parent(model, found)
    conversion = convert(model, name, found, generator=generator, **given)
    holder, inside = place_of(model, found)
    if holder is not None:
        remember(model, holder, {"stack": inside, **given})
    return conversion


def plain(value: Any) -> Any:
    """Numbers of NumPy and PyTorch as Python's, which JSON can hold."""
    return value.tolist() if hasattr(value, "tolist") else value


def convert(
    model: nn.Module,
    name: str,
    stack: nn.ModuleList | nn.Sequential,
    mixer: str,
    d: int,
    *,
    options: Mapping[str, Any],
    whole_blocks: bool,
    dim: int | None,
    off_diagonal_mass: float,
    inputs: Literal["all", "mean"],
    backend: Backend,
    frozen: bool = False,
    generator: torch.Generator | None = None,
) -> Conversion:
    """Make all connections of a stack, which may fail, and only then put them in."""
    blocks = list(stack)
    if not blocks:
        raise ValueError(f"expected blocks in the stack {name!r}, got none")
    if len({id(block) for block in blocks}) < len(blocks):
        raise ValueError(f"expected each block of {name!r} once, got one twice")
    if whole_blocks != (dim is not None):
        raise ValueError(
            "expected dim, the C of the (..., C) that blocks map, with whole_blocks and only then, "
            f"got {whole_blocks=} and {dim=}"
        )
    branches = 1 if whole_blocks else 2
    holder, inside = place_of(model, stack)
    config = None if holder is None else holder.config
    mixers: dict[torch.device, Mixer] = {}
    prepared: list[Connections] = []
    places: list[str] = []
    names = {child: own for own, child in stack.named_children()}
    still = 0
    for block in blocks:
        place = f"{name}.{names[block]}".lstrip(".")
        check_block(place, block)
        layout = None
        if dim is None:
            layout = layout_of(place, block)
            width = width_of(place, block, layout)
            places += [f"{place}.{layout.layer}", f"{place}.mlp"]
        else:
            width = dim
            check_shape(place, block, dim)
            places.append(place)
        weight = sample_weight(block)
        if weight.device not in mixers:  # whatever buffers it has are where the streams are
            with torch.device("cpu"):
                mixers[weight.device] = make_mixer(mixer, d, **options)
        with precise():
            connections = [
                HyperConnection(
                    width,
                    run,
                    mixers[weight.device],
                    layer=len(prepared) * branches + part,
                    off_diagonal_mass=off_diagonal_mass,
                    inputs=inputs,
                    backend=backend,
                    keep_function=True,
                    generator=generator,
                )
                for part in range(branches)
            ]
        for connection in connections if frozen else ():
            connection.freeze_mixing()
            rows, width = connection.mixer.num_parameters, connection.weight.shape[1]
            still += rows * (width + 1) + 1
        place_in = inside or name, len(prepared), len(blocks)
        prepared.append(Connections(connections, *place_in, layout, config))
        prepared[-1].to(weight).train(block.training)
    for block, own in zip(blocks, prepared, strict=True):
        kind: Any = type(block)
        block.__class__ = streamed(kind)
        block.hyper_connections = own
    watch(model, prepared[0], prepared[-1])
    added = sum(weight.numel() for own in prepared for weight in own.parameters())
    return Conversion(name, mixer, d, tuple(places), added - still)


@contextmanager
def precise() -> Iterator[None]:
    """Make weights on the CPU and in float64, whatever loader of a model makes others elsewhere."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
