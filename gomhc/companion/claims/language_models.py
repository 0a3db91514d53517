"""Claims about language models, judged apart for the sizes of chapter 7's trainings.

Arms are compared seed by seed by what their loss is above the floor of the text, which is known
exactly; all but the numbers of streams and the authors' size at the best learning rate of each arm.
A training that diverged counts as an infinite loss: it can lose a comparison, never leave it.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from scipy import stats

from gomhc.companion.claims.base import (
    ABSTRACT,
    CAVEAT,
    FAILS,
    GO,
    KROMHC_ABSTRACT,
    LANGUAGE,
    NAMES,
    OPEN,
    RIVALS,
    Claim,
    Finding,
    Number,
    Records,
    figure,
    grade,
    number,
    span,
)
from gomhc.companion.records import Record
from gomhc.companion.studies.language_models import LARGE_ARMS, RATES, SIZES, record_name

MARGIN = 0.05  # of the loss above the floor: "as well as" allows this much
TWICE = 2.0  # d = 8 has twice the streams of d = 4, and may take that much longer
MODELS = {
    "book": "the GPT `nano` of chapter 7",
    "full": "the GPT `small` of chapter 7",
}


class _Difference(NamedTuple):
    """Paired differences between two arms, as shares of the second one's loss above the floor."""

    mean: float
    low: float  # 95 % interval of the mean (Student's t)
    high: float
    pairs: list[float]

    def __str__(self) -> str:
        """Mean and interval in percent."""
        return f"{self.mean:+.1%} ({self.low:+.1%} to {self.high:+.1%})"


def _above_floor(record: Record) -> Number:
    """Infinite where the training diverged."""
    return math.inf if record.metrics["diverged"] else record.metrics["above"]


def _rates(profile: str) -> dict[float, str]:
    """Learning rate -> what the jobs that have it are called."""
    own = SIZES[profile]["training"]["learning_rate"]
    return {share * own: what for share, what in RATES.items()}


def _tuned(records: Records, profile: str, arm: str) -> tuple[float, dict[int, Number]]:
    """(learning rate, seed -> loss above the floor), the rate being the one of the least mean.

    Losses are infinite if some seed diverged at every rate.
    """
    table = {
        rate: {
            seed: _above_floor(records[record_name(profile, what, arm, seed)])
            for seed in SIZES[profile]["seeds"]
        }
        for rate, what in _rates(profile).items()
    }
    best = min(table, key=lambda rate: statistics.fmean(table[rate].values()))
    return best, table[best]


def _weights(
    records: Records, profile: str, arm: str, whats: Iterable[str] = tuple(RATES.values())
) -> int:
    """Parameters of an arm, from a training that did not diverge."""
    names = itertools.product(whats, SIZES[profile]["seeds"])
    sizes = (records[record_name(profile, w, arm, k)].metrics["parameters"] for w, k in names)
    return next(size for size in sizes if size)


def _lost(rows: Mapping[str, tuple[float, Mapping[int, Number]]]) -> list[str]:
    """The arms of which a seed diverged at every rate."""
    return [arm for arm, (_, losses) in rows.items() if math.inf in losses.values()]


def _diverged(arms: Iterable[str]) -> str:
    return f"at every rate a seed diverged of {', '.join(NAMES.get(arm, arm) for arm in arms)}"


def _untuned(profile: str, rows: Mapping[str, tuple[float, Mapping[int, Number]]]) -> list[str]:
    """A caveat for arms whose best rate is an end of the grid: a better one may lie beyond."""
    rates = _rates(profile)
    ends = min(rates), max(rates)
    arms = [NAMES.get(arm, arm) for arm, (rate, _) in rows.items() if rate in ends]
    return [f"the best rate is an end of the grid for {', '.join(arms)}"] if arms else []


def _difference(ours: Mapping[int, Number], theirs: Mapping[int, Number]) -> _Difference:
    base = statistics.fmean(theirs.values())
    pairs = [(ours[seed] - theirs[seed]) / base for seed in sorted(ours.keys() & theirs.keys())]
    mean, error = statistics.fmean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs))
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * error
    return _Difference(mean, mean - half, mean + half, pairs)


def _above(rows: Mapping[str, tuple[float, Mapping[int, Number]]]) -> str:
    return ", ".join(
        f"{NAMES.get(arm, arm)} {number(statistics.fmean(losses.values()))} (rate {rate:g})"
        for arm, (rate, losses) in rows.items()
    )


