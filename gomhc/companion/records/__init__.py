"""Records: what an experiment found, with what it takes to judge and repeat it, as readable JSON.

A record is one file, complete or absent. `make` runs an experiment and notes where its numbers
come from; `save` and `load` move records to and from disk, and `shipped` reads those that come with
the package. A file that was cut short, edited, or written by a newer version is refused.
"""

from gomhc.companion.records.provenance import describe, duration, make
from gomhc.companion.records.shape import Provenance, Record, RecordError
from gomhc.companion.records.store import SHIPPED, file_of, load, save, shipped, shipped_names

__all__ = [
    "SHIPPED",
    "Provenance",
    "Record",
    "RecordError",
    "describe",
    "duration",
    "file_of",
    "load",
    "make",
    "save",
    "shipped",
    "shipped_names",
]
