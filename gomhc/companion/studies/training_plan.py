"""The trainings of chapter 7: which, at what sizes, and in what order.

Note [Plan]
    A pilot of three arms comes first, with seeds of its own and one learning rate: the spread of
    its paired differences says how many seeds the comparison needs. The first of these seeds then
    chooses every arm's learning rate out of a grid; where its two best rates end close together,
    the mean with two more seeds decides between them. What is reported comes from other seeds, at
    the rate chosen.

    On the stories a seed ends at one of few heights, by how many drops of the loss come in time,
    and one seed cannot choose a rate at all: at 0.003 identity ended at 0.31, 0.28, 0.08, 0.08 and
    0.08 nats above the floor, and at twice and at half that rate the first of these seeds ended at
    0.08 and 0.09. So there three seeds try every rate, the mean chooses, and seeds that are not the
    pilot's are reported. This is the third rule: the first would have reported seeds 101 to 105 and
    chosen by seed 100, the second would have tried two rates with three seeds. It was made when the
    pilot but for its last two trainings, and three at other rates, were there, and no seed from 105
    on.

    An arm that ends lowest at the largest rate of its grid tries one more. On the letters 0.012 was
    first planned for every arm; on the stories it was added when residual and identity had ended
    lowest at 0.006.

    All arms are trained on the letters. The longer text and the stories have the three arms of the
    question: with more, the book's profile would not fit into ten hours of two cores. That was
    decided when these arms were finished on both; until then the plan had all arms for the Bible,
    and mhc, go-mhc s=1 and transport for the stories, of which nothing was trained.

    Where a profile is made in one go, on a GPU, every rate of the grid is reported.

    nanoGPT's recipe for a GPU keeps the model of the lowest evaluation, as it goes through its
    text eighty times and the loss rises from a third of the steps on. That we judge it so too was
    decided after three trainings, one an arm, and before any comparison of several seeds.

    The grid of the Bible lies around the rate that the letters chose; that was decided before any
    of its trainings, and after those of the letters.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gomhc.companion.records import Record
from gomhc.companion.studies.base import GO, Outcome, Probe, Unit
from gomhc.companion.studies.language_models import ARMS, run

__all__ = [
    "CONTROLS",
    "EARLIER",
    "EXPERIMENTS",
    "GO",
    "MAIN",
    "NEAR",
    "PROBES",
    "REPORTED",
    "RETRIED",
    "RETRIED_SEEDS",
    "TUNING_SEED",
    "WIDENED",
    "Experiment",
    "at",
    "chosen",
    "grid",
    "judged",
    "names_of",
    "pilot_names",
    "rates",
    "record_name",
    "seeds",
    "tuning_seeds",
    "units",
]

PROTOCOL = 1
MAIN = ("residual", "identity", GO)  # the arms of the question, and of the pilot
PILOT_RATE = 3e-3
TUNING_SEED = 100  # the first of those that are not reported
NEAR = 0.005  # rates whose losses are closer than this share are tried with more seeds
RETRIED_SEEDS = (TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2)


class Experiment(NamedTuple):
    """A text, a size, and the trainings that are made of both.

    Attributes:
        profile: that makes it: "smoke", "book" or "full".
        model: `preset` and changes to it, without the arm's.
        training: fields of `TrainConfig`.
        corpus: see `language_models.run`.
        rates: grid of learning rates; see `WIDENED` too.
        watch_every: steps between reports of the streams.
        pilot: seeds of the pilot.
        seeds: that are reported.
        main_seeds: of the arms in `MAIN`.
        first_seed: the first of these seeds.
        wanted: half-width of the 95 % interval that the number of seeds is chosen for, and the
            gain that must be excluded before the ledger says "does not hold": a share of the loss
            above the floor of the text, or of the loss itself where no floor is known.
        tuning: seeds that try every rate.
        lowest: whether arms are compared by their lowest evaluation, not by the last.
        arms: in order of importance.
    """

    profile: str
    model: dict[str, Any]
    training: dict[str, Any]
    corpus: dict[str, Any]
    rates: tuple[float, ...]
    watch_every: int | None = None
    pilot: int = 0
    seeds: int = 5
    main_seeds: int = 5
    first_seed: int = 0
    wanted: float = 0.01
    tuning: int = 1
    lowest: bool = False
    arms: tuple[str, ...] = tuple(ARMS)


# nanoGPT's recipe for a CPU, at its own learning rate of 1e-3 and at others: its evaluation loss on
# Tiny Shakespeare is given as 1.88.
RECIPE: dict[str, Any] = {
    "steps": 2000,
    "batch": 12,
    "warmup": 100,
    "betas": [0.9, 0.99],
    "evaluate_every": 200,
}
EXPERIMENTS: dict[str, Experiment] = {
    "letters": Experiment(
        "book",
        {"preset": "small", "block": 64, "vocabulary": 65},
        RECIPE,
        {"kind": "shakespeare", "windows": 256},
        (1e-3, 3e-3, 6e-3),
        400,
        pilot=6,
        main_seeds=8,
    ),
    # Deep enough for streams to matter; many trainings end before a sudden drop of the loss.
    "stories": Experiment(
        "book",
        {"preset": "nano", "layers": 6},
        {"steps": 3000, "batch": 32, "warmup": 100, "evaluate_every": 200},
        {"kind": "stories", "train": 3_000_000, "windows": 256},
        (1.5e-3, 3e-3, 6e-3),
        600,
        pilot=5,
        first_seed=TUNING_SEED + 5,
        wanted=0.02,
        tuning=3,
        arms=MAIN,
    ),
    # A training reads about as many tokens as the text has; of the letters, one and a half times.
    "bible": Experiment(
        "book",
        {"preset": "small", "block": 64, "vocabulary": 512},
        RECIPE,
        {
            "kind": "file",
            "name": "kjv.txt",
            "sha256": "93cbff53fc77bb00401028092a94521986a59764c741696ad4b15a0576460507",
            "level": "bpe",
            "vocabulary": 512,
            "windows": 256,
        },
        (1.5e-3, 3e-3, 6e-3),
        400,
        arms=MAIN,
    ),
    # nanoGPT's recipe for a GPU; its evaluation loss is given as 1.4697.
    "letters-large": Experiment(
        "full",
        {
            **{"preset": "small", "layers": 6, "heads": 6, "width": 384, "block": 256},
            **{"vocabulary": 65, "dropout": 0.2},
        },
        {
            **{"steps": 5000, "batch": 64, "warmup": 100, "betas": [0.9, 0.99]},
            "evaluate_every": 250,
        },
        {"kind": "shakespeare", "windows": 256},
        (1e-3, 2e-3),
        1000,
        seeds=3,
        main_seeds=3,
        lowest=True,
    ),
    "stories-large": Experiment(
        "full",
        {"preset": "small", "layers": 8},
        {"steps": 3000, "batch": 64, "warmup": 100, "evaluate_every": 200},
        {"kind": "stories", "train": 12_000_000, "windows": 256},
        (1.5e-3, 3e-3),
        600,
        seeds=3,
        main_seeds=3,
        wanted=0.02,
    ),
    # The authors' model; they train it for 20,000 steps, with GPT-2's vocabulary.
    "tinystories": Experiment(
        "full",
        {"preset": "paper-30m", "vocabulary": 4096},
        {"steps": 5000, "batch": 128, "warmup": 500, "evaluate_every": 250},
        {
            "kind": "file",
            "name": "TinyStories-train.txt",
            "sha256": None,
            "level": "bpe",
            "vocabulary": 4096,
            "windows": 128,
        },
        (1e-3,),
        1000,
        seeds=3,
        main_seeds=3,
        arms=(*MAIN, "mhc", "mhc-lite", "kromhc"),
    ),
    "smoke": Experiment(
        "smoke",
        {"preset": "nano", "block": 32, "width": 32},
        {"steps": 4, "batch": 8, "warmup": 1, "evaluate_every": 2},
        {"kind": "stories", "train": 2000, "windows": 2},
        (3e-3,),
        seeds=1,
        main_seeds=1,
    ),
}
# Experiment -> arms that end lowest at the largest rate of the grid -> one more to try.
WIDENED: dict[str, dict[str, float]] = {
    "letters": dict.fromkeys(("hc", "mhc", "kromhc"), 1.2e-2),
    "stories": dict.fromkeys(("residual", "identity"), 1.2e-2),
}
# Experiment -> arms whose two best rates are near each other with the first seed -> these rates.
RETRIED: dict[str, dict[str, tuple[float, float]]] = {
    "letters": dict.fromkeys(("residual", "identity", "mhc", "kromhc", "transport"), (3e-3, 6e-3)),
    "bible": {"residual": (3e-3, 6e-3), GO: (1.5e-3, 3e-3)},
}
# Experiment -> arm -> the learning rate that was chosen: a test holds it against the records.
REPORTED: dict[str, dict[str, float]] = {
    "letters": {
        **{"residual": 3e-3, "identity": 3e-3, GO: 3e-3},
        **{"hc": 6e-3, "mhc": 3e-3, "mhc-lite": 3e-3, "kromhc": 3e-3, "go-mhc s=1": 3e-3},
        **{"kron-go s=2": 3e-3, "orthogonal": 3e-3, "transport": 3e-3},
    },
    "stories": {"residual": 6e-3, "identity": 6e-3, GO: 3e-3},
    "bible": {"residual": 3e-3, "identity": 3e-3, GO: 3e-3},
}
# Experiment -> arm -> the rate that the first seed alone had chosen, reported before more decided.
EARLIER = {"letters": {"mhc": 6e-3, "kromhc": 6e-3}}
KEPT = {"keep_function": True, "reduce": "mean", "offsets": 0.0}
# Trainings that differ from a reported one in what is named: name -> its arm, changes to the
# model, changes to the training.
CONTROLS: dict[str, dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "letters": {
        "wide": ("residual", {"mlp": 657}, {}),  # with as many parameters as go-mhc s=2
        "frozen": (GO, {"frozen": True}, {}),
        "kept": (GO, KEPT, {}),
        "kept-identity": ("identity", KEPT, {}),
        "decay": (GO, {}, {"decay_connections": True}),
        "d8": (GO, {"d": 8}, {}),
        "d8-identity": ("identity", {"d": 8}, {}),
        "d2": (GO, {"d": 2}, {}),
        "d2-identity": ("identity", {"d": 2}, {}),
        "d1-identity": ("identity", {"d": 1}, {}),  # where every mixer is the number 1
        "mass0.1": (GO, {"off_diagonal_mass": 0.1}, {}),
        "dead": (GO, {"dead_start": True}, {}),
    },
    "smoke": {
        "dead": (GO, {"dead_start": True}, {}),
        "d8": ("kron-go s=2", {"d": 8}, {}),
    },
}


def record_name(experiment: str, what: str, arm: str, seed: int) -> str:
    """Name of a training's record.

    Args:
        experiment: out of `EXPERIMENTS`.
        what: what is special of it, such as its learning rate.
        arm: out of `ARMS`.
        seed: of the training.

    Returns:
        Such as "lm/letters-go-mhc-s2-lr0.003-seed100".
    """
    label = f"{arm}-{what}".replace(" s=", "-s")
    return f"lm/{experiment}-{label}-seed{seed}"


def at(learning_rate: float) -> str:
    """How a record's name tells a learning rate.

    Args:
        learning_rate: at the end of the warm-up.

    Returns:
        Such as "lr0.003".
    """
    return f"lr{learning_rate:g}"


def seeds(experiment: str, arm: str, control: str = "") -> range:
    """The seeds that are reported of an arm, or of a control of it.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: of it.
        control: out of `CONTROLS[experiment]`; none for the arm itself.

    Returns:
        Consecutive seeds; the first ones are those of every arm.
    """
    sizes = EXPERIMENTS[experiment]
    count = sizes.main_seeds if arm in MAIN and not control else sizes.seeds
    if control == "dead":  # which is the identity
        count = 1
    return range(sizes.first_seed, sizes.first_seed + count)


def names_of(experiment: str, arm: str, learning_rate: float, control: str = "") -> dict[int, str]:
    """The records that report an arm at a learning rate, or a control of it.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: of it.
        learning_rate: out of `rates`; the names of controls do not tell it.
        control: out of `CONTROLS[experiment]`; none for the arm itself.

    Returns:
        Seed -> name.
    """
    what = control or at(learning_rate)
    return {k: record_name(experiment, what, arm, k) for k in seeds(experiment, arm, control)}


def pilot_names(experiment: str, arm: str) -> dict[int, str]:
    """The records of an arm of the pilot.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: out of `MAIN`.

    Returns:
        Seed -> name; none where the experiment has no pilot.
    """
    tries = range(TUNING_SEED, TUNING_SEED + EXPERIMENTS[experiment].pilot)
    return {k: record_name(experiment, at(PILOT_RATE), arm, k) for k in tries}


def tuning_seeds(experiment: str) -> range:
    """The seeds that try every learning rate of an experiment.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Consecutive seeds, from `TUNING_SEED` on.
    """
    return range(TUNING_SEED, TUNING_SEED + EXPERIMENTS[experiment].tuning)


def grid(experiment: str, arm: str) -> tuple[float, ...]:
    """The learning rates that an arm tries.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: of it.

    Returns:
        Rates, in ascending order.
    """
    more = WIDENED.get(experiment, {}).get(arm)
    return EXPERIMENTS[experiment].rates + (() if more is None else (more,))


def rates(experiment: str, arm: str) -> tuple[float, ...]:
    """The learning rates at which an arm is reported: the chosen one, or all where none was chosen.

    Args:
        experiment: out of `EXPERIMENTS`.
        arm: of it.

    Returns:
        Rates; none as long as the choice is to be made.
    """
    if experiment not in REPORTED:
        return EXPERIMENTS[experiment].rates
    rate = REPORTED[experiment].get(arm)
    return () if rate is None else (rate,)


def chosen(experiment: str, arms: Iterable[str] = MAIN) -> bool:
    """Whether arms of an experiment have learning rates to be reported at.

    Args:
        experiment: out of `EXPERIMENTS`.
        arms: of it.

    Returns:
        Yes or no.
    """
    return all(rates(experiment, arm) for arm in arms)


def _unit(
    experiment: str,
    arm: str,
    learning_rate: float,
    seed: int,
    what: str = "",
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Unit:
    sizes = EXPERIMENTS[experiment]
    own = {"learning_rate": learning_rate, "seed": seed, "decay_connections": False}
    config = {
        "model": sizes.model | ARMS[arm] | dict(model or {}),
        "training": sizes.training | own | dict(training or {}),
        "corpus": sizes.corpus,
        "watch_every": sizes.watch_every,
    }
    takes = ("device", "shakespeare", "texts", "out", "stop", "progress")
    name = record_name(experiment, what or at(learning_rate), arm, seed)
    return Unit(name, run, config, (seed,), PROTOCOL, takes)


def _pilot(experiment: str) -> list[Unit]:
    return [
        _unit(experiment, arm, PILOT_RATE, TUNING_SEED + k)
        for k in range(EXPERIMENTS[experiment].pilot)
        for arm in MAIN
    ]


def _tuning(experiment: str) -> list[Unit]:
    if experiment not in REPORTED:
        return []
    sizes = EXPERIMENTS[experiment]
    tried = [
        _unit(experiment, arm, rate, seed)
        for seed in tuning_seeds(experiment)
        for arm in sizes.arms
        for rate in grid(experiment, arm)
    ]
    return tried + [
        _unit(experiment, arm, rate, seed)
        for arm, close in RETRIED.get(experiment, {}).items()
        for seed in RETRIED_SEEDS
        for rate in close
    ]


def _reported(experiment: str, arms: Iterable[str]) -> list[Unit]:
    """Seed by seed, so that what is there can be compared at any time."""
    return [
        _unit(experiment, arm, rate, seed)
        for seed in seeds(experiment, MAIN[0])
        for arm in arms
        for rate in rates(experiment, arm)
        if seed in seeds(experiment, arm)
    ]


def _controls(experiment: str) -> list[Unit]:
    earlier = [
        _unit(experiment, arm, rate, seed)
        for arm, rate in EARLIER.get(experiment, {}).items()
        for seed in seeds(experiment, arm)
    ]
    return earlier + [
        _unit(experiment, arm, rate, seed, what, model, training)
        for what, (arm, model, training) in CONTROLS.get(experiment, {}).items()
        for rate in rates(experiment, arm)
        for seed in seeds(experiment, arm, what)
    ]


def units(profile: str) -> list[Unit]:
    """The trainings of a profile, in the order in which they are worth having.

    Args:
        profile: "smoke", "book" or "full".

    Returns:
        One unit a training: experiment by experiment the pilot, the choice of learning rates, the
        arms of the question, the other arms, the controls.

    Raises:
        ValueError: if there is no such profile.
    """
    experiments = [name for name, sizes in EXPERIMENTS.items() if sizes.profile == profile]
    if not experiments:
        known = dict.fromkeys(sizes.profile for sizes in EXPERIMENTS.values())
        raise ValueError(f"expected one of {', '.join(known)}; got {profile!r}")
    trainings: list[Unit] = []
    for name in experiments:
        trainings += _pilot(name) + _tuning(name) + _reported(name, MAIN)
        trainings += _reported(name, EXPERIMENTS[name].arms) + _controls(name)
    return list({unit.name: unit for unit in trainings}.values())


def judged(experiment: str, record: Record) -> float | None:
    """What arms are compared by: the loss above the floor, or the loss where no floor is known.

    Args:
        experiment: out of `EXPERIMENTS`.
        record: of one of its trainings.

    Returns:
        Nats a token, at the end or where it was lowest; None if it diverged.
    """
    metrics = record.metrics
    value: float | None = metrics["loss"] if metrics["above"] is None else metrics["above"]
    if value is not None and EXPERIMENTS[experiment].lowest:
        evaluations: Any = record.series["evaluations"]
        value -= metrics["loss"] - min(loss for _, loss, _ in evaluations)
    return value


def smoke(names: Sequence[str]) -> Outcome:
    """Trainings of the smoke profile on the CPU, without what belongs to the machine.

    A step has 256 tokens, from which on mixers take their compiled passes as they do in the larger
    sizes; evaluations and the report, of 64 tokens, take PyTorch's functions.
    """
    todo = {unit.name: unit for unit in units("smoke")}
    metrics = {}
    for name in names:
        outcome = run(**todo[name].config, device="cpu")
        kept = {key: outcome.metrics[key] for key in ("loss", "above", "parameters", "report")}
        curves = {key: outcome.series[key] for key in ("loss", "gradient")}
        metrics[name] = kept | curves
    return Outcome(metrics, {})


PROBES = [
    Probe(
        "lm/trainings",
        smoke,
        {"names": [unit.name for unit in units("smoke")]},
        ("lm/*",),
        # Four steps in float32: on other processors losses differ by some roundings, 5e-7 each,
        # and what they change by when the streams are mixed otherwise is a difference of losses.
        relative=1e-4,
        absolute=1e-5,
    )
]
