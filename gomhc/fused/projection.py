"""x'W of a layer and the derivatives around W: matrix products of PyTorch's, on any device."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def _as_it_is(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast, which is a few microseconds to switch off."""
    device = x.device.type
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def inner(X: Tensor, weight: Tensor) -> Tensor:
    """(tokens, columns of W): the streams side by side, or their mean."""
    with _as_it_is(X):
        return X.flatten(1) if weight.shape[1] == X.shape[1] * X.shape[2] else X.mean(1)


def project(x: Tensor, weight: Tensor, narrow: torch.dtype) -> Tensor:
    """What `inner` gives times Wᵀ, in the narrow dtype."""
    with _as_it_is(x):
        return x.to(narrow) @ weight.detach().to(narrow).mT


def project_backward(
    X: Tensor,
    weight: Tensor,
    by_products: Tensor,
    by_inner: Tensor,
    by_X: Tensor,
    narrow: torch.dtype,
) -> Tensor:
    """The derivative by W; what comes through W is added to `by_X`.

    Args:
        X: (tokens, d, C).
        weight: (g + 2d, columns).
        by_products: (tokens, g + 2d), the derivative by x'W without its norm.
        by_inner: (tokens,), that by the norm, a factor of x; `by_X` has it already for streams side
            by side.
        by_X: (tokens, d, C), changed in place.
        narrow: dtype of the products.
    """
    with _as_it_is(X):
        x, rows, W = inner(X, weight), by_products.to(narrow), weight.detach().to(narrow)
        by_weight = (rows.mT @ x.to(narrow)).to(weight.dtype)
        if x.shape[1] != X.shape[1] * X.shape[2]:
            by_X += ((by_inner[:, None] * x + rows @ W) / X.shape[1])[:, None]
        elif narrow == X.dtype:
            by_X.flatten(1).addmm_(rows, W)
        else:
            by_X.flatten(1).add_(rows @ W)
    return by_weight
