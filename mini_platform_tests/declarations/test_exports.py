"""An export of rows that is sent again is the rows that it was made of, and changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from mini_platform import Csv, Dataset, Field, Json, RejectLimit, RowModel, UnexpectedColumns
from mini_platform_tests.declarations import served
from mini_platform_tests.support.trial import Declared, Trial


class Thing(RowModel):
    """A thing."""

    id: str = Field("Id")
    price: Decimal | None = Field("Price", decimals=9)
    values: list[float] | None = Field("Values")
    is_new: bool | None = Field("New")
    file: str = Field("File", system="file")
    twice: str = Field("Twice", derived=lambda col: col("id") + col("id"))


DATASET = Dataset(
    name="things",
    table="things",
    description="Things.",
    rows=Thing,
    key=("id",),
    sources=(Csv(), Json(rows="results")),
    reject_limit=RejectLimit(rows=0),
)
HEADER = "id,price,values,is_new"
ROWS = ['=1+1,-0.000000001,"[1, 2.5]",true', "'=1,,,", "''@,-7,,f", "-5,,,", "ü,1e,,".replace("1e", "1")]
UNKNOWN = [",more,file,_extra\n", ",=2,mine,", ",,,x", ',"{""a"": 1}",,', ",,,", ",3,,"]


def stored(trial: Trial) -> list[Any]:
    extra = ("_extra",) if trial.dataset.unexpected_columns == "keep" else ()
    return trial.rows(*Thing.__annotations__, *extra)


@pytest.mark.parametrize(("form", "unexpected_columns"), [("csv", "keep"), ("json", "keep"), ("csv", "refuse")])
def test_an_export_comes_back(declared: Declared, form: str, unexpected_columns: UnexpectedColumns) -> None:
    trial = declared(replace(DATASET, unexpected_columns=unexpected_columns))
    unknown = UNKNOWN if unexpected_columns != "refuse" else ["\n"] + [""] * len(ROWS)
    first = trial.load(
        "a.csv", HEADER + unknown[0] + "".join(f"{a}{b}\n" for a, b in zip(ROWS, unknown[1:], strict=True))
    )
    assert first.rows_inserted == len(ROWS), first.error
    before = stored(trial)
    with served.client(trial) as client:
        path = "/api/datasets/things/rows" + (".csv" if form == "csv" else "/")
        exported = client.get(path)
    assert exported.status_code == 200
    again = trial.load(f"b.{form}", exported.content)
    assert (again.status, again.rows_unchanged) == ("loaded", len(ROWS)), again.error
    assert stored(trial) == before
    assert trial.differences() == {}


def test_an_export_that_was_corrected_is_taken(declared: Declared) -> None:
    trial = declared(DATASET)
    trial.load("a.csv", f"{HEADER},more\n=a,1,,,=x\nb,2,,,\n")
    with served.client(trial) as client:
        rows = client.get("/api/datasets/things/rows/").json()["results"]
    rows[0] |= {"price": "3", "new": "n", "_extra": {"more": "y"}}
    again = trial.load("b.json", json.dumps({"results": rows}))
    assert (again.rows_updated, again.rows_unchanged) == (1, 1), again.error
    corrected = {"more": "y", "new": "n"}
    assert trial.rows("id", "price", "_extra") == [
        ("=a", Decimal(3), corrected),
        ("b", Decimal(2), {"more": ""}),
    ]


def test_an_export_in_which_personal_data_is_hidden_is_refused(declared: Declared) -> None:
    class Person(RowModel):
        """A person."""

        id: str = Field("Id")
        name: str = Field("Name", personal="mask")

    trial = declared(replace(DATASET, rows=Person))
    trial.load("a.csv", "id,name\n1,Ann\n")
    with served.client(trial) as client:
        exported = client.get("/api/datasets/things/rows.csv").content
    assert b"Ann" not in exported
    again = trial.load("b.csv", exported)
    assert (again.status, again.error) == (
        "refused",
        "The file is an export of this platform, in which personal data is hidden",
    )
    assert trial.rows("id", "name") == [("1", "Ann")]
