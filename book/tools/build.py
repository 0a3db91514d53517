"""Build the book: execute its notebooks, stage a clean source tree, render it, swap it in.

Run it from the project's root: `python -m book.tools.build --profile book`. Everything happens
under `_build/`; `_build/html` is the last good book and is replaced by a rename at the very end, so
a failure on the way leaves it as it was.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from sphinx_external_toc.parsing import parse_toc_yaml

from book.tools.dress import commit, dress
from book.tools.execute import NotebookError, digest, execute, files_under
from book.tools.finish import finish
from book.tools.generated import part, wanted
from book.tools.launch import add_launch_buttons
from book.tools.modules import join
from book.tools.repository import RepositoryError, checked
from gomhc.companion.parameters import PROFILES
from gomhc.files import replacing

ROOT = Path(__file__).resolve().parents[2]
# Kept inside the book, so that one rename swaps the pages and what they were made from: a profile,
# the hash of the project's sources, and that of what was rendered.
RENDERED_FROM = ".rendered-from"

EXECUTION_PAGE = """\
# Execution status

Every notebook of this book was executed by papermill before it was rendered; a notebook is
executed anew when its source, the library, the locked packages or its parameters change. A book is
built only where all have run to their end. The memory is the largest that any of a notebook's
processes held, on the CPU's side.

| Notebook | Result | Profile | Seed | Time | Memory | Started (UTC) | Source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


class RenderError(Exception):
    """Jupyter Book failed, or warned."""


def notebooks(root: Path) -> list[str]:
    """Names of the notebooks in the table of contents, in its order."""
    documents = [Path(name) for name in parse_toc_yaml(root / "_toc.yml")]
    return [name.stem for name in documents if name.parent == Path("notebooks")]


def sources(root: Path) -> str:
    """Hash of everything in the project that its pages depend on."""
    names = (
        "_config.yml",
        "_toc.yml",
        "requirements.lock",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    )
    files = [*(root / "notebooks").glob("*.ipynb"), *(root / name for name in names)]
    folders = [*files_under(root / "gomhc"), *files_under(root / "book")]
    return digest(root, [*folders, *(file for file in files if file.exists())])


