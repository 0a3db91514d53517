"""Colab editions: what `make colab` writes, and that each runs where there is no gomhc."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_book.config import validate_yaml

from book.tools import colab, timings
from book.tools.build import notebooks
from book.tools.launch import add_launch_buttons
from book.tools.plain import plain
from book.tools.repository import RepositoryError, checked, colab_link, github

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = notebooks(ROOT)
NOBODY = "0" * 40
HUB = "https://github.com/owner/name"


def git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        pytest.skip("not a git checkout")
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def revision() -> str:
    return git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def editions(tmp_path_factory, revision) -> Path:
    folder = tmp_path_factory.mktemp("colab") / "colab"
    colab.write(f"file://{ROOT}", revision, folder)
    return folder


def read(folder: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)


# What an edition is


def test_every_notebook_of_the_book_has_an_edition(editions):
    written = sorted(path.stem for path in (editions / "notebooks").iterdir())
    assert written == sorted(NOTEBOOKS)
    listed = re.findall(r"\]\(notebooks/(.*)\.ipynb\)", (editions / "README.md").read_text())
    assert listed == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_edition_installs_its_commit_first_and_sets_its_profile(editions, revision, name):
    notebook = read(editions, name)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert f"git+file://localhost{ROOT}@{revision}" in code[0]
    assert code[0].startswith("# Installs gomhc")
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    profile = "book" if name in colab.KEEPS else "full"
    assert parameters.source.startswith(f'profile = "{profile}"')
    said = notebook.cells[0].source
    assert f"set to `{profile}`" in said
    assert ("Google Drive" in said) == (name in colab.KEEPS)
    assert "GPU" in said and "**Time.**" in said and revision[:7] in said
    assert "Open in Colab" not in json.dumps(notebook)  # not on GitHub: Colab cannot open it
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_editions_know_which_chapters_use_a_gpu(editions):
    accelerated = [name[:2] for name in NOTEBOOKS if "accelerator" in read(editions, name).metadata]
    assert accelerated == ["01", "03", "06", "07"]


LINKS = [
    (f"{HUB}.git", f"{HUB}/blob/{NOBODY}"),
    (
        "https://gitlab.com/group/part/name.git",
        f"https://gitlab.com/group/part/name/-/blob/{NOBODY}",
    ),
    ("https://gitlab.example.org/o/n", f"https://gitlab.example.org/o/n/-/blob/{NOBODY}"),
    ("https://codeberg.org/o/n", f"https://codeberg.org/o/n/src/commit/{NOBODY}"),
    ("https://bitbucket.org/o/n", f"https://bitbucket.org/o/n/src/{NOBODY}"),
]


@pytest.mark.parametrize(("url", "files"), LINKS)
def test_links_of_editions_lead_to_the_files_of_their_commit(url, files):
    assert linked(url)
    for target in linked(url):
        place, _, path = target.partition(f"{files}/")
        assert not place
        assert (ROOT / path.partition("#")[0]).is_file()


@pytest.mark.parametrize("url", ["file://localhost/somewhere", "https://git.example.org/o/n"])
def test_where_no_forge_is_known_chapters_lie_beside_and_pages_are_words(url):
    assert linked(url)
    assert {target.partition("#")[0] for target in linked(url)} <= {f"{x}.ipynb" for x in NOTEBOOKS}


def linked(url: str) -> list[str]:
    """Targets of the links in all editions but those to papers and programs elsewhere."""
    source = {
        target
        for name in NOTEBOOKS
        for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        for target in re.findall(r"\]\((http[^)]*)\)", cell.source)
    }
    targets = [
        target
        for name in NOTEBOOKS
        for cell in colab.edition(ROOT, name, url, NOBODY).cells
        if cell.cell_type == "markdown"
        for target in re.findall(r"\]\(([^)\s]+)\)", cell.source)
    ]
    elsewhere = ("https://arxiv.org", "https://doi.org", "https://colab.research.google.com")
    cited = {f for entry in colab.citations(ROOT).entries.values() for f in entry.fields.values()}
    return [t for t in targets if not t.startswith(elsewhere) and t not in source | cited]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_edition_has_no_markup_that_colab_would_show_raw(editions, name):
    for cell in read(editions, name).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\{[\w:+-]+\}`|^[`:]{3,}\{|^\([\w-]+\)=|\]\(\.\./", cell.source)


def test_edition_that_github_holds_has_a_badge():
    name = NOTEBOOKS[0]
    notebook = colab.edition(ROOT, name, HUB, NOBODY)
    link = f"https://colab.research.google.com/github/owner/name/blob/colab/notebooks/{name}.ipynb"
    assert f"[Open in Colab]({link})" in notebook.cells[0].source


def test_editions_are_the_same_every_time(editions, revision, tmp_path):
    colab.write(f"file://{ROOT}", revision, tmp_path / "again")
    for name in NOTEBOOKS:
        path = Path("notebooks", f"{name}.ipynb")
        assert (editions / path).read_bytes() == (tmp_path / "again" / path).read_bytes()


# Bad input


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("git@github.com:owner/name.git", "expected the URL of a git repository"),
        ("/somewhere", "expected the URL of a git repository"),
        ("https://github.com", "expected the URL of a git repository"),
        ("ssh://github.com/owner/name", "expected the URL of a git repository"),
        ('https://github.com/owner/name" ; rm', "expected the URL of a git repository"),
        ("https://me:secret@github.com/owner/name", "without a user name"),
    ],
)
def test_what_is_no_public_repository_is_refused(url, message):
    with pytest.raises(RepositoryError, match=message) as error:
        checked(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("wrong", ["main", "6f0f94e", "", "G" * 40, "0" * 41])
def test_what_is_no_full_hash_is_refused(wrong, tmp_path):
    with pytest.raises(RepositoryError, match=r"expected the full hash of a commit.*got"):
        colab.write(f"file://{ROOT}", wrong, tmp_path / "colab")
    assert not (tmp_path / "colab").exists()


def test_a_repository_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RepositoryError, match=r"expected a git repository at file:.*nowhere"):
        colab.write(f"file://{tmp_path}/nowhere", NOBODY, tmp_path / "colab")


def test_a_commit_that_is_not_there_is_named(tmp_path, revision):
    with pytest.raises(RepositoryError, match=rf"expected the commit {NOBODY} in .*is it pushed"):
        colab.write(f"file://{ROOT}", NOBODY, tmp_path / "colab")


def test_editions_there_are_stay_when_new_ones_fail(tmp_path):
    (tmp_path / "colab").mkdir()
    (tmp_path / "colab" / "README.md").write_text(f"{colab.TITLE}\n")
    (tmp_path / "colab" / "kept").touch()
    with pytest.raises(RepositoryError):
        colab.write(f"file://{ROOT}", NOBODY, tmp_path / "colab")
    assert (tmp_path / "colab" / "kept").exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path, revision):
    """`--output` once removed whatever folder it named."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years of work")
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis"):
        with pytest.raises(FileExistsError, match="expected a folder that is new, empty or of ed"):
            colab.write(f"file://{ROOT}", revision, place)
    assert (tmp_path / "mine" / "thesis").read_text() == "years of work"


