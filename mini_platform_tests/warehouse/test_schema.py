"""Making the declared tables exist, on databases that are empty, up to date, or of an earlier declaration."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Engine,
    FromClause,
    Integer,
    Select,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from mini_platform import Aggregate, Dataset, DeclarationError, Field, RowModel
from mini_platform.datasets import all_datasets
from mini_platform.warehouse.bulk import build_indexes, drop_indexes
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import COUNTERS, SCHEMAS, dataset_tables, dirty_groups, files
from mini_platform_tests.support.catalog import catalog
from mini_platform_tests.support.examples import weather


class Point(RowModel):
    """The declaration that the tests change."""

    name: str = Field("Name of the point")
    height: float | None = Field("Above the sea", unit="m", source="a map")


def highest(m: FromClause) -> Select[Any]:
    """The highest point of a name."""
    return select(m.c.name, func.max(m.c.height).label("height")).group_by(m.c.name)


POINTS = Dataset(
    name="points",
    table="points",
    rows=Point,
    key=("name",),
    description="Points of a map.",
    aggregates=(Aggregate(highest, ("name",), {"name": ("Name",), "height": ("Highest", "m")}, ("name", "height")),),
)


def changed(fields: dict[str, Any], types: dict[str, str], **options: Any) -> Dataset:
    """The dataset with fields added or replaced, and other options."""
    body = {"name": Point.name, "height": Point.height} | fields
    hints = {"name": "str", "height": "float | None"} | types
    model = type("Point", (RowModel,), body | {"__annotations__": hints, "__module__": __name__})
    return dataclasses.replace(POINTS, rows=model, **options)


@pytest.fixture
def points(engine: Engine) -> Callable[[], list[tuple[Any, ...]]]:
    """A database that holds the points as first declared, and a row of them; called, reads the rows."""
    create_all(engine, [POINTS])
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO production.points VALUES ('A', 1.5, 7, '2024-01-01')"))
        conn.execute(text("INSERT INTO analytics.highest VALUES ('A', 1.5)"))
        conn.execute(text("DELETE FROM ops.dirty_groups"))

    def read() -> list[tuple[Any, ...]]:
        with engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text("SELECT name, height, _file_id FROM production.points"))]

    return read


@pytest.fixture
def empty_engine(engine: Engine) -> Iterator[Engine]:
    """A database as a server makes it."""
    with engine.begin() as conn:
        for schema in SCHEMAS:
            conn.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    return engine


# Creating


def test_an_empty_database_gets_catalog(empty_engine: Engine) -> None:
    create_all(empty_engine, all_datasets().values())
    names = {name for schema in SCHEMAS for name in inspect(empty_engine).get_table_names(schema)}
    assert names >= {"files", "inbox", "dirty_groups", "migrations"}
    assert names >= {"measurements", "daily_metrics", "summary", "quality_report"}


def test_twice_is_once(empty_engine: Engine) -> None:
    create_all(empty_engine, all_datasets().values())
    before = catalog(empty_engine)
    create_all(empty_engine, all_datasets().values())
    with empty_engine.begin() as conn:  # Forgotten: everything is compared anew.
        conn.execute(text("DELETE FROM ops.fingerprints"))
    create_all(empty_engine, all_datasets().values())
    assert catalog(empty_engine) == before


def test_what_is_up_to_date_waits_for_nobody(engine: Engine) -> None:
    """While another process changes the schema, a start that has nothing to change does not wait for its lock."""
    impatient = create_engine(engine.url, connect_args={"options": "-clock_timeout=100ms"})
    with engine.begin() as other:
        advisory_lock(other, "schema")
        create_all(impatient, all_datasets().values())
        with pytest.raises(OperationalError, match="lock timeout"):
            create_all(impatient, [POINTS])
    impatient.dispose()


def test_processes_that_start_together(empty_engine: Engine) -> None:
    script = (
        "import sys; from mini_platform.warehouse.connection import engine; "
        "from mini_platform.warehouse.schema import create_all; from mini_platform.datasets import all_datasets; "
        "sys.stdin.read(); create_all(engine(sys.argv[1]), all_datasets().values())"
    )
    url = empty_engine.url.render_as_string(hide_password=False)
    started = [subprocess.Popen([sys.executable, "-c", script, url], stdin=subprocess.PIPE) for _ in range(3)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()  # Now, all at once.
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    before = catalog(empty_engine)
    create_all(empty_engine, all_datasets().values())
    assert catalog(empty_engine) == before


# Changed declarations


def test_a_new_column_is_added_and_the_rows_stay(engine: Engine, points: Callable[[], list[Any]]) -> None:
    create_all(engine, [changed({"kind": Field("What it is", unit="word")}, {"kind": "str | None"}, indexes=("kind",))])
    assert points() == [("A", 1.5, 7)]
    for schema in ("staging", "production", "quarantine"):
        (column,) = [c for c in inspect(engine).get_columns("points", schema) if c["name"] == "kind"]
        assert column["nullable"]
        assert column["comment"] == ("What it is [word]" if schema == "production" else "As text: What it is [word]")
    assert [i["column_names"] for i in inspect(engine).get_indexes("points", "production")] == [["kind"]]


def test_a_new_column_that_may_not_be_empty_is_refused_where_there_are_rows(
    engine: Engine, points: Callable[[], list[Any]]
) -> None:
    required = changed({"kind": Field("What it is")}, {"kind": "str"})
    with pytest.raises(
        ValueError, match=r"production\.points\.kind is new and may not be empty, but the table has rows"
    ):
        raise create_all(engine, [required])["points"]
    assert points() == [("A", 1.5, 7)]
    assert not [c for c in inspect(engine).get_columns("points", "staging") if c["name"] == "kind"], "all or nothing"
    with engine.begin() as conn:
        conn.execute(text("TRUNCATE production.points"))
    create_all(engine, [required])
    assert [c["nullable"] for c in inspect(engine).get_columns("points", "production") if c["name"] == "kind"] == [
        False
    ]


def test_a_changed_type_is_refused(engine: Engine, points: Callable[[], list[Any]]) -> None:
    sentence = (
        r"production\.points\.height is DOUBLE PRECISION in the database and BIGINT in the declaration: "
        "change its type in the database first"
    )
    with pytest.raises(ValueError, match=sentence):
        raise create_all(engine, [changed({}, {"height": "int | None"}, aggregates=())])["points"]
    assert points() == [("A", 1.5, 7)]


def test_a_column_that_may_be_empty_from_now_on(engine: Engine, points: Callable[[], list[Any]]) -> None:
    create_all(engine, [changed({}, {"height": "float"})])
    with pytest.raises(IntegrityError), engine.begin() as conn:
        conn.execute(text("INSERT INTO production.points VALUES ('B', NULL, 7, '2024-01-01')"))
    create_all(engine, [changed({}, {})])
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO production.points VALUES ('B', NULL, 7, '2024-01-01')"))
    with pytest.raises(
        ValueError, match=r"production\.points\.height may not be empty any more, but is empty in some rows"
    ):
        raise create_all(engine, [changed({}, {"height": "float"})])["points"]
    assert points() == [("A", 1.5, 7), ("B", None, 7)]


def test_a_changed_key_is_refused(engine: Engine, points: Callable[[], list[Any]]) -> None:
    with pytest.raises(ValueError, match=r"production\.points has the key \['name'\] in the database and another one"):
        raise create_all(engine, [changed({}, {"height": "float"}, key=("name", "height"))])["points"]
    assert points() == [("A", 1.5, 7)]


def test_a_changed_aggregate_is_made_anew_and_marked(engine: Engine, points: Callable[[], list[Any]]) -> None:
    def highest(m: FromClause) -> Select[Any]:
        """The highest point of a name, and how many there are."""
        return select(m.c.name, func.max(m.c.height).label("height"), func.count().label("points")).group_by(m.c.name)

    described = {"name": ("Name",), "height": ("Highest", "m"), "points": ("How many",)}
    create_all(engine, [changed({}, {}, aggregates=(Aggregate(highest, ("name",), described, ("name", "height")),))])
    assert [c["name"] for c in inspect(engine).get_columns("highest", "analytics")] == ["name", "height", "points"]
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM analytics.highest")) == 0
        marks = conn.execute(select(dirty_groups.c.dataset, dirty_groups.c.consumer, dirty_groups.c.group_key)).all()
    assert marks == [("points", "aggregate:highest", None)]
    assert points() == [("A", 1.5, 7)]


def test_an_aggregate_whose_select_alone_changed_is_computed_again(
    engine: Engine, points: Callable[[], list[Any]]
) -> None:
    def highest(m: FromClause) -> Select[Any]:
        """The highest point of a name."""
        return select(m.c.name, func.min(m.c.height).label("height")).group_by(m.c.name)

    aggregate = dataclasses.replace(POINTS.aggregates[0], select=highest)
    create_all(engine, [changed({}, {}, aggregates=(aggregate,))])
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM analytics.highest")) == 0
        whole = select(func.count()).where(dirty_groups.c.dataset == "points", dirty_groups.c.group_key.is_(None))
        assert conn.scalar(whole) == 1
    assert points() == [("A", 1.5, 7)]


def test_an_unchanged_aggregate_keeps_its_rows(engine: Engine, points: Callable[[], list[Any]]) -> None:
    create_all(engine, [changed({}, {})])
    with engine.connect() as conn:
        assert conn.execute(text("SELECT name, height FROM analytics.highest")).all() == [("A", 1.5)]
    assert points() == [("A", 1.5, 7)]


def test_a_changed_description_changes_the_comment(engine: Engine, points: Callable[[], list[Any]]) -> None:
    create_all(engine, [changed({"height": Field("Above the ground", unit="ft")}, {})])
    (column,) = [c for c in inspect(engine).get_columns("points", "production") if c["name"] == "height"]
    assert column["comment"] == "Above the ground [ft]"
    assert points() == [("A", 1.5, 7)]


# What is in the database


def test_comments_and_units(engine: Engine) -> None:
    inspector = inspect(engine)
    comments = {c["name"]: c["comment"] for c in inspector.get_columns("measurements", "production")}
    assert comments["temp_c"].startswith("Mean air temperature [°C] (just outside the records in the WMO World Weather")
    assert comments["precip_mm"].startswith("Precipitation [mm/day] (")
    assert {c["name"]: c["comment"] for c in inspector.get_columns("summary", "analytics")}["missing_days"].endswith(
        "[days]"
    )
    for table in tables_of(weather):
        assert inspector.get_table_comment(table.name, table.schema)["text"] == table.comment
        assert [
            c["name"]
            for c in inspector.get_columns(table.name, table.schema)
            if not c["comment"] and c["name"][0] != "_"
        ] == []


def test_keys_types_and_indexes(engine: Engine) -> None:
    inspector = inspect(engine)
    assert inspector.get_pk_constraint("measurements", "production")["constrained_columns"] == ["station_id", "date"]
    assert [i["column_names"] for i in inspector.get_indexes("measurements", "production")] == [["date"]]
    types = {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns("measurements", "production")}
    assert types["station_id"] == ('TEXT COLLATE "C"', False)
    assert types["date"] == ("DATE", False)
    assert types["temp_c"] == types["precip_mm"] == ("DOUBLE PRECISION", True)
    with engine.connect() as conn:
        kind = text("SELECT relpersistence FROM pg_class WHERE oid = to_regclass(:name)")
        kinds = [conn.scalar(kind, {"name": f"{s}.measurements"}) for s in ("staging", "production", "quarantine")]
    assert kinds == ["u", "p", "p"], "staging alone is unlogged"


FILE = {"dataset": "d", "name": "f", "version": 1, "sha256": "", "bytes": 0, "channel": "", "status": "loaded"}
FIGURES = dict(zip(("rows_read", *COUNTERS), (15, 1, 2, 3, 4, 5), strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows_read": 14},
        {"rows_rejected": 6},
        {"rows_superseded": 0},
        {"rows_read": None},
        *({name: None} for name in COUNTERS),
        {"status": "done"},
    ],
)
def test_the_ledger_refuses_an_account_that_does_not_add_up(engine: Engine, wrong: dict[str, Any]) -> None:
    with engine.begin() as conn:
        conn.execute(insert(files).values(FILE | FIGURES))
    with pytest.raises(IntegrityError, match=r"every_row_accounted_for|known_status"), engine.begin() as conn:
        conn.execute(insert(files).values(FILE | FIGURES | {"version": 2} | wrong))


def test_two_rows_for_one_version_are_refused(engine: Engine) -> None:
    with engine.begin() as conn:
        first = conn.scalar(insert(files).values(FILE | FIGURES).returning(files.c.file_id))
        conn.execute(insert(files).values(FILE | {"status": "unchanged", "same_as": first}))
    with pytest.raises(IntegrityError, match="files_version"), engine.begin() as conn:
        conn.execute(insert(files).values(FILE | FIGURES))


def test_indexes_go_and_come_back(engine: Engine) -> None:
    production = dataset_tables(weather).production
    query = text(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'production' AND tablename = 'measurements' ORDER BY 1"
    )
    with engine.connect() as conn:
        before = conn.execute(query).all()
        drop_indexes(conn, production)
        assert conn.execute(query).all() == []
        drop_indexes(conn, production)
        build_indexes(conn, production)
        assert conn.execute(query).all() == before


# Declarations that cannot be tables


def test_an_aggregate_column_without_a_type() -> None:
    def untyped(m: FromClause) -> Select[Any]:
        """Untyped."""
        return select(m.c.name, func.some_function(m.c.height).label("height")).group_by(m.c.name)

    aggregate = Aggregate(untyped, ("name",), {"name": ("n",), "height": ("h",)}, ("name", "height"))
    with pytest.raises(DeclarationError, match=r"points\.untyped: give \['height'\] a type"):
        dataset_tables(dataclasses.replace(POINTS, aggregates=(aggregate,)))


def test_an_aggregate_column_without_a_description() -> None:
    aggregate = dataclasses.replace(POINTS.aggregates[0], columns={"name": ("n",), "heigth": ("h",)})
    with pytest.raises(ValueError, match=r"points\.highest: columns does not describe .*"):
        dataset_tables(dataclasses.replace(POINTS, aggregates=(aggregate,)))


def test_types_of_computed_columns() -> None:
    types = {c.name: type(c.type) for c in dataset_tables(weather).aggregates["summary"].columns}
    assert types["missing_days"] is Integer
    assert issubclass(types["rows"], Integer | BigInteger)


def test_the_number_of_a_record_is_added_to_an_old_quarantine_and_its_key(engine: Engine) -> None:
    old = "INSERT INTO quarantine.measurements (_file_id, _line, _rules, _reasons) VALUES (1, 7, '{x}', '{y}')"
    with engine.begin() as conn:
        for schema in ("quarantine", "staging"):
            conn.execute(text(f"ALTER TABLE {schema}.measurements DROP COLUMN _record"))
        conn.execute(text("ALTER TABLE quarantine.measurements ADD PRIMARY KEY (_file_id, _line)"))
        conn.execute(text(old))
        conn.execute(text("DELETE FROM ops.fingerprints"))
    create_all(engine, [weather])
    with engine.begin() as conn:
        assert conn.execute(text("SELECT _file_id, _line, _record FROM quarantine.measurements")).all() == [(1, 7, 0)]
        conn.execute(text(old.replace("_line,", "_line, _record,").replace("7,", "7, 1,")))
        key = inspect(conn).get_pk_constraint("measurements", schema="quarantine")["constrained_columns"]
    assert key == ["_file_id", "_line", "_record"]
