"""Works through the queue of `gomhc.lm.plan`, the most important trainings first.

    python -m gomhc.lm.runs --profile full --minutes 9 --out DIR

Every finished training is one record, `lm/<profile>-<job>`, and so is one that diverged. The
command stops inside its time, in the middle of a training if need be, and goes on from there the
next time.
"""

import argparse
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from gomhc.companion import records
from gomhc.companion.studies.base import Outcome
from gomhc.lm import data
from gomhc.lm.model import GPT, preset
from gomhc.lm.plan import SIZES, Job, queue
from gomhc.lm.report import stream_report
from gomhc.lm.train import NonFiniteError, Progress, TrainConfig, chosen_device, train

__all__ = ["Stopped", "run"]

MODULE = "gomhc.lm.runs"  # also when it is run as a script
POINTS = 200  # of a curve that a record keeps
SAMPLE = 60  # words of a sample of text
REPORTED = 32  # windows that the streams are watched on
FINDINGS = ["loss", "floor", "above", "parameters", "tokens_per_second", "seconds", "memory"]
FINDINGS += ["calls", "report", "sample"]


class Stopped(Exception):
    """The time was up in the middle of a training; it goes on from its checkpoint."""


def run(
    model: dict[str, Any],
    training: dict[str, Any],
    corpus: dict[str, Any],
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
            steps taken, means over equal parts of the run; up to where it diverged, if it did.

    Raises:
        Stopped: if `stop` said so before the end.
    """
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
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        trained, seen = train(config, text, device=device, out=out, stop=stop, progress=progress)
    except NonFiniteError as error:
        return Outcome(
            dict.fromkeys(FINDINGS) | {"floor": text.floor, "diverged": str(error)},
            _curves(error.seen),
        )
    if seen.step < config.steps:
        raise Stopped(f"after {seen.step} of {config.steps} steps")
    loss, floor = seen.evaluations[-1][1], text.floor
    cuda = next(trained.parameters()).is_cuda
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
        "memory": torch.cuda.max_memory_allocated() if cuda else None,
        "calls": seen.calls,
        "report": _report(trained, text),
        "sample": text.decode(sample),
    }
    return Outcome(metrics, _curves(seen))


@functools.lru_cache(maxsize=3)
def _stories(block: int, seed: int, **options: int) -> data.Corpus:
    """The stories of a seed, which many jobs share."""
    return data.stories(block, seed=seed, **options)


def _report(model: GPT, text: data.Corpus) -> dict[str, Any] | None:
    if model.offsets is None:
        return None
    found = stream_report(model, text.windows[:REPORTED])._asdict()
    return {
        name: _finite(value.tolist() if isinstance(value, torch.Tensor) else value)
        for name, value in found.items()
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
    return {
        "evaluations": [[step, loss, seen.seconds[step - 1]] for step, loss in seen.evaluations],
        "loss": [[min(p.stop, seen.step), fmean(seen.loss[p])] for p in parts],
        "gradient": [[min(p.stop, seen.step), fmean(seen.gradient[p])] for p in parts],
    }


def _todo(jobs: Sequence[Job], folder: Path) -> Iterator[Job]:
    """Those without a record that the code of now has made."""
    modules = records.closure(MODULE)
    for job in jobs:
        try:
            record = records.load(records.file_of(job.name, folder))
        except (FileNotFoundError, records.RecordError):
            yield job
        else:
            if record.config != job.config or not records.made_by(record, modules):
                yield job


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m gomhc.lm.runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", choices=SIZES, default="full", help="size (%(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="train no longer than this; the last record takes some seconds more",
    )
    shipped = records.PACKAGE / records.FOLDER
    parser.add_argument(
        "--out", type=Path, help=f"folder of records ({shipped}, but for the smoke profile)"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        help=f"folder of unfinished trainings ({data.cache() / 'lm-checkpoints'}; "
        "$GOMHC_CACHE moves it)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--shakespeare", type=Path, help="a copy of Tiny Shakespeare")
    parser.add_argument("--list", action="store_true", help="say what is to do, run nothing")
    options = parser.parse_args(arguments)
    if not options.minutes >= 0:
        parser.error(f"expected --minutes of 0 or more, got {options.minutes}")
    if options.out is None and options.profile == "smoke" and not options.list:
        parser.error("expected --out for the smoke profile, whose records are none to keep")
    out = options.out or shipped
    if out.exists() and not out.is_dir():
        parser.error(f"expected a folder as --out, got the file {out}")
    if options.shakespeare and not options.shakespeare.is_file():
        parser.error(f"expected a text file as --shakespeare, found none at {options.shakespeare}")
    try:
        chosen_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    if (options.profile, options.device, options.list) == ("full", "auto", False) and (
        chosen_device("auto").type == "cpu"
    ):
        raise SystemExit(
            "expected a GPU for the profile full, found none: --profile book is made for a CPU, "
            "--device cpu trains the profile full on one all the same"
        )
    jobs = queue(options.profile)
    todo = list(_todo(jobs, out))
    print(f"{len(jobs) - len(todo)} of {len(jobs)} trainings have their record in {out}")
    if options.list:
        print(*(job.name for job in todo), sep="\n")
        return 0
    deadline = begin + 60 * options.minutes
    # A training is only gone on with by the code that began it.
    code = records.code_hash(records.closure(MODULE))[:16]
    checkpoints = (options.checkpoints or data.cache() / "lm-checkpoints") / code
    failed = 0
    for done, job in enumerate(todo):
        if time.monotonic() >= deadline:
            print(f"the time is up; the next call goes on with the {len(todo) - done} left")
            break
        act = functools.partial(
            run,
            device=options.device,
            shakespeare=options.shakespeare,
            out=checkpoints / job.name,
            stop=lambda: time.monotonic() >= deadline,
            progress=sys.stderr.isatty(),
        )
        clock = time.monotonic()
        try:
            seeds = (job.config["training"]["seed"],)
            record = records.make(job.name, MODULE, act, job.config, seeds)
            records.save(record, out)
        except Stopped as reason:
            print(f"{job.name}: the time is up {reason}; the next call goes on from there")
            break
        except Exception as error:  # no network, no memory: the other trainings may still run
            hint = "; see --shakespeare" if isinstance(error, ConnectionError) else ""
            print(f"{job.name}: left out: {type(error).__name__}: {error}{hint}", file=sys.stderr)
            failed += 1
            continue
        shutil.rmtree(checkpoints / job.name, ignore_errors=True)
        found = record.metrics
        if found["diverged"]:
            result = "diverged"
        elif found["above"] is None:
            result = f"loss {found['loss']:.4f}"
        else:
            result = f"{found['above']:.4f} above the floor"
        print(f"{job.name}: {result}, {time.monotonic() - clock:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
