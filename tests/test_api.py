"""Every public name is documented, in its own docstring and on the page of the API."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

import gomhc

# Their names are public in them, as `gomhc.stream_mixing.fit`; all others' stand in gomhc itself.
TOPICS = {"companion", "convert", "kernels", "lm", "transportation", "spectra", "stream_mixing"}
PAGE = Path(__file__).resolve().parents[1] / "book" / "api.md"
SECTIONS = ("Args:", "Returns:", "Raises:")


def submodules():
    names = (info.name for info in pkgutil.walk_packages(gomhc.__path__, "gomhc."))
    return [gomhc, *map(importlib.import_module, names)]


def public(*, figures=True):
    """(where, name) → object for every entry of every `__all__`."""
    return {
        (module.__name__, name): getattr(module, name)
        for module in submodules()
        if figures or not module.__name__.startswith("gomhc.companion.figures")
        for name in getattr(module, "__all__", ())
    }


def topic(module):
    """The second part of a dotted name: that of gomhc.lm.model is lm."""
    return module.split(".")[1] if "." in module else ""


def unique(objects):
    return list({id(item): item for item in objects}.values())


CALLABLES = [item for item in unique(public(figures=False).values()) if callable(item)]
FUNCTIONS = [item for item in CALLABLES if inspect.isfunction(item)]
CLASSES = [item for item in CALLABLES if inspect.isclass(item)]
METHODS = [
    method
    for cls in CLASSES
    for name, method in vars(cls).items()
    if inspect.isfunction(method) and not name.startswith("_") and issubclass(cls, gomhc.Mixer)
]


def name_of(item):
    return f"{item.__module__}.{item.__qualname__}"


def own_docstring(item):
    return inspect.cleandoc(
        vars(item).get("__doc__") or "" if inspect.isclass(item) else item.__doc__ or ""
    )


def docstring(item):
    """Own, or that of the method it overrides; one that says "`other`, which see" counts both."""
    text = own_docstring(item)
    if not text and "." in item.__qualname__:
        owner = getattr(importlib.import_module(item.__module__), item.__qualname__.split(".")[0])
        text = inspect.getdoc(getattr(owner, item.__name__)) or ""
    for other in re.findall(r"`(\w+)`, which see", text):
        text += "\n" + docstring(getattr(importlib.import_module(item.__module__), other))
    return text


def parameters(item):
    return [name for name in inspect.signature(item).parameters if name != "self"]


def raises(item):
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(item))))
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def test_the_package_exports_what_its_modules_call_public():
    exported = set(gomhc.__all__)
    assert sorted(exported) == sorted(gomhc.__all__), "a name is there twice"
    flat = {key: item for key, item in public(figures=False).items() if topic(key[0]) not in TOPICS}
    assert {key for key in flat if key[1] not in exported} == set()
    for (_, name), item in flat.items():
        assert getattr(gomhc, name) is item
    assert {"spectra", "stream_mixing"} <= exported


@pytest.mark.parametrize("module", submodules(), ids=lambda module: module.__name__)
def test_every_module_says_what_it_is_for(module):
    assert module.__doc__


@pytest.mark.parametrize("item", CALLABLES, ids=name_of)
def test_every_public_name_has_its_own_docstring(item):
    # A NamedTuple or dataclass without one gets its signature.
    text = own_docstring(item)
    assert text
    assert not text.startswith(f"{item.__name__}(")


@pytest.mark.parametrize("item", [*FUNCTIONS, *METHODS], ids=name_of)
def test_a_docstring_names_every_parameter(item):
    text = docstring(item)
    names = parameters(item)
    if "Args:" in text:
        listed = text.split("Args:")[1]
        assert [name for name in names if not re.search(rf"^ +\*?{name}: ", listed, re.M)] == []
    elif len(names) > 1:
        # A mixer's own start takes the arguments that the contract has described.
        assert item.__name__ == "initial_theta"
    else:
        assert [name for name in names if not re.search(rf"\b{name}\b|θ", text)] == []


@pytest.mark.parametrize("item", FUNCTIONS, ids=name_of)
def test_a_docstring_says_what_comes_back_and_what_goes_wrong(item):
    text = docstring(item)
    result = inspect.signature(item).return_annotation
    if "Args:" in text and result not in (None, "None"):
        assert "Returns:" in text or result in CLASSES
    if raises(item):
        assert "Raises:" in text
    sections = [section for section in SECTIONS if section in own_docstring(item)]
    order = [own_docstring(item).index(section) for section in sections]
    assert order == sorted(order)


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_a_class_says_how_its_making_goes_wrong(cls):
    # That of a dataclass is generated; what it checks stands in __post_init__.
    making = "__post_init__" if dataclasses.is_dataclass(cls) else "__init__"
    if making in vars(cls):
        source = inspect.getsource(inspect.unwrap(vars(cls)[making]))
        if "raise " in source or "check_" in source:
            assert "Raises:" in own_docstring(cls)


def entries():
    return re.findall(r"^\.\. (?:auto\w+|py:data):: (gomhc[\w.]*)$", PAGE.read_text(), re.MULTILINE)


def resolve(path):
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), name)


def test_the_page_of_the_api_holds_every_public_name():
    documented = {id(resolve(path)) for path in entries()}
    runners = "gomhc.companion.studies."  # they make the book's own records
    missing = [
        key
        for key, item in public(figures=False).items()
        if id(item) not in documented and not key[0].startswith(runners)
    ]
    assert missing == []


def test_the_page_of_the_api_holds_nothing_twice():
    shown = [id(resolve(path)) for path in entries()]
    assert len(shown) == len(set(shown))


def test_the_page_of_the_api_shows_the_methods_of_the_contract():
    public_methods = {name for name in vars(gomhc.Mixer) if not name.startswith("_")}
    public_methods -= {"extra_repr", *gomhc.Mixer.__annotations__}
    members = re.search(r"autoclass:: gomhc\.Mixer\n +:members: (.*)", PAGE.read_text())
    assert public_methods == set(members[1].split(", "))
