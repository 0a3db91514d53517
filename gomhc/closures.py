"""What a function holds on to: modules and tensors that a copy of it would share."""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn


def shared_weights(branch: Callable[..., Any]) -> list[str]:
    """Names by which a function reaches modules or tensors, which `deepcopy` does not copy with it.

    It reaches them by its defaults, closure, globals and attributes, and through containers,
    attributes and functions that it finds there. A module, a partial and a bound method are copied
    with what they hold, so that only the functions in them count.

    Args:
        branch: anything that can be called.

    Returns:
        Names, in the order in which they are met; none if a copy has all weights for itself.
    """
    return list(dict.fromkeys(_of_copied(branch)))


def _of_copied(value: Any) -> Iterator[str]:
    if isinstance(value, FunctionType):
        yield from _of_function(value, set())
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _of_copied(part)


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    seen.add(id(function))
    code, known = function.__code__, function.__globals__
    # Its own defaults, where `inspect.signature` has those of the function that it wraps.
    own = code.co_varnames[: code.co_argcount]
    held = list(zip(reversed(own), reversed(function.__defaults__ or ()), strict=False))
    held += (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            held.append((name, cell.cell_contents))
        except ValueError:  # not assigned yet
            continue
    held += [(name, known[name]) for name in _names(code) if name in known]
    held += function.__dict__.items()
    for name, value in held:
        if _reaches(value, seen):
            yield name


def _names(code: CodeType) -> Iterator[str]:
    """Global names of a function and of those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _reaches(value: Any, seen: set[int]) -> bool:
    if isinstance(value, nn.Module | Tensor):
        return True
    if id(value) in seen or isinstance(value, type | ModuleType):
        return False
    seen.add(id(value))
    if isinstance(value, FunctionType):
        return any(True for _ in _of_function(value, seen))
    if isinstance(value, MethodType):
        return _reaches(value.__self__, seen) or _reaches(value.__func__, seen)
    if isinstance(value, functools.partial):
        return any(_reaches(part, seen) for part in (value.func, value.args, value.keywords))
    if isinstance(value, Mapping):
        return any(_reaches(part, seen) for part in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_reaches(part, seen) for part in value)
    return any(_reaches(part, seen) for part in getattr(value, "__dict__", {}).values())
