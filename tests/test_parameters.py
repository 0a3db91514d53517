"""Parameters of notebooks: one check, one kind of message, in the first cells of each."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from book.tools.build import notebooks
from gomhc.companion.parameters import check_parameters

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = notebooks(ROOT)
GOOD = {"profile": "smoke", "seed": 0, "device": "auto"}
BAD = [
    ({"profile": "smok"}, "expected profile smoke, book or full; got 'smok' (did you mean 'smoke'"),
    ({"profile": "Full"}, "expected profile smoke, book or full; got 'Full' (did you mean 'full'"),
    ({"profile": None}, "expected profile smoke, book or full; got None"),
    ({"seed": -1}, "expected seed a non-negative integer; got -1"),
    ({"seed": "0"}, "expected seed a non-negative integer; got '0'"),
    ({"seed": 0.5}, "expected seed a non-negative integer; got 0.5"),
    ({"seed": True}, "expected seed a non-negative integer; got True"),
    ({"seed": 2**63}, "expected seed below 2**63; got 9223372036854775808"),
    ({"device": "tpu"}, "expected device auto, cpu or cuda; got 'tpu'"),
    ({"device": "gpu"}, "expected device auto, cpu or cuda; got 'gpu'"),
    ({"device": "cuda:0"}, "expected device auto, cpu or cuda; got 'cuda:0' (did you mean 'cuda'"),
    ({"device": "cuda"}, "expected device auto or cpu, as PyTorch sees no GPU; got 'cuda'"),
]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_what_is_wrong_is_named_with_what_was_expected(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_parameters(**GOOD | wrong)
    assert ("did you mean" in str(error.value)) == ("did you mean" in message)


def test_the_device_is_one_that_is_there(monkeypatch):
    assert check_parameters("book", np.int64(3), "auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices = {device: check_parameters("full", 0, device) for device in ("auto", "cpu", "cuda")}
    assert devices == {"auto": "cuda", "cpu": "cpu", "cuda": "cuda"}


def code(name):
    """The cells of code before the parameters, that of the parameters, and the one after it."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    place = next(k for k, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    return cells[:place], cells[place], cells[place + 1]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cells_of_a_notebook_refuse_wrong_parameters(name):
    _, parameters, first = code(name)
    source = re.sub(r"^%.*", "", first.source, flags=re.MULTILINE)
    for wrong, message in BAD:
        names = {}
        exec(parameters.source, names)
        names |= wrong  # as papermill does, in a cell between the two
        with pytest.raises(ValueError, match=re.escape(message)):
            exec(source, names)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_seen_and_what_sets_up_folds(name):
    before, parameters, first = code(name)
    assert not any(re.search(r"\b(profile|seed|device)\b", cell.source) for cell in before)
    assert all("remove-input" in cell.metadata.tags for cell in before)
    assert parameters.metadata.tags == ["parameters"]
    assert first.metadata.tags == ["hide-input"]
