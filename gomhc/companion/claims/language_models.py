"""Claims about language models, judged apart for every text and size of chapter 7's trainings.

Arms are compared seed by seed, each at the learning rate that other seeds chose, by their loss
above the floor of the text, or by the loss itself where no floor is known. A training that diverged
counts as an infinite loss: it can lose a comparison, never leave it.
"""

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from gomhc.companion.claims.base import (
    ABSTRACT,
    CAVEAT,
    FAILS,
    GO,
    HOLDS,
    KROMHC_ABSTRACT,
    LANGUAGE,
    NAMES,
    OPEN,
    RIVALS,
    UNDECIDED,
    Claim,
    Finding,
    Records,
    figure,
    number,
)
from gomhc.companion.paired import Difference, difference
from gomhc.companion.studies import training_plan
from gomhc.companion.studies.training_plan import CONTROLS, EXPERIMENTS, MAIN, names_of

MODELS = {
    "letters": "four layers on Tiny Shakespeare, by characters",
    "bible": "four layers on the King James Bible, in byte-pair encoding",
    "stories": "six layers on our stories",
    "letters-large": "six layers of width 384 on Tiny Shakespeare",
    "stories-large": "eight layers on our stories",
}
VERDICT = {"yes": HOLDS, "no": FAILS, "undecided": UNDECIDED}


class _Arm:
    """The reported trainings of an arm, at the rate of the lowest mean loss."""

    def __init__(self, records: Records, experiment: str, arm: str, control: str = "") -> None:
        named = {
            rate: names_of(experiment, arm, rate, control)
            for rate in training_plan.rates(experiment, arm)
        }
        losses = {
            rate: {
                k: _loss(training_plan.judged(experiment, records[name]))
                for k, name in names.items()
            }
            for rate, names in named.items()
        }
        self.name = NAMES.get(arm, arm)
        self.rate = min(losses, key=lambda rate: statistics.fmean(losses[rate].values()))
        self.losses = losses[self.rate]
        self.lost = math.inf in self.losses.values()
        sizes = [records[name].metrics["parameters"] for name in named[self.rate].values()]
        self.parameters = max((size for size in sizes if size), default=0)

    def __str__(self) -> str:
        """Name, mean and rate."""
        mean = statistics.fmean(self.losses.values())
        return f"{self.name} {mean:.4f} (rate {self.rate:g}, {len(self.losses)} seeds)"


def _loss(value: float | None) -> float:
    return math.inf if value is None else value


def _names(experiment: str, arms: Iterable[str], controls: Iterable[str] = ()) -> tuple[str, ...]:
    wanted = [(arm, "") for arm in arms]
    wanted += [(CONTROLS[experiment][control][0], control) for control in controls]
    return tuple(
        name
        for arm, control in wanted
        for rate in training_plan.rates(experiment, arm)
        for name in names_of(experiment, arm, rate, control).values()
    )


def _unit(experiment: str) -> str:
    """What differences are shares of."""
    sizes = EXPERIMENTS[experiment]
    if sizes.corpus["kind"] == "stories":
        return "loss above the floor"
    return "lowest loss of the evaluations" if sizes.lowest else "loss"


def _values(apart: Difference) -> dict[str, Any]:
    return apart._asdict() | {"half_width": apart.half_width, "seeds": len(apart.pairs)}


def _lower(experiment: str, rival: str) -> Callable[[Records], Finding]:
    """Whether go-mHC ends lower than a rival."""

    def judge(records: Records) -> Finding:
        ours, theirs = (_Arm(records, experiment, arm) for arm in (GO, rival))
        if ours.lost:
            return Finding(FAILS, "a training with go-mHC diverged", {})
        if theirs.lost:
            return Finding(CAVEAT, f"a training of {theirs.name} diverged, none of go-mHC", {})
        apart = difference(ours.losses, theirs.losses)
        verdict = VERDICT[apart.lowers(EXPERIMENTS[experiment].wanted)]
        more = ours.parameters / theirs.parameters - 1
        margin = EXPERIMENTS[experiment].wanted
        measured = f"{_unit(experiment)}, nats a token: {ours}, {theirs}; difference {apart}"
        if apart.low > 0:
            measured += ", so it is higher"
        elif verdict == FAILS:
            measured += f", so a gain of {margin:.0%} is excluded"
        heavier = f"go-mHC has {more:.0%} more parameters" if more >= 0.005 else ""
        values = {"difference": _values(apart), "parameters": more}
        return Finding(verdict, measured, values, heavier if verdict == HOLDS else "")

    return judge


