"""`make release`: what it holds, that its manifest is true, and that an edit is noticed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from pypdf import PdfWriter

from book.tools.build import RENDERED_FROM, sources
from book.tools.execute import digest
from book.tools.pdf import join
from book.tools.release import MANIFEST, SUMS, ReleaseError, check, release
from gomhc.companion.git import git

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = """\
[build-system]
requires = ["setuptools>=77.0.3"]
build-backend = "setuptools.build_meta"
[project]
name = "gomhc"
version = "9.9"
readme = "README.md"
license-files = ["LICENSE"]
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A project of one tiny notebook, with a book and a release."""
    root = tmp_path_factory.mktemp("project")
    executed, html = root / "_build" / "executed" / "book", root / "_build" / "html"
    for folder in (executed, html / "notebooks", root / "gomhc", root / "notebooks"):
        folder.mkdir(parents=True)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n  - file: notebooks/tiny\n"
    )
    for name, text in {
        "requirements.lock": "torch==2.13.0\n",
        "pyproject.toml": PYPROJECT,
        "README.md": "# Tiny\n",
        "CITATION.cff": "title: Tiny\n",
        ".zenodo.json": "{}\n",
        "LICENSE": "None\n",
        "gomhc/__init__.py": "",
        "_build/html/index.html": "<h1>Tiny</h1>",
        "_build/html/notebooks/tiny.html": "tiny",
    }.items():
        (root / name).write_text(text)
    notebook = new_notebook(cells=[new_code_cell("1 + 1", id="a")])
    nbformat.write(notebook, root / "notebooks" / "tiny.ipynb")
    source = digest(root, [root / "notebooks" / "tiny.ipynb"])
    notebook.metadata["gomhc"] = {"source": source, "profile": "book", "seed": 0}
    nbformat.write(notebook, executed / "tiny.ipynb")
    stamp(root)
    release(root)
    return root


def stamp(root, **changed):
    """What `make book` would leave."""
    about = {"profile": "book", "sources": sources(root), "inputs": "abc"} | changed
    (root / "_build" / "html" / RENDERED_FROM).write_text(json.dumps(about))


@pytest.fixture
def project(original, tmp_path) -> Path:
    """A project with its book, which a test may spoil."""
    return shutil.copytree(original, tmp_path / "project")


@pytest.fixture
def copy(original, tmp_path) -> Path:
    """A release that a test may spoil."""
    return shutil.copytree(original / "_build" / "release", tmp_path / "release")


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_release_holds_all_its_parts(original):
    names = {path.name for path in (original / "_build" / "release").iterdir()}
    distributed = {"gomhc-9.9-py3-none-any.whl", "gomhc-9.9.tar.gz"}
    assert names == {"gomhc-book.zip", MANIFEST, SUMS, "CITATION.cff", ".zenodo.json"} | distributed


def test_the_repository_is_archived_at_its_commit(project):
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (project / ".gitignore").write_text("_build/\n")
    git(project, "init")
    git(project, "add", ".")
    git(project, *me, "commit", "-m", "one")
    (project / "later").write_text("")
    with zipfile.ZipFile(release(project) / "gomhc-source.zip") as archive:
        names = archive.namelist()
        assert {"gomhc/CITATION.cff", "gomhc/notebooks/tiny.ipynb"} <= set(names)
        assert "gomhc/later" not in names
        assert archive.comment.decode() == git(project, "rev-parse", "HEAD")


def test_manifest_is_true_of_files_and_notebooks(original):
    folder = original / "_build" / "release"
    listed = json.loads((folder / MANIFEST).read_text())
    others = {path.name for path in folder.iterdir()} - {MANIFEST, SUMS}
    assert set(listed["files"]) == others
    for name, entry in listed["files"].items():
        assert entry == {"bytes": (folder / name).stat().st_size, "sha256": hashed(folder / name)}
    tiny = listed["notebooks"]["tiny"]
    assert tiny["source_sha256"] == hashed(original / "notebooks" / "tiny.ipynb")
    assert tiny["executed_sha256"] == hashed(original / "_build/executed/book/tiny.ipynb")
    assert tiny["run"]["profile"] == "book" and tiny["run"]["seed"] == 0
    assert listed["lock_sha256"] == hashed(original / "requirements.lock")


def test_sums_are_those_that_sha256sum_reads(original):
    command = ["sha256sum", "--check", "--strict", SUMS]
    folder = original / "_build" / "release"
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def test_zip_is_the_book_and_the_same_every_time(original, tmp_path):
    before = hashed(original / "_build" / "release" / "gomhc-book.zip")
    os.utime(original / "_build" / "html" / "index.html", (10**9, 10**9))  # another year
    assert hashed(release(original) / "gomhc-book.zip") == before
    with zipfile.ZipFile(original / "_build" / "release" / "gomhc-book.zip") as archive:
        assert archive.namelist() == ["gomhc-book/index.html", "gomhc-book/notebooks/tiny.html"]
        assert archive.read("gomhc-book/index.html") == b"<h1>Tiny</h1>"


def test_a_release_is_checked_from_the_command_line(copy):
    command = [sys.executable, "-m", "book.tools.release", "--check", str(copy)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    (copy / "gomhc-book.zip").write_bytes(b"another")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "gomhc-book.zip" in done.stderr


def test_a_folder_without_a_release_is_none(tmp_path):
    with pytest.raises(ReleaseError, match=f"expected a release in .* found no {SUMS}"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["gomhc-book.zip", "gomhc-9.9.tar.gz", MANIFEST])
def test_an_edit_is_noticed(copy, name):
    check(copy)
    path = copy / name
    path.write_bytes(path.read_bytes().replace(b"t", b"u", 1) + b" ")
    with pytest.raises(ReleaseError, match=rf"files of {SUMS}.*{name} \(altered\)"):
        check(copy)


def test_an_edit_with_new_sums_is_noticed_by_the_manifest(copy):
    path = copy / "gomhc-book.zip"
    sums = (copy / SUMS).read_text()
    old = hashed(path)
    path.write_bytes(b"another")
    (copy / SUMS).write_text(sums.replace(old, hashed(path)))
    with pytest.raises(ReleaseError, match=rf"files of {MANIFEST}.*gomhc-book\.zip"):
        check(copy)


@pytest.mark.parametrize("content", ['{"files": ', "[]", '{"files": {"a": 1}}', "{}"])
def test_a_manifest_that_is_none_is_named(copy, content):
    sums, old = (copy / SUMS).read_text(), hashed(copy / MANIFEST)
    (copy / MANIFEST).write_text(content)
    (copy / SUMS).write_text(sums.replace(old, hashed(copy / MANIFEST)))
    with pytest.raises(ReleaseError, match=f"expected a whole {MANIFEST}"):
        check(copy)


def test_damaged_sums_and_folders_between_the_files_are_named(copy):
    (copy / "extra").mkdir()
    with pytest.raises(ReleaseError, match=rf"files of {SUMS}.*extra \(not listed\)"):
        check(copy)
    (copy / SUMS).write_bytes(b"\xc7\xff" * 50)
    with pytest.raises(ReleaseError, match=f"files of {SUMS}"):
        check(copy)


@pytest.mark.parametrize("change", ["missing", "added"])
def test_a_missing_or_added_file_is_noticed(copy, change):
    if change == "missing":
        (copy / "gomhc-9.9.tar.gz").unlink()
    else:
        (copy / "new.txt").touch()
    with pytest.raises(ReleaseError, match="expected the files of"):
        check(copy)


@pytest.mark.parametrize(
    "name",
    ["gomhc/__init__.py", "notebooks/tiny.ipynb", "_toc.yml", "requirements.lock", "book/page.md"],
)
def test_pages_of_other_sources_are_not_released(project, name):
    (project / name).parent.mkdir(exist_ok=True)
    with (project / name).open("a") as file:
        file.write("\n")
    with pytest.raises(ReleaseError, match="pages of the project as it is, got older ones"):
        release(project)
    check(project / "_build" / "release")  # the last good one stands


def test_a_notebook_that_changed_since_its_run_is_not_released(project):
    source = project / "notebooks" / "tiny.ipynb"
    source.write_bytes(source.read_bytes().replace(b"1 + 1", b"1 + 2"))
    stamp(project)
    with pytest.raises(ReleaseError, match="tiny as it was executed, it has changed"):
        release(project)


def test_pages_of_another_profile_are_not_released(project):
    shutil.copytree(project / "_build/executed/book", project / "_build/executed/full")
    with pytest.raises(ReleaseError, match="pages of profile 'full' in _build/html, got 'book'"):
        release(project, "full")
    (project / "_build" / "html" / RENDERED_FROM).write_text("of an older build")
    with pytest.raises(ReleaseError, match="pages of profile 'book' in _build/html, got None"):
        release(project)


def test_a_pdf_of_other_pages_is_not_released(project):
    page = project / "page.pdf"
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(page)
    pdf = project / "_build" / "gomhc-book.pdf"
    join([("Tiny", page)], pdf, "abd")
    with pytest.raises(ReleaseError, match=r"gomhc-book\.pdf of these pages, got that of others"):
        release(project)
    join([("Tiny", page)], pdf, "abc")
    assert (release(project) / pdf.name).exists()


def test_a_release_needs_a_book(tmp_path):
    with pytest.raises(ReleaseError, match="run 'make book' first"):
        release(tmp_path)


def test_archives_hold_what_the_library_reads():
    """Patterns of the package's data: a record or a script left out would show only at a user's."""
    import tomllib

    import gomhc

    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = Path(gomhc.__file__).parent
    data = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    data = {path for path in data if "__pycache__" not in path.parts}
    listed = {p for pattern in tools["package-data"]["gomhc"] for p in package.glob(pattern)}
    assert data == listed
