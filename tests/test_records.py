"""Records: what goes in comes out, and what cannot be trusted is refused with its reason."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gomhc.companion import records
from gomhc.companion.records import Provenance, Record, RecordError, provenance, store

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def record():
    provenance = Provenance(
        commit="9396671" + 33 * "0",
        dirty=False,
        seeds=(1, 2),
        device="CPU, 2 threads",
        versions={"python": "3.11.7", "torch": "2.13.0+cpu"},
        started="2026-11-22T14:20:00+00:00",
        wall_seconds=41.2,
        cpu_seconds=80,
    )
    return Record(
        name="toy/unit-1.5",
        protocol=3,
        config={"d": 3, "labels": ["go-mhc s=2"], "rate": 1e-3, "nested": {"none": None}},
        metrics={"go-mhc s=2": {"share": 0.1, "ok": True, "word": "Größe", "none": None}},
        series={"loss": {"go-mhc s=2": [0.1 + 0.2, 1e-300, None]}, "grid": [[1, 2], [3, 4]]},
        provenance=provenance,
    )


def rewrite(path, change):
    """Edit a record's file as somebody would who knows how the checksum is made."""
    document = json.loads(path.read_text())
    document = change(document) or document
    if isinstance(document, dict) and "checksum" in document:
        content = {k: v for k, v in document.items() if k not in ("schema", "checksum")}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        document["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(document))


def put(*keys, value):
    """A change of one entry."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


# Files


def test_a_record_comes_back_as_it_was(record, tmp_path):
    path = records.save(record, tmp_path / "new")
    assert path == tmp_path / "new" / "toy" / "unit-1.5.json"
    assert records.load(path) == records.load(str(path)) == record
    assert isinstance(records.load(path).provenance.seeds, tuple)


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ENTRIES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=60)
@given(metrics=st.dictionaries(st.text(st.characters(codec="utf-8")), ENTRIES, max_size=3))
def test_any_json_comes_back_to_the_last_bit(metrics, tmp_path_factory):
    provenance = Provenance("unknown", True, (), "GPU", {}, "2026-01-01T00:00:00Z", 0, 0)
    record = Record("a/b", 1, {}, metrics, {}, provenance)
    back = records.load(records.save(record, tmp_path_factory.getbasetemp()))
    assert back == record
    assert repr(back.metrics) == repr(metrics)  # 1 is not 1.0, and order is kept


def test_a_file_is_readable(record, tmp_path):
    text = records.save(record, tmp_path).read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    assert '"d": 3,' in lines
    assert '"word": "Größe",' in lines
    assert '"go-mhc s=2": [0.30000000000000004, 1e-300, null]' in lines
    assert "[1, 2]," in lines and "[3, 4]" in lines
    assert text.endswith("}\n")


def test_layout_and_line_ends_are_not_content(record, tmp_path):
    path = records.save(record, tmp_path)
    path.write_bytes(
        json.dumps(json.loads(path.read_text()), indent=4).replace("\n", "\r\n").encode()
    )
    assert records.load(path) == record


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file(step, error, record, tmp_path, monkeypatch):
    path = records.save(record, tmp_path)
    before = path.read_bytes()

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            records.save(replace(record, config={}), tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    records.save(replace(record, config={}), tmp_path)
    assert records.load(path).config == {}


def test_a_file_is_whole_before_it_has_its_name(record, tmp_path, monkeypatch):
    seen = []

    def replace_and_look(draft, path):
        assert draft.parent == path.parent
        assert not path.exists()
        seen.append(records.load(draft))

    monkeypatch.setattr(os, "replace", replace_and_look)
    records.save(record, tmp_path)
    assert seen == [record]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_file(kept, record, tmp_path):
    path = records.save(record, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(RecordError, match=rf"{re.escape(str(path))}: expected whole JSON.*short"):
        records.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"share": 0.1', '"share": 0.2'), ("cpu_seconds", "gpu_seconds"), ('"ok": true', '"ok": 1')],
)
def test_an_edited_file(old, new, record, tmp_path):
    path = records.save(record, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    message = rf"{re.escape(str(path))}: expected content of checksum \w+, got \w+: .* edited"
    with pytest.raises(RecordError, match=message):
        records.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: [d], "expected a JSON object, got list"),
        (put("schema", value=3), "expected schema 2, got 3: a newer gomhc"),
        (put("schema", value=1), "expected schema 2, got 1$"),
        (put("schema", value="2"), "expected schema 2, got '2'$"),
        (put("schema", value=True), "expected schema 2, got True$"),
        (lambda d: d.pop("schema") and None, "expected schema 2, got None"),
        (lambda d: d.pop("series") and None, "missing required field `series`"),
        (lambda d: d.pop("checksum") and None, "content of checksum None"),
        (put("extra", value=1), "unknown field `extra`"),
        (put("name", value="toy/../../etc"), r"matching regex .* - at `\$.name`"),
        (put("name", value=3), r"Expected `str`, got `int` - at `\$.name`"),
        (put("protocol", value=1.0), r"Expected `int`, got `float` - at `\$.protocol`"),
        (put("protocol", value=0), r"Expected `int` >= 1 - at `\$.protocol`"),
        (put("config", value=[1]), r"Expected `object`, got `array` - at `\$.config`"),
        (put("metrics", value=None), r"got `null` - at `\$.metrics`"),
        (put("series", "loss", value=3.5), r"got `float` - at `\$.series\[...\]`"),
        (put("series", "grid", 1, value=[3, "x"]), r"got `str` - at `\$.series\[...\]\[1\]\[1\]`"),
        (put("series", "grid", value=[True]), r"got `bool` - at `\$.series\[...\]\[0\]`"),
        (put("series", "grid", value=[{}]), r"got `object` - at `\$.series\[...\]\[0\]`"),
        (put("provenance", value=7), r"got `int` - at `\$.provenance`"),
        (put("provenance", "gpu", value=7), r"unknown field `gpu` - at `\$.provenance`"),
        (put("provenance", "commit", value="HEAD"), r"regex .* - at `\$.provenance.commit`"),
        (put("provenance", "dirty", value=0), r"got `int` - at `\$.provenance.dirty`"),
        (put("provenance", "seeds", value=[1.5]), r"at `\$.provenance.seeds\[0\]`"),
        (put("provenance", "device", value=0), r"at `\$.provenance.device`"),
        (put("provenance", "versions", value={"a": 1}), r"at `\$.provenance.versions\[...\]`"),
        (put("provenance", "started", value="2026-11-22"), r"at `\$.provenance.started`"),
        (put("provenance", "started", value="noon"), r"at `\$.provenance.started`"),
        (put("provenance", "wall_seconds", value=-1), r">= 0.* - at `\$.provenance.wall_seconds`"),
        (
            put("provenance", "cpu_seconds", value="1"),
            r"got `str` - at `\$.provenance.cpu_seconds`",
        ),
    ],
)
def test_a_file_that_is_no_record(change, message, record, tmp_path):
    path = records.save(record, tmp_path)
    rewrite(path, change)
    with pytest.raises(RecordError, match=re.escape(str(path)) + ": .*" + message):
        records.load(path)


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "study" / "unit.json").mkdir(parents=True)
    with pytest.raises(RecordError, match="unit.json: expected a file that can be read"):
        records.load(tmp_path / "study" / "unit.json")


@pytest.mark.parametrize(
    ("number", "place"),
    [
        ("NaN", r"byte \d+"),
        ("-Infinity", r"byte \d+"),
        ("1e999", r"\$"),
        ("9" * 5000, r"\$"),
    ],
    ids=["NaN", "-Infinity", "1e999", "5000 digits"],
)
def test_a_file_with_a_number_that_is_none(number, place, record, tmp_path):
    path = records.save(record, tmp_path)
    path.write_text(path.read_text().replace('"share": 0.1', f'"share": {number}'))
    message = rf"{re.escape(str(path))}: expected whole JSON and finite numbers.*{place}"
    with pytest.raises(RecordError, match=message):
        records.load(path)


@pytest.mark.parametrize("content", [b"\x80\x04\x95pickle", b"[" * 100_000])
def test_a_file_that_is_not_json(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json: expected whole JSON"):
        records.load(path)
    with pytest.raises(FileNotFoundError):
        records.load(tmp_path / "y.json")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"metrics": {"go-mhc s=2": {"final": [1.0, math.nan]}}},
            r"\['go-mhc s=2'\]\['final'\]\[1\]: expected a finite number or None, got nan",
        ),
        (
            {"config": {"rate": -math.inf}},
            r"\['config'\]\['rate'\]: .*finite number or None, got -inf",
        ),
        (
            {"series": {"a": [[0.0], [math.nan]]}},
            r"\['series'\]\['a'\]\[1\]\[0\]: .*finite.*got nan",
        ),
        ({"series": {"a": [["x"]]}}, r"Expected .*, got `str` - at `\$.series\[...\]\[0\]\[0\]`"),
        ({"metrics": {"a": (1, 2)}}, r"\['metrics'\]\['a'\]: expected a dict, list, .*got tuple"),
        ({"metrics": {"a": np.float32(1)}}, r"\['metrics'\]\['a'\]: .*got numpy.float32"),
        ({"metrics": {"a": torch.ones(2)}}, r"\['metrics'\]\['a'\]: .*got torch.Tensor"),
        ({"metrics": {3: 1}}, r"\['metrics'\]: expected keys that are strings, got 3"),
    ],
)
def test_what_a_record_cannot_hold(entries, message, record, tmp_path, unchecked):
    with pytest.raises(RecordError, match=r"toy/unit-1\.5.*" + message):
        records.save(replace(record, **entries), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "a", "/a/b", "a/b/c", "../a", "a/..", "a/.hidden", "./b", "A/b", "a/B", "a b/c", "a/b\n"]
    + ["a\\b", "a/b\0", "-a/b", "a.b/c", "ä/b"],
)
def test_names_that_could_lead_elsewhere(name, record, tmp_path):
    with pytest.raises(RecordError, match="expected a name study/unit"):
        records.save(replace(record, name=name), tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


# Records in the package


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder where the package would be installed."""
    monkeypatch.setattr(store.resources, "files", lambda package: tmp_path / package)
    return tmp_path / "gomhc.companion" / "data" / "records"


def test_records_of_the_package(record, installed):
    assert records.shipped_names() == []
    with pytest.raises(RecordError, match="package, of which there is none; got 'toy/unit'"):
        records.shipped("toy/unit")
    for name in ("toy/b", "toy/a", "another/a"):
        path = records.save(replace(record, name=name), installed)
    (path.parent / ".a.json.17.tmp").write_text("left by a killed process")
    (path.parent / ".b.json").write_text("hidden")
    (installed / "README.md").write_text("not a record")
    assert records.shipped_names() == ["another/a", "toy/a", "toy/b"]
    assert records.shipped("toy/b") == replace(record, name="toy/b")
    with pytest.raises(RecordError, match="such as toy/b, toy/a, another/a; got 'toy/c'"):
        records.shipped("toy/c")
    with pytest.raises(RecordError, match=r"got '\.\./records/toy/a'"):
        records.shipped("../records/toy/a")
    shutil.copy(installed / "toy/a.json", installed / "toy/copy.json")
    with pytest.raises(RecordError, match=r"copy\.json: expected the record toy/copy, got toy/a"):
        records.shipped("toy/copy")


def test_every_record_of_the_package_can_be_trusted():
    for name in records.shipped_names():
        assert records.shipped(name).name == name


def test_a_wheel_holds_the_records(record, tmp_path):
    """Built by setuptools from a package of one module and one record, and read from there."""
    source, built = tmp_path / "source", tmp_path / "built"
    (source / "gomhc" / "companion").mkdir(parents=True)
    for package in ("gomhc", "gomhc/companion"):
        (source / package / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("files.py", "companion/git.py"):
        shutil.copy(ROOT / "gomhc" / name, source / "gomhc" / name)
    folder = "gomhc/companion/records"
    shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    records.save(record, source / "gomhc" / "companion" / "data" / "records")
    run = {"check": True, "capture_output": True, "text": True}
    build = ["-c", "import setuptools; setuptools.setup()", "build_py", "--build-lib", str(built)]
    subprocess.run([sys.executable, *build], cwd=source, **run)
    read = "from gomhc.companion import records; print(records.shipped('toy/unit-1.5').config)"
    said = subprocess.run([sys.executable, "-c", read], cwd=built, **run)
    assert said.stdout.strip() == str(record.config)


# Making


class Clocks:
    """Time that passes when a run says so."""

    wall, cpu = 1000.0, 50.0

    def pass_by(self, wall, cpu):
        self.wall += wall
        self.cpu += cpu


@pytest.fixture
def clocks(monkeypatch):
    class Noon(datetime):
        @classmethod
        def now(cls, zone):
            return cls(2026, 11, 22, 12, tzinfo=zone)

    clocks = Clocks()
    monkeypatch.setattr(provenance, "time", SimpleNamespace(perf_counter=lambda: clocks.wall))
    monkeypatch.setattr(provenance, "cpu_time", lambda: clocks.cpu)
    monkeypatch.setattr(provenance, "datetime", Noon)
    return clocks


def release_of(version):
    """Without the name of the build, which metadata and the module itself tell or leave out."""
    return version.partition("+")[0]


def test_making_measures(tmp_path, clocks):
    def run(seconds, log):
        log.append("changed by the run")
        clocks.pass_by(seconds, 2 * seconds)
        return {"a": 1.5}, {"b": [1, 2]}

    config = {"seconds": 41.25, "log": []}
    record = records.make("a/b", run, config, [3, 4], protocol=2)
    assert (record.metrics, record.series) == ({"a": 1.5}, {"b": [1, 2]})
    assert (record.config, record.protocol) == ({"seconds": 41.25, "log": []}, 2)
    facts = record.provenance
    assert facts.started == "2026-11-22T12:00:00+00:00"
    assert (facts.wall_seconds, facts.cpu_seconds) == (41.25, 82.5)
    assert facts.seeds == (3, 4)
    assert facts.device == "CPU, 1 thread"
    assert facts.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert release_of(facts.versions["torch"]) == release_of(torch.__version__)
    assert facts.versions["numpy"] == np.__version__
    assert records.load(records.save(record, tmp_path)) == record


def test_processor_time_is_that_of_children_too(monkeypatch):
    monkeypatch.setattr(os, "times", lambda: os.times_result((1.0, 20.0, 300.0, 4000.0, 5e4)))
    assert provenance.cpu_time() == 4321


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("a/../b", {}, "expected a name study/unit"),
        ("a/b", {"x": math.nan}, r"a/b: config\['x'\]: expected a finite number"),
        ("a/b", {"x": (1,)}, r"a/b: config\['x'\]: .*got tuple"),
    ],
)
def test_what_could_not_be_stored_is_not_run(name, config, message):
    with pytest.raises(RecordError, match=message):
        records.make(name, lambda **config: pytest.fail("ran"), config)


