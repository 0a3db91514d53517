"""Trainings long enough to decide whether mixing matters: on real text, and on stories.

Note [Pilot]
    Three arms are trained first, with seeds of their own, at one learning rate. The spread of their
    paired differences says how many seeds the comparison needs. The same seeds choose the learning
    rate of every arm; what is reported comes from other seeds.
"""

from typing import Any

from gomhc.companion.studies.base import Unit
from gomhc.companion.studies.language_models import ARMS, run

__all__ = ["EXPERIMENTS", "PILOT_ARMS", "name_of", "pilot"]

PROTOCOL = 1
TUNING_SEED = 100  # the first of those that are not reported
PILOT_ARMS = ("residual", "identity", "go-mhc s=2")
EXPERIMENTS: dict[str, dict[str, Any]] = {
    # nanoGPT's recipe for a CPU, whose published evaluation loss is 1.88, at other learning rates.
    "letters": {
        "model": {"preset": "small", "block": 64, "vocabulary": 65},
        "training": {
            "steps": 2000,
            "batch": 12,
            "warmup": 100,
            "betas": [0.9, 0.99],
            "evaluate_every": 100,
        },
        "corpus": {"kind": "shakespeare", "windows": 512},
        "watch_every": 500,
        "pilot": {"learning_rate": 3e-3, "seeds": 6},
    },
    # Deep enough for streams to matter, until most steps of recall are taken.
    "stories": {
        "model": {"preset": "nano", "layers": 6},
        "training": {
            "steps": 3000,
            "batch": 32,
            "warmup": 100,
            "evaluate_every": 100,
        },
        "corpus": {"kind": "stories", "train": 3_000_000, "windows": 256},
        "watch_every": 500,
        "pilot": {"learning_rate": 3e-3, "seeds": 5},
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
    return f"lm/{experiment}-{arm.replace(' s=', '-s')}-lr{learning_rate:g}-seed{seed}"


def _unit(experiment: str, arm: str, learning_rate: float, seed: int) -> Unit:
    sizes = EXPERIMENTS[experiment]
    chosen = {"learning_rate": learning_rate, "seed": seed, "decay_connections": False}
    config = {
        "model": sizes["model"] | ARMS[arm],
        "training": sizes["training"] | chosen,
        "corpus": sizes["corpus"],
        "watch_every": sizes["watch_every"],
    }
    takes = ("device", "shakespeare", "out", "stop", "progress")
    return Unit(
        name_of(experiment, arm, learning_rate, seed), run, config, (seed,), PROTOCOL, takes
    )


def pilot() -> list[Unit]:
    """The trainings from which the number of seeds follows, seed by seed."""
    return [
        _unit(experiment, arm, sizes["pilot"]["learning_rate"], TUNING_SEED + k)
        for experiment, sizes in EXPERIMENTS.items()
        for k in range(sizes["pilot"]["seeds"])
        for arm in PILOT_ARMS
    ]
