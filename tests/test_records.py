"""Records: what goes in comes out, and what cannot be trusted is refused with its reason."""

import ast
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tokenize
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gomhc import records
from gomhc.records import Provenance, Record, RecordError

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("gomhc.maps", "gomhc.mixers.base")


@pytest.fixture
def record():
    provenance = Provenance(
        commit="9396671" + 33 * "0",
        dirty=False,
        code=records.code_hash(MODULES),
        modules=MODULES,
        seeds=(1, 2),
        device="CPU, 2 threads",
        versions={"python": "3.11.7", "torch": "2.13.0+cpu"},
        started="2026-11-22T14:20:00+00:00",
        wall_seconds=41.2,
        cpu_seconds=80,
    )
    return Record(
        name="toy/unit-1.5",
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
        content = {k: v for k, v in document.items() if k != "checksum"}
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
    provenance = Provenance(
        "unknown", True, "0" * 64, (), (), "GPU", {}, "2026-01-01T00:00:00Z", 0, 0
    )
    there = Record("a/b", {}, metrics, {}, provenance)
    back = records.load(records.save(there, tmp_path_factory.getbasetemp()))
    assert back == there
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
    with pytest.raises(RecordError, match=rf"{re.escape(str(path))}: expected a whole JSON.*short"):
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
        (put("schema", value=2), "expected schema 1, got 2: a newer gomhc"),
        (put("schema", value=0), "expected a record of schema 1, got schema 0"),
        (put("schema", value="1"), "expected a record of schema 1, got schema '1'"),
        (put("schema", value=True), "expected a record of schema 1, got schema True"),
        (lambda d: d.pop("schema") and None, "schema 1, got schema None"),
        (lambda d: d.pop("series") and None, "expected the keys series, got none of them"),
        (lambda d: d.pop("checksum") and None, "expected the keys checksum, got none"),
        (put("extra", value=1), "expected no other keys, got extra"),
        (put("name", value="toy/../../etc"), r"expected a name study/unit .* got 'toy/\.\./\.\./"),
        (put("name", value=3), "expected a name study/unit .* got 3"),
        (put("config", value=[1]), "expected a dict config, got list"),
        (put("metrics", value=None), "expected a dict metrics, got None"),
        (put("series", "loss", value=3.5), r"series\['loss'\]: expected a list of num.*got 3\.5"),
        (
            put("series", "grid", 1, value=[3, "x"]),
            r"series\['grid'\]\[1\]\[1\]: .*number, got str",
        ),
        (put("series", "grid", value=[True]), r"series\['grid'\]\[0\]: .*number, got True"),
        (put("series", "grid", value=[{}]), r"series\['grid'\]\[0\]: .*number, got dict"),
        (put("provenance", value=7), "provenance: expected a dict, got 7"),
        (put("provenance", "gpu", value=7), "provenance: expected no other keys, got gpu"),
        (
            put("provenance", "commit", value="HEAD"),
            r"\['commit'\]: expected a git com.*got 'HEAD'",
        ),
        (put("provenance", "dirty", value=0), r"\['dirty'\]: expected true or false, got 0"),
        (put("provenance", "code", value="12"), r"\['code'\]: expected a sha256, got '12'"),
        (put("provenance", "modules", value="a"), r"\['modules'\]: .*strings, got 'a'"),
        (put("provenance", "seeds", value=[1.0]), r"\['seeds'\]: .*integers, got \[1\.0\]"),
        (put("provenance", "device", value=0), r"\['device'\]: expected a string, got 0"),
        (put("provenance", "versions", value={"a": 1}), r"\['versions'\]: .*got \{'a': 1\}"),
        (put("provenance", "started", value="2026-11-22"), r"\['started'\]: expected a time with"),
        (put("provenance", "started", value="noon"), r"\['started'\]: .*got 'noon'"),
        (put("provenance", "wall_seconds", value=-1), r"\['wall_seconds'\]: .*>= 0, got -1"),
        (put("provenance", "cpu_seconds", value="1"), r"\['cpu_seconds'\]: .*>= 0, got '1'"),
    ],
)
def test_a_file_that_is_no_record(change, message, record, tmp_path):
    path = records.save(record, tmp_path)
    rewrite(path, change)
    with pytest.raises(RecordError, match=re.escape(str(path)) + ": .*" + message):
        records.load(path)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("NaN", "expected finite numbers, got NaN"),
        ("-Infinity", "expected finite numbers, got -Infinity"),
        ("1e999", r"metrics\['go-mhc s=2'\]\['share'\]: expected a finite number or None, got inf"),
        ("9" * 5000, "expected a whole JSON file"),
    ],
    ids=["NaN", "-Infinity", "1e999", "5000 digits"],
)
def test_a_file_with_a_number_that_is_none(number, message, record, tmp_path):
    path = records.save(record, tmp_path)
    if number == "1e999":  # parses, so give it the checksum that it would have
        rewrite(path, put("metrics", "go-mhc s=2", "share", value=math.inf))
        path.write_text(path.read_text().replace("Infinity", number))
    else:
        path.write_text(path.read_text().replace('"share": 0.1', f'"share": {number}'))
    with pytest.raises(RecordError, match=message):
        records.load(path)


