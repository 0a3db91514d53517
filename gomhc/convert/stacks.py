"""The stack of blocks to convert, and what is refused before anything is changed."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gomhc.convert.blocks import Streamed
from gomhc.convert.layouts import WHOLE, Layout, children, described, known_layout, prove

SHARED = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}  # not imported


def find_stack(
    model: nn.Module, stack: str | nn.Module | None
) -> tuple[str, nn.ModuleList | nn.Sequential]:
    """A stack and its name in the model; what is given may be its name in the model's base.

    Raises:
        TypeError: if the model or the stack is none.
        ValueError: if the model has no such stack, or several and none is named.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model to convert, got {type(model).__name__}")
    names = {id(module): name for name, module in model.named_modules()}
    if stack is None:
        stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
        fit = [m for m in stacks if len(m) and all(known_layout(block) for block in m)]
        if len(fit) > 1:
            raise ValueError(
                "expected the name of a stack, as there are several: "
                + ", ".join(names[id(module)] for module in fit)
            )
        if not fit:
            kind = type(model).__name__
            if any(isinstance(module, Streamed) for module in model.modules()):
                raise ValueError(f"expected {kind} without streams, but it already has some")
            alike = [m for m in stacks if len(m) > 1 and len({type(block) for block in m}) == 1]
            others = [f"{names[id(m)]} of {type(m[0]).__name__}s" for m in alike[:3]]
            raise ValueError(
                f"expected a stack of blocks with the children {described()}; {kind} has none. "
                "stack= names any other, with whole_blocks=True and dim="
                + f": {', '.join(others)}"
                * bool(others)
            )
        stack = fit[0]
    elif isinstance(stack, str):
        prefix = getattr(model, "base_model_prefix", "")
        modules = dict(model.named_modules())
        near = [name for name in (stack, f"{prefix}.{stack}") if name in modules]
        if not near:
            raise ValueError(f"expected a stack of {type(model).__name__}, which has no {stack!r}")
        stack = modules[near[0]]
    if not isinstance(stack, nn.ModuleList | nn.Sequential):
        kind = type(stack).__name__
        raise TypeError(f"expected a ModuleList or Sequential as the stack, got {kind}")
    if id(stack) not in names:
        raise ValueError(f"expected a stack of {type(model).__name__}, got one that it has not")
    return names[id(stack)], stack


def check_undivided(model: nn.Module) -> None:
    """Refuse a model that several processes share already, which would train streams apart.

    Raises:
        ValueError: if it is or has one of DDP or FSDP, or weights of which each has a part.
    """
    for name, module in model.named_modules():
        kind = SHARED.intersection(base.__name__ for base in type(module).__mro__)
        divided = any(hasattr(weight, "full_tensor") for weight in module.parameters(recurse=False))
        if kind or divided:
            raise ValueError(
                f"expected a model before it is handed to DDP or FSDP, but {name or 'it'} is "
                f"{f'a {min(kind)}' if kind else 'sharded'}; add streams first"
            )


def layout_of(place: str, block: nn.Module) -> Layout:
    """The layout of a block, proven.

    Raises:
        ValueError: if it has none.
    """
    layout = known_layout(block)
    if layout is None:
        own = ", ".join(sorted(children(block))) or "none"
        raise ValueError(
            f"expected a block with the children {described()}; {place} ({type(block).__name__}) "
            f"has {own}. {WHOLE}"
        )
    prove(place, block, layout)
    return layout


def check_block(place: str, block: nn.Module) -> None:
    """Refuse a block whose class cannot be changed, or was.

    Raises:
        ValueError: if it has streams, or weights of their name, or a forward of its own, or
            parametrizations, which change the class too.
    """
    kind = type(block).__name__
    if isinstance(block, Streamed):
        raise ValueError(f"expected a stack without streams, but {place} already has some")
    if hasattr(block, "hyper_connections"):
        raise ValueError(f"expected no attribute hyper_connections in {place} ({kind})")
    if "forward" in vars(block) or isinstance(block, torch.jit.ScriptModule):
        raise ValueError(
            f"expected {place} ({kind}) with the forward of its class; convert a model before it "
            "is scripted, or spread over devices"
        )
    if is_parametrized(block):
        raise ValueError(f"expected {place} ({kind}) without parametrizations of its own weights")


def check_shape(place: str, block: nn.Module, dim: int) -> None:
    """Run a copy without numbers; a block that needs more than a stream is seen when it is called.

    Raises:
        ValueError: if it changes the shape of a stream.
    """
    try:
        trial = copy.deepcopy(block).to("meta")
        for module in trial.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                hooks.clear()
        stream = torch.empty(2, 3, dim, dtype=sample_weight(block).dtype, device="meta")
        with torch.no_grad():
            answer = trial(stream)
    except Exception:
        return
    stream = answer[0] if isinstance(answer, tuple) and answer else answer
    got = tuple(stream.shape) if isinstance(stream, Tensor) else type(stream).__name__
    if got != (2, 3, dim):
        raise ValueError(
            f"expected blocks that return a stream (2, 3, {dim}) as they get it, but {place} "
            f"({type(block).__name__}) returned {got}"
        )


def sample_weight(block: nn.Module) -> Tensor:
    """A tensor with the dtype and device of the block's streams: a matrix, as norms may be wider.

    What has 8 bits or fewer is stored so, and not computed with.
    """
    weights = (w for w in block.parameters() if w.is_floating_point() and w.itemsize > 1)
    return min(weights, key=lambda weight: weight.ndim < 2, default=torch.empty(0))


def width_of(place: str, block: nn.Module, layout: Layout) -> int:
    """C, as a norm of the attention's branch tells it.

    Raises:
        ValueError: if none does.
    """
    for name in layout.attention:
        norm = getattr(block, name)
        weight = getattr(norm, "weight", None)
        shape = weight.shape if weight is not None else getattr(norm, "normalized_shape", ())
        if len(shape) == 1:
            return int(next(iter(shape)))
    raise ValueError(f"expected a norm with a weight or a normalized_shape in {place}, got none")
