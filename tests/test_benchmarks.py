"""The benchmarks run, and both of their sides do the same work. No test looks at a clock."""

import pytest
import torch

from benchmarks import imports, layer, mixers
from benchmarks import stream_mixing as benchmark
from gomhc.companion import records
from gomhc.companion.released import released_problem
from gomhc.companion.studies.base import mixer
from gomhc.lm.model import preset

TIMES = "fastest", "median"
CASES = [(d, label) for d, labels in benchmark.METHODS.items() for label in labels]


@pytest.fixture
def quick(monkeypatch):
    """No new processes that compile everything; one thread, as other tests run beside this one."""
    monkeypatch.setattr(benchmark, "first_calls", lambda: {"compiled": 2.0, "cached": 1.0})
    monkeypatch.setattr(benchmark, "best_threads", lambda call: 1)


@pytest.mark.parametrize(("d", "label"), CASES)
def test_both_sides_have_the_same_losses(d, label):
    problem = released_problem(d, problems=5)
    theta = benchmark.start(problem, label)
    assert benchmark.check(problem, label, theta, 20) < 1e-10


@pytest.mark.parametrize(("d", "label"), CASES)
def test_baseline_starts_with_the_loss_of_the_samples(d, label):
    problem = released_problem(d, problems=3)
    theta = torch.randn(3, mixer(label, d).num_parameters, dtype=torch.float64)
    first = benchmark.baseline(problem, label, theta, 1, torch.float64)[:, 0]
    torch.testing.assert_close(first, problem.sample_loss(mixer(label, d)(theta)))


def test_losses_fall():
    problem = released_problem(4, problems=3)
    theta = benchmark.start(problem, "go-mhc s=2")
    loss = benchmark.baseline(problem, "go-mhc s=2", theta, 50, torch.float32)
    assert loss.dtype == torch.float32 and loss.shape == (3, 50)
    assert (loss[:, -1] < 0.9 * loss[:, 0]).all()


def test_sides_that_disagree_get_no_ratio(monkeypatch):
    problem = released_problem(4, problems=3)
    theta = benchmark.start(problem, "mhc")
    monkeypatch.setattr(benchmark, "LEARNING_RATE", 1.001e-3)
    with pytest.raises(RuntimeError, match="mhc, d = 4: expected the same losses"):
        benchmark.check(problem, "mhc", theta, 20)


def test_command_prints_a_table_and_writes_a_record(tmp_path, capsys, quick):
    threads = torch.get_num_threads()
    arguments = ["--steps", "20", "--baseline-steps", "10", "--d", "4", "--out", str(tmp_path)]
    benchmark.main(arguments)
    assert torch.get_num_threads() == threads
    record = records.load(tmp_path / "benchmarks" / "stream-mixing.json")
    assert record.config["steps"] == 20 and record.config["baseline_steps"] == 10
    assert record.metrics["estimate"] is True
    methods, total = record.metrics["d4"]["methods"], record.metrics["d4"]["total"]
    assert list(methods) == benchmark.METHODS[4]
    for row in methods.values():
        assert row["baseline"]["loss"] == pytest.approx(row["ours"]["loss"], rel=1e-4)
    assert total["ours"] == pytest.approx(sum(row["ours"]["seconds"] for row in methods.values()))
    printed = capsys.readouterr().out
    assert "ESTIMATE: baseline times are scaled up from 10 steps" in printed
    assert all(f"\n{label} " in printed for label in methods)


def test_trial_of_threads_ends_with_one_of_them(monkeypatch):
    monkeypatch.setattr(benchmark.joblib, "cpu_count", lambda: 3)
    tried = []
    before = torch.get_num_threads()
    try:
        best = benchmark.best_threads(lambda: tried.append(torch.get_num_threads()))
    finally:
        torch.set_num_threads(before)
    assert tried == [1, 1, 2, 2, 3, 3] and best in tried


def test_totals_are_ratios_of_sums():
    rows = [
        {
            "ours": {"seconds": 1.0, "cpu_seconds": 2.0},
            "baseline": {"seconds": 30.0, "cpu_seconds": 40.0},
        },
        {
            "ours": {"seconds": 3.0, "cpu_seconds": 6.0},
            "baseline": {"seconds": 10.0, "cpu_seconds": 40.0},
        },
    ]
    assert benchmark.totals(rows, 4.0) == {
        "ours": 4.0,
        "baseline": 40.0,
        "ratio": 10.0,
        "cpu_ratio": 10.0,
        "ratio_with_compilation": 5.0,
    }


@pytest.mark.parametrize("baseline_steps", [0, 6])
def test_impossible_numbers_of_steps_are_refused(baseline_steps):
    with pytest.raises(ValueError, match="expected 1 <= baseline steps <= steps, got"):
        benchmark.compare([4], 5, baseline_steps)


# Mixers