def test_the_gpus_are_named_that_were_used(monkeypatch):
    """The second of two, as with --device cuda:1, or both."""
    used = [0, 5]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k=0: f"GPU {k}")
    monkeypatch.setattr(
        torch.cuda, "memory_stats", lambda k=0: {"allocation.all.allocated": used[k]}
    )

    def run(new):
        for k in new:
            used[k] += 1
        return {}, {}

    devices = [
        records.make("a/b", run, {"new": new}).provenance.device for new in ([], [1], [0, 1])
    ]
    assert devices == ["CPU, 1 thread", "GPU 1", "GPU 0, GPU 1"]


# The commit


def in_git(folder, *arguments):
    settings = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return said.stdout.strip()


@pytest.fixture
def installed_at(tmp_path, monkeypatch):
    """A folder in the place of gomhc's, with benchmarks beside it."""
    folder = tmp_path / "gomhc"
    for path in (folder / "__init__.py", tmp_path / "benchmarks" / "mixers.py"):
        path.parent.mkdir()
        path.write_text("x = 1")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def checkout(installed_at):
    in_git(installed_at.parent, "init", "--quiet")
    in_git(installed_at.parent, "add", ".")
    in_git(installed_at.parent, "commit", "--quiet", "-m", "first")
    return installed_at


