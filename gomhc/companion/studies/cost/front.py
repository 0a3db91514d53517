"""What a Kronecker product buys: reach and loss of the mixers of one d, beside what they cost."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from gomhc.birkhoff import sample_uniform
from gomhc.companion.studies import base
from gomhc.companion.studies.base import Outcome
from gomhc.companion.studies.cost.counting import count_flops, count_parameters
from gomhc.companion.studies.cost.sweeps import WIDTH
from gomhc.maps import sinkhorn_knopp
from gomhc.mixers.base import Mixer
from gomhc.reach import nearest_in_family
from gomhc.stream_mixing import Problem, fit

__all__ = ["pareto", "targets"]

LARGEST_JACOBIAN = 10_000  # entries, up to which the search is by least squares
LARGE = 10_000  # generators, above which a search is so long that it starts once


def targets(d: int, count: int, seed: int = 0, chains_to: int = 8) -> Float[Tensor, "count d d"]:
    """Doubly stochastic matrices to come near to: uniform in the polytope, or close to it.

    Up to d = 8 by hit-and-run. Beyond, where chains of 40(d−1)³ steps would be too long, Sinkhorn
    scaling of independent exponential entries: as d grows, small submatrices of a uniform doubly
    stochastic matrix, times d, become independent exponentials themselves. At d = 8 the median
    distances from J/d of the two differ by less than 3 %.

    Args:
        d: number of streams.
        count: how many.
        seed: fixes them.
        chains_to: the largest d at which hit-and-run is used.

    Returns:
        (count, d, d), float64.

    Source: Chatterjee, Diaconis, Sly, "Properties of uniform doubly stochastic matrices", 2014.
    """
    generator = torch.Generator().manual_seed(seed)
    if d <= chains_to:
        return sample_uniform(d, count, generator)
    exponential = -torch.rand(count, d, d, generator=generator, dtype=torch.float64).log()
    return sinkhorn_knopp(exponential.log(), 200)


def _vertices(d: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, d, generator=generator).argsort(-1)
    return torch.eye(d, dtype=torch.float64)[order]


def _distances(mixer: Mixer, T: Tensor, starts: int, iterations: int) -> list[float]:
    """Frobenius distance of each target to the mixer's reach; both methods give upper bounds."""
    generator = torch.Generator().manual_seed(0)
    mixer = mixer.double()
    if mixer.d**2 * mixer.num_parameters <= LARGEST_JACOBIAN:
        nearest = nearest_in_family(mixer, T, starts, generator, iterations)
        return nearest.distance.tolist()
    starts = 1 if mixer.num_parameters > LARGE else starts
    return [_descend(mixer, target, starts, iterations, generator) for target in T]


def _descend(
    mixer: Mixer, target: Tensor, starts: int, iterations: int, generator: torch.Generator
) -> float:
    """The least distance that L-BFGS finds from several starts."""

    def half_square(flat: Any) -> tuple[float, Any]:
        theta = torch.tensor(flat, requires_grad=True)
        value = (mixer(theta) - target).square().sum() / 2
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    g = mixer.num_parameters
    distances = []
    for k in range(1, starts + 1):
        # At size g^(−¼) the Cayley transform is a rotation by angles of order 1, whatever n.
        size = min(1, 2 / g**0.25) * k / starts
        theta = size * torch.randn(g, generator=generator, dtype=torch.float64)
        options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-16, "gtol": 1e-10}
        result = minimize(
            half_square,
            theta.numpy(),
            jac=True,
            method="L-BFGS-B",
            options=options | {"maxcor": 20},
        )
        distances.append(math.sqrt(2 * result.fun))
    return min(distances)


def _summary(name: str, values: Tensor) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    low, median, high = values.quantile(values.new_tensor([0.1, 0.5, 0.9])).tolist()
    return {f"{name}_median": median, f"{name}_low": low, f"{name}_high": high}


