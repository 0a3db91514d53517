"""Imports run one way: maps → mixers → what observes them → the package; figures stand apart."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gomhc"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import what stands on a line above its own. On the line of the mixers' families it
# may also import its neighbours (a Kronecker product is made of other mixers).
FAMILIES = "gomhc.mixers.*"
STUDIES = "gomhc.studies.*"
CLAIMS = "gomhc.claims.*"
FIGURES = "gomhc.figures.*"
LAYERS = [
    {"gomhc.maps"},
    {
        *("gomhc.fused.stages", "gomhc.fused.lanes", "gomhc.fused.entries"),
        *("gomhc.fused.caching", "gomhc.fused.threads"),
    },
    {"gomhc.fused.cpu", "gomhc.fused.gpu"},
    {"gomhc.fused.streams"},
    {"gomhc.fused.ops"},
    {"gomhc.fused.layer"},
    {"gomhc.fused"},
    {"gomhc.mixers.base"},
    {FAMILIES},
    {"gomhc.mixers"},
    {"gomhc.birkhoff", "gomhc.composition", "gomhc.hyper_connections", "gomhc.kernels"},
    {"gomhc.spectra", "gomhc.stream_mixing"},
    {"gomhc.studies.base"},
    {STUDIES},
    {"gomhc.studies"},
    {"gomhc.records", "gomhc.published"},
    {"gomhc.lm", "gomhc.lm.stories", "gomhc.lm.model"},
    {"gomhc.lm.data", "gomhc.lm.plan", "gomhc.lm.report"},
    {"gomhc.lm.train"},
    {"gomhc.lm.runs"},
    {"gomhc.studies.__main__", "gomhc.claims.base"},
    {CLAIMS},
    {"gomhc.claims"},
    {"gomhc"},
    {"gomhc.figures.style"},
    {FIGURES},
    {"gomhc.figures"},
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(name, source=None):
    """Dotted names that a module imports anywhere in its text, inside functions too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8") if source is None else source)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: expected absolute imports, got a relative one"
            # `from gomhc import figures` imports a module, `from gomhc import cayley` does not.
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = below & set(MODULES)
            found |= modules | ({node.module} if modules != below else set())
    return found


def own_imports(name):
    return {other for other in imported(name) if other.split(".")[0] == "gomhc"}


def layer(name):
    for rank, names in enumerate(LAYERS):
        if name in names:
            return rank
    for folder in (FAMILIES, STUDIES, CLAIMS, FIGURES):
        if name.rpartition(".")[0] == folder.rpartition(".")[0]:
            return LAYERS.index({folder})
    pytest.fail(f"{name} has no place in the order of imports: give it one in LAYERS")


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    here, families = layer(name), LAYERS.index({FAMILIES})
    assert own_imports(name) <= set(MODULES)
    for other in own_imports(name):
        assert layer(other) < here or layer(other) == here == families, f"{name} → {other}"


def test_imports_have_no_cycle():
    graph = {name: own_imports(name) for name in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("gomhc.maps") < order.index("gomhc.mixers.base") < order.index("gomhc")


def test_nothing_imports_the_figures():
    others = [name for name in MODULES if not name.startswith("gomhc.figures")]
    assert [n for n in others if any(i.startswith("gomhc.figures") for i in own_imports(n))] == []


@pytest.mark.parametrize("library", ["matplotlib", "seaborn"])
def test_only_the_figures_import_what_draws(library):
    importers = {
        name for name in MODULES for other in imported(name) if other.split(".")[0] == library
    }
    assert all(name.startswith("gomhc.figures") for name in importers)


def test_the_package_does_not_load_what_draws():
    code = "import sys, gomhc; print(*{'matplotlib', 'seaborn', 'pandas'} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


def test_the_reader_of_imports_sees_every_kind():
    source = """
import gomhc.maps
from gomhc import cayley, birkhoff
def late():
    from gomhc.mixers import base
    import seaborn as sns
"""
    expected = {"gomhc.maps", "gomhc", "gomhc.birkhoff", "gomhc.mixers.base", "seaborn"}
    assert imported("gomhc", source) == expected