@pytest.mark.parametrize("d", [3, 4])
def test_methods_give_the_map_that_they_are_named_after(d):
    methods = mixers.methods(d, 300, "cpu")
    for method in methods:
        assert mixers.check(method, d, "cpu") < mixers.TOLERANCE
        theta = mixers.draw(9, method.size, "cpu").requires_grad_()
        (gradient,) = torch.autograd.grad(method.call(theta).square().sum(), theta)
        assert gradient.abs().max() > 0
    paths = {method.path for method in methods if method.label == "mhc"}
    assert {"fused", "PyTorch", "linear domain", "hyper-connections", "POT", "POT, log"} <= paths
    assert {method.path for method in methods if method.label == mixers.GO} == {
        "fused",
        "PyTorch",
        mixers.SOLVE,
    }


def test_a_method_that_is_another_map_gets_no_time():
    method = next(m for m in mixers.methods(4, 300, "cpu") if m.path == mixers.SOLVE)
    other = method._replace(call=lambda theta: method.call(-theta).mT.roll(1, -1))
    with pytest.raises(RuntimeError, match="go-mhc s=1 by solve.*expected the map of float64"):
        mixers.check(other, 4, "cpu")


def test_bytes_of_the_floor():
    """θ twice, H_res, and both derivatives, four bytes a number."""
    method = mixers.Method("go-mhc s=2", "fused", 28, torch.clone)
    assert mixers.floor_bytes(method, 4) == 4 * (28 + 16 + 28 + 16 + 28)


def test_exponent_of_a_power():
    power = mixers.exponent({d: 3.0 * d**2.5 for d in (4, 8, 16)})
    assert power["value"] == pytest.approx(2.5)


def test_kept_bytes_count_a_storage_once():
    x = torch.ones(1000, requires_grad=True)
    assert layer.saved(lambda: (x * x).sum().backward()) == 4000


def test_command_of_mixers_prints_tables_and_stores_a_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mixers, "first_calls", lambda device: {"compiled": 2.0, "cached": 1.0})
    monkeypatch.setattr(mixers, "COPIED", 2**20)
    arguments = ["--tokens", "300", "--d", "3", "4", "5", "--rounds", "1"]
    mixers.main([*arguments, "--device", "cpu", "--out", str(tmp_path)])
    record = records.load(tmp_path / "benchmarks" / "mixers-cpu.json")
    tables = record.metrics["tables"]
    assert [(t["tokens"], t["d"]) for t in tables] == [(300, 3), (300, 4), (300, 5)]
    for table in tables:
        ours = [r for r in table["rows"] if (r["label"], r["path"]) == (mixers.GO, "fused")]
        assert [row["over_go"] for row in ours] == [1.0]
    assert set(record.metrics["exponent"]) == {"value", "stderr"}
    printed = capsys.readouterr().out
    assert "300 tokens, d = 4" in printed and "POT, log" in printed


def test_imports_are_compared_by_medians_without_the_first_round(monkeypatch, capsys):
    times = {"import torch": iter([9.0, 1.0, 3.0, 2.0]), "import gomhc": iter([9.0, 2.2, 2.0, 3.0])}
    monkeypatch.setattr(imports, "seconds", lambda statement: next(times[statement]))
    assert imports.main(["--rounds", "3"]) == 0
    assert "ratio 1.100, target at most 1.2" in capsys.readouterr().out


def test_the_layers_are_compared_at_any_size(monkeypatch, capsys):
    monkeypatch.setattr(layer, "bandwidth", lambda device, rounds: 1e10)
    monkeypatch.setattr(layer, "first_calls", lambda device: {"compiled": 2.0, "cached": 1.0})
    monkeypatch.setattr(layer, "behind", lambda *a: {"fused: alone": dict.fromkeys(TIMES, 1.0)})
    monkeypatch.setattr(layer, "LABELS", ("identity", "go-mhc s=2"))
    monkeypatch.setattr(layer, "BATCHES", {"nano": 1})
    outcome = layer.compare(["nano"], "cpu", compiled=False, rounds=1, large=[300, 40])
    rows = {row["name"]: row for row in outcome.metrics["layers"]["nano"]}
    assert rows["go-mhc s=2, fused"]["kept"] < rows["go-mhc s=2, reference"]["kept"]
    assert "hyper-connections mHC" in rows
    large = {row["name"]: row for row in outcome.metrics["large"]["rows"]}
    assert large["write"]["bytes"] == 300 * 9 * 40 * 2
    assert large[layer.COPY]["over_floor"] == pytest.approx(1)
    assert {"read", "read, backward", "write, backward"} < set(large)
    assert "go-mhc s=2, reference, both ways" in large
    arms = outcome.metrics["models"]["nano, eager"]
    assert arms["residual"]["bound"] == 1
    assert arms["go-mhc s=2"]["bound"] < arms["identity"]["bound"] < 1
    assert "GPT nano, eager" in capsys.readouterr().out


def test_the_bound_counts_what_the_issue_counts():
    """36 rows of W on 512 numbers, twice a layer, are about a fifth of a small model's work."""
    plain, more = layer.multiplications(preset("small", mixer="go-mhc", s=2))
    assert 0.15 < more / plain < 0.25
