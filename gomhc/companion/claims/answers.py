"""Answers to the book's questions: sentences whose numbers and verdicts come out of the ledger.

An answer asks for the verdicts it needs by name. Where a claim is not tested there are no numbers,
and the answer says that instead.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gomhc.companion.claims.base import FAILS, GO, HOLDS, OPEN, UNDECIDED, Verdict, number, span
from gomhc.companion.studies.training_plan import chosen

Said = Callable[[str], Verdict]  # id of a claim -> its verdict
PERCENT = "\N{NO-BREAK SPACE}%"
# Experiment of chapter 7 -> what a reader knows it by
TEXTS = {
    "letters": "Tiny Shakespeare",
    "bible": "the King James Bible",
    "stories": "our stories",
}


def _quoted(words: str, entry: Verdict) -> str:
    """A claim in a few words, with its verdict."""
    return f"“{words}” *{'is ' if entry.verdict == OPEN else ''}{entry.verdict}*"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}{PERCENT}"


def _shares(dial: Verdict, label: str) -> str:
    """Shares of a mixer, by d: 97.6 % at d = 3, all 500 at d = 5."""
    every = f"all {dial.values['samples']}"
    return ", ".join(
        f"{every if row[label] == 1 else _percent(row[label])} at $d={d}$"
        for d, row in dial.values["share"].items()
    )


def _apart(difference: Mapping[str, Any], other: str) -> str:
    """A difference with its interval: 5.0 % above the others (95 % interval +1.0 % to +9.0 %)."""
    mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    side = "above" if mean > 0 else "below"
    far = f"{abs(mean):.1f}{PERCENT} {side}" if abs(mean) >= 0.05 else "level with"
    ends = f"{low:+.1f}{PERCENT} to {high:+.1f}{PERCENT}".replace("-", "\N{MINUS SIGN}")
    return f"{far} {other} (95{PERCENT} interval {ends})"


def reach(said: Said) -> str:
    """How much of the polytope does each block size reach?"""
    dial, kron = said("dial"), said("kronecker-limited")
    if OPEN in (dial.verdict, kron.verdict):
        return "The record of uniform samples has not been made."
    return (
        f"Of uniform samples $s=2$ reaches {_shares(dial, GO)}; $s=1$ reaches "
        f"{_shares(dial, 'go-mhc s=1')}, as it is a set without volume, and KromHC "
        f"{_percent(kron.values['kromhc'])} at $d=4$. {_chart(said)}The holes of a finite $s$ "
        "include the edges of long cycles, where level $s$ holds the multiples of $1/s$ alone; "
        "they close only in the limit. Random rotations do not show this: the larger $s$, the "
        "closer they land to the centre."
    )


def _chart(said: Said) -> str:
    """What came after the paper, in a sentence."""
    chart = said("chart-expressive")
    if chart.verdict == OPEN:
        return ""
    least = min(chart.values["share"].values())
    much = "all of them" if least == 1 else f"{_percent(least)} or more"
    return f"The chart of TBP-mHC, with $(d-1)^2$ numbers, reaches {much}. "


def spectra(said: Said) -> str:
    """What does a spectrum say about the matrices behind it?"""
    fills, evidence = said("fills-spectrum"), said("spectrum-is-evidence")
    if OPEN in (fills.verdict, evidence.verdict):
        return "The records of the searches have not been made."
    equal, both = fills.values["equal budgets"], evidence.values
    label, (region, volume) = max(both.items(), key=lambda item: item[1][0] - item[1][1])
    family, _, d = label.partition(", ")
    return (
        f"{_quoted('Fills far more than Kronecker products', fills)}. With equal budgets go-mHC "
        f"($s=2$) visits {_percent(equal[GO])} of the region at $d=4$ and KromHC "
        f"{_percent(equal['kromhc'])}; products of $2\\times2$ factors have real spectra, which "
        f"needs no experiment. mHC-lite visits {_percent(both['mhc-lite, d = 4'][0])}, once the "
        "search can leave the real axis. "
        f"{_quoted('Spectra show how much of the polytope is filled', evidence)}: `{family}` "
        f"covers {_percent(region)} of the region at ${d.replace(' ', '')}$ and {_percent(volume)} "
        "of the polytope."
    )


def speed(said: Said) -> str:
    """Which mixer learns a mixing best, and fastest?"""
    lite, tuned = said("ten-times-lite"), said("ten-times-tuned")
    steps, bound = said("ten-times-corrected"), said("minimum-is-bound")
    minimum = said("minimum-corrected")
    if OPEN in {entry.verdict for entry in (lite, tuned, steps, bound, minimum)}:
        return "The records of this comparison are not complete."
    ratios = steps.values["ratios"]
    inside = [r for case, r in ratios.items() if case.endswith(("uniform", "barycentre"))]
    corners = [r for case, r in ratios.items() if case.endswith("vertices")]
    wheres = {"targets inside the polytope": inside, "vertices": corners}
    taken = [f"{span(rs)} for {where}" for where, rs in wheres.items() if rs]
    rivals = (
        " Under the corrected protocol, by medians over seeds, mHC and mHC-lite take this many "
        "times the steps of go-mHC ($s=2$): "
    )
    return (
        f"{_quoted('Up to ten times faster than mHC-lite', lite)} under the released protocol, "
        f"where the factor is {span(lite.values['ratios'].values())}. With each method's best "
        f"learning rate instead of one for all it is {span(tuned.values['ratios'].values())} "
        f"against mHC-lite and mHC at $d=4$. {_quoted('The minimum is $σ^2/3$', bound)}: the exact "
        "minimum is a quadratic program, and is computed."
        + (f"{rivals}{', and '.join(taken)}." if taken else "")
        + f" {_quoted('Gets to the minimum', minimum)} under that protocol"
        + (f": {minimum.caveat}." if minimum.caveat else ".")
    )


def cost(said: Said) -> str:
    """What does a mixer cost, and does composing help?"""
    cubic, lite = said("cubic-cost"), said("cheaper-than-lite")
    if OPEN in (cubic.verdict, lite.verdict):
        return "The records of this comparison are not complete."
    pairs = lite.values["pairs"]
    cheaper = [d for d, (ours, theirs) in pairs.items() if ours < theirs]
    dearer = [d for d, (ours, theirs) in pairs.items() if ours >= theirs]
    end = max(pairs)
    first = min((d for d in cheaper if d > max(dearer, default=0)), default=None)
    return (
        f"{_quoted('$O(d^3)$ at fixed $s$', cubic)}: the FLOPs of $s=2$ grow like "
        f"$d^{{{cubic.values['flops'][GO]:.2f}}}$, and its time on the machine of the record like "
        f"$d^{{{cubic.values['seconds'][GO]:.2f}}}$. "
        + (f"It asks for fewer numbers than mHC-lite from $d={first}$ on. " if first else "")
        + f"mHC-lite ends at $d={end}$, with {pairs[end][1]:,} numbers a token; what grows with "
        "go-mHC is the map that makes its numbers, $O(s^2d^3C)$ weights for $C$ channels. "
        + composition(said)
    )


def composition(said: Said) -> str:
    """Can a Kronecker product of small factors stand in for go-mHC?"""
    kron, best = said("composition"), said("composition-best")
    if OPEN in (kron.verdict, best.verdict):
        return "The records of Kronecker products are not complete."

    def most(entry: Verdict) -> str:
        closed = entry.values["closed"]
        d = max(closed, key=lambda key: closed[key])
        return f"{_percent(closed[d])} (at $d={d}$)"

    return (
        f"{_quoted('Composition recovers expressivity at similar FLOPs', kron)}. The nearest "
        "matrix of KromHC is farther from a target than that of go-mHC ($s=2$); products of "
        f"go-mHC factors close at most {most(kron)} of that gap, beside KromHC as published with "
        "similar FLOPs. Where KromHC has any factors, more products find a rival with similar "
        f"FLOPs, and the most that one closes is {most(best)}."
    )


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
    if mixing == {HOLDS}:
        lead = "Yes, at the sizes tried: mixing the streams lowers the loss."
    elif mixing == {FAILS}:
        lead = "No, not at the sizes tried: mixing the streams gains next to nothing, if anything."
    elif mixing == {UNDECIDED}:
        lead = "That is not decided at the sizes tried."
    else:
        lead = "That depends on the text."
    return " ".join([lead, *(_trained(name, *pair) for name, pair in tested.items())])


def _trained(name: str, mixing: Verdict, streams: Verdict) -> str:
    """What came of one text, in a sentence."""
    parts = [
        _apart(entry.values["difference"], other) if entry.values else entry.measured
        for entry, other in ((mixing, "the same streams never mixed"), (streams, "one stream"))
    ]
    return f"On {name} the loss with go-mHC ($s=2$) ends {' and '.join(parts)}."


def worth(said: Said) -> str:
    """Is it worth it?"""
    return (
        f"{language_model(said)}\n\nWhether it pays in your model, two more trainings show: the "
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
        "In float32 the sums of go-mHC's rows and columns are off by at most "
        f"{number(max(ours.values()))} for $|\\theta|$ up to {number(max(ours))}, and those of mHC "
        f"with its 20 iterations by up to {number(max(theirs.values()))}."
    )


def block_size(said: Said) -> str:
    """How much does a larger s add?"""
    dial = said("dial")
    if dial.verdict == OPEN:
        return "The record of uniform samples has not been made."
    *_, largest = next(iter(dial.values["share"].values()))  # "go-mhc s=4"
    return (
        f"Of uniform samples of the polytope $s=2$ reaches {_shares(dial, GO)}, and "
        f"${largest.partition(' ')[2]}$ reaches {_shares(dial, largest)}."
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
        "On Tiny Shakespeare the loss ends with eight streams mixed by go-mHC ($s=2$) "
        f"{_apart(entry.values['difference'], 'that with four')}. "
        + (f"Without mixing, eight end {_apart(unmixed, 'four')}. " if unmixed else "")
        + "All have the learning rate that was chosen for four."
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
