"""What PyTorch may rename from one version to the next is not used: `torch>=2.6` is promised."""

import ast
import re
from pathlib import Path

import pytest

import gomhc

PACKAGE = Path(gomhc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# PyTorch's documentation gives dispatch modes no other name, from 2.6 to 2.13.
DOCUMENTED = {"torch.utils._python_dispatch.TorchDispatchMode"}


def private_names(source):
    """Names of torch with a part that begins with an underscore, imported or reached by dots."""
    tree, names, modules = ast.parse(source), set(), {"torch": "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.add(alias.name)
                modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names.add(f"{node.module}.{alias.name}")
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            names.add(modules.get(first, "") + dot + rest)
    return {name for name in names if re.fullmatch(r"torch\.(.*\.)?_(?!_)\w+(\.\w+)*", name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_of_torch(path):
    assert private_names(path.read_text(encoding="utf-8")) <= DOCUMENTED


def test_the_reader_sees_every_kind():
    source = """
import torch
import torch._dynamo as dynamo
from torch._C._functorch import peek
from torch.autograd import forward_ad
torch.utils._pytree.tree_leaves(forward_ad._current_level, torch.__version__, self._own)
"""
    assert private_names(source) == {
        "torch._dynamo",
        "torch._C._functorch.peek",
        "torch.autograd.forward_ad._current_level",
        "torch.utils._pytree",
        "torch.utils._pytree.tree_leaves",
    }
