"""Pages and filters against sorted lists and plain Python, over random tables on a real Postgres."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Engine,
    MetaData,
    Numeric,
    Table,
    Text,
    delete,
    insert,
)
from sqlalchemy.dialects.postgresql import ARRAY

from mini_platform.web.api.query import ListQuery, ResultPage, count, page, stream
from mini_platform.web.api.relations import Relation, _relation, _relation_column
from mini_platform.web.problems import ProblemError

TABLE = Table(
    "things",
    MetaData(),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text(collation="C"), nullable=False, primary_key=True),
    Column("text", Text(collation="C")),
    Column("number", BigInteger),
    Column("float", Double),
    Column("exact", Numeric(18, 2), nullable=False),
    Column("day", Date),
    Column("moment", DateTime(timezone=True)),
    Column("truth", Boolean),
    Column("list", ARRAY(Double)),
    prefixes=["TEMPORARY"],
)
COLUMNS = [column.name for column in TABLE.columns]
KEYED = _relation(
    "things", [_relation_column(column) for column in TABLE.columns], TABLE, ("id", "kind"), ("text", "kind")
)
KEYLESS = _relation("seen", [_relation_column(column) for column in TABLE.columns], TABLE, (), ("text", "kind"))

few_texts = st.sampled_from(["", "a", "A", "b,c", "é", "É", "100%", "a_b", "\\", "' OR 1=1 --", "𝄞", "\x7f", "\u202e"])
few_floats = st.sampled_from([0.0, -1.5, 1e308, 5e-324, 0.1, math.inf, -math.inf, math.nan])
MOMENTS = [dt.datetime(2024, 1, 1, 12, 0, 0, n, dt.UTC) for n in (0, 1, 999_999)]
row = st.fixed_dictionaries(
    {
        "id": st.integers(0, 3),
        "kind": st.sampled_from(["x", "y", "Z", "ü"]),
        "text": st.none() | few_texts,
        "number": st.none() | st.sampled_from([0, 1, -(2**63), 2**63 - 1]),
        "float": st.none() | few_floats,
        "exact": st.sampled_from([Decimal("1.10"), Decimal("-0.01"), Decimal("9999999999999999.99")]),
        "day": st.none() | st.sampled_from([dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]),
        "moment": st.none() | st.sampled_from(MOMENTS),
        "truth": st.none() | st.booleans(),
        "list": st.none() | st.lists(st.sampled_from([0.0, 1.5, math.nan]), max_size=2),
    }
)
tables = st.lists(row, max_size=16, unique_by=lambda row: (row["id"], row["kind"]))
orderings = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(COLUMNS)), max_size=4, unique_by=lambda item: item[1]
)
property_test = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.exec_driver_sql("SET timezone = 'UTC'")
        TABLE.create(connection)
        yield connection


def fill(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    conn.execute(delete(TABLE))
    if rows:
        conn.execute(insert(TABLE), list(rows))


def list_query(relation: Relation, **params: Any) -> ListQuery:
    return ListQuery.parse(relation, [(name, str(value)) for name, value in params.items()])


def walk(conn: Connection, relation: Relation, **params: Any) -> list[ResultPage]:
    """Return every page, by `next`."""
    pages = [page(conn, relation, list_query(relation, **params))]
    while pages[-1].next:
        pages.append(page(conn, relation, list_query(relation, **params, cursor=pages[-1].next)))
    return pages


def expected(rows: Sequence[dict[str, Any]], ordering: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return rows sorted as Postgres sorts: NaN above all numbers, empty values above that."""
    last = ordering[-1][0] if ordering else ""
    ties = [(last, name) for name in ("id", "kind") if name not in [sort_name for _, sort_name in ordering]]

    def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
        for direction, name in [*ordering, *ties]:
            if difference := three_way(rank(one[name]), rank(other[name])):
                return -difference if direction else difference
        return 0

    return sorted(rows, key=cmp_to_key(compare))


