"""Spectral coverage: the paper's panels as released, with equal budgets, and at d = 5."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import t
from torch import Tensor

from gomhc.companion.released import released_search
from gomhc.companion.studies.base import LATER, Outcome, Probe, Unit, mixer
from gomhc.reach import nearest_in_family
from gomhc.spectra import (
    Visits,
    eigenvalues,
    karpelevich,
    perfect_mirsky,
    search_spectrum,
    spectral_grid,
)
from gomhc.spectra.regions import HALF_CELL

__all__ = ["PROBES", "UNITS", "beyond_perfect_mirsky", "equal", "midpoint", "released"]


def released(d: int, labels: Sequence[str], targets: int, seeds: Sequence[int]) -> Outcome:
    """The search behind the paper's panels, with its unequal budgets.

    The paper has 10,000 targets; here each seed has its own part of them, so that there is a
    spread. Adam's epsilon is what the whole number gives.

    Args:
        d: order.
        labels: mixers; the paper's mHC panel is "mhc iterations=10".
        targets: of each seed.
        seeds: repetitions.

    Returns:
        As `equal`; `spectra` and `histogram` are of all seeds together. `error[label]` is the
        median marginal error of the matrices at which the searches came nearest to their targets.
    """

    def search(label: str, seed: int) -> Visits:
        generator = torch.Generator().manual_seed(seed)
        return released_search(mixer(label, d), targets, generator, loss_over=targets * len(seeds))

    outcome = _collect(d, labels, seeds, search)
    outcome.metrics["targets"] = targets * len(seeds)
    return outcome


def equal(
    d: int,
    labels: Sequence[str],
    seeds: Sequence[int],
    learning_rate: float = 0.05,
    steps: int = 250,
    handovers: int = 10,
    every: int = 1,
) -> Outcome:
    """The same targets, starts, learning rate, steps and handovers for every mixer.

    Targets are the cells of Karpelevič's region in the upper half plane, so that what lies beyond
    Perfect–Mirsky's is looked for too; θ starts at N(0, 1).

    Args:
        d: order.
        labels: mixers.
        seeds: repetitions.
        learning_rate: Adam's.
        steps: Adam's steps.
        handovers: see `gomhc.search_spectrum`; 0 is the release's search.
        every: take every so many-th target only, for a quick look.

    Returns:
        metrics: `coverage[label]` of Perfect–Mirsky's region: mean, 95 % Student interval (low,
            high; both the mean for one seed) and the values of the seeds; `karpelevich[label]`
            likewise of Karpelevič's; `together[label]` the share of all seeds' visits together;
            `outside[label]` the share of eigenvalues that lie clearly (a cell and more) outside
            Perfect–Mirsky's region; `real[label]` the share of real ones; `error[label]` the
            median marginal error where the searches came nearest to their targets; `cells` of both
            regions, `targets`.
        series: `histogram[label]`, eigenvalues counted in the cells with imaginary part >= 0: 51
            rows of 101, the real axis first. The rest is the mirror image. Of the first seed.
    """
    goals = karpelevich(d).cells()[::every]

    def search(label: str, seed: int) -> Visits:
        return search_spectrum(
            mixer(label, d),
            goals,
            learning_rate=learning_rate,
            steps=steps,
            handovers=handovers,
            stop=HALF_CELL / 5,
            generator=torch.Generator().manual_seed(seed),
        )

    outcome = _collect(d, labels, seeds, search, first=True)
    outcome.metrics["targets"] = len(goals)
    return outcome


def _collect(
    d: int,
    labels: Sequence[str],
    seeds: Sequence[int],
    search: Callable[[str, int], Visits],
    first: bool = False,
) -> Outcome:
    inner, outer = perfect_mirsky(d), karpelevich(d)
    centres = spectral_grid()
    clear = torch.as_tensor(~inner.contains(centres, 4 * HALF_CELL))
    names = ("coverage", "karpelevich", "together", "outside", "real", "error")
    metrics: dict[str, Any] = {name: {} for name in names}
    histogram = {}
    for label in labels:
        visits = [search(label, seed) for seed in seeds]
        counts = torch.stack([v.counts for v in visits])
        total = sum(v.total for v in visits)
        whole = visits[0]._replace(closest=torch.stack([v.closest for v in visits]).amin(0))
        metrics["coverage"][label] = _spread([v.share(inner) for v in visits])
        metrics["karpelevich"][label] = _spread([v.share(outer) for v in visits])
        metrics["together"][label] = whole.share(inner)
        beyond_the_grid = total - int(counts.sum())
        metrics["outside"][label] = (int(counts.sum(0)[clear].sum()) + beyond_the_grid) / total
        metrics["real"][label] = sum(v.real for v in visits) / total
        errors = torch.cat([mixer(label, d).marginal_error(v.theta) for v in visits])
        metrics["error"][label] = errors.median().item()
        shown = counts[0] if first else counts.sum(0)
        histogram[label] = shown[len(shown) // 2 :].tolist()
    metrics["cells"] = {
        "perfect_mirsky": int(inner.contains(centres).sum()),
        "karpelevich": int(outer.contains(centres).sum()),
    }
    return Outcome(metrics, {"histogram": histogram})


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % Student interval, within [0, 1]."""
    mean, half = fmean(values), 0.0
    if len(values) > 1:
        half = t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return {"mean": mean, "low": float(low), "high": float(high), "values": list(values)}