def _no_worse(experiment: str, arm: str, rivals: Iterable[str]) -> Callable[[Records], Finding]:
    """Whether an arm ends within the margin of every rival, or below it."""

    def judge(records: Records) -> Finding:
        ours = _Arm(records, experiment, arm)
        if ours.lost:
            return Finding(FAILS, f"a training of {ours.name} diverged", {})
        others = {name: _Arm(records, experiment, name) for name in rivals}
        apart = {
            name: difference(ours.losses, other.losses)
            for name, other in others.items()
            if not other.lost
        }
        margin = EXPERIMENTS[experiment].wanted
        said = [each.no_worse(margin) for each in apart.values()]
        worst = next(word for word in ("no", "undecided", "yes") if word in (*said, "yes"))
        against = "; ".join(
            f"{others[name].name} {each} with "
            f"{ours.parameters / others[name].parameters - 1:+.0%} parameters"
            for name, each in apart.items()
        )
        lost = [other.name for other in others.values() if other.lost]
        everyone = ", ".join(map(str, [ours, *others.values()]))
        measured = f"{_unit(experiment)}, nats a token: {everyone}; {ours.name} against {against}"
        values = {name: _values(each) for name, each in apart.items()}
        caveat = f"a training of {', '.join(lost)} diverged" if lost else ""
        return Finding(VERDICT[worst], measured, values, caveat)

    return judge


def _wider(experiment: str) -> Callable[[Records], Finding]:
    """Whether eight streams end lower than four."""

    def judge(records: Records) -> Finding:
        four, eight = _Arm(records, experiment, GO), _Arm(records, experiment, GO, "d8")
        plain, still = (_Arm(records, experiment, "identity", what) for what in ("", "d8-identity"))
        if eight.lost:
            return Finding(FAILS, "a training with d = 8 diverged", {})
        if four.lost:
            return Finding(OPEN, "a training with d = 4 diverged", {})
        apart = difference(eight.losses, four.losses)
        values: dict[str, Any] = {"difference": _values(apart)}
        measured = (
            f"{_unit(experiment)} at d = 8 against d = 4: {apart}; "
            f"{number(eight.parameters / four.parameters)} times the parameters"
        )
        if not (plain.lost or still.lost):
            unmixed = difference(still.losses, plain.losses)
            values["unmixed"] = _values(unmixed)
            measured += f"; streams that never mix, likewise: {unmixed}"
        verdict = VERDICT[apart.lowers(EXPERIMENTS[experiment].wanted)]
        if verdict == HOLDS and "unmixed" in values and unmixed.high < 0:
            return Finding(CAVEAT, measured, values, "streams that never mix gain as well")
        return Finding(verdict, measured, values)

    return judge


def _large(records: Records) -> Finding:
    """Whether the authors' size ends within the margin of the plain residual."""
    experiment = "tinystories"
    finding = _no_worse(experiment, GO, ("residual", "identity"))(records)
    caveat = "a quarter of the authors' steps, another vocabulary, one learning rate"
    verdict = CAVEAT if finding.verdict == HOLDS else finding.verdict
    return finding._replace(verdict=verdict, caveat=caveat)


