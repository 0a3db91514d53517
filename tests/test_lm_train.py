"""The trainer: its steps by hand, runs that are killed, several processes, and what goes wrong."""

import errno
import io
import json
import math
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from gomhc.lm import data, sample
from gomhc.lm.model import GPT, preset
from gomhc.lm.tokenizer import Tokenizer
from gomhc.lm.train import (
    NonFiniteError,
    Progress,
    TrainConfig,
    checkpoint,
    chosen_device,
    evaluate,
    learning_rate,
    load,
    load_tokenizer,
    train,
)
from gomhc.lm.train import config as train_config
from gomhc.lm.train import loop as train_loop
from gomhc.lm.train.__main__ import main
from gomhc.lm.train.non_finite import first_non_finite

TINY = {"width": 32, "block": 16, "layers": 1}


@pytest.fixture(scope="module")
def corpus():
    return data.stories(block=16, train=4000, windows=8)


def config(mixer="go-mhc", dropout=0.0, **changes):
    model = preset("nano", mixer=mixer, dropout=dropout, **TINY)
    settings = {"steps": 12, "batch": 4, "warmup": 3, "evaluate_every": 6} | changes
    return TrainConfig(model, **settings)


@pytest.mark.parametrize("decay_connections", [True, False])
def test_the_first_steps_by_hand(corpus, decay_connections):
    plan = config(steps=3, clip=0.1, decay_connections=decay_connections)
    _, seen = train(plan, corpus)
    model = GPT(plan.model)
    m, v = {}, {}
    for step in range(3):
        tokens, targets = corpus.batch(step, 4, plan.seed)
        logits, _ = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        names, weights = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        assert seen.loss[step] == pytest.approx(loss.item(), rel=1e-5)
        assert seen.gradient[step] == pytest.approx(norm, rel=1e-4)
        rate = 3e-3 * (step + 1) / 3
        with torch.no_grad():
            for name, weight, g in zip(names, weights, gradients, strict=True):
                g = g * min(1, 0.1 / norm)
                m[name] = 0.9 * m.get(name, 0) + 0.1 * g
                v[name] = 0.95 * v.get(name, 0) + 0.05 * g * g
                connection = re.fullmatch(r"connections\.\d+\.weight", name)
                if weight.ndim >= 2 and (decay_connections or not connection):
                    weight.mul_(1 - rate * 0.1)
                root = (v[name] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8
                weight.sub_(rate * m[name] / (1 - 0.9 ** (step + 1)) / root)


@pytest.mark.parametrize("step", [0.02, 0.003])
def test_the_speed_of_short_steps_of_a_long_run(step):
    seconds = [1e5 + step * k for k in range(1000)]
    assert train_config._speed(seconds, 1000) == pytest.approx(1000 / step, rel=1e-6)


def test_learning_rates():
    plan = config(steps=103, warmup=3, learning_rate=0.1, final=0.1)
    rates = [learning_rate(plan, step) for step in range(103)]
    assert rates[:4] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])
    assert rates[53] == pytest.approx(0.055)  # half of the cosine
    assert rates[-1] == pytest.approx(0.01, rel=0.01)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_accumulation_is_the_same_batch_in_parts(corpus):
    _, whole = train(config(steps=5), corpus)
    _, parts = train(config(steps=5, accumulation=4), corpus)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)


def test_it_learns(corpus):
    model, seen = train(config(steps=150, batch=8, learning_rate=1e-2), corpus)
    assert seen.evaluations[-1][1] < seen.loss[0] - 1.5
    assert seen.evaluations[-1][1] > corpus.floor
    assert seen.evaluations[-1] == (150, pytest.approx(evaluate(model, corpus)))


def test_evaluation_is_the_mean_over_the_windows(corpus):
    model = GPT(preset("nano", dropout=0.5, **TINY))
    model.eval()
    one_by_one = [model(w[None, :-1], w[None, 1:])[1].item() for w in corpus.windows]
    model.train()
    assert evaluate(model, corpus, batch=3) == pytest.approx(sum(one_by_one) / 8, rel=1e-5)
    assert model.training


