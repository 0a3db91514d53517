"""KromHC and kron-go: Kronecker products of smaller mixers."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gomhc.checks import check_count
from gomhc.fused import Backend
from gomhc.fused.stages import Stage
from gomhc.maps import kronecker
from gomhc.mixers.base import Mixer, check_mixer, check_start, own_stages
from gomhc.mixers.birkhoff_von_neumann import BirkhoffVonNeumann
from gomhc.mixers.orthostochastic import Orthostochastic


class Kronecker(Mixer):
    """H_res = ⊗_k factor_k(θ_k), where θ is the concatenation of the factors' own.

    A product of doubly stochastic factors is doubly stochastic, so it is exact when they all are.

    Args:
        factors: at least one mixer; the first is outermost.

    Raises:
        TypeError: if a factor is no mixer.
        ValueError: if there is no factor, or factors ask for different backends.

    Attributes:
        backend: as of any mixer; while it is "auto", the one that factors ask for.
    """

    _backend: Backend = "auto"

    def __init__(self, factors: Iterable[Mixer]) -> None:
        factors = list(factors)
        if not factors:
            raise ValueError("expected at least one factor, got none")
        for factor in factors:
            check_mixer(factor)
        super().__init__(
            d=math.prod(factor.d for factor in factors),
            num_parameters=sum(factor.num_parameters for factor in factors),
        )
        self.exact = all(factor.exact for factor in factors)
        self.isometric = all(factor.isometric for factor in factors)
        self._factors = nn.ModuleList(factors)
        _ = self.backend  # raises where the factors contradict each other

    @property
    def backend(self) -> Backend:
        """Its own, or where that is "auto" its factors'."""
        asked = {factor.backend for factor in self.factors if factor.backend != "auto"}
        if self._backend != "auto" or not asked:
            return self._backend
        if len(asked) > 1:
            raise ValueError(f"expected factors of one backend, got {', '.join(sorted(asked))}")
        return asked.pop()

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def factors(self) -> list[Mixer]:
        """The factors, outermost first."""
        return [factor for factor in self._factors if isinstance(factor, Mixer)]

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        parts = theta.split([factor.num_parameters for factor in self.factors], -1)
        mixed = [factor.mix(part) for factor, part in zip(self.factors, parts, strict=True)]
        return kronecker(mixed)

    def stages(self) -> tuple[Stage, ...] | None:
        parts = [own_stages(factor) for factor in self.factors]
        known = [part for part in parts if part is not None]
        whole = len(known) == len(parts)
        return tuple([stage for part in known for stage in part]) if whole else None

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """Every factor's own start, the mass shared so that the product has the mass asked for."""
        check_start(generator, off_diagonal_mass)
        mixing = sum(factor.d > 1 for factor in self.factors)
        # The diagonal of a product is the product of diagonals: 1 − μ = (1 − share)^mixing.
        share = -math.expm1(math.log1p(-off_diagonal_mass) / max(mixing, 1))
        return torch.cat([factor.initial_theta(generator, share) for factor in self.factors])


def kromhc(d: int, factors: Iterable[int] | None = None) -> Kronecker:
    """KromHC: a Kronecker product of small Birkhoff–von Neumann factors. g = Σ i_k!.

    Args:
        d: number of streams.
        factors: sizes i_k with Π i_k = d, each at most 8; 2, 2, … as published if not given.

    Raises:
        TypeError: if d or a factor is no integer.
        ValueError: if d is no power of two and no factors are given, or their product is not d.

    Source: KromHC, arXiv 2601.21579.
    """
    d = check_count("number of streams d", d, least=1)
    if factors is None:
        if d & (d - 1):
            raise ValueError(
                "kromhc as published multiplies 2x2 factors: expected d a power of two, or "
                f"factors=(i_1, i_2, …) with product d; got d = {d} and no factors"
            )
        factors = (2,) * (d.bit_length() - 1) or (1,)
    sizes = checked_factors("kromhc", d, factors)
    return Kronecker([BirkhoffVonNeumann(size) for size in sizes])


def kron_go(d: int, factors: Iterable[int] | None = None, s: int = 2) -> Kronecker:
    """kron-go: a Kronecker product of go-mHC factors, all with block size s.

    Args:
        d: number of streams.
        factors: sizes d_k with Π d_k = d; the two most nearly equal ones if not given.
        s: block size of every factor.

    Raises:
        TypeError: if d, a factor or s is no integer.
        ValueError: if d is prime and no factors are given, their product is not d, or s < 1.

    Source: claimed in go-mHC, arXiv 2604.02309; there is no public code.
    """
    d = check_count("number of streams d", d, least=1)
    if factors is None:
        small = next(k for k in range(math.isqrt(d), 0, -1) if d % k == 0)
        if small == 1 and d > 1:
            raise ValueError(
                f"kron-go multiplies smaller factors: expected d with divisors, or factors=(…) "
                f"with product d; got the prime d = {d} and no factors"
            )
        factors = (small, d // small)
    sizes = checked_factors("kron-go", d, factors)
    return Kronecker([Orthostochastic(size, s) for size in sizes])


def checked_factors(name: str, d: int, factors: Iterable[int]) -> list[int]:
    """Sizes of a product's factors as ints; ValueError unless they multiply to d."""
    if not isinstance(factors, Iterable):
        raise ValueError(f"{name}: expected factors as a sequence of sizes, got {factors!r}")
    sizes = [check_count(f"{name} factor", size, least=1) for size in factors]
    if math.prod(sizes) != d:
        raise ValueError(
            f"{name}: expected factors with product d = {d}, got {tuple(sizes)} "
            f"with product {math.prod(sizes)}"
        )
    return sizes