@pytest.mark.parametrize("content", [b"\x80\x04\x95pickle", b"[" * 100_000])
def test_a_file_that_is_not_json(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json: expected a whole JSON file"):
        records.load(path)
    with pytest.raises(FileNotFoundError):
        records.load(tmp_path / "y.json")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"metrics": {"go-mhc s=2": {"final": [1.0, math.nan]}}},
            r"metrics\['go-mhc s=2'\]\['final'\]\[1\]: expected a finite number or None, got nan",
        ),
        ({"config": {"rate": -math.inf}}, r"config\['rate'\]: .*finite number or None, got -inf"),
        ({"series": {"a": [[0.0], [math.nan]]}}, r"series\['a'\]\[1\]\[0\]: .*finite.*got nan"),
        ({"series": {"a": [["x"]]}}, r"series\['a'\]\[0\]\[0\]: expected a number, got str"),
        ({"metrics": {"a": (1, 2)}}, r"metrics\['a'\]: expected a dict, list, .*got tuple"),
        ({"metrics": {"a": np.float32(1)}}, r"metrics\['a'\]: .*got numpy.float32"),
        ({"metrics": {"a": torch.ones(2)}}, r"metrics\['a'\]: .*got torch.Tensor"),
        ({"metrics": {3: 1}}, "metrics: expected keys that are strings, got 3"),
    ],
)
def test_what_a_record_cannot_hold(entries, message, record, tmp_path, unchecked):
    with pytest.raises(RecordError, match=r"toy/unit-1\.5: " + message):
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
    monkeypatch.setattr(records.resources, "files", lambda package: tmp_path / package)
    return tmp_path / "gomhc" / "data" / "records"