def _claims(experiment: str) -> list[Claim]:
    sizes, model = EXPERIMENTS[experiment], MODELS[experiment]
    margin, unit = f"{sizes.wanted:.0%}", _unit(experiment)
    chosen = "chosen by other seeds" if experiment in training_plan.REPORTED else "the best tried"
    many, few = sizes.main_seeds, sizes.seeds
    each = f"{many} seeds for residual, identity and go-mHC (s = 2), {few} for the others"
    paired = (
        f"We train {model}, with d = 4 and paired seeds, "
        f"{each if many > few else f'{few} for each arm'}. Each arm has its own learning rate, "
        f"{chosen}. Differences are shares of the {unit}."
    )
    below = (
        "Holds if the 95 % interval of the mean difference lies below 0, however small the gain. "
        f"Otherwise the claim does not hold if the interval excludes a gain of {margin}; if not, "
        "it is not decided."
    )
    within = (
        f"{paired} Holds if the 95 % interval ends at +{margin} or below against every rival; "
        "does not hold if it begins above that against one; otherwise it is not decided."
    )
    claims = [
        Claim(
            f"mixing-{experiment}",
            LANGUAGE,
            f"Mixing the streams lowers the loss of a language model: {model}.",
            "mHC, arXiv 2512.24880; our criterion",
            f"{paired} We compare go-mHC (s = 2) with identity, which reads and writes the same "
            f"streams and does not mix them. {below}",
            figure(7, "lm-forest"),
            _names(experiment, (GO, "identity")),
            _lower(experiment, "identity"),
        ),
        Claim(
            f"streams-{experiment}",
            LANGUAGE,
            f"Four mixed streams lower the loss against a plain residual: {model}.",
            "Hyper-connections, arXiv 2409.19606; our criterion",
            f"{paired} We compare go-mHC (s = 2) with the plain residual. {below}",
            figure(7, "lm-forest"),
            _names(experiment, (GO, "residual")),
            _lower(experiment, "residual"),
        ),
    ]
    compared = (GO, "residual", "identity", *RIVALS)
    if sizes.profile != "book" or not training_plan.chosen(experiment, compared):
        return claims
    return [
        *claims,
        Claim(
            f"go-matches-{experiment}",
            LANGUAGE,
            f"go-mHC works in a language model as well as what came before it: {model}.",
            f"{ABSTRACT}; our criterion",
            f"{within} The rivals are the plain residual, identity, mHC-lite, KromHC and mHC.",
            figure(7, "lm-forest"),
            _names(experiment, compared),
            _no_worse(experiment, GO, ("residual", "identity", *RIVALS)),
        ),
        Claim(
            f"kromhc-matches-{experiment}",
            LANGUAGE,
            f"KromHC matches or beats other mHC variants in language models: {model}.",
            KROMHC_ABSTRACT,
            f"{within} The rivals are mHC, mHC-lite and go-mHC.",
            figure(7, "lm-forest"),
            _names(experiment, ("kromhc", "mhc", "mhc-lite", GO)),
            _no_worse(experiment, "kromhc", ("mhc", "mhc-lite", GO)),
        ),
    ]


def _scaling(experiment: str) -> Claim:
    sizes, model = EXPERIMENTS[experiment], MODELS[experiment]
    return Claim(
        f"scaling-d-{experiment}",
        LANGUAGE,
        f"go-mHC makes the number of streams d a practical dimension of model capacity: {model}.",
        ABSTRACT,
        f"We train {model}, and compare go-mHC (s = 2) with d = 8 and d = 4 on {sizes.seeds} "
        "paired seeds, both at the learning rate that was chosen for d = 4. Holds if the 95 % "
        f"interval of the mean difference, as a share of the {_unit(experiment)}, lies below 0; "
        "with a caveat if that of identity does too. Otherwise the claim does not hold if the "
        f"interval excludes a gain of {sizes.wanted:.0%}; if not, it is not decided. "
        "Chapter 6 has the cost.",
        figure(7, "lm-controls"),
        _names(experiment, (GO, "identity"), ("d8", "d8-identity")),
        _wider(experiment),
    )


CLAIMS: tuple[Claim, ...] = (
    *(
        claim
        for experiment in MODELS
        if training_plan.chosen(experiment)
        for claim in _claims(experiment)
    ),
    _scaling("letters"),
    Claim(
        "language-model",
        LANGUAGE,
        "go-mHC works in a GPT-style language model of 30 million parameters.",
        ABSTRACT,
        "The model has the authors' sizes but for the vocabulary of 4,096. It trains for 5,000 "
        "steps of 65,536 tokens of TinyStories on a GPU, with three paired seeds and one learning "
        "rate for all arms. No more than this is trained, so the claim can only hold with a "
        "caveat. It does if the 95 % interval of its mean loss ends at +1 % or below against the "
        "plain residual and against identity; it does not hold if the interval begins above that. "
        "The authors' own training, 20,000 steps, cannot be repeated: their release lacks the "
        "module that holds their hyper-connection, and the values of their tables are not public.",
        figure(7, "lm-forest"),
        _names("tinystories", MAIN),
        _large,
    ),
)
