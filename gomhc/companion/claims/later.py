"""Claims of the papers that came after go-mHC: rotations of the streams, a chart of the polytope.

As far as the chapters on mathematics, reach and cost can judge; their language models are not ours.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gomhc.companion.claims.base import (
    GO,
    LATER,
    MOST,
    Claim,
    Finding,
    Number,
    Records,
    figure,
    grade,
    number,
    span,
)
from gomhc.companion.claims.exactness import EXACT, ORDINARY, ROUNDING, exact, worst

CHART, ROTATION = "transport", "orthogonal"
CHART_ABSTRACT, ROTATION_ABSTRACT = "TBP-mHC, abstract", "JPmHC, abstract"
UNIT = 1e-12  # how far a singular value of a stack may be from 1, in float64
QUADRATIC = 2.2  # largest exponent in d that counts as the square
SMALL = 16  # number of streams up to which a cost must be lower for a verdict with a caveat


def _freedom(records: Records) -> Finding:
    metrics = records["polytope/stacks"].metrics
    rows = {
        int(d): (metrics["parameters"][d][CHART], metrics["rank"][d][CHART])
        for d in metrics["rank"]
    }
    holds = all(g == rank == (d - 1) ** 2 for d, (g, rank) in rows.items())
    measured = "numbers in θ, and rank of the derivative: " + ", ".join(
        f"{g} and {rank} at d = {d}" for d, (g, rank) in rows.items()
    )
    go = {int(d): row[GO] for d, row in metrics["parameters"].items()}
    measured += "; go-mHC (s = 2) has " + ", ".join(f"{g}" for g in go.values()) + " numbers"
    return Finding(grade(holds), measured, {"chart": rows, "go": go})


def _expressive(records: Records) -> Finding:
    coverage, edges = (records[f"polytope/{name}"].metrics for name in ("coverage", "edges"))
    shares = {int(d): row[CHART] for d, row in coverage["share"].items()}
    far = {int(d): row[CHART]["max"] for d, row in coverage["distance"].items()}
    on_edges = {int(d): row[CHART] for d, row in edges["share"].items()}
    theirs = {int(d): row[GO] for d, row in edges["largest"].items()}
    inside = all(row["low"] >= MOST for row in shares.values())
    rim = all(share == 1 for share in on_edges.values())
    measured = (
        "share of uniform samples reached: "
        + ", ".join(
            f"{row['share']:.1%} ({row['low']:.1%} to {row['high']:.1%}) at d = {d}"
            for d, row in shares.items()
        )
        + f"; the farthest is {span(far.values())} away. Share of points reached on edges of "
        "3-cycles: "
        + ", ".join(f"{share:.0%} at d = {d}" for d, share in on_edges.items())
        + f"; the farthest is {span(row[CHART] for row in edges['largest'].values())} "
        f"away (go-mHC with s = 2: {span(theirs.values())})"
    )
    measured += ". The boundary is only approached: there θ is infinite"
    caveat = "" if rim else "the edges are not reached"
    values = {
        "share": {d: row["share"] for d, row in shares.items()},
        "samples": coverage["samples"],
        "edges": {int(d): row[CHART] for d, row in edges["largest"].items()},
        "edges of go-mhc s=2": theirs,
    }
    return Finding(grade(inside and rim, inside), measured, values, caveat)


def _orthogonal(records: Records) -> Finding:
    measures = records["polytope/exactness"].metrics["orthogonality"]
    table = {
        way: {dtype: worst(ways[way].values()) for dtype, ways in measures.items()}
        for way in ("one solve", ROTATION)
    }

    def kept(way: str, sizes: Iterable[Number]) -> bool:
        return all(table[way][t][size] <= limit for t, limit in ROUNDING.items() for size in sizes)

    every = list(table["one solve"]["float32"])
    whole = kept("one solve", every)
    ordinary = kept("one solve", [size for size in every if size <= ORDINARY])
    measured = "largest entry of |QᵀQ − I| for |θ| up to 1, 10, 100 and 10,000: " + "; ".join(
        f"{dtype} {', '.join(number(rows[dtype][s]) for s in (1.0, 10.0, 100.0, 1e4))} by {words}"
        for way, words in (("one solve", "one solve"), (ROTATION, "our Newton–Schulz steps"))
        for rows in [table[way]]
        for dtype in ROUNDING
    )
    caveat = "" if whole else "in real arithmetic it does; rounding grows with θ"
    return Finding(grade(whole, ordinary), measured, {"error": table}, caveat)


def _isometry(records: Records) -> Finding:
    metrics = records["polytope/stacks"].metrics
    off = max(
        abs(metrics[where][name][d][ROTATION] - 1)
        for where in ("start", "random")
        for name in ("gain", "smallest")
        for d in metrics["rank"]
    )
    depth = records["polytope/stacks"].config["depth"]
    left = {
        where: [row[GO] for row in metrics[where]["smallest"].values()]
        for where in ("start", "random")
    }
    moved = [row[ROTATION] for row in metrics["random"]["mean"].values()]
    lost = "0 to rounding" if max(left["random"]) < UNIT else span(left["random"])
    measured = (
        f"singular values of {depth} layers are within {number(off)} of 1 (medians over stacks). "
        f"The smallest of as many layers of go-mHC (s = 2) is {span(left['start'])} at the start "
        f"and {lost} for random θ. Rotations change the weight of a stream in the mean by at most "
        f"{span(moved)}, depending on d"
    )
    caveat = "true of the mixers alone, without the branches between them; the mean is not kept"
    return Finding(
        grade(False, off <= UNIT), measured, {"off": off, "go": left, "moved": moved}, caveat
    )


def _cheaper(label: str, rivals: tuple[str, ...]) -> Callable[[Records], Finding]:
    """FLOPs and seconds of training, in PyTorch, below those of each rival at every d on record."""

    def judge(records: Records) -> Finding:
        tables = {
            "FLOPs": records["cost/flops"].metrics["training"],
            "time": records["cost/time"].metrics["seconds"],
        }
        ratios: dict[str, dict[str, dict[int, Number]]] = {
            what: {rival: _over(table, rival, label) for rival in rivals}
            for what, table in tables.items()
        }
        dearer = {
            what: {d for row in rows.values() for d, ratio in row.items() if ratio <= 1}
            for what, rows in ratios.items()
        }
        fewer = not any(d <= SMALL for d in dearer["FLOPs"])
        measured = "; ".join(
            f"{what} of {rival} over {'that' if what == 'time' else 'those'} of {label}: "
            + ", ".join(f"{number(ratio)} at d = {d}" for d, ratio in row.items())
            for what, rows in ratios.items()
            for rival, row in rows.items()
        )
        exponent = records["cost/flops"].metrics["exponent"]["d"][label]["value"]
        measured += f"; the FLOPs of {label} grow like d^{exponent:.2f}"
        polynomial = label != CHART or exponent <= QUADRATIC
        caveat = "; ".join(
            f"not in {what} at d = {', '.join(map(str, sorted(sizes)))}"
            for what, sizes in dearer.items()
            if sizes
        )
        values = ratios | {"exponent": exponent}
        verdict = grade(polynomial and not caveat, polynomial and fewer)
        return Finding(verdict, measured, values, caveat)

    return judge


def _over(table: Mapping[str, Mapping[str, Any]], rival: str, label: str) -> dict[int, Number]:
    mine = table[label]
    return {int(d): value / mine[d] for d, value in table[rival].items() if value and mine.get(d)}


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "chart-exact",
        LATER,
        "Every matrix of TBP-mHC is exactly doubly stochastic, by construction.",
        CHART_ABSTRACT,
        f"{EXACT} Holds with a caveat if float32 keeps to this only for |θ| up to {ORDINARY}.",
        figure(1, "rotations"),
        ("polytope/exactness",),
        exact(CHART),
    ),
    Claim(
        "chart-freedom",
        LATER,
        "TBP-mHC has (n − 1)² degrees of freedom, as many as the polytope has dimensions.",
        CHART_ABSTRACT,
        "At d = 3, 4, 5, 8 both the number of entries of θ and the rank of the derivative at "
        "random θ are (d − 1)².",
        figure(6, "scaling"),
        ("polytope/stacks",),
        _freedom,
    ),
    Claim(
        "chart-expressive",
        LATER,
        "TBP-mHC keeps the full expressivity of the Birkhoff polytope.",
        CHART_ABSTRACT,
        f"At d = 3, 4, 5 the lower 95 % limit of the share of uniform samples reached is at least "
        f"{MOST:.0%}, and every point tried of an edge that joins I to a 3-cycle is reached; with "
        "a caveat if only the samples are. A point counts as reached within 10⁻⁶.",
        figure(3, "edge-rivals"),
        ("polytope/coverage", "polytope/edges"),
        _expressive,
    ),
    Claim(
        "chart-cheap",
        LATER,
        "TBP-mHC avoids both iterative normalization and combinatorial explosion.",
        CHART_ABSTRACT,
        "Forward and backward it takes fewer FLOPs and less time in PyTorch than mHC and mHC-lite "
        "at every d on record, and its FLOPs grow with an exponent in d of at most "
        f"{QUADRATIC}; with a caveat if this is true of FLOPs up to d = {SMALL}.",
        figure(6, "scaling"),
        ("cost/flops", "cost/time"),
        _cheaper(CHART, ("mhc", "mhc-lite")),
    ),
    Claim(
        "rotation-exact",
        LATER,
        "A Cayley transform keeps the mixer orthogonal without a normalization afterwards.",
        ROTATION_ABSTRACT,
        "If Q is made by one linear solve, no entry of QᵀQ − I exceeds "
        + " or ".join(f"{number(limit)} ({dtype})" for dtype, limit in ROUNDING.items())
        + f" for any d and size of θ tested; with a caveat if only for |θ| up to {ORDINARY}. "
        "The solve is our choice; the limits are those of our claims on exactness.",
        figure(2, "newton-schulz"),
        ("polytope/exactness",),
        _orthogonal,
    ),
    Claim(
        "rotation-isometry",
        LATER,
        "Orthogonal mixers preserve the spectrum of the Jacobian through depth.",
        ROTATION_ABSTRACT,
        f"All singular values of 100 layers are within {number(UNIT)} of 1 at d = 3, 4, 5, 8, at "
        "the start and for random θ, in the median of the stacks tried. It can only hold with a "
        "caveat, because this is about the mixers alone.",
        figure(1, "rotations"),
        ("polytope/stacks",),
        _isometry,
    ),
    Claim(
        "rotation-cheaper",
        LATER,
        "Orthogonal mixers take less computation than doubly stochastic ones made by Sinkhorn.",
        ROTATION_ABSTRACT,
        "Forward and backward they take fewer FLOPs and less time in PyTorch than mHC with its 20 "
        "iterations at every d on record; with a caveat if this is true of FLOPs up to d = "
        f"{SMALL}.",
        figure(6, "scaling"),
        ("cost/flops", "cost/time"),
        _cheaper(ROTATION, ("mhc",)),
    ),
)
