"""The command that makes the records: what it runs, what it skips, and how it stops."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gomhc import make_mixer, records, studies
from gomhc.studies import Outcome, Unit, __main__, mixer

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("label", "name", "d", "options"),
    [
        ("identity", "identity", 3, {}),
        ("mhc", "mhc", 4, {}),
        ("mhc iterations=7", "mhc", 4, {"iterations": 7}),
        ("go-mhc s=3", "go-mhc", 3, {"s": 3}),
        ("kromhc factors=2x3", "kromhc", 6, {"factors": (2, 3)}),
        ("kromhc factors=3", "kromhc", 3, {"factors": (3,)}),
        ("kron-go factors=3x2 s=2", "kron-go", 6, {"factors": (3, 2), "s": 2}),
    ],
)
def test_labels_name_mixers(label, name, d, options, generator):
    made, expected = mixer(label, d), make_mixer(name, d, **options)
    assert repr(made) == repr(expected)
    theta = torch.randn(made.num_parameters, generator=generator)
    assert torch.equal(made(theta), expected(theta))


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("", ValueError, "go-mhc, kron-go; got ''"),
        ("go-mhc s=two", ValueError, "got 'go-mhc s=two'"),
        ("go-mhc s2", ValueError, "expected a label such as 'go-mhc s=2', got 'go-mhc s2'"),
        ("go-mhc s=1 s=2", ValueError, "got 'go-mhc s=1 s=2'"),
        ("go-mhc s=1x2", ValueError, "got 'go-mhc s=1x2'"),
        ("go s=2", ValueError, "got 'go'"),
        ("go-mhc r=2", TypeError, "got r"),
        ("kromhc factors=2x3", ValueError, "4"),
    ],
)
def test_labels_that_name_none(label, error, message):
    with pytest.raises(error, match=message):
        mixer(label, 4)


# The full profile


def test_units_are_ready_to_run():
    units = studies.units()
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    for unit in units:
        records.check_name(unit.name, unit.name)
        topic = unit.name.split("/")[0].replace("-", "_")
        assert unit.run.__module__ == f"gomhc.studies.{topic}"
        assert json.loads(json.dumps(unit.config, allow_nan=False)) == unit.config, unit.name
        inspect.signature(unit.run).bind(**unit.config)
        assert {type(seed) for seed in unit.seeds} <= {int}
        assert f"gomhc.studies.{topic}" in records.closure(unit.run.__module__)


def test_studies_import_in_any_order_and_load_nothing_heavy():
    topics = sorted(p.stem for p in (ROOT / "gomhc" / "studies").glob("[a-z]*.py"))
    code = f"""
import importlib, sys
import gomhc  # registers torch operators, which can be done once
for first in {topics!r}:
    for name in [n for n in sys.modules if n.startswith("gomhc.studies")]:
        del sys.modules[name]
    importlib.import_module(f"gomhc.studies.{{first}}")
    import gomhc.studies
    gomhc.studies.units()
print({{"matplotlib", "seaborn", "numba", "joblib", "clarabel"}} & set(sys.modules))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "set()"


# The command, on units of its own


class Toy:
    """Three units of a module gomhc.toy, and a log of those that ran."""

    def __init__(self, package):
        self.source = package / "toy.py"
        self.source.write_text("x = 1\n")
        self.ran = []
        self.fails_with = {}
        self.configs = {
            "toy/one": {"key": "one"},
            "toy/two": {"key": "two"},
            "more/it": {"key": ""},
        }

        def run(key):
            self.ran.append(key)
            if key in self.fails_with:
                raise self.fails_with[key]
            return Outcome({"key": key}, {})

        run.__module__ = "gomhc.toy"
        self.run = run

    def units(self):
        return [Unit(name, self.run, config, (1,)) for name, config in self.configs.items()]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    package = tmp_path / "gomhc"
    package.mkdir()
    toy = Toy(package)
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.setattr(__main__, "units", lambda: toy.units())
    return toy


