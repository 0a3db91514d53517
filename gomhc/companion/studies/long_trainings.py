"""Trainings long enough to decide whether mixing matters: on real texts, and on stories.

Note [Pilot]
    Three arms are trained first, with seeds of their own, at one learning rate. The spread of their
    paired differences says how many seeds the comparison needs. The first of these seeds chooses
    the learning rate of every arm as well; what is reported comes from other seeds.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy import stats

from gomhc.companion.records import Record
from gomhc.companion.studies import language_models
from gomhc.companion.studies.base import Unit
from gomhc.companion.studies.language_models import record_name, run

__all__ = [
    "ARMS",
    "EXPERIMENTS",
    "PILOT_ARMS",
    "Power",
    "name_of",
    "pilot",
    "pilot_power",
    "power",
    "tuning",
]

PROTOCOL = 1
TUNING_SEED = 100  # the first of those that are not reported
PILOT_ARMS = ("residual", "identity", "go-mhc s=2")
PILOT_RATE = 3e-3
ARMS = language_models.ARMS | {
    "orthogonal": {"mixer": "orthogonal"},
    "transport": {"mixer": "transport"},
}
KJV_SHA256 = "93cbff53fc77bb00401028092a94521986a59764c741696ad4b15a0576460507"
# nanoGPT's recipe for a CPU, at its own learning rate of 1e-3 and at others: its evaluation loss on
# Tiny Shakespeare is given as 1.88.
RECIPE: dict[str, Any] = {
    "steps": 2000,
    "batch": 12,
    "warmup": 100,
    "betas": [0.9, 0.99],
    "evaluate_every": 200,
}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "letters": {
        "model": {"preset": "small", "block": 64, "vocabulary": 65},
        "training": RECIPE,
        "corpus": {"kind": "shakespeare", "windows": 256},
        "watch_every": 400,
        "pilot": 6,
        "rates": [1e-3, 3e-3, 6e-3, 1.2e-2],
    },
    # Deep enough for streams to matter, and long enough for most of the sudden drops of the loss.
    "stories": {
        "model": {"preset": "nano", "layers": 6},
        "training": {"steps": 3000, "batch": 32, "warmup": 100, "evaluate_every": 200},
        "corpus": {"kind": "stories", "train": 3_000_000, "windows": 256},
        "watch_every": 600,
        "pilot": 5,
        "rates": [1.5e-3, 3e-3, 6e-3],
    },
    # As long as what is read of it: of the letters above it is one and a half times their number.
    "bible": {
        "model": {"preset": "small", "block": 64, "vocabulary": 512},
        "training": RECIPE,
        "corpus": {
            "kind": "file",
            "name": "kjv.txt",
            "sha256": KJV_SHA256,
            "level": "bpe",
            "vocabulary": 512,
            "windows": 256,
        },
        "watch_every": 400,
        "pilot": 0,
        "rates": [3e-3, 6e-3, 1.2e-2],
    },
}


def name_of(experiment: str, arm: str, learning_rate: float, seed: int) -> str:
    """Name of a training's record.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: out of `ARMS`.
        learning_rate: at the end of the warm-up.
        seed: of the training.

    Returns:
        Such as "lm/letters-go-mhc-s2-lr0.003-seed100".
    """
    return record_name(experiment, f"lr{learning_rate:g}", arm, seed)


def _unit(experiment: str, arm: str, learning_rate: float, seed: int) -> Unit:
    sizes = EXPERIMENTS[experiment]
    chosen = {"learning_rate": learning_rate, "seed": seed, "decay_connections": False}
    config = {
        "model": sizes["model"] | ARMS[arm],
        "training": sizes["training"] | chosen,
        "corpus": sizes["corpus"],
        "watch_every": sizes["watch_every"],
    }
    takes = ("device", "shakespeare", "texts", "out", "stop", "progress")
    name = name_of(experiment, arm, learning_rate, seed)
    return Unit(name, run, config, (seed,), PROTOCOL, takes)


def pilot() -> list[Unit]:
    """The trainings from which the number of seeds follows (Note [Pilot] in this module)."""
    return [
        _unit(experiment, arm, PILOT_RATE, TUNING_SEED + k)
        for experiment, sizes in EXPERIMENTS.items()
        for k in range(sizes["pilot"])
        for arm in PILOT_ARMS
    ]


def tuning() -> list[Unit]:
    """The trainings that choose each arm's learning rate; some are the pilot's."""
    return [
        _unit(experiment, arm, rate, TUNING_SEED)
        for experiment, sizes in EXPERIMENTS.items()
        for arm in ARMS
        for rate in sizes["rates"]
    ]


class Power(NamedTuple):
    """What a pilot says of a comparison of two arms.

    Attributes:
        differences: seed by seed.
        deviation: their standard deviation.
        half_width: of the 95 % interval of their mean, with as many seeds as the pilot had.
        seeds: how many are needed for the half-width that is wanted, if the deviation is this; by
            chance half of such intervals come out wider.
        seeds_at_most: how many, if it is as large as the upper end of its 80 % interval.
    """

    differences: tuple[float, ...]
    deviation: float
    half_width: float
    seeds: int
    seeds_at_most: int


def power(differences: Sequence[float], wanted: float, most: int = 1000) -> Power:
    """How many seeds make a 95 % interval of a mean difference narrow enough.

    Args:
        differences: of a pilot, two or more.
        wanted: half-width.
        most: seeds, beyond which none are counted.

    Returns:
        Power; `most` where so many are not enough.

    Raises:
        ValueError: if there are fewer than two differences, or the half-width is not positive.

    Source: Student's t for the interval; chi-squared for that of the deviation.
    """
    count = len(differences)
    if count < 2 or not wanted > 0:
        raise ValueError(
            f"expected two differences or more and a half-width > 0, got {count} and {wanted}"
        )
    deviation = stdev(differences)
    upper = deviation * math.sqrt((count - 1) / stats.chi2.ppf(0.1, count - 1))

    def half(deviation: float, seeds: int) -> float:
        return float(stats.t.ppf(0.975, seeds - 1)) * deviation / math.sqrt(seeds)

    def needed(deviation: float) -> int:
        return next((n for n in range(2, most) if half(deviation, n) <= wanted), most)

    return Power(
        tuple(differences), deviation, half(deviation, count), needed(deviation), needed(upper)
    )


def pilot_power(
    experiment: str,
    records: Mapping[str, Record],
    wanted: float,
    arms: tuple[str, str] = ("go-mhc s=2", "identity"),
) -> Power:
    """The power of a pilot's comparison, from its records.

    Args:
        experiment: out of `EXPERIMENTS`.
        records: those of the pilot by name.
        wanted: half-width, as a share of the second arm's mean: of its loss above the floor, or of
            the loss itself where no floor is known.
        arms: the two compared.

    Returns:
        Power.

    Raises:
        KeyError: if a record is missing.
        ValueError: if the experiment has no pilot.
    """

    def value(arm: str, seed: int) -> float:
        metrics = records[name_of(experiment, arm, PILOT_RATE, seed)].metrics
        return metrics["loss"] if metrics["above"] is None else metrics["above"]

    seeds = [TUNING_SEED + k for k in range(EXPERIMENTS[experiment]["pilot"])]
    if not seeds:
        raise ValueError(f"expected an experiment with a pilot, got {experiment}")
    first, second = ([value(arm, seed) for seed in seeds] for arm in arms)
    base = fmean(second)
    return power([(a - b) / base for a, b in zip(first, second, strict=True)], wanted)
