"""The idempotent upsert of selects and DataFrames."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pandas as pd
import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Engine,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    cast,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from mini_platform.warehouse.upsert import copy_in, key_of, upsert, upsert_frame

METADATA = MetaData()
POINTS = Table(
    "points",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("height", Double),
    Column("more", JSONB),
)
NAMES = Table("Na mes", METADATA, Column("na me", Text, primary_key=True), Column("day", Integer, primary_key=True))


@pytest.fixture(autouse=True)
def tables(engine: Engine) -> None:
    METADATA.create_all(engine)


def stored_points(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(select(POINTS).order_by(POINTS.c.name, POINTS.c.day))]


def physical(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text("SELECT ctid::text, xmin::text FROM points ORDER BY ctid"))]


def rows_of(*rows: tuple[str, int, float | None]) -> Select[Any]:
    parts = [
        select(literal(n).label("name"), literal(d).label("day"), cast(h, Double).label("height")) for n, d, h in rows
    ]
    together = union_all(*parts).subquery()
    return select(together)


# Selects


def test_new_rows_are_inserted_and_others_overwritten(engine: Engine) -> None:
    with engine.begin() as conn:
        assert upsert(conn, POINTS, rows_of(("a", 1, 1.5), ("b", 1, None))) == 2
        assert upsert(conn, POINTS, rows_of(("b", 1, 2.5), ("c", 1, 3.5))) == 2
    assert stored_points(engine) == [("a", 1, 1.5, None), ("b", 1, 2.5, None), ("c", 1, 3.5, None)]


@pytest.mark.parametrize("height", [1.5, None])
def test_rows_that_are_there_already_are_left_alone(engine: Engine, height: float | None) -> None:
    with engine.begin() as conn:
        assert upsert(conn, POINTS, rows_of(("a", 1, height))) == 1
    before = physical(engine)
    with engine.begin() as conn:
        assert upsert(conn, POINTS, rows_of(("a", 1, height))) == 0
    assert physical(engine) == before


def test_a_value_becomes_null_and_back(engine: Engine) -> None:
    for height in (None, 1.5, None):
        with engine.begin() as conn:
            assert upsert(conn, POINTS, rows_of(("a", 1, height))) == 1
        assert stored_points(engine) == [("a", 1, height, None)]


def test_without_the_comparison_every_row_is_written(engine: Engine) -> None:
    with engine.begin() as conn:
        assert upsert(conn, POINTS, rows_of(("a", 1, 1.5))) == 1
    with engine.begin() as conn:
        assert upsert(conn, POINTS, rows_of(("a", 1, 1.5)), skip_unchanged=False) == 1


def test_a_table_that_is_all_key(engine: Engine) -> None:
    row = select(literal("x").label("na me"), literal(1).label("day"))
    with engine.begin() as conn:
        assert [upsert(conn, NAMES, row), upsert(conn, NAMES, row)] == [1, 0]
        assert conn.execute(select(NAMES)).all() == [("x", 1)]


def test_a_key_twice_in_one_select_is_an_error(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="cannot affect row a second time"), engine.begin() as conn:
        upsert(conn, POINTS, rows_of(("a", 1, 1.5), ("a", 1, 2.5)))
    assert stored_points(engine) == []


def test_the_key_of_a_table() -> None:
    assert key_of(POINTS) == ["name", "day"]


# DataFrames

FRAME = pd.DataFrame(
    {
        "more": [{"a": [1, None]}, {}, {"quote": 'it\'s "it"'}],
        "name": ["x, y", 'a "b"\n\\N', "é😀"],
        "day": [1, 2, 3],
        "height": [1.5, float("nan"), -0.0],
    }
)


def test_a_frame_is_upserted_by_the_names_of_its_columns(engine: Engine) -> None:
    with engine.begin() as conn:
        assert upsert_frame(conn, POINTS, FRAME) == 3
    assert stored_points(engine) == [
        ('a "b"\n\\N', 2, None, {}),
        ("x, y", 1, 1.5, {"a": [1, None]}),
        ("é😀", 3, 0.0, {"quote": 'it\'s "it"'}),
    ]


def test_the_same_frame_again_changes_nothing(engine: Engine) -> None:
    with engine.begin() as conn:
        upsert_frame(conn, POINTS, FRAME)
    before = physical(engine)
    with engine.begin() as conn:
        assert upsert_frame(conn, POINTS, FRAME) == 0
        assert upsert_frame(conn, POINTS, FRAME) == 0, "twice in one transaction"
        assert upsert_frame(conn, POINTS, FRAME.iloc[::-1].reset_index(drop=True)) == 0
    assert physical(engine) == before


def test_one_row_of_a_frame_changed(engine: Engine) -> None:
    with engine.begin() as conn:
        upsert_frame(conn, POINTS, FRAME)
        changed = FRAME.assign(more=[{"a": [2]}, {}, {"quote": 'it\'s "it"'}])
        assert upsert_frame(conn, POINTS, changed) == 1
    assert stored_points(engine)[1] == ("x, y", 1, 1.5, {"a": [2]})


def test_columns_that_the_frame_lacks_are_left_as_they_are(engine: Engine) -> None:
    with engine.begin() as conn:
        upsert_frame(conn, POINTS, FRAME)
        assert (
            upsert_frame(conn, POINTS, pd.DataFrame({"name": ["x, y", "new"], "day": [1, 1], "height": [9.0, 8.0]}))
            == 2
        )
    assert ("x, y", 1, 9.0, {"a": [1, None]}) in stored_points(engine)
    assert ("new", 1, 8.0, None) in stored_points(engine)


def test_an_empty_text_is_no_missing_value(engine: Engine) -> None:
    table = Table(
        "texts", MetaData(), Column("n", Integer, primary_key=True), Column("text", Text), Column("flag", Boolean)
    )
    texts = pd.DataFrame({"n": [1, 2, 3, 4], "text": ["", None, "NULL", "\\N"], "flag": [True, False, None, True]})
    with engine.begin() as conn:
        table.create(conn)
        upsert_frame(conn, table, texts)
        rows = conn.execute(select(table.c.text, table.c.flag).order_by(table.c.n)).all()
    assert rows == [("", True), (None, False), ("NULL", None), ("\\N", True)]


def test_an_empty_frame(engine: Engine) -> None:
    with engine.begin() as conn:
        assert upsert_frame(conn, POINTS, FRAME.iloc[:0]) == 0
    assert stored_points(engine) == []


def test_a_frame_with_unknown_columns(engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"points has no columns \['hight'\]"), engine.begin() as conn:
        upsert_frame(conn, POINTS, FRAME.rename(columns={"height": "hight"}))


def test_a_frame_without_its_key(engine: Engine) -> None:
    with (
        pytest.raises(ValueError, match=r"the frame lacks the key columns \['day'\] of points"),
        engine.begin() as conn,
    ):
        upsert_frame(conn, POINTS, FRAME.drop(columns="day"))


def test_a_frame_with_values_of_another_type_writes_nothing(engine: Engine) -> None:
    with pytest.raises(psycopg2.DataError, match="invalid input syntax"), engine.begin() as conn:
        upsert_frame(conn, POINTS, FRAME.astype({"day": str}).assign(day=["1", "2", "three"]))
    assert stored_points(engine) == []


def test_a_frame_with_a_key_twice_writes_nothing(engine: Engine) -> None:
    with pytest.raises(DBAPIError, match="cannot affect row a second time"), engine.begin() as conn:
        upsert_frame(conn, POINTS, pd.concat([FRAME, FRAME]))
    assert stored_points(engine) == []


def test_dates_and_times(engine: Engine) -> None:
    table = Table(
        "times", MetaData(), Column("day", Integer, primary_key=True), Column("at", Text), Column("missing", Text)
    )
    moment = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
    with engine.begin() as conn:
        table.create(conn)
        upsert_frame(conn, table, pd.DataFrame({"day": [1, 2], "at": [moment, None], "missing": [None, "x"]}))
        rows = conn.execute(select(table.c.at.cast(Text), table.c.missing).order_by(table.c.day)).all()
    assert rows == [("2024-02-29 12:30:00+00:00", None), (None, "x")]


# COPY


class Failing:
    """A source that breaks after some rows."""

    def __init__(self) -> None:
        self.left = 2

    def read(self, size: int) -> str:
        assert size > 0
        self.left -= 1
        if self.left < 0:
            raise LookupError("the source broke")
        return "x\t1\n"


def test_a_source_that_breaks_leaves_no_rows(engine: Engine) -> None:
    statement = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier("Na mes"))
    with pytest.raises(psycopg2.Error, match="COPY from stdin failed"), engine.begin() as conn:
        copy_in(conn, statement, Failing())
    with engine.begin() as conn:
        assert conn.scalar(select(func.count()).select_from(NAMES)) == 0
        copy_in(conn, statement, io.StringIO("x\t1\n"))
        assert conn.scalar(select(func.count()).select_from(NAMES)) == 1
