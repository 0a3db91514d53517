"""The trainings as a command: each is a record, and they stop and go on."""

import hashlib
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from gomhc.companion import records
from gomhc.companion.studies import __main__, language_models
from gomhc.companion.studies.language_models import ARMS
from gomhc.companion.studies.training_plan import units
from gomhc.lm.model import GPT, preset


@pytest.fixture
def two(monkeypatch):
    """Only the first and the last arm of the smallest profile."""
    jobs = units("smoke")
    chosen = [jobs[0], jobs[len(ARMS) - 1]]
    monkeypatch.setattr(__main__, "units", lambda profile: chosen)
    return chosen


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GOMHC_CACHE", str(tmp_path / "cache"))


def command(folder, *more):
    return __main__.main(["--profile", "smoke", "--device", "cpu", "--out", str(folder), *more])


def test_each_training_is_a_record(two, tmp_path, capsys):
    assert command(tmp_path / "records") == 0
    for job in two:
        record = records.load(records.file_of(job.name, tmp_path / "records"))
        assert record.config == job.config
        assert record.metrics["above"] == pytest.approx(
            record.metrics["loss"] - record.metrics["floor"]
        )
        assert record.series["evaluations"][-1][:2] == [4, record.metrics["loss"]]
        assert record.metrics["sample"].startswith("<story> one")
        assert (record.metrics["report"] is None) == (job.config["model"]["mixer"] == "residual")
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    capsys.readouterr()
    assert command(tmp_path / "records") == 0
    assert capsys.readouterr().out.startswith("2 of 2 records are current")


def test_streams_are_watched_over_a_training(two, tmp_path):
    two[1].config["watch_every"] = 2
    assert command(tmp_path / "records") == 0
    plain, watched = (records.load(records.file_of(job.name, tmp_path / "records")) for job in two)
    assert "streams" not in plain.series
    streams, last = watched.series["streams"], watched.metrics["report"]
    assert streams["step"] == [2, 4]
    assert streams["distance"][1] == last["distance"] != streams["distance"][0]
    assert streams["change"]["all as I"][1] == last["change"]["all as I"]
    assert len(streams["loss"]) == 2


