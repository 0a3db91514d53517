"""What chapter 7 shows of the stored trainings: arms, their differences, the rates tried."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gomhc.companion import records
from gomhc.companion.paired import Difference, Power, difference, power
from gomhc.companion.records import Record
from gomhc.companion.studies.language_models import gpt_config
from gomhc.companion.studies.training_plan import (
    EXPERIMENTS,
    GO,
    MAIN,
    RETRIED,
    RETRIED_SEEDS,
    at,
    grid,
    judged,
    names_of,
    pilot_names,
    rates,
    record_name,
    seeds,
    tuning_seeds,
)

__all__ = [
    "controls",
    "differences",
    "finished",
    "pilot",
    "pilot_power",
    "rates_tried",
    "reached",
    "reported",
    "retried",
    "sureness",
    "summary",
]


class _Row(NamedTuple):
    """A control, and what it is compared with: (arm, what is special of its records) each."""

    label: str
    ours: tuple[str, str]
    theirs: tuple[str, str]


# The labels begin with the arm, which gives them their colour.
COMPARED = (
    _Row("residual: as many parameters as go-mhc s=2", ("residual", "wide"), ("residual", "")),
    _Row("go-mhc s=2: against that wider residual", (GO, ""), ("residual", "wide")),
    _Row("mhc: rate 0.006", ("mhc", at(6e-3)), ("mhc", "")),
    _Row("kromhc: rate 0.006", ("kromhc", at(6e-3)), ("kromhc", "")),
    _Row("go-mhc s=2: θ frozen", (GO, "frozen"), (GO, "")),
    _Row("go-mhc s=2: start that keeps the function", (GO, "kept"), (GO, "")),
    _Row(
        "identity: start that keeps the function", ("identity", "kept-identity"), ("identity", "")
    ),
    _Row("go-mhc s=2: weight decay on connections", (GO, "decay"), (GO, "")),
    _Row("go-mhc s=2: starts from 10 % mass off the diagonal", (GO, "mass0.1"), (GO, "")),
    _Row("go-mhc s=2: d = 8", (GO, "d8"), (GO, "")),
    _Row("identity: d = 8", ("identity", "d8-identity"), ("identity", "")),
    _Row("go-mhc s=2: d = 2", (GO, "d2"), (GO, "")),
    _Row("identity: d = 2", ("identity", "d2-identity"), ("identity", "")),
    _Row("identity: d = 1", ("identity", "d1-identity"), ("identity", "")),
    _Row("identity: d = 1 against residual", ("identity", "d1-identity"), ("residual", "")),
    _Row("go-mhc s=2: d = 8 against identity", (GO, "d8"), ("identity", "d8-identity")),
    _Row("go-mhc s=2: d = 2 against identity", (GO, "d2"), ("identity", "d2-identity")),
)


def _runs(names: Mapping[int, str]) -> dict[int, Record]:
    """Seed -> record; empty if one is missing or diverged."""
    shipped = set(records.shipped_names())
    if not shipped >= set(names.values()):
        return {}
    runs = {seed: records.shipped(name) for seed, name in names.items()}
    return {} if any(run.metrics["diverged"] for run in runs.values()) else runs


def pilot(experiment: str) -> pd.DataFrame:
    """The losses of an experiment's pilot, above the floor where it is known.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Arms of `MAIN` by seeds; not a number where a training diverged.

    Raises:
        ValueError: if the experiment has no pilot.
    """
    if not EXPERIMENTS[experiment].pilot:
        raise ValueError(f"expected an experiment with a pilot, got {experiment}")
    losses = {
        arm: {
            f"seed {k}": judged(experiment, records.shipped(name))
            for k, name in pilot_names(experiment, arm).items()
        }
        for arm in MAIN
    }
    return pd.DataFrame(losses, dtype=float).T


def pilot_power(experiment: str, arms: tuple[str, str] = (GO, "identity")) -> Power:
    """The power of a pilot's comparison.

    Args:
        experiment: out of `EXPERIMENTS`.
        arms: the two compared, out of `MAIN`.

    Returns:
        Power, for the half-width that the experiment wants.

    Raises:
        ValueError: if the experiment has no pilot, or one of these trainings diverged.
    """
    table = pilot(experiment).loc[list(arms)]
    if lost := table.index[table.isna().any(axis=1)].tolist():
        raise ValueError(f"expected a pilot that did not diverge, got one of {lost[0]} that did")
    ours, theirs = table.to_numpy()
    return power(((ours - theirs) / theirs.mean()).tolist(), EXPERIMENTS[experiment].wanted)


def reported(experiment: str) -> dict[str, dict[int, Record]]:
    """The reported trainings that are stored, each arm at its learning rate.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Arm -> seed -> record, of arms of which no seed is missing and none diverged; at the rate of
        the lowest mean where several are reported.
    """
    table = {}
    for arm in EXPERIMENTS[experiment].arms:
        every = [_runs(names_of(experiment, arm, rate)) for rate in rates(experiment, arm)]
        if whole := [runs for runs in every if runs]:
            table[arm] = min(whole, key=lambda runs: sum(_losses(experiment, runs).values()))
    return table


def _losses(experiment: str, runs: Mapping[int, Record]) -> dict[int, float]:
    values = {seed: judged(experiment, run) for seed, run in runs.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def finished(experiment: str) -> bool:
    """Whether the arms of the question are there: enough to show the experiment at all.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Yes or no.
    """
    return {"residual", "identity", GO} <= reported(experiment).keys()


def differences(experiment: str, base: str) -> dict[str, Difference]:
    """Every arm against one of them, seed by seed.

    Args:
        experiment: out of `EXPERIMENTS`.
        base: arm that the others are compared with.

    Returns:
        Arm -> difference, as a share of the base's loss above the floor, or of its loss.

    Raises:
        KeyError: if the base's trainings are not stored.
    """
    losses = {arm: _losses(experiment, runs) for arm, runs in reported(experiment).items()}
    return _differences(losses, base)


def _differences(losses: Mapping[str, Mapping[int, float]], base: str) -> dict[str, Difference]:
    return {arm: difference(ours, losses[base]) for arm, ours in losses.items() if arm != base}


def summary(experiment: str) -> pd.DataFrame:
    """The table of final losses.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        A row an arm, in words: seeds, parameters, mean loss and its standard deviation over seeds,
        and its differences from identity and residual in percent.
    """
    table = reported(experiment)
    every = {arm: _losses(experiment, runs) for arm, runs in table.items()}
    against = {base: _differences(every, base) for base in ("identity", "residual")}
    rows = {}
    for arm, runs in table.items():
        losses = pd.Series(every[arm])
        first = next(iter(runs.values()))
        rows[arm] = {
            "seeds": len(runs),
            "parameters": f"{first.metrics['parameters']:,}",
            "loss": f"{losses.mean():.3f} ± {losses.std():.3f}",
        } | {
            f"% against {base}": str(parts[arm]).replace("%", "") if arm in parts else "–"
            for base, parts in against.items()
        }
    return pd.DataFrame(rows).T


def reached(experiment: str, levels: Iterable[float]) -> pd.DataFrame:
    """How many tokens every arm needs to come to a level above the floor.

    The first time counts. Between two evaluations the loss is taken to fall evenly; a level that is
    reached before the first one has that one's tokens. A training that never comes to a level needs
    more than all of its tokens, infinitely many here.

    Args:
        experiment: out of `EXPERIMENTS`, whose floor is known.
        levels: nats a token above the floor.

    Returns:
        Arms by (level, what): the "median" over the seeds, the "least" and the "most", in tokens;
        the latter two hold the median of all seeds that there could be at least as often as
        `sureness` says, each entry by itself.
    """
    table: dict[tuple[float, str], dict[str, float]] = {}
    arms, levels = reported(experiment), tuple(levels)
    for arm, runs in arms.items():
        for level in levels:
            tokens = sorted(_tokens_to(level, run) for run in runs.values())
            table.setdefault((level, "median"), {})[arm] = median(tokens)
            table.setdefault((level, "least"), {})[arm] = tokens[0]
            table.setdefault((level, "most"), {})[arm] = tokens[-1]
    return pd.DataFrame(table)


def sureness(seeds: int) -> float:
    """How often the least and the most of some seeds hold the median of all, whatever the law.

    Args:
        seeds: number of them.

    Returns:
        The probability for a continuous law, where they miss it if all seeds fall on one side; at
        least that where values can be equal.
    """
    return 1 - 2.0 ** (1 - seeds)


def _tokens_to(level: float, run: Record) -> float:
    config: Any = run.config
    evaluations: Any = run.series["evaluations"]
    tokens = int(config["training"]["batch"]) * gpt_config(config["model"]).block
    level += run.metrics["floor"]
    before = 0, math.inf
    for step, loss, _ in evaluations:
        if loss <= level:
            steps = np.interp(level, [loss, before[1]], [step, before[0]]) if before[0] else step
            return tokens * float(steps)
        before = step, loss
    return math.inf


def controls(experiment: str) -> dict[str, Difference]:
    """The controls that are stored, each against what it is a control of.

    Args:
        experiment: out of `CONTROLS`.

    Returns:
        What is compared, in words -> difference.
    """
    plain = reported(experiment)
    table = {}
    for row in COMPARED:
        sides = [_control(experiment, plain, *side) for side in (row.ours, row.theirs)]
        if all(sides):
            table[row.label] = difference(*(_losses(experiment, runs) for runs in sides))
    return table


def _control(
    experiment: str, plain: Mapping[str, dict[int, Record]], arm: str, what: str
) -> dict[int, Record]:
    if not what:
        return plain.get(arm, {})
    kept = seeds(experiment, arm, what)
    return _runs({seed: record_name(experiment, what, arm, seed) for seed in kept})


def rates_tried(experiment: str) -> pd.DataFrame:
    """Losses of the trainings that chose the learning rates, means where several seeds did.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Arms by rates; not a number where there is no record, infinite where it diverged.
    """
    tried = {arm: grid(experiment, arm) for arm in EXPERIMENTS[experiment].arms}
    return _means(experiment, tried, tuning_seeds(experiment)).dropna(how="all")


def retried(experiment: str) -> pd.DataFrame:
    """Mean losses over the tuning seeds of the arms whose two best rates were near each other.

    Args:
        experiment: out of `EXPERIMENTS`.

    Returns:
        Arms by rates; not a number where a record is missing or the rate was not among the two,
        infinite where a training diverged.
    """
    return _means(experiment, RETRIED.get(experiment, {}), RETRIED_SEEDS)


def _means(
    experiment: str, tried: Mapping[str, Iterable[float]], among: Iterable[int]
) -> pd.DataFrame:
    """Mean losses, arms by rates; not a number if a record is missing, infinite if one diverged."""
    shipped = set(records.shipped_names())

    def mean(arm: str, rate: float) -> float:
        names = [record_name(experiment, at(rate), arm, seed) for seed in among]
        if not shipped.issuperset(names):
            return math.nan
        losses = [judged(experiment, records.shipped(name)) for name in names]
        return fmean(math.inf if loss is None else loss for loss in losses)

    table = {arm: {rate: mean(arm, rate) for rate in some} for arm, some in tried.items()}
    return pd.DataFrame(table).T.sort_index(axis=1).rename(columns="{:g}".format)
