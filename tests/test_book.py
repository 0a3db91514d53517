"""The book: its configuration, its notebooks, and the promises of `make book`."""

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from jupyter_book.config import get_final_config, validate_yaml
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pybtex.database import parse_string
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace
from sphinx_external_toc.parsing import parse_toc_yaml

import gomhc
from book.tools import build as builder
from book.tools import generated
from book.tools.execute import NotebookError, execute
from gomhc.companion.claims import CLAIMS
from gomhc.companion.claims.answers import ANSWERS
from gomhc.companion.git import git

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
NOTEBOOKS = builder.notebooks(ROOT)
SMOKE = {"profile": "smoke", "seed": 0, "device": "auto"}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


# Configuration. Jupyter Book 1 ignores unknown and misnested keys without a word.


def key_paths(node: object, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every key; what lies below `sphinx.config` belongs to Sphinx."""
    if isinstance(node, dict) and prefix != "sphinx.config.":
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from key_paths(value, f"{prefix}{key}.")


def schema_paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in schema.get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from schema_paths(value, f"{prefix}{key}.")


def test_configuration_holds_only_keys_that_jupyter_book_knows():
    package = files("jupyter_book")
    defaults = yaml.safe_load(package.joinpath("default_config.yml").read_text())
    schema = json.loads(package.joinpath("config_schema.json").read_text())
    assert set(key_paths(CONFIG)) <= {*key_paths(defaults), *schema_paths(schema)}
    validate_yaml(CONFIG, raise_on_errors=True)


# sphinx-external-toc looks through every live object, a deprecated one of torch's among them.
@pytest.mark.filterwarnings("ignore:.*torch.distributed.reduce_op:FutureWarning")
def test_sphinx_knows_every_setting_of_the_configuration(tmp_path):
    overrides, _ = get_final_config(
        user_yaml=ROOT / "_config.yml",
        cli_config={"latex_individualpages": False, "external_toc_path": str(ROOT / "_toc.yml")},
    )
    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            srcdir=ROOT,
            confdir=None,
            outdir=tmp_path / "html",
            doctreedir=tmp_path / "doctrees",
            buildername="html",
            confoverrides=overrides,
            status=None,
            warning=warnings,
        )
    assert {name for name in CONFIG["sphinx"]["config"] if name not in app.config} == set()
    assert warnings.getvalue() == ""  # an unknown theme option, for one


# The pages and notebooks of this book.


def test_table_of_contents_names_the_files_there_are():
    made_by_the_build = {"book/execution"}
    missing = [
        name
        for name in set(parse_toc_yaml(ROOT / "_toc.yml")) - made_by_the_build
        if not any((ROOT / name).with_suffix(suffix).exists() for suffix in (".md", ".ipynb"))
    ]
    assert missing == []
    assert sorted(NOTEBOOKS) == sorted(file.stem for file in (ROOT / "notebooks").glob("*.ipynb"))


def test_pages_include_what_the_build_can_write():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "book").glob("*.md")]
    names = {name for page in pages for name in generated.INCLUDE.findall(page)}
    assert len(names) == len({name for page in pages for name in re.findall("generated/.*", page)})
    answers = {name.removeprefix("answer-") for name in names if name.startswith("answer-")}
    assert answers <= set(ANSWERS)
    others = {"three", "headlines", "timings", "bibtex", "citation", "contributing"}
    others |= {"release", "changelog"}
    others |= {"mixers-keep", "mixers-cost", "mixers-speed"}
    assert names == others | {f"answer-{name}" for name in answers}
    assert set(generated.HEADLINES) <= {claim.id for claim in CLAIMS}
    with pytest.raises(ValueError, match="got 'weather'"):
        generated.part("weather", ROOT)


def test_the_entry_to_cite_is_bibtex():
    entries = parse_string(generated.bibtex(ROOT), "bibtex").entries
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert list(entries) == ["dandachi2026gomhc", "gomhc"]
    assert entries["gomhc"].fields["note"] == f"Version {citation['version']}"
    assert entries["gomhc"].fields["title"] == f"{{{citation['title']}}}"


def test_what_archives_read_agrees():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    for key in ("title", "license", "version", "keywords"):
        assert zenodo[key] == citation[key]
    assert [one["name"] for one in zenodo["creators"]] == [
        one["name"] for one in citation["authors"]
    ]
    paper = citation["references"][0]["identifiers"][0]["value"]
    assert [one["identifier"] for one in zenodo["related_identifiers"]] == [paper]
    assert citation["version"] == gomhc.__version__


def test_a_copy_says_which_release_it_is(tmp_path):
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert "outside of a git checkout" in generated.which_release(tmp_path)
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, *me, "commit", "-m", "one")
    assert "**no release**" in generated.which_release(tmp_path)
    git(tmp_path, "tag", f"v{version}")
    assert f"**release {version}**" in generated.which_release(tmp_path)
    (tmp_path / "more").write_text("")
    said = generated.which_release(tmp_path)
    assert "**no release**" in said and "not committed" in said
    assert git(tmp_path, "rev-parse", "HEAD")[:12] in said


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_declares_its_parameters(name):
    notebook = stored(name)
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert re.findall(r"^(\w+) *=", tagged[0].source, re.MULTILINE) == [*SMOKE]
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_stored_without_outputs_and_defines_no_class(name):
    for cell in stored(name).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
            assert not re.search(r"^\s*class\s", cell.source, re.MULTILINE)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_in_the_smoke_profile(name, tmp_path):
    source, target = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb"
    assert execute(ROOT, source, target, SMOKE)["profile"] == "smoke"


# The promises of `make book`, on a book of one tiny notebook.


def write_notebook(root: Path, *cells: str) -> Path:
    path = root / "notebooks" / "tiny.ipynb"
    parameters = new_code_cell(
        'profile = "book"\nseed = 0\ndevice = "auto"', metadata={"tags": ["parameters"]}
    )
    body = [new_markdown_cell("# Tiny"), parameters, *map(new_code_cell, cells)]
    nbformat.write(new_notebook(cells=body, metadata={"kernelspec": KERNEL}), path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("book", "gomhc", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gomhc" / "one.py").write_text("one = 1\n")
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    (tmp_path / "_config.yml").write_text('execute:\n  execute_notebooks: "off"\n')
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n"
        "  - file: notebooks/tiny\n  - file: book/execution\n"
    )
    (tmp_path / "book" / "index.md").write_text("# Book\n")
    write_notebook(tmp_path, "print(profile, seed)")
    return tmp_path


def run(project: Path, guarded: bool | None = None, **changed: object) -> dict[str, Any]:
    source, target = project / "notebooks" / "tiny.ipynb", project / "out" / "tiny.ipynb"
    return execute(project, source, target, SMOKE | changed, guarded=guarded)


def test_executed_notebook_holds_outputs_and_its_own_history(project):
    history = run(project)
    executed = nbformat.read(project / "out" / "tiny.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "smoke 0\n"
    assert executed.metadata.gomhc == history
    assert {"inputs", "source", "profile", "seed", "device", "started", "seconds"} <= set(history)
    assert history["machine"] and history["cells"] == 2 + 1  # with the injected parameters
    assert history["versions"]["torch"].startswith("2.")
    assert str(project) not in json.dumps(executed)
    assert [path.name for path in (project / "out").iterdir()] == ["tiny.ipynb"]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"profile": "book"}, 'profile = "book"\nseed = 0\ndevice = "auto"'),
        ({"seed": 1}, '# Parameters\nprofile = "smoke"\nseed = 1\ndevice = "auto"\n'),
    ],
)
def test_page_shows_the_parameters_that_were_run_with(project, changed, shown):
    run(project, **changed)
    executed = nbformat.read(project / "out" / "tiny.ipynb", as_version=4)
    seen = [cell for cell in executed.cells if "remove-cell" not in cell.metadata.get("tags", [])]
    assert [cell.source for cell in seen if "device =" in cell.source] == [shown]


def test_notebook_runs_in_an_empty_folder_of_its_own(project):
    # Jupyter's sockets lie there, too.
    listed = "print([name for name in os.listdir() if 'kernel-ipc' not in name])"
    write_notebook(project, f"import os\nopen('left', 'w').close()\n{listed}")
    assert run(project, guarded=True)["cells"] == 3
    executed = nbformat.read(project / "out" / "tiny.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "['left']\n"
    assert [path.name for path in (project / "out").iterdir()] == ["tiny.ipynb"]
    assert not (project / "left").exists()


@pytest.mark.parametrize(
    "cell",
    [
        "open('{root}/new', 'w').close()",
        "open('{root}/gomhc/one.py', 'a').write('two = 2')",
        "import os\nos.remove('{root}/gomhc/one.py')",
        "import subprocess\nsubprocess.run(['touch', '{root}/notebooks/tiny.ipynb'])",
    ],
)
def test_guarded_notebook_that_writes_into_the_project_fails(project, cell, monkeypatch):
    write_notebook(project, cell.format(root=project))
    monkeypatch.setenv("CI", "true")  # what .ci/run and GitHub set
    message = r"tiny\.ipynb: expected a run that writes nothing outside its own folder, got changes"
    with pytest.raises(NotebookError, match=message):
        run(project)
    assert not (project / "out" / "tiny.ipynb").exists()


def test_peak_memory_is_the_kernels(project):
    write_notebook(project, "x = bytearray(500 * 2**20)\nx = None", "1")
    large = run(project)["peak_bytes"]
    write_notebook(project, "1")
    small = run(project)["peak_bytes"]
    assert 400 * 2**20 < large - small < 600 * 2**20
    assert small > 10 * 2**20


def test_executed_notebook_is_reused_while_nothing_changes(project):
    assert run(project) is not run(project)
    assert run(project) == run(project)  # the start and wall time are those of the one run


@pytest.mark.parametrize("change", ["source", "library", "lock", "parameters"])
def test_executed_notebook_is_not_reused_once_an_input_changes(project, change):
    before = run(project)
    match change:
        case "source":
            write_notebook(project, "print(device)")
        case "library":
            (project / "gomhc" / "one.py").write_text("one = 2\n")
        case "lock":
            (project / "requirements.lock").write_text("torch==2.14.0\n")
    after = run(project, seed=1) if change == "parameters" else run(project)
    assert after["inputs"] != before["inputs"]


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("raise ValueError('boom')", "ValueError: boom"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("import os\nos._exit(1)", "Kernel died"),
    ],
)
def test_failed_notebook_is_named_with_its_cell_and_error(project, cell, error):
    write_notebook(project, "print('fine')", cell, "print('never')")
    with pytest.raises(NotebookError) as failure:
        run(project)
    message = str(failure.value)
    assert message.startswith("tiny.ipynb, cell 4 failed:")
    assert cell.splitlines()[0] in message
    assert error in message
    assert not (project / "out" / "tiny.ipynb").exists()


def test_cell_out_of_time_is_named(project, monkeypatch):
    # The others may take as long as the machine needs.
    monkeypatch.setattr(
        NotebookClient,
        "timeout_func",
        lambda client, cell: client.timeout if "wait" in cell.source else None,
    )
    source = write_notebook(project, "import threading", "threading.Event().wait()")
    with pytest.raises(NotebookError, match=r"tiny\.ipynb, cell 4 failed(?s:.)*timed out"):
        execute(project, source, project / "out" / "tiny.ipynb", SMOKE, cell_timeout=1)


def test_a_busy_machine_may_be_late(project, monkeypatch):
    """A kernel's start and its outputs have limits apart, of a minute and of four seconds."""
    limits = set()
    monkeypatch.setattr(
        NotebookClient,
        "timeout_func",
        lambda client, cell: limits.add((client.startup_timeout, client.iopub_timeout)),
    )
    run(project)
    ((start, outputs),) = limits
    assert min(start, outputs) >= 600


def test_good_book_stands_until_a_better_one_is_whole(project, monkeypatch, capfd):
    monkeypatch.setattr(builder, "ROOT", project)
    monkeypatch.setattr(sys, "argv", ["build", "--profile", "smoke"])
    page = project / "_build" / "html" / "notebooks" / "tiny.html"

    assert builder.main() == 0
    assert capfd.readouterr().out.endswith("_build/html/index.html\n")
    good = page.read_text()
    assert "smoke 0" in good
    status = (project / "_build" / "html" / "book" / "execution.html").read_text()
    assert all(said in status for said in ("smoke", "all 3 cells ran", " MiB", "torch 2."))

    assert builder.main() == 0
    assert re.search(r"^render … \d+\.\d s \(unchanged\)$", capfd.readouterr().out, re.MULTILINE)

    write_notebook(project, "1 / 0")
    assert builder.main() == 1
    assert "tiny.ipynb, cell 3 failed" in capfd.readouterr().err
    assert page.read_text() == good

    write_notebook(project, "print('better')")
    (project / "book" / "index.md").write_text("# Book\n\n[nowhere](missing.md)\n")
    assert builder.main() == 1
    assert "missing" in capfd.readouterr().err
    assert page.read_text() == good

    (project / "book" / "index.md").write_text("# Book\n")
    assert builder.main() == 0
    assert "better" in page.read_text()
