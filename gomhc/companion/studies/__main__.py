"""Makes the records of the studies, and goes on where it stopped.

    python -m gomhc.companion.studies                               # all but the trainings
    python -m gomhc.companion.studies --profile book --minutes 30   # the language models
    python -m gomhc.companion.studies --profile full --estimate     # how long they will take

A unit whose record is there, with its configuration, seeds and protocol, is skipped; each record is
written as soon as it is made. A training that is stopped goes on from its checkpoint the next time.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gomhc.companion import records
from gomhc.companion.parameters import PROFILES
from gomhc.companion.probes import STORED, renew
from gomhc.companion.records.provenance import cpu_time
from gomhc.companion.studies import Stopped, Unit, differences, probes, units
from gomhc.companion.studies.estimate import estimate
from gomhc.files import check_writable

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def state(unit: Unit, folder: Path) -> str:
    """Of the unit's record: current, missing, unreadable, or stale (and in what it differs)."""
    try:
        record = records.load(records.file_of(unit.name, folder))
    except FileNotFoundError:
        return "missing"
    except records.RecordError:
        return "unreadable"
    changed = differences(unit, record)
    return f"stale ({', '.join(changed)})" if changed else "current"


def checkpoint_of(unit: Unit, folder: Path) -> Path:
    """Where an unfinished run lies: only the same protocol and configuration goes on with it."""
    key = json.dumps([unit.protocol, unit.config], sort_keys=True)
    return folder / f"{unit.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def run(todo: Sequence[Unit], options: argparse.Namespace, deadline: float) -> int:
    """Make the records one at a time; the exit status."""
    failed = 0
    for place, unit in enumerate(todo):
        if time.monotonic() >= deadline:
            print(f"the time is up; the next call goes on with the {len(todo) - place} left")
            break
        checkpoint = checkpoint_of(unit, options.checkpoints) if "out" in unit.takes else None
        offered: dict[str, Any] = {
            "device": options.device,
            "shakespeare": options.shakespeare,
            "texts": options.texts,
            "out": checkpoint,
            "stop": lambda: time.monotonic() >= deadline,
            "progress": sys.stderr.isatty(),
        }
        work = functools.partial(unit.run, **{name: offered[name] for name in unit.takes})
        try:
            record = records.make(unit.name, work, unit.config, unit.seeds, unit.protocol)
            records.save(record, options.out)
        except KeyboardInterrupt:
            print(f"stopped in {unit.name}; run it again to go on from there", file=sys.stderr)
            return INTERRUPTED
        except Stopped as reason:
            print(f"{unit.name}: the time is up {reason}; the next call goes on from there")
            break
        except Exception as error:  # no network, no memory: the other units may still run
            traceback.print_exc()
            hint = "; see --shakespeare" if isinstance(error, ConnectionError) else ""
            why = f"{type(error).__name__}: {error}{hint}"
            print(f"{unit.name} failed, and is left out: {why}", file=sys.stderr)
            failed += 1
            continue
        if checkpoint:
            shutil.rmtree(checkpoint, ignore_errors=True)
        took = records.duration(record.provenance.wall_seconds)
        end = " (it diverged)" if record.metrics.get("diverged") else ""
        print(f"[{place + 1}/{len(todo)}] {unit.name}: {took}{end}", flush=True)
    return FAILED if failed else DONE


def foretold(todo: Sequence[Unit], options: argparse.Namespace) -> str:
    """How long trainings will take, by size and text and in all."""
    given = {name: getattr(options, name) for name in ("device", "shakespeare", "texts")}
    seconds = estimate(todo, given)
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for unit in todo:
        model, corpus = unit.config["model"], unit.config["corpus"]
        what = f"{model['preset']} on {corpus.get('name', corpus['kind'])}"
        counts[what] += 1
        sums[what] += seconds.get(unit.name, 0.0)
    lines = [
        f"{what}: {count} trainings, {records.duration(sums[what])}"
        for what, count in counts.items()
    ]
    left = [unit.name for unit in todo if unit.name not in seconds]
    if left:
        lines.append(f"not estimated, as a try failed: {', '.join(left)}")
    total = records.duration(sum(seconds.values()))
    return "\n".join([*lines, f"about {total} in all, and evaluations on top"])


