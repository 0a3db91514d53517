"""Records: what an experiment found, with what it takes to judge and repeat it, as readable JSON.

A record is one file, complete or absent. `make` runs an experiment and notes where its numbers
come from; `save` and `load` move records to and from disk, and `shipped` reads those that come with
the package. A file that was cut short, edited, or written by a newer version is refused.
"""

import ast
import copy
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeGuard

__all__ = [
    "Provenance",
    "Record",
    "RecordError",
    "closure",
    "code_hash",
    "describe",
    "is_current",
    "load",
    "make",
    "save",
    "shipped",
    "shipped_names",
]

SCHEMA = 1
PACKAGE = Path(__file__).resolve().parent
FOLDER = "data/records"  # of the package
NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.-]*")
# They store, judge or draw: no number in a record depends on them.
APART = re.compile(r"gomhc\.(records|claims|data|figures)(\..*)?")
# They only collect names, so that an import from them does not tell whose code is used.
COLLECTIONS = {"gomhc", "gomhc.companion.studies"}
FOR_GPUS = {"gomhc.fused.gpu"}  # nothing of them runs where a record is made on a CPU


class RecordError(ValueError):
    """A record that cannot be trusted, stored or found; the message says which, and why."""


@dataclass(frozen=True)
class Provenance:
    """Where a record's numbers come from.

    Attributes:
        commit: git commit of the checkout that holds gomhc, "unknown" outside of one.
        dirty: whether the sources of `modules` differed from that commit.
        code: `code_hash` of `modules` when they ran.
        modules: the gomhc modules that the run could use, the study's own among them.
        seeds: every seed of the run.
        device: "CPU, 2 threads", or the GPU's name.
        versions: of Python, gomhc and the libraries used.
        started: when, in UTC, ISO 8601.
        wall_seconds: how long it took.
        cpu_seconds: processor time of this process and of the ones that it has waited for.
    """

    commit: str
    dirty: bool
    code: str
    modules: tuple[str, ...]
    seeds: tuple[int, ...]
    device: str
    versions: dict[str, str]
    started: str
    wall_seconds: float | int  # JSON does not tell 41.0 from 41
    cpu_seconds: float | int


@dataclass(frozen=True)
class Record:
    """One stored result: strict JSON but for its provenance.

    Attributes:
        name: "study/unit", in small letters, digits and hyphens; the unit may have dots.
        config: the arguments of the run.
        metrics: the findings, dicts and lists of numbers, strings, booleans and None.
        series: curves and histograms, lists of numbers (None where there is none) in dicts.
        provenance: where they come from.
    """

    name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    series: dict[str, Any]
    provenance: Provenance