def midpoint() -> Float[Tensor, "5 5"]:
    """A doubly stochastic matrix with an eigenvalue outside Π_5.

    Half of it is a 4-cycle, half a 3-cycle with a transposition; the two permutations differ by a
    3-cycle, so they span an edge of the polytope.

    Source: of the kind in Mashreghi, Rivard 2007.
    """
    eye = torch.eye(5, dtype=torch.float64)
    return (eye[[1, 2, 3, 0, 4]] + eye[[1, 2, 0, 4, 3]]) / 2


def _excess(B: Float[Tensor, "*batch 5 5"]) -> tuple[Tensor, Tensor]:
    """How far spectra reach out of Π_5 along a ray (negative: inside), and the eigenvalue there.

    Over eigenvalues off the real axis: the real ones are all in the region.
    """
    values = eigenvalues(B)
    radius = perfect_mirsky(5).radius(values.angle().abs().numpy())
    out = torch.where(values.imag > 1e-3, values.abs() - torch.as_tensor(radius), -math.inf)
    most, place = out.max(-1)
    return most, values.gather(-1, place[..., None])[..., 0]


def beyond_perfect_mirsky(
    labels: Sequence[str], starts: int = 16, steps: int = 400, iterations: int = 500, seed: int = 0
) -> Outcome:
    """Which mixers reach an eigenvalue outside Π_5, and the matrix `midpoint()` that has it.

    First the nearest matrices to `midpoint()`, then a search for its eigenvalue from there.

    Args:
        labels: mixers.
        starts: of the search for the nearest matrix; the eigenvalue is searched for from as many
            generators around the one found.
        steps: of the search for the eigenvalue.
        iterations: of the search for the nearest matrix.
        seed: of the starts.

    Returns:
        metrics: `eigenvalue` (real and imaginary part, the latter > 0) and `excess`, how far
        outside it lies along its ray; `matrix[label]`, the distance from `midpoint()` to the
        nearest matrix found; `distance[label]`, how near an eigenvalue came to the one sought;
        `reached[label]`, the largest excess of an eigenvalue seen then (negative: none outside).
    """
    excess, goal = _excess(midpoint())
    metrics: dict[str, Any] = {
        "eigenvalue": [goal.real.item(), goal.imag.item()],
        "excess": excess.item(),
        "matrix": {},
        "distance": {},
        "reached": {},
    }
    for label in labels:
        family = mixer(label, 5)
        generator = torch.Generator().manual_seed(seed)
        nearest = nearest_in_family(family, midpoint(), starts, generator, iterations)
        around = torch.linspace(0, 0.3, starts, dtype=torch.float64)[:, None]
        noise = torch.randn(starts, family.num_parameters, generator=generator, dtype=torch.float64)
        visits = search_spectrum(
            family,
            goal.expand(starts),
            learning_rate=0.01,
            steps=steps,
            start=nearest.theta + around * noise,
            stop=1e-6,
            generator=generator,
        )
        metrics["matrix"][label] = nearest.distance.item()
        metrics["distance"][label] = visits.distance.min().item()
        most = _excess(family(visits.theta))[0].max().item()
        metrics["reached"][label] = most if math.isfinite(most) else None
    return Outcome(metrics, {})


