"""Claims about exactness, the polytope and spectra."""

from collections.abc import Mapping
from typing import Any

from gomhc.companion.claims.base import (
    ABSTRACT,
    CONSTRUCTION,
    GO,
    KROMHC,
    KROMHC_ABSTRACT,
    MOST,
    NAMES,
    REACH,
    Claim,
    Finding,
    Records,
    figure,
    grade,
    number,
)
from gomhc.companion.claims.exactness import EXACT, ORDINARY, error_words, exact, largest

INEXACT = 1e-3  # a marginal error that is no rounding
SHEET = 0.01  # share of uniform samples that a set without volume may have
MORE = 10  # how many times more a "far more complete" family reaches
SPECTRAL = 2  # how many times more of the region its eigenvalues cover
MOSTLY, FILLED = 0.5, 0.95  # shares of a region
SAME = 0.01  # excess of one region over another that a drawing does not show


def _inexact(records: Records) -> Finding:
    table = largest(records, "mhc")
    worst = max(table["float64"].values())
    return Finding(grade(worst > INEXACT), error_words(table), {"error": table})


def _share_words(rows: Mapping[str, Any], label: str) -> str:
    row = rows[label]
    return f"{row['share']:.1%} ({row['low']:.1%} to {row['high']:.1%})"


def _dial(records: Records) -> Finding:
    share = records["polytope/coverage"].metrics["share"]
    boundary = {int(d): rows["go-mhc s=1"] for d, rows in share.items()}
    inside = {int(d): rows[GO] for d, rows in share.items()}
    levels = {
        d: {k: row["share"] for k, row in rows.items() if k.startswith("go-mhc")}
        for d, rows in share.items()
    }
    holds = all(row["share"] <= SHEET for row in boundary.values()) and all(
        row["share"] >= MOST for row in inside.values()
    )
    distance = records["polytope/coverage"].metrics["distance"]
    measured = ". ".join(
        f"Share of uniform samples reached at d = {d}: {_share_words(rows, 'go-mhc s=1')} at "
        f"s = 1, {_share_words(rows, GO)} at s = 2, "
        + ", ".join(
            f"{one:.1%} at {label[7:].replace('=', ' = ')}"
            for label, one in levels[d].items()
            if label[-1] > "2"
        )
        + f"; the farthest sample is {distance[d]['go-mhc s=1']['max']:.2g} away at s = 1 and "
        f"{distance[d][GO]['max']:.2g} at s = 2"
        for d, rows in share.items()
    )
    caveat = (
        "s is an integer, and every finite s leaves out points on edges of the polytope"
        if holds
        else ""
    )
    samples = records["polytope/coverage"].metrics["samples"]
    return Finding(grade(False, holds), measured, {"share": levels, "samples": samples}, caveat)


def _fills_polytope(records: Records) -> Finding:
    rows = records["polytope/coverage"].metrics["share"]["4"]
    ours, boundary, theirs = rows[GO], rows["go-mhc s=1"], rows["kromhc"]
    more = ours["low"] >= MORE * theirs["high"]
    all_levels = boundary["low"] >= MORE * theirs["high"]
    measured = "share of uniform samples reached at d = 4: " + ", ".join(
        f"{NAMES[label]} {_share_words(rows, label)}" for label in (GO, "go-mhc s=1", "kromhc")
    )
    caveat = "true from s = 2 on; s = 1 has no volume either" if more and not all_levels else ""
    values = {label: rows[label]["share"] for label in (GO, "go-mhc s=1", "kromhc")}
    return Finding(grade(more and all_levels, more), measured, values, caveat)


def _kromhc_limited(records: Records) -> Finding:
    metrics = records["polytope/coverage"].metrics
    rows, distance = metrics["share"]["4"], metrics["distance"]["4"]["kromhc"]
    measured = (
        f"share of uniform samples reached at d = 4: KromHC {_share_words(rows, 'kromhc')}, "
        f"mHC-lite {_share_words(rows, 'mhc-lite')}; the median sample is {distance['0.5']:.2f} "
        f"away from KromHC ({distance['0.1']:.2f} to {distance['0.9']:.2f} in 80 % of the samples)"
    )
    limited = rows["kromhc"]["high"] <= SHEET and rows["mhc-lite"]["low"] >= MOST
    values = {label: rows[label]["share"] for label in ("kromhc", "mhc-lite")}
    return Finding(grade(limited), measured, values)


