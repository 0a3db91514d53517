"""How far a matrix is from what a mixer can make.

Everything here observes: no result carries a derivative, and the work is done in float64.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count, check_generator
from gomhc.mixers import Mixer
from gomhc.mixers.base import check_mixer

__all__ = ["Nearest", "distance_to_family", "nearest_in_family"]


class Nearest(NamedTuple):
    """The nearest matrix found: ‖matrix − target‖_F, the matrix and its generator."""

    distance: Float[Tensor, "*batch"]
    matrix: Float[Tensor, "*batch d d"]
    theta: Float[Tensor, "*batch g"]


# After so many steps only the best half, quarter, eighth of a target's starts goes on: the others
# creep towards a worse minimum, or towards infinity.
RACE = {100: 2, 200: 4, 400: 8}


def nearest_in_family(
    mixer: Mixer,
    targets: Float[Tensor, "*batch d d"],
    starts: int = 8,
    generator: torch.Generator | None = None,
    iterations: int = 2000,
    tolerance: float = 1e-9,
) -> Nearest:
    """Solve min_θ ‖mixer(θ) − T‖_F for a batch of targets from several random starts each.

    Levenberg–Marquardt with Nielsen's damping, on all targets and starts at once; the Jacobian
    comes from d² vector–Jacobian products of the mixer (for go-mHC its closed-form backward). The
    problem is not convex: the result is the best of the starts, an upper bound of the distance.

    Args:
        mixer: any mixer. One without parameters makes one matrix, and the search has no part.
        targets: (..., d, d).
        starts: random starts per target; the k-th is θ ~ N(0, (k/starts)²). The worse ones are
            given up after 100, 200 and 400 steps.
        generator: source of randomness (CPU).
        iterations: largest number of steps.
        tolerance: a start stops when the slope of its distance is below this, and all the starts
            of a target stop when one of them has come within it of the target.

    Returns:
        Nearest, float64, batched as the targets.

    Raises:
        TypeError: if mixer is no mixer, targets are no real tensor, starts or iterations no
            integer, or generator no torch.Generator.
        ValueError: if the targets are not (..., d, d) and finite, starts < 1, or iterations or
            tolerance is negative.

    Source: Levenberg 1944, Marquardt 1963; damping: Nielsen, IMM-REP-1999-05.
    """
    check_mixer(mixer)
    if not isinstance(targets, Tensor) or targets.is_complex():
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"expected targets as a real tensor, got {got}")
    d, g = mixer.d, mixer.num_parameters
    if targets.ndim < 2 or targets.shape[-2:] != (d, d):
        raise ValueError(f"expected targets (..., {d}, {d}), got {tuple(targets.shape)}")
    if not targets.isfinite().all():
        raise ValueError("expected finite targets, got NaN or infinite entries")
    starts, iterations = check_count("starts", starts, 1), check_count("iterations", iterations)
    if not tolerance >= 0:
        raise ValueError(f"expected tolerance >= 0, got {tolerance}")
    check_generator(generator)
    batch = targets.shape[:-2]
    T = targets.detach().double().reshape(-1, 1, d * d).expand(-1, starts, -1).reshape(-1, d * d)
    # Starts of all sizes: a large θ may lie in a part of the family from which the way to the
    # target leads through infinity (chapter 2, signatures), a small one in a dead region.
    sizes = torch.arange(1, starts + 1).repeat(len(T) // starts)[:, None] / starts
    theta = sizes * torch.randn(len(T), g, generator=generator, dtype=torch.float64)
    theta = theta.to(T.device)

    def flat(theta: Tensor) -> Tensor:
        return mixer(theta, backend="reference").flatten(-2)  # in float64

    jacobian = torch.func.vmap(torch.func.jacrev(flat))
    with torch.no_grad():
        residual = flat(theta) - T
        cost = residual.square().sum(-1)
        damping, growth = torch.ones_like(cost), torch.full_like(cost, 2.0)
        active = torch.arange(len(T) if g else 0, device=T.device)
        for iteration in range(iterations):
            if iteration in RACE:
                rank = cost.reshape(-1, starts).argsort(-1).argsort(-1).flatten()
                active = active[rank[active] < starts / RACE[iteration]]
            if not len(active):
                break
            J, r = jacobian(theta[active]), residual[active]
            gradient = (r[:, None] @ J)[:, 0]
            step = _damped_step(J, r, gradient, damping[active])
            trial = theta[active] + step
            trial_residual = flat(trial) - T[active]
            trial_cost = trial_residual.square().sum(-1)
            predicted = (step * (damping[active, None] * step - gradient)).sum(-1)
            ratio = (cost[active] - trial_cost) / predicted
            better = trial_cost < cost[active]
            worse = ~better
            theta[active[better]] = trial[better]
            residual[active[better]] = trial_residual[better]
            cost[active[better]] = trial_cost[better]
            shrink = (1 - (2 * ratio[better] - 1) ** 3).clamp(0.1, 1)
            damping[active[better]] = (damping[active[better]] * shrink).clamp_min(1e-15)
            growth[active[better]] = 2
            damping[active[worse]] *= growth[active[worse]]
            growth[active[worse]] *= 2
            reached = cost.reshape(-1, starts).amin(-1).sqrt() < tolerance
            slope = gradient.norm(dim=-1) / r.norm(dim=-1)
            stuck = (slope < tolerance) | (damping[active] > 1e15)
            active = active[~stuck & ~reached.repeat_interleave(starts)[active]]
        rows = cost.reshape(-1, starts)
        first = starts * torch.arange(len(rows), device=T.device)
        best = rows.argmin(-1) + first
        return Nearest(
            distance=cost[best].sqrt().reshape(batch),
            matrix=(residual + T)[best].reshape(*batch, d, d),
            theta=theta[best].reshape(*batch, g),
        )


def _damped_step(J: Tensor, r: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    """Solve (JᵀJ + damping·I) step = −Jᵀr in the smaller of the two spaces."""
    m, g = J.shape[-2:]
    gram = J @ J.mT if m < g else J.mT @ J
    eye = torch.eye(min(m, g), dtype=J.dtype, device=J.device)
    factor = torch.linalg.cholesky_ex(gram + (damping[:, None, None] + 1e-15) * eye)[0]
    if m < g:
        return -(J.mT @ torch.cholesky_solve(r[..., None], factor))[..., 0]
    return -torch.cholesky_solve(gradient[..., None], factor)[..., 0]


def distance_to_family(
    mixer: Mixer,
    targets: Float[Tensor, "*batch d d"],
    starts: int = 8,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch"]:
    """Frobenius distance from each target to the nearest matrix that the mixer can make.

    The distance alone of `nearest_in_family`, which see for the method and the errors raised.
    """
    return nearest_in_family(mixer, targets, starts, generator).distance
