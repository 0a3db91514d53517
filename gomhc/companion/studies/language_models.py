"""One training of a language model, from its configuration to its findings."""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from gomhc.companion.studies.base import Outcome, Stopped
from gomhc.lm import data
from gomhc.lm.model import GPT, RESIDUAL, GPTConfig, preset
from gomhc.lm.report import stream_report
from gomhc.lm.train import NonFiniteError, Progress, TrainConfig, chosen_device, train

__all__ = ["ARMS", "gpt_config", "run"]

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
    "orthogonal": {"mixer": "orthogonal"},
    "transport": {"mixer": "transport"},
}
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
    texts: Path | None = None,
    out: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> Outcome:
    """One training, from configuration to findings.

    Args:
        model: `preset` and changes to it.
        training: fields of `TrainConfig`.
        corpus: `kind`, "stories", "shakespeare" or "file", and options of its loader; of a file its
            name in the folder `texts`, and the SHA-256 that it must have (None for any).
        watch_every: steps between reports of the streams, at evaluations; none if not given.
        device: see `train`.
        shakespeare: a copy of Tiny Shakespeare; downloaded if not given.
        texts: folder of other texts.
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
            `streams`, if they are watched: `step` (steps taken) and the report at each, but for the
            matrices themselves: its lists by name, and `change` by name.

    Raises:
        Stopped: if `stop` said so before the end.
        ValueError: if there is no such corpus or device, or the configuration is none; if a file
            is wanted and no folder given, or it is another text.
        FileNotFoundError: if the folder has no such file.
    """
    where = chosen_device(device)
    sizes = gpt_config(model)
    options = dict(corpus)
    kind = options.pop("kind")
    if kind == "stories":
        text = _stories(sizes.block, training.get("seed", 0), **options)
    elif kind == "shakespeare":
        text = data.tiny_shakespeare(shakespeare, block=sizes.block, **options)
    elif kind == "file":
        text = _file(texts, sizes.block, **options)
    else:
        raise ValueError(f"expected a corpus of kind stories, shakespeare or file, got {kind!r}")
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
        "sample": text.tokenizer.decode(sample),
    }
    return Outcome(metrics, _curves(seen))


def gpt_config(model: Mapping[str, Any]) -> GPTConfig:
    """The sizes that a training's configuration names.

    Args:
        model: `preset` and changes to it.

    Returns:
        The configuration of its GPT.

    Raises:
        ValueError: if there is no such preset, or the sizes are none.
    """
    changes = dict(model)
    return preset(changes.pop("preset"), **changes)


@functools.lru_cache(maxsize=3)
def _stories(block: int, seed: int, **options: int) -> data.Corpus:
    """The stories of a seed, which many trainings share."""
    return data.stories(block, seed=seed, **options)


def _file(
    folder: Path | None, block: int, *, name: str, sha256: str | None, **options: Any
) -> data.Corpus:
    if folder is None:
        raise ValueError(f"expected --texts, the folder of {name}, got none")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"expected {name} in {folder}, found none")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != (sha256 or digest):
        raise ValueError(f"expected the SHA-256 {sha256} of {path}, got {digest}")
    return data.text(path, block, **options)


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
    streams = {"streams": _columns(seen.watched)} if seen.watched else {}
    return streams | {
        "evaluations": [[step, loss, seen.seconds[step - 1]] for step, loss in seen.evaluations],
        "loss": [[min(p.stop, seen.step), fmean(seen.loss[p])] for p in parts],
        "gradient": [[min(p.stop, seen.step), fmean(seen.gradient[p])] for p in parts],
    }


def _columns(watched: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Reports at several steps as lists, by name."""
    reports = [report for _, report in watched]
    table: dict[str, Any] = {"step": [step for step, _ in watched]}
    for name, value in reports[0].items():
        if isinstance(value, dict):
            table[name] = {key: [report[name][key] for report in reports] for key in value}
        else:
            table[name] = [report[name] for report in reports]
    return table
