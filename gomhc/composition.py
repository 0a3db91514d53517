"""What a stack of mixers does to the streams: products of mixing matrices and their gains."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.maps import check_square, full_precision

__all__ = ["Gain", "composites", "composite_gain", "smallest_singular_value"]


def composites(H: Float[Tensor, "*batch depth d d"]) -> Float[Tensor, "*batch depth d d"]:
    """Running products of mixing matrices, layer after layer: H_1, H_2 H_1, H_3 H_2 H_1, ….

    Args:
        H: (..., depth, d, d), the first layer first.

    Returns:
        (..., depth, d, d); entry l is the map from the streams that enter the network to those
        that leave layer l + 1, as far as the mixers alone carry them; in H's dtype, also under
        autocast.

    Raises:
        ValueError: if H is not (..., depth, d, d) with depth >= 1.
    """
    if H.ndim < 3 or H.shape[-1] != H.shape[-2] or not H.shape[-3]:
        raise ValueError(f"expected (..., depth >= 1, d, d), got shape {tuple(H.shape)}")
    products = [H[..., 0, :, :]]
    with full_precision(H):
        for layer in H.unbind(-3)[1:]:
            products.append(layer @ products[-1])
    return torch.stack(products, -3)


class Gain(NamedTuple):
    """Largest absolute row sum (forward signal) and column sum (backward gradient)."""

    forward: Float[Tensor, "*batch"]
    backward: Float[Tensor, "*batch"]


def composite_gain(C: Float[Tensor, "*batch d d"]) -> Gain:
    """How much a composite can amplify the streams forward and the gradients backward.

    Both are 1 at any depth for a product of doubly stochastic matrices.

    Args:
        C: (..., d, d), from `composites`.

    Returns:
        Gain, each part (...).

    Raises:
        ValueError: if C is not square.

    Source: the "Amax gain magnitude" of mHC, arXiv 2512.24880.
    """
    check_square(C)
    return Gain(C.abs().sum(-1).amax(-1), C.abs().sum(-2).amax(-1))


def smallest_singular_value(C: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """σ_min of a composite: what is left of the difference between streams that fades most.

    A doubly stochastic matrix has σ_max = 1 (the mean of the streams is kept); where σ_min = 0
    some difference between the streams is lost for good.

    Args:
        C: (..., d, d).

    Returns:
        (...), at least 0; NaN where C is not finite.

    Raises:
        ValueError: if C is not square.
    """
    check_square(C)
    finite = C.isfinite().all(-1).all(-1)
    # One bad element must not raise for the whole batch.
    clean = torch.where(finite[..., None, None], C, 0)
    return torch.where(finite, torch.linalg.svdvals(clean)[..., -1], math.nan)
