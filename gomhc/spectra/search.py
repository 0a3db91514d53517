"""How much of a region the eigenvalues of a mixer reach: a search, target by target.

Note [Defective matrices]
    Where two eigenvalues meet without two eigenvectors, an eigenvalue has no derivative: the
    gradient is infinite or NaN there and very large nearby. `search_spectrum` skips the step of an
    element whose gradient is not finite; its moments stay as they are. As the same θ would give the
    same gradient again, it is moved by a random 1e-6 instead.

Note [Stuck on the real axis]
    A simple real eigenvalue of a real matrix stays real under small changes. Where the nearest
    eigenvalue is real, `|λ − target|²` therefore pulls it below the target on the real axis and
    holds it there: a local minimum that has nothing to do with what the mixer can make. Half and
    more of the searches that we looked at, from random starts at d = 3 and 4, end so. A handover
    mends it: searches that have not arrived go on from the generator with which some other search
    came nearest to their target. That way what is reached grows outwards from where it began,
    through matrices with complex eigenvalues.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from gomhc.adam import Adam
from gomhc.checks import check_count, check_generator
from gomhc.maps import check_floating, check_square
from gomhc.mixers import Mixer
from gomhc.mixers.base import check_mixer
from gomhc.spectra.regions import CELLS, HALF_CELL, Region, perfect_mirsky, spectral_grid

__all__ = ["Visits", "coverage", "eigenvalues", "search_spectrum"]

# One budget for every mixer: enough for the shares to be within 0.005 of those of twice as much.
EQUAL = {"learning_rate": 0.05, "steps": 250, "handovers": 10, "stop": HALF_CELL / 5}
REAL = 1e-6  # double eigenvalues come out with imaginary parts near the root of the rounding


def eigenvalues(B: Float[Tensor, "*batch d d"]) -> Complex[Tensor, "*batch d"]:
    """Eigenvalues of a batch of matrices, in no particular order.

    Differentiable where the eigenvalues are distinct; the gradient is not finite at a defective
    matrix (Note [Defective matrices] in this module).

    Args:
        B: (..., d, d), float32 or float64.

    Returns:
        (..., d), complex; NaN where B is not finite.

    Raises:
        TypeError: if B is not a tensor of a real floating dtype.
        ValueError: if B is not square.
    """
    check_floating("B", B)
    check_square(B)
    finite = B.isfinite().all(-1).all(-1)
    # One bad element must not raise for the whole batch.
    clean = torch.where(finite[..., None, None], B, 0)
    return torch.where(finite[..., None], torch.linalg.eigvals(clean), complex(math.nan, math.nan))


class Visits(NamedTuple):
    """Where the eigenvalues of a search went.

    Attributes:
        counts: eigenvalues seen in each cell of `spectral_grid()`.
        closest: how near an eigenvalue came to the centre of the cell it lay in, as the larger of
            the differences in real and imaginary part; infinite where a cell saw none.
        total: all eigenvalues seen, those outside the grid included.
        real: how many of them were real, to 1e-6.
        distance: for each target, how near an eigenvalue of its own search came to it.
        theta: the generator where it did.
    """

    counts: Int[Tensor, "101 101"]
    closest: Float[Tensor, "101 101"]
    total: int
    real: int
    distance: Float[Tensor, " targets"]
    theta: Float[Tensor, "targets g"]

    def share(self, region: Region, tolerance: float = HALF_CELL) -> float:
        """The share of a region's cells whose centre an eigenvalue came within a tolerance of.

        Args:
            region: its cells are those of `spectral_grid()` with their centre in it.
            tolerance: largest difference in real and in imaginary part. The default, half a cell,
                counts the cells that were visited at all.

        Raises:
            ValueError: if the tolerance is not in (0, half a cell]: a cell knows nothing of
                eigenvalues outside it; or if no centre lies in the region, as for d = 1.
        """
        if not 0 < tolerance <= HALF_CELL:
            raise ValueError(f"expected a tolerance in (0, {HALF_CELL:.4f}], got {tolerance}")
        inside = torch.as_tensor(region.contains(spectral_grid()), device=self.closest.device)
        if not inside.any():
            raise ValueError(f"expected a region with cells, got that of d = {region.d}")
        # Half a cell is the largest distance there is, up to rounding.
        return (self.closest[inside] <= tolerance * (1 + 1e-12)).double().mean().item()


@torch.inference_mode(False)  # a search takes gradients, wherever it is called
@torch.enable_grad()
def search_spectrum(
    mixer: Mixer,
    targets: Complex[Tensor, " targets"],
    *,
    learning_rate: float = 0.1,
    steps: int = 250,
    start: Float[Tensor, "targets g"] | None = None,
    generator: torch.Generator | None = None,
    epsilon: float = 1e-8,
    stop: float = 0.0,
    handovers: int = 0,
) -> Visits:
    """Move an eigenvalue of the mixer to each target by Adam, and count all eigenvalues on the way.

    One independent search a target, all at once: minimise `|λ − target|²` over θ, where λ is the
    eigenvalue that is nearest at the time. The gradient is that of a simple eigenvalue, from its
    left and right eigenvectors; where it is not finite the step is skipped (Note [Defective
    matrices] in this module).

    Args:
        mixer: any mixer; one without parameters is looked at once.
        targets: (targets,), complex. Spectra of real matrices are symmetric about the real axis,
            so targets in the upper half plane are enough. The work is done on their device.
        learning_rate: Adam's.
        steps: Adam's steps.
        start: generators to start from, one a target; θ ~ N(0, 1) if not given.
        generator: source of randomness (CPU).
        epsilon: Adam's; a loss divided by N is the same as an epsilon multiplied by N.
        stop: a search ends early once its eigenvalue is this near to its target.
        handovers: how often, evenly spread over the steps, the searches that have not ended go on
            from the generator with which any search came nearest to their target, with fresh
            moments (Note [Stuck on the real axis] in this module). 0 is the release's search.

    Returns:
        Visits, in float64.

    Raises:
        TypeError: if it is not a mixer, targets or start is no tensor, steps or handovers no
            integer, or generator no torch.Generator.
        ValueError: if targets or start have the wrong shape or are not finite, steps < 0,
            learning_rate or epsilon is not positive and finite, stop < 0, or handovers is negative
            or not below steps.

    Source: the search of the go-mHC release, toy_models/spectra.ipynb.
    """
    check_mixer(mixer)
    check_generator(generator)
    if not isinstance(targets, Tensor) or not isinstance(start, Tensor | None):
        raise TypeError(
            "expected targets as a tensor, start as one or None; got "
            f"{type(targets).__name__} and {type(start).__name__}"
        )
    steps, handovers = check_count("steps", steps), check_count("handovers", handovers)
    count, g = len(targets) if targets.ndim else 0, mixer.num_parameters
    if targets.ndim != 1 or not targets.isfinite().all():
        bad = int((~targets.isfinite()).sum())
        shape = tuple(targets.shape)
        raise ValueError(
            f"expected finite targets (count,), got shape {shape}, {bad} of them not finite"
        )
    if not (0 < learning_rate < math.inf and 0 < epsilon < math.inf and stop >= 0):
        raise ValueError(
            "expected finite learning_rate, epsilon > 0 and stop >= 0; "
            f"got {learning_rate=}, {epsilon=}, {stop=}"
        )
    if handovers >= max(steps, 1):  # each takes the place of a step
        raise ValueError(f"expected fewer handovers than steps, got {handovers=}, {steps=}")
    if start is None:
        start = torch.randn(count, g, generator=generator, dtype=torch.float64)
    if start.shape != (count, g) or not start.isfinite().all():
        raise ValueError(f"expected finite starts ({count}, {g}), got shape {tuple(start.shape)}")
    device = targets.device
    targets = targets.detach().to(torch.complex128)
    theta = start.detach().to(device, torch.float64, copy=True)
    adam = Adam(theta)
    # Of each search: the generator where it came nearest, how near, and the eigenvalue that did.
    best, distance = theta.clone(), theta.new_full((count,), math.inf)
    reached = torch.full_like(targets, math.inf)
    counts = torch.zeros(CELLS * CELLS, dtype=torch.int64, device=device)
    closest = theta.new_full((CELLS * CELLS,), math.inf)
    restarts = {round(steps * k / (handovers + 1)) for k in range(1, handovers + 1)}
    total = real = 0
    active = torch.arange(count, device=device)
    for step in range((steps if g else 0) + 1):
        live = theta[active].requires_grad_()
        B = mixer(live, backend="reference")  # in float64
        values, vectors = _eig(B.detach())
        total += values.numel()
        real += int((values.imag.abs() < REAL).sum())
        _count(values, counts, closest)
        gap = values - targets[active, None]
        near, place = gap.abs().nan_to_num(math.inf).min(-1)
        closer = near < distance[active]
        improved = active[closer]
        distance[improved], best[improved] = near[closer], theta[improved]
        reached[improved] = values[closer, place[closer]]
        going_on = near > stop
        active = active[going_on]
        if step == steps or not g or not len(active):
            break
        if step in restarts:
            theta[active] = best[_hand_over(targets[active], reached, active)]
            adam.forget(active)
            continue
        (gradient,) = torch.autograd.grad(B, live, _pull(gap, vectors, place))
        gradient = gradient[going_on]
        sound = gradient.square().isfinite().all(-1)  # else the second moment overflows
        stuck, moving = active[~sound], active[sound]
        jolt = 1e-6 * torch.randn(len(stuck), g, generator=generator, dtype=theta.dtype)
        theta[stuck] += jolt.to(device)
        theta[moving] -= adam.step(gradient[sound], learning_rate, epsilon, moving)
    shape = (CELLS, CELLS)
    return Visits(counts.reshape(shape), closest.reshape(shape), total, real, distance, best)


def _hand_over(
    targets: Complex[Tensor, " active"],
    reached: Complex[Tensor, " searches"],
    active: Int[Tensor, " active"],
) -> Int[Tensor, " active"]:
    """For each target the search that came nearest to it; the active one's own if none came.

    Everything is mirrored into the upper half plane, as the spectra are. A search whose matrices
    were never finite has reached nothing, and `cdist` would make a NaN of its infinity.
    """
    able = reached.isfinite().nonzero()[:, 0]
    if not len(able):
        return active

    def points(z: Tensor) -> Tensor:
        return torch.stack([z.real, z.imag.abs()], -1)

    return able[torch.cdist(points(targets), points(reached[able])).argmin(-1)]


def _eig(B: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and right eigenvectors; the eigenvalues are NaN where B is not finite."""
    finite = B.isfinite().all(-1).all(-1)
    values, vectors = torch.linalg.eig(torch.where(finite[:, None, None], B, 0))
    return torch.where(finite[:, None], values, complex(math.nan, math.nan)), vectors


