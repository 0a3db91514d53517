"""Streams that never mix."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.mixers.base import Mixer, check_start


class Identity(Mixer):
    """H_res = I: the streams stay apart (iHC in the ablations of 2026). g = 0.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1.
    """

    exact = True
    isometric = True

    def __init__(self, d: int) -> None:
        d = check_count("number of streams d", d, least=1)
        super().__init__(d, num_parameters=0)

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        eye = torch.eye(self.d, dtype=theta.dtype, device=theta.device)
        return eye.expand(*theta.shape[:-1], self.d, self.d)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """The empty generator: there is nothing to start."""
        check_start(generator, off_diagonal_mass)
        return torch.zeros(0)
