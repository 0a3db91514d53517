"""The plan of the trainings: which units, at which rates, and what records say of the choice."""

import math
import statistics
from types import SimpleNamespace

import pytest
import torch

from gomhc.companion import records
from gomhc.companion.parameters import PROFILES
from gomhc.companion.studies import estimate, training_plan
from gomhc.companion.studies.language_models import ARMS, gpt_config
from gomhc.companion.studies.training_plan import (
    CONTROLS,
    EXPERIMENTS,
    GO,
    MAIN,
    NEAR,
    REPORTED,
    RETRIED,
    RETRIED_SEEDS,
    TUNING_SEED,
    WIDENED,
    at,
    grid,
    judged,
    rates,
    record_name,
    seeds,
    tuning_seeds,
    units,
)
from gomhc.lm.model import GPT
from gomhc.lm.train import TrainConfig

EVERY = [unit for profile in PROFILES for unit in units(profile)]
CHOSEN = [(experiment, arm) for experiment, table in REPORTED.items() for arm in table]


def test_every_training_has_its_own_name():
    names = [unit.name for unit in EVERY]
    assert len(set(names)) == len(names)
    for name in names:
        records.file_of(name, ".")  # raises for a name that no record may have


def test_there_is_no_other_profile():
    with pytest.raises(ValueError, match="one of book, full, smoke; got 'tiny'"):
        units("tiny")


@pytest.mark.parametrize("unit", EVERY[::5], ids=lambda unit: unit.name)
def test_a_unit_is_a_configuration(unit):
    config = TrainConfig(gpt_config(unit.config["model"]), **unit.config["training"])
    config.model.make_mixer()
    assert config.seed == unit.seeds[0]
    assert config.decay_connections == ("decay" in unit.name)
    watched = unit.config["watch_every"]
    assert watched is None or watched % config.evaluate_every == 0


def test_an_experiment_begins_with_its_pilot_and_ends_with_its_controls():
    names = [unit.name for unit in units("book")]
    first = [
        record_name("letters", at(3e-3), arm, TUNING_SEED + k) for k in range(6) for arm in MAIN
    ]
    assert names[: len(first)] == first
    letters = [name for name in names if name.startswith("lm/letters-")]
    tuning = [name for name in letters if "seed10" in name]
    assert letters[: len(tuning)] == tuning
    if rates("letters", GO):
        assert letters[-1] == record_name("letters", "dead", GO, 0)


def test_the_trainings_of_the_book_are_there_and_took_about_ten_hours_of_two_cores():
    every = [records.shipped(unit.name) for unit in units("book")]
    assert sum(run.provenance.cpu_seconds for run in every) / 3600 / 2 < 10.5


def test_seeds_that_choose_are_not_reported():
    for experiment, sizes in EXPERIMENTS.items():
        for arm in sizes.arms:
            assert not set(tuning_seeds(experiment)) & set(seeds(experiment, arm))
            if arm in RETRIED.get(experiment, {}):
                assert not set(RETRIED_SEEDS) & set(seeds(experiment, arm))
            assert set(seeds(experiment, arm)) <= set(seeds(experiment, GO))
    assert {"residual", "identity", GO} == set(MAIN) <= set(EXPERIMENTS["letters"].arms)


def test_arms_differ_in_the_mixer_alone():
    configs = {unit.name: unit.config for unit in units("book")}
    one, other = (configs[record_name("letters", at(3e-3), arm, 100)] for arm in ("identity", "hc"))
    assert one["model"] | {"mixer": "hc"} == other["model"]
    assert {**one, "model": None} == {**other, "model": None}


def losses(experiment, arm, seed):
    """Rate -> loss of the trainings that are stored."""
    names = {rate: record_name(experiment, at(rate), arm, seed) for rate in grid(experiment, arm)}
    shipped = set(records.shipped_names())
    found = {
        rate: judged(experiment, records.shipped(name))
        for rate, name in names.items()
        if name in shipped
    }
    return {rate: math.inf if loss is None else loss for rate, loss in found.items()}


