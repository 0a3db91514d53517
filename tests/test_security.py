"""What `make lint` cannot see of the repository's safety.

Ruff's rules S and the list of banned functions in pyproject.toml look for code that runs what it
reads, zizmor at the workflows, and the weekly workflow has pip-audit look at the packages.
"""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path for folder in ("gomhc", "book", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_notebooks_start_no_shell():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert not re.search(
                    r"^\s*(!|%%?(bash|sh|system|pip)\b)", cell.source, re.MULTILINE
                )


def test_the_one_download_is_checked():
    """A second place that opens an address would need its own checksum, and a line here.

    That another content is refused: tests/test_lm_data.py.
    """
    opening = re.compile(r"urlopen|urlretrieve|requests\.get|hf_hub_download|load_dataset\(")
    places = {
        str(path.relative_to(ROOT)): opening.findall(path.read_text(encoding="utf-8"))
        for path in FILES
        if opening.search(path.read_text(encoding="utf-8"))
    }
    # TinyStories come through the package datasets, which checks what it fetches.
    assert places == {"gomhc/lm/data.py": ["urlopen", "load_dataset("]}
    source = (ROOT / "gomhc" / "lm" / "data.py").read_text(encoding="utf-8")
    calls = [line.strip() for line in source.split("\n") if "_download(" in line]
    assert calls[0] == "_download(SHAKESPEARE_URL, draft)"
    assert "_verify(draft, SHAKESPEARE_SHA256, SHAKESPEARE_URL)" in source
    assert len(calls) == 2  # the call, and the definition
