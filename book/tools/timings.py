"""How long the notebooks take: gathered from executed ones, kept in `book/timings.json`.

Run it after `make book`, in whatever profile: `python -m book.tools.timings`. It adds what
`_build/executed` holds and keeps what was measured before, one entry for a notebook and profile.
"""

import ast
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import nbformat

from gomhc.companion.records import duration, shipped, shipped_names
from gomhc.files import replacing

ROOT = Path(__file__).resolve().parents[2]
KEPT = "timings.json"
Timings = dict[str, dict[str, dict[str, Any]]]  # notebook -> profile -> seconds, ran_on, date


def executed(root: Path) -> list[Path]:
    """The notebooks that were executed in `root`, in whatever profile."""
    return sorted((root / "_build" / "executed").glob("*/*.ipynb"))


def gather(root: Path, known: Timings) -> Timings:
    """`known`, brought up to date from the notebooks that were executed in `root`."""
    timings = {name: dict(profiles) for name, profiles in known.items()}
    for path in executed(root):
        run = nbformat.read(path, as_version=4).metadata.get("gomhc")
        if run and not path.name.endswith(".partial.ipynb"):
            timings.setdefault(path.stem, {})[run["profile"]] = {
                "seconds": run["seconds"],
                "ran_on": run["ran_on"],
                "date": run["started"][:10],
            }
    return {name: dict(sorted(timings[name].items())) for name in sorted(timings)}


def read(root: Path) -> Timings:
    """What was measured so far."""
    path = root / "book" / KEPT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def studies(notebook: nbformat.NotebookNode) -> set[str]:
    """The studies that a notebook imports: in the full profile it runs them anew.

    Not the stored trainings of language models, of which it imports the plan alone.
    """
    names = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            source = "\n".join(line for line in cell.source.split("\n") if line[:1] not in "%!")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and node.module == "gomhc.companion.studies":
                    names |= {alias.name for alias in node.names}
    return {name.replace("_", "-") for name in names}


def stored_seconds(notebook: nbformat.NotebookNode) -> float:
    """What the stored records of those studies took, all together."""
    wanted = studies(notebook)
    names = [name for name in shipped_names() if name.split("/")[0] in wanted]
    return sum(shipped(name).provenance.wall_seconds for name in names)


def sentence(notebook: nbformat.NotebookNode, timings: dict[str, dict[str, Any]]) -> str:
    """How long a notebook takes in each profile, as far as anybody has measured it."""
    said = [
        f"`{profile}` took {duration(timings[profile]['seconds'])} on {timings[profile]['ran_on']} "
        f"({date.fromisoformat(timings[profile]['date']):%-d %B %Y})"
        for profile in ("smoke", "book", "full")
        if profile in timings
    ]
    if "full" not in timings:
        seconds = stored_seconds(notebook)
        said.append(
            f"`full` was not timed as a whole; the stored records of the studies that it repeats "
            f"took {duration(seconds)}"
            if seconds
            else "`full` was not timed yet"
        )
    return "; ".join(said) + "."


def table(timings: Timings) -> str:
    """The measured times as a Markdown table, a row a notebook and a column a profile."""

    def cell(run: dict[str, Any] | None) -> str:
        return f"{duration(run['seconds'])} ({run['ran_on']})" if run else "not timed"

    profiles = ("smoke", "book", "full")
    lines = [f"| Notebook | {' | '.join(f'`{profile}`' for profile in profiles)} |"]
    lines.append("| --- | --- | --- | --- |")
    for name, measured in timings.items():
        times = " | ".join(cell(measured.get(profile)) for profile in profiles)
        lines.append(f"| {name} | {times} |")
    return "How long the notebooks took, where that was measured:\n\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Command line."""
    timings = gather(ROOT, read(ROOT))
    if not executed(ROOT):
        print("expected executed notebooks in _build/executed, found none", file=sys.stderr)
        return 1
    path = ROOT / "book" / KEPT
    with replacing(path) as draft:
        draft.write_text(json.dumps(timings, indent=1) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {sum(map(len, timings.values()))} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
