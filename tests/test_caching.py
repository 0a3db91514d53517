"""Compiled code is kept where it can be, is never older than its source, and never in the way."""

import builtins
import errno
import gc
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

numba = pytest.importorskip("numba")
from numba.core import caching as numba_caching  # noqa: E402

import gomhc  # noqa: E402
from gomhc.fused import caching  # noqa: E402


@pytest.fixture
def half(tmp_path, monkeypatch):
    """A loader of one compiled function, as a process of its own would find it."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(caching, "digest", lambda: "this code")
    forget = caching.Cache._forget

    def forget_aloud(self):
        """Numba's reason is swallowed on purpose; where a test fails, pytest shows it."""
        traceback.print_exc()
        forget(self)

    monkeypatch.setattr(caching.Cache, "_forget", forget_aloud)
    path = tmp_path / "halves.py"
    path.write_text("def half(x):\n    return x / 2\n")

    def load():
        gc.collect()  # a process of its own has nothing of the one before
        spec = importlib.util.spec_from_file_location("halves", path)
        module = importlib.util.module_from_spec(spec)
        # Numba asks for it by its name as soon as the function before has been collected.
        monkeypatch.setitem(sys.modules, "halves", module)
        spec.loader.exec_module(module)
        return caching.cached(error_model="numpy")(module.half)

    return load


def compiled(function):
    """Whether a first call has to compile it."""
    assert function(3.0) == 1.5
    print(function.stats, numba.config.CACHE_DIR)
    return bool(function.stats.cache_misses) and not function.stats.cache_hits


def files(tmp_path):
    return sorted(path.name for path in tmp_path.rglob("*.nb?"))


def test_code_is_kept(half, tmp_path):
    assert compiled(half())
    assert len(files(tmp_path)) == 2  # the index, and the code
    assert not compiled(half())


def test_other_sources_are_compiled_anew_and_leave_no_files_behind(half, tmp_path, monkeypatch):
    assert compiled(half())
    before = files(tmp_path)
    for digest in ("other code", "and other again"):
        monkeypatch.setattr(caching, "digest", lambda digest=digest: digest)
        assert compiled(half())
        assert not compiled(half())
        assert files(tmp_path) == before


def full_disk(monkeypatch, suffix):
    """No file whose name has this part can be written."""

    def open_(path, mode="r", *arguments, **options):
        if suffix in str(path) and "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return builtins.open(path, mode, *arguments, **options)

    monkeypatch.setattr(numba_caching, "open", open_, raising=False)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_full_disk_is_no_error(half, tmp_path, monkeypatch, suffix):
    with monkeypatch.context() as patch:
        full_disk(patch, suffix)
        assert compiled(half())
    assert not [name for name in files(tmp_path) if name.endswith("nbi")]
    assert compiled(half())
    assert not compiled(half())


def test_a_full_disk_leaves_no_older_code_in_its_place(half, tmp_path, monkeypatch):
    """The file of the code before is still there when the new one cannot be written."""
    assert compiled(half())
    monkeypatch.setattr(caching, "digest", lambda: "other code")
    with monkeypatch.context() as patch:
        full_disk(patch, ".nbc")
        assert compiled(half())
    assert compiled(half())


def test_a_folder_that_can_no_longer_be_written_is_no_error(half, monkeypatch):
    function = half()

    def refuse(*arguments, **options):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(numba_caching.tempfile, "TemporaryFile", refuse)
    assert compiled(function)
    assert compiled(half())  # and one that never could


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_file_is_made_anew(half, tmp_path, kind, kept):
    assert compiled(half())
    (path,) = tmp_path.rglob(f"*.{kind}")
    path.write_bytes(path.read_bytes()[:kept])
    assert compiled(half())
    assert not compiled(half())


def test_an_index_of_classes_that_have_gone_is_made_anew(half, tmp_path):
    assert compiled(half())
    (path,) = tmp_path.rglob("*.nbi")
    gone = b"cgomhc.fused.cpu\nGone\n."
    path.write_bytes(pickle.dumps(numba.__version__) + gone)
    assert compiled(half())
    assert not compiled(half())


def test_without_a_place_it_is_done_without(half, monkeypatch):
    monkeypatch.setattr(numba_caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled(half())
    assert compiled(half())


PROBE = """
import numpy as np
from gomhc.fused import lanes
from gomhc.fused.caching import cached

@cached()
def exponential(x):
    lanes.store(x, 0, lanes.exponential(lanes.load(x, 0)))

x = np.zeros(lanes.WIDTH)
exponential(x)
print(x[0], sum(exponential.stats.cache_hits.values()))
"""


def run(folder):
    """What a process of its own takes for exp 0, and how often it used the cache."""
    done = subprocess.run(
        [sys.executable, "probe.py"],
        env=os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_change_to_the_lanes_is_seen(tmp_path):
    """The lanes are in another file than the function that Python calls."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(gomhc.__file__).parent, tmp_path / "gomhc", ignore=ignored)
    (tmp_path / "probe.py").write_text(PROBE)
    assert [run(tmp_path), run(tmp_path)] == ["1.0 0", "1.0 1"]
    lanes = tmp_path / "gomhc" / "fused" / "lanes.py"
    lanes.write_text(lanes.read_text().replace("return total * power", "return total + power"))
    assert run(tmp_path) == "2.0 0"
