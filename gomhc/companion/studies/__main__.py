"""`python -m gomhc.companion.studies`: make the records of the full profile, and resume them.

A unit whose record is there, with the same config and made by the code as it is now, is skipped;
each record is written as soon as it is made.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from gomhc.companion import records
from gomhc.companion.studies import Unit, units

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def state(unit: Unit, folder: Path) -> str:
    """Of the unit's record: current, missing, unreadable, or stale (with what has changed)."""
    try:
        record = records.load(records.file_of(unit.name, folder))
    except FileNotFoundError:
        return "missing"
    except records.RecordError:
        return "unreadable"
    asked = {"name": unit.name, "config": unit.config, "seeds": tuple(unit.seeds)}
    there = {"name": record.name, "config": record.config, "seeds": record.provenance.seeds}
    changes = [key for key, value in asked.items() if there[key] != value]
    if not records.made_by(record, records.closure(unit.run.__module__)):
        changes.append("code")
    return f"stale ({', '.join(changes)})" if changes else "current"


def code_of(unit: Unit) -> str:
    """Hash of the sources that the unit runs, as they are now."""
    return records.code_hash(records.closure(unit.run.__module__))


def total(made: Sequence[Unit], folder: Path) -> str:
    """Time that the records of these units took when they were made."""
    facts = [records.load(records.file_of(unit.name, folder)).provenance for unit in made]
    return spent(sum(f.wall_seconds for f in facts), sum(f.cpu_seconds for f in facts))


def spent(wall: float, cpu: float) -> str:
    """Wall and processor time in words."""
    return f"{records.duration(wall)} wall, {records.duration(cpu)} CPU"


def run(todo: Sequence[Unit], folder: Path) -> int:
    """Make the records one at a time; the exit status."""
    from tqdm import tqdm

    # A source that changes from here on is not the one that this process has imported.
    code = {unit.name: code_of(unit) for unit in todo}
    bar = tqdm(todo, unit="record", disable=not todo)
    for unit in bar:
        bar.set_description(unit.name)
        try:
            if code_of(unit) != code[unit.name]:
                reason = "expected the sources as they were at the start of this command"
                raise records.RecordError(f"{reason}, got others: run it again")
            record = records.make(unit.name, unit.run.__module__, unit.run, unit.config, unit.seeds)
            records.save(record, folder)
        except KeyboardInterrupt:
            bar.close()
            print(f"stopped in {unit.name}; run it again to go on from there", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            bar.close()
            traceback.print_exc()
            print(f"{unit.name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            return FAILED
    return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gomhc.companion.studies", description=__doc__)
    default = records.PACKAGE / records.FOLDER
    parser.add_argument("--out", type=Path, default=default, help="folder of records (%(default)s)")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names, such as 'spectra/*'")
    parser.add_argument("--list", action="store_true", help="say what is there, run nothing")
    parser.add_argument("--stale", action="store_true", help="make anew what is stale, no others")
    options = parser.parse_args(arguments)

    everything = units()
    chosen = [unit for unit in everything if fnmatchcase(unit.name, options.only)]
    if not chosen:
        names = ", ".join(unit.name for unit in everything)
        print(f"expected a pattern that fits one of {names}; got {options.only!r}", file=sys.stderr)
        return MISUSED
    states = {unit.name: state(unit, options.out) for unit in chosen}
    if options.list:
        for name, word in states.items():
            print(f"{name:<32} {word}")
        counts = Counter(word.split()[0] for word in states.values())
        print(", ".join(f"{count} {word}" for word, count in counts.items()))
        return DONE
    done_with = {"current", "missing"} if options.stale else {"current"}
    todo = [unit for unit in chosen if states[unit.name] not in done_with]
    wall, cpu = time.perf_counter(), records.cpu_time()
    status = run(todo, options.out)
    now = spent(time.perf_counter() - wall, records.cpu_time() - cpu)
    made = [unit for unit in chosen if state(unit, options.out) == "current"]
    print(
        f"{len(made)} of {len(chosen)} records are current in {options.out}; this run took {now}; "
        f"the making of those {len(made)} took {total(made, options.out)}"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
