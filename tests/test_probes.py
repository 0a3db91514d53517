"""Probes: today's code gives the numbers that the records were made with, at the smoke size."""

import math
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
import torch

from benchmarks import layer, mixers
from gomhc.companion import probes, records, studies
from gomhc.companion.studies import Outcome, Probe, language_models, polytope, training_plan
from gomhc.companion.studies.cost import counting
from gomhc.fused import FEWEST_TOKENS

ALL = [*studies.probes(), mixers.PROBE, layer.PROBE]


# They count bytes, of which the tests' shape checks keep some alive.
COUNTED = {"cost/memory", "cost/time"}


@pytest.mark.parametrize("probe", ALL, ids=lambda probe: probe.name)
def test_numbers_have_not_moved(probe):
    if probe.name not in COUNTED:
        return probes.check(probe)
    code = (
        "from gomhc.companion import probes, studies\n"
        f"[probe] = [p for p in studies.probes() if p.name == {probe.name!r}]\n"
        "probes.check(probe)"
    )
    answer = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert answer.returncode == 0, answer.stderr


def test_every_unit_and_every_record_has_a_probe():
    names = [unit.name for profile in (None, "book", "full") for unit in studies.units(profile)]
    for name in {*names, *records.shipped_names()}:
        stands_for = [p for p in ALL if any(fnmatchcase(name, pattern) for pattern in p.units)]
        assert len(stands_for) == 1, name


def test_a_probe_runs_what_its_units_run():
    for probe in studies.probes():
        for unit in studies.units():
            if any(fnmatchcase(unit.name, pattern) for pattern in probe.units):
                assert unit.run is probe.run, unit.name


def test_every_training_of_the_probe_is_of_the_queue():
    (probe,) = training_plan.PROBES
    arms = [training_plan.record_name("smoke", "lr0.003", arm, 0) for arm in language_models.ARMS]
    assert set(arms) < set(probe.config["names"])
    assert {unit.run for unit in training_plan.units("book")} == {language_models.run}


def test_a_training_of_the_probe_takes_both_paths():
    """Its steps the compiled passes, its evaluations PyTorch's functions."""
    for unit in training_plan.units("smoke"):
        block = unit.config["model"]["block"]
        steps = block * unit.config["training"]["batch"]
        evaluations = block * unit.config["corpus"]["windows"]
        assert evaluations < FEWEST_TOKENS <= steps


def probe_of(name):
    return next(probe for probe in ALL if probe.name == name)


def test_a_number_that_moves_is_reported_with_its_unit(monkeypatch):
    """One iteration less in Sinkhorn's mixer; 21 instead of 20 samples would move it, too."""
    monkeypatch.setattr(polytope, "mixer", lambda label, d: fewer(mixers.mixer(label, d)))

    def fewer(family):
        if hasattr(family, "iterations"):
            family.iterations -= 1
        return family

    message = "polytope/exactness: numbers moved: if that was meant, raise the protocol and renew"
    with pytest.raises(AssertionError, match=message) as error:
        probes.check(probe_of("polytope/exactness"))
    assert "['mhc iterations=5']" in str(error.value)


def test_a_constant_of_a_study_is_noticed(monkeypatch):
    monkeypatch.setitem(counting.PRICES, torch.ops.aten.exp, lambda *_, **__: 0)
    with pytest.raises(AssertionError, match=r"cost/flops: numbers moved.*\n  metrics\['mixer'\]"):
        probes.check(probe_of("cost/flops"))


PROBE = Probe(
    "toy/one", lambda value: Outcome({"a": value, "s": 1.0}, {}), {"value": 2.0}, ("t/*",)
)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.0 + 1e-5, False),
        (0.0, 1e-10, True),
        (0.0, 1e-8, False),
        (1.0, math.nan, False),
        (1, True, False),
        (None, 0.0, False),
        ([1, 2], [1, 2, 3], False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": [1, {"seconds": 5}]}, {"a": [1, {"seconds": 7}]}, True),
        ("word", "words", False),
    ],
)
def test_what_counts_as_moved(before, after, same):
    probe = PROBE._replace(ignored=("seconds",))
    stored, today = (
        records.make("toy/one", lambda value=value: ({"a": value}, {}), {})
        for value in (before, after)
    )
    assert (probes.moved(probe, stored, today) == []) is same


def test_a_probe_that_is_not_stored_or_of_another_size(tmp_path):
    with pytest.raises(AssertionError, match=r"toy/one: no probe of t/\* is stored: make probes"):
        probes.check(PROBE, tmp_path)
    probes.renew(PROBE, tmp_path)
    probes.check(PROBE, tmp_path)
    with pytest.raises(AssertionError, match=r"the probe of t/\* has changed: make probes"):
        probes.check(PROBE._replace(config={"value": 3.0}), tmp_path)
    three = PROBE._replace(run=lambda value: Outcome({"a": 3.0, "s": 1.0}, {}))
    with pytest.raises(
        AssertionError, match=r"t/\*: numbers moved.*\n  metrics\['a'\]: 3.0, was 2"
    ):
        probes.check(three, tmp_path)
