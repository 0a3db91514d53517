"""Studies: runners that turn plain configs into outcomes, one topic a module.

`python -m gomhc.studies` makes the record of every unit of the full profile.
"""

import importlib

from gomhc.studies.base import Outcome, Unit, mixer

__all__ = ["Outcome", "Unit", "mixer", "units"]


def units() -> list[Unit]:
    """Every unit of the full profile, topic by topic, in the order in which they are made."""
    # Here and not above: each topic imports `base`, and so this file, before it has its UNITS.
    from gomhc.studies import cost, stream_mixing

    found: list[Unit] = []
    for topic in ("polytope", "spectra"):  # until both are written; then import them above
        try:
            found += importlib.import_module(f"gomhc.studies.{topic}").UNITS
        except ModuleNotFoundError as error:
            if error.name != f"gomhc.studies.{topic}":
                raise
    return [*found, *stream_mixing.UNITS, *cost.UNITS]
