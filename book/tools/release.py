"""Build what a release holds: book and repository as zips, wheel, source archive, checksums.

Run it after `make book`: `python -m book.tools.release`. Pages, PDF and library must be of the same
sources. Everything goes to `_build/release`, replaced as a whole at the very end. The same book
gives the same zip, byte by byte; `--check` reads a release again and fails on any file that is not
what its manifest says.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nbformat

from book.tools.build import PROFILES, RENDERED_FROM, notebooks, rendered_from, sources
from book.tools.execute import digest, files_under
from book.tools.pdf import inputs_of
from gomhc.companion.git import git, head

ROOT = Path(__file__).resolve().parents[2]
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
METADATA = ("CITATION.cff", ".zenodo.json")
SCHEMA = 1
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


class ReleaseError(Exception):
    """A release that cannot be built, or is not what it says; the message says why."""


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def zip_book(html: Path, target: Path, top: str) -> None:
    """Pack a folder: names sorted, one time stamp and one mode for all, so that nothing varies."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files_under(html)):
            name = path.relative_to(html).as_posix()
            if name != RENDERED_FROM:
                entry = zipfile.ZipInfo(f"{top}/{name}", EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def check_pages(root: Path, profile: str) -> None:
    """Raise ReleaseError unless pages, and a PDF if there is one, are of the sources of today."""
    html, pdf = root / "_build" / "html", root / "_build" / "gomhc-book.pdf"
    if not (html / "index.html").exists():
        raise ReleaseError("expected a book in _build/html, found none: run 'make book' first")
    stamp = rendered_from(html)
    if stamp.get("profile") != profile:
        raise ReleaseError(
            f"expected pages of profile {profile!r} in _build/html, got {stamp.get('profile')!r}: "
            f"run 'make book PROFILE={profile}', or release the profile that was built"
        )
    if stamp.get("sources") != sources(root):
        raise ReleaseError(
            "expected pages of the project as it is, got older ones: notebooks, library, book or "
            "lock have changed since; run 'make book'"
        )
    if pdf.exists() and inputs_of(pdf) != stamp["inputs"]:
        raise ReleaseError(
            f"expected {pdf.name} of these pages, got that of others: run 'make pdf', or delete it"
        )


def executed_notebooks(root: Path, profile: str) -> dict[str, dict[str, Any]]:
    """What the manifest says of each notebook: hashes, parameters, and what its run says of itself.

    Raises:
        ReleaseError: If a notebook of the book has not been executed, or has changed since.
    """
    listed = {}
    for name in notebooks(root):
        source = root / "notebooks" / f"{name}.ipynb"
        path = root / "_build" / "executed" / profile / f"{name}.ipynb"
        if not path.exists():
            raise ReleaseError(
                f"expected {name} executed in profile {profile!r}, found none: run "
                f"'make book PROFILE={profile}' first, or release the profile that was built"
            )
        run = dict(nbformat.read(path, as_version=4).metadata.gomhc)
        if run["source"] != digest(root, [source]):
            raise ReleaseError(
                f"expected {name} as it was executed, it has changed: run 'make book'"
            )
        listed[name] = {
            "source_sha256": sha256(source),
            "executed_sha256": sha256(path),
            "run": run,
        }
    return listed


def manifest(
    root: Path, profile: str, executed: dict[str, dict[str, Any]], files: list[Path]
) -> dict[str, Any]:
    """The document that names everything in a release."""
    state = head(root)
    return {
        "schema": SCHEMA,
        "commit": state.commit if state else None,
        "uncommitted_changes": bool(state and state.dirty),
        "profile": profile,
        "lock_sha256": sha256(root / "requirements.lock"),
        "notebooks": executed,
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
        },
    }


def repository(root: Path, folder: Path) -> None:
    """The repository at its commit, and what says to an archive with DOIs what it is.

    Outside of a git checkout there is no commit to archive, and only the wheel's source archive.
    """
    for name in METADATA:
        shutil.copy(root / name, folder)
    if head(root) is not None:
        target = folder / "gomhc-source.zip"
        git(root, "archive", "--format=zip", "--prefix=gomhc/", f"--output={target}", "HEAD")


def distributions(root: Path, folder: Path) -> None:
    """Wheel and source archive, from a copy, with the build tools that are installed."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "gomhc")
        kept = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(root / "gomhc", source / "gomhc", ignore=kept)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, source)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"expected a wheel, build said:\n{done.stdout}{done.stderr}")


def release(root: Path, profile: str = "book") -> Path:
    """Build the release of the project at `root`; return its folder.

    Raises:
        ReleaseError: If there is no whole book of that profile and these sources, the PDF is of
            another one, or a distribution fails to build.
    """
    check_pages(root, profile)
    html = root / "_build" / "html"
    target = root / "_build" / "release"
    draft = target.with_name("release.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    executed = executed_notebooks(root, profile)
    zip_book(html, draft / "gomhc-book.zip", "gomhc-book")
    if (pdf := root / "_build" / "gomhc-book.pdf").exists():
        shutil.copy(pdf, draft)
    repository(root, draft)
    distributions(root, draft)
    listed = manifest(root, profile, executed, sorted(draft.iterdir()))
    (draft / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(draft.iterdir()))
    (draft / SUMS).write_text(sums, encoding="utf-8")
    check(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def agree(what: str, expected: dict[str, str], files: dict[str, str]) -> None:
    """Raise ReleaseError unless the files, by their hashes, are those that `what` lists."""
    wrong = [f"{name} (missing)" for name in expected.keys() - files.keys()]
    wrong += [f"{name} (not listed)" for name in files.keys() - expected.keys()]
    both = expected.keys() & files.keys()
    wrong += [f"{name} (altered)" for name in both if expected[name] != files[name]]
    if wrong:
        raise ReleaseError(f"expected the files of {what}, got others: {', '.join(sorted(wrong))}")


def check(folder: Path) -> None:
    """Compare every file of a release with its manifest and checksums.

    Raises:
        ReleaseError: Naming the files that differ, are missing, or are in neither; or if the
            folder holds no release.
    """
    if not (folder / SUMS).is_file():
        raise ReleaseError(f"expected a release in {folder}, found no {SUMS} there")
    files = {
        path.name: sha256(path) if path.is_file() else "no file"
        for path in folder.iterdir()
        if path.name != SUMS
    }
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    parts = [line.partition("  ") for line in lines]
    agree(SUMS, {name: total for total, _, name in parts}, files)

    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: entry["sha256"] for name, entry in listed["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ReleaseError(f"expected a whole {MANIFEST} in {folder}, got: {error}") from error
    del files[MANIFEST]
    agree(MANIFEST, expected, files)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    said = "of the book in _build (%(default)s)"
    parser.add_argument("--profile", choices=PROFILES, default="book", help=said)
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="verify a release, build none")
    asked = parser.parse_args()
    try:
        if asked.check:
            check(asked.check)
            print(f"{asked.check}: as its manifest says")
            return 0
        folder = release(ROOT, asked.profile)
    except (ReleaseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in sorted(folder.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    if json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["uncommitted_changes"]:
        print("not of one commit: there are uncommitted changes (git status)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
