"""What the repository as a whole must hold to."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gomhc

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()


def test_lock_holds_names_versions_and_markers_alone():
    pin = r"[a-z0-9.-]+==[0-9][a-z0-9.]*( ; .+)?"
    assert [line for line in LOCK if not re.fullmatch(pin, line)] == []
    assert all(map(Requirement, LOCK))
    assert "torch==2.13.0" in LOCK


def test_lock_leaves_the_cuda_libraries_to_pytorch():
    # Its CUDA build pins them itself; listed, they would come with its CPU build as well.
    assert [line for line in LOCK if re.match("(nvidia|cuda)-", line)] == []


def test_lock_satisfies_every_declared_requirement():
    pins = map(Requirement, LOCK)
    pinned = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    declared = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    others = (r for r in map(Requirement, declared) if r.name != "gomhc")  # its own extras
    for requirement in others:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_no_file_names_a_package_registry():
    # Spelled in parts, so that this file may be among those that are read.
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "download.pytorch" + ".org"]
    hosts += ["anaconda" + ".org", "npmjs" + ".org", "npmjs" + ".com", "jsdelivr" + ".net"]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    texts = {f: f.read_text(errors="ignore") for f in files if f.is_file()}
    assert [(f.name, host) for f, text in texts.items() for host in hosts if host in text] == []


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == citation["version"] == gomhc.__version__
