"""JPmHC: rotations of the streams, without squares."""

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import CAYLEY, Stage
from gomhc.maps import cayley, skew_symmetric
from gomhc.mixers.base import Mixer, check_start


class Orthogonal(Mixer):
    """H_res = Cayley(skew(θ)) of order d: a rotation of the streams. g = d(d−1)/2.

    It keeps the lengths of all vectors, so that a composite of any depth has all its singular
    values at 1, but neither the mean of the streams nor their signs: it is not doubly stochastic.

    θ = 0 is a live start: H_res = I there, and dH_res = −2 skew(dθ). (Rotations are a manifold; of
    the Birkhoff polytope I is a vertex, where a smooth map into it has no derivative.)

    Args:
        d: number of streams.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1.

    Source: JPmHC, arXiv 2602.18308.
    """

    exact = False
    isometric = True

    def __init__(self, d: int) -> None:
        d = check_count("number of streams d", d, least=1)
        super().__init__(d, num_parameters=d * (d - 1) // 2)

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return cayley(skew_symmetric(theta))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(CAYLEY, self.d, 0),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """θ = 0, so that H_res is I itself; neither argument has a part in it."""
        check_start(generator, off_diagonal_mass)
        return torch.zeros(self.num_parameters)