def test_records_of_the_package(record, installed):
    assert records.shipped_names() == []
    with pytest.raises(RecordError, match=r"expected one of \(none shipped\); got 'toy/unit'"):
        records.shipped("toy/unit")
    for name in ("toy/b", "toy/a", "another/a"):
        path = records.save(replace(record, name=name), installed)
    (path.parent / ".a.json.17.tmp").write_text("left by a killed process")
    (path.parent / ".b.json").write_text("hidden")
    (installed / "README.md").write_text("not a record")
    assert records.shipped_names() == ["another/a", "toy/a", "toy/b"]
    assert records.shipped("toy/b") == replace(record, name="toy/b")
    with pytest.raises(RecordError, match=r"one of another/a, toy/a, toy/b; got 'toy/c'"):
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
    (source / "gomhc").mkdir(parents=True)
    (source / "gomhc" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copy(ROOT / "gomhc" / "records.py", source / "gomhc")
    records.save(record, source / "gomhc" / "data" / "records")
    run = {"check": True, "capture_output": True, "text": True}
    build = ["-c", "import setuptools; setuptools.setup()", "build_py", "--build-lib", str(built)]
    subprocess.run([sys.executable, *build], cwd=source, **run)
    read = "from gomhc import records; print(records.shipped('toy/unit-1.5').config)"
    said = subprocess.run([sys.executable, "-c", read], cwd=built, **run)
    assert said.stdout.strip() == str(record.config)


# Code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a few modules in the place of gomhc."""
    sources = {
        "__init__": "from gomhc.maps import f",
        "maps": '"""Doc."""\n\nimport math\n\n\n'
        'def f(x):\n    """Doc."""\n    return "#" + x  # c\n',
        "unused": "x = 1",
        "late": "x = 2",
        "data/__init__": "x = 5",
        "mixers/__init__": "from gomhc.mixers.go import GO",
        "mixers/base": "from gomhc.maps import f",
        "mixers/go": "import torch\nfrom gomhc.mixers.base import Mixer",
        "records": "x = 3",
        "claims": "x = 4",
        "figures/__init__": "import matplotlib",
        "figures/style": "",
        "studies/__init__": "from gomhc.studies.base import mixer",
        "studies/base": "from gomhc.mixers import GO",
        "studies/one": "from gomhc import maps, records, claims, data\n"
        "from gomhc.studies.base import mixer\n"
        "import gomhc.figures.style\n"
        "def run():\n    from gomhc import late\n    import gomhc.spectra as spectra\n",
        "studies/two": "from gomhc.mixers.base import Mixer",
        "spectra": "import gomhc.maps",
        "bad_package": "from gomhc import cayley",
        "bad_studies": "from gomhc.studies import mixer",
        "bad_relative": "from .maps import f",
        "bad_missing": "import gomhc.nowhere",
    }
    folder = tmp_path / "gomhc"
    for name, source in sources.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setattr(records, "PACKAGE", folder)
    return folder


def names(*modules):
    return tuple(sorted(f"gomhc.{module}" for module in modules))


def test_the_closure_of_imports(package):
    mixers = ("mixers", "mixers.go", "mixers.base", "maps")
    assert records.closure("gomhc.studies.one") == names(
        "studies.one", "studies.base", "late", "spectra", *mixers
    )
    # The family's base alone: its package runs too, and nothing of it is used.
    assert records.closure("gomhc.studies.two") == names("studies.two", "mixers.base", "maps")
    assert records.closure("gomhc.maps") == ("gomhc.maps",)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("gomhc.bad_package", "gomhc.bad_package: expected imports from the mod.*one from gomhc$"),
        ("gomhc.bad_studies", "expected imports from the modules.*got one from gomhc.studies$"),
        ("gomhc.bad_relative", "expected absolute imports in gomhc.bad_relative"),
        ("gomhc.bad_missing", "expected a module of gomhc, got 'gomhc.nowhere'"),
        ("torch", "expected a module of gomhc, got 'torch'"),
        ("__main__", "expected a module of gomhc, got '__main__'"),
    ],
)
def test_imports_that_hide_what_is_used(module, message, package):
    with pytest.raises(ValueError, match=message):
        records.closure(module)


FUSED = ["caching", "cpu", "gpu", "lanes", "ops", "stages"]
FUSED = ["fused", *(f"fused.{name}" for name in FUSED)]


def test_the_closure_in_the_library():
    assert records.closure("gomhc.mixers.identity") == names(
        *FUSED, "maps", "mixers.base", "mixers.identity"
    )


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  # c", "  # another comment", True),
        ("  # c", "", True),
        ('"""Doc."""\n\nimport', '"""Another\n\ntext."""\nimport', True),
        ('    """Doc."""\n    return', "    # Doc.\n\n    return", True),
        ('"#"', '"# "', False),
        ("return", "return 1 and", False),
        ("import math", "", False),
        ('"""Doc."""\n    return', '"""Doc."""; return', False),
        ("    return", "    if math.inf < 0:\n        raise ValueError('no')\n    return", True),
        ("    return", "    if math.inf < 0: raise ValueError\n    return", True),
        ("    return", "    raise ValueError\n    return", False),
        ("    return", "    if (x := 1) < 0:\n        raise ValueError\n    return", False),
        ("    return", "    if 0:\n        math.inf\n        raise ValueError\n    return", False),
        (
            "    return",
            "    if 0:\n        raise ValueError\n    else:\n        pass\n    return",
            False,
        ),
    ],
)
def test_only_code_counts(old, new, same, package):
    before = records.code_hash(["gomhc.maps"])
    path = package / "maps.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert (records.code_hash(["gomhc.maps"]) == before) is same


