"""Claims about parameters, FLOPs, time, and what Kronecker products buy."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from gomhc.companion.claims.base import (
    ABSTRACT,
    COMPOSITION,
    CONSTRUCTION,
    GO,
    KROMHC,
    KROMHC_ABSTRACT,
    Claim,
    Finding,
    Number,
    Records,
    by_d,
    figure,
    grade,
)

EXPONENT = 0.2  # how far an exponent may be from the claimed one
FEWER = 0.6  # of the parameters of others
FACTORIAL = 0.1  # how much a constant factor may still change
RECOVERED = 0.5  # of the gap in reach between KromHC and go-mHC
SIMILAR = 2  # FLOPs of a hyper-connection within this factor
TINY = 1e-6  # a distance that counts as reached


def _cubic(records: Records) -> Finding:
    labels = ("go-mhc s=1", GO, "go-mhc s=3")
    counted = records["cost/flops"].metrics["exponent"]
    timed = records["cost/time"].metrics["exponent"]
    flops = {label: counted["d"][label]["value"] for label in labels}
    seconds = {label: timed["d"][label]["value"] for label in labels}
    exact = all(abs(value - 3) <= EXPONENT for value in flops.values())
    quick = all(value <= 3 + EXPONENT for value in seconds.values())

    def words(table: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{row['value']:.2f} ± {row['stderr']:.2f} (s = {label[-1]})"
            for label, row in table.items()
            if label in labels
        )

    measured = (
        f"FLOPs grow with the exponent in d {words(counted['d'])}, seconds with "
        f"{words(timed['d'])}; in s the exponent of FLOPs is {counted['s']['value']:.2f}"
    )
    values = {"flops": flops, "seconds": seconds, "s": counted["s"]["value"]}
    return Finding(grade(exact and quick, exact), measured, values)


def _last_exponent(table: Mapping[str, Number | None]) -> tuple[Number, int, int]:
    """Slope between the two largest d on log axes, and these."""
    known = sorted((int(d), value) for d, value in table.items() if value)
    (d, value), (next_d, next_value) = known[-2:]
    return math.log(next_value / value) / math.log(next_d / d), d, next_d


def _parameter_exponent(label: str, claimed: int) -> Callable[[Records], Finding]:
    def judge(records: Records) -> Finding:
        layer = records["cost/parameters"].metrics["layer"][label]
        value, d, next_d = _last_exponent(layer)
        measured = (
            f"the counted parameters of a hyper-connection grow with the exponent {value:.3f} "
            f"between d = {d} and {next_d} ({layer[str(next_d)]:,} at d = {next_d})"
        )
        return Finding(grade(abs(value - claimed) <= EXPONENT), measured, {"exponent": value})

    return judge


def _factorial(records: Records) -> Finding:
    metrics = records["cost/parameters"].metrics
    layer = {int(d): v for d, v in metrics["layer"]["mhc-lite"].items() if v}
    size = {int(d): v for d, v in metrics["generator"]["mhc-lite"].items() if v}
    constant = {d: layer[d] / (d * math.factorial(d)) for d in sorted(layer)}
    change = abs(constant[max(constant)] / constant[max(constant) - 1] - 1)
    holds = all(g == math.factorial(d) for d, g in size.items()) and change <= FACTORIAL
    measured = (
        f"at d = {max(size)} θ has {size[max(size)]:,} numbers and a hyper-connection has "
        f"{layer[max(layer)]:,} parameters; parameters over d·d! change by {change:.1%} between "
        f"d = {max(constant) - 1} and {max(constant)}"
    )
    values = {"generators": size, "layer": layer, "constant": constant}
    return Finding(grade(holds), measured, values)


def _fewer_parameters(records: Records) -> Finding:
    layer = records["cost/parameters"].metrics["layer"]
    shares = {
        int(d): value / min(layer[k][d] for k in ("mhc", "mhc-lite") if layer[k][d])
        for d, value in layer["kromhc"].items()
        if value and int(d) >= 4
    }
    measured = "parameters of a hyper-connection over those of the leaner of mHC and mHC-lite: "
    holds = all(share <= FEWER for share in shares.values())
    some = any(share <= FEWER for share in shares.values())
    return Finding(grade(holds, some), measured + by_d(shares), {"shares": shares})


def _cheaper_than_lite(records: Records) -> Finding:
    metrics = records["cost/parameters"].metrics["generator"]
    pairs = {int(d): (metrics[GO][d], lite) for d, lite in metrics["mhc-lite"].items() if lite}
    fewer = [d for d, (ours, lite) in pairs.items() if ours < lite]
    more = [d for d, (ours, lite) in pairs.items() if ours >= lite]
    holds = min(fewer, default=0) == 5 and max(more, default=0) < 5
    measured = ", ".join(f"{a:,} against {b:,} at d = {d}" for d, (a, b) in sorted(pairs.items()))
    return Finding(grade(holds), measured, {"pairs": pairs})


def recovered(metrics: Mapping[str, Mapping[str, Any]], rivals: str = "kromhc.*") -> dict[str, Any]:
    """What composition recovers at similar FLOPs: kron-go against the best KromHC near its cost.

    Args:
        metrics: of `pareto`.
        rivals: pattern of the labels of the KromHC that count.

    Returns:
        label of each kron-go -> `rival`, the KromHC with the lowest median reach error among those
        whose hyper-connection takes a number of FLOPs within a factor of `SIMILAR`; `below`, by
        what share of it kron-go's median is lower; `closed`, the share of the gap between the rival
        and go-mHC s=2 that this closes, 0 where there is no gap. {} where no KromHC costs about as
        much.
    """
    rows = {label: row for label, row in metrics.items() if "impossible" not in row}
    reach = {label: row["reach_median"] for label, row in rows.items()}
    gains: dict[str, Any] = {}
    for label in (label for label in rows if label.startswith("kron-go")):
        similar = [
            other
            for other in rows
            if re.fullmatch(rivals, other)
            and 1 / SIMILAR <= rows[other]["flops"] / rows[label]["flops"] <= SIMILAR
        ]
        gains[label] = {}
        if similar:
            rival = min(similar, key=lambda other: reach[other])
            gain = reach[rival] - reach[label]
            # Searches give upper bounds: the product may come out below go-mHC itself.
            gap = reach[rival] - min(reach[label], reach[GO])
            gains[label] = {
                "rival": rival,
                "below": gain / reach[rival] if reach[rival] > TINY else 0.0,
                "closed": gain / gap if gap > TINY else 0.0,
            }
    return gains


def _composition(rivals: str) -> Callable[[Records], Finding]:
    """What products of go factors win over those KromHC whose labels match."""

    def judge(records: Records) -> Finding:
        closed: dict[int, Number] = {}
        parts = []
        for name, record in records.items():
            d = record.config["d"]
            rows = record.metrics
            gains = {label: gain for label, gain in recovered(rows, rivals).items() if gain}
            if not gains:
                raise LookupError(f"in {name} of a KromHC of similar FLOPs")
            label = max(gains, key=lambda label: gains[label]["closed"])
            rival, closed[d] = gains[label]["rival"], gains[label]["closed"]
            reach, share = rows[label], round(closed[d], 2) + 0.0  # no minus before a zero
            parts.append(
                f"d = {d}: {share:.0%} of the gap; `{label}` is {reach['reach_median']:.3f} away "
                f"({reach['reach_low']:.3f} to {reach['reach_high']:.3f}), `{rival}` "
                f"{rows[rival]['reach_median']:.3f}, `{GO}` {rows[GO]['reach_median']:.3f}"
            )
        enough = [d for d, share in closed.items() if share >= RECOVERED]
        some = f"only at d = {', '.join(map(str, enough))}"
        caveat = some if 0 < len(enough) < len(closed) else ""
        verdict = grade(len(enough) == len(closed), bool(enough))
        return Finding(verdict, ". ".join(parts), {"closed": closed}, caveat)

    return judge


_PARETO = ("cost/pareto-d4", "cost/pareto-d8", "cost/pareto-d16", "cost/pareto-d64")
_COMPOSED = (
    f"With FLOPs within a factor of {SIMILAR}, the best product of go-mHC factors closes at least "
    f"{RECOVERED:.0%} of the gap in median distance to targets"
)
_EVERY_D = "Holds if this is true at d = 4, 8, 16 and 64; with a caveat if at some of them."

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "cubic-cost",
        CONSTRUCTION,
        "The cost of go-mHC is O(d³) at fixed s.",
        ABSTRACT,
        f"Holds if the fitted exponent of the FLOPs in d is within {EXPONENT} of 3 for s = 1, 2, 3 "
        f"and that of the measured time at most {3 + EXPONENT}; with a caveat if only the FLOPs "
        "agree.",
        figure(6, "scaling"),
        ("cost/flops", "cost/time"),
        _cubic,
    ),
    Claim(
        "composition",
        COMPOSITION,
        "go-mHC composes with Kronecker methods, substantially recovering expressivity at similar "
        "FLOPs.",
        ABSTRACT,
        f"{_COMPOSED} between KromHC as published, of 2×2 factors, and go-mHC (s = 2). {_EVERY_D}",
        figure(6, "pareto"),
        _PARETO,
        _composition("kromhc"),
    ),
    Claim(
        "composition-best",
        COMPOSITION,
        "go-mHC composes with Kronecker methods, recovering expressivity that KromHC with larger "
        "factors does not at similar FLOPs.",
        f"{ABSTRACT}; our extension",
        f"{_COMPOSED} between the best KromHC of any factors and go-mHC (s = 2). {_EVERY_D}",
        figure(6, "pareto"),
        _PARETO,
        _composition("kromhc.*"),
    ),
    Claim(
        "cheaper-than-lite",
        COMPOSITION,
        "go-mHC with s = 2 asks for fewer numbers than mHC-lite only from d = 5 on.",
        "consequence of the formulas of go-mHC and mHC-lite",
        "Among the d tested, the θ of go-mHC (s = 2) is shorter from d = 5 on and not before.",
        figure(6, "scaling"),
        ("cost/parameters",),
        _cheaper_than_lite,
    ),
    Claim(
        "mhc-cubic-parameters",
        KROMHC,
        "mHC has O(n³C) parameters (n streams of width C).",
        KROMHC_ABSTRACT,
        f"The exponent in the number of streams between the two largest tested is within "
        f"{EXPONENT} of 3.",
        figure(6, "scaling"),
        ("cost/parameters",),
        _parameter_exponent("mhc", 3),
    ),
    Claim(
        "lite-factorial",
        KROMHC,
        "Exact methods such as mHC-lite scale factorially: O(nC·n!) parameters.",
        f"{KROMHC_ABSTRACT}; go-mHC, abstract",
        "At every d tested θ has d! numbers, and the parameters over d·d! change by "
        f"less than {FACTORIAL:.0%} between the two largest d.",
        figure(6, "scaling"),
        ("cost/parameters",),
        _factorial,
    ),
    Claim(
        "kromhc-quadratic-parameters",
        KROMHC,
        "KromHC has O(n²C) parameters.",
        KROMHC_ABSTRACT,
        f"The exponent in the number of streams between the two largest tested is within "
        f"{EXPONENT} of 2.",
        figure(6, "scaling"),
        ("cost/parameters",),
        _parameter_exponent("kromhc", 2),
    ),
    Claim(
        "kromhc-fewer-parameters",
        KROMHC,
        "KromHC needs significantly fewer trainable parameters than other mHC variants.",
        KROMHC_ABSTRACT,
        f"A hyper-connection with it has at most {FEWER:.0%} of the parameters of the leaner of "
        "mHC and mHC-lite at every d from 4 on; with a caveat if at some.",
        figure(6, "scaling"),
        ("cost/parameters",),
        _fewer_parameters,
    ),
)