# Reading and writing


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
    document = {"schema": SCHEMA} | json_of(record)
    check(document, record.name)
    document = {"schema": SCHEMA, "checksum": checksum(document)} | document
    path = file_of(record.name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, as a rename is atomic only within one file system.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(pretty(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
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
    return parse(Path(path).read_bytes(), str(path))


def shipped(name: str) -> Record:
    """Read a record of the full profile that comes with the package.

    Args:
        name: "study/unit", one of `shipped_names()`.

    Returns:
        The record.

    Raises:
        RecordError: if there is none of that name, or its file cannot be trusted.
    """
    names = shipped_names()
    if name not in names:
        raise RecordError(f"expected one of {', '.join(names) or '(none shipped)'}; got {name!r}")
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


def file_of(name: str, folder: str | os.PathLike[str]) -> Path:
    """Path of a record's file in a folder of records; a name cannot lead out of it."""
    check_name(name, name)
    return Path(folder) / f"{name}.json"


def json_of(record: Record) -> dict[str, Any]:
    """The record as a document, its tuples as lists."""
    document = {field.name: getattr(record, field.name) for field in fields(record)}
    provenance = asdict(record.provenance)
    for key in ("modules", "seeds"):
        provenance[key] = list(provenance[key])
    return document | {"provenance": provenance}


def parse(data: bytes, where: str) -> Record:
    """A record from a file's content; `where` names the file in the messages."""

    def refuse(constant: str) -> None:
        raise RecordError(f"{where}: expected finite numbers, got {constant}")

    try:
        document = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except RecordError:
        raise
    # Not UTF-8, not JSON, a number of thousands of digits; brackets beyond Python's stack.
    except (ValueError, RecursionError) as error:
        reason = f"expected a whole JSON file, got one cut short or malformed ({error})"
        raise RecordError(f"{where}: {reason}") from error
    if not isinstance(document, dict):
        raise RecordError(f"{where}: expected a JSON object, got {kind(document)}")
    schema = document.get("schema")
    if type(schema) is not int or schema < 1:
        raise RecordError(f"{where}: expected a record of schema {SCHEMA}, got schema {schema!r}")
    if schema > SCHEMA:
        reason = f"expected schema {SCHEMA}, got {schema}: a newer gomhc wrote this record"
        raise RecordError(f"{where}: {reason}")
    check_keys(document, ["schema", "checksum", *names_of(Record)], where)
    stated = document.pop("checksum")
    if stated != (found := checksum(document)):
        reason = f"expected content of checksum {stated}, got {found}"
        raise RecordError(f"{where}: {reason}: the file was edited or damaged after it was made")
    check(document, where)
    provenance = document.pop("provenance")
    for key in ("modules", "seeds"):
        provenance[key] = tuple(provenance[key])
    del document["schema"]
    return Record(**document, provenance=Provenance(**provenance))


def checksum(document: dict[str, Any]) -> str:
    """Of the content, whatever the layout of the file."""
    # An infinity may stand in an edited file (1e999); it gets a checksum, and a refusal.
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with an entry of a dict on a line of its own, and a list of numbers on one line."""
    pad, end = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and value:
        entries = (f"{pretty(k)}: {pretty(v, indent + 1)}" for k, v in value.items())
        return "{" + ",".join(pad + entry for entry in entries) + end + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + ",".join(pad + pretty(item, indent + 1) for item in value) + end + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# What a document may hold


def kind(value: Any) -> str:
    """A value in a message: short ones as they are, others by their type."""
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


def names_of(cls: type) -> list[str]:
    """Field names of a dataclass."""
    return [field.name for field in fields(cls)]


def check_keys(document: dict[str, Any], expected: Iterable[str], where: str) -> None:
    """Raise RecordError unless the keys are just these."""
    expected = set(expected)
    if missing := sorted(expected - set(document)):
        raise RecordError(f"{where}: expected the keys {', '.join(missing)}, got none of them")
    if unknown := sorted(set(document) - expected):
        raise RecordError(f"{where}: expected no other keys, got {', '.join(unknown)}")


def check_name(name: Any, where: str) -> None:
    """Raise RecordError unless the name is "study/unit"."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise RecordError(
            f"{where}: expected a name study/unit in small letters, digits, hyphens and (in the "
            f"unit) dots, got {name!r}"
        )


def check(document: dict[str, Any], where: str) -> None:
    """Raise RecordError unless every entry is of its kind."""
    check_name(document["name"], where)
    for key in ("config", "metrics", "series"):
        if not isinstance(document[key], dict):
            raise RecordError(f"{where}: expected a dict {key}, got {kind(document[key])}")
        check_json(document[key], f"{where}: {key}")
    for key, values in document["series"].items():
        check_series(values, f"{where}: series[{key!r}]")
    check_provenance(document["provenance"], f"{where}: provenance")


def check_json(value: Any, where: str) -> None:
    """Raise RecordError, with the path to the entry, unless all is plain, finite JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{where}: expected keys that are strings, got {key!r}")
            check_json(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check_json(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{where}: expected a finite number or None, got {value}")
    elif value is not None and not isinstance(value, str | int | float):
        found = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise RecordError(f"{where}: expected a dict, list, string, number or None, got {found}")


def check_series(values: Any, where: str) -> None:
    """Raise RecordError unless the values are lists of numbers, or dicts of those."""
    if isinstance(values, dict):
        for key, item in values.items():
            check_series(item, f"{where}[{key!r}]")
    elif not isinstance(values, list):
        raise RecordError(f"{where}: expected a list of numbers, got {kind(values)}")
    else:
        for position, item in enumerate(values):
            if isinstance(item, list):
                check_series(item, f"{where}[{position}]")
            elif item is not None and not is_number(item):
                raise RecordError(f"{where}[{position}]: expected a number, got {kind(item)}")


def is_number(value: Any) -> bool:
    """Whether it is an int or a finite float (and no boolean)."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def check_provenance(provenance: Any, where: str) -> None:
    """Raise RecordError unless every field is there and of its kind."""

    def is_list_of(cls: type, value: Any) -> bool:
        return isinstance(value, list) and all(type(item) is cls for item in value)

    def is_moment(value: Any) -> bool:
        try:
            return datetime.fromisoformat(value).tzinfo is not None
        except (TypeError, ValueError):
            return False

    kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "commit": (
            "a git commit or 'unknown'",
            lambda v: isinstance(v, str) and bool(re.fullmatch("unknown|[0-9a-f]{40,64}", v)),
        ),
        "dirty": ("true or false", lambda v: isinstance(v, bool)),
        "code": ("a sha256", lambda v: isinstance(v, str) and len(v) == 64),
        "modules": ("a list of strings", lambda v: is_list_of(str, v)),
        "seeds": ("a list of integers", lambda v: is_list_of(int, v)),
        "device": ("a string", lambda v: isinstance(v, str)),
        "versions": (
            "a dict of strings",
            lambda v: (
                isinstance(v, dict) and all(isinstance(t, str) for kv in v.items() for t in kv)
            ),
        ),
        "started": ("a time with its zone, in ISO 8601", is_moment),
        "wall_seconds": ("a number >= 0", lambda v: is_number(v) and v >= 0),
        "cpu_seconds": ("a number >= 0", lambda v: is_number(v) and v >= 0),
    }
    if not isinstance(provenance, dict):
        raise RecordError(f"{where}: expected a dict, got {kind(provenance)}")
    check_keys(provenance, kinds, where)
    for key, (expected, holds) in kinds.items():
        if not holds(provenance[key]):
            raise RecordError(f"{where}[{key!r}]: expected {expected}, got {provenance[key]!r}")


# Which code ran


def source_of(module: str) -> Path | None:
    """File of a gomhc module, or None if there is no such module."""
    first, *rest = module.split(".")
    folder = PACKAGE.joinpath(*rest)
    files = [folder / "__init__.py", *([folder.with_suffix(".py")] if rest else [])]
    return next((file for file in files if first == "gomhc" and file.is_file()), None)


@functools.cache
def import_statements(source: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Those of a source, inside its functions too."""
    nodes = ast.walk(ast.parse(source))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imports(module: str) -> Iterator[str]:
    """Dotted names of the modules that a gomhc module imports."""
    file = source_of(module)
    if file is None:
        raise ValueError(f"expected a module of gomhc, got {module!r}")
    for node in import_statements(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.level or node.module is None:
            raise ValueError(f"expected absolute imports in {module}, got a relative one")
        else:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if source_of(below) else node.module


def closure(module: str) -> tuple[str, ...]:
    """The gomhc modules that a module uses: itself, what it imports, what that imports, and on.

    A package's `__init__` counts where something is imported from the package itself. Not followed
    is what no number depends on: records, claims, figures and data.

    Args:
        module: dotted name of a gomhc module.

    Returns:
        Dotted names, sorted.

    Raises:
        ValueError: if there is no such module, or one has relative imports, or imports names from
            gomhc or gomhc.companion.studies instead of the modules that make them.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found.add(here)
        for name in imports(here):
            if name in COLLECTIONS:
                reason = "expected imports from the modules that make the names"
                raise ValueError(f"{here}: {reason}, got one from {name}")
            if name.startswith("gomhc.") and not APART.fullmatch(name):
                waiting.append(name)
    return tuple(sorted(found))


def is_refusal(node: ast.AST) -> TypeGuard[ast.If]:
    """Whether a statement is `if …: raise …` and no more: it ends a run, or does nothing to it."""
    return (
        isinstance(node, ast.If)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Raise)
        and not node.orelse
        and not any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test))
    )


