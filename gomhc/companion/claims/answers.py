"""Answers to the book's questions: a plain sentence, at most two numbers, and where to see why.

Numbers and verdicts come out of the ledger. Where a claim is not tested there are no numbers, and
the answer says that instead.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from gomhc.companion.claims.base import (
    FAILS,
    GO,
    HOLDS,
    MOST,
    NAMES,
    OPEN,
    UNDECIDED,
    Verdict,
    number,
)
from gomhc.companion.studies.training_plan import chosen

Said = Callable[[str], Verdict]  # id of a claim -> its verdict
PERCENT = "\N{NO-BREAK SPACE}%"
# Experiment of chapter 7 -> what a reader knows it by
TEXTS = {
    "letters": "Tiny Shakespeare",
    "bible": "the King James Bible",
    "stories": "our stories",
}


def _percent(share: float) -> str:
    return f"{100 * share:.3g}{PERCENT}"


def _why(*entries: Verdict) -> str:
    """Where to see it."""
    figures = (f"{{numref}}`{entry.figure.partition('#')[2]}`" for entry in entries)
    return f"Why: {' and '.join(figures)}."


def _apart(difference: Mapping[str, Any], other: str) -> str:
    """A difference by what is sure of it: 1.0 % above the other, or within 0.4 % of it."""
    mean, low, high = (difference[key] for key in ("mean", "low", "high"))
    if low <= 0 <= high:
        bound = math.ceil(1000 * max(-low, high)) / 10  # never less than it is
        return f"within {bound:.1f}{PERCENT} of {other}"
    return f"{100 * abs(mean):.1f}{PERCENT} {'above' if mean > 0 else 'below'} {other}"


def reach(said: Said) -> str:
    """How much of the polytope does each block size reach?"""
    dial, kron = said("dial"), said("kronecker-limited")
    if OPEN in (dial.verdict, kron.verdict):
        return "The record of uniform samples has not been made."
    share = dial.values["share"]["4"][GO]
    much = "nearly everything" if share >= MOST else "more"
    return (
        f"From $d=3$ on $s=1$ reaches a set without volume, and $s=2$ {much}: {_percent(share)} of "
        f"uniform samples at $d=4$, where KromHC reaches {_percent(kron.values['kromhc'])}. No "
        f"finite $s$ reaches every edge. The larger $s$, the nearer random starts land to the "
        f"centre. {_why(dial)}"
    )


def spectra(said: Said) -> str:
    """What does a spectrum say about the matrices behind it?"""
    evidence, panels = said("spectrum-is-evidence"), said("spectra-panels")
    if OPEN in (evidence.verdict, panels.verdict):
        return "The records of the searches have not been made."
    both = evidence.values
    label, (region, volume) = max(both.items(), key=lambda item: item[1][0] - item[1][1])
    family, _, d = label.partition(", ")
    again = "do not come" if panels.verdict == FAILS else "come"
    much = {
        FAILS: "little about the matrices behind them",
        HOLDS: "how much of the polytope is reached",
    }.get(evidence.verdict, "something, but not all")
    return (
        f"The panels {again} out again, and say {much}: `{family}` covers {_percent(region)} of "
        f"the Perfect–Mirsky region at ${d.replace(' ', '')}$, and {_percent(volume)} of the "
        f"polytope. {_why(evidence)}"
    )


def speed(said: Said) -> str:
    """Which mixer learns a mixing best, and fastest?"""
    tuned, bound = said("ten-times-tuned"), said("minimum-is-bound")
    if OPEN in (tuned.verdict, bound.verdict) or not tuned.values:
        return "The records of this comparison are not complete."
    released = tuned.values["released"]
    rival = max(released, key=lambda label: released[label])
    (ratio,) = tuned.values["by_rival"][rival]
    lead = (
        "The factor of ten comes from one learning rate for all methods"
        if tuned.verdict == FAILS
        else "The factor of ten stays when learning rates are tuned"
    )
    minimum = "is not" if bound.verdict == FAILS else "is"
    return (
        f"{lead}: at $d=4$ {NAMES[rival]} takes {number(released[rival])} times the steps of "
        f"go-mHC as released, and {number(ratio)} times with the best rate for each. The “minimum "
        f"theoretical loss” {minimum} the minimum over the polytope. {_why(tuned)}"
    )


def cost(said: Said) -> str:
    """What does a mixer cost, and does composing help?"""
    cubic, kron = said("cubic-cost"), said("composition")
    if OPEN in (cubic.verdict, kron.verdict):
        return "The records of this comparison are not complete."
    return (
        f"At $s=2$ the FLOPs of go-mHC grow like $d^{{{cubic.values['flops'][GO]:.2f}}}$; those of "
        "mHC-lite grow like $d!$. Kronecker products of small go-mHC factors are cheaper, and at "
        f"similar FLOPs {_little(kron)}. {_why(cubic)}"
    )


def _little(kron: Verdict) -> str:
    """What products of go-mHC factors give."""
    most = max(kron.values["closed"].values())
    return (
        f"close at most {_percent(most)} of the gap in reach between KromHC as published and go-mHC"
    )


def composition(said: Said) -> str:
    """Can a Kronecker product of small factors stand in for go-mHC?"""
    kron = said("composition")
    if kron.verdict == OPEN:
        return "The records of Kronecker products are not complete."
    lead = {FAILS: "No", HOLDS: "Yes"}.get(kron.verdict, "In part")
    return f"{lead}: at similar FLOPs products of go-mHC factors {_little(kron)}. {_why(kron)}"


def language_model(said: Said) -> str:
    """Does the mixing matrix matter in a language model?"""
    pairs = {
        name: (said(f"mixing-{text}"), said(f"streams-{text}"))
        for text, name in TEXTS.items()
        if chosen(text)
    }
    tested = {name: pair for name, pair in pairs.items() if OPEN not in (e.verdict for e in pair)}
    if not tested:
        return "No text has been trained on with the arms and seeds that this takes yet."
    mixing = {pair[0].verdict for pair in tested.values()}
    sizes = "sizes" if len(tested) > 1 else "size"
    decided = mixing - {UNDECIDED}
    where = f"at the {sizes} tried" if decided == mixing else "where the seeds decide it"
    if decided == {HOLDS}:
        lead = f"Yes, {where}: mixing lowers the loss."
    elif decided == {FAILS}:
        lead = f"No, not {where}: mixing gains next to nothing."
    elif decided:
        lead = "That depends on the text."
    else:
        lead = f"That is not decided at the {sizes} tried."
    why = _why(next(iter(tested.values()))[0])
    return " ".join([lead, *(_trained(name, *pair) for name, pair in tested.items()), why])


def _trained(name: str, mixing: Verdict, streams: Verdict) -> str:
    """What came of one text, in a sentence."""
    if mixing.verdict == streams.verdict == UNDECIDED:
        return f"On {name} the seeds scatter too much."
    parts = [
        _apart(entry.values["difference"], other) if entry.values else entry.measured
        for entry, other in ((mixing, "unmixed streams'"), (streams, "one stream's"))
    ]
    return f"On {name} go-mHC's loss ends {' and '.join(parts)}."


def worth(said: Said) -> str:
    """Is it worth it?"""
    return (
        f"{language_model(said)}\n\nTo see whether it pays in your model, train two more: the "
        "same streams with `identity`, which never mixes them, and the plain residual. If mixing "
        "does pay, go-mHC is an exact way to do it."
    )


def precision(said: Said) -> str:
    """float32 or bfloat16?"""
    exact, sinkhorn = said("exact"), said("sinkhorn-inexact")
    if OPEN in (exact.verdict, sinkhorn.verdict):
        return "The record of exactness has not been made."
    ours, theirs = (entry.values["error"]["float32"] for entry in (exact, sinkhorn))
    return (
        "Keep the mixer in float32: there the sums of go-mHC's rows and columns are off by at most "
        f"{number(max(ours.values()))} at every size of $\\theta$ tried, and those of mHC with its "
        f"20 iterations by up to {number(max(theirs.values()))} where $\\theta$ is large. "
        f"{_why(exact, sinkhorn)}"
    )


def block_size(said: Said) -> str:
    """How much does a larger s add?"""
    dial = said("dial")
    if dial.verdict == OPEN:
        return "The record of uniform samples has not been made."
    shares = dial.values["share"]["4"]
    *_, largest = shares  # "go-mhc s=4"
    return (
        f"Of uniform samples of the polytope at $d=4$, $s=2$ reaches {_percent(shares[GO])} and "
        f"${largest.partition(' ')[2]}$ {_percent(shares[largest])}. {_why(dial)}"
    )


def streams(said: Said) -> str:
    """Four streams or more?"""
    entry = said("scaling-d-letters")
    if entry.verdict == OPEN:
        return "Four streams and eight have not been compared: the records are not complete."
    if not entry.values:
        return f"Four streams and eight could not be compared: {entry.measured}."
    unmixed = entry.values.get("unmixed")
    return (
        "On Tiny Shakespeare the loss with eight streams, mixed by go-mHC, ends "
        f"{_apart(entry.values['difference'], 'that with four')}. "
        + (f"Without mixing, eight end {_apart(unmixed, 'four')}. " if unmixed else "")
        + f"All have the learning rate that was chosen for four. {_why(entry)}"
    )


ANSWERS: dict[str, Callable[[Said], str]] = {
    "reach": reach,
    "spectra": spectra,
    "speed": speed,
    "cost": cost,
    "composition": composition,
    "language-model": language_model,
    "worth": worth,
    "precision": precision,
    "block-size": block_size,
    "streams": streams,
}
