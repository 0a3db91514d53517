"""Which weights decay: those of the branches' matrices, not those of the connections."""

from typing import Any

from torch import Tensor, nn

from gomhc.checks import check_epsilon
from gomhc.hyper_connections import HyperConnection

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module, weight_decay: float, *, connections: bool = False
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, in which hyper-connections do not decay.

    Decay of their matrices pulls θ to the same b_res for all tokens, and with it the gates.

    Args:
        model: any module. Other parameters, such as offsets of the streams, decay if they have two
            dimensions or more.
        weight_decay: at least 0; of tensors with two dimensions or more. Those with fewer, such as
            biases and norms, have none.
        connections: whether the matrices of `HyperConnection` decay all the same.

    Returns:
        Two groups, with the parameters that decay and with those that do not, for
        `torch.optim.AdamW(groups, lr)`; parameters without a gradient are in neither.

    Raises:
        TypeError: if the model is no module, such as its parameters, or the decay no number.
        ValueError: if the decay is negative or not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module, got {type(model).__name__}")
    weight_decay = check_epsilon("weight_decay", weight_decay)
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
