"""Write the Colab editions: each notebook with a first cell that installs gomhc at its own commit.

Run it from the project's root, or as `make colab REPOSITORY=… REVISION=…`. The notebooks come from
the commit itself, not from the working tree, so that text and library always belong together.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from pybtex.database import BibliographyData, parse_file

from book.tools import timings
from book.tools.build import notebooks
from book.tools.plain import plain
from book.tools.repository import RepositoryError, checked, colab_link, file_link
from gomhc.companion.git import GitError, git

ROOT = Path(__file__).resolve().parents[2]
HASH_LENGTHS = (40, 64)
CHECK = "check_parameters(profile, seed, device)"  # its answer is used where a device is

INSTALL = """\
# Installs gomhc at the commit that this notebook belongs to, where there is none yet. Packages that
# are here already keep their versions, torch and numpy above all: pip stops before it moves one.
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

GOMHC = "gomhc[companion] @ git+{repository}@{revision}"

try:
    from gomhc import __version__
except ImportError:
    __version__ = None

if __version__ is None:
    pip = [sys.executable, "-u", "-m", "pip", "--disable-pip-version-check"]
    listed = [*pip, "list", "--format=freeze"]
    installed = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    said = []
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(installed)
        install = [*pip, "install", "--progress-bar=off", "--constraint", constraints, GOMHC]
        with subprocess.Popen(
            install, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            for line in run.stdout:
                if not line.startswith("Requirement already satisfied"):
                    print(line, end="", flush=True)
                    said.append(line)
    if run.returncode:
        raise RuntimeError(
            "gomhc could not be installed beside the packages that are here. pip said:"
            "\\n\\n" + "".join(said[-12:])
        )
    importlib.invalidate_caches()
    sys.modules.pop("gomhc", None)  # an empty folder of that name imports, too\
"""

ABOUT = """\
**Colab edition** of a chapter of *go-mHC: the reproducible companion*, made from commit \
`{revision:.7}`.{badge} The next cell installs the library; then run all cells.

**GPU.** {gpu}

**Time.** The profile is set to `{profile}`{other} in the parameters cell. As measured: {times}\
{kept}\
"""
USES_A_GPU = (
    "This chapter runs on a GPU where there is one: choose it under *Runtime → Change runtime type*"
)
WITHOUT_A_GPU = "This chapter computes on the CPU; a GPU runtime makes it no faster"
TITLE = "# Colab editions"  # of the page beside them
PROFILE = "full"
OTHERS = {
    "full": ", the largest size; for a shorter run set `book` or `smoke`",
    "book": ", the size of the published book; for a longer run, best on a GPU, set `full`",
}
# A notebook whose trainings are long: what its edition has in the place of a line.
KEEPS = {
    "07-language-model": (
        "folders = dict.fromkeys(configs)  # of checkpoints; the Colab edition has some",
        "from gomhc.companion.session import begin\n\n"
        'folders = begin("07-language-model", configs, text, profile, device)',
    )
}
KEPT = """

**If the session ends.** Before its trainings begin the notebook times a few steps and says how \
long all will take on the machine that you have. Results and checkpoints go to the folder `gomhc` \
of your Google Drive if it is mounted (*Files → Mount Drive*), else to `gomhc-results` beside the \
notebook, which on Colab ends with the runtime. Run all cells again to go on.\
"""


def checkout(repository: str, revision: str, folder: Path) -> None:
    """Fetch one commit of a repository into an empty folder.

    Raises:
        RepositoryError: If the revision is no full hash, or the repository or the commit cannot be
            had.
    """
    if len(revision) not in HASH_LENGTHS or set(revision) - set("0123456789abcdef"):
        raise RepositoryError(
            "expected the full hash of a commit, 40 hexadecimal digits (git rev-parse HEAD prints "
            f"one), got {revision!r}"
        )
    git(folder, "init", "--quiet", f"--object-format={'sha256' if len(revision) == 64 else 'sha1'}")
    try:
        git(folder, "ls-remote", "--heads", repository)
    except GitError as error:
        raise RepositoryError(
            f"expected a git repository at {repository}, git cannot read one: {error}"
        ) from None
    try:
        git(folder, "fetch", "--quiet", "--depth=1", repository, revision)
    except GitError as error:
        raise RepositoryError(
            f"expected the commit {revision} in {repository} (is it pushed?): {error}"
        ) from None
    git(folder, "checkout", "--quiet", "FETCH_HEAD")


def citations(source: Path) -> BibliographyData:
    """The book's bibliography."""
    return parse_file(str(source / "book" / "references.bib"))


def reference(bibliography: BibliographyData, key: str) -> str:
    """Authors and year, with a link where the entry has one."""
    if key not in bibliography.entries:
        return key
    entry = bibliography.entries[key]
    names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
    who = names[0] + " et al." * (len(names) > 2) if names else key
    if len(names) == 2:
        who = " and ".join(names)
    fields = entry.fields
    text = f"{who}, {fields['year']}" if "year" in fields else who
    link = fields.get("url", "")
    if "eprint" in fields:
        link = f"https://arxiv.org/abs/{fields['eprint']}"
    if "doi" in fields:
        link = f"https://doi.org/{fields['doi']}"
    return f"[{text}]({link})" if link else f"({text})"


def edition(source: Path, name: str, repository: str, revision: str) -> nbformat.NotebookNode:
    """The Colab edition of one notebook.

    Args:
        source: The project at that commit.
        name: Of the notebook, without its suffix.
        repository: URL that pip installs gomhc from.
        revision: Hash of the commit.

    Returns:
        The notebook, without outputs.
    """
    notebook = nbformat.read(source / "notebooks" / f"{name}.ipynb", as_version=4)
    bibliography = citations(source)
    profile = "book" if name in KEEPS else PROFILE

    def page(path: str) -> str | None:
        """Where a page of the book is read: at the forge, or the notebook beside this one."""
        beside = path.partition("notebooks/")[2] or None
        return file_link(repository, revision, path) or beside

    cells = []
    gpu = False
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, lambda key: reference(bibliography, key), page)
        elif "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('profile = "book"', f'profile = "{profile}"', 1)
            if f'profile = "{profile}"' not in cell.source:
                raise ValueError(f'{name}: expected profile = "book" among the parameters')
        else:
            gpu |= "device" in cell.source.replace(f"\n{CHECK}\n", "\n")
            cell.source = cell.source.replace(*KEEPS.get(name, ("", "")), 1)
            caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
            if caption:
                below = plain(caption, lambda key: key, page)
                cells.append(new_markdown_cell(f"*Figure.* {below}"))

    if name in KEEPS and not any(KEEPS[name][1] in cell.source for cell in cells):
        raise ValueError(f"{name}: expected the line {KEEPS[name][0]!r}")

    link = colab_link(repository, name)
    about = ABOUT.format(
        revision=revision,
        badge=f" [Open in Colab]({link})." if link else "",
        gpu=f"{USES_A_GPU if gpu else WITHOUT_A_GPU}.",
        profile=profile,
        other=OTHERS[profile],
        times=timings.sentence(notebook, timings.read(source).get(name, {})),
        kept=KEPT if name in KEEPS else "",
    )
    install = INSTALL.format(repository=repository, revision=revision)
    notebook.cells = [new_markdown_cell(about), new_code_cell(install), *cells]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same from run to run
    notebook.metadata["colab"] = {"provenance": [], "toc_visible": True}
    if gpu:
        notebook.metadata["accelerator"] = "GPU"
    return notebook


