"""Which mixer? What each keeps, reaches and costs, alone and in a model, from stored records."""

from collections.abc import Mapping
from typing import Any

from gomhc.companion import records
from gomhc.companion.claims.base import GO, number
from gomhc.companion.studies import mixer
from gomhc.companion.studies.polytope import REACHED

__all__ = ["costs", "keeps", "speeds"]

D = 4  # number of streams of the tables
MIXERS = (
    "identity",
    "hc",
    "mhc",
    "mhc-lite",
    "kromhc",
    "kron-go s=2",
    "go-mhc s=1",
    GO,
    "go-mhc s=3",
    "transport",
    "orthogonal",
)
WIDE = "10.0"  # size of θ, as the record of exactness names it
SPACE = "\N{NO-BREAK SPACE}"
TOKENS = 16_384


def keeps() -> str:
    """What a layer reaches, and what 100 of them keep, at d = 4.

    Returns:
        A MyST Markdown table.

    Raises:
        RecordError: if a record that it needs is not shipped.
    """
    stacks = records.shipped("polytope/stacks").metrics
    share = records.shipped("polytope/coverage").metrics["share"][str(D)]
    edges = records.shipped("polytope/edges").metrics["largest"][str(D)]
    error = records.shipped("polytope/exactness").metrics["error"]["float32"]
    lines = [
        "| mixer | keeps | dimension | reached | off an edge | left after 100 layers |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for label in MIXERS:
        left = [stacks[where]["smallest"][str(D)][label] for where in ("start", "random")]
        cells = (
            f"`{label}`",
            _kept(label, error[label][str(D)]),
            "≈ " * (label == "mhc") + f"{stacks['rank'][str(D)][label]}",  # it has no exact one
            f"{100 * share[label]['share']:.3g}{SPACE}%",
            "0" if edges[label] < REACHED else number(edges[label]),
            "–" if label == "hc" else " / ".join(_left(value) for value in left),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _left(value: float) -> str:
    return "0" if value < 1e-12 else f"{value:.2g}"


def _kept(label: str, errors: Mapping[str, float]) -> str:
    family = mixer(label, D)
    kept = ["means"] * family.exact + ["lengths"] * family.isometric
    if not kept and errors[WIDE] < 1:
        kept = [f"means, but for {number(errors[WIDE])}"]
    return " and ".join(kept) or "nothing"


def costs() -> str:
    """Numbers in θ, FLOPs and time of each mixer.

    Returns:
        A MyST Markdown table.

    Raises:
        RecordError: if a record that it needs is not shipped.
    """
    generator = records.shipped("cost/parameters").metrics["generator"]
    flops = records.shipped("cost/flops").metrics["training"]
    seconds = _compiled(records.shipped("benchmarks/mixers-cpu").metrics)
    lines = [
        f"| mixer | θ, d{SPACE}={SPACE}4 | 8 | 16 | FLOPs, d{SPACE}={SPACE}4 | 16 "
        f"| time, d{SPACE}={SPACE}4 | 16 |",
        "| :-- " + "| --: " * 7 + "|",
    ]
    for label in MIXERS:
        cells = [f"`{label}`"]
        cells += [_count(generator[label].get(d)) for d in ("4", "8", "16")]
        cells += [_over(flops, label, d) for d in ("4", "16")]
        cells += [_over(seconds, label, d) for d in ("4", "16")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speeds() -> str:
    """Tokens a second of models with streams, as shares of the plain residual's.

    Returns:
        A MyST Markdown table, a row a mixer and a column a size.

    Raises:
        RecordError: if the record of the benchmark is not shipped.
    """
    models = records.shipped("benchmarks/layer-cpu").metrics["models"]
    sizes = {key.removesuffix(", eager"): t for key, t in models.items() if key.endswith(", eager")}
    lines = [
        f"| mixer | {' | '.join(f'`{size}`' for size in sizes)} |",
        "| :-- " + "| --: " * len(sizes) + "|",
    ]
    for label in dict.fromkeys(label for table in sizes.values() for label in table):
        shares = (table.get(label) for table in sizes.values())
        cells = ["–" if share is None else f"{share['relative']:.2f}" for share in shares]
        lines.append(f"| {' | '.join([f'`{label}`', *cells])} |")
    return "\n".join(lines) + "\n"


def _compiled(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Label -> d -> seconds of compiled code."""
    table: dict[str, dict[str, float]] = {}
    for part in metrics["tables"]:
        for row in part["rows"]:
            if part["tokens"] == TOKENS and row["path"] == "fused":
                table.setdefault(row["label"], {})[str(part["d"])] = row["seconds"]
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _over(table: Mapping[str, Mapping[str, float]], label: str, d: str) -> str:
    """As a multiple of go-mHC's with s = 2."""
    value = table.get(label, {}).get(d)
    return "–" if value is None else f"{value / table[GO][d]:.2g}"