def test_a_dead_start_is_identity_mixing_under_another_name(corpus):
    dead = config(steps=30)
    dead = replace(dead, model=replace(dead.model, dead_start=True))
    _, one = train(dead, corpus)
    _, other = train(config("identity", steps=30), corpus)
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    _, alive = train(config(steps=30), corpus)
    assert alive.loss != pytest.approx(other.loss, rel=1e-5)


# Runs that are stopped


def test_a_run_in_two_parts_is_one_run_to_the_bit(corpus, tmp_path):
    plan = config(dropout=0.1, checkpoint_every=5)
    model, seen = train(plan, corpus)
    asked = iter([False] * 7 + [True])
    train(plan, corpus, out=tmp_path, stop=lambda: next(asked))
    assert json.loads((tmp_path / "state.json").read_text())["progress"]["step"] == 7
    again, resumed = train(plan, corpus, out=tmp_path)
    assert resumed.loss == seen.loss
    assert resumed.gradient == seen.gradient
    assert resumed.evaluations == seen.evaluations
    for weight, same in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_a_run_stopped_at_the_steps_that_it_is_asked_for_later_is_evaluated(corpus, tmp_path):
    plan = config(checkpoint_every=5)
    train(plan, corpus, out=tmp_path, stop=iter([False] * 5 + [True]).__next__)
    short = replace(plan, steps=5)
    for _ in range(2):  # it is kept, too
        model, seen = train(short, corpus, out=tmp_path, watch=lambda step, model: {"step": step})
        assert seen.evaluations == [(5, pytest.approx(evaluate(model, corpus)))]
        assert seen.watched == [(5, {"step": 5})]


@contextmanager
def signalled(number):
    """A signal comes in the third step."""

    def press(steps, tokens):
        if len(steps) == 3:
            signal.raise_signal(number)
        return speed(steps, tokens)

    speed = train_config._speed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_config, "_speed", press)
        yield


def test_the_command_asked_for_the_steps_that_a_stopped_run_has(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the cat sat on the mat . " * 200)
    command = ["--batch", "1", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    with signalled(signal.SIGTERM):
        assert main([*command, "--steps", "5", "--warmup", "2"]) == 130
    assert main([*command, "--steps", "3", "--warmup", "2"]) == 0
    assert "3 steps: evaluation loss" in capsys.readouterr().out


def test_a_finished_run_is_not_run_again(corpus, tmp_path):
    _, seen = train(config(), corpus, out=tmp_path)
    _, again = train(config(), corpus, out=tmp_path, stop=pytest.fail)
    assert again == seen


def test_another_configuration_is_refused(corpus, tmp_path):
    train(config(), corpus, out=tmp_path)
    with pytest.raises(ValueError, match="has learning_rate 0.003, not 0.0001; seed 0, not 1;"):
        train(config(seed=1, learning_rate=1e-4), corpus, out=tmp_path)
    other = data.stories(block=16, train=4000, windows=8, seed=1)
    with pytest.raises(ValueError, match="has another text, or other tokens"):
        train(config(), other, out=tmp_path)


@pytest.mark.parametrize("name", ["state.json", "step-00000012.safetensors"])
@pytest.mark.parametrize("keep", [0, 100, None])
def test_a_damaged_run_is_refused(corpus, tmp_path, name, keep):
    train(config(), corpus, out=tmp_path)
    file = tmp_path / name
    if keep is None:
        file.write_text('["not", "a", "run"]')
    else:
        file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="expected a whole run in"):
        train(config(), corpus, out=tmp_path)


def lacks_fields(state, tensors):
    for name in ("width", "factors"):
        del state["config"]["model"][name]


def is_of_a_newer_version(state, tensors):
    state["config"]["model"]["newer"] = 1


def has_another_width(state, tensors):
    state["config"]["model"]["width"] = 16


def has_no_settings(state, tensors):
    state["config"] = ["steps", 12]


def lacks_a_weight(state, tensors):
    del tensors["model.norm.weight"]


def lacks_a_moment(state, tensors):
    del tensors["exp_avg.norm.weight"]


def has_a_moment_of_another_shape(state, tensors):
    tensors["exp_avg.norm.weight"] = torch.zeros(1)


def has_a_tensor_too_many(state, tensors):
    tensors["model.norm.bias"] = torch.zeros(32)


def has_lost_steps(state, tensors):
    state["progress"]["step"] = 7


DAMAGES = [lacks_a_weight, lacks_a_moment, has_a_moment_of_another_shape, has_a_tensor_too_many]
DAMAGES += [lacks_fields, is_of_a_newer_version, has_another_width, has_no_settings]
DAMAGES += [has_lost_steps]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_run_of_this_version_is_refused(corpus, tmp_path, damage):
    train(config(), corpus, out=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    tensors = load_file(tmp_path / state["tensors"])
    damage(state, tensors)
    (tmp_path / "state.json").write_text(json.dumps(state))
    save_file(tensors, tmp_path / state["tensors"])
    with pytest.raises(ValueError, match="expected a whole run in"):
        load(tmp_path)
    with pytest.raises(ValueError, match="expected (a whole run in|the configuration of the run)"):
        train(config(), corpus, out=tmp_path)


def test_a_damaged_tokenizer_is_told_with_its_run(corpus, tmp_path):
    train(config(), corpus, out=tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"tokenizer": '["characters", 5]'}))
    with pytest.raises(ValueError, match="expected a whole run in"):
        load_tokenizer(tmp_path)


