"""`make compare`: does another run of the studies reproduce ours?"""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from book.tools import compare as comparing
from book.tools.compare import OURS, compare, is_timing, main
from gomhc.companion.records import Provenance, Record, save

ROOT = Path(__file__).resolve().parents[1]
MADE = Provenance("unknown", False, (0,), "CPU", {}, "2026-01-01T00:00:00Z", 1, 1)


def record(name="study/one", config=None, series=None, **metrics) -> Record:
    return Record(name, 1, config or {"steps": 5}, metrics, series or {}, MADE)


@pytest.fixture
def folders(tmp_path):
    """Writes the records of two runs; says where."""

    def write(ours, other):
        for side, records in (("ours", ours), ("other", other)):
            for one in records:
                save(one, tmp_path / side)
        return [str(tmp_path / "other"), "--ours", str(tmp_path / "ours")]

    return write


def moved(ours: Record, other: Record, **options) -> list[str]:
    return [c.key for c in compare({"a": ours}, {"a": other}, **options).moved]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Record]:
    return comparing.read(OURS, "*")


def test_our_records_reproduce_themselves(capsys):
    assert main([str(OURS), "--only", "polytope/*"]) == 0
    assert "Nothing moved" in capsys.readouterr().out


def test_a_number_that_moved_is_named_with_both_values(folders, capsys, tmp_path):
    ours = record(loss=1.0, nested={"list": [1.0, 2.0]})
    other = record(loss=1.0, nested={"list": [1.0, 2.5]})
    asked = folders([ours], [other])
    assert main([*asked, "--markdown", str(tmp_path / "report.md")]) == 1
    said = capsys.readouterr().out
    row = next(line for line in said.split("\n") if "study/one" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["study/one", "metrics.nested.list.1", "2", "2.5", "25.00%"]
    assert "1 of 3 values moved, in 1 of 1 records." in said
    assert (tmp_path / "report.md").read_text() == said


@pytest.mark.parametrize(
    ("ours", "other", "same"),
    [
        (100.0, 100.9, True),
        (100.0, 102.0, False),
        (0.0, 1e-7, True),  # rounding
        (0.0, 1e-3, False),
        (1e-9, 5e-7, True),
        (5, 5.0, True),
        (True, False, False),
        ("holds", "does not", False),
        (None, None, True),
        (None, 1.0, False),
        (1.0, None, False),
    ],
)
def test_values_agree_within_tolerance(ours, other, same):
    assert moved(record(x=ours), record(x=other)) == ([] if same else ["metrics.x"])


def test_tolerances_are_the_callers(folders):
    asked = folders([record(x=1.0)], [record(x=1.05)])
    assert main(asked) == 1
    assert main([*asked, "--relative", "0.1"]) == 0
    assert main([*asked, "--absolute", "0.1"]) == 0


def test_curves_count_too_and_so_does_their_length():
    long, short = record(series={"c": [1, 2, 3]}), record(series={"c": [1, 2]})
    assert moved(long, short) == ["series.c.2"]
    assert moved(record(a=1, b=2), record(a=1)) == ["metrics.b"]


def test_times_and_provenance_are_not_results():
    ours = record(seconds={"mhc": [1.0]}, tokens_per_second=5, loss=1.0)
    other = replace(
        record(seconds={"mhc": [9.0]}, tokens_per_second=9, loss=1.0),
        provenance=replace(MADE, device="a GPU", wall_seconds=99),
    )
    assert moved(ours, other) == []
    assert moved(ours, other, timings=True) == [
        "metrics.seconds.mhc.0",
        "metrics.tokens_per_second",
    ]


def test_of_an_evaluation_the_seconds_alone_are_no_result():
    ours, other = (record(series={"evaluations": [[20, 3.5, time]]}) for time in (1.0, 9.0))
    assert moved(ours, other) == []
    assert moved(ours, record(series={"evaluations": [[20, 3.6, 1.0]]})) == [
        "series.evaluations.0.1"
    ]


def test_a_text_of_several_lines_stays_in_its_row(folders, capsys):
    main(folders([record(sample="a\n\nb | c")], [record(sample="a")]))
    assert "| a b \\| c | " in " ".join(capsys.readouterr().out.split())


def test_names_of_timings_are_those_that_records_use(shipped):
    """A pattern or a key that fits nothing would be a typing error."""
    names, records = shipped.keys(), shipped.values()
    for pattern in comparing.TIMING_RECORDS:
        assert any(comparing.fnmatchcase(name, pattern) for name in names)
    used = {key for one in records for path, _ in comparing.values(one.metrics) for key in path}
    assert used >= comparing.TIMING_KEYS
    evaluations = shipped["lm/letters-residual-lr0.003-seed100"].series["evaluations"]
    assert [len(row) for row in evaluations] == [3] * len(evaluations)
    assert sorted(row[2] for row in evaluations) == [row[2] for row in evaluations]
    # And none has slipped through under another name.
    measured = {
        ".".join(path)
        for one in records
        for path, _ in comparing.values({**one.metrics, **one.series})
        if any(word in key for key in path for word in ("second", "time", "memory"))
        and not is_timing(one.name, path)
    }
    assert measured == set()


def test_a_record_of_another_configuration_is_named_and_not_compared(folders, capsys):
    ours = [record("a/same", x=1), record("a/other", {"steps": 5, "d": [4]}, x=1)]
    other = [record("a/same", x=1), record("a/other", {"steps": 6, "d": [4]}, x=2)]
    assert main(folders(ours, other)) == 0
    assert "a/other, whose configuration differs in steps." in capsys.readouterr().out


def test_missing_and_extra_records_are_named(folders, capsys):
    ours = [record("a/both", x=1), record("a/ours", x=1)]
    assert main(folders(ours, [record("a/both", x=1), record("a/new", x=1)])) == 0
    said = capsys.readouterr().out
    assert "only ours (1): a/ours." in said
    assert "only the other run's (1): a/new." in said


def test_of_many_missing_records_each_study_is_counted(folders, capsys):
    ours = [record("a/both", x=1), *(record(f"b/unit{k}", x=1) for k in range(20))]
    assert main(folders([*ours, record("c/one", x=1)], ours[:1])) == 0
    assert "only ours (21): 20 of b, 1 of c." in capsys.readouterr().out


def test_a_record_under_another_name_is_refused(folders, tmp_path, capsys):
    asked = folders([record("a/one", x=1)], [record("a/one", x=1)])
    (tmp_path / "other" / "a" / "one.json").rename(tmp_path / "other" / "a" / "two.json")
    assert main(asked) == 2
    assert "expected the record a/two in a/two.json, got a/one" in capsys.readouterr().err


def test_long_lists_are_cut_and_counted(folders, capsys):
    ours, other = record(x=[1] * 30), record(x=[2] * 30)
    assert main([*folders([ours], [other]), "--rows", "3"]) == 1
    assert "… and 27 more" in capsys.readouterr().out


def test_nothing_to_compare_is_no_agreement(folders, capsys, tmp_path):
    assert main(folders([record("a/one", x=1)], [record("a/two", x=1)])) == 2
    assert "found none" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--ours", str(tmp_path / "nowhere")]) == 2
    assert "expected records (study/unit.json)" in capsys.readouterr().err
    assert main([str(OURS), "--only", "nothing/*"]) == 2
    assert "that match 'nothing/*'" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said_in_a_line(folders, capsys, tmp_path):
    asked = folders([record(loss=1.0)], [record(loss=1.0)])
    assert main([*asked, "--markdown", str(tmp_path / "other")]) == 2
    said = capsys.readouterr()
    assert "Nothing moved" in said.out
    assert "expected a file to write to as --markdown: " in said.err


def test_fewer_rows_than_none_are_refused(folders, capsys):
    asked = folders([record(loss=1.0)], [record(loss=2.0)])
    with pytest.raises(SystemExit):
        main([*asked, "--rows", "-1"])
    assert "expected --rows of 0 or more, got -1" in capsys.readouterr().err


def test_an_edited_record_is_refused(tmp_path, capsys):
    shutil.copytree(OURS / "polytope", tmp_path / "polytope")
    path = tmp_path / "polytope" / "coverage.json"
    path.write_text(path.read_text().replace('"samples"', '"simples"', 1))
    assert main([str(tmp_path), "--only", "polytope/*"]) == 2
    assert "edited or damaged" in capsys.readouterr().err


def test_page_on_re_running_tells_the_tolerance_there_is():
    page = " ".join((ROOT / "book" / "rerun.md").read_text().split())
    assert "within one per cent, or a millionth" in page
    assert (comparing.RELATIVE, comparing.ABSOLUTE) == (0.01, 1e-6)
