"""mHC-lite: a convex combination of all permutation matrices."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.fused.stages import PERMUTATIONS, Stage
from gomhc.maps import permutation_matrices
from gomhc.mixers.base import Mixer, check_start

LARGEST_D = 8
CHUNK = math.factorial(6)


class BirkhoffVonNeumann(Mixer):
    """H_res = Σ_k softmax(θ)_k P_k over all d! permutation matrices, identity first. g = d!.

    By the Birkhoff–von Neumann theorem these are the doubly stochastic matrices with positive
    weights on every permutation: the interior of the polytope, exact, at factorial cost.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1, or d > 8 (9! = 362,880 permutations and more).

    Source: mHC-lite, arXiv 2601.05732.
    """

    exact = True
    permutations: Tensor

    def __init__(self, d: int) -> None:
        d = check_count("number of streams d", d, least=1)
        if d > LARGEST_D:
            raise ValueError(
                f"expected d <= {LARGEST_D} for a sum over all permutations, got d = {d}, "
                f"which has {d}! = {math.factorial(d):,} permutations"
            )
        super().__init__(d, num_parameters=math.factorial(d))
        # Numbers also where the other weights have none yet, as `load_state_dict` will bring these.
        device = torch.get_default_device()
        table = self._table().to("cpu" if device.type == "meta" else device)
        # No buffer: `from_pretrained` of transformers empties what is not stored.
        self.permutations = table

    def _table(self) -> Tensor:
        # Added up in two steps: over 8! terms a float32 matmul on a CPU is off by up to 4e-5.
        chunk = min(self.num_parameters, CHUNK)
        with torch.device("cpu"):
            return permutation_matrices(self.d).reshape(-1, chunk, self.d**2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BirkhoffVonNeumann":
        """All that moves a module goes this way, and `to_empty` leaves the numbers behind."""
        super()._apply(fn, recurse)
        moved = fn(self.permutations)
        if not moved.is_meta:  # there it would lose its numbers, and `mix` takes them along
            self.permutations = self._table().to(moved)
        return self

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        # A softmax by hand: torch's own in float32 is off as much as a single sum would be.
        weights = (theta - theta.amax(-1, keepdim=True).detach()).exp()
        chunks = weights.unflatten(-1, self.permutations.shape[:2])
        mixed = torch.einsum("...km,kmj->...kj", chunks, self.permutations.to(theta)).sum(-2)
        return (mixed / weights.sum(-1, keepdim=True)).unflatten(-1, (self.d, self.d))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(PERMUTATIONS, self.d),)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """Logit 0 for the identity and one equal, lower logit for every other permutation.

        The authors' own start, 0 and −8, is this one at off-diagonal mass 0.006 for d = 4.
        """
        check_start(generator, off_diagonal_mass)
        theta = torch.zeros(self.num_parameters)
        others = self.num_parameters - 1
        if others:
            # A permutation drawn from the others moves this share of the rows.
            moved = (self.d - 1) / self.d * (others + 1) / others
            if off_diagonal_mass >= moved:
                raise ValueError(
                    f"expected off_diagonal_mass below {moved:.4g} for d = {self.d}, "
                    f"got {off_diagonal_mass}"
                )
            odds = off_diagonal_mass / (moved - off_diagonal_mass)
            theta[1:] = math.log(odds / others)
        return theta