def rank(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (2,)
    if isinstance(value, float) and math.isnan(value):
        return (1,)
    if isinstance(value, str):
        return (0, value.encode())
    return (0, [rank(item) for item in value] if isinstance(value, list) else value)


def three_way(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def key(row: dict[str, Any]) -> tuple[int, str]:
    return row["id"], row["kind"]


@property_test
@given(rows=tables, ordering=orderings, limit=st.integers(1, 5))
def test_pages_are_the_sorted_list_forward_and_back(
    conn: Connection, rows: list[dict[str, Any]], ordering: list[tuple[str, str]], limit: int
) -> None:
    fill(conn, rows)
    params = {"limit": limit} | ({"ordering": ",".join(map("".join, ordering))} if ordering else {})
    pages = walk(conn, KEYED, **params)
    assert [key(row) for one in pages for row in one.results] == [key(row) for row in expected(rows, ordering)]
    assert pages[0].previous is None
    assert all(len(one.results) == limit for one in pages[:-1])
    for earlier, later in zip(reversed(pages[:-1]), reversed(pages[1:]), strict=True):
        back = page(conn, KEYED, list_query(KEYED, **params, cursor=later.previous))
        assert repr(back) == repr(earlier)


@property_test
@given(rows=tables, copies=st.integers(1, 3), ordering=orderings, limit=st.integers(1, 5))
def test_rows_that_look_the_same_are_all_there_without_a_key(
    conn: Connection, rows: list[dict[str, Any]], copies: int, ordering: list[tuple[str, str]], limit: int
) -> None:
    relation = _relation("seen", [_relation_column(c) for c in TABLE.columns if c.name != "id"], TABLE, (), ())
    fill(conn, [{**row, "id": copy * 10 + row["id"]} for row in rows for copy in range(copies)])
    chosen = [direction + name for direction, name in ordering if name != "id"]
    params = {"limit": limit} | ({"ordering": ",".join(chosen)} if chosen else {})
    pages = walk(conn, relation, **params)
    forward = [repr(row) for one in pages for row in one.results]
    bare = [{name: row[name] for name in COLUMNS if name != "id"} for row in rows for _ in range(copies)]
    assert sorted(forward) == sorted(map(repr, bare))
    back, backward = pages[-1], list(reversed([repr(row) for row in pages[-1].results]))
    while back.previous:
        back = page(conn, relation, list_query(relation, **params, cursor=back.previous))
        backward += reversed([repr(row) for row in back.results])
    assert backward[::-1] == forward


@property_test
@given(data=st.data(), rows=tables, ordering=orderings, limit=st.integers(1, 3))
def test_rows_that_come_and_go_make_no_other_row_come_twice_or_never(
    conn: Connection, data: st.DataObject, rows: list[dict[str, Any]], ordering: list[tuple[str, str]], limit: int
) -> None:
    fill(conn, rows)
    steady = data.draw(st.sets(st.sampled_from([key(row) for row in rows]))) if rows else set()
    params = {"limit": limit} | ({"ordering": ",".join(map("".join, ordering))} if ordering else {})
    visited, cursor = [], None
    for way in ("next", "previous"):
        for _ in range(40):
            current_page = page(conn, KEYED, list_query(KEYED, **params, **({"cursor": cursor} if cursor else {})))
            visited += [(way, key(row)) for row in current_page.results]
            if getattr(current_page, way) is None:
                break
            cursor = getattr(current_page, way)
            changing = data.draw(st.sets(st.sampled_from([key(row) for row in rows]))) - steady if rows else set()
            fill(conn, [row for row in rows if key(row) not in changing])
        if way == "next":
            fill(conn, rows)
            cursor = current_page.previous
            last = [("previous", key(row)) for row in current_page.results]
            if cursor is None:
                break
            visited += last[::-1]
    for way in {way for way, _ in visited}:
        keys = [one for direction, one in visited if direction == way]
        assert steady <= set(keys)
        assert not [one for one in steady if keys.count(one) > 1]


OPERATORS: dict[str, Any] = {
    "eq": lambda one, other: one == other,
    "ne": lambda one, other: one != other,
    "gt": lambda one, other: one > other,
    "gte": lambda one, other: one >= other,
    "lt": lambda one, other: one < other,
    "lte": lambda one, other: one <= other,
}


@property_test
@given(data=st.data(), rows=tables, name=st.sampled_from(COLUMNS[:-1]), operator=st.sampled_from(sorted(OPERATORS)))
def test_filters_hold_what_python_says(
    conn: Connection, data: st.DataObject, rows: list[dict[str, Any]], name: str, operator: str
) -> None:
    fill(conn, rows)
    values = [row[name] for row in rows if row[name] is not None and row[name] not in (math.inf, -math.inf)]
    values = [value for value in values if value == value] or [KINDS[name]]  # noqa: PLR0124 - NaN
    value = data.draw(st.sampled_from(values))
    if KEYED.columns[name].type is bool and operator not in ("eq", "ne"):
        return
    words = value.isoformat() if isinstance(value, dt.date) else str(value)
    query = list_query(KEYED, **{f"{name}__{operator}": words}, limit=1000)
    holds = OPERATORS[operator]
    right = [
        key(row)
        for row in expected(rows, [])
        if (row[name] is not None and holds(rank(row[name]), rank(value))) or (row[name] is None and operator == "ne")
    ]
    assert [key(row) for row in page(conn, KEYED, query).results] == right
    assert count(conn, KEYED, query) == len(right)
    assert [(item[0], item[1]) for item in stream(conn, KEYED, query)] == right


KINDS: dict[str, Any] = {
    "id": 0, "kind": "x", "text": "a", "number": 0, "float": 0.5, "exact": Decimal("1.10"), "day": dt.date(2024, 1, 1),
    "moment": MOMENTS[1], "truth": True,
}  # fmt: skip


@property_test
@given(rows=tables, part=few_texts, other=few_texts)
def test_contains_search_in_and_isnull(conn: Connection, rows: list[dict[str, Any]], part: str, other: str) -> None:
    fill(conn, rows)

    def keys(*params: tuple[str, str]) -> list[tuple[int, str]]:
        return [key(row) for row in page(conn, KEYED, ListQuery.parse(KEYED, params)).results]

    def right(holds: Any) -> list[tuple[int, str]]:
        return [key(row) for row in expected(rows, []) if holds(row)]

    def within(word: str, value: str | None) -> bool:
        return value is not None and word.lower() in value.lower()

    assert keys(("text__contains", part)) == right(lambda row: within(part, row["text"]))
    words = part.split()
    assert keys(("search", part)) == right(
        lambda row: all(within(word, row["text"]) or within(word, row["kind"]) for word in words)
    )
    assert keys(("text__in", part), ("text__in", other)) == right(lambda row: row["text"] in (part, other))
    assert keys(("text__in", part)) == right(lambda row: row["text"] in part.split(","))
    assert keys(("day__isnull", "true")) == right(lambda row: row["day"] is None)
    assert keys(("list__isnull", "false")) == right(lambda row: row["list"] is not None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([("day__gte", "2024-13-01")], "day__gte: '2024-13-01' is not a date of the form YYYY-MM-DD."),
        ([("day", "20240101")], "is not a date of the form"),
        ([("moment", "noon")], "is not an ISO 8601 time"),
        ([("moment", "2024-01-01T24:00")], "is not an ISO 8601 time"),
        ([("moment", "0001-01-01T00:00:00+01:00")], "is not an ISO 8601 time"),
        ([("number", str(2**63))], "is a whole number of more than 64 bits"),
        ([("number", "9" * 5000)], "is not a whole number"),
        ([("number", "1.5")], "is not a whole number"),
        ([("number__in", "1,")], "number__in: '' is not a whole number."),
        ([("float", "1e999")], "is too large a number"),
        ([("float", "nan")], "is not a number"),
        ([("exact", "1e9999")], "is not a number"),
        ([("truth", "maybe")], "is neither true nor false"),
        ([("truth__gt", "true")], "truth can be filtered by truth__eq, truth__ne, truth__isnull."),
        ([("list", "1")], "list can be filtered by list__isnull."),
        ([("text", "a\0b")], "contains a NUL character"),
        ([("search", "\0")], "contains a NUL character"),
        ([("text", "\ud800")], "is not Unicode text"),
        ([("text__like", "a")], "text can be filtered by"),
        ([("colour", "red")], "There is no parameter 'colour'."),
        ([("", "")], "There is no parameter ''."),
        ([("ordering", "text,-text")], "a column is named twice"),
        ([("ordering", "--text")], "there is no column '-text'"),
        ([("ordering", "colour")], "The columns are: id, kind"),
        ([("ordering", "")], "there is no column ''"),
        ([("fields", "-text")], "there is no column '-text'"),
        ([("limit", "0")], "limit: 0 is not 1 to 1000."),
        ([("limit", "1001")], "limit: 1001 is not 1 to 1000."),
        ([("limit", "1"), ("limit", "2")], "limit is given 2 times"),
        ([("search", " ".join(["a"] * 501))], "too many"),
        ([("search", "a" * 2001)], "search: it is too long: the limit is 2,000 characters."),
        ([("f__gte", "1")] * 501, "There are 501 filters: the limit is 500."),
        ([("cursor", "")], "not a valid `next` or `previous`"),
        ([("cursor", "WyJhIl0")], "not a valid `next` or `previous`"),
        ([("cursor", "é")], "not a valid `next` or `previous`"),
        ([("cursor", "[" * 30_000)], "not a valid `next` or `previous`"),
        ([("cursor", "W1tbW1tbW1tbW1tb" * 2000)], "not a valid `next` or `previous`"),
    ],
)
def test_invalid_parameters_are_refused_with_a_sentence(params: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ProblemError) as refused:
        ListQuery.parse(KEYED, params)
    assert message in refused.value.detail
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("2024-01-01", dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        ("2024-01-01T12:30", dt.datetime(2024, 1, 1, 12, 30, tzinfo=dt.UTC)),
        ("2024-01-01 12:30:01.5Z", dt.datetime(2024, 1, 1, 12, 30, 1, 500_000, dt.UTC)),
        ("2024-01-01T12:30:00 02:00", dt.datetime(2024, 1, 1, 10, 30, tzinfo=dt.UTC)),
        ("2024-01-01T12:30:00+23:30", dt.datetime(2023, 12, 31, 13, 0, tzinfo=dt.UTC)),
        ("2024-01-01T12:30:00-02:00", dt.datetime(2024, 1, 1, 14, 30, tzinfo=dt.UTC)),
    ],
)
def test_times_are_read_as_they_are_written(conn: Connection, words: str, moment: dt.datetime) -> None:
    fill(conn, [dict.fromkeys(COLUMNS) | {"id": 1, "kind": "x", "exact": 1, "moment": moment}])
    assert count(conn, KEYED, list_query(KEYED, moment=words)) == 1