def test_a_folder_of_texts_has_shakespeare_too(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("First Citizen:")
    parsed = __main__.parsed(["--profile", "smoke", "--list", "--texts", str(tmp_path)])
    assert parsed.shakespeare == tmp_path / "tinyshakespeare.txt"
    (tmp_path / "tinyshakespeare.txt").unlink()
    assert __main__.parsed(["--texts", str(tmp_path)]).shakespeare is None


@pytest.mark.parametrize(
    ("content", "sha256", "message"),
    [
        (None, "0" * 64, "expected a.txt in"),
        ("another text " * 50, "0" * 64, "expected the SHA-256 0{64} of"),
    ],
)
def test_a_file_must_be_the_one_that_is_meant(tmp_path, content, sha256, message):
    if content:
        (tmp_path / "a.txt").write_text(content)
    corpus = {"kind": "file", "name": "a.txt", "sha256": sha256}
    model = {"preset": "nano", "block": 16}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        language_models.run(model, {"steps": 1, "warmup": 0}, corpus, device="cpu", texts=tmp_path)
    with pytest.raises(ValueError, match="expected --texts, the folder of a.txt, got none"):
        language_models.run(model, {"steps": 1, "warmup": 0}, corpus, device="cpu")


def test_a_training_on_a_file(tmp_path):
    text = "the cat sat on the mat . " * 40
    (tmp_path / "a.txt").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    corpus = {"kind": "file", "name": "a.txt", "sha256": digest, "windows": 2}
    model = {"preset": "nano", "block": 16, "vocabulary": len(set(text))}
    outcome = language_models.run(
        model, {"steps": 1, "warmup": 0}, corpus, device="cpu", texts=tmp_path
    )
    assert outcome.metrics["floor"] is None
    assert set(outcome.metrics["sample"]) <= set(text)


@pytest.mark.parametrize("steps", [0, 2])
def test_it_stops_in_time_and_goes_on_from_there(two, tmp_path, capsys, monkeypatch, steps):
    whole = language_models.run(**two[0].config, device="cpu")
    now = 0.0

    def timed(*arguments, stop, **options):
        """A minute passes after some steps."""
        times = iter([0.0] * steps)

        def ask():
            nonlocal now
            now = next(times, 60.0)
            return stop()

        return train(*arguments, stop=ask, **options)

    train = language_models.train
    with monkeypatch.context() as patch:
        patch.setattr(language_models, "train", timed)
        patch.setattr(__main__, "time", SimpleNamespace(monotonic=lambda: now))
        assert command(tmp_path / "records", "--minutes", "1") == 0
    said = capsys.readouterr().out
    assert f"up after {steps} of 4 steps; the next call goes on from there" in said
    monkeypatch.setattr(__main__, "units", lambda profile: two[:1])
    assert command(tmp_path / "records") == 0
    record = records.load(records.file_of(two[0].name, tmp_path / "records"))
    assert record.metrics["loss"] == whole.metrics["loss"]
    assert record.series["loss"] == whole.series["loss"]
    assert (whole.metrics["calls"], record.metrics["calls"]) == (1, 2 if steps else 1)


def test_reports_may_hold_numbers_that_json_does_not_have():
    report = {"gain": [1.0, math.inf], "change": {"all": math.nan, "early": 0.5}, "loss": -math.inf}
    assert language_models._finite(report) == {
        "gain": [1.0, None],
        "change": {"all": None, "early": 0.5},
        "loss": None,
    }


def test_no_time_at_all(two, tmp_path, capsys):
    assert command(tmp_path / "records", "--minutes", "0") == 0
    assert not (tmp_path / "records").exists()


def test_the_command_as_a_module():
    command = [sys.executable, "-m", "gomhc.companion.studies", "--profile", "smoke", "--list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "lm/smoke-residual-lr0.003-seed0" in answer.stdout


def test_a_training_that_diverges_is_a_record_too(two, tmp_path, capsys):
    two[0].config["training"] = two[0].config["training"] | {"learning_rate": 1e30}
    assert command(tmp_path / "records") == 0
    assert "(it diverged)" in capsys.readouterr().out
    record = records.load(records.file_of(two[0].name, tmp_path / "records"))
    assert "in step 1" in record.metrics["diverged"]
    assert record.metrics["loss"] is record.metrics["above"] is None
    assert [step for step, _ in record.series["loss"]] == [1]


def test_a_training_that_fails_does_not_stop_the_others(two, tmp_path, capsys, monkeypatch):
    def fail(config, *arguments, **options):
        if config.model.mixer == "residual":
            raise torch.OutOfMemoryError("too large")
        return train(config, *arguments, **options)

    train = language_models.train
    monkeypatch.setattr(language_models, "train", fail)
    assert command(tmp_path / "records") == 1
    assert "left out: OutOfMemoryError: too large" in capsys.readouterr().err
    assert records.file_of(two[1].name, tmp_path / "records").exists()


def test_samples_have_only_words_of_the_text():
    model = GPT(preset("nano"))
    assert max(model.generate([1, 2], 40, vocabulary=5)) < 5


def test_what_is_missing_is_left_out(monkeypatch, tmp_path, capsys):
    (job, *_) = units("smoke")
    job.config["corpus"] = {"kind": "shakespeare", "windows": 2}
    monkeypatch.setattr(__main__, "units", lambda profile: [job])
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
        __main__.main(["--profile", "smoke", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a GPU")
def test_the_full_profile_asks_for_a_gpu(tmp_path, capsys):
    full = ["--profile", "full", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        __main__.main(full)
    assert stop.value.code == 2
    assert "expected a GPU for the profile full, found none" in capsys.readouterr().err
    assert __main__.main([*full, "--list"]) == 0
    assert "lm/letters-large-residual-lr0.001-seed0" in capsys.readouterr().out
    assert __main__.main([*full, "--device", "cpu", "--minutes", "0"]) == 0


def test_memory_is_asked_of_the_device_that_was_used(monkeypatch, two):
    """As with --device cuda:1 on a machine of two GPUs."""
    asked = []
    second = torch.device("cuda", 1)
    monkeypatch.setattr(language_models, "chosen_device", lambda device: second)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device=None: asked.append(device) or 7
    )

    def on_the_cpu(*arguments, device, **options):
        assert device == second
        return train(*arguments, device="cpu", **options)

    train = language_models.train
    monkeypatch.setattr(language_models, "train", on_the_cpu)
    outcome = language_models.run(**two[0].config, device="cuda:1")
    assert (asked, outcome.metrics["memory"]) == ([second], 7)


def test_only_the_same_protocol_and_configuration_go_on_with_a_checkpoint(two, tmp_path):
    first, last = two
    own = __main__.checkpoint_of(first, tmp_path)
    assert own == __main__.checkpoint_of(first._replace(seeds=(9,)), tmp_path)
    assert own.name.startswith("smoke-residual-lr0.003-seed0-")
    others = [first._replace(protocol=2), first._replace(config=last.config)]
    assert own not in [__main__.checkpoint_of(unit, tmp_path) for unit in others]
