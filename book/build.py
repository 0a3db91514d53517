"""Build the book: execute its notebooks, stage a clean source tree, render it, swap it in.

Run it from the project's root: `python -m book.build --profile book`. Everything happens under
`_build/`; `_build/html` is the last good book and is replaced by a rename at the very end, so a
failure on the way leaves it as it was.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from sphinx_external_toc.parsing import parse_toc_yaml

from book.execute import NotebookError, digest, execute, files_under

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("smoke", "book", "full")
# Kept inside the book, so that one rename swaps the pages and what they were made from.
RENDERED_FROM = ".rendered-from"
# What a page includes from book/generated/ is written by the build, see `generated`.
GENERATED = re.compile(r"^```\{include\} generated/([\w-]+)\.md$", re.MULTILINE)
# The claims that the tour shows.
HEADLINES = (
    "exact",
    "cubic-cost",
    "dial",
    "fills-polytope",
    "spectrum-is-evidence",
    "minimum-reached",
    "minimum-is-bound",
    "ten-times-lite",
    "ten-times-tuned",
    "ten-times-corrected",
    "composition",
    "mixing-book",
    "mixing-full",
    "language-model",
)

EXECUTION_PAGE = """\
# Execution status

Every notebook of this book was executed by papermill before it was rendered; a notebook is
executed anew when its source, the library, the locked packages or its parameters change.

| Notebook | Profile | Seed | Wall time | Started (UTC) | Ran on | torch | Source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


class RenderError(Exception):
    """Jupyter Book failed, or warned."""


def notebooks(root: Path) -> list[str]:
    """Names of the notebooks in the table of contents, in its order."""
    documents = [Path(name) for name in parse_toc_yaml(root / "_toc.yml")]
    return [name.stem for name in documents if name.parent == Path("notebooks")]


def execution_page(runs: dict[str, dict[str, Any]]) -> str:
    """The page that says where and when each notebook ran, from the notebooks themselves."""
    return EXECUTION_PAGE + "".join(
        f"| [](../notebooks/{name}.ipynb) | {run['profile']} | {run['seed']} | {run['seconds']} s "
        f"| {run['started'][:16].replace('T', ' ')} | {run['ran_on']} | {run['versions']['torch']} "
        f"| `{run['source'][:7]}` |\n"
        for name, run in runs.items()
    )


def generated(name: str) -> str:
    """A part of a page, made from the records that the library ships.

    Args:
        name: `verdicts` for the whole ledger at a glance, `headlines` for the claims of the tour,
            `answer-…` for what `gomhc.claims.answer` says; `citation`, `bibtex` and `contributing`
            for what the repository's files say.
    """
    if name == "citation":
        return f"```yaml\n{(ROOT / 'CITATION.cff').read_text(encoding='utf-8')}```\n"
    if name == "bibtex":
        return f"```bibtex\n{bibtex(ROOT)}```\n"
    if name == "contributing":
        page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        return page.removeprefix("# Contributing\n").replace("\n## ", "\n### ")
    from gomhc.claims import answer, ledger, ledger_summary, ledger_table  # takes seconds

    if name.startswith("answer-"):
        return answer(name.removeprefix("answer-")) + "\n"
    entries = ledger()
    if name == "headlines":
        return ledger_table(entry for entry in entries if entry.id in HEADLINES)
    if name == "verdicts":
        return f"{ledger_summary(entries)}\n\n{ledger_table(entries)}"
    raise ValueError(f"expected a part that the build writes, got {name!r}")


def bibtex(root: Path) -> str:
    """The paper's entry of the references, and one of the book out of the project's files."""
    references = (root / "book" / "references.bib").read_text(encoding="utf-8")
    paper = next(e for e in references.split("\n\n") if e.startswith("@misc{dandachi2026gomhc,"))
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return f"""\
{paper}

@misc{{gomhc,
  title = {{{{{citation["title"]}}}}},
  author = {{{{{citation["authors"][0]["name"]}}}}},
  year = {{{config["copyright"]}}},
  note = {{Version {citation["version"]}}}
}}
"""


def stage(root: Path, executed: Path, runs: dict[str, dict[str, Any]]) -> Path:
    """Lay out what Jupyter Book reads, and nothing else, in `_build/source`."""
    source = root / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        root / "book", source / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    (source / "notebooks").mkdir()
    for name in runs:
        shutil.copy(executed / f"{name}.ipynb", source / "notebooks")
    (source / "book" / "execution.md").write_text(execution_page(runs), encoding="utf-8")
    pages = [page.read_text(encoding="utf-8") for page in (source / "book").glob("*.md")]
    (source / "book" / "generated").mkdir()
    for name in {name for page in pages for name in GENERATED.findall(page)}:
        part = source / "book" / "generated" / f"{name}.md"
        part.write_text(generated(name), encoding="utf-8")
    return source


def render(root: Path, source: Path) -> bool:
    """Bring `_build/html` up to date with `source`; say whether that took a render."""
    html = root / "_build" / "html"
    needs = [*files_under(source), *files_under(root / "gomhc"), *(root / "book").glob("*.py")]
    inputs = digest(root, [*needs, root / "requirements.lock"])
    stamp = html / RENDERED_FROM
    if stamp.exists() and stamp.read_text() == inputs:
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
    (fresh / RENDERED_FROM).write_text(inputs)
    if html.exists():
        html.rename(old)
    fresh.rename(html)
    shutil.rmtree(old, ignore_errors=True)
    return True


def build(root: Path, profile: str) -> Path:
    """Execute, stage and render the book of the project at `root`; return its first page."""
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
    fresh = render(root, stage(root, executed, runs))
    print(f"render … {time.perf_counter() - clock:.1f} s{'' if fresh else ' (unchanged)'}")
    return root / "_build" / "html" / "index.html"


def main() -> int:
    """Command line; the exit status is 0 only for a whole book."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="book", help="size of the runs")
    profile = parser.parse_args().profile
    try:
        page = build(ROOT, profile)
    except (NotebookError, RenderError) as error:
        print(f"\n{error}\n\nNo book was built; _build/html is as it was.", file=sys.stderr)
        return 1
    print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
