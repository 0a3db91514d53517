"""The runs of chapter 5: the synthetic task as released, defect by defect, and corrected."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gomhc.birkhoff import sample_uniform
from gomhc.companion.released import released_problem, released_settings, released_start
from gomhc.companion.studies.base import LATER, Outcome, Probe, Unit, mixer
from gomhc.stream_mixing import (
    FAMILIES,
    Fit,
    Problem,
    corrected_problem,
    fit,
    steps_to,
    sweep,
)

__all__ = ["PROBES", "UNITS", "corrected", "defects", "kromhc_error", "released", "starts"]

WITHIN = 1.05  # converged: within 5 % of a level


def _number(value: float | Tensor) -> float | None:
    """A JSON number; None for infinity, which here means never."""
    value = float(value)
    return value if math.isfinite(value) else None


def _shown(steps: int, points: int = 120) -> list[int]:
    """Steps at which a curve is kept: all the first ones, then evenly on a log axis."""
    return np.unique(np.geomspace(1, steps, points).round().astype(int) - 1).tolist()


def _rounded(values: Iterable[float]) -> list[float]:
    """Six digits: enough for a curve, and short to read."""
    return [float(f"{value:.6g}") for value in values]


def _device(name: str) -> str:
    return "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")


def _summary(result: Fit, problem: Problem, floor: float | None) -> dict[str, Any]:
    """What a fit came to, on the mean curve of its problems."""
    curve = result.loss.mean(0)
    final, lowest = curve[-1].item(), curve.min().item()
    bound = problem.noise**2 / 3
    summary = {
        "steps": _number(steps_to(curve, WITHIN * final)),
        "final": final,
        "lowest": lowest,
        "distance": result.distance.median().item(),
    }
    if bound:
        summary |= {"final_over_bound": final / bound, "lowest_over_bound": lowest / bound}
    if floor is not None:
        summary |= {
            "floor": floor,
            "steps_to_floor": _number(steps_to(curve, WITHIN * floor)),
            "final_over_floor": final / floor,
            "lowest_over_floor": lowest / floor,
        }
    return summary


def released(
    d: int,
    labels: list[str],
    steps: int = 10_000,
    problems: int = 64,
    noise: float = 0.1,
    seed: int = 42,
    floor: bool = True,
    device: str = "auto",
    progress: bool = False,
) -> Outcome:
    """The released protocol with all its defects: every method on its own draw of X and noise.

    Args:
        d: number of streams.
        labels: mixers.
        steps: of Adam.
        problems: number of targets.
        noise: σ.
        seed: of targets, samples and starts.
        floor: whether to compute the exact minimum over the polytope too.
        device: "auto", "cpu" or "cuda".
        progress: show progress bars.

    Returns:
        metrics[label]: `steps` to within 5 % of the own final loss on the mean curve, `final` and
        `lowest` loss, both also over σ²/3 (`…_over_bound`) and over the true floor; median held-out
        error `distance`; `seconds`. series[label]: step, mean, and 10–90 % band over problems.
    """
    metrics, series = {}, {}
    for draw, label in enumerate(labels):
        problem = released_problem(d, noise, problems, seed=seed, draw=draw).to(_device(device))
        family = mixer(label, d)
        settings = released_settings(family, problems) | {"steps": steps}
        clock = time.perf_counter()
        result = fit(problem, family, seed=seed, progress=progress, **settings)
        seconds = time.perf_counter() - clock
        level = problem.floor().value.mean().item() if floor else None
        metrics[label] = _summary(result, problem, level) | {"seconds": seconds}
        kept = _shown(steps)
        low, high = result.loss[:, kept].quantile(torch.tensor([0.1, 0.9]).to(result.loss), 0)
        series[label] = {
            "step": kept,
            "mean": _rounded(result.loss[:, kept].mean(0).tolist()),
            "low": _rounded(low.tolist()),
            "high": _rounded(high.tolist()),
        }
    return Outcome(metrics, series)


def kromhc_error(
    sizes: list[int], steps: int = 10_000, problems: int = 64, seed: int = 42
) -> Outcome:
    """Where KromHC's loss goes as d grows, with X scaled by d as released and without.

    Args:
        sizes: numbers of streams, powers of two.
        steps: of Adam.
        problems: number of targets.
        seed: of everything.

    Returns:
        metrics[str(d)]: final mean loss `scaled` and `unscaled`.
    """
    metrics = {}
    for d in sizes:
        family = mixer("kromhc", d)
        settings = released_settings(family, problems) | {"steps": steps}
        finals = {}
        for name, scale in (("scaled", True), ("unscaled", False)):
            problem = released_problem(d, problems=problems, seed=seed, scale_inputs=scale)
            finals[name] = fit(problem, family, seed=seed, **settings).loss[:, -1].mean().item()
        metrics[str(d)] = finals
    return Outcome(metrics, {})


def defects(
    d: int,
    labels: list[str],
    learning_rates: list[float],
    seeds: list[int],
    steps: int = 10_000,
    problems: int = 64,
) -> Outcome:
    """Take the defects of the released protocol away one at a time.

    Args:
        d: number of streams.
        labels: mixers.
        learning_rates: tried where the learning rate is tuned.
        seeds: the released seed first; all of them where spread over seeds is shown.
        steps: of Adam.
        problems: number of targets.

    Returns:
        metrics["variants"][variant][label] as in `released`; metrics["seeds"][label]: `steps` for
        each seed; metrics["tuned"][label]: the learning rate that the tuned variant chose.
    """
    first = seeds[0]
    generator = torch.Generator().manual_seed(first)
    uniform = sample_uniform(d, problems, generator)
    # What differs from the release in each variant: arguments of the problem, then of the fit.
    variants: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "as released": ({}, {}),
        "one draw of X and noise for all": ({"draw": 0}, {}),
        "X not scaled by d": ({"scale_inputs": False}, {}),
        "noise of mean zero": ({"centre_noise": True}, {}),
        "θ trained directly, not R": ({}, {"learning_rate": 1e-3}),
        "targets uniform in the polytope": ({"targets": uniform}, {}),
        "sparsity 0.5, rows scaled": ({"sparsity": 0.5}, {}),
        "sparsity 0.5, entries masked": (
            {"sparsity": 0.5, "mask_entries": True, "scale_inputs": False},
            {},
        ),
    }
    metrics: dict[str, Any] = {"variants": {}, "seeds": {}, "tuned": {}}
    for variant, (changed, settings) in variants.items():
        rows = {}
        for draw, label in enumerate(labels):
            options: dict[str, Any] = {"problems": problems, "seed": first, "draw": draw}
            problem = released_problem(d, **(options | changed))
            family = mixer(label, d)
            used = released_settings(family, problems) | {"steps": steps} | settings
            result = fit(problem, family, seed=first, **used)
            rows[label] = _summary(result, problem, problem.floor().value.mean().item())
        metrics["variants"][variant] = rows

    tuned = {}
    for draw, label in enumerate(labels):
        problem = released_problem(d, problems=problems, seed=first, draw=draw)
        family = mixer(label, d)
        used = released_settings(family, problems) | {"steps": steps}
        del used["learning_rate"]
        level = problem.floor().value.mean().item()
        tried = {
            run.learning_rate: _summary(result, problem, level)
            for run, result in sweep(
                problem, {label: family}, learning_rates, seeds=[first], progress=False, **used
            )
        }
        rate = best_rate(tried)
        tuned[label], metrics["tuned"][label] = tried[rate], rate
    metrics["variants"]["learning rate tuned"] = tuned

    for draw, label in enumerate(labels):
        family = mixer(label, d)
        settings = released_settings(family, problems) | {"steps": steps}
        metrics["seeds"][label] = []
        for seed in seeds:
            problem = released_problem(d, problems=problems, seed=seed, draw=draw)
            curve = fit(problem, family, seed=seed, **settings).loss.mean(0)
            metrics["seeds"][label].append(_number(steps_to(curve, WITHIN * curve[-1].item())))
    return Outcome(metrics, {})


def best_rate(tried: Mapping[float, Mapping[str, Any]]) -> float:
    """The learning rate with the fewest steps to 1.05 × floor, of those that also end below it.

    Rates that only pass by come after those that stay, and by their final loss: a method that never
    stays is shown at its lowest end.

    Args:
        tried: learning rate -> summary with `steps_to_floor`, `final` and `final_over_floor`.

    Returns:
        One of the keys.
    """

    def order(rate: float) -> tuple[bool, float]:
        row = tried[rate]
        if row["final_over_floor"] <= WITHIN:
            return False, row["steps_to_floor"]
        # A run that has diverged has no place before one that has not.
        return True, row["final"] if math.isfinite(row["final"]) else math.inf

    return min(tried, key=order)


def corrected(
    d: int,
    labels: list[str],
    learning_rates: list[float],
    seeds: list[int],
    families: list[str] | None = None,
    steps: int = 10_000,
    problems: int = 64,
    noise: float = 0.1,
    start: str = "live",
    off_diagonal_mass: float = 0.01,
    device: str = "auto",
    progress: bool = False,
) -> Outcome:
    """The corrected protocol: tuned on the first seed's problems, reported on those of the others.

    Args:
        d: number of streams.
        labels: mixers.
        learning_rates: the grid, the same for all mixers.
        seeds: at least two; the first is for tuning alone. A seed fixes problems and starts.
        families: of targets; all four if not given.
        steps: of Adam.
        problems: number of targets a family and seed.
        noise: standard deviation of the noise.
        start: "live", near I with a gradient, or "released".
        off_diagonal_mass: of live starts; released ones have no use of it.
        device: "auto", "cpu" or "cuda".
        progress: show progress bars.

    Returns:
        metrics[family][label]: `learning_rate`; `tuning` (rate -> steps to 1.05 × floor on the
        first seed); for each other seed in turn `steps` (to 1.05 × floor on the mean curve, None
        for never), `final_over_floor`, `lowest_over_floor`, `distance` (median held-out error) and
        `seconds` (steps × time of one step here). series[family][label]: step, and median, lowest
        and highest of mean loss / floor over the seeds.

    Raises:
        ValueError: if there are fewer than two seeds, or the start is neither.
    """
    if len(seeds) < 2:
        raise ValueError(f"expected a seed for tuning and others to report, got {seeds}")
    where = _device(device)
    metrics: dict[str, Any] = {}
    series: dict[str, Any] = {}
    mixers = {label: mixer(label, d) for label in labels}
    if start not in ("live", "released"):
        raise ValueError(f"expected start 'live' or 'released', got {start!r}")
    options: dict[str, Any] = {"steps": steps}
    if start == "live":
        options["off_diagonal_mass"] = off_diagonal_mass
    else:
        options["start"] = released_start
    for family in families or FAMILIES:
        tuning, *others = [
            corrected_problem(d, family, noise, problems, seed=seed).to(where) for seed in seeds
        ]
        level = tuning.floor().value.mean().item()
        tried: dict[str, dict[float, dict[str, Any]]] = {label: {} for label in labels}
        for run, result in sweep(
            tuning, mixers, learning_rates, seeds=seeds[:1], progress=progress, **options
        ):
            tried[run.label][run.learning_rate] = _summary(result, tuning, level)
        rates = {label: best_rate(tried[label]) for label in labels}
        rows: dict[str, dict[str, Any]] = {
            label: {
                "learning_rate": rates[label],
                "tuning": {str(rate): row["steps_to_floor"] for rate, row in tried[label].items()},
                "steps": [],
                "seconds": [],
                "final_over_floor": [],
                "lowest_over_floor": [],
                "distance": [],
            }
            for label in labels
        }
        curves: dict[str, list[Tensor]] = {label: [] for label in labels}
        for seed, problem in zip(seeds[1:], others, strict=True):
            level = problem.floor().value.mean().item()
            for label in labels:
                clock = time.perf_counter()
                result = fit(problem, mixers[label], rates[label], seed=seed, **options)
                seconds = time.perf_counter() - clock
                row, summary = rows[label], _summary(result, problem, level)
                needed = summary["steps_to_floor"]
                row["steps"].append(needed)
                row["seconds"].append(None if needed is None else seconds * needed / steps)
                for name in ("final_over_floor", "lowest_over_floor", "distance"):
                    row[name].append(summary[name])
                curves[label].append(result.loss.mean(0)[_shown(steps)] / level)
        metrics[family] = rows
        series[family] = {
            label: {
                "step": _shown(steps),
                "median": _rounded(torch.stack(parts).median(0).values.tolist()),
                "low": _rounded(torch.stack(parts).amin(0).tolist()),
                "high": _rounded(torch.stack(parts).amax(0).tolist()),
            }
            for label, parts in curves.items()
        }
    return Outcome(metrics, series)


def starts(
    d: int,
    labels: list[str],
    learning_rates: list[float],
    seeds: list[int],
    masses: list[float],
    families: list[str],
    steps: int = 10_000,
    problems: int = 64,
) -> Outcome:
    """The corrected protocol from different starts, the learning rate tuned for each.

    Args:
        d: number of streams.
        labels: mixers.
        learning_rates: the grid.
        seeds: as in `corrected`.
        masses: off-diagonal masses of the live starts.
        families: of targets.
        steps: of Adam.
        problems: number of targets a family and seed.

    Returns:
        metrics[start] as in `corrected`; the starts are "released" and "live 0.01" and so on.
    """
    shared: dict[str, Any] = {
        "learning_rates": learning_rates,
        "seeds": seeds,
        "families": families,
        "steps": steps,
        "problems": problems,
    }
    metrics = {"released": corrected(d, labels, start="released", **shared).metrics}
    for mass in masses:
        metrics[f"live {mass:g}"] = corrected(d, labels, off_diagonal_mass=mass, **shared).metrics
    return Outcome(metrics, {})


LEARNING_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]


def _released_labels(d: int) -> list[str]:
    """What the release runs at this d, then what it does not but we do."""
    labels = ["go-mhc s=2"]
    labels += ["mhc-lite"] * (d <= 6) + ["kromhc"] * (d & (d - 1) == 0)
    labels += ["mhc", "go-mhc s=1"] + ["kron-go s=2"] * (d > 3)
    return [*labels, *LATER]


def _released_unit(d: int) -> Unit:
    config: dict[str, Any] = {"d": d, "labels": _released_labels(d)}
    if d >= 32:
        config |= {"floor": False}  # quadratic programs with 1,024 and 4,096 unknowns each
    if d > 32:
        config |= {"problems": 16}  # a quarter, as a full run would take this machine too long
    return Unit(f"stream-mixing/released-d{d}", released, config, (42,), protocol=1)


_SEEDS = [0, 1, 2, 3, 4, 5]
_ALL = [
    *("mhc", "mhc-lite", "kromhc", "go-mhc s=1", "go-mhc s=2", "go-mhc s=3", "kron-go s=2", "hc"),
    *LATER,
]

UNITS = [
    *(_released_unit(d) for d in (2, 3, 4, 6, 8, 16, 32, 64)),
    Unit(
        "stream-mixing/kromhc-error",
        kromhc_error,
        {"sizes": [4, 8, 16, 32, 64]},
        (42,),
        protocol=1,
    ),
    Unit(
        "stream-mixing/defects-d4",
        defects,
        {
            "d": 4,
            "labels": ["go-mhc s=2", "mhc-lite", "kromhc", "mhc"],
            "learning_rates": LEARNING_RATES,
            "seeds": [42, 43, 44, 45, 46],
        },
        (42, 43, 44, 45, 46),
        protocol=1,
    ),
    Unit(
        "stream-mixing/corrected-d4",
        corrected,
        {"d": 4, "labels": _ALL, "learning_rates": LEARNING_RATES, "seeds": _SEEDS},
        tuple(_SEEDS),
        protocol=1,
    ),
    Unit(
        # mhc-lite has 40,320 generators here: hours for the others' sizes, so not in this one.
        "stream-mixing/corrected-d8",
        corrected,
        {
            "d": 8,
            "labels": [label for label in _ALL if label != "mhc-lite"],
            "learning_rates": LEARNING_RATES,
            "seeds": _SEEDS,
            "problems": 32,
        },
        tuple(_SEEDS),
        protocol=1,
    ),
    Unit(
        "stream-mixing/corrected-d8-lite",
        corrected,
        {
            "d": 8,
            "labels": ["mhc-lite"],
            "learning_rates": [0.03, 0.1, 0.3],
            "seeds": [0, 1, 2],
            "families": ["uniform"],
            "problems": 4,
            "steps": 3000,
        },
        (0, 1, 2),
        protocol=1,
    ),
    Unit(
        "stream-mixing/starts-d4",
        starts,
        {
            "d": 4,
            "labels": ["mhc", "mhc-lite", "go-mhc s=2"],
            "learning_rates": [0.01, 0.03, 0.1, 0.3],
            "seeds": [0, 1, 2, 3],
            "masses": [0.0001, 0.01, 0.3],
            "families": ["uniform", "barycentre"],
        },
        (0, 1, 2, 3),
        protocol=1,
    ),
]

_SMALL: dict[str, Any] = {"steps": 40, "problems": 3}
_GRID: dict[str, Any] = {"learning_rates": [0.03, 0.1], "seeds": [0, 1]}
# Curves are stored to six digits, and fits that end at the barycentre, where B and its loss are
# nearly flat, enlarge rounding to 1e-6.
ROUNDING = 1e-4

PROBES = [
    Probe(
        "stream-mixing/released",
        released,
        {"d": 4, "labels": _released_labels(4), "device": "cpu", **_SMALL},
        ("stream-mixing/released-*",),
        relative=ROUNDING,
        ignored=("seconds",),
    ),
    Probe(
        "stream-mixing/kromhc-error",
        kromhc_error,
        {"sizes": [4, 8], **_SMALL},
        ("stream-mixing/kromhc-error",),
    ),
    Probe(
        "stream-mixing/defects",
        defects,
        {"d": 4, "labels": ["go-mhc s=2", "mhc-lite", "kromhc", "mhc"], **_GRID, **_SMALL},
        ("stream-mixing/defects-d4",),
    ),
    Probe(
        "stream-mixing/corrected",
        corrected,
        {"d": 4, "labels": _ALL, "device": "cpu", **_GRID, **_SMALL},
        ("stream-mixing/corrected-*",),
        relative=ROUNDING,
        ignored=("seconds",),
    ),
    Probe(
        "stream-mixing/starts",
        starts,
        {
            "d": 4,
            "labels": ["mhc", "mhc-lite", "go-mhc s=2"],
            "masses": [0.0001, 0.3],
            "families": ["barycentre"],
            **_GRID,
            **_SMALL,
        },
        ("stream-mixing/starts-d4",),
        relative=ROUNDING,
        ignored=("seconds",),
    ),
]
