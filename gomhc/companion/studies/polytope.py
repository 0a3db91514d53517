"""How exact the mixers are, and how much of the Birkhoff polytope they reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.stats import binomtest

from gomhc.birkhoff import sample_uniform
from gomhc.companion.studies.base import Outcome, Probe, Unit, mixer
from gomhc.reach import distance_to_family

__all__ = ["PROBES", "UNITS", "coverage", "exactness"]

REACHED = 1e-6  # distance to a family below which a matrix counts as reached, as in chapter 3


@torch.no_grad()
def exactness(
    families: Mapping[str, Sequence[int]],
    sizes: Sequence[float] = (1.0, 1e2, 1e4),
    samples: int = 200,
    seed: int = 0,
) -> Outcome:
    """Largest deviation of a row or column sum from 1, over random θ uniform in [−size, size].

    Args:
        families: label -> orders d.
        sizes: of θ.
        samples: random θ for each label, order and size; the same for both dtypes.
        seed: of the random θ.

    Returns:
        metrics `error[dtype][label][str(d)][str(size)]`; None where a mixer gave NaN.
    """
    error: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(seed)
        rows = error.setdefault(str(dtype).removeprefix("torch."), {})
        for label, orders in families.items():
            rows[label] = {}
            for d in orders:
                family = mixer(label, d)
                shape = (samples, family.num_parameters)
                theta = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
                largest = {
                    str(size): family.marginal_error((size * theta).to(dtype)).max().item()
                    for size in sizes
                }
                # A NaN is the only number that differs from itself; JSON has none.
                rows[label][str(d)] = {s: e if e == e else None for s, e in largest.items()}
    return Outcome({"error": error}, {})


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
        seed: of the samples and the starts.

    Returns:
        metrics `share[d][label]` = share, its 95 % Wilson interval (low, high) and the samples
        reached (count); `distance[d][label]` = quantiles "0.1", "0.5", "0.9" and "max"; `samples`.
    """
    generator = torch.Generator().manual_seed(seed)
    share: dict[str, Any] = {}
    distance: dict[str, Any] = {}
    for order, labels in families.items():
        d = int(order)
        B = sample_uniform(d, samples, generator)
        share[order], distance[order] = {}, {}
        for label in labels:
            values = distance_to_family(mixer(label, d), B, starts, generator)
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


ORDERS = [2, 3, 4, 5, 8, 16]
GO = [f"go-mhc s={s}" for s in (1, 2, 3, 4)]
SIMPLE = ["identity", "hc", "mhc", "mhc-lite"]
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
        {
            "families": {
                "3": SIMPLE + GO,
                "4": [*SIMPLE, "kromhc", "kron-go s=2", *GO],
                "5": SIMPLE + GO,
            },
            "samples": 500,
            "starts": 8,
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
            "families": {"3": SIMPLE + GO[:3], "4": ["kromhc", "kron-go s=2", "go-mhc s=2"]},
            "samples": 6,
            "starts": 2,
        },
        ("polytope/coverage",),
        absolute=1e-6,  # a search ends when it is as near as that
    ),
]
