"""The contract that every mixer keeps."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gomhc.checks import check_generator
from gomhc.fused import Backend, choose, fused, transformed
from gomhc.fused.stages import Stage, check_stages
from gomhc.maps import check_floating, full_precision, marginal_error


class Mixer(nn.Module, ABC):
    """A map θ ↦ H_res to stream-mixing matrices; it owns no trainable parameter.

    The same object serves a toy problem (θ is a Parameter), a layer (θ comes from the tokens) and
    an analysis (θ is sampled). A subclass sets what holds of it and writes `mix` and
    `initial_theta`.

    Attributes:
        d: number of streams.
        num_parameters: g, the size of θ.
        exact: whether H_res is doubly stochastic in real arithmetic for every θ.
        isometric: whether it keeps lengths, ‖H_res X‖ = ‖X‖, in real arithmetic for every θ: then
            all its singular values are 1, as are those of a composite.
        backend: "auto" takes the fused path where there is one, "reference" never does, and "fused"
            insists: see `make_mixer` and `backend_report`.

    As a parametrization of a square weight, `register_parametrization(layer, "weight", mixer)`
    starts the weight near the identity: a mixer has no inverse, so the old value is not kept.
    """

    d: int
    num_parameters: int
    exact: bool = False
    isometric: bool = False
    backend: Backend = "auto"

    if TYPE_CHECKING:

        def __call__(
            self, theta: Float[Tensor, "*batch g"], backend: Backend | None = None
        ) -> Float[Tensor, "*batch d d"]:
            """See `forward`; what torch's own annotation leaves open."""

    def __init_subclass__(cls) -> None:
        """Another map must not inherit the compiled form of the one that it replaces."""
        super().__init_subclass__()
        for base in cls.__mro__:
            own = vars(base).keys()
            if "stages" in own:
                return
            if {"mix", "forward"} & own:
                cls.stages = Mixer.stages  # type: ignore[method-assign]
                return

    # An instance may get another map as well, as libraries do that record or quantize activations.
    patched: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("mix", "forward"):
            self.patched = True
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if not {"mix", "forward"} & vars(self).keys():
            self.patched = False

    def __init__(self, d: int, num_parameters: int) -> None:
        super().__init__()
        self.d = d
        self.num_parameters = num_parameters

    @abstractmethod
    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        """Map a checked θ in float32 or wider to matrices."""

    @abstractmethod
    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        """Parameters θ whose matrix lies near I and whose gradient is not zero there.

        Args:
            generator: source of randomness for mixers with a random start.
            off_diagonal_mass: expected share of a row that lies off the diagonal, in (0, 1).

        Returns:
            (g,) in the default dtype, on the CPU.

        Raises:
            TypeError: if off_diagonal_mass is no number, or generator no torch.Generator.
            ValueError: if off_diagonal_mass is outside (0, 1).
        """

    def stages(self) -> tuple[Stage, ...] | None:
        """What compiled code needs to know of the class's map, as it is in `gomhc.fused.stages`.

        Returns:
            The factors of a Kronecker product, mostly one; None for a mixer without compiled code,
            as is every subclass with a `mix` of its own.
        """
        return None

    def forward(
        self, theta: Float[Tensor, "*batch g"], backend: Backend | None = None
    ) -> Float[Tensor, "*batch d d"]:
        """Mixing matrices for any batch of θ.

        Args:
            theta: (..., g), any real floating dtype.
            backend: for this call, before the mixer's own.

        Returns:
            H_res of shape (..., d, d) in float32, or float64 for a float64 θ, whatever autocast
            says. It acts on streams X (..., d, C) as `einsum('...ij,...jc->...ic', H_res, X)`.
            Where θ holds a NaN or an infinity, that element's matrix is NaN; on a GPU with compiled
            code also where an angle is beyond ±1e5 or logits of Sinkhorn are more than 600 apart.

        Raises:
            TypeError: if θ is not a tensor of a real floating dtype.
            ValueError: if the trailing size of θ is not g, `mix` gives another shape, or there is
                no such backend.
            RuntimeError: if `backend` is "fused" and that path cannot run here.
        """
        check_floating("theta", theta)
        if theta.ndim == 0 or theta.shape[-1] != self.num_parameters:
            raise ValueError(
                f"expected theta of shape (..., {self.num_parameters}) for "
                f"{type(self).__name__} with d = {self.d}, got {tuple(theta.shape)}"
            )
        stages = own_stages(self)
        tokens = math.prod(theta.shape[:-1])
        where = theta.dtype, theta.device.type, transformed(theta)
        choice = choose(self.backend if backend is None else backend, stages, tokens, *where)
        if stages is not None and choice.path == "fused":
            return fused(theta, stages)
        with full_precision(theta):
            wide = theta.to(torch.promote_types(theta.dtype, torch.float32))
            mixed = self.mix(wide)
        expected = (*theta.shape[:-1], self.d, self.d)
        if mixed.shape != expected:
            kind = type(self).__name__
            raise ValueError(f"expected {kind}.mix to give {expected}, got {tuple(mixed.shape)}")
        finite = theta.isfinite().all(-1)[..., None, None]
        return torch.where(finite, mixed, math.nan)

    def right_inverse(self, weight: Float[Tensor, "d d"]) -> Float[Tensor, " g"]:
        """A fresh start near I for `torch.nn.utils.parametrize`; `weight` gives device and dtype.

        Raises:
            ValueError: if the weight is not d×d.
        """
        if weight.shape != (self.d, self.d):
            raise ValueError(f"expected a {self.d}x{self.d} weight, got {tuple(weight.shape)}")
        return self.initial_theta().to(weight)

    @torch.no_grad()
    def marginal_error(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch"]:
        """How inexact the mixer is at θ: the largest deviation of a row or column sum from 1.

        Rounding error for an exact mixer; for `mhc` the error of the truncated iteration.
        """
        return marginal_error(self(theta))

    def extra_repr(self) -> str:
        """Sizes shown when the module is printed."""
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return f"d={self.d}, num_parameters={self.num_parameters}{chosen}"


def check_mixer(mixer: object) -> None:
    """Raise TypeError for what is no mixer, such as a mixer's name."""
    if not isinstance(mixer, Mixer):
        kind = type(mixer).__name__
        raise TypeError(f"expected a mixer, such as make_mixer('go-mhc', 4) makes; got {kind}")


def check_start(generator: torch.Generator | None, off_diagonal_mass: float) -> None:
    """Check what `Mixer.initial_theta` is given, also where it has no part: see there."""
    check_generator(generator)
    if not hasattr(off_diagonal_mass, "__float__"):
        raise TypeError(f"expected off_diagonal_mass as a number, got {off_diagonal_mass!r}")
    if not 0 < off_diagonal_mass < 1:
        raise ValueError(f"expected off_diagonal_mass in (0, 1), got {off_diagonal_mass}")


def own_stages(mixer: Mixer) -> tuple[Stage, ...] | None:
    """Its stages, checked; None if the instance has been given another `mix` or `forward`."""
    stages = None if mixer.patched else mixer.stages()
    if stages is not None:
        check_stages(stages, mixer.num_parameters, mixer.d)
    return stages


def near_identity(
    d: int, off_diagonal_mass: float, dtype: torch.dtype | None = None
) -> Float[Tensor, "d d"]:
    """Doubly stochastic matrix with the mass spread evenly off the diagonal (none for d = 1)."""
    if d == 1:
        return torch.ones(1, 1, dtype=dtype)
    share = off_diagonal_mass / (d - 1)
    matrix = torch.full((d, d), share, dtype=dtype)
    matrix.diagonal().fill_(1 - off_diagonal_mass)  # a difference of shares would round it away
    return matrix