def where_from():
    facts = records.make("a/b", lambda: ({}, {}), {}).provenance
    return facts.commit, facts.dirty


def test_the_commit_is_that_of_the_package(checkout, tmp_path_factory, monkeypatch):
    head = in_git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", head)
    assert where_from() == (head, False)
    other = tmp_path_factory.mktemp("other")
    in_git(other, "init", "--quiet")
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert where_from() == (head, False)


@pytest.mark.parametrize("source", ["gomhc/__init__.py", "benchmarks/mixers.py"])
def test_what_makes_a_checkout_dirty(source, checkout):
    """A source of the package or of a benchmark, but no record made just before."""
    head = in_git(checkout, "rev-parse", "HEAD")
    (checkout / "new.json").write_text("{}")
    assert where_from() == (head, False)
    (checkout.parent / source).write_text("x = 7")
    assert where_from() == (head, True)
    in_git(checkout.parent, "add", ".")
    assert where_from() == (head, True)
    in_git(checkout, "commit", "--quiet", "-m", "second")
    assert where_from() == (in_git(checkout, "rev-parse", "HEAD"), False)
    (checkout.parent / "new.py").write_text("x = 7")  # not in any commit
    assert where_from()[1]


def test_no_commit_outside_a_repository(installed_at):
    assert where_from() == ("unknown", False)