@pytest.mark.parametrize(("experiment", "arm"), CHOSEN)
def test_the_rate_of_an_arm_is_the_one_that_the_records_choose(experiment, arm):
    tried = [losses(experiment, arm, seed) for seed in tuning_seeds(experiment)]
    found = {rate: statistics.fmean(table[rate] for table in tried) for rate in tried[0]}
    assert min(found) < REPORTED[experiment][arm] < max(found)  # so it is inside the grid
    planned = {rate: found[rate] for rate in EXPERIMENTS[experiment].rates}
    edge = min(planned, key=lambda rate: planned[rate]) == max(planned)
    assert edge == (arm in WIDENED.get(experiment, {}))
    first, second = sorted(found, key=lambda rate: found[rate])[:2]
    near = found[second] < (1 + NEAR) * found[first]
    close = {first, second} if near and len(tried) == 1 else set()
    assert set(RETRIED.get(experiment, {}).get(arm, ())) == close
    if not close:
        assert REPORTED[experiment][arm] == first
        return
    every = [losses(experiment, arm, seed) for seed in RETRIED_SEEDS]
    means = {rate: statistics.fmean(table[rate] for table in every) for rate in close}
    assert REPORTED[experiment][arm] == min(means, key=lambda rate: means[rate])


@pytest.mark.parametrize(
    ("experiment", "what"), [(e, what) for e, table in CONTROLS.items() for what in table]
)
def test_a_control_differs_from_its_arm_in_what_it_says(experiment, what):
    arm, model, training = CONTROLS[experiment][what]
    configs = {unit.name: unit.config for unit in EVERY}
    for rate in rates(experiment, arm):
        control = configs[record_name(experiment, what, arm, 0)]
        plain = configs[record_name(experiment, at(rate), arm, 0)]
        assert control["model"] == plain["model"] | model != plain["model"] | {"x": 1}
        assert control["training"] == plain["training"] | training
        assert control != plain
        assert control["corpus"] == plain["corpus"]


def test_the_wide_residual_has_as_many_parameters_as_go_mhc():
    def count(**changes):
        with torch.device("meta"):
            return GPT(gpt_config(EXPERIMENTS["letters"].model | changes)).num_parameters()

    _, model, _ = CONTROLS["letters"]["wide"]
    ours = count(**ARMS[GO])
    apart = {mlp: abs(count(mlp=mlp) - ours) for mlp in range(model["mlp"] - 2, model["mlp"] + 3)}
    assert min(apart, key=lambda mlp: apart[mlp]) == model["mlp"]


def test_a_rate_that_is_not_chosen_yet(monkeypatch):
    monkeypatch.setitem(REPORTED, "letters", {"residual": 3e-3})
    assert rates("letters", "residual") == (3e-3,)
    assert rates("letters", GO) == ()
    assert not training_plan.chosen("letters")
    assert rates("stories-large", GO) == EXPERIMENTS["stories-large"].rates
    names = {unit.name for unit in units("book")}
    assert record_name("letters", "lr0.003", "residual", 0) in names
    assert record_name("letters", "wide", "residual", 4) in names
    ours = [name for name in names if name.startswith("lm/letters-go-mhc-s2")]
    assert ours and not any(name.endswith("-seed0") for name in ours)


def test_where_the_lowest_evaluation_counts_it_does():
    runs = SimpleNamespace(
        metrics={"loss": 1.7, "above": None},
        series={"evaluations": [[1, 2.0, 1.0], [2, 1.5, 2.0], [3, 1.7, 3.0]]},
    )
    assert judged("letters-large", runs) == 1.5
    assert judged("letters", runs) == 1.7
    runs.metrics["above"] = 0.7
    assert judged("letters-large", runs) == pytest.approx(0.5)
    runs.metrics.update(loss=None, above=None)
    assert judged("letters-large", runs) is None


def test_an_estimate_counts_every_training_and_times_a_configuration_once():
    asked = []

    def run(model, training, corpus, watch_every, **given):
        asked.append((model["mixer"], training["steps"], given))
        if model["mixer"] == "hc":
            raise OSError("no such text")
        return SimpleNamespace(metrics={"tokens_per_second": 1000.0})

    chosen = [u._replace(run=run) for u in units("full") if "letters-large" in u.name]
    seconds = estimate.estimate(chosen, {"device": "cpu"})
    assert {given["device"] for _, _, given in asked} == {"cpu"}
    assert {steps for _, steps, _ in asked} == {estimate.STEPS}
    assert len(asked) == len({arm for arm, _, _ in asked}) + 1  # go-mhc with s = 1 and 2
    assert set(seconds) == {u.name for u in chosen if u.config["model"]["mixer"] != "hc"}
    assert set(seconds.values()) == {5000 * 64 * 256 / 1000}
