"""What a record holds: declared once, checked when one is stored and when one is read."""

import hashlib
import json
import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

SCHEMA = 2

Name = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.-]*\Z")]
Commit = Annotated[str, Meta(pattern=r"\A(unknown|[0-9a-f]{40}|[0-9a-f]{64})\Z")]
Moment = Annotated[str, Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)\Z")]
# JSON does not tell 41.0 from 41.
Seconds = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
Number = int | float | None
Curve = list[Number | list[Number]]


class RecordError(ValueError):
    """A record that cannot be trusted, stored or found; the message says which, and why."""


class Provenance(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a record's numbers come from: history, which decides nothing.

    Attributes:
        commit: git commit of the checkout that holds gomhc, "unknown" outside of one.
        dirty: whether Python sources of the checkout differed from that commit.
        seeds: every seed of the run.
        device: "CPU, 2 threads", or the GPU's name.
        versions: of Python, gomhc and the libraries used.
        started: when, in UTC, ISO 8601.
        wall_seconds: how long it took.
        cpu_seconds: processor time of this process and of the ones that it has waited for.
    """

    commit: Commit
    dirty: bool
    seeds: tuple[int, ...]
    device: str
    versions: dict[str, str]
    started: Moment
    wall_seconds: Seconds
    cpu_seconds: Seconds


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """One stored result: strict JSON but for its provenance.

    Attributes:
        name: "study/unit", in small letters, digits and hyphens; the unit may have dots.
        protocol: of the unit when it ran; it is raised when the numbers are meant to move.
        config: the arguments of the run.
        metrics: the findings, dicts and lists of numbers, strings, booleans and None.
        series: curves and histograms, lists of numbers (None where there is none) in dicts.
        provenance: where they come from.
    """

    name: Name
    protocol: Annotated[int, Meta(ge=1)]
    config: dict[str, Any]
    metrics: dict[str, Any]
    series: dict[str, Curve | dict[str, Curve | dict[str, Curve]]]
    provenance: Provenance


def check_name(name: Any) -> None:
    """Raise RecordError unless the name is "study/unit"; such a name cannot lead elsewhere."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise RecordError(
            f"{name!r}: expected a name study/unit in small letters, digits, hyphens and (in the "
            f"unit) dots: {error}"
        ) from None


def check_plain(value: Any, where: str) -> None:
    """Raise RecordError, with the path to the entry, unless all is plain, finite JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{where}: expected keys that are strings, got {key!r}")
            check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check_plain(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{where}: expected a finite number or None, got {value}")
    elif value is not None and type(value) not in (str, int, float, bool):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise RecordError(f"{where}: expected a dict, list, string, number or None, got {kind}")


def check(entries: dict[str, Any], where: str) -> Record:
    """The record that these entries make.

    Raises:
        RecordError: if one is not what a record may hold; the message begins with `where` and names
            the place.
    """
    check_plain(entries, where)
    try:
        return msgspec.convert(entries, Record)
    except msgspec.ValidationError as error:
        raise RecordError(f"{where}: {error}") from None


def document(record: Record) -> dict[str, Any]:
    """A record as the document that its file holds.

    Raises:
        RecordError: if an entry is not one that a record may hold: an infinity, a NaN, a tuple, a
            tensor.
    """
    entries = msgspec.structs.asdict(record)
    provenance = msgspec.structs.asdict(record.provenance)
    entries["provenance"] = provenance | {"seeds": list(record.provenance.seeds)}
    check(entries, record.name)
    return {"schema": SCHEMA, "checksum": checksum(entries)} | entries


def parse(data: bytes, where: str) -> Record:
    """A record from a file's content; `where` names the file in the messages.

    Raises:
        RecordError: if it is cut short, edited, of another schema, or none.
    """
    try:
        entries = msgspec.json.decode(data)
    # Not JSON or UTF-8, a number that is none or too large; brackets beyond Python's stack.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = f"expected whole JSON and finite numbers, got a file cut short or damaged: {error}"
        raise RecordError(f"{where}: {reason}") from error
    if not isinstance(entries, dict):
        raise RecordError(f"{where}: expected a JSON object, got {type(entries).__name__}")
    schema, stated = entries.pop("schema", None), entries.pop("checksum", None)
    if type(schema) is not int or schema != SCHEMA:
        newer = type(schema) is int and schema > SCHEMA
        reason = ": a newer gomhc wrote this record" if newer else ""
        raise RecordError(f"{where}: expected schema {SCHEMA}, got {schema!r}{reason}")
    if stated != (actual := checksum(entries)):
        reason = f"expected content of checksum {stated}, got {actual}"
        raise RecordError(f"{where}: {reason}: the file was edited or damaged after it was made")
    return check(entries, where)


def checksum(entries: dict[str, Any]) -> str:
    """Of the content, whatever the layout of the file."""
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
