"""The queue of trainings: what is in it, and that it stops and goes on."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from gomhc import records
from gomhc.lm import plan, runs
from gomhc.lm.model import GPT, preset


@pytest.mark.parametrize("profile", plan.SIZES)
def test_every_job_has_its_own_name_and_a_configuration_that_exists(profile):
    jobs = plan.queue(profile)
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        records.file_of(job.name, ".")  # raises for a name that no record may have
        model = dict(job.config["model"])
        preset(model.pop("preset"), **model).make_mixer()


def test_the_arms_come_first_seed_by_seed():
    names = [job.name for job in plan.queue("full")][: 3 * len(plan.ARMS)]
    assert all("-d4-" in name for name in names)
    assert [name[-5:] for name in names] == sorted(name[-5:] for name in names)


def test_there_is_no_other_profile():
    with pytest.raises(ValueError, match="one of smoke, book, full; got 'tiny'"):
        plan.queue("tiny")


@pytest.fixture
def two(monkeypatch):
    """Only the first and the last arm of the smallest profile."""
    jobs = plan.queue("smoke")
    chosen = [jobs[0], jobs[len(plan.ARMS) - 1]]
    monkeypatch.setattr(runs, "queue", lambda profile: chosen)
    return chosen


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GOMHC_CACHE", str(tmp_path / "cache"))


def command(folder, *more):
    return runs.main(["--profile", "smoke", "--device", "cpu", "--out", str(folder), *more])


def test_each_training_is_a_record(two, tmp_path, capsys):
    assert command(tmp_path / "records") == 0
    for job in two:
        found = records.load(records.file_of(job.name, tmp_path / "records"))
        assert found.config == job.config
        assert found.metrics["above"] == pytest.approx(
            found.metrics["loss"] - found.metrics["floor"]
        )
        assert found.series["evaluations"][-1][:2] == [4, found.metrics["loss"]]
        assert found.metrics["sample"].startswith("<story> one")
        assert (found.metrics["report"] is None) == (job.config["model"]["mixer"] == "residual")
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    capsys.readouterr()
    assert command(tmp_path / "records") == 0
    assert capsys.readouterr().out.startswith("2 of 2 trainings have their record")


@pytest.mark.parametrize("steps", [0, 2])
def test_it_stops_in_time_and_goes_on_from_there(two, tmp_path, capsys, monkeypatch, steps):
    whole = runs.run(**two[0].config, device="cpu")
    now = 0.0

    def timed(*arguments, stop, **options):
        """A minute passes after some steps."""
        times = iter([0.0] * steps)

        def ask():
            nonlocal now
            now = next(times, 60.0)
            return stop()

        return train(*arguments, stop=ask, **options)

    train = runs.train
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", timed)
        patch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: now))
        assert command(tmp_path / "records", "--minutes", "1") == 0
    said = capsys.readouterr().out
    assert f"up after {steps} of 4 steps; the next call goes on from there" in said
    monkeypatch.setattr(runs, "queue", lambda profile: two[:1])
    assert command(tmp_path / "records") == 0
    found = records.load(records.file_of(two[0].name, tmp_path / "records"))
    assert found.metrics["loss"] == whole.metrics["loss"]
    assert found.series["loss"] == whole.series["loss"]
    assert (whole.metrics["calls"], found.metrics["calls"]) == (1, 2 if steps else 1)


def test_reports_may_hold_numbers_that_json_does_not_have():
    report = {"gain": [1.0, math.inf], "change": {"all": math.nan, "early": 0.5}, "loss": -math.inf}
    assert runs._finite(report) == {
        "gain": [1.0, None],
        "change": {"all": None, "early": 0.5},
        "loss": None,
    }


def test_no_time_at_all(two, tmp_path, capsys):
    assert command(tmp_path / "records", "--minutes", "0") == 0
    assert not (tmp_path / "records").exists()


def test_the_command_as_a_module():
    command = [sys.executable, "-m", runs.MODULE, "--profile", "smoke", "--list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "lm/smoke-residual-d4-seed0" in answer.stdout


def test_a_training_that_diverges_is_a_record_too(two, tmp_path, capsys):
    two[0].config["training"] = two[0].config["training"] | {"learning_rate": 1e30}
    assert command(tmp_path / "records") == 0
    assert "residual-d4-seed0: diverged" in capsys.readouterr().out
    record = records.load(records.file_of(two[0].name, tmp_path / "records"))
    found = record.metrics
    assert "in step 1" in found["diverged"]
    assert found["loss"] is found["above"] is None
    assert [step for step, _ in record.series["loss"]] == [1]


def test_a_training_that_fails_does_not_stop_the_others(two, tmp_path, capsys, monkeypatch):
    def fail(config, *arguments, **options):
        if config.model.mixer == "residual":
            raise torch.OutOfMemoryError("too large")
        return train(config, *arguments, **options)

    train = runs.train
    monkeypatch.setattr(runs, "train", fail)
    assert command(tmp_path / "records") == 1
    assert "left out: OutOfMemoryError: too large" in capsys.readouterr().err
    assert records.file_of(two[1].name, tmp_path / "records").exists()


def test_samples_have_only_words_of_the_text():
    model = GPT(preset("nano"))
    assert max(model.generate([1, 2], 40, vocabulary=5)) < 5


def test_what_is_missing_is_left_out(monkeypatch, tmp_path, capsys):
    job = next(job for job in plan.queue("smoke") if "shakespeare" in job.name)
    monkeypatch.setattr(runs, "queue", lambda profile: [job])
    copy = tmp_path / "other.txt"
    copy.write_text("another text")
    assert command(tmp_path / "records", "--shakespeare", str(copy)) == 1
    assert "left out: ValueError: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "here", "--shakespeare", "none.txt"], "--shakespeare, found none at none.txt"),
        (["--out", "here", "--device", "gpu"], "expected a device auto, cpu or cuda, got 'gpu'"),
        (["--out", "here", "--minutes", "-1"], "expected --minutes of 0 or more"),
        (["--out", "here", "--minutes", "nan"], "expected --minutes of 0 or more"),
        (["--out", __file__], "expected a folder as --out"),
        ([], "expected --out for the smoke profile"),
    ],
)
def test_what_is_asked_for_is_checked_before_the_first_training(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        runs.main(["--profile", "smoke", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a GPU")
def test_the_full_profile_asks_for_a_gpu(tmp_path, capsys):
    with pytest.raises(SystemExit, match="expected a GPU.*--profile book"):
        runs.main(["--out", str(tmp_path)])
    assert runs.main(["--out", str(tmp_path), "--list"]) == 0
    assert "lm/full-residual-d4-seed0" in capsys.readouterr().out
    assert runs.main(["--out", str(tmp_path), "--device", "cpu", "--minutes", "0"]) == 0
