"""An export of rows that is loaded again is the rows that it was made of, and changes nothing."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from mini_platform import Csv, Dataset, Field, Json, RejectLimit, RowModel, UnexpectedColumns, rule
from mini_platform.operations.forget import forget
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.declarations import served
from mini_platform_tests.support.trial import Declared, Trial


class Thing(RowModel):
    """A thing."""

    id: str = Field("Id")
    price: Decimal | None = Field("Price", decimals=9)
    values: list[float] | None = Field("Values")
    is_new: bool | None = Field("New")
    text: str | None = Field("Text", trim=False)
    file: str = Field("File", system="file")
    twice: str = Field("Twice", derived=lambda col: col("id") + col("id"))


DATASET = Dataset(
    name="things",
    table="things",
    description="Things.",
    rows=Thing,
    key=("id",),
    sources=(Csv(), Json(suffixes=(".json", ".ndjson"))),
    reject_limit=RejectLimit(rows=0),
)
TEXTS = (
    *(
        "=1+1",
        "'=1+1",
        "''=1+1",
        "-5",
        "'-5",
        "'tis",
        "'",
        '"',
        'a "b", c',
        "@x",
        "+",
        " a ",
        "\ta",
        "a\r\nb",
        "a\nb",
        "\rb",
    ),
    *("***", "local:" + "0" * 64, "[redacted]", "ü", "a\u2028b", "{}", "[1]", "null", "true", "1e400", "\\", "a;b"),
)
"""Texts that programs take for something else."""
EXTRA = ({"more": "=2", "_extra": "x", "Größe, €": "'"}, {"more": 1.50}, {"more": [1, {"a": "1e400"}], "b_c": True}, {})
"""Undeclared members, by row."""


def arrive(trial: Trial, *, extra: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"id": text, "price": "-0.000000001", "values": [1, 2.5], "is_new": True, "text": text}
        | (EXTRA[n % 4] if extra else {})
        for n, text in enumerate(TEXTS)
    ]
    first = trial.load("a.json", json.dumps([*rows, {"id": "empty"}]))
    ids = {text.strip() for text in TEXTS}
    assert (first.rows_inserted, first.rows_superseded) == (len(ids) + 1, len(TEXTS) - len(ids)), first.error


def exports(trial: Trial, *forms: str, personal: bool = True) -> list[bytes]:
    with served.client(trial) as client:
        params = {"personal": "true"} if personal else {}
        answers = [client.get(f"/api/datasets/things/rows.{form}", params=params) for form in forms]
    return [answer.raise_for_status().content for answer in answers]


def stored(trial: Trial) -> list[Any]:
    return trial.rows(*(column.name for column in dataset_tables(trial.dataset).production.columns))


def unchanged(trial: Trial, content: bytes, form: str) -> None:
    before = stored(trial)
    again = trial.load(f"again.{form}", content)
    assert (again.status, again.error, again.rows_unchanged) == ("loaded", None, len(before)), again.rule_counts
    assert (stored(trial), trial.differences()) == (before, {})


@pytest.mark.parametrize("unexpected_columns", ["keep", "refuse"])
def test_an_export_comes_back(declared: Declared, unexpected_columns: UnexpectedColumns) -> None:
    trial = declared(replace(DATASET, unexpected_columns=unexpected_columns))
    arrive(trial, extra=unexpected_columns == "keep")
    forms = ("csv", "json", "ndjson")
    for form, content in zip(forms, exports(trial, *forms), strict=True):
        unchanged(trial, content, form)


def test_an_export_that_was_corrected_is_taken(declared: Declared) -> None:
    trial = declared(DATASET)
    trial.load("a.csv", "id,price,values,is_new,text,more\n=a,1,,,,=x\nb,2,,,,\n")
    as_json, as_csv = exports(trial, "json", "csv")
    rows = json.loads(as_json)
    rows[0] |= {"price": "3", "new": "n", "_extra": {"more": "y"}}
    again = trial.load("b.json", json.dumps(rows))
    assert (again.rows_updated, again.rows_unchanged) == (1, 1), again.error
    assert trial.rows("id", "price", "_extra") == [
        ("=a", Decimal(3), {"more": "y", "new": "n"}),
        ("b", Decimal(2), {"more": ""}),
    ]
    cells = list(csv.reader(io.StringIO(as_csv.decode(), newline="")))
    cells[1][cells[0].index("_extra")] = "nothing {"
    text = io.StringIO(newline="")
    csv.writer(text).writerows(cells)
    assert trial.load("c.csv", text.getvalue()).rows_updated == 1
    assert trial.rows("id", "_extra")[0] == ("=a", {"_extra": "nothing {"}), "what is no JSON stays what it is"


class Other(RowModel):
    """Rows whose export lacks what they were made of."""

    id: str = Field("Id", aliases=("twice",))
    n: int = Field("N", stored=False, ge=0)
    email: str = Field("E-mail", personal="hash", email=True, case="upper", str_length={"max_value": 40})
    phone: str | None = Field("Phone", personal="last4", str_length={"min_value": 13})
    address: str | None = Field("Address", personal="redact", isin=["Main Street"])
    file: str = Field("File", system="file")
    line: int = Field("Line", system="line")
    source: str = Field("Source", system="source")
    loaded: dt.datetime = Field("Loaded", system="first_loaded")
    twice: int = Field("Twice", derived=lambda col: col("n") * 2)
    host: str | None = Field("Host", derived=lambda col: col("email").str.extract("@(.*)"))

    @rule("is not of example.org")
    def known_host(col: Any) -> Any:
        return col("email").str.ends_with("EXAMPLE.ORG")


OTHER = replace(
    DATASET,
    rows=Other,
    key=("file", "line", "source"),
    sources=(Csv(delimiter=";", header=False),),
    unexpected_columns="ignore",
)
OTHER_ROWS = "1;5;ada@example.org;+47 22 33 44 55;Main Street\n2;6;bo@example.org;;\n"


def test_what_an_export_lacks_is_what_is_stored(declared: Declared) -> None:
    """Columns that are not stored, hashes and the file cannot be known again; exports have one dialect."""
    trial = declared(OTHER)
    assert trial.load("a.csv", OTHER_ROWS).rows_inserted == 2
    unchanged(trial, *exports(trial, "csv"), "csv")
    assert trial.rows("twice", "host", "file", "phone") == [
        (10, "EXAMPLE.ORG", "a.csv", "***-***-4455"),
        (12, "EXAMPLE.ORG", "a.csv", None),
    ]
    before = stored(trial)
    trial.reprocess()
    assert stored(trial) == before
    platform, folder = trial.platform, trial.platform.settings.data / "things"
    result = forget(
        platform.engine, trial.dataset, "Ada@example.org", platform.raw_files(trial.dataset), platform.store, folder
    )
    assert ([file["name"] for file in result.files], result.unread) == (["a.csv", "again.csv"], [])
    trial.run()
    assert trial.rows("twice") == [(12,)]


def test_a_hash_by_an_unknown_key_is_a_text(declared: Declared) -> None:
    trial = declared(OTHER)
    trial.load("a.csv", OTHER_ROWS)
    (content,) = exports(trial, "csv")
    again = trial.load("b.csv", content.replace(b"local:", b"other:"))
    assert (again.status, again.rule_counts.keys() >= {"email_email"}) == ("refused", True)


def test_an_export_with_withheld_columns_is_refused(declared: Declared) -> None:
    class Person(RowModel):
        """A person."""

        id: str = Field("Id")
        name: str = Field("Name", personal="mask")

    trial = declared(replace(DATASET, rows=Person))
    trial.load("a.csv", "id,name\n1,Ann\n")
    forms = ("csv", "json", "ndjson")
    for form, exported in zip(forms, exports(trial, *forms, personal=False), strict=True):
        assert (b"Ann" in exported, b"name _extra" in exported) == (False, True)
        again = trial.load(f"b.{form}", exported)
        assert again.status == "refused"
        assert again.error.startswith(
            "The file is an export in which columns are withheld (name), and loading it would remove"
        )
    with served.client(trial) as client:
        only_masked = client.get("/api/datasets/things/rows.csv?fields=name").text
        shown = client.get("/api/datasets/things/rows/").json()["results"]
    assert only_masked == "_withheld\r\nname\r\n"
    again = trial.load("c.json", json.dumps(shown))
    assert (again.status, "personal data is masked (name), and loading it would replace it by ***" in again.error) == (
        "refused",
        True,
    )
    assert trial.rows("id", "name") == [("1", "Ann")]
