"""Whether a model runs its stack as streams need it: from the first block to the last."""

import functools
import inspect
from typing import Any

from torch import nn

from gomhc.convert.blocks import Connections


def check_parent(model: nn.Module, stack: nn.Module) -> None:
    """Refuse what is known to use the states between blocks, or to pack them.

    Raises:
        ValueError: if the stack's parent adds visual features to them, or makes nested tensors.
    """
    for parent in model.modules():
        if all(child is not stack for child in parent.children()):
            continue
        kind = type(parent).__name__
        if any(
            name.startswith("deepstack") for name in inspect.signature(parent.forward).parameters
        ):
            raise ValueError(
                f"expected a model that leaves alone what goes from block to block, but {kind} "
                "adds visual features to it"
            )
        if isinstance(parent, nn.TransformerEncoder) and parent.use_nested_tensor:
            raise ValueError(
                f"expected a {kind} that makes no nested tensors, which have no place for streams; "
                "set its use_nested_tensor to False first"
            )


def watch(model: nn.Module, first: Connections, last: Connections) -> None:
    """See at every call of a model that its streams are made, and become one again."""
    model.register_forward_pre_hook(functools.partial(_begin, first, last))
    model.register_forward_hook(functools.partial(_end, first, last))


def unwatch(model: nn.Module, connections: set[Connections]) -> None:
    """Take out the hooks of `watch`, wherever in the model they are."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if not isinstance(hook, functools.partial) or hook.func not in (_begin, _end):
                    continue
                if hook.args[0] in connections:
                    del hooks[key]


def _begin(first: Connections, last: Connections, model: nn.Module, arguments: Any) -> None:
    first.here.ran = last.here.ran = False


def _end(
    first: Connections, last: Connections, model: nn.Module, arguments: Any, answer: Any
) -> None:
    if first.here.ran != last.here.ran:
        raise ValueError(
            f"expected {type(model).__name__} to run its stack from the first block, which makes "
            f"{first.d} streams, to the last, which makes one of them, but it left out the "
            f"{'last' if first.here.ran else 'first'}"
        )
