"""What code in this repository never does; downloads, and what a notebook may write, too.

`make lint` adds ruff's security rules (S) and zizmor, the weekly workflow pip-audit.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path for folder in ("gomhc", "book", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# They run what they read.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "torch.load",
    "torch.hub.load",
    "joblib.load",
    "numpy.load",
    "np.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def dangers(source: str) -> Iterator[str]:
    """Names of what would run code from data, or a command through a shell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS | METHODS:
                yield name
            shell = [k.value for k in node.keywords if k.arg == "shell"]
            if shell and not (isinstance(shell[0], ast.Constant) and shell[0].value is False):
                yield f"{name}(shell=…)"


def code_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)


@pytest.mark.parametrize("path", [*FILES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path):
    assert list(dangers(code_of(path))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "eval('1')",
        "def f():\n    exec(x)",
        "torch.load(path)",
        "yaml.load(text, Loader)",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "os.system('ls')",
    ],
)
def test_dangers_are_seen(source):
    assert list(dangers(source))


@pytest.mark.parametrize("source", ["model.eval()", "re.compile('a')", "run('ls', shell=False)"])
def test_what_only_looks_like_one_is_allowed(source):
    assert list(dangers(source)) == []


def test_notebooks_start_no_shell():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert not re.search(
                    r"^\s*(!|%%?(bash|sh|system|pip)\b)", cell.source, re.MULTILINE
                )


def test_the_one_download_is_checked():
    """A second place that opens an address would need its own checksum, and a line here.

    That another content is refused: tests/test_lm_data.py.
    """
    opening = re.compile(r"urlopen|urlretrieve|requests\.get|hf_hub_download|load_dataset\(")
    found = {
        str(path.relative_to(ROOT)): opening.findall(path.read_text(encoding="utf-8"))
        for path in FILES
        if opening.search(path.read_text(encoding="utf-8"))
    }
    # TinyStories come through the package datasets, which checks what it fetches.
    assert found == {"gomhc/lm/data.py": ["urlopen", "load_dataset("]}
    source = (ROOT / "gomhc" / "lm" / "data.py").read_text(encoding="utf-8")
    calls = [line.strip() for line in source.split("\n") if "_download(" in line]
    assert calls[0] == "_download(SHAKESPEARE_URL, draft)"
    assert "_verify(draft, SHAKESPEARE_SHA256, SHAKESPEARE_URL)" in source
    assert len(calls) == 2  # the call, and the definition