# Markdown for readers without MyST


@pytest.mark.parametrize(
    ("myst", "common"),
    [
        ("see {cite}`a,b`.", "see <a>, <b>."),
        ("{cite:p}`a` and $x_{i}`$", "<a> and $x_{i}`$"),
        ("{term}`dead start` in {numref}`fig-x`", "dead start in *fig-x*"),
        ("({doc}`how it chooses </book/use-it>`)", "(how it chooses)"),
        ("(label)=\n# Title", "# Title"),
        ("```{admonition} Note\n:class: tip\nA\n\nB\n```", "> **Note**\n>\n> A\n>\n> B"),
        ("::::{dropdown} Solution\nA\n::::\nafter", "> **Solution**\n>\n> A\nafter"),
        ("[](../book/use-it.md)", "[use it](/book/use-it.md)"),
        ("[a](02-derivation.ipynb#b)", "[a](/notebooks/02-derivation.ipynb#b)"),
        ("[web](https://example.org)", "[web](https://example.org)"),
    ],
)
def test_myst_becomes_common_markdown(myst, common):
    assert plain(myst, lambda key: f"<{key}>", lambda path: f"/{path}") == common


# Times


def test_measured_times_are_gathered_and_kept(tmp_path):
    run = {"profile": "full", "seconds": 90.0, "ran_on": "a GPU", "started": "2026-01-02T03:04:05"}
    notebook = nbformat.v4.new_notebook(metadata={"gomhc": run})
    path = tmp_path / "_build" / "executed" / "full" / "tiny.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    before = {"tiny": {"book": {"seconds": 1.0, "ran_on": "b", "date": "2025-01-01"}}}
    after = timings.gather(tmp_path, before)
    assert after["tiny"]["book"] == before["tiny"]["book"]
    assert after["tiny"]["full"] == {"seconds": 90.0, "ran_on": "a GPU", "date": "2026-01-02"}
    said = timings.sentence(notebook, after["tiny"])
    assert "`full` took 90 s on a GPU (2 January 2026)" in said