def _pull(gap: Tensor, vectors: Tensor, place: Tensor) -> Tensor:
    """Gradient with respect to B of `|λ − target|²`, for the eigenvalue λ at `place`.

    dλ = wᵀ dB v for the right eigenvector v and the row wᵀ of the inverse of their matrix.
    """
    rows = torch.arange(len(place), device=place.device)
    left = torch.linalg.inv_ex(vectors)[0][rows, place]
    outer = left[:, :, None] * vectors[rows, :, place][:, None, :]
    return 2 * (gap[rows, place].conj()[:, None, None] * outer).real


def _count(values: Tensor, counts: Tensor, closest: Tensor) -> None:
    """Add eigenvalues to the counts, and their distance from the centre of their cell."""
    values = values.flatten()
    place = torch.view_as_real(values) / (2 * HALF_CELL) + CELLS / 2
    place = place[((place >= 0) & (place < CELLS)).all(-1)]
    cell = place.floor()
    index = (cell[:, 1] * CELLS + cell[:, 0]).long()
    counts += torch.bincount(index, minlength=len(counts))
    away = 2 * HALF_CELL * (place - cell - 0.5).abs().amax(-1)
    closest.scatter_reduce_(0, index, away, "amin")


def coverage(
    mixer: Mixer,
    region: Region | None = None,
    *,
    tolerance: float = HALF_CELL,
    generator: torch.Generator | None = None,
    **search: Any,
) -> float:
    """How much of a region the mixer's eigenvalues reach.

    The share of the region's cells (of `spectral_grid()`) whose centre an eigenvalue comes within
    the tolerance of, by a search from random starts: a lower bound of the true share. Targets are
    the region's own cells in the upper half plane; learning rate, steps and handovers are the same
    for every mixer (`EQUAL` in this module).

    Args:
        mixer: any mixer.
        region: Perfect–Mirsky's of the mixer's order if not given.
        tolerance: see `Visits.share`.
        generator: source of randomness (CPU).
        search: other options of `search_spectrum` (learning_rate, steps, …).

    Returns:
        The share, in [0, 1].

    Raises:
        TypeError: as `search_spectrum`.
        ValueError: as `search_spectrum` and `Visits.share`.
    """
    check_mixer(mixer)
    region = perfect_mirsky(mixer.d) if region is None else region
    visits = search_spectrum(mixer, region.cells(), generator=generator, **EQUAL | search)
    return visits.share(region, tolerance)
