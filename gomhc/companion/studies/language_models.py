"""The trainings that chapter 7 rests on: which, in what order, and what one of them finds."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from gomhc.companion.studies.base import Outcome, Probe, Stopped, Unit
from gomhc.lm import data
from gomhc.lm.model import GPT, RESIDUAL, preset
from gomhc.lm.report import stream_report
from gomhc.lm.train import NonFiniteError, Progress, TrainConfig, chosen_device, train

__all__ = ["ARMS", "PROBES", "RATES", "SIZES", "record_name", "run", "units"]

PROTOCOL = 1  # of every training
ARMS: dict[str, dict[str, Any]] = {
    "residual": {"mixer": RESIDUAL},
    "identity": {"mixer": "identity"},
    "hc": {"mixer": "hc"},
    "mhc": {"mixer": "mhc"},
    "mhc-lite": {"mixer": "mhc-lite"},
    "kromhc": {"mixer": "kromhc"},
    "go-mhc s=1": {"mixer": "go-mhc", "s": 1},
    "go-mhc s=2": {"mixer": "go-mhc", "s": 2},
    "kron-go s=2": {"mixer": "kron-go", "s": 2},
}
# Learning rates as shares of the size's own, and what a training calls them
RATES = {0.3: "lr-low", 1.0: "d4", 3.0: "lr-high"}
SIZES: dict[str, dict[str, Any]] = {
    # Of the models and trainings of a profile; `seeds` are paired over the arms.
    "smoke": {
        "model": {"preset": "nano", "block": 32, "width": 32},
        "training": {
            "steps": 4,
            "batch": 8,  # of 32 tokens: from 256 on, mixers take their compiled passes
            "warmup": 1,
            "evaluate_every": 2,
            "learning_rate": 3e-3,
        },
        "tokens": 2000,
        "windows": 2,
        "seeds": (0,),
    },
    "book": {
        "model": {"preset": "nano"},
        "training": {"steps": 300, "batch": 16, "evaluate_every": 20, "learning_rate": 1e-2},
        "tokens": 300_000,
        "windows": 32,
        "seeds": (0, 1, 2),
    },
    "full": {
        "model": {"preset": "small"},
        "training": {
            "steps": 1500,
            "batch": 64,
            "warmup": 100,
            "evaluate_every": 100,
            "learning_rate": 3e-3,
        },
        "tokens": 6_000_000,
        "windows": 256,
        "seeds": (0, 1, 2),
    },
}
LARGE_ARMS = ("residual", "identity", "mhc", "mhc-lite", "kromhc", "go-mhc s=2")
WIDE_ARMS = ("identity", "kromhc", "go-mhc s=2", "kron-go s=2")  # at d = 8
TEXT_ARMS = ("residual", "identity", "mhc", "kromhc", "go-mhc s=2")  # on Tiny Shakespeare

POINTS = 200  # of a curve that a record keeps
SAMPLE = 60  # words of a sample of text
REPORTED = 32  # windows that the streams are watched on
FINDINGS = ["loss", "floor", "above", "parameters", "tokens_per_second", "seconds", "memory"]
FINDINGS += ["calls", "report", "sample"]


def run(
    model: dict[str, Any],
    training: dict[str, Any],
    corpus: dict[str, Any],
    watch_every: int | None = None,
    *,
    device: str = "auto",
    shakespeare: Path | None = None,
    out: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> Outcome:
    """One training, from configuration to findings.

    Args:
        model: `preset` and changes to it.
        training: fields of `TrainConfig`.
        corpus: `kind`, "stories" or "shakespeare", and options of its loader.
        watch_every: steps between reports of the streams, at evaluations; none if not given.
        device: see `train`.
        shakespeare: a copy of Tiny Shakespeare; downloaded if not given.
        out: folder of checkpoints.
        stop: see `train`.
        progress: see `train`.

    Returns:
        metrics: `diverged`: why and where, if it did, and then None for all else but the floor;
            `loss` on the windows at the end, its `floor` and what is `above` it (None where there
            is no floor), `parameters`, `tokens_per_second`, `seconds`, `memory` (bytes, at most,
            on a GPU; else None), `calls` (over 1 if it was stopped and resumed; then provenance
            tells of the last part only), `report` (a `StreamReport` as lists, None for what is not
            finite; on the first windows and in float32, whatever the model was trained in; None
            without streams) and a `sample` of text.
        series: `evaluations` (steps taken, loss, seconds); `loss` and `gradient` against the
            steps taken, means over equal parts of the run; up to where it diverged, if it did;
            `streams`, if they are watched: (steps taken, report without the matrices themselves).

    Raises:
        Stopped: if `stop` said so before the end.
        ValueError: if there is no such corpus or device, or the configuration is none.
    """
    where = chosen_device(device)
    changes = dict(model)
    sizes = preset(changes.pop("preset"), **changes)
    options = dict(corpus)
    kind = options.pop("kind")
    if kind == "stories":
        text = _stories(sizes.block, training.get("seed", 0), **options)
    elif kind == "shakespeare":
        text = data.tiny_shakespeare(shakespeare, block=sizes.block, **options)
    else:
        raise ValueError(f"expected a corpus of kind stories or shakespeare, got {kind!r}")
    config = TrainConfig(sizes, **training)

    def watch(step: int, model: GPT) -> dict[str, Any] | None:
        if watch_every is None or step % watch_every:
            return None
        report = _report(model, text)
        return report and {key: value for key, value in report.items() if key != "mixing"}

    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    try:
        trained, seen = train(
            config, text, device=where, out=out, stop=stop, progress=progress, watch=watch
        )
    except NonFiniteError as error:
        return Outcome(
            dict.fromkeys(FINDINGS) | {"floor": text.floor, "diverged": str(error)},
            _curves(error.seen),
        )
    if seen.step < config.steps:
        raise Stopped(f"after {seen.step} of {config.steps} steps")
    loss, floor = seen.evaluations[-1][1], text.floor
    opening = text.windows[0, :8].tolist()
    sample = trained.generate(opening, SAMPLE, vocabulary=text.vocabulary)
    metrics = {
        "diverged": None,
        "loss": loss,
        "floor": floor,
        "above": None if floor is None else loss - floor,
        "parameters": trained.num_parameters(),
        "tokens_per_second": seen.tokens_per_second,
        "seconds": seen.seconds[-1],
        "memory": torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        "calls": seen.calls,
        "report": _report(trained, text),
        "sample": text.decode(sample),
    }
    return Outcome(metrics, _curves(seen))


@functools.lru_cache(maxsize=3)
def _stories(block: int, seed: int, **options: int) -> data.Corpus:
    """The stories of a seed, which many trainings share."""
    return data.stories(block, seed=seed, **options)


def _report(model: GPT, text: data.Corpus) -> dict[str, Any] | None:
    if model.offsets is None:
        return None
    report = stream_report(model, text.windows[:REPORTED])._asdict()
    return {
        name: _finite(value.tolist() if isinstance(value, torch.Tensor) else value)
        for name, value in report.items()
    }


def _finite(value: Any) -> Any:
    """The same lists and numbers, None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if math.isfinite(value) else None