@pytest.fixture
def command(tmp_path, toy, capsys):
    """Runs the command; returns its status, what ran, and what it printed."""

    def call(*arguments):
        toy.ran.clear()
        status = __main__.main(["--out", str(tmp_path / "out"), *arguments])
        return status, list(toy.ran), capsys.readouterr()

    return call


def test_the_command_makes_every_record_once(command, tmp_path):
    status, ran, said = command()
    assert (status, ran) == (0, ["one", "two", ""])
    for name in ("toy/one", "toy/two", "more/it"):
        record = records.load(tmp_path / "out" / f"{name}.json")
        assert record.name == name
        assert record.provenance.modules == ("gomhc.toy",)
        assert record.provenance.seeds == (1,)
    assert "3 of 3 records are current" in said.out
    assert "CPU" in said.out
    assert "toy/two" in said.err  # the progress bar
    status, ran, said = command()
    assert (status, ran) == (0, [])
    assert "3 of 3 records are current" in said.out


def test_records_go_into_the_package_by_default(command, toy, tmp_path):
    assert __main__.main(["--only", "toy/one"]) == 0
    there = tmp_path / "gomhc" / "data" / "records" / "toy" / "one.json"
    assert records.load(there).metrics == {"key": "one"}


def test_only_what_has_changed_is_made_anew(command, toy, tmp_path):
    command()
    toy.configs["toy/two"] = {"key": "other"}
    assert command()[1] == ["other"]
    assert command()[1] == []
    (tmp_path / "out" / "toy" / "one.json").unlink()
    assert command()[1] == ["one"]
    toy.source.write_text("x = 1  # the same\n")
    assert command()[1] == []
    toy.source.write_text("x = 2\n")
    assert command()[1] == ["one", "other", ""]
    (tmp_path / "out" / "toy" / "one.json").write_text("{")
    assert command()[1] == ["one"]
    toy.configs["toy/two"] = toy.configs["toy/one"]
    shutil.copy(tmp_path / "out" / "toy" / "one.json", tmp_path / "out" / "toy" / "two.json")
    assert command("--list")[2].out.splitlines()[1].endswith("stale (name)")
    assert command()[1] == ["one"]
    assert command()[1] == []


def test_a_choice_of_units(command):
    assert command("--only", "toy/*")[1] == ["one", "two"]
    assert command("--only", "*/it")[1] == [""]
    status, ran, said = command("--only", "spectra/*")
    assert (status, ran) == (2, [])
    assert (
        "expected a pattern that fits one of toy/one, toy/two, more/it; got 'spectra/*'" in said.err
    )


def test_only_stale_ones(command, toy):
    command("--only", "toy/*")
    assert command("--stale")[1] == []
    toy.configs["toy/two"] = {"key": "other"}
    assert command("--stale")[1] == ["other"]


def test_the_list_says_what_is_there(command, toy, tmp_path):
    command("--only", "toy/*")
    toy.configs["toy/two"] = {"key": "other"}
    status, ran, said = command("--list")
    assert (status, ran) == (0, [])
    assert [line.split(maxsplit=1) for line in said.out.splitlines()[:3]] == [
        ["toy/one", "current"],
        ["toy/two", "stale (config)"],
        ["more/it", "missing"],
    ]
    toy.source.write_text("x = 2\n")
    (tmp_path / "out" / "toy" / "one.json").write_text("{")
    lines = command("--list")[2].out.splitlines()
    assert lines[0].split() == ["toy/one", "unreadable"]
    assert lines[1].endswith("stale (config, code)")


def test_a_unit_that_fails_stops_the_command(command, toy, tmp_path):
    toy.fails_with["two"] = ValueError("expected luck, got none")
    status, ran, said = command()
    assert (status, ran) == (1, ["one", "two"])
    assert "toy/two failed: ValueError: expected luck, got none" in said.err
    assert "Traceback" in said.err
    assert "1 of 3 records are current" in said.out
    toy.fails_with.clear()
    assert command()[1] == ["two", ""]