def test_without_executed_notebooks_there_is_nothing_to_gather(tmp_path, monkeypatch, capsys):
    """What was measured before once passed for what was found."""
    monkeypatch.setattr(timings, "ROOT", tmp_path)
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book" / timings.KEPT, tmp_path / "book")
    assert timings.main() == 1
    assert "expected executed notebooks in _build/executed, found none" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["cost", "stream_mixing"])
def test_an_estimate_without_a_run_is_what_its_records_took(study):
    source = f"%matplotlib inline\nfrom gomhc.companion.studies import {study}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    seconds = timings.stored_seconds(notebook)
    assert seconds > 0
    assert timings.duration(seconds) in timings.sentence(notebook, {})
    assert "not timed yet" in timings.sentence(nbformat.v4.new_notebook(), {})
    # The chapter on language models reads trainings of hours, whatever the profile.
    name = "07-language-model"
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert timings.stored_seconds(notebook) == 0


def test_table_of_times_has_a_row_a_notebook():
    run = {"seconds": 90.0, "ran_on": "a GPU", "date": "2026-01-02"}
    lines = timings.table({"tiny": {"full": run}}).split("\n")
    assert "| tiny | not timed | not timed | 90 s (a GPU) |" in lines


def test_stored_times_are_of_notebooks_there_are():
    stored = timings.read(ROOT)
    assert stored
    assert set(stored) <= set(NOTEBOOKS)


# The book's buttons


@pytest.mark.parametrize("url", [HUB, f"{HUB}.git"])
def test_colab_opens_what_github_holds(url):
    assert github(url) == "owner/name"
    assert colab_link(url, "x").endswith("/github/owner/name/blob/colab/notebooks/x.ipynb")


def test_colab_opens_nothing_else():
    assert colab_link("file:///somewhere", "x") is None
    assert colab_link("https://gitlab.com/owner/name", "x") is None


def staged(folder: Path) -> Path:
    (folder / "notebooks").mkdir()
    (folder / "_config.yml").write_text("title: A book\n")
    cell = nbformat.v4.new_markdown_cell("# Title\n\nText.")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "notebooks" / "one.ipynb")
    return folder


def test_book_of_a_known_repository_opens_its_editions(tmp_path):
    add_launch_buttons(staged(tmp_path), f"{HUB}.git")
    config = yaml.safe_load((tmp_path / "_config.yml").read_text())
    validate_yaml(config, raise_on_errors=True)
    assert config["launch_buttons"] == {"colab_url": "https://colab.research.google.com"}
    assert config["repository"] == {"url": HUB, "branch": "colab", "path_to_book": ""}
    notebook = nbformat.read(tmp_path / "notebooks" / "one.ipynb", as_version=4)
    link = colab_link(HUB, "one")
    assert notebook.cells[0].source == (
        f"# Title\n\n[Open in Colab]({link}){{.open-in-colab}}\n\n\nText."
    )