def _coverage_words(rows: Mapping[str, Any], label: str) -> str:
    row = rows[label]
    return f"{NAMES[label]} {row['mean']:.1%} ({row['low']:.1%} to {row['high']:.1%})"


def _fills_spectrum(records: Records) -> Finding:
    tables = {
        "equal budgets": records["spectra/equal-d4"].metrics["coverage"],
        "as released": records["spectra/released-d4"].metrics["coverage"],
    }
    labels = (GO, "go-mhc s=1")
    more = {
        (name, label): rows[label]["low"] >= SPECTRAL * rows["kromhc"]["high"]
        for name, rows in tables.items()
        for label in labels
    }
    measured = "share of the region's cells visited at d = 4, " + "; ".join(
        f"{name}: " + ", ".join(_coverage_words(rows, label) for label in (*labels, "kromhc"))
        for name, rows in tables.items()
    )
    values = {
        name: {label: rows[label]["mean"] for label in (*labels, "kromhc")}
        for name, rows in tables.items()
    }
    caveat = more["equal budgets", GO]
    return Finding(grade(all(more.values()), caveat), measured, values)


def _spectrum_is_evidence(records: Records) -> Finding:
    share = records["polytope/coverage"].metrics["share"]
    both = {
        (d, label): (record.metrics["coverage"][label], share[d][label])
        for d in share
        for record in [records[f"spectra/equal-d{d}"]]
        for label in record.metrics["coverage"]
        if label in share[d]
    }
    misled = {
        key: pair
        for key, pair in both.items()
        if pair[0]["low"] >= MOSTLY and pair[1]["high"] <= SHEET
    }
    shown = misled or both
    measured = (
        f"{len(misled)} of {len(both)} pairs of family and d mislead. Share of the region and of "
        "the polytope: "
        + ", ".join(
            f"{spectral['mean']:.0%} and {reached['share']:.1%} (`{label}`, d = {d})"
            for (d, label), (spectral, reached) in shown.items()
        )
    )
    values = {f"{label}, d = {d}": [a["mean"], b["share"]] for (d, label), (a, b) in both.items()}
    return Finding(grade(not misled), measured, values)


def _panels(records: Records) -> Finding:
    metrics = {record.config["d"]: record.metrics for record in records.values()}
    filled = {d: rows["together"][GO] for d, rows in sorted(metrics.items())}
    real = metrics[4]["real"]["kromhc"]
    boundary = metrics[3]["together"]["go-mhc s=1"]
    measured = (
        "share of the region's cells that all searches together visit with s = 2: "
        + ", ".join(f"{value:.1%} at d = {d}" for d, value in filled.items())
        + f"; with s = 1 at d = 3: {boundary:.1%}. {real:.1%} of KromHC's eigenvalues at d = 4 "
        "are real"
    )
    values = {"filled": filled, "real": real, "boundary": boundary}
    fills = all(value >= FILLED for value in filled.values())
    nearly = all(value >= MOSTLY for value in filled.values())
    left = ", ".join(f"{1 - value:.0%} at d = {d}" for d, value in filled.items())
    caveat = "" if fills else f"s = 2 leaves out part of the region: {left}"
    verdict = grade(fills and real >= FILLED, nearly and real >= FILLED)
    return Finding(verdict, measured, values, caveat)


