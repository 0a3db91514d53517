"""Long trainings in a notebook: where they are kept, what is said before, and that they go on."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell
from traitlets.config import Config

from book.tools import colab
from gomhc.companion import session
from gomhc.companion.session import begin
from gomhc.lm import data
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
NAME = "07-language-model"
ARMS = ["residual", "identity", "go-mhc s=2"]


@pytest.fixture(scope="module")
def corpus():
    return data.stories(block=16, train=2000, windows=2)


@pytest.fixture
def configs():
    sizes = {"width": 16, "layers": 1, "block": 16}
    arms = {"residual": {"mixer": "residual"}, "go-mhc s=2": {"mixer": "go-mhc", "s": 2}}
    return {
        arm: TrainConfig(preset("nano", **sizes, **mixer), steps=4, batch=2, warmup=1)
        for arm, mixer in arms.items()
    }


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """An empty folder, no Drive, and no GPU."""
    monkeypatch.setattr(session, "DRIVE", tmp_path / "no" / "drive")
    monkeypatch.setattr(session, "RUNTIME", tmp_path / "no")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)


def test_results_go_to_drive_if_it_is_mounted_else_beside_the_notebook(
    configs, corpus, monkeypatch, tmp_path, capsys
):
    here = begin("x", configs, corpus, "book", "auto")
    assert {folder.parent for folder in here.values()} == {tmp_path / "gomhc-results" / "x"}
    assert f"{tmp_path / 'gomhc-results' / 'x'} (this machine)" in capsys.readouterr().out
    monkeypatch.setattr(session, "RUNTIME", tmp_path)  # on Colab, without Drive
    assert begin("x", configs, corpus, "book", "auto") == here
    assert "gone when this runtime ends: mount Google Drive" in capsys.readouterr().out
    monkeypatch.setattr(session, "DRIVE", tmp_path)
    there = begin("x", configs, corpus, "book", "auto")
    assert {folder.parent for folder in there.values()} == {tmp_path / "gomhc" / "x"}
    assert "(Google Drive)" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []  # a training makes its folder


def test_what_is_left_is_timed_here(configs, corpus, monkeypatch, capsys):
    timed = []

    def few(config, corpus, **options):
        timed.append((config.model.mixer, config.steps))
        model, seen = train(config, corpus, **options)
        seen.tokens_per_second = 2.0  # a step has 2 windows of 16 tokens
        return model, seen

    monkeypatch.setattr(session, "train", few)
    folders = begin("x", configs, corpus, "book", "auto")
    assert timed == [("residual", 6), ("go-mhc", 6)]
    said = capsys.readouterr().out
    assert "residual: 0 of 4 steps taken" in said and "go-mhc s=2: 0 of 4 steps taken" in said
    assert "The 8 steps left take about 2 min on CPU" in said
    assert "run all cells again" in said

    train(configs["residual"], corpus, out=folders["residual"])
    timed.clear()
    begin("x", configs, corpus, "book", "auto")
    assert timed == [("go-mhc", 6)]
    said = capsys.readouterr().out
    assert "residual: 4 of 4 steps taken" in said and "The 4 steps left take about 64 s" in said

    train(configs["go-mhc s=2"], corpus, out=folders["go-mhc s=2"])
    timed.clear()
    assert begin("x", configs, corpus, "full", "auto") == folders  # nothing to be asked
    assert timed == [] and "All are trained" in capsys.readouterr().out


def test_another_configuration_or_text_has_a_folder_of_its_own(configs, corpus):
    other_text = data.stories(block=16, train=2000, windows=2, seed=1)
    folders = [begin("x", configs, corpus, "book", "cpu")["residual"]]
    folders.append(begin("x", configs, other_text, "book", "cpu")["residual"])
    for change in ({"steps": 5}, {"seed": 1}, {"learning_rate": 1e-3}):
        changed = {"residual": replace(configs["residual"], **change)}
        folders.append(begin("x", changed, corpus, "book", "cpu")["residual"])
    assert len(set(folders)) == 5


def test_full_on_a_cpu_asks_first(configs, corpus, monkeypatch):
    questions = []

    def answering(answer):
        monkeypatch.setattr("builtins.input", lambda text: questions.append(text) or answer)

    answering("y")
    begin("x", configs, corpus, "full", "auto")
    assert len(questions) == 1 and "full on a CPU, about" in questions[0]
    answering("")
    with pytest.raises(RuntimeError, match='stopped before the training: profile = "book"'):
        begin("x", configs, corpus, "full", "auto")
    assert len(questions) == 2
    begin("x", configs, corpus, "full", "cpu")  # asked for by name
    begin("x", configs, corpus, "book", "auto")
    assert len(questions) == 2


def test_full_on_a_cpu_with_nobody_to_ask_says_what_to_set(configs, corpus, monkeypatch):
    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    with pytest.raises(ValueError, match=r'expected a GPU for the profile full.*device = "cpu"'):
        begin("x", configs, corpus, "full", "auto")


# The edition itself, as far as its trainings.

KILL = """
import os, signal
from gomhc.lm.train import checkpoint
save, saved = checkpoint.save, []
def last(*arguments):
    save(*arguments)
    saved.append(1)
    if len(saved) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = last