def write(repository: str, revision: str, folder: Path) -> list[Path]:
    """Write the editions of all notebooks into `folder`/notebooks, whole or not at all.

    Args:
        repository: URL of the repository, https or file.
        revision: Full hash of a commit in it.
        folder: Where; editions that were there are replaced.

    Returns:
        The notebooks written.

    Raises:
        RepositoryError: If the repository or the commit cannot be used.
        FileExistsError: If something else is there, which would be lost.
    """
    repository = checked(repository)
    folder = folder.resolve()
    page = folder / "README.md"
    earlier = page.is_file() and page.read_text("utf-8", "replace").startswith(TITLE)
    if folder.exists() and not earlier and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"expected a folder that is new, empty or of editions, got {folder}")
    draft = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "notebooks").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as source:
        checkout(repository, revision, Path(source))
        names = notebooks(Path(source))
        for name in names:
            notebook = edition(Path(source), name, repository, revision)
            nbformat.write(notebook, draft / "notebooks" / f"{name}.ipynb")
    links = {name: colab_link(repository, name) or f"notebooks/{name}.ipynb" for name in names}
    (draft / "README.md").write_text(
        f"{TITLE}\n\nMade by `make colab` from commit `{revision}`.\n\n"
        + "".join(f"- [{name}]({link})\n" for name, link in links.items()),
        encoding="utf-8",
    )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return [folder / "notebooks" / f"{name}.ipynb" for name in names]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, help="URL that anybody can clone")
    parser.add_argument("--revision", required=True, help="full hash of a commit in it")
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "colab", help="folder")
    asked = parser.parse_args()
    try:
        written = write(asked.repository, asked.revision, asked.output)
    except (RepositoryError, GitError, OSError) as error:
        print(f"{error}\nNo edition was written.", file=sys.stderr)
        return 1
    print(f"{asked.output}: {len(written)} notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
