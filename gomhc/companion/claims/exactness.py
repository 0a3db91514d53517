"""How exact a mixer has to be, and the rule of the claims that it is."""

import math
from collections.abc import Callable, Iterable, Mapping

from gomhc.companion.claims.base import Finding, Number, Records, grade, number

ROUNDING = {"float32": 1e-5, "float64": 1e-12}
ORDINARY = 100  # largest |θ| at which the float32 promise must hold without a caveat
EXACT = (
    "Row and column sums are within "
    + " and ".join(f"{number(limit)} ({dtype})" for dtype, limit in ROUNDING.items())
    + " of 1 for every d, s and size of θ tested."
)


def largest(records: Records, label: str) -> dict[str, dict[Number, Number]]:
    """Marginal errors by dtype and size of θ: the largest over d and over labels of that name."""
    table: dict[str, dict[Number, Number]] = {}
    for dtype, rows in records["polytope/exactness"].metrics["error"].items():
        mine = [row for name, row in rows.items() if name.split()[0] == label]
        if not mine:
            raise LookupError(repr(label))
        table[dtype] = worst(sizes for row in mine for sizes in row.values())
    return table


def worst(rows: Iterable[Mapping[str, Number | None]]) -> dict[Number, Number]:
    """The largest error of each size of θ, over rows of errors by size; None is a NaN."""
    errors: dict[Number, Number] = {}
    for row in rows:
        for size, error in row.items():
            error = math.inf if error is None else error
            errors[float(size)] = max(errors.get(float(size), 0), error)
    return errors


def error_words(table: Mapping[str, Mapping[Number, Number]]) -> str:
    """Such a table in words."""
    return "largest deviation of a sum from 1: " + "; ".join(
        f"{dtype} {number(row[min(row)])} for |θ| up to {min(row):g}, "
        f"{number(max(row.values()))} for |θ| up to {max(row):g}"
        for dtype, row in table.items()
    )


def exact(label: str) -> Callable[[Records], Finding]:
    """The rule of a claim that mixers of a name are doubly stochastic to rounding."""

    def judge(records: Records) -> Finding:
        table = largest(records, label)
        kept = {
            dtype: [size for size, error in table[dtype].items() if error <= limit]
            for dtype, limit in ROUNDING.items()
        }
        double = len(kept["float64"]) == len(table["float64"])
        single = len(kept["float32"]) == len(table["float32"])
        ordinary = all(size in kept["float32"] for size in table["float32"] if size <= ORDINARY)
        caveat = ""
        if double and ordinary and not single:
            beyond = [size for size in table["float32"] if size not in kept["float32"]]
            caveat = f"in float32 only while θ stays below {min(beyond):g}"
        return Finding(
            grade(double and single, double and ordinary),
            error_words(table),
            {"error": table},
            caveat,
        )

    return judge
