"""Buttons that open a page's Colab edition, in a staged book whose repository is known."""

from pathlib import Path

import nbformat
import yaml

from book.tools.repository import COLAB, COLAB_BRANCH, colab_link, github

__all__ = ["add_launch_buttons"]


def add_launch_buttons(source: Path, repository: str) -> None:
    """Point a staged book's launch buttons, and a badge under each title, to the editions.

    Colab opens nothing but what GitHub holds: for any other repository the book stays without.

    Args:
        source: The staged book, whose configuration and notebooks are changed.
        repository: URL of the repository that the editions are published in.
    """
    if github(repository) is None:
        return
    path = source / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["repository"] = {
        "url": repository.removesuffix(".git"),
        "branch": COLAB_BRANCH,  # the theme's default is one that has no editions
        "path_to_book": "",
    }
    config["launch_buttons"] = {"colab_url": COLAB}
    path.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")

    for file in sorted((source / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        title = notebook.cells[0]
        badge = f"[Open in Colab]({colab_link(repository, file.stem)}){{.open-in-colab}}"
        heading, newline, rest = title.source.partition("\n")
        title.source = f"{heading}\n\n{badge}\n{newline}{rest}"
        nbformat.write(notebook, file)