def _region_name(records: Records) -> Finding:
    cells = {record.config["d"]: record.metrics["cells"] for record in records.values()}
    excess = {d: row["karpelevich"] / row["perfect_mirsky"] - 1 for d, row in sorted(cells.items())}
    measured = "Karpelevič's region has " + ", ".join(
        f"{value:.1%} more cells than Perfect–Mirsky's at d = {d} "
        f"({cells[d]['karpelevich']:,} and {cells[d]['perfect_mirsky']:,})"
        for d, value in excess.items()
    )
    return Finding(grade(max(excess.values()) <= SAME), measured, {"excess": excess})


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "exact",
        CONSTRUCTION,
        "Every matrix of go-mHC is exactly doubly stochastic, by construction.",
        ABSTRACT,
        f"{EXACT} Holds with a caveat if float32 keeps to this only for |θ| up to {ORDINARY}.",
        figure(2, "newton-schulz"),
        ("polytope/exactness",),
        exact("go-mhc"),
    ),
    Claim(
        "dial",
        CONSTRUCTION,
        "One number s interpolates continuously between an efficient boundary and the full "
        "polytope.",
        ABSTRACT,
        f"Holds with a caveat if, at d = 3, 4 and 5, s = 1 reaches at most {SHEET:.0%} of uniform "
        f"samples and s = 2 at least {MOST:.0%}. Without a caveat it cannot hold: s is an integer, "
        "and level s meets the edges of cycles of length 3 and more only at multiples of 1/s "
        "(proved in chapter 2).",
        figure(3, "coverage"),
        ("polytope/coverage",),
        _dial,
    ),
    Claim(
        "fills-polytope",
        REACH,
        "go-mHC fills the polytope far more completely than Kronecker-factorized baselines "
        "(measured on the polytope).",
        ABSTRACT,
        "At d = 4 the lower 95 % limit of the share of uniform samples that go-mHC reaches is at "
        f"least {MORE} times the upper limit of KromHC's. Holds if this is true for s = 1 and 2; "
        "with a caveat if it is true for s = 2 only.",
        figure(3, "coverage"),
        ("polytope/coverage",),
        _fills_polytope,
    ),
    Claim(
        "fills-spectrum",
        REACH,
        "go-mHC fills the polytope far more completely than Kronecker-factorized baselines "
        "(measured on spectra, as the paper does).",
        ABSTRACT,
        "At d = 4 the lower 95 % limit of the share of Perfect–Mirsky's region that go-mHC's "
        f"eigenvalues visit is at least {SPECTRAL} times the upper limit of KromHC's. Holds if "
        "this is true for s = 1 and 2, as released and with equal budgets; with a caveat if it is "
        "true at least for s = 2 with equal budgets.",
        figure(4, "spectral-coverage"),
        ("spectra/equal-d4", "spectra/released-d4"),
        _fills_spectrum,
    ),
    Claim(
        "spectrum-is-evidence",
        REACH,
        "The share of the region that a family's spectra fill shows how much of the polytope it "
        "fills.",
        "go-mHC, spectral analysis (the step from spectra to the polytope)",
        f"At d = 3, 4, 5 no family covers {MOSTLY:.0%} or more of the region (lower limit) while "
        f"it reaches {SHEET:.0%} or less of uniform samples of the polytope (upper limit).",
        figure(4, "surrogate"),
        ("spectra/equal-d3", "spectra/equal-d4", "spectra/equal-d5", "polytope/coverage"),
        _spectrum_is_evidence,
    ),
    Claim(
        "spectra-panels",
        REACH,
        "At d = 3 and 4 go-mHC (s = 2) fills the region of eigenvalues, and KromHC at d = 4 only "
        "the real axis.",
        "go-mHC, spectra figure (read by eye)",
        f"As released, s = 2 visits at least {FILLED:.0%} of the cells of Perfect–Mirsky's region "
        f"at both d, and at least {FILLED:.0%} of KromHC's eigenvalues are real; with a caveat if "
        f"s = 2 visits at least {MOSTLY:.0%}.",
        figure(4, "released-4"),
        ("spectra/released-d3", "spectra/released-d4"),
        _panels,
    ),
    Claim(
        "region-name",
        REACH,
        "The region drawn around the spectra, Perfect–Mirsky's, is Karpelevič's.",
        "go-mHC, spectra figure (which draws the one and names the other)",
        f"At d = 3 and 4 the two regions differ by at most {SAME:.0%} of their cells.",
        figure(4, "released-4"),
        ("spectra/released-d3", "spectra/released-d4"),
        _region_name,
    ),
    Claim(
        "kronecker-limited",
        REACH,
        "Kronecker-factorized approaches are limited in expressivity.",
        ABSTRACT,
        f"At d = 4 KromHC reaches at most {SHEET:.0%} of uniform samples (upper 95 % limit), and "
        f"mHC-lite reaches at least {MOST:.0%}.",
        figure(3, "coverage"),
        ("polytope/coverage",),
        _kromhc_limited,
    ),
    Claim(
        "sinkhorn-inexact",
        KROMHC,
        "Sinkhorn–Knopp as mHC runs it does not always give exactly doubly stochastic matrices.",
        KROMHC_ABSTRACT,
        f"In float64 some row or column sum is off by more than {number(INEXACT)} for some θ "
        "tested.",
        figure(1, "inexact"),
        ("polytope/exactness",),
        _inexact,
    ),
    Claim(
        "kromhc-exact",
        KROMHC,
        "KromHC guarantees exact double stochasticity.",
        KROMHC_ABSTRACT,
        f"{EXACT} Holds with a caveat if float32 keeps to this only for |θ| up to {ORDINARY}.",
        figure(1, "gain"),
        ("polytope/exactness",),
        exact("kromhc"),
    ),
)
