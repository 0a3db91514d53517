"""Eigenvalues of mixing matrices: the regions where they may lie, and how much of them is reached.

Note [Arc equation]
    Karpelevič's region Θ_d meets the unit circle at the Farey points e^{2πi a/b} with a/b in lowest
    terms and b <= d. In Ito's form of the theorem the arc between two neighbours a/b and a'/b' with
    b < b' is t^{b'} (tᵇ − α)ᵏ = (1 − α)ᵏ t^{bk}, α in [0, 1], k = ⌊d/b⌋. A k-th root of it says
    that tᵇ = α·1 + (1 − α)·w with w = t^{b − b'/k}: the points 1, tᵇ and w lie on one line. With
    t = ρe^{iθ}, `u = |bθ − 2πa|` and `v = |b'θ − 2πa'|/k` that is one real equation for ρ,

        sin(v)·ρᵇ + sin(u)·ρ^{b'/k} = sin(u + v).

    All three sines are >= 0 on the arc and both exponents are >= 1, so the left side is convex and
    increasing, at ρ = 1 it is at least the right side, and Newton's method from ρ = 1 falls
    monotonically to the one root. α does not appear: no sampling of the arc is needed.

Note [Defective matrices]
    Where two eigenvalues meet without two eigenvectors, an eigenvalue has no derivative: the
    gradient is infinite or NaN there and very large nearby. `search_spectrum` skips the step of an
    element whose gradient is not finite; its moments stay as they are. As the same θ would give the
    same gradient again, it is moved by a random 1e-6 instead.

Note [Stuck on the real axis]
    A simple real eigenvalue of a real matrix stays real under small changes. Where the nearest
    eigenvalue is real, `|λ − target|²` therefore pulls it below the target on the real axis and
    holds it there: a local minimum that has nothing to do with what the mixer can make. About half
    of all searches from random starts end so. A handover mends it: searches that have not arrived
    go on from the generator with which some other search came nearest to their target. That way
    what is reached grows outwards from where it began, through matrices with complex eigenvalues.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from gomhc.maps import block_frobenius, check_floating, check_square, skew_symmetric
from gomhc.mixers import BirkhoffVonNeumann, Kronecker, Mixer, Orthostochastic, Sinkhorn
from gomhc.mixers.base import check_mixer, check_positive

__all__ = [
    "Region",
    "Visits",
    "coverage",
    "eigenvalues",
    "karpelevich",
    "perfect_mirsky",
    "released_search",
    "search_spectrum",
    "spectral_grid",
]

# The grid of the paper's histograms.
EXTENT, CELLS = 1.05, 101
HALF_CELL = EXTENT / CELLS
# One budget for every mixer: enough for the shares to be within 0.005 of those of twice as much.
EQUAL = {"learning_rate": 0.05, "steps": 250, "handovers": 10, "stop": HALF_CELL / 5}
RELEASED_TARGETS = 10_000
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


@dataclass(frozen=True)
class Region:
    """A closed part of the unit disc: all points with `|z| <= radius(|arg z|)`, and a real segment.

    For d >= 2 it holds 0, is star-shaped about it, symmetric about the real axis, and the segment
    is [−1, 1]. For d = 1 it is the point 1.

    Attributes:
        name: who described it.
        d: order of the matrices.
        radius: angles in [0, π] (any shape) -> distance of the boundary from 0 (same shape).
    """

    name: str
    d: int
    radius: Callable[[np.ndarray], np.ndarray]

    @property
    def boundary(self) -> Complex[np.ndarray, " points"]:
        """A closed polyline once around the region, counter-clockwise from 1 back to 1.

        Every point lies on the boundary to rounding, and the roots of unity of order <= d are among
        them. At d = 2, and at d = 3 left of −1/2, the region is a segment, which the line follows
        there and back.
        """
        if self.d == 1:
            return np.ones(1, complex)
        corners = [2 * np.pi * a / b for a, b in _farey(self.d)]
        angles = np.unique(np.concatenate([np.linspace(0, np.pi, 721), corners]))
        upper = self.radius(angles) * np.exp(1j * angles)
        return np.concatenate([upper, upper[-2::-1].conj()])

    def contains(self, points: Any, tolerance: float = 0.0) -> Any:
        """Which points lie in the region.

        Args:
            points: complex or real, any shape; NumPy's (or what it can convert) or torch's.
            tolerance: how far outside a point may lie, measured along its ray from 0, or from the
                real segment. Points of the boundary itself are only known to rounding: 1e-12 is
                enough for them.

        Returns:
            Booleans of the same shape: a tensor on the same device for a tensor, an array
            otherwise. False for points that are not finite.

        Raises:
            ValueError: if tolerance < 0.
        """
        if not tolerance >= 0:
            raise ValueError(f"expected tolerance >= 0, got {tolerance}")
        if isinstance(points, Tensor):
            inside = self.contains(points.detach().cpu().numpy(), tolerance)
            return torch.as_tensor(inside, device=points.device)
        shape = np.shape(points)
        z = np.asarray(points, dtype=complex).reshape(-1)
        finite = np.isfinite(z)
        z = np.where(finite, z, 0)
        left = 1 if self.d == 1 else -1
        real = np.clip(z.real, left, 1)
        inside = np.maximum(abs(z.real - real), abs(z.imag)) <= tolerance
        if self.d > 1:
            inside |= abs(z) <= self.radius(abs(np.angle(z))) + tolerance
        return (inside & finite).reshape(shape)

    def cells(self) -> Complex[Tensor, " targets"]:
        """Centres of its cells in the closed upper half plane: targets for `search_spectrum`."""
        centres = spectral_grid()[CELLS // 2 :]
        return torch.as_tensor(centres[self.contains(centres)])


def perfect_mirsky(d: int) -> Region:
    """Π_d: the union of the convex hulls of the k-th roots of unity, k = 1..d.

    Every point of it is an eigenvalue of a doubly stochastic matrix of order d, a mixture of the
    powers of a k-cycle. For d <= 4 there are no others; for d = 5 there are, and for larger d the
    true region is not known.

    Args:
        d: order of the matrices.

    Raises:
        ValueError: if d < 1.

    Source: Perfect, Mirsky 1965; d = 4: Levick, Pereira, Kribs 2015; d = 5: Mashreghi, Rivard 2007.
    """
    d = check_positive("d", d)

    def radius(angle: np.ndarray) -> np.ndarray:
        longest = np.where((angle == 0) | (angle == np.pi), 1.0, 0.0)
        for k in range(3, d + 1):
            from_middle = np.mod(angle, 2 * np.pi / k) - np.pi / k
            longest = np.maximum(longest, np.cos(np.pi / k) / np.cos(from_middle))
        return longest

    return Region("Perfect–Mirsky", d, radius)


def karpelevich(d: int) -> Region:
    """Θ_d: exactly the eigenvalues of the (row-)stochastic matrices of order d.

    The boundary is that of the theorem, found by Newton's method at any angle (Note [Arc equation]
    in this module); it is not a hull of sampled spectra.

    Args:
        d: order of the matrices; any, tested for d <= 8.

    Raises:
        ValueError: if d < 1.

    Source: Karpelevič 1951, in the form of Ito 1997.
    """
    d = check_positive("d", d)
    farey = np.array(_farey(d))

    def radius(angle: np.ndarray) -> np.ndarray:
        arc = np.searchsorted(farey[:, 0] / farey[:, 1], angle / (2 * np.pi), side="right")
        arc = np.clip(arc, 1, len(farey) - 1)
        ends = np.stack([farey[arc - 1], farey[arc]])
        # The end with the smaller denominator first.
        swap = ends[0, ..., 1] > ends[1, ..., 1]
        ends = np.where(swap[None, ..., None], ends[::-1], ends)
        (a, b), (a2, b2) = (np.moveaxis(end, -1, 0) for end in ends)
        k = d // b
        u = abs(b * angle - 2 * np.pi * a)
        v = abs(b2 * angle - 2 * np.pi * a2) / k
        right = np.sin(u + v)
        rho = np.ones_like(angle)
        for _ in range(60):
            value = np.sin(v) * rho**b + np.sin(u) * rho ** (b2 / k) - right
            slope = np.sin(v) * b * rho ** (b - 1) + np.sin(u) * b2 / k * rho ** (b2 / k - 1)
            # At d = 2, and for d = 3 at −1, all three terms vanish at an end: the root there is 1.
            step = np.divide(value, slope, out=np.zeros_like(rho), where=abs(value) > 1e-16)
            rho = np.clip(rho - step, 0, 1)
            if (abs(step) < 1e-15).all():
                break
        return rho

    return Region("Karpelevič", d, radius)


def _farey(d: int) -> list[tuple[int, int]]:
    """Fractions (a, b) of lowest terms with 0 <= a/b <= 1/2 and b <= d, in order."""
    fractions = [(a, b) for b in range(1, d + 1) for a in range(b // 2 + 1) if math.gcd(a, b) == 1]
    return sorted(fractions, key=lambda fraction: fraction[0] / fraction[1])


def spectral_grid() -> Complex[np.ndarray, "101 101"]:
    """Centres of the 101×101 cells over [−1.05, 1.05]², imaginary part along the first axis."""
    centres = 2 * HALF_CELL * (np.arange(CELLS) - CELLS // 2)
    return centres + 1j * centres[:, None]


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
        TypeError: if it is not a mixer.
        ValueError: if targets or start have the wrong shape or are not finite, steps < 0,
            learning_rate or epsilon is not positive and finite, stop < 0 or handovers < 0.

    Source: the search of the go-mHC release, toy_models/spectra.ipynb; Adam: Kingma, Ba 2015.
    """
    check_mixer(mixer)
    count, g = len(targets) if targets.ndim else 0, mixer.num_parameters
    if targets.ndim != 1 or not targets.isfinite().all():
        bad = int((~targets.isfinite()).sum())
        shape = tuple(targets.shape)
        raise ValueError(
            f"expected finite targets (count,), got shape {shape}, {bad} of them not finite"
        )
    positive = 0 < learning_rate < math.inf and 0 < epsilon < math.inf
    if steps < 0 or not positive or not stop >= 0 or handovers < 0:
        raise ValueError(
            "expected steps, stop, handovers >= 0 and finite learning_rate, epsilon > 0; "
            f"got {steps=}, {stop=}, {handovers=}, {learning_rate=}, {epsilon=}"
        )
    if start is None:
        start = torch.randn(count, g, generator=generator, dtype=torch.float64)
    if start.shape != (count, g) or not start.isfinite().all():
        raise ValueError(f"expected finite starts ({count}, {g}), got shape {tuple(start.shape)}")
    device = targets.device
    targets = targets.to(torch.complex128)
    theta = start.detach().to(device, torch.float64, copy=True)
    mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
    updates = torch.zeros(count, 1, dtype=theta.dtype, device=device)
    best, distance = theta.clone(), theta.new_full((count,), math.inf)
    found = torch.full_like(targets, math.inf)
    counts = torch.zeros(CELLS * CELLS, dtype=torch.int64, device=device)
    closest = theta.new_full((CELLS * CELLS,), math.inf)
    restarts = {round(steps * k / (handovers + 1)) for k in range(1, handovers + 1)}
    total = real = 0
    active = torch.arange(count, device=device)
    for step in range((steps if g else 0) + 1):
        live = theta[active].requires_grad_()
        B = mixer(live)
        values, vectors = _eig(B.detach())
        total += values.numel()
        real += int((values.imag.abs() < REAL).sum())
        _count(values, counts, closest)
        gap = values - targets[active, None]
        near, place = gap.abs().nan_to_num(math.inf).min(-1)
        closer = near < distance[active]
        improved = active[closer]
        distance[improved], best[improved] = near[closer], theta[improved]
        found[improved] = values[closer, place[closer]]
        lost = near > stop
        active = active[lost]
        if step == steps or not g or not len(active):
            break
        if step in restarts:
            # Mirrored into the upper half plane, as the spectra are.
            reached = torch.complex(found.real, found.imag.abs())
            mirrored = torch.complex(targets.real, targets.imag.abs())
            away = torch.cdist(torch.view_as_real(mirrored[active]), torch.view_as_real(reached))
            theta[active] = best[away.argmin(-1)]
            mean[active] = square[active] = updates[active] = 0
            continue
        (gradient,) = torch.autograd.grad(B, live, _pull(gap, vectors, place))
        gradient = gradient[lost]
        sound = gradient.square().isfinite().all(-1)  # else the second moment overflows
        stuck, here, gradient = active[~sound], active[sound], gradient[sound]
        jolt = 1e-6 * torch.randn(len(stuck), g, generator=generator, dtype=theta.dtype)
        theta[stuck] += jolt.to(device)
        updates[here] += 1
        mean[here] = 0.9 * mean[here] + 0.1 * gradient
        square[here] = 0.999 * square[here] + 0.001 * gradient.square()
        root = (square[here] / (1 - 0.999 ** updates[here])).sqrt()
        theta[here] -= learning_rate * mean[here] / (1 - 0.9 ** updates[here]) / (root + epsilon)
    shape = (CELLS, CELLS)
    return Visits(counts.reshape(shape), closest.reshape(shape), total, real, distance, best)


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


