"""What a claim, a finding and a verdict are, and how a claim is judged from records."""

import errno
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gomhc.companion import records
from gomhc.companion.records import Record, RecordError
from gomhc.companion.studies.base import GO as GO

HOLDS, CAVEAT, FAILS, OPEN = "holds", "holds with a caveat", "does not hold", "not tested"
UNDECIDED = "not decided at this size"
# Verdict -> symbol
VERDICTS = {HOLDS: "✓", CAVEAT: "◐", FAILS: "✗", UNDECIDED: "≈", OPEN: "–"}
# Verdict -> what one claim does, and what several do
COUNTED = {
    HOLDS: (HOLDS, "hold"),
    CAVEAT: (CAVEAT, "hold with a caveat"),
    FAILS: (FAILS, "do not hold"),
    UNDECIDED: ("is not decided at the size tried", "are not decided at the size tried"),
    OPEN: ("is not tested", "are not tested"),
}

MOST = 0.95  # share of uniform samples that is as good as all
RIVALS = ("mhc-lite", "kromhc", "mhc")
NAMES = {
    "go-mhc s=1": "go-mHC (s = 1)",
    "go-mhc s=2": "go-mHC (s = 2)",
    "kromhc": "KromHC",
    "mhc": "mHC",
    "mhc-lite": "mHC-lite",
    "residual": "the plain residual",
}

# Headings of the ledger, in its order
CONSTRUCTION, REACH, MINIMUM, SPEED, FIGURES, COMPOSITION, KROMHC, LATER, LANGUAGE = GROUPS = (
    "The construction",
    "Reach and spectra",
    "Stream mixing: the minimum",
    "Stream mixing: ten times faster",
    "Stream mixing: the published numbers",
    "Composition and cost",
    "KromHC, mHC and mHC-lite",
    "After the paper: rotations, and a chart of the polytope",
    "Language models",
)
ABSTRACT, KROMHC_ABSTRACT = "go-mHC, abstract", "KromHC, abstract"


_CHAPTERS = (
    "01-residual-streams",
    "02-derivation",
    "03-birkhoff-polytope",
    "04-spectra",
    "05-stream-mixing",
    "06-composition-and-cost",
    "07-language-model",
    "08-verdicts",
)


def figure(chapter: int, name: str) -> str:
    """Where a figure of a chapter is."""
    return f"notebooks/{_CHAPTERS[chapter - 1]}.ipynb#fig-{name}"


class Finding(NamedTuple):
    """What a judge says: verdict, its numbers in a sentence and raw, and what to keep in mind."""

    verdict: str
    measured: str
    values: dict[str, Any]
    caveat: str = ""


Records = Mapping[str, Record]  # name -> record
Number = int | float  # JSON does not tell 1.0 from 1


@dataclass(frozen=True)
class Claim:
    """A statement of a source and the criterion that it is judged by.

    Criteria are fixed before the runs; chapter 8 names those that a first look has changed.

    Attributes:
        id: short name, in small letters and hyphens.
        group: heading under which it stands.
        statement: what the source says, in our words.
        source: where it says so.
        criterion: when it holds, with its thresholds.
        figure: "notebooks/….ipynb#fig-…" that shows it.
        records: names of the records that decide it.
        rule: records by name -> finding, only called when all are there.
    """

    id: str
    group: str
    statement: str
    source: str
    criterion: str
    figure: str
    records: tuple[str, ...]
    rule: Callable[[Records], Finding] = field(repr=False)


@dataclass(frozen=True)
class Verdict:
    """One line of the ledger: a claim and what came of it.

    Attributes:
        id: of the claim.
        group: of the claim.
        statement: what the source says, in our words.
        source: where it says so.
        criterion: when it holds, with its thresholds.
        measured: what the records say, with its spread; why not, if it was not tested.
        verdict: one of `VERDICTS`.
        caveat: what the verdict alone would hide; may be empty.
        values: the numbers behind `measured`.
        figure: "notebooks/….ipynb#fig-…".
        records: names of the records that decided.
    """

    id: str
    group: str
    statement: str
    source: str
    criterion: str
    measured: str
    verdict: str
    caveat: str
    values: dict[str, Any]
    figure: str
    records: tuple[str, ...]


def judge(claim: Claim, folder: str | Path | None = None) -> Verdict:
    """Judge one claim from stored records, as `gomhc.companion.claims.ledger` judges all.

    Args:
        claim: out of `gomhc.companion.claims.CLAIMS`, or one's own.
        folder: of records; those shipped with the package if not given.

    Returns:
        The verdict.
    """
    return judged(claim, reader(folder))


def judged(claim: Claim, read: Callable[[str], Record]) -> Verdict:
    """Judge one claim from the records that `read` gives."""
    try:
        finding = claim.rule({name: read(name) for name in claim.records})
    except FileNotFoundError as error:
        finding = Finding(OPEN, f"not tested: there is no record {error.filename}", {})
    except RecordError as error:
        finding = Finding(OPEN, f"not tested: {error}", {})
    except LookupError as error:
        finding = Finding(OPEN, f"not tested: the records have no entry {error}", {})
    return Verdict(
        id=claim.id,
        group=claim.group,
        statement=claim.statement,
        source=claim.source,
        criterion=claim.criterion,
        measured=finding.measured,
        verdict=finding.verdict,
        caveat=finding.caveat,
        values=finding.values,
        figure=claim.figure,
        records=claim.records,
    )


def reader(folder: str | Path | None) -> Callable[[str], Record]:
    """What reads records of a folder, or the shipped ones, by name: each from disk only once."""
    return functools.cache(functools.partial(_read, folder=folder))


def _read(name: str, folder: str | Path | None) -> Record:
    if folder is None:
        if name not in records.shipped_names():
            raise FileNotFoundError(errno.ENOENT, "not shipped", name)
        return records.shipped(name)
    path = records.file_of(name, folder)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "not there", name)
    record = records.load(path)
    if record.name != name:
        raise RecordError(f"{path}: expected the record {name}, got {record.name}")
    return record


# Words for numbers


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Number) -> str:
    """A number as a reader writes it: three figures, 1,234 with a comma, small ones as 1.2 × 10⁻⁵.

    Args:
        value: finite; a tensor of one element will do.

    Returns:
        Plain text.
    """
    value = float(value)
    if value and abs(value) < 1e-3:
        digits, _, exponent = f"{value:.1e}".partition("e")
        power = "10" + str(int(exponent)).translate(_RAISED)
        return f"{digits.removesuffix('.0')} × {power}".removeprefix("1 × ")
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def span(values: Iterable[Number]) -> str:
    """Lowest to highest."""
    values = list(values)
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def by_d(table: Mapping[int, Number]) -> str:
    return ", ".join(f"{number(value)} at d = {d}" for d, value in table.items())


def grade(holds: bool, caveat: bool = False) -> str:
    return HOLDS if holds else CAVEAT if caveat else FAILS
