"""Studies: runners that turn plain configs into outcomes, one topic a module.

`python -m gomhc.companion.studies` makes the records of their units.
"""

import functools

from gomhc.companion import records
from gomhc.companion.studies.base import BENCHMARKS, Outcome, Probe, Stopped, Unit, mixer

__all__ = [
    "Outcome",
    "Probe",
    "Stopped",
    "Unit",
    "describe",
    "differences",
    "is_current",
    "mixer",
    "probes",
    "units",
]


def units(profile: str | None = None) -> list[Unit]:
    """The units of all studies, in the order in which they are made.

    Args:
        profile: of the language models, "smoke", "book" or "full"; these alone then. None gives
            every other study, at its full size.

    Returns:
        The units.

    Raises:
        ValueError: if there is no such profile.
    """
    # Here and not above, as each topic imports `base`, and with it this file, first.
    from gomhc.companion.studies import cost, polytope, spectra, stream_mixing, training_plan

    if profile is not None:
        return training_plan.units(profile)
    return [*polytope.UNITS, *spectra.UNITS, *stream_mixing.UNITS, *cost.UNITS]


def probes() -> list[Probe]:
    """The probes of all studies."""
    from gomhc.companion.studies import cost, polytope, spectra, stream_mixing, training_plan

    topics = (polytope, spectra, stream_mixing, cost, training_plan)
    return [probe for topic in topics for probe in topic.PROBES]


def differences(unit: Unit, record: records.Record) -> list[str]:
    """Why a record is not that of a unit: which of name, configuration, seeds, protocol differ.

    Args:
        unit: as it is now.
        record: stored under its name.

    Returns:
        Nothing, if the record is current.
    """
    pairs = {
        "name": (unit.name, record.name),
        "configuration": (unit.config, record.config),
        "seeds": (tuple(unit.seeds), record.provenance.seeds),
        "protocol": (unit.protocol, record.protocol),
    }
    return [what for what, (asked, stored) in pairs.items() if asked != stored]


@functools.cache
def _known() -> dict[str, Unit]:
    everything = [*units(), *units("book"), *units("full")]
    return {unit.name: unit for unit in everything}


def _changes(record: records.Record) -> list[str] | None:
    """In what a record differs from its unit or benchmark as it is now; None if it has neither."""
    if unit := _known().get(record.name):
        return differences(unit, record)
    if protocol := BENCHMARKS.get(record.name):
        return ["protocol"] if record.protocol != protocol else []
    return None


def is_current(record: records.Record) -> bool:
    """Whether a record is that of its unit, or of its benchmark's protocol, as it is now.

    Args:
        record: any.

    Returns:
        Yes or no; yes for a record of neither.
    """
    return not _changes(record)


def describe(record: records.Record) -> str:
    """Where a record's numbers come from, and whether they are those of today's code.

    Args:
        record: of a unit, of a benchmark, or another.

    Returns:
        One Markdown sentence. That the numbers are today's is what the tests of the probes show.
    """
    facts = records.describe(record)
    changes = _changes(record)
    if changes is None:
        return f"{facts}."
    if changes:
        return f"{facts}; **today's unit differs in {', '.join(changes)}.**"
    return f"{facts}; today's code gives the same numbers, times aside, at the smoke size."
