"""Regions where eigenvalues may lie: of doubly stochastic and of stochastic matrices of order d.

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
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from gomhc.checks import check_count

__all__ = ["Region", "karpelevich", "perfect_mirsky", "spectral_grid"]

# The grid of the paper's histograms.
EXTENT, CELLS = 1.05, 101
HALF_CELL = EXTENT / CELLS


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
            plain = points.detach().cpu().to(torch.complex128).resolve_conj().resolve_neg()
            inside = self.contains(plain.numpy(), tolerance)
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
        TypeError: if d is no integer.
        ValueError: if d < 1.

    Source: Perfect, Mirsky 1965; d = 4: Levick, Pereira, Kribs 2015; d = 5: Mashreghi, Rivard 2007.
    """
    d = check_count("d", d, least=1)
    return Region("Perfect–Mirsky", d, functools.partial(_perfect_mirsky_radius, d))


def _perfect_mirsky_radius(d: int, angle: np.ndarray) -> np.ndarray:
    longest = np.where((angle == 0) | (angle == np.pi), 1.0, 0.0)
    for k in range(3, d + 1):
        from_middle = np.mod(angle, 2 * np.pi / k) - np.pi / k
        longest = np.maximum(longest, np.cos(np.pi / k) / np.cos(from_middle))
    return longest


def karpelevich(d: int) -> Region:
    """Θ_d: exactly the eigenvalues of the (row-)stochastic matrices of order d.

    The boundary is that of the theorem, found by Newton's method at any angle (Note [Arc equation]
    in this module); it is not a hull of sampled spectra.

    Args:
        d: order of the matrices; any, tested for d <= 8.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1.

    Source: Karpelevič 1951, in the form of Ito 1997.
    """
    d = check_count("d", d, least=1)
    return Region("Karpelevič", d, functools.partial(_karpelevich_radius, d))


def _karpelevich_radius(d: int, angle: np.ndarray) -> np.ndarray:
    farey = np.array(_farey(d))
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


def _farey(d: int) -> list[tuple[int, int]]:
    """Fractions (a, b) of lowest terms with 0 <= a/b <= 1/2 and b <= d, in order."""
    fractions = [(a, b) for b in range(1, d + 1) for a in range(b // 2 + 1) if math.gcd(a, b) == 1]
    return sorted(fractions, key=lambda fraction: fraction[0] / fraction[1])


def spectral_grid() -> Complex[np.ndarray, "101 101"]:
    """Centres of the 101×101 cells over [−1.05, 1.05]², imaginary part along the first axis."""
    centres = 2 * HALF_CELL * (np.arange(CELLS) - CELLS // 2)
    return centres + 1j * centres[:, None]
