"""Imports run one way: maps → mixers → what observes them → models, and the companion above all."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gomhc"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import what stands on a line above its own; `*` stands for the modules of a package.
# On the line of the mixers' families it may also import its neighbours (a Kronecker product is made
# of other mixers).
FAMILIES = "gomhc.mixers.*"
LIBRARY = [
    {"gomhc.checks", "gomhc.closures", "gomhc.extras", "gomhc.files", "gomhc.adam"},
    {"gomhc.maps"},
    {"gomhc.transportation"},
    {
        *("gomhc.fused.stages", "gomhc.fused.lanes", "gomhc.fused.entries"),
        *("gomhc.fused.caching", "gomhc.fused.process", "gomhc.fused.derivatives"),
    },
    {"gomhc.fused.threads"},
    {"gomhc.fused.cpu", "gomhc.fused.gpu"},
    {"gomhc.fused.streams", "gomhc.fused.projection"},
    {"gomhc.fused.ops"},
    {"gomhc.fused.gpu_streams"},
    {"gomhc.fused.layer"},
    {"gomhc.fused.flops"},
    {"gomhc.fused"},
    {"gomhc.mixers.base"},
    {FAMILIES},
    {"gomhc.mixers"},
    {"gomhc.birkhoff", "gomhc.composition", "gomhc.hyper_connections", "gomhc.kernels"},
    {"gomhc.reach", "gomhc.spectra.regions", "gomhc.stream_mixing.problem"},
    {"gomhc.spectra.search", "gomhc.stream_mixing.fits"},
    {"gomhc.spectra", "gomhc.stream_mixing", "gomhc.weight_decay"},
    {"gomhc"},
    {"gomhc.convert.layouts", "gomhc.convert.swap", "gomhc.convert.configuration"},
    {"gomhc.convert.blocks"},
    {"gomhc.convert.stacks", "gomhc.convert.order"},
    {"gomhc.convert.streams"},
    {"gomhc.convert.saved", "gomhc.convert.undo"},
    {"gomhc.convert"},
    {"gomhc.lm", "gomhc.lm.stories", "gomhc.lm.tokenizer", "gomhc.lm.model"},
    {"gomhc.lm.data", "gomhc.lm.report"},
    {"gomhc.lm.train.config"},
    {"gomhc.lm.train.checkpoint", "gomhc.lm.train.non_finite"},
    {"gomhc.lm.train.loop"},
    {"gomhc.lm.train"},
    {"gomhc.lm.train.__main__", "gomhc.lm.sample"},
]
COMPANION = [
    {"gomhc.companion"},
    {"gomhc.companion.git", "gomhc.companion.paired", "gomhc.companion.parameters"},
    {"gomhc.companion.published", "gomhc.companion.released"},
    {"gomhc.companion.records.shape"},
    {"gomhc.companion.records.*"},
    {"gomhc.companion.records"},
    {"gomhc.companion.studies.base"},
    {"gomhc.companion.studies.cost.counting"},
    {"gomhc.companion.studies.cost.sweeps"},
    {"gomhc.companion.studies.cost.front"},
    {"gomhc.companion.studies.cost.units"},
    {"gomhc.companion.studies.*"},
    {"gomhc.companion.studies.training_plan", "gomhc.companion.studies.estimate"},
    {"gomhc.companion.studies"},
    {"gomhc.companion.probes", "gomhc.companion.session"},
    {"gomhc.companion.studies.__main__", "gomhc.companion.claims.base"},
    {"gomhc.companion.claims.exactness"},
    {"gomhc.companion.claims.*"},
    {"gomhc.companion.claims", "gomhc.companion.overview", "gomhc.companion.trainings"},
    {"gomhc.companion.figures.style"},
    {"gomhc.companion.figures.*"},
    {"gomhc.companion.figures"},
]
LAYERS = [*LIBRARY, *COMPANION]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(name, source=None):
    """Dotted names that a module imports anywhere in its text, inside functions too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8") if source is None else source)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: expected absolute imports, got a relative one"
            # `from gomhc import figures` imports a module, `from gomhc import cayley` does not.
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = below & set(MODULES)
            names |= modules | ({node.module} if modules != below else set())
    return names


def own_imports(name):
    return {other for other in imported(name) if other.split(".")[0] == "gomhc"}


def layer(name):
    for entry in (name, f"{name.rpartition('.')[0]}.*"):
        for rank, names in enumerate(LAYERS):
            if entry in names:
                return rank
    pytest.fail(f"{name} has no place in the order of imports: give it one in LAYERS")


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    own, families = layer(name), LAYERS.index({FAMILIES})
    assert own_imports(name) <= set(MODULES)
    for other in own_imports(name):
        assert layer(other) < own or layer(other) == own == families, f"{name} → {other}"


def test_the_library_never_imports_the_companion():
    library = {name for name in MODULES if layer(name) < len(LIBRARY)}
    assert {name for name in MODULES if name.startswith("gomhc.companion")}.isdisjoint(library)
    arrows = {(name, other) for name in library for other in own_imports(name) - library}
    assert arrows == set()


def test_imports_have_no_cycle():
    graph = {name: own_imports(name) for name in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("gomhc.maps") < order.index("gomhc.mixers.base") < order.index("gomhc")


def test_nothing_imports_the_figures():
    others = {name for name in MODULES if not name.startswith("gomhc.companion.figures")}
    assert {other for name in others for other in own_imports(name)} <= others


@pytest.mark.parametrize("library", ["matplotlib", "seaborn"])
def test_only_the_figures_import_what_draws(library):
    importers = {
        name for name in MODULES for other in imported(name) if other.split(".")[0] == library
    }
    assert all(name.startswith("gomhc.companion.figures") for name in importers)


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
