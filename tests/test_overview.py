"""The tables of all mixers come from records, and have every mixer."""

import shutil

import pytest

from gomhc.companion import overview, records
from gomhc.mixers import MIXERS

TABLES = (overview.keeps, overview.costs)


def rows(table):
    """Label -> cells."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


@pytest.mark.parametrize("table", TABLES)
def test_every_mixer_has_a_row_as_long_as_the_head(table):
    text = table()
    assert {label.split()[0] for label in rows(text)} == set(MIXERS)
    assert len({line.count(" | ") for line in text.splitlines() if "--" not in line}) == 1


def test_what_is_kept_is_what_the_mixers_promise():
    kept = {label: cells[0] for label, cells in rows(overview.keeps()).items()}
    assert kept["identity"] == "means and lengths"
    assert kept["orthogonal"] == "lengths"
    assert kept["hc"] == "nothing"
    assert kept["mhc"].startswith("means, but for ")
    exact = ("mhc-lite", "kromhc", "kron-go s=2", "go-mhc s=2", "transport")
    assert {kept[label] for label in exact} == {"means"}


def test_another_record_is_another_table(tmp_path, monkeypatch):
    folder = shutil.copytree(records.SHIPPED, tmp_path / "records")
    monkeypatch.setattr(records, "shipped", lambda name: records.load(folder / f"{name}.json"))
    before = [table() for table in TABLES]
    for name, alter in {
        "polytope/coverage": lambda m: m["share"]["4"]["kromhc"].update(share=0.123),
        "cost/parameters": lambda m: m["generator"]["kromhc"].update({"4": 12345}),
    }.items():
        record = records.load(folder / f"{name}.json")
        alter(record.metrics)
        records.save(record, folder)
    keeps, costs = (table() for table in TABLES)
    assert rows(keeps)["kromhc"][2] == "12.3\N{NO-BREAK SPACE}%" != rows(before[0])["kromhc"][2]
    assert rows(costs)["kromhc"][0] == "12,345" != rows(before[1])["kromhc"][0]