def test_an_outcome_that_cannot_be_stored_names_its_unit(command, toy):
    toy.configs["toy/two"] = {"key": float("nan")}
    status, ran, said = command()
    assert (status, ran) == (1, ["one"])
    assert "toy/two failed: RecordError: toy/two: config['key']: expected a finite" in said.err


def test_an_interrupt_keeps_what_is_done(command, toy):
    toy.fails_with["two"] = KeyboardInterrupt()
    status, ran, said = command()
    assert (status, ran) == (130, ["one", "two"])
    assert "stopped in toy/two" in said.err
    toy.fails_with.clear()
    assert command()[1] == ["two", ""]


def test_sources_that_change_under_the_command_stop_it(command, toy):
    """What runs was imported at the start, so a later hash would name code that never ran."""
    other = toy.source.with_name("other.py")
    other.write_text("x = 1\n")

    def first(key):
        other.write_text("x = 2\n")
        return toy.run(key)

    def second(key):
        return toy.run(key)

    first.__module__, second.__module__ = "gomhc.toy", "gomhc.other"
    runs = {"toy/one": first, "toy/two": second}
    toy.units = lambda: [Unit(name, run, toy.configs[name], ()) for name, run in runs.items()]
    status, ran, said = command()
    assert (status, ran) == (1, ["one"])
    assert "toy/two failed: RecordError: expected the sources as they were" in said.err
    assert command()[:2] == (0, ["two"])


# A process of its own, killed

SLOW = '''"""Units that say when they start; the third waits for ever, unless there is a file."""

import threading
from pathlib import Path

from gomhc.studies.base import Outcome, Unit


def run(folder, number):
    print(number, flush=True)
    if number == 3 and not Path(folder, "gate").exists():
        threading.Event().wait()
    return Outcome({"number": number}, {"curve": [0.5] * 1000})


FOLDER = str(Path(__file__).parents[2])
UNITS = [Unit(f"polytope/u{n}", run, {"folder": FOLDER, "number": n}, (n,)) for n in range(1, 5)]
'''


# torch takes seconds to import and has no part in what is tested here.
STUBS = {
    "torch.py": "class cuda:\n    is_initialized = lambda: False\nget_num_threads = lambda: 1\n",
    "gomhc/__init__.py": "",
    "gomhc/mixers/__init__.py": "make_mixer = None\n",
    "gomhc/mixers/base.py": "Mixer = object\n",
    "gomhc/studies/polytope.py": SLOW,
    "gomhc/studies/spectra.py": "UNITS = []\n",
    "gomhc/studies/stream_mixing.py": "UNITS = []\n",
    "gomhc/studies/cost.py": "UNITS = []\n",
}


@pytest.fixture
def slow(tmp_path):
    """The command, in a folder where slow units are the only ones and torch is a stub."""
    for name, source in STUBS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for name in ("records", "studies/__init__", "studies/__main__", "studies/base"):
        shutil.copy(ROOT / "gomhc" / f"{name}.py", tmp_path / "gomhc" / f"{name}.py")
    return {
        "args": [sys.executable, "-m", "gomhc.studies", "--out", "out"],
        "cwd": tmp_path,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"PYTHONPATH": str(tmp_path)},
    }


def test_a_killed_command_resumes(slow, tmp_path):
    out = tmp_path / "out" / "polytope"
    with subprocess.Popen(**slow) as process:
        begun = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        assert begun == ["1\n", "2\n", "3\n"], process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == ["u1.json", "u2.json"]
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert [records.load(out / f"u{n}.json").metrics["number"] for n in (1, 2)] == [1, 2]

    (tmp_path / "gate").touch()
    done = subprocess.run(**slow, check=True)
    assert done.stdout.splitlines()[:-1] == ["3", "4"]
    assert {path: path.read_bytes() for path in before} == before
    assert [records.load(out / f"u{n}.json").metrics["number"] for n in (3, 4)] == [3, 4]
    assert "4 of 4 records are current" in done.stdout
