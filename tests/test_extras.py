"""What `import gomhc` loads, and what is said where a package of an extra is missing."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gomhc import extras, make_mixer
from gomhc.lm import data
from gomhc.lm.train.checkpoint import reserved
from gomhc.stream_mixing import corrected_problem, fit

ROOT = Path(__file__).resolve().parents[1]


def loaded(statement):
    """Modules in a fresh process after a statement."""
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_loads_only_what_a_model_needs():
    own = loaded("import gomhc") - loaded("import torch")
    packages = {name.partition(".")[0] for name in own}
    assert packages.isdisjoint(
        {"clarabel", "joblib", "matplotlib", "numba", "pandas", "scipy", "seaborn", "tqdm"}
    )
    assert not {name for name in own if name.startswith(("gomhc.companion", "gomhc.lm"))}
    assert "gomhc.maps" in own


WITHOUT_EXTRAS = """
import sys
for name in sys.argv[1].split():
    sys.modules[name] = None
import torch
import gomhc
from gomhc.lm import data
from gomhc.lm.model import preset
from gomhc.lm.train import TrainConfig, train

for name in gomhc.MIXERS:
    mixer = gomhc.make_mixer(name, 4)
    layer = gomhc.HyperConnection(8, torch.tanh, mixer)
    layer(torch.randn(3, 300, 4, 8)).sum().backward()
B = gomhc.sample_uniform(3, 2)
gomhc.birkhoff_von_neumann(gomhc.project(B[0]))
gomhc.distance_to_family(gomhc.make_mixer("go-mhc", 3), B, starts=1)
gomhc.spectra.coverage(gomhc.make_mixer("go-mhc", 3), steps=2, handovers=0)
corpus = data.stories(block=16, train=4000, windows=8)
model = preset("nano", mixer="go-mhc", width=32, block=16, layers=1)
train(TrainConfig(model, steps=2, batch=2, warmup=1), corpus)
print(gomhc.backend_report())
"""


def test_all_but_fits_works_without_any_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = sum(
        (project["optional-dependencies"][name] for name in ("companion", "lm")), ["numba"]
    )
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in extras]
    missing = " ".join(name for name in names if name != "gomhc")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, missing],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"numba is not installed: pip install -e '{ROOT}[fast]'" in done.stdout


@pytest.mark.parametrize(
    ("package", "extra", "call", "message"),
    [
        (
            "joblib",
            "companion",
            lambda: fit(corrected_problem(3), make_mixer("mhc", 3), 0.1, 3),
            "a fit needs",
        ),
        ("clarabel", "companion", lambda: corrected_problem(3).floor(), "Problem.floor needs"),
        ("tokenizers", "lm", lambda: data.text(__file__, level="bpe"), "BPE needs"),
        ("safetensors.torch", "lm", reserved(ROOT).__enter__, "a checkpoint needs"),
        ("datasets", "tinystories", data.tiny_stories, "TinyStories needs"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, package, extra, call, message):
    monkeypatch.setitem(sys.modules, package, None)
    package = package.partition(".")[0]
    command = rf"pip install -e '{ROOT}\[{extra}\]'"
    with pytest.raises(ImportError, match=f"{message} the package {package}.*: {command}"):
        call()


class _Installed:
    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'gomhc[lm]'"),
        (
            {"url": "https://host/gomhc", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'gomhc[lm] @ git+https://host/gomhc@abc'",
        ),
        (
            {"url": "file:///tmp/gomhc-1.whl", "archive_info": {}},
            "pip install 'gomhc[lm] @ file:///tmp/gomhc-1.whl'",
        ),
    ],
)
def test_the_command_names_where_gomhc_came_from(monkeypatch, tmp_path, origin, command):
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "gomhc" / "extras.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: _Installed(origin))
    assert extras.install_command("lm") == command


def test_an_extra_is_named_that_there_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sources = "".join(path.read_text() for path in (ROOT / "gomhc").rglob("*.py"))
    named = set(re.findall(r'load\("[\w.]+", "(\w+)"', sources))
    assert {"companion", "lm", "tinystories"} <= named <= set(project["optional-dependencies"])