def test_cursor_of_another_ordering_or_filter_is_refused(conn: Connection) -> None:
    fill(conn, [dict.fromkeys(COLUMNS) | {"id": n, "kind": "x", "exact": 1} for n in range(3)])
    cursor = page(conn, KEYED, list_query(KEYED, limit=1)).next
    assert list_query(KEYED, limit=2, fields="id", cursor=cursor).cursor is not None
    for other in ({"ordering": "-id"}, {"text": "a"}, {"search": "a"}):
        with pytest.raises(ProblemError, match="another listing, ordering or filter"):
            list_query(KEYED, **other, cursor=cursor)
    with pytest.raises(ProblemError, match="another listing"):
        list_query(KEYLESS, cursor=cursor)


@property_test
@given(data=st.data(), ordering=orderings)
def test_tampered_cursors_are_refused_or_read(
    conn: Connection, data: st.DataObject, ordering: list[tuple[str, str]]
) -> None:
    """Whatever JSON is put into a cursor: Postgres never sees a value that it cannot compare."""
    import base64
    import json

    fill(conn, [])
    params = {"ordering": ",".join(map("".join, ordering))} if ordering else {}
    query = list_query(KEYED, **params)
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\0", "\ud800", "NaN"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=3,
    )
    values = data.draw(st.lists(anything, min_size=len(query.sorts), max_size=len(query.sorts)))
    where = data.draw(st.sampled_from(["after", "from", "before", "until", None, []]))
    text = base64.urlsafe_b64encode(json.dumps([query.mark, where, *values]).encode()).decode()
    try:
        tampered = list_query(KEYED, **params, cursor=text)
    except ProblemError:
        return
    page(conn, KEYED, tampered)


def test_long_texts_do_not_make_long_cursors(conn: Connection) -> None:
    rows = [dict.fromkeys(COLUMNS) | {"id": n, "kind": "x", "exact": 1} for n in range(6)]
    fill(conn, [row | {"text": "é" * 10_000 + str(row["id"])} for row in rows])
    pages = walk(conn, KEYED, ordering="text", limit=2)
    assert [row["id"] for one in pages for row in one.results] == list(range(6))
    assert len(pages[0].next or "") < 2000