def refusals(source):
    """Lines of the statements `if …: raise …` that name nothing, by the text around the colon."""
    lines, found = source.split("\n"), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and not node.orelse:
            start, body, end = node.lineno - 1, node.body[0].lineno - 1, node.end_lineno
            inside = ast.parse(textwrap.dedent("\n".join(lines[body:end]))).body
            if ":=" not in "".join(lines[start:body]) and list(map(type, inside)) == [ast.Raise]:
                found |= set(range(start + 1, end + 1))
    return found


def running_tokens(source, *, docstrings):
    """What tokenize sees, but for layout, comments and (if wanted) refusals and statements of a
    string alone."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    apart = set() if docstrings else refusals(source)
    tokens = [t for t in tokens if t.type not in layout and t.start[0] not in apart]
    kept, starts = [], True
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        alone = starts and token.type == tokenize.STRING and following.type == tokenize.NEWLINE
        if not (alone and not docstrings):
            kept.append(token.string)
        starts = token.type == tokenize.NEWLINE
    return [string for string in kept if string.strip()]


@pytest.mark.parametrize("path", sorted((ROOT / "gomhc").rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_that_runs_is_left_out(path):
    """Of the library's own sources, against the tokens: only docstrings and refusals go."""
    source = path.read_text(encoding="utf-8")
    left = running_tokens(records.essence(source), docstrings=True)
    assert left == running_tokens(source, docstrings=False)


def test_indentation_counts():
    loose, inside = "if x:\n    y = 1\nz = 2", "if x:\n    y = 1\n    z = 2"
    assert records.essence(loose) != records.essence(inside)


@pytest.mark.parametrize("source", ["def f(): 'Doc.'", "def f():\n    'Doc.'; return 1"])
def test_a_docstring_that_shares_its_line_stays(source):
    assert records.essence(source) == source


def test_the_hash_knows_which_module_is_which(package):
    (package / "one.py").write_text("x = 1")
    (package / "two.py").write_text("x = 2")
    before = records.code_hash(names("one", "two"))
    assert before == records.code_hash(reversed(names("one", "two")))
    (package / "one.py").write_text("x = 2")
    (package / "two.py").write_text("x = 1")
    assert records.code_hash(names("one", "two")) != before
    (package / "two.py").write_text("x = 2")
    assert records.code_hash(names("one")) != records.code_hash(names("two"))
    with pytest.raises(ValueError, match=r"expected a module of gomhc, got 'gomhc\.three'"):
        records.code_hash(["gomhc.three"])


def test_a_record_stays_current_until_its_code_changes(package):
    made = records.make("a/b", "gomhc.studies.two", lambda: ({}, {}), {})
    assert records.is_current(made)
    (package / "unused.py").write_text("x = 7")
    (package / "studies" / "base.py").write_text("x = 7")  # of another study
    (package / "mixers" / "base.py").write_text("# why\nfrom gomhc.maps import f")
    assert records.is_current(made)
    (package / "mixers" / "base.py").write_text("from gomhc.maps import f, g")
    assert not records.is_current(made)
    (package / "mixers" / "base.py").unlink()
    assert not records.is_current(made)


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
    monkeypatch.setattr(records, "time", SimpleNamespace(perf_counter=lambda: clocks.wall))
    monkeypatch.setattr(records, "cpu_time", lambda: clocks.cpu)
    monkeypatch.setattr(records, "datetime", Noon)
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
    made = records.make("a/b", "gomhc.mixers.identity", run, config, [3, 4])
    assert (made.metrics, made.series) == ({"a": 1.5}, {"b": [1, 2]})
    assert made.config == {"seconds": 41.25, "log": []}
    facts = made.provenance
    assert facts.started == "2026-11-22T12:00:00+00:00"
    assert (facts.wall_seconds, facts.cpu_seconds) == (41.25, 82.5)
    on_cpu = [name for name in FUSED if name != "fused.gpu"]
    assert facts.modules == names(*on_cpu, "maps", "mixers.base", "mixers.identity")
    assert facts.code == records.code_hash(facts.modules)
    assert facts.seeds == (3, 4)
    assert facts.device == "CPU, 1 thread"
    assert facts.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert release_of(facts.versions["torch"]) == release_of(torch.__version__)
    assert facts.versions["numpy"] == np.__version__
    assert "jaxtyping" in facts.versions and "math" not in facts.versions
    assert records.load(records.save(made, tmp_path)) == made


