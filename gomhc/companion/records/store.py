"""Where records lie: files of a folder, and those that come with the package."""

import json
import os
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gomhc.companion.records.shape import Record, RecordError, check_name, document, parse
from gomhc.files import replacing

FOLDER = "data/records"  # of the companion
SHIPPED = Path(__file__).resolve().parents[1] / FOLDER


def file_of(name: str, folder: str | os.PathLike[str]) -> Path:
    """Path of a record's file in a folder of records; a name cannot lead out of it.

    Args:
        name: "study/unit".
        folder: of records.

    Returns:
        The path, whether there is a file or not.

    Raises:
        RecordError: if that is no name of a record.
    """
    check_name(name)
    return Path(folder) / f"{name}.json"


def save(record: Record, folder: str | os.PathLike[str]) -> Path:
    """Write a record to its file, study/unit.json in the folder, at once or not at all.

    Args:
        record: what to store.
        folder: where; made if it is not there. A file of that name is replaced.

    Returns:
        The path of the file.

    Raises:
        RecordError: if the name, or an entry, is not one that a record may hold: an infinity, a
            NaN, a tuple, a tensor.
    """
    path = file_of(record.name, folder)
    text = pretty(document(record)) + "\n"
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")
    return path


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record and check that it is whole, unedited and of a schema known here.

    Args:
        path: the file.

    Returns:
        The record that was saved.

    Raises:
        RecordError: if it is not; the message names the file, what was expected and what came.
        FileNotFoundError: if there is no such file.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:  # a folder of that name, a file that may not be read
        raise RecordError(f"{path}: expected a file that can be read: {error}") from error
    return parse(data, str(path))


def shipped(name: str) -> Record:
    """Read a record that comes with the package.

    Args:
        name: "study/unit", one of `shipped_names()`.

    Returns:
        The record.

    Raises:
        RecordError: if there is none of that name, or its file cannot be trusted.
    """
    names = shipped_names()
    if name not in names:
        near = get_close_matches(name, names, n=5, cutoff=0.0)
        some = f"such as {', '.join(near)}" if near else "of which there is none"
        raise RecordError(f"expected a record of the package, {some}; got {name!r}")
    file = resources.files("gomhc.companion").joinpath(FOLDER, f"{name}.json")
    record = parse(file.read_bytes(), str(file))
    if record.name != name:
        raise RecordError(f"{file}: expected the record {name}, got {record.name}")
    return record


def shipped_names() -> list[str]:
    """Names of the records that come with the package, sorted."""

    def inside(folder: Traversable) -> list[Traversable]:
        return list(folder.iterdir()) if folder.is_dir() else []

    return sorted(
        f"{study.name}/{file.name.removesuffix('.json')}"
        for study in inside(resources.files("gomhc.companion").joinpath(FOLDER))
        for file in inside(study)
        if file.name.endswith(".json") and not file.name.startswith(".")
    )


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with an entry of a dict on a line of its own, and a list of numbers on one line."""
    pad, end = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and value:
        entries = (f"{pretty(k)}: {pretty(v, indent + 1)}" for k, v in value.items())
        return "{" + ",".join(pad + entry for entry in entries) + end + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + ",".join(pad + pretty(item, indent + 1) for item in value) + end + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