def spent(wall: float, cpu: float) -> str:
    """Wall and processor time in words."""
    return f"{records.duration(wall)} wall, {records.duration(cpu)} CPU"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked before anything runs."""
    parser = argparse.ArgumentParser(
        prog="python -m gomhc.companion.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        help="train the language models of this size; without it all other studies run",
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder of records ({records.SHIPPED}, but for smoke trainings)"
    )
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names, such as 'spectra/*'")
    parser.add_argument("--list", action="store_true", help="say what is there, run nothing")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="time a few steps of every training that is missing and say how long all take",
    )
    parser.add_argument("--stale", action="store_true", help="make anew what is stale, no others")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin nothing after this time; a training stops inside it",
    )
    parser.add_argument("--device", default="auto", help="of trainings: auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--shakespeare", type=Path, help="a copy of Tiny Shakespeare")
    parser.add_argument(
        "--texts",
        type=Path,
        help="a folder of texts: kjv.txt, tinyshakespeare.txt, TinyStories-train.txt",
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        help="folder of unfinished trainings (in gomhc's cache, which $GOMHC_CACHE moves)",
    )
    parser.add_argument(
        "--probes", action="store_true", help=f"make the probes anew, in {STORED}, and no record"
    )
    options = parser.parse_args(arguments)
    if options.estimate and not options.profile:
        parser.error("expected --profile beside --estimate: it is about trainings")
    if options.probes and (options.list or options.stale or options.out or options.profile):
        parser.error("expected --probes alone or with --only, got another option beside it")
    if not options.minutes >= 0:
        parser.error(f"expected --minutes of 0 or more, got {options.minutes}")
    aside = options.list or options.estimate
    if options.out is None and options.profile == "smoke" and not aside:
        parser.error("expected --out for the smoke profile, whose records are not worth keeping")
    options.out = options.out or records.SHIPPED
    out = options.out.absolute()
    there = next(place for place in (out, *out.parents) if place.exists())
    if not there.is_dir():
        parser.error(f"expected a folder as --out, got the file {there}")
    if options.shakespeare and not options.shakespeare.is_file():
        parser.error(f"expected a text file as --shakespeare, found none at {options.shakespeare}")
    if options.texts and not options.texts.is_dir():
        parser.error(f"expected a folder as --texts, got {options.texts}")
    if options.texts and not options.shakespeare:
        copy = options.texts / "tinyshakespeare.txt"
        options.shakespeare = copy if copy.is_file() else None
    if options.profile:
        from gomhc.lm.data import cache
        from gomhc.lm.train import chosen_device

        options.checkpoints = options.checkpoints or cache() / "lm-checkpoints"
        try:
            chosen = chosen_device(options.device)
        except ValueError as error:
            parser.error(str(error))
        large = (options.profile, options.device, options.list) == ("full", "auto", False)
        if large and chosen.type == "cpu":
            parser.error(
                "expected a GPU for the profile full, found none: --profile book is made for a "
                "CPU, --device cpu trains the profile full on one all the same"
            )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    begin = time.monotonic()
    options = parsed(arguments)
    everything: Sequence[Any] = probes() if options.probes else units(options.profile)
    chosen = [each for each in everything if fnmatchcase(each.name, options.only)]
    if not chosen:
        names = ", ".join(each.name for each in everything)
        print(f"expected a pattern that fits one of {names}; got {options.only!r}", file=sys.stderr)
        return MISUSED
    if options.probes:
        for probe in chosen:
            print(renew(probe))
        return DONE
    states = {unit.name: state(unit, options.out) for unit in chosen}
    if options.list:
        for name, word in states.items():
            print(f"{name:<32} {word}")
        counts = Counter(word.split()[0] for word in states.values())
        print(", ".join(f"{count} {word}" for word, count in counts.items()))
        return DONE
    done_with = {"current", "missing"} if options.stale else {"current"}
    todo = [unit for unit in chosen if states[unit.name] not in done_with]
    if todo and not options.estimate and options.minutes > 0:
        try:
            check_writable(options.out)
        except ValueError as error:
            print(error, file=sys.stderr)
            return MISUSED
    if options.estimate or (options.profile == "full" and todo and options.minutes > 0):
        print(foretold(todo, options), flush=True)
    if options.estimate:
        return DONE
    cpu = cpu_time()
    status = run(todo, options, begin + 60 * options.minutes)
    now = spent(time.monotonic() - begin, cpu_time() - cpu)
    current = [unit for unit in chosen if state(unit, options.out) == "current"]
    facts = [records.load(records.file_of(u.name, options.out)).provenance for u in current]
    total = spent(sum(f.wall_seconds for f in facts), sum(f.cpu_seconds for f in facts))
    print(
        f"{len(current)} of {len(chosen)} records are current in {options.out}; this run took "
        f"{now}; the making of those {len(current)} took {total}"
    )
    return status


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `--list | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)