class _Exponential(Orthostochastic):
    """go-mHC with Q = exp(skew(θ)), as the release's spectra have it; the same matrices."""

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return block_frobenius(torch.matrix_exp(skew_symmetric(theta)), self.s)


def released_search(
    mixer: Mixer,
    targets: int = RELEASED_TARGETS,
    generator: torch.Generator | None = None,
    loss_over: int | None = None,
) -> Visits:
    """The search with the unequal budgets behind the paper's panels.

    Targets are uniform in [−1, 1]². go-mHC: Q = exp(R − Rᵀ) from R ~ N(0, 1), 100 steps of Adam at
    learning rate 0.1 on R, which is 0.2 on θ. mHC-lite and KromHC: N(0, 1) logits, mHC: logits
    uniform in [−100, 100]; 250 steps at 0.08, with the loss averaged over the targets.

    Args:
        mixer: go-mhc, mhc, mhc-lite or kromhc; the panels of mhc have `iterations=10`.
        targets: their number.
        generator: source of randomness (CPU).
        loss_over: the number that an averaged loss is divided by, where these targets are only a
            part; `targets` if not given.

    Raises:
        ValueError: if the release has no panel of this family, or targets < 1.

    Source: the go-mHC release, toy_models/spectra.ipynb, commit b992d9d.
    """
    if targets < 1:
        raise ValueError(f"expected targets >= 1, got {targets}")
    square = 2 * torch.rand(targets, 2, generator=generator, dtype=torch.float64) - 1
    places = torch.view_as_complex(square)
    shape = (targets, mixer.num_parameters)
    if isinstance(mixer, Orthostochastic):
        start = math.sqrt(2) * torch.randn(shape, generator=generator, dtype=torch.float64)
        by_exponential = _Exponential(mixer.d, mixer.s)
        return search_spectrum(
            by_exponential, places, learning_rate=0.2, steps=100, start=start, generator=generator
        )
    softmax = isinstance(mixer, Kronecker) and all(
        isinstance(factor, BirkhoffVonNeumann) for factor in mixer.factors
    )
    if isinstance(mixer, Sinkhorn):
        start = 200 * torch.rand(shape, generator=generator, dtype=torch.float64) - 100
    elif softmax or isinstance(mixer, BirkhoffVonNeumann):
        start = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        raise ValueError(f"expected go-mhc, mhc, mhc-lite or kromhc, got {mixer}")
    return search_spectrum(
        mixer,
        places,
        learning_rate=0.08,
        steps=250,
        start=start,
        generator=generator,
        epsilon=1e-8 * (loss_over or targets),
    )


