"""Trainings long enough to decide whether mixing matters: on real texts, and on stories.

Note [Pilot]
    Three arms are trained first, with seeds of their own, at one learning rate. The spread of their
    paired differences says how many seeds the comparison needs. The first of these seeds chooses
    the learning rate of every arm as well; what is reported comes from other seeds.
"""

from typing import Any

from gomhc.companion.studies import language_models
from gomhc.companion.studies.base import Unit
from gomhc.companion.studies.language_models import run

__all__ = ["ARMS", "EXPERIMENTS", "PILOT_ARMS", "name_of", "pilot", "tuning"]

PROTOCOL = 1
TUNING_SEED = 100  # the first of those that are not reported
PILOT_ARMS = ("residual", "identity", "go-mhc s=2")
PILOT_RATE = 3e-3
ARMS = language_models.ARMS | {
    "orthogonal": {"mixer": "orthogonal"},
    "transport": {"mixer": "transport"},
}
KJV_SHA256 = "93cbff53fc77bb00401028092a94521986a59764c741696ad4b15a0576460507"
# nanoGPT's recipe for a CPU, at other learning rates: its evaluation loss on Tiny Shakespeare is
# given as 1.88.
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
    # Deep enough for streams to matter, until most steps of recall are taken.
    "stories": {
        "model": {"preset": "nano", "layers": 6},
        "training": {"steps": 3000, "batch": 32, "warmup": 100, "evaluate_every": 200},
        "corpus": {"kind": "stories", "train": 3_000_000, "windows": 256},
        "watch_every": 600,
        "pilot": 5,
        "rates": [1.5e-3, 3e-3, 6e-3],
    },
    # Longer than what is read of it: nothing comes twice.
    "bible": {
        "model": {"preset": "small", "block": 64, "vocabulary": 1024},
        "training": RECIPE,
        "corpus": {
            "kind": "file",
            "name": "kjv.txt",
            "sha256": KJV_SHA256,
            "level": "bpe",
            "vocabulary": 1024,
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