def test_no_commit_from_somebody_elses_repository(installed_at):
    """As when gomhc is installed in a .venv inside of another project."""
    (installed_at.parent / ".gitignore").write_text("gomhc/\n")
    in_git(installed_at.parent, "init", "--quiet")
    in_git(installed_at.parent, "add", ".")
    in_git(installed_at.parent, "commit", "--quiet", "-m", "theirs")
    assert where_from() == ("unknown", False)


def test_no_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert where_from() == ("unknown", False)


# In words


def test_a_record_describes_itself(record):
    assert records.describe(record) == (
        "Made on 2026-11-22 at commit `9396671`, protocol 3, on CPU, 2 threads in 41 s "
        "(torch 2.13.0)"
    )


def test_a_description_says_what_is_not_known(record):
    facts = replace(
        record.provenance,
        commit="unknown",
        dirty=True,
        device="NVIDIA H100",
        versions={},
        wall_seconds=9000,
    )
    assert records.describe(replace(record, provenance=facts)) == (
        "Made on 2026-11-22 at an unknown commit with changes not committed, protocol 3, on NVIDIA "
        "H100 in 2.5 h (torch of unknown version)"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.949, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (120, "2 min")]
    + [(7169, "119 min"), (7200, "2.0 h"), (90_000, "25.0 h")],
)
def test_durations(seconds, words):
    assert records.duration(seconds) == words
