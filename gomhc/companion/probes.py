"""Probes: do the studies still give the numbers that they gave?

Each probe runs what some units run, at a size of seconds. Its outcome is stored beside the records
and compared with that of today's code by the tests, so that a change that moves numbers is seen,
whether it came from this library, from torch or from a compiler.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gomhc.companion import records
from gomhc.companion.records import Record
from gomhc.companion.studies.base import Probe

STORED = Path(__file__).resolve().parent / "data" / "probes"
SHOWN = 5  # numbers of a message


def run(probe: Probe) -> Record:
    """What a probe finds with today's code."""
    return records.make(probe.name, probe.run, probe.config)


def renew(probe: Probe, folder: Path = STORED) -> Path:
    """Run a probe and store what it finds; the path of its file."""
    return records.save(run(probe), folder)


def check(probe: Probe, folder: Path = STORED) -> None:
    """Run a probe again, and compare.

    Args:
        probe: one.
        folder: where its outcome is stored.

    Raises:
        AssertionError: if a number has moved beyond the probe's tolerances, or nothing is stored
            for its configuration; the message names the units.
    """
    units = ", ".join(probe.units)
    try:
        stored = records.load(records.file_of(probe.name, folder))
    except FileNotFoundError:
        raise AssertionError(f"{probe.name}: no probe of {units} is stored: make probes") from None
    if stored.config != probe.config:
        raise AssertionError(f"{probe.name}: the probe of {units} has changed: make probes")
    if changes := moved(probe, stored, run(probe)):
        more = f"\n  … and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise AssertionError(
            f"{units}: numbers moved: if that was meant, raise the protocol and renew the record "
            f"(and `make probes`)\n  " + "\n  ".join(changes[:SHOWN]) + more
        )


def moved(probe: Probe, stored: Record, today: Record) -> list[str]:
    """What differs beyond the probe's tolerances, each as "place: value, was value"."""
    before, after = ({"metrics": r.metrics, "series": r.series} for r in (stored, today))
    return list(_moved(probe, before, after, ""))


def _moved(probe: Probe, before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            if key not in probe.ignored:
                inside = f"{place}[{key!r}]" if place else key
                old, new = before.get(key, "absent"), after.get(key, "absent")
                yield from _moved(probe, old, new, inside)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for k, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _moved(probe, old, new, f"{place}[{k}]")
    elif not _same(probe, before, after):
        yield f"{place}: {after}, was {before}"


def _same(probe: Probe, before: Any, after: Any) -> bool:
    numbers = [type(value) in (int, float) for value in (before, after)]
    if all(numbers):
        return math.isclose(before, after, rel_tol=probe.relative, abs_tol=probe.absolute)
    return type(before) is type(after) and bool(before == after)
