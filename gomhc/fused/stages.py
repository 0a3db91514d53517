"""What compiled code needs to know of a mixer: a Kronecker product of stages, mostly of one."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.maps import (
    block_frobenius,
    cayley,
    kronecker,
    permutation_matrices,
    sinkhorn_knopp,
    skew_symmetric,
)

CAYLEY, PERMUTATIONS, SINKHORN, FREE = range(4)


class Stage(NamedTuple):
    """One factor of a Kronecker product.

    Attributes:
        kind: one of the constants above.
        size: order of its matrix.
        option: block size s of `CAYLEY`, iterations of `SINKHORN`; else 0.
    """

    kind: int
    size: int
    option: int = 0

    @property
    def num_parameters(self) -> int:
        """Size of its θ."""
        if self.kind == CAYLEY:
            n = self.size * self.option
            return n * (n - 1) // 2
        if self.kind == PERMUTATIONS:
            return len(images(self.size))
        return self.size**2


@functools.cache
def images(d: int) -> np.ndarray:
    """(d!, d): the column of the one in each row, for all permutations, the identity first."""
    return np.array(list(itertools.permutations(range(d))))


def reference(theta: Float[Tensor, "*batch g"], stages: Sequence[Stage]) -> Float[Tensor, "..."]:
    """The same map in PyTorch, to be differentiated as often as one likes."""
    parts = theta.split([stage.num_parameters for stage in stages], -1)
    return kronecker([_matrix(part, stage) for part, stage in zip(parts, stages, strict=True)])


def _matrix(theta: Tensor, stage: Stage) -> Tensor:
    if stage.kind == CAYLEY:
        return block_frobenius(cayley(skew_symmetric(theta)), stage.option)
    if stage.kind == PERMUTATIONS:
        matrices = permutation_matrices(stage.size).to(theta)
        return torch.einsum("...k,kij->...ij", theta.softmax(-1), matrices)
    square = theta.unflatten(-1, (stage.size, stage.size))
    return sinkhorn_knopp(square, stage.option) if stage.kind == SINKHORN else square