"""
NO_GPU = "import torch\ntorch.cuda.is_available = lambda: False"
TELL = "print([(run.step, run.calls, run.evaluations[-1][1]) for run in trained.values()])"


def executed(folder, *before, profile="smoke"):
    """Outputs of the edition up to its trainings, run in a folder."""
    notebook = colab.edition(ROOT, NAME, f"file://localhost{ROOT}", "0" * 40)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    last = next(k for k, source in enumerate(sources) if "folders = begin(" in source)
    given = next(k for k, source in enumerate(sources) if source.startswith("profile ="))
    sources = [
        *sources[: given + 1],
        f'profile = "{profile}"\ndevice = "auto"',
        *before,
        *sources[given + 1 : last + 1],
        TELL,
    ]
    notebook.cells = [new_code_cell(source) for source in sources]
    folder.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=None,
        startup_timeout=600,
        iopub_timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        config=Config(KernelManager={"transport": "ipc"}),
    )
    with contextlib.chdir(folder):  # where the sockets lie
        client.execute()
    return "".join(out.text for cell in notebook.cells for out in cell.outputs if "text" in out)


def test_edition_killed_in_a_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    # 6 steps and as many checkpoints each: the eighth is the second of the second training.
    with pytest.raises(DeadKernelError):
        executed(tmp_path / "killed", KILL.format(after=8))
    states = sorted((tmp_path / "killed" / "gomhc-results" / NAME).glob("*/state.json"))
    steps = {
        p.parent.name.split("-")[0]: json.loads(p.read_text())["progress"]["step"] for p in states
    }
    assert steps == {"residual": 6, "identity": 2}

    said = executed(tmp_path / "killed")
    for arm, taken in zip(ARMS, (6, 2, 0), strict=True):
        assert f"{arm}: {taken} of 6 steps taken" in said
    assert "The 10 steps left take about" in said
    *_, resumed = said.strip().split("\n")
    *_, whole = executed(tmp_path / "whole").strip().split("\n")
    losses = [loss for _, _, loss in json.loads(whole.replace("(", "[").replace(")", "]"))]
    expected = zip((6, 6, 6), (1, 2, 1), losses, strict=True)
    assert resumed == str(list(expected))


def test_edition_in_full_on_a_cpu_stops_where_nobody_can_answer(tmp_path):
    with pytest.raises(CellExecutionError) as error:
        executed(tmp_path / "full", NO_GPU, profile="full")
    assert error.value.ename == "ValueError"
    assert error.value.evalue.startswith("expected a GPU for the profile full")
    assert 'device = "cpu" runs the profile full on one unasked' in error.value.evalue
    assert not (tmp_path / "full" / "gomhc-results").exists()
