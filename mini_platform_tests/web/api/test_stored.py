"""The API answers with what is stored: values come back as a file unchanged, and an ETag stands for one answer only."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Numeric, func, select, text

from mini_platform import Aggregate, Csv, Dataset, Field, Json, RejectLimit, RowModel
from mini_platform.declare.columns import Personal
from mini_platform_tests.support.pages import Opened
from mini_platform_tests.support.trial import Declared


def dataset(most: int = 10, factor: int = 1, personal: Personal | None = None, unit: str | None = None) -> Dataset:
    class Counted(RowModel):
        k: int = Field("Number")
        n: int = Field("Number", le=most, unit=unit)
        name: str = Field("Name", personal=personal)

    def total(o: Any) -> Any:
        """Total."""
        return select(o.c.k, func.sum(o.c.n * factor, type_=BigInteger).label("s")).group_by(o.c.k)

    return Dataset(
        name="counted", table="counted", description="Counted", rows=Counted, key=("k",), reject_limit=RejectLimit(rows=0),
        aggregates=(Aggregate(total, key=("k",), columns={"k": ("K",), "s": ("S",)}, chart=("k", "s")),),
    )  # fmt: skip


def test_an_etag_stands_for_one_answer(declared: Declared, opened: Opened) -> None:
    """Whatever happens, a request with an ETag is answered 304 only if the answer would be the same."""
    known: dict[str, dict[str, Any]] = {}
    unchanged: list[str] = []

    def look(what: str, declaration: Dataset) -> None:
        ask = opened(declaration)
        for path in ("rows/", "rows.csv", "analytics/total/", "analytics/total.csv"):
            now = ask(f"/api/datasets/counted/{path}", accept="*/*")
            assert now.status_code == 200
            etags = known.setdefault(path, {})
            assert etags.setdefault(now.headers["etag"], now.text) == now.text, (what, path)
            again = ask(f"/api/datasets/counted/{path}", accept="*/*", **{"If-None-Match": now.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        unchanged.append(" ".join(known["rows/"]))

    trial = declared(dataset())
    look("no rows", dataset())
    trial.load("a.csv", "k,n,name\n1,5,Ann\n2,7,Bob\n")
    look("rows", dataset())
    trial.load("b.csv", "k,n,name\n1,5,Ann\n2,7,Bob\n")
    look("the same rows", dataset())
    assert unchanged[-1] == unchanged[-2]
    trial.load("c.csv", "k,n,name\n1,6,Ann\n")
    look("another value", dataset())
    declared(dataset(factor=100)).reprocess()
    look("an aggregate declared anew, reprocessed", dataset(factor=100))
    declared(dataset(factor=1000)).run()
    look("an aggregate declared anew, computed", dataset(factor=1000))
    declared(dataset(personal="mask"))
    look("personal now", dataset(personal="mask"))
    declared(dataset(most=4)).reprocess()
    look("refused now", dataset(most=4))
    declared(dataset()).reprocess()
    look("loaded again", dataset())
    with trial.platform.engine.begin() as conn:
        conn.execute(text("DELETE FROM analytics.total"))
        conn.execute(text("INSERT INTO ops.dirty_groups (dataset, consumer) VALUES ('counted', 'aggregate:total')"))
    trial.run()
    look("mended", dataset())


class Extreme(RowModel):
    k: int = Field("Number")
    small: Decimal | None = Field("Decimal", decimals=10)
    large: Decimal | None = Field("Decimal", decimals=0)
    real: float | None = Field("Float")
    count: int | None = Field("Whole number")
    is_so: bool | None = Field("Truth")
    day: dt.date | None = Field("Day")
    at: dt.datetime | None = Field("Moment")
    items: list[float] | None = Field("List")
    words: str | None = Field("Text")


def sums(o: Any) -> Any:
    """Sums."""
    return select(o.c.k, func.sum(o.c.small, type_=Numeric).label("small")).group_by(o.c.k)


EXTREME = Dataset(
    name="extreme", table="extreme", description="Extremes", rows=Extreme, key=("k",), sources=(Csv(), Json()),
    aggregates=(Aggregate(sums, key=("k",), columns={"k": ("K",), "small": ("Small",)}, chart=("k", "small")),),
)  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "small": ["0.0000000001", "-0.0000000001", "12345678.0000000001", "0", "1.50"],
    "large": ["100000000000000000", "-1", "0", "1000"],
    "real": [
        "0.1",
        "1.7976931348623157e308",
        "5e-324",
        "-1e-300",
        "0.30000000000000004",
        "12345678.123456789",
        "1e22",
        "3",
    ],
    "count": ["9223372036854775807", "-9223372036854775808", "9007199254740993"],
    "is_so": ["true", "false"],
    "day": ["0001-01-01", "9999-12-31", "2024-02-29"],
    "at": ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00.000001Z"],
    "items": ["[0.1,1e-300]", "[1.7976931348623157e308]", "[3,0.30000000000000004]"],
    "words": ["1E-10", "-5", "Å", 'a,"b"', "line\nbreak", "NULL", "<b>", "1.00"],
}
"""Column -> texts of values that are easily lost."""


def test_what_is_exported_comes_back_unchanged(declared: Declared, opened: Opened) -> None:
    rows = [{"k": str(number)} for number in range(max(map(len, VALUES.values())) + 1)]
    for name, texts in VALUES.items():
        for row, value in zip(rows, texts, strict=False):
            row[name] = value
    header = list(Extreme.__annotations__)
    quoted = [",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in header) for row in rows]
    trial = declared(EXTREME)
    first = trial.load("a.csv", "\n".join([",".join(header), *quoted]) + "\n")
    assert (first.rows_inserted, first.rows_rejected) == (len(rows), 0), trial.rejects()
    stored = trial.rows(*header)
    ask = opened(EXTREME)
    declared_columns = f"fields={','.join(header)}"
    as_json = ask(f"/api/datasets/extreme/rows/?{declared_columns}", accept="application/json")
    for text_ in (as_json.text, ask("/api/datasets/extreme/rows.csv").text, ask("/datasets/extreme").text):
        assert "E-" not in text_.replace("1E-10", "")
        assert "E+" not in text_
    shown = {row["k"]: row for row in as_json.json()["results"]}
    assert [shown[i]["small"] for i in range(3)] == [f"{Decimal(value):.10f}" for value in VALUES["small"][:3]]
    results = as_json.text[as_json.text.index("[") : as_json.text.rindex("]") + 1]
    for name, body in (("b.csv", ask(f"/api/datasets/extreme/rows.csv?{declared_columns}").text), ("c.json", results)):
        again = trial.load(name, body)
        assert (again.status, again.rows_unchanged, again.rows_rejected) == ("loaded", len(rows), 0), (
            name,
            trial.rejects(),
        )
        assert trial.rows(*header) == stored
    small_sums = {row["k"]: row["small"] for row in ask("/api/datasets/extreme/analytics/sums/").json()["results"]}
    assert small_sums[0] == "0.0000000001"
    page = ask("/datasets/extreme").text
    assert "0.0000000001" in page
    assert "12,345,678.0000000001" in page
