"""The ledger as MyST Markdown."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence

from gomhc.companion.claims.base import COUNTED, VERDICTS, Verdict

MANY = 8  # records, beyond which a list names only its ends


def ledger_summary(entries: Iterable[Verdict]) -> str:
    """How many claims there are, and how many of each verdict, in a sentence.

    Args:
        entries: out of `ledger`.

    Returns:
        Plain text.
    """
    counts = Counter(entry.verdict for entry in entries)
    words = ", ".join(
        f"{counts[v]} {one if counts[v] == 1 else many}"
        for v, (one, many) in COUNTED.items()
        if counts[v]
    )
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


def ledger_list(entries: Iterable[Verdict]) -> str:
    """Claims and their verdicts as a list, each with the chapter that has the evidence.

    Args:
        entries: out of `ledger`.

    Returns:
        A MyST Markdown list, for a page of the folder `book`.
    """
    lines = []
    for entry in entries:
        page, _, _ = entry.figure.partition("#")
        chapter = int(page.removeprefix("notebooks/")[:2])
        lines.append(f"- *{_verdict(entry)}*: {entry.statement} ([chapter {chapter}](../{page}))")
    return "\n".join(lines) + "\n"


def ledger_details(entries: Iterable[Verdict]) -> str:
    """Claim by claim the verdict, and folded: source, criterion, what was measured, records.

    Args:
        entries: out of `ledger`.

    Returns:
        MyST Markdown, an HTML element `details` of class `claim` a claim.
    """
    blocks = []
    for entry in entries:
        parts = [
            f"*{_verdict(entry)}*: {entry.caveat}." if entry.caveat else "",
            f"**Measured.** {_sentence(entry.measured)}",
            f"**Criterion.** {_sentence(entry.criterion)}",
            f"**Source.** {_sentence(entry.source)}",
            f"**From.** {_shown_in(entry)}, {_list(entry.records)}.",
        ]
        blocks += [
            f'<details class="claim" data-verdict="{entry.verdict}">\n<summary>'
            f"<em>{_verdict(entry)}</em> {html.escape(entry.statement)}</summary>",
            *filter(None, parts),
            "</details>",
        ]
    return "\n\n".join(blocks) + "\n"


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
