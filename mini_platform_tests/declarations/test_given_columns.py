"""A file may have columns that are called as what the platform gives, or derives: they are unknown columns as any others."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from mini_platform import Csv, Dataset, Field, Json, RowModel, UnexpectedColumns
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


THEIRS = {"file": "mine", "line": "8", "source": "them", "created": "never", "twice": "x", "more": "1"}
ROWS = [{"id": "1", **THEIRS}, {"id": "2", **THEIRS}]
FORMS = {
    "a.csv": "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS), ""]),
    "a.json": json.dumps(ROWS),
    "a.jsonl": "\n".join(map(json.dumps, ROWS)),
}


@pytest.mark.parametrize("unexpected_columns", ["keep", "ignore", "refuse"])
@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_column_of_a_file_is_called_as_a_given_one(
    declared: Declared, name: str, unexpected_columns: UnexpectedColumns
) -> None:
    trial = declared(
        Dataset(
            name="given",
            table="given",
            description="x",
            rows=Given,
            key=("id",),
            sources=(Csv(), Json()),
            unexpected_columns=unexpected_columns,
        )
    )
    row = trial.load(name, FORMS[name])
    if unexpected_columns == "refuse":
        assert row.status == "refused"
        assert "columns that the dataset does not declare: file" in row.error
        return
    assert (row.status, row.error, row.rows_inserted) == ("loaded", None, 2)
    lines = {"a.csv": (2, 3), "a.json": (1, 1), "a.jsonl": (1, 2)}[name]
    form = "csv" if name == "a.csv" else "json"
    assert trial.rows("id", "file", "line", "source", "twice") == [
        ("1", name, lines[0], form, "11"),
        ("2", name, lines[1], form, "22"),
    ]
    if unexpected_columns == "keep":
        assert [extra for (extra,) in trial.rows("_extra")] == [THEIRS, THEIRS], "as the file calls them"


def test_a_row_of_a_file_that_is_validated_again_has_its_current_place(declared: Declared) -> None:
    words = {"name": "given", "table": "given", "description": "x", "rows": Given, "key": ("id",)}
    trial = declared(Dataset(**words, duplicates="last"))
    trial.load("a.csv", "id\n1\n1\n2\n")
    trial.load("b.csv", "id\n2\n")
    assert trial.rows("id", "file", "line") == [("1", "a.csv", 3), ("2", "a.csv", 4)]
    trial = declared(Dataset(**words, duplicates="first"))
    trial.reprocess()
    assert trial.rows("id", "file", "line") == [("1", "a.csv", 2), ("2", "a.csv", 4)], "and b said nothing new"
