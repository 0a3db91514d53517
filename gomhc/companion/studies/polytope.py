"""How exact the mixers are, what a stack of them keeps, how much of the polytope they reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from gomhc.birkhoff import sample_uniform
from gomhc.companion.studies.base import LATER, Outcome, Probe, Unit, mixer
from gomhc.maps import skew_symmetric
from gomhc.mixers.base import Mixer
from gomhc.reach import distance_to_family

__all__ = ["PROBES", "UNITS", "coverage", "edges", "exactness", "stacks"]

REACHED = 1e-6  # distance to a family below which a matrix counts as reached, as in chapter 3


@torch.no_grad()
def exactness(
    families: Mapping[str, Sequence[int]],
    sizes: Sequence[float] = (1.0, 1e2, 1e4),
    samples: int = 200,
    seed: int = 0,
) -> Outcome:
    """Largest deviations from what is promised, over random θ uniform in [−size, size].

    Of row and column sums from 1, and of rotations from orthogonality: beside ours, which Newton–
    Schulz steps correct, that of (I + A)⁻¹(I − A) as one solve gives it.

    Args:
        families: label -> orders d.
        sizes: of θ.
        samples: random θ for each label, order and size; the same for both dtypes.
        seed: of the random θ.

    Returns:
        metrics `error[dtype][label][str(d)][str(size)]` of sums, `orthogonality[dtype]` likewise
        the largest entry of |QᵀQ − I|, of the label "orthogonal" and of "one solve"; None where
        one gave NaN.
    """
    error: dict[str, Any] = {}
    orthogonality: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(seed)
        name = str(dtype).removeprefix("torch.")
        rows = error.setdefault(name, {})
        rotations = orthogonality.setdefault(name, {})
        for label, orders in families.items():
            rows[label] = {}
            for d in orders:
                family = mixer(label, d)
                shape = (samples, family.num_parameters)
                theta = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
                thetas = {str(size): (size * theta).to(dtype) for size in sizes}
                rows[label][str(d)] = {
                    size: _largest(family.marginal_error(theta)) for size, theta in thetas.items()
                }
                if label == "orthogonal":
                    for way, rotation in (("orthogonal", family), ("one solve", _one_solve)):
                        rotations.setdefault(way, {})[str(d)] = {
                            size: _largest(_unorthogonal(rotation(theta)))
                            for size, theta in thetas.items()
                        }
    return Outcome({"error": error, "orthogonality": orthogonality}, {})


def _largest(errors: Tensor) -> float | None:
    """JSON has no NaN."""
    largest = errors.max()
    return None if largest.isnan() else largest.item()


def _unorthogonal(Q: Float[Tensor, "*batch d d"]) -> Tensor:
    wide = Q.double()
    return (wide.mT @ wide - torch.eye(Q.shape[-1], dtype=wide.dtype)).abs()


def _one_solve(theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
    """The Cayley transform as one linear solve gives it, without a correction."""
    A = skew_symmetric(theta)
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    return torch.linalg.solve(eye + A, eye - A)


def coverage(
    families: Mapping[str, Sequence[str]], samples: int = 500, starts: int = 8, seed: int = 0
) -> Outcome:
    """The share of uniform samples of B_d that each family reaches, and its distance to the rest.

    The samples are chapter 3's, and so is the search: the distance is an upper bound, the share a
    lower one.

    Args:
        families: str(d) -> labels.
        samples: uniform samples of B_d.
        starts: of the search, a sample and family.
        seed: of the samples of each d and of the starts of each search.

    Returns:
        metrics `share[d][label]` = share, its 95 % Wilson interval (low, high) and the samples
        reached (count); `distance[d][label]` = quantiles "0.1", "0.5", "0.9" and "max"; `samples`.
    """

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    share: dict[str, Any] = {}
    distance: dict[str, Any] = {}
    for order, labels in families.items():
        d = int(order)
        B = sample_uniform(d, samples, generator())
        share[order], distance[order] = {}, {}
        for label in labels:
            values = distance_to_family(mixer(label, d), B, starts, generator())
            count = int((values < REACHED).sum())
            interval = binomtest(count, samples).proportion_ci(method="wilson")
            share[order][label] = {
                "share": count / samples,
                "low": float(interval.low),
                "high": float(interval.high),
                "count": count,
            }
            quantiles = {str(q): values.quantile(q).item() for q in (0.1, 0.5, 0.9)}
            distance[order][label] = quantiles | {"max": values.max().item()}
    return Outcome({"samples": samples, "share": share, "distance": distance}, {})


def edges(
    families: Mapping[str, Sequence[str]], points: int = 25, starts: int = 16, seed: int = 0
) -> Outcome:
    """How near each family comes to an edge of B_d that joins I to a 3-cycle.

    There level s of go-mHC has the points j/s and no others (chapter 2, claim 5).

    Args:
        families: str(d) -> labels.
        points: evenly spaced on the edge, its ends included.
        starts: of the search, a point and family; distances are upper bounds.
        seed: of the starts of each search.

    Returns:
        metrics `largest[d][label]` and `share[d][label]`, the share of the points reached; series
        `distance[d][label]`, point by point.
    """
    t = torch.linspace(0, 1, points, dtype=torch.float64)[:, None, None]
    largest: dict[str, Any] = {}
    share: dict[str, Any] = {}
    series: dict[str, Any] = {}
    for order, labels in families.items():
        eye = torch.eye(int(order), dtype=torch.float64)
        cycle = eye[[1, 2, 0, *range(3, len(eye))]]
        edge = (1 - t) * eye + t * cycle
        rows = {}
        for label in labels:
            generator = torch.Generator().manual_seed(seed)
            rows[label] = distance_to_family(mixer(label, len(eye)), edge, starts, generator)
        largest[order] = {label: values.max().item() for label, values in rows.items()}
        share[order] = {
            label: (values < REACHED).double().mean().item() for label, values in rows.items()
        }
        series[order] = {label: values.tolist() for label, values in rows.items()}
    return Outcome({"largest": largest, "share": share}, {"distance": series})


def stacks(
    families: Mapping[str, Sequence[str]], depth: int = 100, samples: int = 100, seed: int = 0
) -> Outcome:
    """What a stack of layers keeps, and in how many directions one layer can move.

    Layers are independent; at the `start` each has a θ as a model would begin with (one that is
    not random is the same in every layer), at `random` one from N(0, 1).

    Args:
        families: str(d) -> labels.
        depth: layers of a stack.
        samples: stacks.
        seed: of each family's θ.

    Returns:
        metrics, of which `start` and `random` by [d][label]: `gain` and `smallest`, the largest and
        the smallest singular value of the stack (medians over stacks; the smallest not less than
        float64 tells from 0, d · 2.2e-16), and `mean`, the largest change of the streams' mean.
        Also by [d][label]: `rank` of ∂H/∂θ, the largest over random θ, and `parameters`, the
        numbers in θ.
    """
    stack: dict[str, dict[str, dict[str, dict[str, float]]]] = {
        where: {name: {order: {} for order in families} for name in ("gain", "smallest", "mean")}
        for where in ("start", "random")
    }
    numbers: dict[str, dict[str, dict[str, int]]] = {
        name: {order: {} for order in families} for name in ("rank", "parameters")
    }
    for order, labels in families.items():
        for label in labels:
            family = mixer(label, int(order))
            generator = torch.Generator().manual_seed(seed)
            shape = (depth, samples, family.num_parameters)
            random = torch.randn(shape, generator=generator, dtype=torch.float64)
            starts = [family.initial_theta(generator) for _ in range(depth * samples)]
            start = torch.stack(starts).double().view(shape)
            for where, theta in (("start", start), ("random", random)):
                for name, value in _kept(family, theta).items():
                    stack[where][name][order][label] = value
            numbers["rank"][order][label] = _rank(family, random[0])
            numbers["parameters"][order][label] = family.num_parameters
    return Outcome(stack | numbers, {})


@torch.no_grad()
def _kept(family: Mixer, theta: Float[Tensor, "depth samples g"]) -> dict[str, float]:
    """Of stacks of layers, what `stacks` says."""
    d = family.d
    eye = torch.eye(d, dtype=theta.dtype)
    product = eye.expand(theta.shape[1], d, d)
    for layer in theta:
        product = family(layer) @ product
    values = torch.linalg.svdvals(product).median(0).values.tolist()
    return {
        "gain": values[0],
        "smallest": max(values[-1], d * torch.finfo(theta.dtype).eps),
        "mean": (product.mean(1) - 1 / d).abs().max().item(),
    }


def _rank(family: Mixer, theta: Float[Tensor, "samples g"]) -> int:
    """The largest rank of ∂H/∂θ over the samples.

    Of mhc it counts some directions out of the polytope too, which its iterations leave.
    """
    if not family.num_parameters:
        return 0
    jacobian = torch.func.vmap(torch.func.jacrev(lambda theta: family(theta).flatten()))(theta)
    return int(torch.linalg.matrix_rank(jacobian, rtol=1e-6).max())


ORDERS = [2, 3, 4, 5, 8, 16]
GO = [f"go-mhc s={s}" for s in (1, 2, 3, 4)]
SIMPLE = ["identity", "hc", "mhc", "mhc-lite"]
FAMILIES = {
    "3": [*SIMPLE, *GO, *LATER],
    "4": [*SIMPLE, "kromhc", "kron-go s=2", *GO, *LATER],
    "5": [*SIMPLE, *GO, *LATER],
}
UNITS = [
    Unit(
        "polytope/exactness",
        exactness,
        {
            "families": {
                "identity": ORDERS,
                "hc": ORDERS,
                "mhc": ORDERS,
                "mhc-lite": [2, 3, 4, 5, 8],
                "kromhc": [2, 4, 8, 16],
                **dict.fromkeys(GO, ORDERS),
                "kron-go s=2": [4, 8, 16],
                **dict.fromkeys(LATER, ORDERS),
            },
            "sizes": [1.0, 10.0, 100.0, 1000.0, 10000.0],
            "samples": 200,
            "seed": 0,
        },
        (0,),
        protocol=1,
    ),
    Unit(
        "polytope/coverage",
        coverage,
        {"families": FAMILIES, "samples": 500, "starts": 8, "seed": 0},
        (0,),
        protocol=2,  # a generator for each search, so that one more family moves no other
    ),
    Unit(
        "polytope/edges",
        edges,
        {"families": FAMILIES, "points": 25, "starts": 16, "seed": 0},
        (0,),
        protocol=1,
    ),
    Unit(
        "polytope/stacks",
        stacks,
        {
            # mhc-lite has 40,320 numbers at d = 8
            "families": FAMILIES | {"8": [k for k in FAMILIES["4"] if k != "mhc-lite"]},
            "depth": 100,
            "samples": 100,
            "seed": 0,
        },
        (0,),
        protocol=1,
    ),
]

PROBES = [
    Probe(
        "polytope/exactness",
        exactness,
        {
            "families": {
                "hc": [3],
                "mhc": [2, 4],
                "mhc iterations=5": [4],
                "mhc-lite": [4],
                "kromhc": [8],
                "go-mhc s=2": [4],
                "go-mhc s=4": [3],
                "kron-go s=2": [8],
                "orthogonal": [3, 4],
                "transport": [4],
            },
            "sizes": [1.0, 100.0],
            "samples": 20,
        },
        ("polytope/exactness",),
        absolute=1e-5,  # the rounding of float32
    ),
    Probe(
        "polytope/coverage",
        coverage,
        {
            "families": {
                "3": [*SIMPLE, *GO[:3], *LATER],
                "4": ["kromhc", "kron-go s=2", "go-mhc s=2"],
            },
            "samples": 6,
            "starts": 2,
        },
        ("polytope/coverage",),
        absolute=1e-6,  # a search ends when it is as near as that
    ),
    Probe(
        "polytope/edges",
        edges,
        {"families": {"3": ["mhc-lite", *GO[:2], *LATER]}, "points": 5, "starts": 2},
        ("polytope/edges",),
        absolute=1e-6,
    ),
    Probe(
        "polytope/stacks",
        stacks,
        {"families": {"4": FAMILIES["4"]}, "depth": 5, "samples": 3},
        ("polytope/stacks",),
    ),
]
