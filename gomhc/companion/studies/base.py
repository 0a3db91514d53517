"""What every study is made of: outcomes, units of work, probes, and mixers by their labels."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from gomhc.mixers import make_mixer
from gomhc.mixers.base import Mixer

__all__ = ["Outcome", "Probe", "Stopped", "Unit", "mixer"]


# Records of benchmarks, which run from a clone and are not part of the package: name -> protocol,
# raised when other numbers are meant.
BENCHMARKS = {
    "benchmarks/mixers-cpu": 2,
    "benchmarks/mixers-gpu": 2,
    "benchmarks/layer-cpu": 1,
    "benchmarks/layer-gpu": 1,
}


GO = "go-mhc s=2"  # the label that others are compared with
LATER = ("orthogonal", "transport")  # mixers that came after the paper


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
        config: its arguments, in plain JSON.
        seeds: every seed that it uses, as a note.
        protocol: raised when its numbers are meant to move. A record is current when its
            configuration, seeds and protocol are those of the unit.
        takes: what `run` takes from the command beside its configuration, by name: device,
            shakespeare, texts, out (a folder of checkpoints), stop (a question asked as it runs)
            and progress. No number depends on these.
    """

    name: str
    run: Callable[..., Outcome]
    config: dict[str, Any]
    seeds: tuple[int, ...]
    protocol: int
    takes: tuple[str, ...] = ()


class Probe(NamedTuple):
    """The smoke size of what units run: the tests run it again and compare.

    Numbers agree if they differ by no more than `absolute`, or `relative` times the larger one.

    Attributes:
        name: of its record among the probes, "study/probe".
        run: what is run, with the units' code; an Outcome.
        config: its arguments, in plain JSON.
        units: patterns of the names of the units that it stands for.
        relative: tolerance. The default is far above what another processor's order of summation
            moves in float64, and far below what a changed constant does.
        absolute: tolerance, for what is 0 but for rounding.
        ignored: keys of what belongs to the machine, such as times, wherever they stand.
    """

    name: str
    run: Callable[..., Outcome]
    config: dict[str, Any]
    units: tuple[str, ...]
    relative: float = 1e-6
    absolute: float = 1e-9
    ignored: tuple[str, ...] = ()


class Stopped(Exception):
    """The time was up in the middle of a run; it goes on from its checkpoint."""


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