def test_a_run_that_may_not_be_read_is_not_called_damaged(corpus, tmp_path, monkeypatch):
    """As root may read everything, a refusal of the system's is put in its place."""

    def refuse(path, *arguments, **options):
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return begin(path, *arguments, **options)

    train(config(), corpus, out=tmp_path)
    begin = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"step-00000012.safetensors"):
        load(tmp_path)
    with pytest.raises(PermissionError, match=r"step-00000012.safetensors"):
        train(config(), corpus, out=tmp_path)


def test_who_may_read_the_state_may_read_the_tensors(corpus, tmp_path):
    train(config(), corpus, out=tmp_path)
    state, tensors = (tmp_path / name for name in ("state.json", "step-00000012.safetensors"))
    assert tensors.stat().st_mode == state.stat().st_mode


@contextmanager
def full_disk(size):
    """No file gets longer than so many bytes."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(corpus, tmp_path):
    plan = config(checkpoint_every=5)
    asked = iter([False] * 5 + [True])
    train(plan, corpus, out=tmp_path, stop=lambda: next(asked))
    before = sorted(tmp_path.iterdir())
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        train(plan, corpus, out=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert train(plan, corpus, out=tmp_path)[1].step == 12


WHOLE = {".lock", "state.json", "step-00000002.safetensors"}  # a folder after two steps

# A process that forks runs, so that torch is imported once. Each is killed before one of its
# operations on files, twice: between two of them it makes no difference when a kill comes.
KILLER = """
import io, itertools, os, signal, sys, tempfile
from pathlib import Path
import torch
from gomhc.lm import data
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig, train

torch.set_num_threads(1)
model = preset("nano", mixer="go-mhc", dropout=0.1, width=32, block=16, layers=1)
plan = TrainConfig(model, steps=2, batch=4, warmup=2, evaluate_every=1, checkpoint_every=1)
corpus = data.stories(block=16, train=4000, windows=8)
with tempfile.TemporaryDirectory() as folder:  # what is imported late is imported now
    train(plan, corpus, device="cpu", out=folder, stop=iter([False, True]).__next__)