def test_book_of_a_repository_elsewhere_opens_nothing(tmp_path):
    add_launch_buttons(staged(tmp_path), "https://gitlab.com/owner/name")
    assert (tmp_path / "_config.yml").read_text() == "title: A book\n"


def test_configuration_itself_names_no_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert not {"repository", "launch_buttons"} & set(config)


# Each edition, run as on Colab: an environment with torch and without gomhc, an empty folder.


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """Python of a fresh virtual environment that sees this one's packages, but gomhc."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    fresh = Path(answer.stdout.strip())
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "gomhc" not in entry.name and not (fresh / entry.name).exists():
            (fresh / entry.name).symlink_to(entry)
    return python


BACKEND = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder, "gomhc-1.dist-info")
    info.mkdir()
    needs = "Requires-Dist: torch>=99\\nProvides-Extra: companion\\n"
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: gomhc\\nVersion: 1\\n" + needs)
    return info.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise NotImplementedError
"""
SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def test_first_cell_shows_what_pip_does_and_why_it_fails(environment, tmp_path):
    """Here a gomhc that wants a later torch than the one that is there."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(SYSTEM)
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    asked = ["git", "-C", folder, "rev-parse", "HEAD"]
    revision = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    cell = colab.INSTALL.format(repository=f"file://localhost{folder}", revision=revision)
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PIP_NO_INDEX": "1"}
    ran = subprocess.run(
        [environment, "-c", cell],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "Collecting gomhc[companion]" in ran.stdout  # as it goes
    *_, error = ran.stderr.partition("RuntimeError: ")
    assert error.startswith("gomhc could not be installed beside the packages that are here. pip")
    assert "depends on torch>=99" in error
    assert "ERROR: Cannot install gomhc" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_edition_runs_where_there_is_no_gomhc(editions, environment, name, tmp_path):
    empty, executed = tmp_path / "empty", tmp_path / "executed.ipynb"
    empty.mkdir()
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "JUPYTER_PATH")}
    pip = [environment, "-m", "pip"]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "gomhc"], check=True, env=settings)
    for left in environment.parents[1].glob("lib/*/site-packages/gomhc"):
        shutil.rmtree(left)  # compiled code, which pip does not know
    held = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True, env=settings)
    assert "gomhc" not in held.stdout and "torch" in held.stdout

    source = editions / "notebooks" / f"{name}.ipynb"
    command = [
        environment,
        "-m",
        "papermill",
        source,
        executed,
        "--no-progress-bar",
        "--start-timeout=600",  # of the kernel, on a busy machine
        "--log-output",
    ]
    done = subprocess.run(
        [*command, "-p", "profile", "smoke", "-k", "python3"],
        cwd=empty,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    cells = nbformat.read(executed, as_version=4).cells
    install = next(cell for cell in cells if cell.cell_type == "code")
    seconds = install.metadata.papermill.duration
    all_seconds = sum(cell.metadata.papermill.duration or 0 for cell in cells)
    print(f"{name}: first cell {seconds:.1f} s, all {all_seconds:.1f} s")
    assert not any(o.output_type == "error" for c in cells for o in c.get("outputs", []))
    left = ["gomhc-results"] if name in colab.KEEPS else []
    assert [path.name for path in empty.iterdir()] == left

    now = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True, env=settings)
    added = set(now.stdout.split("\n")) - set(held.stdout.split("\n"))
    assert [line.split()[0] for line in added if line] == ["gomhc"]
    where = "import gomhc; print(gomhc.__file__)"
    command = [environment, "-c", where]
    ran = subprocess.run(
        command, cwd=empty, env=settings, capture_output=True, text=True, check=True
    )
    assert Path(ran.stdout).is_relative_to(environment.parents[1])
