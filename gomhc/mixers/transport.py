"""TBP-mHC: the transportation chart of the whole polytope."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import TRANSPORT, Stage
from gomhc.mixers.base import Mixer, check_start, near_identity
from gomhc.transportation import inverse_transportation, transportation


class Transport(Mixer):
    """H_res filled entry by entry between what rows and columns leave. g = (d−1)².

    Exact, without iteration, and onto all doubly stochastic matrices without a zero, with as many
    numbers as they have dimensions. It is smooth but for kinks, takes (d−1)² steps one after the
    other, and is not symmetric: other names of the streams make another chart.

    Args:
        d: number of streams.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1.

    Source: TBP-mHC, arXiv 2605.21724, in its plain sequential form: `gomhc.transportation`.
    """

    exact = True

    def __init__(self, d: int) -> None:
        d = check_count("number of streams d", d, least=1)
        super().__init__(d, num_parameters=(d - 1) ** 2)

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return transportation(theta)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(TRANSPORT, self.d),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """The near-identity matrix that the other mixers start from; `generator` has no part.

        From d = 3 on it lies on kinks, as its shares are equal: there rounding decides which of two
        one-sided derivatives the first step follows.
        """
        check_start(generator, off_diagonal_mass)
        with torch.device("cpu"):  # the default may be "meta", which has no numbers
            start = near_identity(self.d, off_diagonal_mass, torch.float64)
            theta = inverse_transportation(start).tolist()
        return torch.tensor(theta)
