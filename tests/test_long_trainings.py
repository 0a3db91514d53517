"""The plan of the long trainings: which units, and how many seeds a pilot asks for."""

import math
import random
from types import SimpleNamespace

import pytest
from scipy import stats

from gomhc.companion import studies
from gomhc.companion.studies import long_trainings
from gomhc.companion.studies.long_trainings import ARMS, EXPERIMENTS, PILOT_ARMS, name_of, power
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig


def test_the_plan_names_every_training_once():
    units = studies.units("pilot")
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    pilot = [unit.name for unit in long_trainings.pilot()]
    assert names[: len(pilot)] == pilot  # first of all
    for experiment, sizes in EXPERIMENTS.items():
        for arm in ARMS:
            assert {name_of(experiment, arm, rate, 100) for rate in sizes["rates"]} <= set(names)
    assert {"orthogonal", "transport", *PILOT_ARMS} <= set(ARMS)


@pytest.mark.parametrize("unit", studies.units("pilot")[::7], ids=lambda unit: unit.name)
def test_a_unit_is_a_configuration(unit):
    changes = dict(unit.config["model"])
    config = TrainConfig(preset(changes.pop("preset"), **changes), **unit.config["training"])
    assert config.seed == unit.seeds[0] >= 100
    assert not config.decay_connections
    assert unit.config["watch_every"] % config.evaluate_every == 0


def test_arms_differ_in_the_mixer_alone():
    units = {unit.name: unit.config for unit in studies.units("pilot")}
    one, other = (units[name_of("letters", arm, 0.003, 100)] for arm in ("identity", "hc"))
    assert one["model"] | {"mixer": "hc"} == other["model"]
    assert {**one, "model": None} == {**other, "model": None}


def test_the_half_width_is_that_of_a_t_interval():
    differences = [0.01, -0.02, 0.005, 0.012]
    answer = power(differences, 0.01)
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert answer.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert answer.seeds_at_most > answer.seeds > 4


def test_so_many_seeds_are_enough_and_one_fewer_is_not():
    answer = power([0.01, -0.02, 0.005, 0.012], 0.01)

    def half(seeds):
        return stats.t.ppf(0.975, seeds - 1) * answer.deviation / math.sqrt(seeds)

    assert half(answer.seeds) <= 0.01 < half(answer.seeds - 1)


def test_the_deviation_lies_below_its_upper_end_in_nine_of_ten_pilots():
    source, covered = random.Random(0), 0
    truth = power([math.sqrt(0.5), -math.sqrt(0.5)], 0.8).seeds  # of a deviation of 1
    for _ in range(300):
        answer = power([source.gauss(0, 1) for _ in range(5)], 0.8)
        covered += answer.seeds_at_most >= truth
    assert 0.84 < covered / 300 < 0.96


def test_a_pilot_read_from_records():
    above = {"go-mhc s=2": [1.1, 1.3, 1.2, 1.15, 1.25], "identity": [1.0, 1.1, 1.0, 0.9, 1.0]}
    records = {
        name_of("stories", arm, 0.003, 100 + k): SimpleNamespace(
            metrics={"loss": value + 2, "above": value}
        )
        for arm, values in above.items()
        for k, value in enumerate(values)
    }
    answer = long_trainings.pilot_power("stories", records, 0.02)
    assert answer.differences == pytest.approx((0.1, 0.2, 0.2, 0.25, 0.25))
    for record in records.values():
        record.metrics["above"] = None
    answer = long_trainings.pilot_power("stories", records, 0.02)
    assert answer.differences[1] == pytest.approx(0.2 / 3)
    records.popitem()
    with pytest.raises(KeyError, match="lm/stories-identity-lr0.003-seed104"):
        long_trainings.pilot_power("stories", records, 0.02)


@pytest.mark.parametrize(("differences", "wanted"), [([0.1], 0.1), ([], 0.1), ([0.1, 0.2], 0.0)])
def test_no_pilot(differences, wanted):
    with pytest.raises(ValueError, match="two differences or more and a half-width > 0"):
        power(differences, wanted)


def test_more_seeds_than_one_can_have():
    assert power([0.0, 1.0], 1e-6, most=50).seeds == 50
