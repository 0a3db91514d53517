"""mHC: Sinkhorn–Knopp scaling of a positive matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count, check_epsilon
from gomhc.fused.stages import SINKHORN, Stage
from gomhc.maps import sinkhorn_knopp
from gomhc.mixers.base import Mixer, check_start, near_identity


class Sinkhorn(Mixer):
    """H_res = Sinkhorn–Knopp of exp(θ) after finitely many iterations. g = d².

    Only approximately doubly stochastic: rows sum to 1 to rounding, and `marginal_error` says how
    far the columns are off. With an eps rows sum to a little less, and there is no compiled code.

    Args:
        d: number of streams.
        iterations: column-and-row rescalings; 20 in the paper.
        eps: added to the first softmax and to every sum that divides, as in `sinkhorn_knopp`; 1e-6
            in DeepSeek-V4.

    Raises:
        TypeError: if d or iterations is no integer, or eps no number.
        ValueError: if d < 1, iterations < 1 or eps is negative.

    Source: mHC, arXiv 2512.24880.
    """

    exact = False

    def __init__(self, d: int, iterations: int = 20, eps: float = 0.0) -> None:
        d = check_count("number of streams d", d, least=1)
        iterations = check_count("number of iterations", iterations, least=1)
        super().__init__(d, num_parameters=d * d)
        self.iterations, self.eps = iterations, check_epsilon("eps", eps)

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return sinkhorn_knopp(theta.unflatten(-1, (self.d, self.d)), self.iterations, self.eps)

    def stages(self) -> tuple[Stage, ...] | None:
        if self.iterations < 1:
            raise ValueError(f"expected iterations >= 1, got {self.iterations}")
        return None if self.eps else (Stage(SINKHORN, self.d, self.iterations),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """Logarithms of the near-identity matrix, which the iteration leaves as it is."""
        check_start(generator, off_diagonal_mass)
        logits = near_identity(self.d, off_diagonal_mass, torch.float64).log().flatten()
        return logits.to(torch.get_default_dtype())

    def extra_repr(self) -> str:
        eps = f", eps={self.eps}" if self.eps else ""
        return f"{super().extra_repr()}, iterations={self.iterations}{eps}"
