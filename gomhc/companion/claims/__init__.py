"""The ledger: what the papers claim, how each claim is judged, and what came of it.

A `Claim` fixes what is said, where, and the criterion; `ledger` turns every claim into a
`Verdict` from stored records alone. Where a record is missing the verdict is "not tested", with the
reason. Claims stand beside their criteria in a module a topic.

Note [Criteria]
    Thresholds are constants; the sentences of the criteria are made from them, so what is written
    is what is applied. "With a caveat" means that a weaker form of the criterion is met: the
    wording says more than the numbers, or it is true in some cases only. Each criterion says
    which.
"""

from pathlib import Path

from gomhc.companion.claims import cost, language_models, later, reach, stream_mixing
from gomhc.companion.claims.answers import ANSWERS
from gomhc.companion.claims.base import GROUPS, Claim, Verdict, judged, number, reader
from gomhc.companion.claims.tables import (
    ledger_details,
    ledger_list,
    ledger_summary,
    ledger_table,
)

__all__ = [
    "CLAIMS",
    "Claim",
    "Verdict",
    "answer",
    "ledger",
    "ledger_details",
    "ledger_list",
    "ledger_summary",
    "ledger_table",
    "number",
]

_TOPICS = (reach, stream_mixing, cost, later, language_models)
CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (claim for topic in _TOPICS for claim in topic.CLAIMS),
        key=lambda claim: GROUPS.index(claim.group),
    )
)


def ledger(folder: str | Path | None = None) -> list[Verdict]:
    """Judge every claim from stored records.

    Args:
        folder: of records; those shipped with the package if not given.

    Returns:
        One verdict a claim, in the order of `CLAIMS`. A record that is missing, damaged or holds
        less than the claim needs makes its verdict "not tested", and `measured` the reason.
    """
    read = reader(folder)
    return [judged(claim, read) for claim in CLAIMS]


def answer(question: str, folder: str | Path | None = None) -> str:
    """Answer one of the book's questions in a few sentences, with numbers from stored records.

    Args:
        question: one of "reach", "spectra", "speed", "cost", "composition", "language-model",
            "worth", "precision", "block-size" and "streams".
        folder: of records; those shipped with the package if not given.

    Returns:
        MyST Markdown. Where records are missing it says so.

    Raises:
        ValueError: If there is no such question.
    """
    if question not in ANSWERS:
        raise ValueError(f"expected a question out of {', '.join(ANSWERS)}, got {question!r}")
    read = reader(folder)
    claims = {claim.id: claim for claim in CLAIMS}
    return ANSWERS[question](lambda id: judged(claims[id], read))