def _no_worse(profile: str, arm: str, rivals: Iterable[str]) -> Callable[[Records], Finding]:
    """Whether an arm is within the margin of every rival, or below it."""

    def judge(records: Records) -> Finding:
        rows = {name: _tuned(records, profile, name) for name in (arm, *rivals)}
        ours = rows[arm][1]
        lost = _lost(rows)
        if arm in lost:
            return Finding(FAILS, _diverged([arm]), {})
        rows = {name: row for name, row in rows.items() if name not in lost}
        differences = {name: _difference(ours, rows[name][1]) for name in rivals if name in rows}
        sure = all(d.high <= MARGIN for d in differences.values())
        likely = all(d.mean <= MARGIN for d in differences.values())
        own = _weights(records, profile, arm)
        against = "; ".join(
            f"{NAMES.get(name, name)} {difference} with "
            f"{own / _weights(records, profile, name) - 1:+.0%} parameters"
            for name, difference in differences.items()
        )
        measured = f"above the floor, nats a token: {_above(rows)}; {NAMES[arm]} against {against}"
        caveats = [] if sure or not likely else ["an interval reaches beyond the margin"]
        caveats += _untuned(profile, rows) + ([_diverged(lost)] if lost else [])
        values = {name: d._asdict() for name, d in differences.items()}
        return Finding(grade(sure, likely), measured, values, "; ".join(caveats))

    return judge


def _mixing(profile: str) -> Callable[[Records], Finding]:
    """Whether go-mHC has a lower loss than the same streams without mixing."""

    def judge(records: Records) -> Finding:
        rows = {name: _tuned(records, profile, name) for name in (GO, "identity")}
        lost = _lost(rows)
        if lost:
            return Finding(FAILS if GO in lost else CAVEAT, _diverged(lost), {})
        difference = _difference(rows[GO][1], rows["identity"][1])
        sure, likely = difference.high < 0, difference.mean < 0
        more = _weights(records, profile, GO) / _weights(records, profile, "identity") - 1
        caveats = [] if sure or not likely else ["the interval holds 0"]
        caveats += [f"go-mHC has {more:.0%} more parameters"] if likely and more > 0 else []
        caveats += _untuned(profile, rows)
        measured = f"above the floor, nats a token: {_above(rows)}; difference {difference}"
        values = {"difference": difference._asdict()}
        return Finding(grade(sure, likely), measured, values, "; ".join(caveats))

    return judge


def _wider(profile: str) -> Callable[[Records], Finding]:
    """Whether eight streams have a lower loss than four, and what a token costs then."""

    def judge(records: Records) -> Finding:
        above: dict[str, dict[int, Number]] = {"d4": {}, "d8": {}}
        still: dict[str, dict[int, Number]] = {"d4": {}, "d8": {}}  # streams that never mix
        speed: dict[str, list[Number]] = {"d4": [], "d8": []}
        machines = set()
        for seed, what in itertools.product(SIZES[profile]["seeds"], above):
            record = records[record_name(profile, what, GO, seed)]
            above[what][seed] = _above_floor(record)
            still[what][seed] = _above_floor(records[record_name(profile, what, "identity", seed)])
            speed[what].append(record.metrics["tokens_per_second"])
            machines.add(record.provenance.device)
        for what, verdict in {"d8": FAILS, "d4": OPEN}.items():
            if math.inf in above[what].values():
                return Finding(verdict, f"a training with d = {what[1:]} diverged", {})
        difference = _difference(above["d8"], above["d4"])
        lost = any(math.inf in losses.values() for losses in still.values())
        unmixed = None if lost else _difference(still["d8"], still["d4"])
        cost = statistics.median(speed["d4"]) / statistics.median(speed["d8"])
        more = _weights(records, profile, GO, ["d8"]) / _weights(records, profile, GO, ["d4"])
        measured = (
            f"loss above the floor at d = 8 against d = 4: {difference}, where d = 4 has "
            f"{span(above['d4'].values())} nats a token; {number(more)} times the parameters; a "
            f"token takes {number(cost)} times as long"
        ) + (f"; streams that never mix, likewise: {unmixed}" if unmixed else "")
        likely = difference.mean < 0
        caveats = ["the interval holds 0"] if likely and difference.high >= 0 else []
        if likely and cost > TWICE:
            caveats.append(f"a token takes more than {TWICE:g} times as long")
        if likely and len(machines) > 1:
            caveats.append("the times are of different machines")
        verdict = grade(likely and not caveats, likely)
        values = {
            "difference": difference._asdict(),
            "unmixed": unmixed._asdict() if unmixed else None,
            "cost": cost,
        }
        return Finding(verdict, measured, values, "; ".join(caveats))

    return judge