@functools.cache
def essence(source: str) -> str:
    """What of a source makes results: all but refusals, docstrings, comments and blank lines.

    No refusal has met a run that came to its end, so better messages leave records current. The
    layout of the rest is kept as it is, so that every version of Python gives the same.
    """
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False):
            apart = node.body[0]
        elif is_refusal(node):
            apart = node
        else:
            continue
        first, last = apart.lineno - 1, (apart.end_lineno or apart.lineno) - 1
        # Only where it has its lines for itself, as ruff format leaves it.
        before = lines[first].encode()[: apart.col_offset]
        after = lines[last].encode()[apart.end_col_offset :]
        if not (before + after).strip():
            lines[first : last + 1] = [""] * (last + 1 - first)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def code_hash(modules: Iterable[str]) -> str:
    """Hash of the `essence` of gomhc modules as they are now.

    Args:
        modules: dotted names.

    Returns:
        A sha256 in hexadecimal, of what makes results: comments, docstrings and statements
        `if …: raise …` do not count.

    Raises:
        ValueError: if there is no such module.
    """
    total = hashlib.sha256()
    for module in sorted(modules):
        file = source_of(module)
        if file is None:
            raise ValueError(f"expected a module of gomhc, got {module!r}")
        code = hashlib.sha256(essence(file.read_text(encoding="utf-8")).encode()).hexdigest()
        total.update(f"{module} {code}\n".encode())
    return total.hexdigest()


def parts(modules: Iterable[str], ran_on: str) -> tuple[str, ...]:
    """Those of a closure's modules that run on a device, named as in provenance."""
    return tuple(
        module for module in modules if module not in FOR_GPUS or not ran_on.startswith("CPU")
    )


def made_by(record: Record, modules: Iterable[str]) -> bool:
    """Whether a closure's code as it is now has made a record, on whatever device."""
    return code_hash(parts(modules, record.provenance.device)) == record.provenance.code