def rendered_from(html: Path) -> dict[str, str]:
    """What a built book says of its making: `profile`, `sources`, `inputs`; empty if nothing."""
    try:
        stamp = json.loads((html / RENDERED_FROM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def memory(size: int | None) -> str:
    """A peak of memory in words."""
    return f"{size / 2**20:,.0f} MiB" if size else "not measured"


def machines(runs: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each machine and set of versions, and the notebooks that ran there."""
    places: dict[str, list[str]] = {}
    for name, run in runs.items():
        versions = ", ".join(map(" ".join, sorted(run["versions"].items())))
        place = f"{run['ran_on']} ({run['machine']}), with {versions}"
        places.setdefault(place, []).append(name.split("-")[0])
    return [f"Notebooks {', '.join(names)} ran on {place}." for place, names in places.items()]


def execution_page(runs: dict[str, dict[str, Any]]) -> str:
    """The page that says where and when each notebook ran, from the notebooks themselves."""
    return (
        EXECUTION_PAGE
        + "".join(
            f"| [](../notebooks/{name}.ipynb) | all {run['cells']} cells ran | {run['profile']} "
            f"| {run['seed']} | {run['seconds']} s | {memory(run['peak_bytes'])} "
            f"| {run['started'][:16].replace('T', ' ')} | `{run['source'][:7]}` |\n"
            for name, run in runs.items()
        )
        + "".join(f"\n{where}\n" for where in machines(runs))
    )


def stage(root: Path, executed: Path, runs: dict[str, dict[str, Any]]) -> Path:
    """Lay out what Jupyter Book reads, and nothing else, in `_build/source`."""
    source = root / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("tools"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    (source / "notebooks").mkdir()
    revision = commit(root)
    for name in runs:
        notebook = nbformat.read(executed / f"{name}.ipynb", as_version=4)
        dressed = dress(notebook, name, revision)
        nbformat.write(dressed, source / "notebooks" / f"{name}.ipynb")
    if (script := root / "gomhc" / "companion" / "figures" / "knob.js").exists():
        shutil.copy(script, source / "book" / "static")
    if (modules := source / "book" / "static" / "play").exists():
        (source / "book" / "static" / "play.js").write_text(join(modules / "main.js"), "utf-8")
        shutil.rmtree(modules)
    (source / "book" / "execution.md").write_text(execution_page(runs), encoding="utf-8")
    (source / "book" / "generated").mkdir()
    for name in wanted(source / "book"):
        file = source / "book" / "generated" / f"{name}.md"
        file.write_text(part(name, root), encoding="utf-8")
    return source


def render(root: Path, source: Path, about: dict[str, str]) -> bool:
    """Bring `_build/html` up to date with `source`; say whether that took a render.

    Args:
        root: The project.
        source: What `stage` has laid out.
        about: Profile and sources, for the book's stamp.

    Raises:
        RenderError: If Jupyter Book fails or warns.
    """
    html = root / "_build" / "html"
    folders = (source, root / "gomhc", root / "book" / "tools")
    needs = [file for folder in folders for file in files_under(folder)]
    inputs = digest(root, [*needs, root / "requirements.lock"], os.environ.get("SITE_URL"))
    stamp = json.dumps(about | {"inputs": inputs})
    if rendered_from(html).get("inputs") == inputs:
        with replacing(html / RENDERED_FROM) as draft:
            draft.write_text(stamp, encoding="utf-8")
        return False

    output, old = root / "_build" / "render", root / "_build" / "html.old"
    for leftover in (output, old):
        shutil.rmtree(leftover, ignore_errors=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", str(output), "--all", "--quiet", "--warningiserror", "--keep-going"]
    done = subprocess.run(
        [jupyter_book, "build", source, *options],
        stdout=subprocess.DEVNULL,  # it would name the temporary path; warnings go to stderr
        check=False,
    )
    if done.returncode:
        raise RenderError("expected a render without warnings, got those above")

    fresh = output / "_build" / "html"
    finish(fresh, os.environ.get("SITE_URL", ""))
    (fresh / RENDERED_FROM).write_text(stamp, encoding="utf-8")
    if html.exists():
        html.rename(old)
    fresh.rename(html)
    shutil.rmtree(old, ignore_errors=True)
    return True


def build(root: Path, profile: str, repository: str | None = None) -> Path:
    """Execute, stage and render the book of the project at `root`; return its first page."""
    about = {"profile": profile, "sources": sources(root)}  # as they are before the first run
    executed = root / "_build" / "executed" / profile
    parameters = {"profile": profile, "seed": 0, "device": "auto"}
    runs = {}
    for name in notebooks(root):
        clock = time.perf_counter()
        source, target = root / "notebooks" / f"{name}.ipynb", executed / f"{name}.ipynb"
        print(f"{name} …", end=" ", flush=True)
        runs[name] = execute(root, source, target, parameters)
        print(f"{time.perf_counter() - clock:.1f} s (its run took {runs[name]['seconds']} s)")

    clock = time.perf_counter()
    source = stage(root, executed, runs)
    if repository:
        add_launch_buttons(source, repository)
    fresh = render(root, source, about)
    print(f"render … {time.perf_counter() - clock:.1f} s{'' if fresh else ' (unchanged)'}")
    return root / "_build" / "html" / "index.html"


def main() -> int:
    """Command line; the exit status is 0 only for a whole book."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="book", help="size of the runs")
    parser.add_argument("--repository", help="URL of the repository with the Colab editions")
    asked = parser.parse_args()
    try:
        repository = checked(asked.repository) if asked.repository else None
        page = build(ROOT, asked.profile, repository)
    except (NotebookError, RenderError, RepositoryError) as error:
        print(f"\n{error}\n\nNo book was built; _build/html is as it was.", file=sys.stderr)
        return 1
    print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
