"""Execute notebooks with papermill into the build tree, and reuse what still stands.

An executed notebook stands while the hash of its source, the library, the lock and its parameters
does. It is written under a temporary name and renamed once every cell has run, so a file under its
final name is always a complete run.
"""

import ast
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color
from traitlets.config import Config

from benchmarks.machine import processor
from book.tools.guard import changes, peak_memory, snapshot
from gomhc.companion.records.provenance import device_name

FORMAT = 2  # of what an executed notebook says of its run
CELL_TIMEOUT = 3600  # seconds
PATIENCE = 600  # seconds for a kernel to start, and for its outputs to arrive, on a busy machine
SOURCE_LINES_SHOWN = 6
# Tags of the cells that papermill adds: they have no place in the numbering of the source.
ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}


class NotebookError(Exception):
    """A notebook did not run to its end; the message names the notebook and the cell."""


def files_under(folder: Path) -> list[Path]:
    """Every file below `folder` but Python's caches."""
    return [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]


def digest(root: Path, files: Iterable[Path], extra: object = None) -> str:
    """Hash of the contents of `files`, of their names under `root`, and of `extra` as JSON."""
    contents = {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    return hashlib.sha256(json.dumps([contents, extra], sort_keys=True).encode()).hexdigest()


def execute(
    root: Path,
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    cell_timeout: int = CELL_TIMEOUT,
    guarded: bool | None = None,
) -> dict[str, Any]:
    """Bring `target` up to date: `source`, executed with `parameters` in an empty folder beside it.

    Args:
        root: The project.
        source: The notebook as stored; never written to.
        target: Where the executed notebook goes.
        parameters: Values for the cell tagged `parameters`.
        cell_timeout: Seconds that one cell may take.
        guarded: Whether any change to the project's files during the run is an error. By default
            where the environment has CI set: elsewhere somebody may be writing.

    Returns:
        What the executed notebook says of its own run, in its metadata under `gomhc`.

    Raises:
        NotebookError: If a cell fails, takes too long, or leaves an error among its outputs; or if
            a guarded run has changed the project.
    """
    needs = [source, root / "requirements.lock", *files_under(root / "gomhc")]
    inputs = digest(root, needs, [FORMAT, parameters])
    if target.exists():
        run: dict[str, Any] = nbformat.read(target, as_version=4).metadata.get("gomhc", {})
        if run.get("inputs") == inputs:
            return run

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.ipynb")
    guarded = bool(os.environ.get("CI")) if guarded is None else guarded
    before = snapshot(root, target.parent) if guarded else {}
    folder = target.with_suffix(".work")  # what a notebook writes is of this one run
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    look, peak = peak_memory()
    started, clock = datetime.now(UTC), time.perf_counter()
    stopped = None
    try:
        papermill.execute_notebook(
            source,
            partial,
            parameters=parameters,
            kernel_name="python3",
            cwd=folder,
            progress_bar=False,
            on_cell_executed=look,
            execution_timeout=cell_timeout,
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            config=Config(KernelManager={"transport": "ipc"}),
        )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        stopped = error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.perf_counter() - clock, 1)
    notebook = nbformat.read(partial, as_version=4)
    # papermill lets sys.exit() end a notebook early; the outputs still show it.
    if stopped or any(errors(cell) for cell in notebook.cells):
        raise NotebookError(describe_failure(source, notebook, stopped)) from stopped
    if guarded and (touched := changes(before, snapshot(root, target.parent))):
        raise NotebookError(
            f"{source.name}: expected a run that writes nothing outside its own folder, got "
            f"changes in the project: {', '.join(touched)}"
        )

    show_parameters(notebook, parameters)
    del notebook.metadata["papermill"]  # paths of this machine
    notebook.metadata["gomhc"] = run = {
        "inputs": inputs,
        "source": digest(root, [source]),
        **parameters,
        "ran_on": device_name([0] if torch.cuda.is_available() else []),
        "machine": processor(),
        "peak_bytes": peak(),
        "cells": sum(cell.cell_type == "code" for cell in notebook.cells),
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("gomhc", "numpy", "torch")},
    }
    nbformat.write(notebook, partial)
    partial.rename(target)
    return run


def show_parameters(notebook: nbformat.NotebookNode, parameters: dict[str, Any]) -> None:
    """Leave the page one cell of parameters: the notebook's own if it says what was run with."""
    cells = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    own = ast.parse(cells["parameters"].source).body
    said = {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in own}
    spare = "injected-parameters" if said == parameters else "parameters"
    cells[spare].metadata.tags.append("remove-cell")


def errors(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The error outputs of a cell."""
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def describe_failure(
    source: Path, notebook: nbformat.NotebookNode, stopped: Exception | None
) -> str:
    """Name the notebook and the failed cell, and show the cell's first lines and the error."""
    cells = [
        (cell, errors(cell))
        for cell in notebook.cells
        if not ADDED_BY_PAPERMILL.intersection(cell.metadata.get("tags", []))
    ]
    failed = [number for number, (_, outputs) in enumerate(cells, 1) if outputs]
    # A cell out of time or a dead kernel leaves no output: it is the last one that was started.
    begun = [n for n, (cell, _) in enumerate(cells, 1) if cell.metadata.papermill.start_time]
    number = failed[0] if failed else begun[-1]
    cell, outputs = cells[number - 1]
    lines = cell.source.splitlines()
    shown = lines[:SOURCE_LINES_SHOWN] + ["…"] * (len(lines) > SOURCE_LINES_SHOWN)
    what = str(stopped).strip() if stopped else strip_color("\n".join(outputs[0].traceback))
    return f"{source.name}, cell {number} failed:\n\n" + "\n".join(
        [*(f"    {line}" for line in shown), "", what]
    )