def pareto(
    d: int,
    labels: Sequence[str],
    count: int,
    vertices: int,
    starts: int,
    iterations: int,
    problems: int,
    samples: int,
    learning_rates: Sequence[float],
    steps: int,
    noise: float = 0.1,
    width: int = WIDTH,
    seed: int = 0,
) -> Outcome:
    """Reach and fitted loss of mixers of one d, beside what they cost.

    Reach is the distance from a target to the nearest matrix that the mixer can make, the best of
    several starts of `nearest_in_family` or, where its Jacobians would be large, of L-BFGS: an
    upper bound. The loss is that of the corrected stream-mixing problem on the first
    of the same targets (X ~ N(0, I), noise of mean 0), after Adam from a live start at the best of
    the learning rates, over the exact minimum in the polytope.

    Args:
        d: number of streams.
        labels: mixers. One that does not allow d gets a row that says why.
        count: targets, see `targets`.
        vertices: how many random permutation matrices are searched for besides.
        starts: of the search, a target; one where there are more than 10,000 generators.
        iterations: of the search, a start.
        problems: how many of the targets are learned from samples.
        samples: of each.
        learning_rates: those tried; the one with the lowest median ratio counts.
        steps: of Adam.
        noise: σ.
        width: C, for the FLOPs and parameters of the hyper-connection.
        seed: fixes targets, samples and starts.

    Returns:
        metrics[label]: parameters (g), layer_parameters, mixer_flops, flops (of the hyper-
        connection, forward, a token), then reach, relative (reach over the distance of J/d),
        vertex, loss_over_floor and heldout (‖B − T‖), each as _median, _low, _high, the
        learning_rate taken, and exact; or only `impossible`, the reason. series: reach, vertex and
        loss_over_floor, target by target.

    Raises:
        ValueError: if there are more problems than targets.
    """
    if not 1 <= problems <= count:
        raise ValueError(f"expected 1 <= problems <= count = {count}, got {problems}")
    T, P = targets(d, count, seed), _vertices(d, vertices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    X = torch.randn(problems, samples, d, generator=generator, dtype=torch.float64)
    Y = X @ T[:problems].mT
    Y = Y + noise * torch.randn(Y.shape, generator=generator, dtype=Y.dtype)
    problem = Problem(T[:problems], X, Y, noise)
    floor = problem.floor().value
    centre = (T - 1 / d).norm(dim=(-2, -1))
    metrics: dict[str, Any] = {}
    series: dict[str, dict[str, list[float]]] = {"reach": {}, "vertex": {}, "loss_over_floor": {}}
    for label in labels:
        try:
            mixer = base.mixer(label, d)
        except ValueError as error:
            metrics[label] = {"impossible": str(error)}
            continue
        reach = torch.tensor(_distances(mixer, T, starts, iterations))
        vertex = torch.tensor(_distances(mixer, P, starts, iterations))
        fits = {
            rate: fit(problem, mixer, learning_rate=rate, steps=steps, seed=seed)
            for rate in learning_rates
        }
        ratios = {rate: problem.loss(result.matrix) / floor for rate, result in fits.items()}
        best = min(ratios, key=lambda rate: ratios[rate].median().nan_to_num(math.inf).item())
        metrics[label] = {
            "parameters": mixer.num_parameters,
            "layer_parameters": count_parameters(mixer, width),
            "mixer_flops": sum(count_flops(mixer).values()),
            "flops": sum(count_flops(mixer, width).values()),
            **_summary("reach", reach),
            **_summary("relative", reach / centre),
            **_summary("vertex", vertex),
            **_summary("loss_over_floor", ratios[best]),
            **_summary("heldout", fits[best].distance),
            "learning_rate": best,
            "exact": mixer.exact,
        }
        series["reach"][label] = reach.tolist()
        series["vertex"][label] = vertex.tolist()
        series["loss_over_floor"][label] = ratios[best].tolist()
    return Outcome(metrics, series)
