"""mHC: Sinkhorn–Knopp scaling of a positive matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import SINKHORN, Stage
from gomhc.maps import sinkhorn_knopp
from gomhc.mixers.base import Mixer, check_start, near_identity


class Sinkhorn(Mixer):
    """H_res = Sinkhorn–Knopp of exp(θ) after finitely many iterations. g = d².

    Only approximately doubly stochastic: rows sum to 1 to rounding, and `marginal_error` says how
    far the columns are off.

    Args:
        d: number of streams.
        iterations: column-and-row rescalings; 20 in the paper.

    Raises:
        TypeError: if d or iterations is no integer.
        ValueError: if d < 1 or iterations < 1.

    Source: mHC, arXiv 2512.24880.
    """

    exact = False

    def __init__(self, d: int, iterations: int = 20) -> None:
        d = check_count("number of streams d", d, least=1)
        iterations = check_count("number of iterations", iterations, least=1)
        super().__init__(d, num_parameters=d * d)
        self.iterations = iterations

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return sinkhorn_knopp(theta.unflatten(-1, (self.d, self.d)), self.iterations)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(SINKHORN, self.d, self.iterations),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """Logarithms of the near-identity matrix, which the iteration leaves as it is."""
        check_start(generator, off_diagonal_mass)
        return near_identity(self.d, off_diagonal_mass).log().flatten()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, iterations={self.iterations}"
