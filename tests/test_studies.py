"""The command that makes the records: what it runs, what it skips, and how it stops."""

import inspect
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from gomhc import make_mixer
from gomhc.companion import records, studies
from gomhc.companion.studies import Outcome, Unit, __main__, mixer
from gomhc.companion.studies.base import BENCHMARKS

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
    by_label, expected = mixer(label, d), make_mixer(name, d, **options)
    assert repr(by_label) == repr(expected)
    theta = torch.randn(by_label.num_parameters, generator=generator)
    assert torch.equal(by_label(theta), expected(theta))


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("", ValueError, "orthogonal, transport; got ''"),
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
    units = [unit for profile in (None, "book", "full") for unit in studies.units(profile)]
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    for unit in units:
        records.file_of(unit.name, ".")  # raises for a name that no record may have
        topic = unit.name.split("/")[0].replace("-", "_").replace("lm", "language_models")
        assert f"{unit.run.__module__}.".startswith(f"gomhc.companion.studies.{topic}.")
        assert json.loads(json.dumps(unit.config, allow_nan=False)) == unit.config, unit.name
        inspect.signature(unit.run).bind(**unit.config, **dict.fromkeys(unit.takes))
        assert {type(seed) for seed in unit.seeds} <= {int}
        assert unit.protocol >= 1


def test_every_record_of_the_package_is_current():
    units = [unit for profile in (None, "book", "full") for unit in studies.units(profile)]
    known = {unit.name: unit for unit in units}
    for name in records.shipped_names():
        if name not in BENCHMARKS:
            assert studies.differences(known[name], records.shipped(name)) == []
        assert studies.is_current(records.shipped(name))


def test_what_a_page_says_of_a_record():
    record = records.shipped("polytope/exactness")
    assert studies.describe(record) == (
        f"{records.describe(record)}; "
        "today's code gives the same numbers, times aside, at the smoke size."
    )
    other = replace(record, protocol=9, config=record.config | {"seed": 3})
    assert studies.describe(other).endswith(
        "; **today's unit differs in configuration, protocol.**"
    )
    elsewhere = replace(record, name="elsewhere/exactness")
    assert studies.describe(elsewhere) == f"{records.describe(record)}."


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_a_page_says_of_a_benchmark(name):
    """It has no unit: only its protocol tells whether it is today's."""
    record = replace(records.shipped("benchmarks/mixers-cpu"), name=name, protocol=BENCHMARKS[name])
    assert studies.describe(record).endswith(
        "; today's code gives the same numbers, times aside, at the smoke size."
    )
    older = replace(record, protocol=BENCHMARKS[name] + 1)
    assert not studies.is_current(older)
    assert studies.describe(older).endswith("; **today's unit differs in protocol.**")


def test_studies_import_in_any_order_and_load_nothing_heavy():
    folder = ROOT / "gomhc" / "companion" / "studies"
    topics = sorted(p.stem for p in folder.iterdir() if p.stem[0] != "_")
    code = f"""
import importlib, sys
import gomhc  # registers torch operators, which can be done once
for first in {topics!r}:
    for name in [n for n in sys.modules if n.startswith("gomhc.companion.studies")]:
        del sys.modules[name]
    importlib.import_module(f"gomhc.companion.studies.{{first}}")
    import gomhc.companion.studies
    gomhc.companion.studies.units()
print({{"matplotlib", "seaborn", "numba", "joblib", "clarabel"}} & set(sys.modules))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "set()"


# The command, on units of its own


class Toy:
    """Three units, and a log of those that ran."""

    def __init__(self):
        self.ran = []
        self.fails_with = {}
        self.protocol = 1
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

        self.run = run

    def units(self, profile=None):
        return [
            Unit(name, self.run, config, (1,), self.protocol)
            for name, config in self.configs.items()
        ]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    toy = Toy()
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(__main__, "units", toy.units)
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
        assert (record.protocol, record.provenance.seeds) == (1, (1,))
    assert "3 of 3 records are current" in said.out
    assert "CPU" in said.out
    assert "[2/3] toy/two: 0.0 s" in said.out
    status, ran, said = command()
    assert (status, ran) == (0, [])
    assert "3 of 3 records are current" in said.out


def test_records_go_into_the_package_by_default(command, toy, tmp_path):
    assert __main__.main(["--only", "toy/one"]) == 0
    assert records.load(tmp_path / "shipped" / "toy" / "one.json").metrics == {"key": "one"}


def test_only_what_has_changed_is_made_anew(command, toy, tmp_path):
    command()
    toy.configs["toy/two"] = {"key": "other"}
    assert command()[1] == ["other"]
    assert command()[1] == []
    (tmp_path / "out" / "toy" / "one.json").unlink()
    assert command()[1] == ["one"]
    toy.protocol = 2
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
        ["toy/two", "stale (configuration)"],
        ["more/it", "missing"],
    ]
    toy.protocol = 2
    (tmp_path / "out" / "toy" / "one.json").write_text("{")
    lines = command("--list")[2].out.splitlines()
    assert lines[0].split() == ["toy/one", "unreadable"]
    assert lines[1].endswith("stale (configuration, protocol)")


def test_a_unit_that_fails_does_not_stop_the_others(command, toy, tmp_path):
    toy.fails_with["two"] = ValueError("expected luck, got none")
    status, ran, said = command()
    assert (status, ran) == (1, ["one", "two", ""])
    assert "toy/two failed, and is left out: ValueError: expected luck, got none" in said.err
    assert "Traceback" in said.err
    assert "2 of 3 records are current" in said.out
    toy.fails_with.clear()
    assert command()[:2] == (0, ["two"])


def test_an_outcome_that_cannot_be_stored_names_its_unit(command, toy):
    toy.configs["toy/two"] = {"key": float("nan")}
    status, ran, said = command()
    assert (status, ran) == (1, ["one", ""])
    assert "RecordError: toy/two: config['key']: expected a finite" in said.err


def test_an_interrupt_keeps_what_is_done(command, toy):
    toy.fails_with["two"] = KeyboardInterrupt()
    status, ran, said = command()
    assert (status, ran) == (130, ["one", "two"])
    assert "stopped in toy/two" in said.err
    toy.fails_with.clear()
    assert command()[1] == ["two", ""]


def test_the_time_that_is_given(command):
    status, ran, said = command("--minutes", "0")
    assert (status, ran) == (0, [])
    assert "the time is up; the next call goes on with the 3 left" in said.out


def test_where_records_cannot_go_is_known_before_anything_runs(toy, tmp_path, capsys):
    """Once every unit ran, for hours, and each record was lost when it came to be written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        __main__.main(["--out", str(tmp_path / "file" / "below")])
    assert f"got the file {tmp_path / 'file'}" in capsys.readouterr().err
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "away")
    assert __main__.main(["--out", str(tmp_path / "nowhere")]) == 2
    assert "expected a folder to write to, got" in capsys.readouterr().err
    assert toy.ran == []