def _large(records: Records) -> Finding:
    """Whether the authors' size trains, with a loss within the margin of the plain residual's."""
    names = {arm: record_name("full", "paper-30m", arm, 0) for arm in LARGE_ARMS}
    above = {arm: _above_floor(records[name]) for arm, name in names.items()}
    ours = above.pop(GO)
    if ours == math.inf:
        return Finding(FAILS, "the training with go-mHC diverged", {})
    ratios = {arm: ours / value - 1 for arm, value in above.items() if value < math.inf}
    shares = [
        f"{NAMES.get(arm, arm)} " + (f"{ratios[arm]:+.1%}" if arm in ratios else "(diverged)")
        for arm in above
    ]
    measured = (
        f"{number(ours)} nats a token above the floor after 300 steps; against {', '.join(shares)}"
    )
    caveats = ["one seed, one learning rate, a short training"]
    behind = [NAMES.get(arm, arm) for arm, ratio in ratios.items() if ratio > MARGIN]
    caveats += [f"more than {MARGIN:.0%} above {', '.join(behind)}"] if behind else []
    fits = ratios.get("residual", 0.0) <= MARGIN
    return Finding(CAVEAT if fits else FAILS, measured, ratios, "; ".join(caveats))


def _names(
    profile: str, arms: Iterable[str], whats: Iterable[str] = tuple(RATES.values())
) -> tuple[str, ...]:
    seeds = SIZES[profile]["seeds"]
    return tuple(record_name(profile, w, a, seed) for a in arms for w in whats for seed in seeds)


def _claims(profile: str) -> list[Claim]:
    model = MODELS[profile]
    paired = (
        f"In {model}: three paired seeds, d = 4 for every arm with streams, each arm at its best "
        "learning rate of three."
    )
    within = (
        f"{paired} Holds if the 95 % interval of the paired difference, as a share of the other "
        f"arm's loss above the floor, ends at {MARGIN:.0%} or below against every one of them; "
        "with a caveat if only the mean does."
    )
    others = ("residual", "identity", *RIVALS)
    return [
        Claim(
            f"kromhc-matches-{profile}",
            LANGUAGE,
            f"KromHC matches or beats other mHC variants in language models: {model}.",
            KROMHC_ABSTRACT,
            f"{within} The others are mHC, mHC-lite and go-mHC.",
            figure(7, "lm-losses"),
            _names(profile, ("kromhc", "mhc", "mhc-lite", GO)),
            _no_worse(profile, "kromhc", ("mhc", "mhc-lite", GO)),
        ),
        Claim(
            f"go-matches-{profile}",
            LANGUAGE,
            f"go-mHC works in a language model as well as what came before it: {model}.",
            f"{ABSTRACT}; our criterion",
            f"{within} The others are the plain residual, identity, mHC-lite, KromHC and mHC.",
            figure(7, "lm-losses"),
            _names(profile, (GO, *others)),
            _no_worse(profile, GO, others),
        ),
        Claim(
            f"mixing-{profile}",
            LANGUAGE,
            f"Mixing the streams lowers the loss of a language model: {model}.",
            "mHC, arXiv 2512.24880; our criterion",
            f"{paired} go-mHC (s = 2) against identity, which reads and writes the same streams "
            "and does not mix them. Holds if the 95 % interval of the paired difference is below "
            "0; with a caveat if only the mean is.",
            figure(7, "lm-losses"),
            _names(profile, (GO, "identity")),
            _mixing(profile),
        ),
        Claim(
            f"scaling-d-{profile}",
            LANGUAGE,
            "go-mHC makes the number of streams d a practical dimension of model capacity: "
            f"{model}.",
            ABSTRACT,
            f"In {model}: go-mHC (s = 2) with d = 8 against d = 4, three paired seeds, both at the "
            "learning rate that d = 4 was given, not tuned for d = 8. Holds if "
            "the 95 % interval of the paired difference of the losses above the floor is below 0 "
            f"and a token takes at most {TWICE:g} times as long; with a caveat if only the mean is "
            "below 0.",
            figure(7, "lm-wide"),
            _names(profile, (GO, "identity"), ("d4", "d8")),
            _wider(profile),
        ),
    ]


CLAIMS: tuple[Claim, ...] = (
    *_claims("book"),
    *_claims("full"),
    Claim(
        "language-model",
        LANGUAGE,
        "go-mHC works in a GPT-style language model of 30 million parameters.",
        ABSTRACT,
        "The authors' sizes, 300 steps of 32,768 tokens of our stories on a GPU, one seed, one "
        "learning rate for all arms. Holds with a caveat, that this is all, if the loss above "
        f"the floor is at most {MARGIN:.0%} above that of the plain residual. The authors' own "
        "training, 20,000 steps of 65,536 tokens of TinyStories, cannot be repeated: their release "
        "lacks the module that holds their hyper-connection, and the values of their tables are "
        "not public.",
        figure(7, "lm-large"),
        tuple(record_name("full", "paper-30m", arm, 0) for arm in LARGE_ARMS),
        _large,
    ),
)
