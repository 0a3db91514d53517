"""Parts of pages that the build writes: from records, from the run, from the project's own files.

A page includes one from `generated/`, as `book/tour.md` does the headlines. What no page includes
is not made.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from book.tools.timings import read as read_timings
from book.tools.timings import table as timings_table
from gomhc.companion.git import git, head

__all__ = ["part", "wanted"]

INCLUDE = re.compile(r"^```\{include\} generated/([\w-]+)\.md$", re.MULTILINE)
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
    "mixing-letters",
    "streams-letters",
    "language-model",
)
# Those of the first page.
THREE = ("exact", "ten-times-tuned", "mixing-letters")


def wanted(folder: Path) -> Iterator[str]:
    """Names of the parts that pages in a folder include."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md"))]
    yield from dict.fromkeys(name for page in pages for name in INCLUDE.findall(page))


def part(name: str, root: Path) -> str:
    """One part, in Markdown.

    Args:
        name: `headlines` for the claims of the tour, `three` for those of the first page,
            `answer-…` for what `gomhc.companion.claims.answer` says, `mixers-keep`, `mixers-cost`
            and `mixers-speed` for the tables of all mixers, `timings` for how long chapters take,
            `citation`, `bibtex`, `contributing` and `changelog` for what the project's files say,
            `release` for which release this copy of the book is.
        root: The project.

    Raises:
        ValueError: If there is no such part.
    """
    if name == "timings":
        return timings_table(read_timings(root))
    if name == "citation":
        return f"```yaml\n{(root / 'CITATION.cff').read_text(encoding='utf-8')}```\n"
    if name == "bibtex":
        return f"```bibtex\n{bibtex(root)}```\n"
    if name == "contributing":
        page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
        return page.removeprefix("# Contributing\n").replace("\n## ", "\n### ")
    if name == "changelog":
        page = (root / "CHANGELOG.md").read_text(encoding="utf-8")
        return page.removeprefix("# Changelog\n").replace("\n##", "\n###")
    if name == "release":
        return which_release(root)
    if name.startswith("mixers-"):
        from gomhc.companion import overview

        tables = {"keep": overview.keeps, "cost": overview.costs, "speed": overview.speeds}
        return tables[name.removeprefix("mixers-")]()
    from gomhc.companion.claims import answer, ledger, ledger_list, ledger_table  # takes seconds

    if name.startswith("answer-"):
        return answer(name.removeprefix("answer-")) + "\n"
    shown = {"headlines": HEADLINES, "three": THREE}.get(name)
    if shown is not None:
        entries = [entry for entry in ledger() if entry.id in shown]
        return ledger_list(entries) if name == "three" else ledger_table(entries)
    raise ValueError(f"expected a part that the build writes, got {name!r}")


def which_release(root: Path) -> str:
    """The release that a build of the project is, or the commit that it is of, in sentences."""
    version = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    checkout = head(root)
    if checkout is None:
        return f"This copy of the book is of version {version}, built outside of a git checkout.\n"
    commit = f"commit `{checkout.commit[:12]}`"
    changes = ", with changes that are not committed" if checkout.dirty else ""
    tagged = f"v{version}" in git(root, "tag", "--points-at", "HEAD").splitlines()
    if tagged and not changes:
        return f"This copy of the book is **release {version}**, {commit}.\n"
    return (
        f"This copy of the book is **no release**: it was built from {commit}{changes}, on the way "
        f"to version {version}. What it says may change.\n"
    )


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