def is_current(record: Record) -> bool:
    """Whether the code that made the record is the code that is here now (see `code_hash`)."""
    modules = record.provenance.modules
    return all(map(source_of, modules)) and code_hash(modules) == record.provenance.code


def describe(record: Record) -> str:
    """One Markdown sentence: when, at which commit, where and how long the record was made.

    It ends with whether the code has changed since; that stands in bold type where it has.

    Args:
        record: what to describe.

    Returns:
        The sentence.
    """
    made = record.provenance
    commit = f"commit `{made.commit[:7]}`" if made.commit != "unknown" else "an unknown commit"
    if made.dirty:
        commit += " with changes not committed"
    torch = made.versions.get("torch", "of unknown version").partition("+")[0]
    if is_current(record):
        since = "the code it ran has not changed since."
    else:
        since = "**the code it ran has changed since.**"
    ran = f"on {made.device} in {duration(made.wall_seconds)} (torch {torch})"
    return f"Made on {made.started[:10]} at {commit} {ran}; {since}"


def duration(seconds: float | int) -> str:
    """A time to two or three digits in the unit that suits it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{seconds / 3600:.1f} h"


# Making


def make(
    name: str,
    module: str,
    run: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
    config: dict[str, Any],
    seeds: Sequence[int] = (),
) -> Record:
    """Run an experiment and record what it found and how.

    Args:
        name: of the record, "study/unit".
        module: dotted name of the gomhc module whose code runs.
        run: called as `run(**config)`, returns (metrics, series), such as a studies' Outcome.
        config: its arguments, plain JSON.
        seeds: every seed that the run uses, as a note.

    Returns:
        The record; `save` stores it.

    Raises:
        RecordError: if the name or the config cannot be stored, or a source has changed during the
            run, so that nobody could tell which code ran.
        ValueError: if there is no such module.
    """
    check_name(name, name)
    check_json(config, f"{name}: config")
    modules = closure(module)
    code = code_hash(modules)
    commit, dirty = repository(modules)
    allocations = gpu_allocations()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    wall, cpu = time.perf_counter(), cpu_time()
    metrics, series = run(**copy.deepcopy(config))
    wall, cpu = time.perf_counter() - wall, cpu_time() - cpu
    if code_hash(modules) != code:
        raise RecordError(f"{name}: expected sources that stay as they are, got a change in a run")
    ran_on = device(allocations)
    modules = parts(modules, ran_on)
    provenance = Provenance(
        commit=commit,
        dirty=dirty,
        code=code_hash(modules),
        modules=modules,
        seeds=tuple(seeds),
        device=ran_on,
        versions=versions(modules),
        started=started,
        wall_seconds=round(wall, 3),
        cpu_seconds=round(cpu, 3),
    )
    return Record(name, config, metrics, series, provenance)


def cpu_time() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def git(*arguments: str, folder: Path | None = None) -> str | None:
    """What git says in a folder, by default the package's, or None if it cannot tell."""
    # In a hook of another repository, GIT_DIR and its kin would point there.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder or PACKAGE), *arguments]
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def repository(modules: Iterable[str]) -> tuple[str, bool]:
    """(commit, whether the modules' sources differ from it); "unknown" outside a repository."""
    commit = git("rev-parse", "HEAD")
    # Installed inside somebody else's repository, say in their .venv, gomhc is not tracked there.
    if commit is None or git("ls-files", "--error-unmatch", "__init__.py") is None:
        return "unknown", False
    files = [str(file) for module in modules if (file := source_of(module))]
    changes = git("status", "--porcelain", "--untracked-files=all", "--", *files)
    return commit, changes != ""


def gpu_allocations() -> int:
    """How many allocations this process has made on a GPU so far."""
    import torch

    counts = torch.cuda.memory_stats() if torch.cuda.is_initialized() else {}
    return int(counts.get("allocation.all.allocated", 0))


def device(allocations: int) -> str:
    """The GPU if it was used since that count of allocations, else the CPU and its threads."""
    return device_name(gpu=gpu_allocations() > allocations)


def device_name(*, gpu: bool) -> str:
    """The GPU's name, or the CPU with the threads that torch uses there."""
    import torch

    if gpu:
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Of Python, gomhc, torch, NumPy, SciPy and what else the modules import and have loaded."""
    used = {name.split(".")[0] for module in modules for name in imports(module)}
    others = (used & set(sys.modules)) - set(sys.stdlib_module_names)
    named = {"python": platform.python_version()}
    for name in ["gomhc", "torch", "numpy", "scipy", *sorted(others)]:
        try:
            named.setdefault(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            named.setdefault(name, "unknown")
    return named
