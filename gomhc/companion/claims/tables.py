"""The ledger as MyST Markdown."""

from collections import Counter
from collections.abc import Iterable, Sequence

from gomhc.companion.claims.base import PLURALS, VERDICTS, Verdict

MANY = 8  # records, beyond which a list names only its ends


def ledger_summary(entries: Iterable[Verdict]) -> str:
    """How many claims there are, and how many of each verdict, in a sentence.

    Args:
        entries: out of `ledger`.

    Returns:
        Plain text.
    """
    counts = Counter(entry.verdict for entry in entries)
    words = ", ".join(f"{counts[verdict]} {plural}" for verdict, plural in PLURALS.items())
    noun = "claim" if counts.total() == 1 else "claims"
    return f"{counts.total()} {noun}: {words}."


def ledger_table(entries: Iterable[Verdict]) -> str:
    """The ledger at a glance: a MyST Markdown table, a row a claim.

    Args:
        entries: out of `ledger`.

    Returns:
        The table; verdicts are words with a symbol, figures are references by number.
    """
    lines = ["| Verdict | Claim | Source | Shown in |", "| :-- | :-- | :-- | :-- |"]
    group = ""
    for entry in entries:
        if entry.group != group:
            group = entry.group
            lines.append(f"| | **{group}** | | |")
        cells = (_verdict(entry), entry.statement, entry.source, _shown_in(entry) or "–")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def ledger_details(entries: Iterable[Verdict]) -> str:
    """Claim by claim: source, criterion, what was measured, verdict, figure and records.

    Args:
        entries: out of `ledger`.

    Returns:
        A MyST Markdown definition list.
    """
    blocks = []
    for entry in entries:
        caveat = f": {entry.caveat}" if entry.caveat else ""
        parts = [
            f"*{_verdict(entry)}*{caveat}.",
            f"**Source.** {_sentence(entry.source)}",
            f"**Criterion.** {_sentence(entry.criterion)}",
            f"**Measured.** {_sentence(entry.measured)}",
            f"**From.** {_shown_in(entry)}, {_list(entry.records)}.",
        ]
        blocks.append(f"{entry.statement}\n" + "\n".join(f": {part}\n" for part in parts))
    return "\n".join(blocks)


def _verdict(entry: Verdict) -> str:
    return f"{VERDICTS[entry.verdict]} {entry.verdict}"


def _shown_in(entry: Verdict) -> str:
    return f"{{numref}}`{entry.figure.partition('#')[2]}`"


def _list(names: Sequence[str]) -> str:
    """Names of records; of many, how many and the ends of the list."""
    if len(names) > MANY:
        return f"{len(names)} records, from `{names[0]}` to `{names[-1]}`"
    return ", ".join(f"`{name}`" for name in names)


def _sentence(text: str) -> str:
    # Names and symbols stay as they are: go-mHC, d = 4.
    keep = text.startswith(("go-mHC", "mHC")) or text[1:3] == " ="
    start = text if keep else text[:1].upper() + text[1:]
    return start + ("" if text.endswith(".") else ".")
