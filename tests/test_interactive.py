"""Figures with a knob: what a notebook gets of them, and what the book makes of that."""

import base64
import io
import re
import subprocess

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from book.tools.dress import commit, dress
from gomhc.companion import figures
from gomhc.companion.figures.interactive import SCRIPT

RUN = {
    "profile": "smoke",
    "seed": 3,
    "device": "auto",
    "ran_on": "CPU, 1 <thread>",
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 9.0,
    "source": "0123456789abcdef",
    "versions": {"torch": "2.13.0"},
}


def frame(height, width=2.0):
    fig, ax = plt.subplots(figsize=(width, 1.0))
    ax.bar([0], [height])
    ax.set_ylim(0, 3)
    plt.close(fig)
    return fig


@pytest.fixture
def frames():
    return {1: frame(1), 2: frame(2), 3: frame(3)}


def page(knob):
    return BeautifulSoup(knob._repr_mimebundle_()["text/html"], "html.parser")


def test_one_frame_is_shown_and_each_is_a_picture_with_its_own_words(frames):
    shown = page(figures.knob(frames, "height h", "A bar.", default=2))
    images = shown.select("img")
    assert [image.has_attr("hidden") for image in images] == [True, False, True]
    assert [image["alt"] for image in images] == [f"A bar. height h: {k}." for k in (1, 2, 3)]
    pictures = [base64.b64decode(image["src"].split(",")[1]) for image in images]
    decoded = [Image.open(io.BytesIO(picture)) for picture in pictures]
    assert {picture.size for picture in decoded} == {(320, 160)}
    assert not np.array_equal(*map(np.asarray, decoded[:2]))


def test_a_slider_is_a_labelled_range(frames):
    shown = page(figures.knob(frames, "height h", "A bar.", default=2))
    label = shown.select_one("label")
    slider = label.select_one("input[type=range]")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert label.select_one("output").text == slider["aria-valuetext"] == "2"


def test_a_picker_is_a_group_of_radio_buttons_of_its_own(frames):
    one, other = (page(figures.knob(frames, "which", alt, "picker")) for alt in ("A.", "B."))
    assert one.select_one("fieldset > legend").text == "which"
    buttons = one.select("label > input[type=radio]")
    assert [button.has_attr("checked") for button in buttons] == [True, False, False]
    groups = [{b["name"] for b in shown.select("input")} for shown in (one, other)]
    assert len(groups[0]) == len(groups[1]) == 1
    assert groups[0] != groups[1]


def test_words_are_escaped():
    shown = page(figures.knob({'a"<b>': frame(1)}, "x < y & z", 'say "<i>"', "picker"))
    assert shown.select("b, i") == []
    assert shown.select_one("legend").text == "x < y & z"
    assert shown.select_one("img")["data-name"] == 'a"<b>'


def test_what_cannot_turn_it_gets_the_default_frame(frames):
    bundle = figures.knob(frames, "h", "A bar.", default=3)._repr_mimebundle_()
    assert bundle["image/svg+xml"].lstrip().startswith("<?xml")
    assert SCRIPT.read_text(encoding="utf-8") in bundle["text/html"]
    assert not re.search(r'(src|href)="(?!data:)', bundle["text/html"])


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ({}, {}, "at least one frame"),
        ({1: frame(1), 2: frame(1, width=3.0)}, {}, "frames of one size"),
        ({1: frame(1)}, {"default": 2}, "a default among"),
    ],
)
def test_bad_input_is_named(frames, options, message):
    with pytest.raises(ValueError, match=message):
        figures.knob(frames, "h", "A bar.", **options)


def test_kinds_are_checked(frames, unchecked):
    with pytest.raises(ValueError, match="'slider' or 'picker', got 'dial'"):
        figures.knob(frames, "h", "A bar.", kind="dial")


# The book.


def executed(output, **metadata):
    cell = new_code_cell("draw()", outputs=[output], metadata=metadata)
    timed = {"duration": 1.25, "start_time": "2026-01-02T03:04:09.5"}
    cell.metadata["papermill"] = timed
    before = new_code_cell("compute()", metadata={"papermill": {"duration": 40.0}})
    return nbformat.from_dict(new_notebook(cells=[before, cell], metadata={"gomhc": RUN}))


def picture(**more):
    return new_output("display_data", data={"image/png": "aGVsbG8="} | more)


def test_a_figure_says_how_it_was_made():
    cells = dress(executed(picture()), "01-tiny", "abc123").cells
    assert [cell.cell_type for cell in cells] == ["code", "code", "markdown"]
    shown = BeautifulSoup(cells[-1].source, "html.parser")
    assert shown.select_one("details > summary").text == "How this figure was made"
    keys, values = ([tag.text for tag in shown.select(name)] for name in ("dt", "dd"))
    told = dict(zip(keys, values, strict=True))
    assert told["Notebook"].startswith("notebooks/01-tiny.ipynb")
    assert told["Parameters"] == "profile = smoke, seed = 3, device = auto"
    assert told["Commit"] == "abc123"
    assert told["Device"] == "CPU, 1 <thread>"
    assert "this cell 1.2 s" in told["Time"]
    assert "41.2 s" in told["Time"]
    assert "2026-01-02 03:04 UTC" in told["Time"]


@pytest.mark.parametrize("tag", ["remove-cell", "remove-output"])
def test_what_is_not_shown_is_not_explained(tag):
    assert len(dress(executed(picture(), tags=[tag]), "01-tiny", "abc123").cells) == 2
    text = new_output("display_data", data={"text/plain": "1"})
    assert len(dress(executed(text), "01-tiny", "abc123").cells) == 2


def test_a_knob_becomes_a_figure_and_a_template(frames):
    bundle = figures.knob(frames, "height h", "A bar.")._repr_mimebundle_()
    output = new_output("display_data", data=bundle)
    named = {"figure": {"name": "fig-bar", "caption": "A bar."}}
    cells = dress(executed(output, mystnb=named), "01-tiny", "abc123").cells
    assert set(cells[1].outputs[0].data) == {"image/svg+xml", "text/plain"}
    below = BeautifulSoup(cells[2].source, "html.parser")
    template = below.find("template")
    assert template["data-knob-for"] == "fig-bar"
    assert len(template.find_all("img")) == len(frames)
    assert below.select("script") == []
    assert len(below.select("details")) == 1

    with pytest.raises(ValueError, match="expected a figure name"):
        dress(executed(new_output("display_data", data=bundle)), "01-tiny", "abc123")


def test_the_commit_of_a_build(tmp_path):
    assert commit(tmp_path) == "not a git checkout"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}", clean)
    (tmp_path / "new").write_text("")
    assert commit(tmp_path) == f"{clean}, with changes"
