"""Hyper-Connections: any matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import FREE, Stage
from gomhc.mixers.base import Mixer, check_start, near_identity


class Unconstrained(Mixer):
    """H_res is θ itself, row by row, with no constraint. g = d².

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1.

    Source: Hyper-Connections, arXiv 2409.19606.
    """

    exact = False

    def __init__(self, d: int) -> None:
        d = check_count("number of streams d", d, least=1)
        super().__init__(d, num_parameters=d * d)

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return theta.unflatten(-1, (self.d, self.d))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(FREE, self.d),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """The near-identity matrix that the other mixers start from, entry by entry."""
        check_start(generator, off_diagonal_mass)
        return near_identity(self.d, off_diagonal_mass).flatten()
