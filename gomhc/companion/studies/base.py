"""What every study is made of: outcomes, units of work, and mixers by their labels."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from gomhc.mixers import make_mixer
from gomhc.mixers.base import Mixer

__all__ = ["Outcome", "Unit", "mixer"]


class Outcome(NamedTuple):
    """What a runner found, in plain JSON: floats, lists and dicts, None for what is not a number.

    Attributes:
        metrics: findings by name.
        series: curves and histograms by name, lists of numbers in dicts.
    """

    metrics: dict[str, Any]
    series: dict[str, Any]


class Unit(NamedTuple):
    """One record's worth of work: `run(**config)`, an Outcome.

    Attributes:
        name: of the record, "study/unit".
        run: a function of the study's module.
        config: its arguments for the full profile, in plain JSON.
        seeds: every seed that it uses, as a note.
    """

    name: str
    run: Callable[..., Outcome]
    config: dict[str, Any]
    seeds: tuple[int, ...]


def mixer(label: str, d: int) -> Mixer:
    """Make the mixer that a label names: "go-mhc s=2", "mhc iterations=10", "kromhc factors=2x4".

    Args:
        label: a name out of `MIXERS`, then its options as option=integer; factors as 2x4.
        d: number of streams.

    Returns:
        The mixer.

    Raises:
        ValueError: if the label is not of that form or names no mixer, or the mixer does not allow
            d or the option's value.
        TypeError: if the mixer has no such option.
    """
    name, *parts = label.split() or [""]
    options: dict[str, Any] = {}
    for option, _, value in (part.partition("=") for part in parts):
        form = r"\d+(x\d+)*" if option == "factors" else r"\d+"
        if option in options or not re.fullmatch(form, value):
            raise ValueError(f"expected a label such as 'go-mhc s=2', got {label!r}")
        numbers = tuple(map(int, value.split("x")))
        options[option] = numbers if option == "factors" else numbers[0]
    return make_mixer(name, d, **options)
