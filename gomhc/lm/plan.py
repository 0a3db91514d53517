"""The queue of trainings that chapter 7 rests on: arms, sizes, and what is tried in which order."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gomhc.lm.model import RESIDUAL

__all__ = ["ARMS", "RATES", "SIZES", "Job", "queue", "record_name"]

ARMS: dict[str, dict[str, Any]] = {
    "residual": {"mixer": RESIDUAL},
    "identity": {"mixer": "identity"},
    "hc": {"mixer": "hc"},
    "mhc": {"mixer": "mhc"},
    "mhc-lite": {"mixer": "mhc-lite"},
    "kromhc": {"mixer": "kromhc"},
    "go-mhc s=1": {"mixer": "go-mhc", "s": 1},
    "go-mhc s=2": {"mixer": "go-mhc", "s": 2},
    "kron-go s=2": {"mixer": "kron-go", "s": 2},
}
# Learning rates as shares of the size's own, and what a job calls them
RATES = {0.3: "lr-low", 1.0: "d4", 3.0: "lr-high"}
SIZES: dict[str, dict[str, Any]] = {
    # Of the models and trainings of a profile; `seeds` are paired over the arms.
    "smoke": {
        "model": {"preset": "nano", "block": 32, "width": 32},
        "training": {
            "steps": 4,
            "batch": 2,
            "warmup": 1,
            "evaluate_every": 2,
            "learning_rate": 3e-3,
        },
        "tokens": 2000,
        "windows": 2,
        "seeds": (0,),
    },
    "book": {
        "model": {"preset": "nano"},
        "training": {"steps": 300, "batch": 16, "evaluate_every": 20, "learning_rate": 1e-2},
        "tokens": 300_000,
        "windows": 32,
        "seeds": (0, 1, 2),
    },
    "full": {
        "model": {"preset": "small"},
        "training": {
            "steps": 1500,
            "batch": 64,
            "warmup": 100,
            "evaluate_every": 100,
            "learning_rate": 3e-3,
        },
        "tokens": 6_000_000,
        "windows": 256,
        "seeds": (0, 1, 2),
    },
}
LARGE_ARMS = ("residual", "identity", "mhc", "mhc-lite", "kromhc", "go-mhc s=2")
WIDE_ARMS = ("identity", "kromhc", "go-mhc s=2", "kron-go s=2")  # at d = 8
TEXT_ARMS = ("residual", "identity", "mhc", "kromhc", "go-mhc s=2")  # on Tiny Shakespeare


class Job(NamedTuple):
    """One training of the queue.

    Attributes:
        name: of its record.
        config: arguments of `run`, plain JSON.
    """

    name: str
    config: dict[str, Any]


def record_name(profile: str, what: str, arm: str, seed: int) -> str:
    """Name of a training's record.

    Args:
        profile: its size.
        what: "d4" for an arm at the size's own settings, or what is different.
        arm: out of `ARMS`.
        seed: of the training.

    Returns:
        Such as "lm/book-go-mhc-s2-d4-seed0".
    """
    label = f"{arm}-{what}".replace(" s=", "-s")
    return f"lm/{profile}-{label}-seed{seed}"


def queue(profile: str) -> list[Job]:
    """The trainings of a profile, in the order in which they are worth having.

    Args:
        profile: "smoke", "book" or "full".

    Returns:
        Jobs: the arms at d = 4, seed by seed; other learning rates for the first seed; the authors'
        sizes (full profile only); starts of θ; d = 8; Tiny Shakespeare; other learning rates for
        the other seeds.

    Raises:
        ValueError: if there is no such profile.
    """
    if profile not in SIZES:
        raise ValueError(f"expected one of {', '.join(SIZES)}; got {profile!r}")
    sizes = SIZES[profile]
    first, *others = sizes["seeds"]
    own = sizes["training"]["learning_rate"]
    shared = {
        "model": sizes["model"],
        "training": sizes["training"],
        "corpus": {"kind": "stories", "train": sizes["tokens"], "windows": sizes["windows"]},
    }

    def job(what: str, arm: str, seed: int, model: Any = (), training: Any = ()) -> Job:
        config = dict(shared)
        config["model"] = shared["model"] | ARMS[arm] | dict(model)
        config["training"] = shared["training"] | {"seed": seed} | dict(training)
        return Job(record_name(profile, what, arm, seed), config)

    def at_rates(seeds: Sequence[int]) -> list[Job]:
        return [
            job(what, arm, seed, training={"learning_rate": share * own})
            for seed in seeds
            for share, what in RATES.items()
            if what != "d4"
            for arm in ARMS
        ]

    jobs = [job("d4", arm, seed) for seed in sizes["seeds"] for arm in ARMS]
    jobs += at_rates([first])
    if profile == "full":
        large = {"preset": "paper-30m"}
        training = {"steps": 300, "batch": 64, "learning_rate": 1e-3, "warmup": 30}
        jobs += [job("paper-30m", arm, first, large, training) for arm in LARGE_ARMS]
    starts: dict[str, dict[str, Any]] = {
        "dead": {"dead_start": True},
        "mass0.001": {"off_diagonal_mass": 0.001},
        "mass0.1": {"off_diagonal_mass": 0.1},
    }
    jobs += [
        job(what, "go-mhc s=2", seed, change)
        for seed in sizes["seeds"]
        for what, change in starts.items()
    ]
    jobs += [job("d8", arm, seed, {"d": 8}) for seed in sizes["seeds"] for arm in WIDE_ARMS]
    letters = {"kind": "shakespeare", "windows": sizes["windows"]}
    for arm in TEXT_ARMS:
        made = job("shakespeare", arm, first, {"dropout": 0.2})
        jobs.append(Job(made.name, made.config | {"corpus": letters}))
    return jobs + at_rates(others)
