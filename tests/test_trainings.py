"""What chapter 7 reads from the stored trainings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from gomhc.companion import trainings
from gomhc.companion.studies.training_plan import (
    CONTROLS,
    EARLIER,
    EXPERIMENTS,
    GO,
    REPORTED,
    RETRIED,
    RETRIED_SEEDS,
    TUNING_SEED,
    at,
    rates,
    record_name,
    seeds,
)
from gomhc.lm.model import preset

LOSS = {"residual": 2.0, "identity": 2.02, GO: 2.01}


def training(loss, rate=3e-3):
    metrics = {"loss": loss, "above": None, "diverged": None, "parameters": 7}
    series = {"evaluations": [[1, 9.0, 1.0], [2, loss, 2.0]]}
    config = {"training": {"learning_rate": rate}}
    return SimpleNamespace(metrics=metrics, config=config, series=series)


@pytest.fixture
def store(monkeypatch):
    """Three arms on letters, as if shipped; more may be put in."""
    monkeypatch.setitem(REPORTED, "letters", dict.fromkeys(LOSS, 3e-3))
    kept = {
        record_name("letters", at(3e-3), arm, seed): training(loss + 0.01 * seed)
        for arm, loss in LOSS.items()
        for seed in seeds("letters", arm)
    }
    monkeypatch.setattr(trainings.records, "shipped_names", lambda: list(kept))
    monkeypatch.setattr(trainings.records, "shipped", kept.__getitem__)
    return kept


def test_a_pilot_and_its_power(store):
    above = {
        "residual": [1.0] * 5,
        "identity": [1.0, 1.1, 1.0, 0.9, 1.0],
        GO: [1.1, 1.3, 1.2, 1.15, 1.25],
    }
    runs = {arm: [training(value + 2) for value in values] for arm, values in above.items()}
    for arm, values in above.items():
        for k, (run, value) in enumerate(zip(runs[arm], values, strict=True)):
            run.metrics["above"] = value
            store[record_name("stories", at(3e-3), arm, 100 + k)] = run
    table = trainings.pilot("stories")
    assert list(table.index) == list(above)
    assert list(table.loc[GO]) == above[GO]
    pairs = [0.1, 0.2, 0.2, 0.25, 0.25]
    assert trainings.pilot_power("stories").pairs == pytest.approx(pairs)
    assert trainings.pilot_power("stories", (GO, "residual")).pairs[1] == pytest.approx(0.3)
    for run in runs["identity"] + runs[GO]:
        run.metrics["above"] = None  # where no floor is known: shares of the loss
    assert trainings.pilot_power("stories").pairs[1] == pytest.approx(0.2 / 3)
    runs["identity"][3].metrics["loss"] = None
    assert trainings.pilot("stories").loc["identity"].isna().sum() == 1
    with pytest.raises(ValueError, match="a pilot that did not diverge, got one of identity"):
        trainings.pilot_power("stories")
    with pytest.raises(ValueError, match="an experiment with a pilot, got bible"):
        trainings.pilot("bible")


def test_arms_are_compared_seed_by_seed(store):
    table = trainings.differences("letters", "residual")
    assert table.keys() == {"identity", GO}
    base = 2.0 + 0.01 * 3.5  # mean over eight seeds
    assert table[GO].pairs == pytest.approx([0.01 / base] * 8)
    assert trainings.finished("letters")
    row = trainings.summary("letters").loc[GO]
    assert (row["seeds"], row["parameters"]) == (8, "7")
    assert row["loss"] == "2.045 ± 0.024"  # of 2.01 + 0.01 k
    assert row["% against residual"] == str(table[GO]).replace("%", "")


def test_an_arm_that_lacks_a_seed_is_left_out(store):
    del store[record_name("letters", at(3e-3), GO, 4)]
    assert trainings.reported("letters").keys() == {"residual", "identity"}
    assert not trainings.finished("letters")


def test_an_arm_that_diverged_is_left_out(store):
    store[record_name("letters", at(3e-3), "identity", 0)].metrics["diverged"] = "in step 3"
    assert trainings.reported("letters").keys() == {"residual", GO}


def test_of_several_rates_the_better_one_counts(store):
    low, high = rates("letters-large", GO)
    for rate, loss in {low: 2.0, high: 1.9}.items():
        for seed in seeds("letters-large", GO):
            store[record_name("letters-large", at(rate), GO, seed)] = training(loss, rate)
    (run, *_) = trainings.reported("letters-large")[GO].values()
    assert run.config["training"]["learning_rate"] == high


def test_controls_are_compared_with_what_they_are_controls_of(store):
    assert trainings.controls("letters") == {}
    for seed in range(EXPERIMENTS["letters"].seeds):
        store[record_name("letters", "wide", "residual", seed)] = training(1.9 + 0.01 * seed)
    table = trainings.controls("letters")
    wider, ours = table.values()
    assert list(table) == [row.label for row in trainings.COMPARED[:2]]
    assert wider.mean == pytest.approx(-0.1 / 2.02)
    assert ours.mean == pytest.approx(0.11 / 1.92)


def test_every_control_has_its_row_and_names_its_arm():
    rows = [row for row in trainings.COMPARED if row.ours[1]]
    wanted = {(arm, what) for what, (arm, _, _) in CONTROLS["letters"].items() if what != "dead"}
    wanted |= {(arm, at(rate)) for arm, rate in EARLIER["letters"].items()}
    assert {row.ours for row in rows} == wanted
    assert all(row.label.startswith(f"{row.ours[0]}: ") for row in rows)


def test_rates_that_were_tried(store):
    store[record_name("letters", at(1e-3), "residual", 100)] = training(2.5)
    store[record_name("letters", at(3e-3), "residual", 100)] = training(2.25)
    store[record_name("letters", at(6e-3), "residual", 100)] = training(None)
    table = trainings.rates_tried("letters")
    assert list(table.columns) == ["0.001", "0.003", "0.006", "0.012"]
    assert list(table.loc["residual"])[:3] == [2.5, 2.25, float("inf")]
    assert table.loc["residual"].isna().sum() == 1


def test_tokens_to_a_level_above_the_floor(store, monkeypatch):
    monkeypatch.setitem(REPORTED, "stories", dict.fromkeys(LOSS, 3e-3))
    ends = {"residual": 0.0, "identity": 1.0, GO: 0.5}
    for arm, end in ends.items():
        for seed in seeds("stories", arm):
            # Above the floor of 2: 3 after ten steps, 1 - seed / 1000 after twenty, then the end.
            fall = [(10, 5.0), (20, 3.0 - seed / 1000), (30, 2.0 + end), (40, 2.5)]
            run = training(2.5)
            run.metrics["floor"] = 2.0
            run.series = {"evaluations": [[step, loss, 1.0] for step, loss in fall]}
            run.config |= {"model": {"preset": "nano"}}
            run.config["training"]["batch"] = 4
            store[record_name("stories", at(3e-3), arm, seed)] = run
    table = trainings.reached("stories", (4.0, 2.0, 0.75, 0.25))
    tokens = 4 * preset("nano").block
    assert list(table.loc[GO, 4.0]) == [10 * tokens] * 3  # evaluated no earlier
    firsts = [10 + 10 / (2 + seed / 1000) for seed in seeds("stories", GO)]
    least, middle, most = min(firsts), sorted(firsts)[2], max(firsts)
    assert list(table.loc[GO, 2.0]) == pytest.approx([tokens * x for x in (middle, least, most)])
    assert table.loc["residual", (0.75, "least")] < table.loc[GO, (0.75, "least")] < 30 * tokens
    assert table.loc["identity", (0.75, "least")] > 30 * tokens  # on the last stretch
    assert list(table.loc[GO, 0.25]) == [float("inf")] * 3


def test_the_least_and_the_most_of_some_seeds_hold_the_median_so_often():
    draws = np.random.default_rng(0).exponential(size=(20_000, 5))
    held = (draws.min(1) < math.log(2)) & (math.log(2) < draws.max(1))
    assert held.mean() == pytest.approx(trainings.sureness(5), abs=0.005)
    ties = np.random.default_rng(1).integers(0, 3, size=(20_000, 5))  # of median 1
    held = (ties.min(1) <= 1) & (ties.max(1) >= 1)
    assert trainings.sureness(5) < held.mean() < 1


def test_rates_of_the_tuning_seeds(store):
    low, high = RETRIED["letters"]["mhc"]
    names = {
        (rate, seed): record_name("letters", at(rate), "mhc", seed)
        for rate in (low, high)
        for seed in RETRIED_SEEDS
    }
    for (rate, seed), name in names.items():
        store[name] = training(2.0 + 0.1 * (seed - TUNING_SEED) + (rate == low))
    first, means = trainings.rates_tried("letters"), trainings.retried("letters")
    assert list(first.index) == ["mhc"]
    assert first.loc["mhc", ["0.003", "0.006"]].tolist() == [3.0, 2.0]
    assert math.isnan(first.loc["mhc", "0.012"])
    assert means.loc["mhc"].tolist() == pytest.approx([3.1, 2.1])
    assert means.loc["transport"].isna().all()
    store[names[high, RETRIED_SEEDS[1]]].metrics["loss"] = None
    assert trainings.retried("letters").loc["mhc", f"{high:g}"] == math.inf
    del store[names[low, RETRIED_SEEDS[1]]]
    assert math.isnan(trainings.retried("letters").loc["mhc", f"{low:g}"])