def coverage(
    mixer: Mixer,
    region: Region | None = None,
    *,
    budget: Literal["equal", "released"] = "equal",
    tolerance: float = HALF_CELL,
    generator: torch.Generator | None = None,
    **search: Any,
) -> float:
    """How much of a region the mixer's eigenvalues reach.

    The share of the region's cells (of `spectral_grid()`) whose centre an eigenvalue comes within
    the tolerance of, by a search from random starts: a lower bound of the true share.

    Args:
        mixer: any mixer.
        region: Perfect–Mirsky's of the mixer's order if not given.
        budget: "equal" takes the region's own cells in the upper half plane as targets and the
            same learning rate, steps and handovers for every mixer (`EQUAL` in this module);
            "released" is `released_search`.
        tolerance: see `Visits.share`.
        generator: source of randomness (CPU).
        search: options of `search_spectrum` (learning_rate, steps, …) or of `released_search`.

    Returns:
        The share, in [0, 1].

    Raises:
        ValueError: if the budget is neither, and as `search_spectrum` and `released_search` do.
    """
    check_mixer(mixer)
    region = perfect_mirsky(mixer.d) if region is None else region
    if budget == "released":
        visits = released_search(mixer, generator=generator, **search)
    elif budget == "equal":
        visits = search_spectrum(mixer, region.cells(), generator=generator, **EQUAL | search)
    else:
        raise ValueError(f"expected the budget 'equal' or 'released', got {budget!r}")
    return visits.share(region, tolerance)