def test_processor_time_is_that_of_children_too(monkeypatch):
    monkeypatch.setattr(os, "times", lambda: os.times_result((1.0, 20.0, 300.0, 4000.0, 5e4)))
    assert records.cpu_time() == 4321


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
        records.make(name, "gomhc.maps", lambda **config: pytest.fail("ran"), config)


def test_a_source_that_changes_during_the_run(package):
    def run():
        (package / "maps.py").write_text("x = 7")
        return {}, {}

    with pytest.raises(RecordError, match="a/b: expected sources that stay as they are"):
        records.make("a/b", "gomhc.maps", run, {})


def test_the_gpu_is_named_where_it_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    used = {"allocation.all.allocated": 5}
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: used)

    def run(new):
        used["allocation.all.allocated"] += new
        return {}, {}

    made = [
        records.make("a/b", "gomhc.mixers.identity", run, {"new": n}).provenance for n in (0, 1, 0)
    ]
    where = [facts.device for facts in made]
    assert where == ["CPU, 1 thread", "NVIDIA H100", "CPU, 1 thread"]
    # What is for GPUs alone has no part in what a CPU found.
    assert ["gomhc.fused.gpu" in facts.modules for facts in made] == [False, True, False]


# The commit


def in_git(folder, *arguments):
    settings = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return said.stdout.strip()


@pytest.fixture
def checkout(package, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    in_git(package.parent, "init", "--quiet")
    in_git(package.parent, "add", ".")
    in_git(package.parent, "commit", "--quiet", "-m", "first")
    return package


def where_from(module="gomhc.studies.two"):
    facts = records.make("a/b", module, lambda: ({}, {}), {}).provenance
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


def test_what_makes_a_checkout_dirty(checkout):
    head = in_git(checkout, "rev-parse", "HEAD")
    (checkout / "data" / "new.json").write_text("{}")  # a record made just before
    (checkout / "unused.py").write_text("x = 7")
    assert where_from() == (head, False)
    (checkout / "maps.py").write_text("x = 7")
    assert where_from() == (head, True)
    in_git(checkout, "add", ".")
    assert where_from() == (head, True)
    in_git(checkout, "commit", "--quiet", "-m", "second")
    assert where_from() == (in_git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "new.py").write_text("x = 7")  # not in any commit
    assert where_from("gomhc.new")[1]


def test_no_commit_outside_a_repository(package):
    assert where_from() == ("unknown", False)


def test_no_commit_from_somebody_elses_repository(package):
    """As when gomhc is installed in a .venv inside of another project."""
    (package.parent / ".gitignore").write_text("gomhc/\n")
    in_git(package.parent, "init", "--quiet")
    in_git(package.parent, "add", ".")
    in_git(package.parent, "commit", "--quiet", "-m", "theirs")
    assert where_from() == ("unknown", False)


def test_no_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert where_from() == ("unknown", False)


# In words


def test_a_record_describes_itself(record):
    assert records.describe(record) == (
        "Made on 2026-11-22 at commit `9396671` on CPU, 2 threads in 41 s (torch 2.13.0); "
        "the code it ran has not changed since."
    )


def test_a_description_says_when_the_code_has_changed(record):
    facts = replace(
        record.provenance,
        code="0" * 64,
        commit="unknown",
        dirty=True,
        device="NVIDIA H100",
        versions={},
        wall_seconds=9000,
    )
    assert records.describe(replace(record, provenance=facts)) == (
        "Made on 2026-11-22 at an unknown commit with changes not committed on NVIDIA H100 "
        "in 2.5 h (torch of unknown version); **the code it ran has changed since.**"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.949, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (120, "2 min")]
    + [(7169, "119 min"), (7200, "2.0 h"), (90_000, "25.0 h")],
)
def test_durations(seconds, words):
    assert records.duration(seconds) == words
