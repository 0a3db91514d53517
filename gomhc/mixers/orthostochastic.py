"""go-mHC: generalized orthostochastic matrices."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import CAYLEY, Stage
from gomhc.maps import block_frobenius, cayley, skew_symmetric
from gomhc.mixers.base import Mixer, check_start


class Orthostochastic(Mixer):
    """H_res = Φ_{d,s}(Cayley(skew(θ))): exact, O((ds)³), with s as the dial. g = ds(ds−1)/2.

    θ fills the strict upper triangle of a skew-symmetric matrix of order ds, row by row. At s = 1
    the reachable set has dimension d(d−1)/2; at s ≥ 2 it has the dimension (d−1)² of the Birkhoff
    polytope, and its closure over all s is the whole polytope.

    θ = 0 is a dead start: H_res = I there and the gradient is exactly 0.

    Args:
        d: number of streams.
        s: block size.

    Raises:
        TypeError: if d or s is no integer.
        ValueError: if d < 1 or s < 1.

    Source: go-mHC, arXiv 2604.02309.
    """

    exact = True

    def __init__(self, d: int, s: int = 2) -> None:
        d = check_count("number of streams d", d, least=1)
        s = check_count("block size s", s, least=1)
        n = d * s
        super().__init__(d, num_parameters=n * (n - 1) // 2)
        self.s = s

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return block_frobenius(cayley(skew_symmetric(theta)), self.s)

    def stages(self) -> tuple[Stage, ...]:
        if self.s < 1:  # to a stage it says that squares are not taken
            raise ValueError(f"expected s >= 1, got {self.s}")
        return (Stage(CAYLEY, self.d, self.s),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """θ ~ N(0, σ²) with σ² = μ / (4s(d−1)), so that a row's off-diagonal mass averages μ.

        The relation is the second-order expansion of B at θ = 0. It holds for small μ; at d = 4,
        s = 2 a mass of 0.1 asked for gives 0.09, and 0.3 gives 0.23.
        """
        check_start(generator, off_diagonal_mass)
        sigma = math.sqrt(off_diagonal_mass / (4 * self.s * max(self.d - 1, 1)))
        return sigma * torch.randn(self.num_parameters, generator=generator)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, s={self.s}"