def test_a_reader_that_has_enough_ends_the_list():
    """As in `--list | head -1`, whose pipe breaks."""
    command = [sys.executable, "-u", "-m", "gomhc.companion.studies", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("beside", [["--list"], ["--stale"], ["--out", "x"], ["--profile", "book"]])
def test_probes_are_made_by_themselves(beside, monkeypatch, capsys):
    """`--probes --list` once made them all anew."""
    monkeypatch.setattr(__main__, "renew", lambda probe: pytest.fail("made a probe"))
    with pytest.raises(SystemExit):
        __main__.main(["--probes", *beside])
    assert "expected --probes alone or with --only" in capsys.readouterr().err


# A process of its own, killed

SLOW = '''"""Units that say when they start; the third waits for ever, unless there is a file."""

import threading
from pathlib import Path

from gomhc.companion.studies.base import Outcome, Unit


def run(folder, number):
    print(number, flush=True)
    if number == 3 and not Path(folder, "gate").exists():
        threading.Event().wait()
    return Outcome({"number": number}, {"curve": [0.5] * 1000})


FOLDER = str(Path(__file__).parents[3])
UNITS = [
    Unit(f"polytope/u{n}", run, {"folder": FOLDER, "number": n}, (n,), 1) for n in range(1, 5)
]
'''


# torch takes seconds to import and has no part in what is tested here.
STUBS = {
    "torch.py": "class cuda:\n    is_initialized = lambda: False\nget_num_threads = lambda: 1\n",
    "gomhc/__init__.py": "",
    "gomhc/companion/__init__.py": "",
    "gomhc/mixers/__init__.py": "make_mixer = None\n",
    "gomhc/mixers/base.py": "Mixer = object\n",
    "gomhc/companion/studies/polytope.py": SLOW,
    "gomhc/companion/studies/spectra.py": "UNITS = []\n",
    "gomhc/companion/studies/stream_mixing.py": "UNITS = []\n",
    "gomhc/companion/studies/cost.py": "UNITS = []\n",
    "gomhc/companion/studies/training_plan.py": "units = lambda profile: []\n",
}


@pytest.fixture
def slow(tmp_path):
    """The command, in a folder where slow units are the only ones and torch is a stub."""
    for name, source in STUBS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    parts = ("__init__", "__main__", "base", "estimate")
    for name in ("git", "parameters", "probes", *(f"studies/{part}" for part in parts)):
        source = f"gomhc/companion/{name}.py"
        shutil.copy(ROOT / source, tmp_path / source)
    shutil.copy(ROOT / "gomhc" / "files.py", tmp_path / "gomhc")
    shutil.copytree(ROOT / "gomhc/companion/records", tmp_path / "gomhc/companion/records")
    return {
        "args": [sys.executable, "-m", "gomhc.companion.studies", "--out", "out"],
        "cwd": tmp_path,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"PYTHONPATH": str(tmp_path)},
    }


def test_a_killed_command_resumes(slow, tmp_path):
    out = tmp_path / "out" / "polytope"
    with subprocess.Popen(**slow) as process:
        begun = list(itertools.islice(filter(str.isdecimal, map(str.strip, process.stdout)), 3))
        process.send_signal(signal.SIGKILL)
        assert begun == ["1", "2", "3"], process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == ["u1.json", "u2.json"]
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert [records.load(out / f"u{n}.json").metrics["number"] for n in (1, 2)] == [1, 2]

    (tmp_path / "gate").touch()
    done = subprocess.run(**slow, check=True)
    assert [line for line in done.stdout.splitlines() if line.isdecimal()] == ["3", "4"]
    assert {path: path.read_bytes() for path in before} == before
    assert [records.load(out / f"u{n}.json").metrics["number"] for n in (3, 4)] == [3, 4]
    assert "4 of 4 records are current" in done.stdout
