"""How long trainings will take: a few steps of each configuration are timed."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gomhc.companion.studies.base import Unit

__all__ = ["estimate"]

STEPS = 6  # timed; the first, which compiles, does not count
# What is changed of a training to time it.
SHORT: dict[str, Any] = {"steps": STEPS, "warmup": 0, "evaluate_every": STEPS}
SMALL = {"train": 20_000, "windows": 2}  # of the corpus, where it has such sizes


def estimate(units: Iterable[Unit], given: Mapping[str, Any]) -> dict[str, float]:
    """Time a few steps of every configuration and reckon the whole from them.

    Args:
        units: trainings.
        given: what `run` takes beside the configuration: device, shakespeare, texts.

    Returns:
        Name -> seconds of all its steps; evaluations and reports of the streams come on top.
        A configuration that fails, such as one whose text is not there, has no entry.
    """
    # Here and not above: what trains takes seconds to import.
    from gomhc.companion.studies.language_models import gpt_config

    speeds: dict[str, float | None] = {}
    seconds = {}
    for unit in units:
        training = unit.config["training"]
        key = json.dumps([unit.config["model"], unit.config["corpus"], training["batch"]])
        if key not in speeds:
            speeds[key] = _tokens_per_second(unit, given)
        speed = speeds[key]
        if speed is not None:
            tokens = training["steps"] * training["batch"] * gpt_config(unit.config["model"]).block
            seconds[unit.name] = tokens / speed
    return seconds


def _tokens_per_second(unit: Unit, given: Mapping[str, Any]) -> float | None:
    config = unit.config
    corpus = {key: SMALL.get(key, value) for key, value in config["corpus"].items()}
    short = {"training": config["training"] | SHORT, "corpus": corpus, "watch_every": None}
    try:
        speed: float | None = unit.run(**config | short, **given).metrics["tokens_per_second"]
    except (OSError, ValueError, RuntimeError):
        return None
    return speed
