"""A file may have columns with the names of columns that the platform fills in or derives: only a source is used."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest

from mini_platform import Csv, Dataset, Field, Json, RowModel, UnexpectedColumns
from mini_platform.operations.explain import explain_row
from mini_platform_tests.support.trial import Declared


class Given(RowModel):
    """Rows of which everything is known."""

    id: str = Field("Id")
    file: str = Field("File", system="file")
    line: int = Field("Line", system="line")
    source: str = Field("Source", system="source")
    created: dt.datetime = Field("Created", system="first_loaded")
    changed: dt.datetime = Field("Changed", system="last_loaded")
    twice: str = Field("Twice", derived=lambda col: col("id") + col("id"))


THEIRS = {"File": "mine", "line": "8", "source": " them ", "created": "never", "changed": "", "twice": "x"}
ROWS = [{"id": "1", **THEIRS}, {"id": "2", **THEIRS, "source": " "}]
GIVEN = Dataset(name="given", table="given", description="x", rows=Given, key=("id",), sources=(Csv(), Json()))


def forms(rows: list[dict[str, str]]) -> dict[str, str]:
    return {
        "a.csv": "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows), ""]),
        "a.json": json.dumps(rows),
        "a.jsonl": "\n".join(map(json.dumps, rows)),
    }


@pytest.mark.parametrize("unexpected_columns", ["keep", "ignore", "refuse"])
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_a_column_of_a_file_has_the_name_of_a_column_of_the_platform(
    declared: Declared, name: str, unexpected_columns: UnexpectedColumns
) -> None:
    """It is not an unexpected column; others are that."""
    trial = declared(replace(GIVEN, unexpected_columns=unexpected_columns))
    row = trial.load(name, forms(ROWS)[name])
    assert (row.status, row.error, row.rows_inserted, row.unexpected_columns) == ("loaded", None, 2, [])
    lines = {"a.csv": (2, 3), "a.json": (1, 1), "a.jsonl": (1, 2)}[name]
    form = "csv" if name == "a.csv" else "json"
    assert trial.rows("id", "file", "line", "source", "twice") == [
        ("1", name, lines[0], "them", "11"),
        ("2", name, lines[1], form, "22"),
    ]
    more = trial.load(f"b{name}", forms([{**row, "more": "1"} for row in ROWS])[name])
    assert more.status == ("refused" if unexpected_columns == "refuse" else "loaded")
    if unexpected_columns == "keep":
        assert trial.rows("_extra") == [({"more": "1"},)] * 2
    if unexpected_columns != "refuse":
        assert more.unexpected_columns == ["more"]
    else:
        assert more.error == "The file has columns that the dataset does not declare: more."


def test_rows_of_several_sources_are_several_rows(declared: Declared) -> None:
    """Each path knows the source of the file: staging, explain, reprocessing."""
    trial = declared(replace(GIVEN, key=("source", "id")))
    trial.load("a.csv", "source,id\nshop,1\n,1\nweb,1\n")
    trial.load("b.csv", "source,id\nshop,1\n")
    expected = [("csv", "1", 3), ("shop", "1", 2), ("web", "1", 4)]
    assert trial.rows("source", "id", "line") == expected
    trial.reprocess()
    assert trial.rows("source", "id", "line") == expected
    long = trial.load("c.csv", f"source,id\n{'x' * 3000},1\n")
    assert (long.rows_rejected, long.rule_counts) == (1, {"source_indexable": 1})
    with trial.platform.engine.connect() as conn:
        explained = explain_row(
            conn, trial.dataset, {"source": "shop", "id": "1"}, trial.platform.raw_files(trial.dataset)
        )
    assert [(one.file, one.line, one.verdict) for one in explained.occurrences] == [
        ("a.csv", 2, "current"),
        ("b.csv", 2, "unchanged"),
    ]


def test_a_row_of_a_file_that_is_validated_again_has_its_current_place(declared: Declared) -> None:
    trial = declared(replace(GIVEN, duplicates="last"))
    trial.load("a.csv", "id\n1\n1\n2\n")
    trial.load("b.csv", "id\n2\n")
    assert trial.rows("id", "file", "line") == [("1", "a.csv", 3), ("2", "a.csv", 4)]
    trial = declared(replace(GIVEN, duplicates="first"))
    trial.reprocess()
    assert trial.rows("id", "file", "line") == [("1", "a.csv", 2), ("2", "a.csv", 4)], "and b has nothing new"