def _curves(seen: Progress) -> dict[str, Any]:
    size = max(1, math.ceil(seen.step / POINTS))
    parts = [slice(k, k + size) for k in range(0, seen.step, size)]
    streams = {"streams": [list(pair) for pair in seen.watched]} if seen.watched else {}
    return streams | {
        "evaluations": [[step, loss, seen.seconds[step - 1]] for step, loss in seen.evaluations],
        "loss": [[min(p.stop, seen.step), fmean(seen.loss[p])] for p in parts],
        "gradient": [[min(p.stop, seen.step), fmean(seen.gradient[p])] for p in parts],
    }


# Which trainings


def record_name(profile: str, what: str, arm: str, seed: int) -> str:
    """Name of a training's record.

    Args:
        profile: its size.
        what: "d4" for an arm at the size's own settings, or what is different.
        arm: out of `ARMS`.
        seed: of the training.

    Returns:
        Such as "lm/book-go-mhc-s2-d4-seed0".
    """
    label = f"{arm}-{what}".replace(" s=", "-s")
    return f"lm/{profile}-{label}-seed{seed}"


def units(profile: str) -> list[Unit]:
    """The trainings of a profile, in the order in which they are worth having.

    Args:
        profile: "smoke", "book" or "full".

    Returns:
        One unit a training: the arms at d = 4, seed by seed; other learning rates for the first
        seed; the authors' sizes (full profile only); starts of θ; d = 8; Tiny Shakespeare; other
        learning rates for the other seeds.

    Raises:
        ValueError: if there is no such profile.
    """
    if profile not in SIZES:
        raise ValueError(f"expected one of {', '.join(SIZES)}; got {profile!r}")
    sizes = SIZES[profile]
    first, *others = sizes["seeds"]
    own = sizes["training"]["learning_rate"]
    stories = {"kind": "stories", "train": sizes["tokens"], "windows": sizes["windows"]}
    letters = {"kind": "shakespeare", "windows": sizes["windows"]}

    def unit(
        what: str, arm: str, seed: int, model: Any = (), training: Any = (), corpus: Any = stories
    ) -> Unit:
        config = {
            "model": sizes["model"] | ARMS[arm] | dict(model),
            "training": sizes["training"] | {"seed": seed} | dict(training),
            "corpus": corpus,
        }
        takes = ("device", "shakespeare", "out", "stop", "progress")
        return Unit(record_name(profile, what, arm, seed), run, config, (seed,), PROTOCOL, takes)

    def at_rates(seeds: Sequence[int]) -> list[Unit]:
        return [
            unit(what, arm, seed, training={"learning_rate": share * own})
            for seed in seeds
            for share, what in RATES.items()
            if what != "d4"
            for arm in ARMS
        ]

    trainings = [unit("d4", arm, seed) for seed in sizes["seeds"] for arm in ARMS]
    trainings += at_rates([first])
    if profile == "full":
        large = {"preset": "paper-30m"}
        training = {"steps": 300, "batch": 64, "learning_rate": 1e-3, "warmup": 30}
        trainings += [unit("paper-30m", arm, first, large, training) for arm in LARGE_ARMS]
    starts: dict[str, dict[str, Any]] = {
        "dead": {"dead_start": True},
        "mass0.001": {"off_diagonal_mass": 0.001},
        "mass0.1": {"off_diagonal_mass": 0.1},
    }
    trainings += [
        unit(what, "go-mhc s=2", seed, change)
        for seed in sizes["seeds"]
        for what, change in starts.items()
    ]
    trainings += [unit("d8", arm, seed, {"d": 8}) for seed in sizes["seeds"] for arm in WIDE_ARMS]
    trainings += [
        unit("shakespeare", arm, first, {"dropout": 0.2}, corpus=letters) for arm in TEXT_ARMS
    ]
    return trainings + at_rates(others)


# Their probe


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
        {
            "names": [
                *(record_name("smoke", "d4", arm, 0) for arm in ARMS),
                record_name("smoke", "dead", "go-mhc s=2", 0),
                record_name("smoke", "d8", "kron-go s=2", 0),
            ]
        },
        ("lm/*",),
        # Four steps in float32: on other processors losses differ by some roundings, 5e-7 each,
        # and what they change by when the streams are mixed otherwise is a difference of losses.
        relative=1e-4,
        absolute=1e-5,
    )
]
