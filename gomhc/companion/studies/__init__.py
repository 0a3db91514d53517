"""Studies: runners that turn plain configs into outcomes, one topic a module.

`python -m gomhc.companion.studies` makes the record of every unit of the full profile.
"""

from gomhc.companion.studies.base import Outcome, Unit, mixer

__all__ = ["Outcome", "Unit", "mixer", "units"]


def units() -> list[Unit]:
    """Every unit of the full profile, topic by topic, in the order in which they are made."""
    # Here and not above, as each topic imports `base`, and with it this file, first.
    from gomhc.companion.studies import cost, polytope, spectra, stream_mixing

    return [*polytope.UNITS, *spectra.UNITS, *stream_mixing.UNITS, *cost.UNITS]
