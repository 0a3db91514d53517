"""Packages that only some functions need: imported by the call, named where they are missing."""

import importlib
from importlib import metadata
from pathlib import Path
from types import ModuleType


def install_command(extra: str) -> str:
    """What to type for the packages of an extra, wherever this gomhc came from.

    Args:
        extra: its name in `pyproject.toml`.

    Returns:
        A command of pip that names the same clone, archive or repository at the same commit; an
        index only if gomhc came from one.

    Source: PEP 610 (how an installed package says where it came from).
    """
    clone = Path(__file__).resolve().parents[1]
    if (clone / "pyproject.toml").is_file():
        return f"pip install -e '{clone}[{extra}]'"
    try:
        origin = metadata.distribution("gomhc").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    if origin is None:
        return f"pip install 'gomhc[{extra}]'"
    import json

    place = json.loads(origin)
    url, repository = place["url"], place.get("vcs_info")
    if repository is not None:
        url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
    return f"pip install 'gomhc[{extra}] @ {url}'"


def load(package: str, extra: str, purpose: str) -> ModuleType:
    """Import a package that gomhc works without, but for one purpose.

    Args:
        package: dotted name of the module.
        extra: of gomhc that brings it.
        purpose: what needs it, the beginning of the message.

    Returns:
        The module.

    Raises:
        ImportError: if it cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {package.partition('.')[0]} ({error}): "
            f"{install_command(extra)}"
        ) from error
