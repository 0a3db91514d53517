"""Which numbers moved between two runs: ours, as the package ships them, and another's records.

After `python -m gomhc.companion.studies --out mine`, `make compare OTHER=mine` tells whether that
reproduces the book. Results are compared; provenance is not, nor what measures the machine (Note
[Timings]).

Note [Timings]
    A wall time, a rate and a memory peak belong to a machine, and another machine's are not wrong.
    They are known by name: keys of `TIMING_KEYS`, wherever they stand in a record, records of
    `TIMING_RECORDS`, which hold nothing else, and `TIMING_COLUMN`, as the evaluations of a training
    are rows of steps, loss and seconds. A study that measures time or memory names its keys so, or
    is entered here. `--timings` compares them too.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from gomhc.companion.records import SHIPPED, Record, RecordError, load
from gomhc.files import replacing

OURS = SHIPPED
SAME, MOVED, MISUSED = 0, 1, 2

TIMING_KEYS = {"seconds", "tokens_per_second", "memory", "calls"}
TIMING_RECORDS = ("benchmarks/*", "cost/time")
TIMING_COLUMN = "series.evaluations.*.2"

RELATIVE = 1e-2  # Adam's thousands of steps enlarge rounding, which differs between machines
ABSOLUTE = 1e-6  # what is zero but for the rounding of float32
ROWS = 10  # shown of one record
ABSENT = "–"  # in the place of a value that only one side has

Keys = tuple[str, ...]  # the way to a value


class Change(NamedTuple):
    """A number, or another value, that is not the same on both sides."""

    record: str
    key: str
    ours: Any
    other: Any

    @property
    def relative(self) -> float:
        """Size of the change against ours; infinite where it is not one of numbers."""
        if not (is_number(self.ours) and is_number(self.other)):
            return math.inf
        return abs(self.other - self.ours) / abs(self.ours) if self.ours else math.inf


class Comparison(NamedTuple):
    """What came of comparing two folders of records.

    Attributes:
        compared: record -> how many values were compared.
        moved: the changes beyond tolerance.
        missing: records that only we have.
        extra: records that only the other run has.
        differing: record -> keys of the configuration that differ; its numbers are not compared.
    """

    compared: dict[str, int]
    moved: list[Change]
    missing: list[str]
    extra: list[str]
    differing: dict[str, list[str]]


def is_number(value: Any) -> bool:
    """Whether it is a number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def values(node: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value of a JSON document that is no dict or list, with the way to it."""
    if isinstance(node, dict | list):
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, item in entries:
            yield from values(item, (*path, str(key)))
    else:
        yield path, node


def is_timing(record: str, path: Keys) -> bool:
    """Whether a value measures the machine (Note [Timings])."""
    if any(fnmatchcase(record, pattern) for pattern in TIMING_RECORDS):
        return True
    return not TIMING_KEYS.isdisjoint(path) or fnmatchcase(".".join(path), TIMING_COLUMN)


def is_same(ours: Any, other: Any, relative: float, absolute: float) -> bool:
    """Whether two values agree: numbers within tolerance, others exactly."""
    if is_number(ours) and is_number(other):
        return math.isclose(ours, other, rel_tol=relative, abs_tol=absolute)
    return bool(ours == other)


def findings(record: Record, timings: bool) -> dict[Keys, Any]:
    """The values of a record that are compared."""
    pairs = values({"metrics": record.metrics, "series": record.series})
    return {path: value for path, value in pairs if timings or not is_timing(record.name, path)}


def read(folder: Path, only: str) -> dict[str, Record]:
    """The records below a folder, by name.

    Raises:
        RecordError: If there are none, or one cannot be trusted or has another's name.
    """
    paths = [path for path in sorted(folder.glob("*/*.json")) if path.name[0] != "."]
    named = {f"{path.parent.name}/{path.stem}": path for path in paths}
    records = {name: load(path) for name, path in named.items() if fnmatchcase(name, only)}
    if not records:
        which = "" if only == "*" else f" that match {only!r}"
        raise RecordError(f"expected records (study/unit.json){which} in {folder}, found none")
    for name, record in records.items():
        if record.name != name:
            raise RecordError(f"expected the record {name} in {name}.json, got {record.name}")
    return records


def compare(
    ours: dict[str, Record],
    other: dict[str, Record],
    relative: float = RELATIVE,
    absolute: float = ABSOLUTE,
    timings: bool = False,
) -> Comparison:
    """Compare two sets of records, value by value.

    Args:
        ours: By name, what to compare with.
        other: By name, the other run's.
        relative: Change of a number that still counts as the same, as a share of the larger.
        absolute: Change that counts as the same however small the numbers are.
        timings: Compare what measures the machine, too.

    Returns:
        What moved, and what could not be compared.
    """
    compared, moved, differing = {}, [], {}
    for name in sorted(ours.keys() & other.keys()):
        mine, theirs = dict(values(ours[name].config)), dict(values(other[name].config))
        keys = [path for path in {**mine, **theirs} if mine.get(path) != theirs.get(path)]
        if keys:
            differing[name] = [".".join(path) for path in keys]
            continue
        mine, theirs = findings(ours[name], timings), findings(other[name], timings)
        paths = list({**mine, **theirs})
        compared[name] = len(paths)
        for path in paths:
            pair = mine.get(path, ABSENT), theirs.get(path, ABSENT)
            if not is_same(*pair, relative, absolute):
                moved.append(Change(name, ".".join(path), *pair))
    return Comparison(
        compared,
        moved,
        sorted(ours.keys() - other.keys()),
        sorted(other.keys() - ours.keys()),
        differing,
    )


def shown(value: Any) -> str:
    """A value in a table's cell."""
    text = f"{value:.6g}" if is_number(value) else " ".join(str(value).split())  # one line
    return text[:40].replace("|", "\\|")


def rows(comparison: Comparison, most: int) -> list[tuple[str, ...]]:
    """Lines of the table: of each record the largest changes, and how many more there are."""
    lines: list[tuple[str, ...]] = []
    for name in dict.fromkeys(change.record for change in comparison.moved):
        changes = [change for change in comparison.moved if change.record == name]
        changes.sort(key=lambda change: -change.relative)
        for change in changes[:most]:
            share = f"{change.relative:.2%}" if math.isfinite(change.relative) else ABSENT
            lines.append((name, change.key, shown(change.ours), shown(change.other), share))
        if len(changes) > most:
            lines.append((name, f"… and {len(changes) - most} more", "", "", ""))
    return lines


def table(lines: list[tuple[str, ...]]) -> str:
    """A Markdown table, its columns aligned for the terminal."""
    head = ("record", "number", "ours", "other", "change")
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
        return f"| {' | '.join(left + right)} |"

    rule = tuple("-" * widths[k] if k < 2 else "-" * (widths[k] - 1) + ":" for k in range(5))
    return "\n".join(map(line, [head, rule, *lines]))


def listed(names: list[str], most: int) -> str:
    """Names of records; of many, how many each study has."""
    if len(names) <= most:
        return ", ".join(names)
    studies = Counter(name.split("/")[0] for name in names)
    return ", ".join(f"{count} of {study}" for study, count in studies.items())


def report(comparison: Comparison, most: int = ROWS) -> str:
    """The comparison in words and a table, as Markdown that a terminal shows well."""
    parts = [table(rows(comparison, most))] if comparison.moved else []
    for name, keys in comparison.differing.items():
        parts.append(f"Not compared: {name}, whose configuration differs in {', '.join(keys)}.")
    for only, names in (
        ("only ours", comparison.missing),
        ("only the other run's", comparison.extra),
    ):
        if names:
            parts.append(f"Not compared, {only} ({len(names)}): {listed(names, most)}.")
    total, records = sum(comparison.compared.values()), len(comparison.compared)
    touched = len({change.record for change in comparison.moved})
    parts.append(
        f"{len(comparison.moved)} of {total} values moved, in {touched} of {records} records."
        if comparison.moved
        else f"Nothing moved: {total} values in {records} records are the same within tolerance."
    )
    return "\n\n".join(parts)


def tolerance(text: str) -> float:
    """A tolerance from the command line."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text}")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Command line: 0 if nothing moved, 1 if something did, 2 if nothing could be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="folder of the other run's records")
    parser.add_argument("--ours", type=Path, default=OURS, help="folder to compare with")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names, such as 'spectra/*'")
    parser.add_argument("--relative", type=tolerance, default=RELATIVE, help="(%(default)s)")
    parser.add_argument("--absolute", type=tolerance, default=ABSOLUTE, help="(%(default)s)")
    parser.add_argument("--timings", action="store_true", help="compare times and memory too")
    parser.add_argument("--rows", type=int, default=ROWS, help="shown of a record (%(default)s)")
    parser.add_argument("--markdown", type=Path, help="write the report to this file, too")
    asked = parser.parse_args(arguments)
    if asked.rows < 0:
        parser.error(f"expected --rows of 0 or more, got {asked.rows}")
    try:
        ours, other = read(asked.ours, asked.only), read(asked.other, asked.only)
    except RecordError as error:
        print(error, file=sys.stderr)
        return MISUSED
    comparison = compare(ours, other, asked.relative, asked.absolute, asked.timings)
    said = report(comparison, asked.rows)
    print(said)
    if asked.markdown:
        try:
            with replacing(asked.markdown) as draft:
                draft.write_text(said + "\n", encoding="utf-8")
        except OSError as error:
            print(f"expected a file to write to as --markdown: {error}", file=sys.stderr)
            return MISUSED
    if not any(comparison.compared.values()):
        print(
            "expected records of both runs with the same configuration, found none", file=sys.stderr
        )
        return MISUSED
    return MOVED if comparison.moved else SAME


if __name__ == "__main__":
    sys.exit(main())
