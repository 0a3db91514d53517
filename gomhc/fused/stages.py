"""What compiled code needs to know of a mixer: a Kronecker product of stages, mostly of one."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.maps import (
    block_frobenius,
    cayley,
    full_precision,
    kronecker,
    permutation_matrices,
    permutations,
    sinkhorn_knopp,
    skew_symmetric,
)
from gomhc.transportation import transportation

CAYLEY, PERMUTATIONS, SINKHORN, FREE, TRANSPORT = range(5)


class Stage(NamedTuple):
    """One factor of a Kronecker product.

    Attributes:
        kind: one of the constants above.
        size: order of its matrix.
        option: block size s of `CAYLEY`, 0 there for the orthogonal matrix itself; iterations of
            `SINKHORN`; else 0.
    """

    kind: int
    size: int
    option: int = 0

    @property
    def order(self) -> int:
        """Of the matrix that it works with: of `CAYLEY` the orthogonal one."""
        return self.size * max(self.option, 1) if self.kind == CAYLEY else self.size

    @property
    def num_parameters(self) -> int:
        """Size of its θ."""
        if self.kind == CAYLEY:
            return self.order * (self.order - 1) // 2
        if self.kind == PERMUTATIONS:
            return math.factorial(self.size)
        if self.kind == TRANSPORT:
            return (self.size - 1) ** 2
        return self.size**2


def check_stages(stages: Sequence[Stage], g: int, d: int) -> None:
    """Raise ValueError unless these stages make d×d matrices of g numbers: compiled code trusts it.

    A mixer whose attributes were changed after it was made may have others.
    """
    taken, order = 0, 1
    for stage in stages:  # a loop, as torch.compile cannot see through a sum over a generator
        taken += stage.num_parameters
        order *= stage.size
    if (taken, order) != (g, d):
        raise ValueError(
            f"expected stages that make matrices of order {d} of {g} numbers, got order {order} "
            f"of {taken}: was the mixer changed after it was made?"
        )


def order_of(stages: Sequence[Stage]) -> int:
    """Order d of the Kronecker product of all stages."""
    return math.prod(stage.size for stage in stages)


class Tables(NamedTuple):
    """Stages as arrays, for compiled code."""

    kind: np.ndarray  # (stages,)
    size: np.ndarray  # (stages,)
    option: np.ndarray  # (stages,)
    first: np.ndarray  # (stages + 1,), where the generators of each stage begin
    images: np.ndarray  # (stages, permutations, size): see `gomhc.maps.permutations`


@functools.lru_cache(maxsize=64)
def tables(stages: tuple[Stage, ...]) -> Tables:
    """Stages as arrays."""
    none = np.zeros((1, 1), int)
    each = [permutations(s.size) if s.kind == PERMUTATIONS else none for s in stages]
    shape = np.max([table.shape for table in each], axis=0)
    padded = np.zeros((len(each), *shape), np.int64)
    for row, table in zip(padded, each, strict=True):
        row[: table.shape[0], : table.shape[1]] = table
    kind, size, option = np.array(stages, np.int64).T.copy()
    first = np.cumsum([0, *(stage.num_parameters for stage in stages)])
    return Tables(kind, size, option, first, padded)


def reference(theta: Float[Tensor, "*batch g"], stages: Sequence[Stage]) -> Float[Tensor, "..."]:
    """The same map in PyTorch, to be differentiated as often as one likes; NaN for a bad θ."""
    parts = theta.split([stage.num_parameters for stage in stages], -1)
    with full_precision(theta):
        mixed = kronecker([_matrix(part, stage) for part, stage in zip(parts, stages, strict=True)])
    return mixed.where(theta.isfinite().all(-1)[..., None, None], math.nan)


def _matrix(theta: Tensor, stage: Stage) -> Tensor:
    if stage.kind == CAYLEY:
        Q = cayley(skew_symmetric(theta))
        return block_frobenius(Q, stage.option) if stage.option else Q
    if stage.kind == PERMUTATIONS:
        matrices = permutation_matrices(stage.size).to(theta)
        return torch.einsum("...k,kij->...ij", theta.softmax(-1), matrices)
    if stage.kind == TRANSPORT:
        return transportation(theta)
    square = theta.unflatten(-1, (stage.size, stage.size))
    return sinkhorn_knopp(square, stage.option) if stage.kind == SINKHORN else square
