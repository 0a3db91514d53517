"""The Birkhoff polytope B_d: projection, sampling, decomposition.

Everything here observes: no result carries a derivative, and the work is done in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count, check_generator
from gomhc.maps import (
    block_frobenius,
    check_floating,
    check_one_square,
    check_square,
    marginal_error,
)

__all__ = [
    "Decomposition",
    "birkhoff_von_neumann",
    "haar_variance",
    "marginal_error",
    "project",
    "sample_haar",
    "sample_uniform",
]


@torch.no_grad()
def project(M: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """Euclidean projection: the doubly stochastic matrix nearest to M in the Frobenius norm.

    Solves min ½‖B − M‖²_F over B ≥ 0, B1 = 1, Bᵀ1 = 1 through its dual: B = max(M + u1ᵀ + 1vᵀ, 0)
    where (u, v) minimises the convex, piecewise quadratic ½‖B‖²_F − Σu − Σv. A semismooth Newton
    method with a line search does it.

    Args:
        M: (..., d, d), real.

    Returns:
        (..., d, d) in M's dtype, computed in float64: within 1e-9 of the true projection for
        entries up to 1e3 in size. NaN in the batch elements where M is not finite.

    Raises:
        TypeError: if M is not of a real floating dtype.
        ValueError: if M is not square.
        RuntimeError: if an element has not converged after 200 Newton steps, or its entries are so
            large, from about 1e8 on, that rounding leaves rows and columns more than 1e-6 off 1.

    Source: Li, Sun, Toh, "On the efficient computation of a generalized Jacobian of the projector
    over the Birkhoff polytope", Mathematical Programming 2020.
    """
    check_floating("M", M)
    check_square(M)
    d = M.shape[-1]
    finite = M.isfinite().all(-1).all(-1)[..., None, None]
    target = torch.where(finite, M.double(), 1 / d).reshape(-1, d, d)

    def primal(dual: Tensor) -> Tensor:
        return (target + dual[:, :d, None] + dual[:, None, d:]).clamp_min(0)

    def marginals(B: Tensor) -> Tensor:
        return torch.cat([B.sum(-1), B.sum(-2)], -1)

    # These multipliers give the projection onto the affine hull, and the answer if it is >= 0.
    dual = (1 - marginals(target)) / d + (target.sum((-2, -1))[:, None] - d) / (2 * d * d)
    eye = torch.eye(2 * d, dtype=target.dtype, device=target.device)
    scale = 1 + target.abs().amax((-2, -1))
    for _ in range(200):
        B = primal(dual)
        gradient = marginals(B) - 1
        error = gradient.abs().amax(-1)
        if (error <= 1e-14 * scale).all():
            if error.numel() and error.max() > 1e-6:
                raise RuntimeError(
                    f"no projection of entries up to {scale.max():.1e} in size: rounding leaves "
                    f"rows and columns up to {error.max():.1e} off 1"
                )
            return torch.where(finite, B.reshape(M.shape), torch.nan).to(M.dtype)
        support = (B > 0).to(B)
        hessian = torch.diag_embed(marginals(support))
        hessian[:, :d, d:] = support
        hessian[:, d:, :d] = support.mT
        # The ridge vanishes with the error, so that the last steps are exact Newton steps; along
        # the kernel of the Hessian the multipliers may have to travel as far as M is large.
        ridge = (0.1 * error / scale).clamp(1e-12, 1e-3)[:, None, None] * eye
        step = -torch.linalg.solve(hessian + ridge, gradient)

        def slope(length: Tensor, dual: Tensor = dual, step: Tensor = step) -> Tensor:
            return ((marginals(primal(dual + length[:, None] * step)) - 1) * step).sum(-1)

        dual = dual + _line_search(slope, (gradient * step).sum(-1))[:, None] * step
    raise RuntimeError(f"no projection after 200 Newton steps: marginal error {error.max():.1e}")


def _line_search(slope: Callable[[Tensor], Tensor], at_zero: Tensor) -> Tensor:
    """Step lengths 1, ½, ¼, … short enough not to overshoot the minimum of a convex function.

    It looks at slopes: near the end, differences of the objective drown in rounding.
    """
    length = torch.ones_like(at_zero)
    for _ in range(40):
        too_long = slope(length) > -0.5 * at_zero
        if not too_long.any():
            break
        length = torch.where(too_long, length / 2, length)
    return length


def sample_uniform(
    d: int, count: int, generator: torch.Generator | None = None, steps: int | None = None
) -> Float[Tensor, "count d d"]:
    """Uniform samples of the Birkhoff polytope by hit-and-run.

    Every sample is the end of its own chain, started at the barycentre J/d: `count` independent
    samples, with no autocorrelation to account for. A step draws a direction in the affine hull
    and then a uniform point on the chord through the polytope.

    Args:
        d: order of the matrices.
        count: number of samples (chains).
        generator: source of randomness (CPU).
        steps: length of a chain; 40(d−1)³ if not given, which chapter 3 shows to be several times
            what is needed for d = 3, 4, 5. At d = 1 there is one matrix and no chain.

    Returns:
        (count, d, d), float64.

    Raises:
        TypeError: if d, count or steps is no integer, or generator no torch.Generator.
        ValueError: if d < 1, count < 0 or steps < 0.

    Source: Smith 1984 (hit-and-run); Chan, Robbins 1999 (the uniform Birkhoff polytope).
    """
    d, count = check_count("d", d, least=1), check_count("count", count)
    steps = 40 * (d - 1) ** 3 if steps is None else check_count("steps", steps)
    check_generator(generator)
    B = torch.full((count, d, d), 1 / d, dtype=torch.float64)
    if d == 1:
        return B
    for _ in range(steps):
        direction = torch.randn(count, d, d, generator=generator, dtype=B.dtype)
        direction = direction - direction.mean(-1, keepdim=True)
        direction = direction - direction.mean(-2, keepdim=True)
        # B + t·direction stays >= 0 while t·(−direction/B) <= 1.
        slope = -direction / B
        longest = 1 / slope.amax((-2, -1))
        shortest = 1 / slope.amin((-2, -1))
        t = shortest + (longest - shortest) * torch.rand(count, generator=generator, dtype=B.dtype)
        B = (B + t[:, None, None] * direction).clamp_min(torch.finfo(B.dtype).tiny)
    return B


def sample_haar(
    d: int, s: int, count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "count d d"]:
    """Φ_{d,s}(Q) for Haar-random orthogonal Q of order ds: where random rotations land.

    Args:
        d: order of the matrices.
        s: block size.
        count: number of samples.
        generator: source of randomness (CPU).

    Returns:
        (count, d, d), float64; the mean is J/d.

    Raises:
        TypeError: if d, s or count is no integer, or generator no torch.Generator.
        ValueError: if d < 1, s < 1 or count < 0.

    Source: Mezzadri 2007 (Haar measure by QR).
    """
    d, s, count = check_count("d", d, 1), check_count("s", s, 1), check_count("count", count)
    check_generator(generator)
    gaussian = torch.randn(count, d * s, d * s, generator=generator, dtype=torch.float64)
    # QR fixes the signs of the columns, which a Haar matrix has at random and Φ does not see.
    return block_frobenius(torch.linalg.qr(gaussian).Q, s)


def haar_variance(d: int, s: int) -> float:
    """Variance of an entry of Φ_{d,s}(Q) for Haar-random orthogonal Q, in closed form.

    With n = ds, E q11⁴ = 3/(n(n+2)), E q11² q12² = 1/(n(n+2)) and E q11² q22² =
    (n+1)/(n(n−1)(n+2)), summed over the pairs of entries of one block. It falls as s grows.

    Args:
        d: order of the matrices.
        s: block size.

    Returns:
        The variance, the same for every entry; 0 for d = 1.

    Raises:
        TypeError: if d or s is no integer.
        ValueError: if d < 1 or s < 1.

    Source: the moments of the Haar measure; derived in chapter 2, claim 9.
    """
    d, s = check_count("d", d, 1), check_count("s", s, 1)
    if d == 1:
        return 0.0
    n = d * s
    same, beside = 3 / (n * (n + 2)), 1 / (n * (n + 2))
    apart = (n + 1) / (n * (n - 1) * (n + 2))
    return same + 2 * (s - 1) * beside + (s - 1) ** 2 * apart - 1 / d**2


class Decomposition(NamedTuple):
    """B = Σ_k weights[k] · permutations[k]."""

    weights: Float[Tensor, " count"]
    permutations: Float[Tensor, "count d d"]


def birkhoff_von_neumann(B: Float[Tensor, "d d"], tolerance: float | None = None) -> Decomposition:
    """Write a doubly stochastic matrix as a convex combination of permutation matrices.

    Greedy: a linear assignment finds a permutation inside the support, and as much of it as fits is
    taken off. The rest, rescaled, lies in a proper face of the one before, so that at most
    (d−1)² + 1 permutations are used.

    Args:
        B: (d, d), doubly stochastic within the tolerance.
        tolerance: largest marginal error and negative entry accepted; entries below it count as 0.
            If not given, 1e-9 for a float64 matrix and 1e-5 for any other.

    Returns:
        Decomposition with positive weights that sum to 1, largest first, in B's dtype. Each entry
        of the sum is within about d·tolerance of that of B.

    Raises:
        TypeError: if B is no tensor.
        ValueError: if B is not a doubly stochastic matrix, or all of it is below the tolerance.

    Source: Birkhoff 1946; Jonker, Volgenant 1987 (the assignment, through scipy).
    """
    from scipy.optimize import linear_sum_assignment  # here, as it takes a quarter as long as torch

    if not isinstance(B, Tensor):
        raise TypeError(f"expected B as a tensor, got {type(B).__name__}")
    check_one_square(B)
    if tolerance is None:
        tolerance = 1e-9 if B.dtype == torch.float64 else 1e-5
    error = max(marginal_error(B.double()).item(), -B.min().item())
    if not error <= tolerance:
        raise ValueError(
            f"expected a doubly stochastic matrix within {tolerance:.1e}, got marginal error "
            f"{marginal_error(B.double()).item():.1e} and smallest entry {B.min().item():.1e}"
        )
    d = len(B)
    rest = B.detach().double().cpu().clone()
    weights, images = [], []
    while rest.sum() > d * d * tolerance:
        # A missing entry costs more than any permutation inside the support can gain.
        score = torch.where(rest > tolerance, rest, -float(d))
        image = torch.as_tensor(linear_sum_assignment(score.numpy(), maximize=True)[1])
        weight = rest[torch.arange(d), image].min().item()
        if weight <= tolerance:
            break
        rest[torch.arange(d), image] -= weight
        weights.append(weight)
        images.append(image)
    if not weights:
        raise ValueError(f"expected a tolerance below the entries of B, got {tolerance}")
    order = torch.tensor(weights, dtype=torch.float64).argsort(descending=True)
    share = torch.tensor(weights, dtype=torch.float64)[order]
    permutations = torch.nn.functional.one_hot(torch.stack(images)[order], d)
    return Decomposition((share / share.sum()).to(B), permutations.to(B))