def is_operation(function):
    own = function in (io.open, os.fsync, os.replace, os.unlink)
    return own or function.__name__ == "write"


def run(folder, moment=None):
    child = os.fork()
    if child == 0:
        operations = itertools.count()

        def watch(frame, event, function):
            if event == "c_call" and is_operation(function) and next(operations) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(watch)
        train(plan, corpus, device="cpu", out=folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for kills in itertools.count():
    folder = Path(sys.argv[1]) / str(kills)
    first, second, last = run(folder, kills), run(folder, kills), run(folder)
    assert {first, second} <= {0, -signal.SIGKILL} and last == 0
    if first == 0:  # every operation has had its turn
        break
print(kills)
"""


def test_runs_killed_at_any_moment_give_the_losses_of_one_that_was_not(corpus, tmp_path):
    plan = config(dropout=0.1, steps=2, warmup=2, evaluate_every=1, checkpoint_every=1)
    _, seen = train(plan, corpus, device="cpu")
    answer = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    # Two checkpoints of two files, each written, opened, made durable and renamed.
    assert int(answer.stdout) >= 2 * 2 * 4
    for folder in tmp_path.iterdir():
        progress = json.loads((folder / "state.json").read_text())["progress"]
        assert progress["loss"] == seen.loss
        assert progress["gradient"] == seen.gradient
        assert progress["evaluations"] == [list(pair) for pair in seen.evaluations]
        assert {path.name for path in folder.iterdir()} == WHOLE


# The system ends it where a file gets too long: in the middle of the tensors.
CUT = """
import resource, signal, sys
import safetensors.torch
from gomhc.lm import data
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig, train

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
plan = TrainConfig(preset("nano", width=32, block=16, layers=1), steps=2, warmup=2)
train(plan, data.stories(block=16, train=4000, windows=8), device="cpu", out=sys.argv[1])
"""


def test_a_run_killed_in_the_middle_of_a_file_leaves_no_draft_behind(corpus, tmp_path):
    pytest.importorskip("resource")
    cut = subprocess.run([sys.executable, "-c", CUT, str(tmp_path)], check=False)
    assert cut.returncode == -signal.SIGXFSZ
    assert len(list(tmp_path.glob(".*tmp*"))) == 1
    train(config("residual", steps=2, warmup=2), corpus, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == WHOLE


# Two runs in one folder


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended(corpus, tmp_path):
    """The second is started at an evaluation of the first, which its refusal ends in turn."""
    plan = config(checkpoint_every=3)
    with pytest.raises(ValueError, match=f"no other run is writing to, got {tmp_path}"):
        train(plan, corpus, out=tmp_path, watch=lambda *_: train(plan, corpus, out=tmp_path))
    for _ in range(2):  # let go of by the error and by the end
        _, seen = train(plan, corpus, out=tmp_path)
    assert seen.step == 12


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without them."""

    def refuse(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", refuse)
        yield patch


def test_two_runs_where_there_are_no_locks_leave_a_whole_one(corpus, tmp_path, no_locks):
    """The second comes between the two files of the first one's checkpoint."""

    def interrupted(value):
        if isinstance(value, Progress) and value.step == 12 and not others:
            others.append(train(plan, corpus, out=tmp_path, stop=iter([False, True]).__next__))
        return written(value)

    plan, others, written = config(), [], checkpoint.asdict
    train(plan, corpus, out=tmp_path, stop=iter([False, False, True]).__next__)
    no_locks.setattr(checkpoint, "asdict", interrupted)
    model, _ = train(plan, corpus, out=tmp_path)
    assert [seen.step for _, seen in others] == [3]
    for weight, same in zip(model.parameters(), load(tmp_path).parameters(), strict=True):
        assert torch.equal(weight, same)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-00000012.safetensors"}


def test_what_may_be_another_run_s_is_removed_under_the_lock_alone(corpus, tmp_path, no_locks):
    names = (".step-00000003.safetensors.0a.tmp", ".state.json.0a.tmp", "step-00000003.safetensors")
    strays = [tmp_path / name for name in names]
    for stray in strays:
        stray.touch()
    train(config(), corpus, out=tmp_path)
    train(config(), corpus, out=tmp_path)
    assert all(stray.exists() for stray in strays)
    no_locks.undo()
    train(config(), corpus, out=tmp_path)
    assert not any(stray.exists() for stray in strays)


# Several processes

WORKER = """
import json, sys
from gomhc.lm import data
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig, train

model = preset("nano", mixer=sys.argv[2], width=32, block=16, layers=1)
plan = TrainConfig(model, steps=8, batch=8, accumulation=2, warmup=2, evaluate_every=4)
corpus = data.stories(block=16, train=4000, windows=8)
_, seen = train(plan, corpus, device="cpu", out=sys.argv[1])
"""


@pytest.mark.parametrize("mixer", ["residual", "go-mhc"])
def test_two_processes_give_the_losses_of_one(corpus, tmp_path, mixer):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run(
        [*launch, "--master-port", "0", "--standalone", script, tmp_path / "out", mixer],
        check=True,
        capture_output=True,
        timeout=1800,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    together = json.loads((tmp_path / "out" / "state.json").read_text())["progress"]
    plan = config(mixer, steps=8, batch=8, accumulation=2, warmup=2, evaluate_every=4)
    _, alone = train(plan, corpus, device="cpu")
    assert together["loss"] == pytest.approx(alone.loss, rel=1e-5)
    assert together["gradient"] == pytest.approx(alone.gradient, rel=1e-4)
    assert together["evaluations"][-1][1] == pytest.approx(alone.evaluations[-1][1], rel=1e-5)


def test_a_process_of_several_takes_no_device_by_its_number(monkeypatch, corpus):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="without a number in several processes, got cuda:1"):
        train(config(), corpus, device="cuda:1")


def test_a_device_that_is_not_there(corpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="device that is there, got 'cuda:1': PyTorch sees 1 GPUs"):
        train(config(), corpus, device="cuda:1")


@pytest.mark.parametrize("name", ["xpu", "privateuseone", "meta"])
def test_a_device_of_another_kind_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"device that is there, got '{name}'"):
        chosen_device(name)


# What goes wrong


def test_a_loss_that_is_not_finite_is_reported_with_its_place(corpus, monkeypatch):
    def poisoned(self, seed=0):
        start(self, seed)
        with torch.no_grad():
            self.connections[1].branch.up.weight[0, 0] = math.inf

    start = GPT._start
    monkeypatch.setattr(GPT, "_start", poisoned)
    with pytest.raises(NonFiniteError, match=r"in step 0, .* weight connections.1.branch.up"):
        train(config(), corpus)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--offsets", "5"], "expected a mixer for --offsets, got residual"),
        (["--copy", "a.txt"], "expected --data shakespeare or tinystories for --copy, got stories"),
        (["--level", "bpe"], "expected --data shakespeare or a file for --level, got stories"),
        (["--checkpoint-every", "5"], "expected --out for --checkpoint-every, got none"),
        (["--streams", "4"], "expected a mixer for --streams, got residual"),
        (
            ["--mixer", "mhc", "--block-size-s", "2"],
            "go-mhc or kron-go for --block-size-s, got mhc",
        ),
    ],
)
def test_the_command_takes_no_option_that_has_no_effect(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_the_command_goes_on(tmp_path, capsys, number):
    command = ["--steps", "5", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    (tmp_path / "a.txt").write_text("the cat sat on the mat . " * 200)
    with signalled(number):
        before = signal.getsignal(number)
        assert main(command) == 130
        assert signal.getsignal(number) is before
    assert "stopped after 3 of 5 steps: the same command goes on" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr()
    assert "residual, 103,424 parameters, 5 steps" in said.out
    assert f"python -m gomhc.lm.sample {tmp_path / 'run'} --prompt" in said.out
    assert f"the model: gomhc.lm.train.load({str(tmp_path / 'run')!r})" in said.out
    assert "dropped" not in said.err
    assert main(command[:-2]) == 0
    said = capsys.readouterr()
    assert "the model" not in said.out
    assert "no --out: the model will be dropped at the end" in said.err


def test_connections_have_matrices_that_may_be_spared():
    """The weights by whose names the test above tells them are there."""
    names = [name for name, _ in GPT(config().model).named_parameters()]
    assert {"connections.0.weight", "connections.1.weight"} <= set(names)


def test_a_run_is_watched_at_evaluations_also_over_a_stop(corpus, tmp_path):
    def watch(step, model):
        return None if step == 4 else {"step": step, "size": model.num_parameters()}

    plan = config(evaluate_every=2, steps=8)
    stops = iter([False] * 5 + [True])
    _, stopped = train(plan, corpus, out=tmp_path, watch=watch, stop=lambda: next(stops))
    model, seen = train(plan, corpus, out=tmp_path, watch=watch)
    size = model.num_parameters()
    assert [step for step, _ in stopped.watched] == [2]
    assert seen.watched == [(step, {"step": step, "size": size}) for step in (2, 6, 8)]


def test_a_finished_run_goes_on_with_more_steps(corpus, tmp_path):
    plan = config(steps=4, checkpoint_every=2)
    train(plan, corpus, out=tmp_path)
    longer = replace(plan, steps=8)
    _, seen = train(longer, corpus, out=tmp_path)
    assert (seen.step, seen.calls) == (8, 2)
    _, again = train(longer, corpus, out=tmp_path)
    assert again.loss == seen.loss
    with pytest.raises(ValueError, match="which has taken 8 steps, not 4"):
        train(plan, corpus, out=tmp_path)


def test_the_longer_run_takes_its_own_learning_rates_from_there(corpus, tmp_path):
    """By hand: four steps of the short schedule, then those of the long one."""
    plan, longer = config("identity", steps=4), config("identity", steps=8)
    train(plan, corpus, out=tmp_path)
    model, _ = train(longer, corpus, out=tmp_path)
    rates = [learning_rate(plan if step < 4 else longer, step) for step in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop, "learning_rate", lambda config, step: rates[step])
        by_hand, _ = train(longer, corpus)
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_knows_what_its_tokens_stand_for(corpus, tmp_path):
    train(config(), corpus, out=tmp_path)
    assert load_tokenizer(tmp_path).state() == corpus.tokenizer.state()
    load(tmp_path, corpus.tokenizer)
    with pytest.raises(ValueError, match=r"expected the tokenizer of the run in .*, got another"):
        load(tmp_path, Tokenizer("numbers", 460))
    with pytest.raises(FileNotFoundError, match="expected a run in"):
        load_tokenizer(tmp_path / "nothing")


def test_keeping_the_function_on_the_command_line(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat . " * 200)
    command = ["--steps", "1", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    assert main([*command, "--mixer", "transport", "--keep-function"]) == 0
    config = load(tmp_path / "run").config
    assert (config.keep_function, config.reduce, config.offsets) == (True, "mean", 0.0)


@pytest.mark.parametrize("first", [3, 25])
def test_a_short_run_goes_on_by_the_same_command_with_more_steps(tmp_path, first):
    (tmp_path / "a.txt").write_text("the cat sat on the mat . " * 200)
    command = ["--batch", "1", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    for steps in (first, 26):
        assert main([*command, "--steps", str(steps)]) == 0
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["progress"]["step"] == 26
    assert state["config"]["warmup"] == min(first, 20)


def test_fewer_steps_than_a_run_has_taken_are_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the cat sat on the mat . " * 200)
    command = ["--batch", "1", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    main([*command, "--steps", "3"])
    with pytest.raises(SystemExit, match="1"):
        main([*command, "--steps", "2"])
    assert "taken 3 steps, not 2" in capsys.readouterr().err


def test_a_run_is_sampled_from(tmp_path, capsys):
    text, run = tmp_path / "a.txt", tmp_path / "my run"
    text.write_text("the cat sat on the mat . " * 200)
    main(["--steps", "3", "--data", str(text), "--out", str(run)])
    text.write_text("what it was has gone")
    said = re.search("gomhc.lm.sample (.*)", capsys.readouterr().out)[1]
    assert shlex.split(said) == [str(run), "--prompt", "…"]
    command = [str(run), "--prompt", "the c", "--count", "30"]
    assert sample.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("the c") and len(said) == 5 + 30 + 1
    assert set(said.rstrip("\n")) <= set("the cat sat on the mat . ")
    sample.main(command)
    assert capsys.readouterr().out == said
    sample.main([*command, "--seed", "1"])
    assert capsys.readouterr().out != said
    for more, message in {
        ("--prompt", "THE"): "expected known characters, got 'T'",
        ("--temperature", "-1"): "expected temperature >= 0, got -1.0",
        ("--top-k", "0"): "expected top_k >= 1, got 0",
        ("--device", "tpu"): "expected a device auto, cpu or cuda, got 'tpu'",
    }.items():
        with pytest.raises(SystemExit, match="1"):
            sample.main([*command, *more])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        sample.main([str(tmp_path / "none")])
    assert "expected a run in" in capsys.readouterr().err


def printed_in_ascii(command, arguments):
    """Status of a command, and what it prints where standard output knows ASCII alone."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(file):
        try:
            status = command(arguments)
        except SystemExit as stop:
            status = stop.code
    file.flush()
    return status, file.buffer.getvalue().decode("ascii")


def test_what_cannot_be_printed_is_replaced(tmp_path):
    text, run = tmp_path / "a.txt", str(tmp_path / "run")
    text.write_text("é" * 2000, encoding="utf-8")
    command = ["--steps", "1", "--data", str(text), "--out", run]
    status, said = printed_in_ascii(main, command)
    assert status == 0 and "python -m gomhc.lm.sample" in said
    assert printed_in_ascii(sample.main, [run, "--count", "3"]) == (0, "????\n")
    for each in (main, sample.main):
        status, said = printed_in_ascii(each, ["--help"])
        assert status == 0 and "auto, cpu, cuda" in said


def test_numbers_of_numpy_are_numbers_of_a_run(corpus, tmp_path, unchecked):
    model = preset("nano", mixer="go-mhc", d=np.int64(2), **TINY)
    plan = TrainConfig(model, np.int64(2), 4, learning_rate=np.float32(1e-3), warmup=1)
    train(plan, corpus, out=tmp_path)
    assert load(tmp_path).config == model
    _, seen = train(replace(plan, steps=np.int64(3)), corpus, out=tmp_path)
    assert seen.step == 3


def test_a_run_gives_its_model_back(corpus, tmp_path):
    model, _ = train(config("kromhc"), corpus, out=tmp_path)
    again = load(tmp_path)
    assert again.config == model.config
    tokens, _ = corpus.batch(0, 2)
    with torch.no_grad():
        assert torch.equal(again(tokens)[0], model(tokens)[0])
    with pytest.raises(FileNotFoundError, match="expected a run in"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("change", [{"seed": -1}, {"final": 2.0}, {"weight_decay": -5.0}])
def test_a_configuration_has_numbers_that_can_be(change, unchecked):
    with pytest.raises(ValueError, match=f"expected .*{next(iter(change))}"):
        config(**change)


def test_an_evaluation_that_is_not_finite_ends_the_run(corpus, monkeypatch):
    losses = iter([1.0, math.nan])
    monkeypatch.setattr("gomhc.lm.train.loop.evaluate", lambda *arguments: next(losses))
    with pytest.raises(NonFiniteError, match="evaluation loss after 4 steps, got nan") as failure:
        train(config(steps=6, evaluate_every=2), corpus)
    assert failure.value.seen.evaluations == [(2, 1.0)]
    assert len(failure.value.seen.loss) == failure.value.seen.step == 4
    again = pickle.loads(pickle.dumps(failure.value))
    assert (str(again), again.seen) == (str(failure.value), failure.value.seen)


def test_the_place_where_an_output_overflows(corpus):
    model = GPT(config().model)
    with torch.no_grad():
        model.connections[1].branch.up.weight.mul_(1e4)
        model.connections[1].branch.out.weight.fill_(1e38)
    tokens, targets = corpus.batch(0, 2)
    place = first_non_finite(model, [(tokens, targets)], False)
    assert place == "the output of connections.1.branch.out (Linear)"


def test_the_place_of_matrices_that_are_not_finite(corpus):
    model = GPT(config().model)
    with torch.no_grad():
        model.connections[1].alpha.fill_(1e30)
        model.connections[1].weight.fill_(1e30)
    tokens, targets = corpus.batch(0, 2)
    place = first_non_finite(model, [(tokens, targets)], False)
    assert place == "the mixing matrices of connections.1"


def test_a_gradient_that_is_not_finite_is_reported_with_its_place(corpus, monkeypatch):
    def watched(self, *arguments):
        start(self, *arguments)
        self.connections[1].branch.up.weight.register_hook(lambda slope: slope * math.nan)

    start = GPT.__init__
    monkeypatch.setattr(GPT, "__init__", watched)
    with pytest.raises(NonFiniteError, match=r"in step 0, .* gradient of connections.1.branch.up"):
        train(config(), corpus)


def test_under_autocast_gradients_are_those_of_the_float32_parts(corpus):
    plan = config(steps=1, warmup=0, precision="bfloat16", learning_rate=1e-30)
    model, seen = train(plan, corpus)
    tokens, targets = corpus.batch(0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        _, loss = model(tokens, targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
    assert seen.gradient[0] == pytest.approx(norm, rel=1e-6)


def test_a_corpus_that_does_not_fit(corpus):
    plan = TrainConfig(preset("nano", vocabulary=100, **TINY))
    with pytest.raises(ValueError, match="up to 100 tokens .* got 460 and 16"):
        train(plan, corpus)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"batch": 4, "accumulation": 3}, "accumulation to divide batch 4, got 3"),
        ({"warmup": 13}, r"warmup in \[0, steps = 12\]"),
        ({"learning_rate": 0.0}, "positive learning_rate"),
        ({"seed": 2**63}, r"seed below 2\*\*63, got 9223372036854775808"),
        ({"precision": "int8"}, "precision auto"),
        ({"weight_decay": math.inf}, "weight_decay >= 0"),
    ],
)
def test_bad_plans(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    "change", [{"steps": 2.5}, {"steps": 12.0}, {"batch": "4"}, {"warmup": 2.5}]
)
def test_what_counts_is_an_integer(change, unchecked):
    [(name, number)] = change.items()
    with pytest.raises(TypeError, match=f"expected {name} as an integer, got {number!r}"):
        config(**change)


# The command


def test_the_command(tmp_path, capsys):
    arguments = ["--preset", "nano", "--mixer", "go-mhc", "--streams", "3", "--block-size-s", "1"]
    assert main([*arguments, "--steps", "2", "--warmup", "0", "--out", str(tmp_path)]) == 0
    assert "evaluation loss" in capsys.readouterr().out
    assert (tmp_path / "state.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.txt"], "path of a text file, found none at 'nowhere.txt'"),
        (["--mixer", "kromhc", "--streams", "3"], "kromhc"),
        (["--device", "abacus"], "expected a device auto, cpu or cuda, got 'abacus'"),
        (["--out", __file__], "expected a folder to write to"),
        (["--out", "/proc"], "expected a folder to write to"),  # no file can be made there
        (["--final", "-3"], "expected final in"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)
