"""Studies: runners that turn plain configs into outcomes, one topic a module.

`python -m gomhc.studies` makes the record of every unit of the full profile.
"""

from gomhc.studies.base import Outcome, Unit, mixer

__all__ = ["Outcome", "Unit", "mixer", "units"]


def units() -> list[Unit]:
    """Every unit of the full profile, topic by topic, in the order in which they are made."""
    # Here and not above, as each topic imports `base`, and with it this file, first.
    import importlib

    found: list[Unit] = []
    for topic in ("polytope", "spectra", "stream_mixing", "cost"):
        try:
            module = importlib.import_module(f"gomhc.studies.{topic}")
        except ModuleNotFoundError as error:  # development only: the topic is being written
            if error.name != f"gomhc.studies.{topic}":
                raise
            continue
        found += module.UNITS
    return found
