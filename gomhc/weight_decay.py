"""Which weights decay: those of the branches' matrices, not those of the connections."""

from typing import Any

from torch import Tensor, nn

from gomhc.hyper_connections import HyperConnection

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module, weight_decay: float, *, connections: bool = False
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, in which hyper-connections do not decay.

    Decay of their matrices pulls θ to the same b_res for all tokens, and with it the gates.

    Args:
        model: any module. What is not in a `HyperConnection`, such as offsets of the streams, is
            told by its dimensions alone.
        weight_decay: of tensors with two dimensions or more; those with fewer, such as biases and
            norms, have none.
        connections: whether the matrices of `HyperConnection` decay all the same.

    Returns:
        Two groups, with the parameters that decay and with those that do not, for
        `torch.optim.AdamW(groups, lr)`; parameters without a gradient are in neither.

    Raises:
        TypeError: if the model is no module, such as its parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module, got {type(model).__name__}")
    own = {
        id(weight)
        for module in model.modules()
        if isinstance(module, HyperConnection)
        for weight in module.parameters(recurse=False)
    }
    decays: list[Tensor] = []
    others: list[Tensor] = []
    for weight in model.parameters():
        if weight.requires_grad:
            spared = weight.ndim < 2 or (id(weight) in own and not connections)
            (others if spared else decays).append(weight)
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