GO = [f"go-mhc s={s}" for s in (1, 2, 3)]
SIMPLE = ["identity", "hc", "mhc", "mhc-lite"]
PLAIN = {"handovers": 0}


def _unit(name: str, run: Callable[..., Outcome], config: Mapping[str, Any]) -> Unit:
    seeds = config.get("seeds", [config.get("seed")])
    return Unit(f"spectra/{name}", run, dict(config), tuple(seeds), protocol=1)


UNITS = [
    _unit(
        "released-d3", released, {"d": 3, "labels": GO[:2], "targets": 2000, "seeds": [*range(5)]}
    ),
    _unit(
        "released-d4",
        released,
        {
            "d": 4,
            "labels": ["mhc iterations=10", "mhc-lite", "kromhc", *GO[:2]],
            "targets": 2000,
            "seeds": [*range(5)],
        },
    ),
    # The release's search, without handovers, with one budget for the mixers of its panels.
    _unit(
        "plain-d3", equal, {"d": 3, "labels": [*SIMPLE[2:], *GO[:2]], "seeds": [0, 1, 2]} | PLAIN
    ),
    _unit(
        "plain-d4",
        equal,
        {"d": 4, "labels": [*SIMPLE[2:], "kromhc", *GO[:2]], "seeds": [0, 1, 2]} | PLAIN,
    ),
    _unit("equal-d3", equal, {"d": 3, "labels": [*SIMPLE, *GO, *LATER], "seeds": [*range(5)]}),
    # Each seed takes longer as d grows, and differs less from the next.
    _unit(
        "equal-d4",
        equal,
        {"d": 4, "labels": [*SIMPLE, "kromhc", "kron-go s=2", *GO, *LATER], "seeds": [0, 1, 2]},
    ),
    _unit("equal-d5", equal, {"d": 5, "labels": [*SIMPLE, *GO, *LATER], "seeds": [0, 1, 2]}),
    _unit(
        "beyond-d5",
        beyond_perfect_mirsky,
        {"labels": [*SIMPLE, *GO, *LATER], "starts": 16, "steps": 400, "seed": 0},
    ),
]

PROBES = [
    Probe(
        "spectra/released",
        released,
        {
            "d": 4,
            "labels": ["mhc iterations=10", "mhc-lite", "kromhc", "go-mhc s=2"],
            "targets": 6,
            "seeds": [0, 1],
        },
        ("spectra/released-*",),
    ),
    Probe(
        "spectra/equal",
        equal,
        {
            "d": 3,
            "labels": [*SIMPLE, *GO[:2], "transport"],
            "seeds": [0, 1],
            "steps": 60,
            "every": 100,
        },
        ("spectra/equal-*",),
    ),
    # Rotations stand here, without handovers: many of their searches end at one eigenvalue, so that
    # rounding, which differs between processors, decides whose generator is handed over.
    Probe(
        "spectra/plain",
        equal,
        {
            "d": 3,
            "labels": ["go-mhc s=2", "orthogonal"],
            "seeds": [0, 1],
            "steps": 60,
            "handovers": 0,
            "every": 100,
        },
        ("spectra/plain-*",),
    ),
    Probe(
        "spectra/beyond",
        beyond_perfect_mirsky,
        {"labels": [*SIMPLE, "go-mhc s=2", *LATER], "starts": 3, "steps": 20, "iterations": 40},
        ("spectra/beyond-d5",),
    ),
]
