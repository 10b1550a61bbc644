"""DataFrames that a project's own assets return: stored as tables of `analytics`, and given back to downstream assets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pytest
from sqlalchemy import Engine, Select, Table, func, select, text

from mini_platform import Aggregate, Dataset, Field, RowModel
from mini_platform.dagster.io_manager import KEY, PostgresIOManager
from mini_platform.operations.frames import store_frame
from mini_platform.platform import Platform
from mini_platform.warehouse.arrow import to_polars
from mini_platform.warehouse.frame_columns import FrameError, frame_columns
from mini_platform.warehouse.frames import frame_tables, read_frame
from mini_platform.warehouse.granted import excess_privileges, missing_privileges
from mini_platform.warehouse.schema import create_all, undeclared
from mini_platform_tests.support import examples

Materialize = Callable[..., dict[str, Any]]
Store = Callable[..., tuple[int, ...]]
NOON = dt.datetime.fromisoformat("2024-02-29T12:00:00.123456")
DAY = dt.date(2024, 2, 29)
UTC = dt.UTC


class Site(RowModel):
    site: str = Field("Site")


def prices(sites: Table) -> Select[Any]:
    return select(sites.c.site, func.count().label("n")).group_by(sites.c.site)


AGGREGATE = Aggregate(prices, ("site",), {"site": ("Site",), "n": ("Rows",)}, ("site", "n"))
SITES = Dataset("sites", "sites", Site, ("site",), "Sites", aggregates=(AGGREGATE,))


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def materialize(platform: Platform) -> Materialize:
    """Called with a frame, and the key and metadata of its asset; returns what the materialization shows."""
    io_manager = PostgresIOManager(platform, platform.datasets)

    def run(frame: object, name: str | list[str] = "prices", **metadata: Any) -> dict[str, Any]:
        @dg.asset(key=name, metadata={f"mini_platform/{word}": value for word, value in metadata.items()})
        def own() -> Any:
            return frame

        result = dg.materialize([own], resources={"io_manager": io_manager})
        (event,) = result.get_asset_materialization_events()
        shown = event.materialization.metadata
        return {item: getattr(value, "value", value) for item, value in shown.items()}

    return run


@pytest.fixture
def store(platform: Platform) -> Store:
    """Called with a frame, and the key columns or the asset; returns the counters."""

    def run(frame: Any, *key: str, asset: str = "prices") -> tuple[int, ...]:
        stored = store_frame(platform, asset, frame, key)
        return stored.inserted, stored.updated, stored.unchanged, stored.deleted

    return run


@pytest.fixture
def stored(engine: Engine) -> Callable[[], pl.DataFrame]:
    """Called for the table of the asset `prices`."""

    def run() -> pl.DataFrame:
        with engine.connect() as conn:
            return to_polars(read_frame(conn, "prices"))

    return run


@pytest.fixture
def load(platform: Platform) -> Callable[..., Any]:
    """Called with a type of frame; returns the table as a downstream asset with that annotation gets it."""

    def run(annotation: type, name: str | list[str] = "prices") -> Any:
        received: list[Any] = []

        def downstream(upstream: Any) -> None:
            received.append(upstream)

        downstream.__annotations__["upstream"] = annotation
        asset = dg.asset(ins={"upstream": dg.AssetIn(key=name)})(downstream)
        source = dg.AssetSpec(name)
        io_manager = PostgresIOManager(platform, platform.datasets)
        assert dg.materialize([source, asset], resources={"io_manager": io_manager}, selection=[asset]).success
        return received[0]

    return run


def counters(shown: dict[str, Any]) -> tuple[int, ...]:
    return tuple(shown[f"rows_{name}"] for name in ("inserted", "updated", "unchanged", "deleted"))


def versions(engine: Engine) -> set[str]:
    """Return the place, transaction and values of each row: the first two differ once it is written."""
    with engine.connect() as conn:
        rows = conn.execute(text("SELECT ctid::text || ' ' || xmin::text, t.* FROM analytics.prices t"))
        return {f"{row[0]} {row[1:]}" for row in rows}


PANDAS = {
    "int64": (pd.Series([1, 2**62]), "bigint"),
    "int32": (pd.Series([1, -2], dtype="int32"), "integer"),
    "uint8": (pd.Series([1, 255], dtype="uint8").astype("int16"), "smallint"),
    "Int64": (pd.Series([2**53 + 1, None], dtype="Int64"), "bigint"),
    "float64": (pd.Series([0.1, None]), "double precision"),
    "float32": (pd.Series([0.5, 1e30], dtype="float32"), "real"),
    "bool": (pd.Series([True, False]), "boolean"),
    "boolean": (pd.Series([True, None], dtype="boolean"), "boolean"),
    "object of Decimal": (pd.Series([Decimal("1.10"), None], dtype=object), "numeric(38,2)"),
    "object of date": (pd.Series([DAY, None], dtype=object), "date"),
    "datetime": (pd.Series([NOON, None], dtype="datetime64[us]"), "timestamp without time zone"),
    "datetime with a zone": (
        pd.Series([NOON, None], dtype="datetime64[us]").dt.tz_localize("UTC"),
        "timestamp with time zone",
    ),
    "text": (pd.Series(['a, "b"\n€', ""], dtype=object), "text"),
    "lists": (pd.Series([[1.5, float("inf")], None], dtype=object), "double precision[]"),
    "nothing": (pd.Series([None, None], dtype=object), "text"),
}
POLARS = {
    "Int64": (pl.Series([1, None, 2**62]), "bigint"),
    "Float64": (pl.Series([0.1, float("nan"), None]), "double precision"),
    "Decimal": (pl.Series([Decimal("1.10"), None, None], dtype=pl.Decimal(10, 2)), "numeric(10,2)"),
    "Boolean": (pl.Series([True, False, None]), "boolean"),
    "Date": (pl.Series([DAY, dt.date(1, 1, 1), None]), "date"),
    "Datetime": (pl.Series([NOON, None, None]), "timestamp without time zone"),
    "Datetime with a zone": (pl.Series([NOON.replace(tzinfo=UTC), None, None]), "timestamp with time zone"),
    "String": (pl.Series(["NULL", "\\N", None]), "text"),
    "List": (pl.Series([[1.5, None], [], None], dtype=pl.List(pl.Float64)), "double precision[]"),
    "List of Int64": (pl.Series([[1, 2], [3], None], dtype=pl.List(pl.Int64)), "bigint[]"),
}


def column_types(engine: Engine, table: str = "prices") -> dict[str, str]:
    statement = text(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped"
    )
    with engine.connect() as conn:
        return dict(conn.execute(statement, {"table": f"analytics.{table}"}).tuples().all())


def test_frames_of_pandas_come_back(materialize: Materialize, load: Callable[..., Any], engine: Engine) -> None:
    frame = pd.DataFrame({name: series for name, (series, _) in PANDAS.items()})
    shown = materialize(frame)
    assert column_types(engine) == {name: kind for name, (_, kind) in PANDAS.items()}
    assert (shown["dagster/row_count"], shown["dagster/table_name"]) == (2, "analytics.prices")
    assert [column.name for column in shown["dagster/column_schema"].columns] == list(PANDAS)
    stored = load(pd.DataFrame).sort_values("int64", ignore_index=True)
    stored["lists"] = stored["lists"].map(lambda values: values if values is None else list(values))
    pd.testing.assert_frame_equal(stored, frame)
    assert counters(materialize(frame)) == (0, 0, 2, 0)


def test_frames_of_polars_come_back(materialize: Materialize, load: Callable[..., Any], engine: Engine) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3]} | {f'of "50 %": {name}': series for name, (series, _) in POLARS.items()})
    materialize(frame)
    assert column_types(engine) == {"n": "bigint"} | {f'of "50 %": {name}': kind for name, (_, kind) in POLARS.items()}
    assert load(pl.DataFrame).sort("n").equals(frame, null_equal=True)
    assert counters(materialize(frame)) == (0, 0, 3, 0)


def test_types_that_postgres_has_not(store: Store, stored: Callable[[], pl.DataFrame]) -> None:
    day = pd.Series([DAY], dtype="datetime64[ns]")
    frame = pd.DataFrame(
        {
            "category": pd.Series(["x"], dtype="category"),
            "string": pd.Series(["x"], dtype="string"),
            "ns": day,
            "zone": day.dt.tz_localize("Europe/Vienna"),
            "uint64": pd.Series([1], dtype="uint64"),
        }
    )
    store(frame)
    midnight = dt.datetime.fromisoformat("2024-02-29")
    assert stored().rows() == [("x", "x", midnight, midnight.replace(tzinfo=UTC) - dt.timedelta(hours=1), 1)]


def test_an_index_with_a_name_is_a_column() -> None:
    frame = pd.DataFrame({"a": ["x", "x", "y"], "b": [1, 2, 3]})
    assert [column.name for column in frame_columns(frame.groupby("a").sum())] == ["a", "b"]
    assert [column.name for column in frame_columns(frame[frame.b > 1])] == ["a", "b"]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (pd.DataFrame({"x": ["a", 1]}), "the column x has values of several types: int and str"),
        (pd.DataFrame({"x": pd.Series([DAY, NOON], dtype=object)}), "several types: date and datetime"),
        (pd.DataFrame({"x": [dt.time(1)]}), "the column x is of the type time64"),
        (pd.DataFrame({"x": [{"a": 1}]}), "the column x is of the type struct"),
        (pd.DataFrame({"x": [1j]}), "the column x is of the type complex"),
        (pd.DataFrame({"x": pd.to_timedelta([1])}), "the column x is of the type duration"),
        (pd.DataFrame({"x": pd.to_datetime([1])}), "the column x has times in nanoseconds"),
        (pd.DataFrame({"x": ["a\0"]}), "the column x has a text with a NUL character"),
        (
            pl.DataFrame({"x": pl.Series([2**63], dtype=pl.UInt64)}),
            "the column x has whole numbers of more than 63 bits",
        ),
        (pl.DataFrame({"x": [object()]}), "the column x is of the type Object"),
        (pl.DataFrame({"x": [["a"]]}), "the column x is of the type large_list<item: large_string>"),
        (pd.DataFrame({0: [1]}), "a column called 0, which is no text but of the type int"),
        (pd.DataFrame({"": [1]}), "a column whose name is empty"),
        (pd.DataFrame({"é" * 32: [1]}), "has 64 bytes; Postgres takes 63"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "two columns called x"),
        (pd.DataFrame({"x": [1]}, index=pd.to_datetime(["2024-01-01"])), "an index of datetime64"),
        (pd.DataFrame(), "no columns"),
    ],
)
def test_what_cannot_be_stored_is_refused(frame: Any, sentence: str) -> None:
    with pytest.raises(FrameError, match=sentence.replace("(", r"\(")):
        frame_columns(frame)


def test_without_a_key_the_table_is_made_equal(
    store: Store, stored: Callable[[], pl.DataFrame], engine: Engine
) -> None:
    first = pl.DataFrame({"a": ["x", "x", "x", None, None, "y"], "b": [1.5, 1.5, 1.5, None, None, float("nan")]})
    assert store(first) == (6, 0, 0, 0)
    assert stored().equals(first), "in a new table rows are in the order of the frame"
    before = versions(engine)
    second = pl.DataFrame({"a": ["x", None, None, None, "y", "z"], "b": [1.5, None, None, None, float("nan"), 2.0]})
    assert store(second) == (2, 0, 4, 2)
    assert stored().sort("a", "b").equals(second.sort("a", "b"))
    assert len(before & versions(engine)) == 4
    assert store(second.clear()) == (0, 0, 0, 6)


def test_with_a_key_rows_are_upserted(
    materialize: Materialize, stored: Callable[[], pl.DataFrame], engine: Engine
) -> None:
    first = pd.DataFrame(
        {"site": ["a", "b", "c"], "day": [DAY] * 3, "value": [1.0, None, 3.0], "note": ["x", "y", "z"]}
    )
    key = ["site", "day"]
    shown = materialize(first, key=key)
    assert counters(shown) == (3, 0, 0, 0)
    constraints = {column.name: column.constraints.other for column in shown["dagster/column_schema"].columns}
    assert [name for name, others in constraints.items() if "primary key" in others] == key
    before = versions(engine)
    second = pd.DataFrame({"site": ["b", "c", "d"], "day": [DAY] * 3, "value": [2.0, 3.0, 4.0]})
    assert counters(materialize(second, key=key)) == (1, 1, 1, 0)
    assert {row.split()[2][1:-1] for row in before & versions(engine)} == {"'a'", "'c'"}
    assert stored().sort("site")["value"].to_list() == [1.0, 2.0, 3.0, 4.0]
    assert stored().sort("site")["note"].to_list() == ["x", "y", "z", None], (
        "a column that a frame lacks keeps its values"
    )


@pytest.mark.parametrize(
    ("frame", "key", "sentence"),
    [
        (pd.DataFrame({"site": ["a", None], "value": [1, 2]}), "site", r"in 1 of 2 rows of the frame the key \(site\)"),
        (pd.DataFrame({"site": ["secret"] * 3, "value": [1, 2, 3]}), "site", r"1 keys \(site\) occur in several rows"),
        (pd.DataFrame({"site": ["a"]}), "sites", "mini_platform/key names sites, which is no column"),
        (pd.DataFrame({"site": ["a"]}), 3, "mini_platform/key should be the name of a column"),
        ({"site": ["a"]}, "site", "it returns a dict, and only a DataFrame"),
    ],
)
def test_keys_that_are_none_are_refused(frame: Any, key: Any, sentence: str, materialize: Materialize) -> None:
    with pytest.raises(dg.Failure, match=sentence) as failure:
        materialize(frame, ["own", "prices"], key=key)
    assert "secret" not in str(failure.value)
    assert str(failure.value.description).startswith("own/prices: ")


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "wider": (pl.Series([1], dtype=pl.Int32), pl.Series([2**40]), "bigint"),
    "narrower": (pl.Series([2**40]), pl.Series([1], dtype=pl.Int8), "bigint"),
    "whole floats": (pl.Series([2**40]), pl.Series([1.0]), "bigint"),
    "floats": (pl.Series([2]), pl.Series([1.5]), "double precision"),
    "ints as floats": (pl.Series([1.5]), pl.Series([2]), "double precision"),
    "decimals": (
        pl.Series([Decimal("1.25")], dtype=pl.Decimal(5, 2)),
        pl.Series([Decimal("10.125")], dtype=pl.Decimal(6, 3)),
        "numeric(6,3)",
    ),
    "ints as decimals": (pl.Series([Decimal("1.5")], dtype=pl.Decimal(5, 1)), pl.Series([2**40]), "numeric(20,1)"),
    "midnights": (pl.Series([dt.date(1, 1, 1)]), pl.Series([NOON]), "timestamp without time zone"),
    "nothing yet": (pl.Series([None], dtype=pl.Null), pl.Series([1.5]), "double precision"),
    "nothing any more": (pl.Series([1.5]), pl.Series([None], dtype=pl.Null), "double precision"),
}


def test_types_are_widened_without_loss(store: Store, stored: Callable[[], pl.DataFrame], engine: Engine) -> None:
    for number in (0, 1):
        store(pl.DataFrame({"n": [number]} | {name: change[number] for name, change in CHANGES.items()}), "n")
    assert {name: kind for name, kind in column_types(engine).items() if name != "n"} == {
        name: kind for name, (*_, kind) in CHANGES.items()
    }
    for number, row in enumerate(stored().sort("n").iter_rows(named=True)):
        values = {name: change[number][0] for name, change in CHANGES.items()}
        if number == 0:
            values["midnights"] = dt.datetime.fromisoformat("0001-01-01")
        assert row == {"n": number} | values


def test_types_that_would_lose_values_are_refused(store: Store, stored: Callable[[], pl.DataFrame]) -> None:
    stored_values = {"text": "a", "int": 2**53 + 1, "float": 1.5, "time": NOON, "truth": True}
    others = {"text": 1, "int": 1.5, "float": 2**53 + 1, "time": NOON.replace(tzinfo=UTC), "truth": 1}
    store(pl.DataFrame(stored_values))
    for name, other in others.items():
        with pytest.raises(FrameError, match=rf'^{name} is .* no type holds both without loss.*DROP COLUMN "{name}"'):
            store(pl.DataFrame(stored_values | {name: other, "new": 1}))
    assert stored().to_dicts() == [stored_values]


def test_columns_come_and_go(store: Store, engine: Engine) -> None:
    store(pl.DataFrame({"a": [1], "b": ["x"]}), "a")
    store(pl.DataFrame({"a": [2], "c": [1.5]}), "a")
    assert list(column_types(engine)) == ["a", "b", "c"]
    assert store(pl.DataFrame({"a": [2, 2, None], "c": [1.5, 1.5, None]})) == (2, 0, 1, 1)
    assert list(column_types(engine)) == ["a", "c"]
    with pytest.raises(FrameError, match="has rows of which a is no key"):
        store(pl.DataFrame({"a": [3], "c": [1.5]}), "a")
    with engine.begin() as conn:
        conn.execute(text("CREATE VIEW public.upon AS SELECT c FROM analytics.prices"))
    with pytest.raises(FrameError, match="a view depends on them"):
        store(pl.DataFrame({"a": [3]}))


def test_names_have_one_owner(store: Store, platform: Platform, engine: Engine) -> None:
    frame = pd.DataFrame({"x": [1]})
    store(frame, asset="mine/prices")
    with engine.begin() as conn:
        assert undeclared(conn, platform.datasets.values()) is None
        conn.execute(text("CREATE VIEW analytics.foreign_view AS SELECT 1"))
    for asset, sentence in {
        "others/prices": "analytics.prices belongs to the asset mine/prices, .* If mine/prices is no more: mini-platform psql",
        "mine/summary": "analytics.summary is computed by the dataset weather",
        "quality_report": "analytics.quality_report is the quality report of the platform",
        "foreign_view": "analytics.foreign_view is a table that is no asset's of yours",
    }.items():
        with pytest.raises(FrameError, match=rf"^{sentence}"):
            store(frame, asset=asset)


def test_a_dataset_does_not_take_the_table_of_an_asset(store: Store, engine: Engine) -> None:
    """It would be dropped, as if it was the dataset's own from an earlier declaration."""
    store(pd.DataFrame({"x": [1]}), asset="mine/prices")
    refused = create_all(engine, [SITES])
    assert str(refused["sites"]).startswith(
        "sites.prices: analytics.prices is the table of the asset mine/prices: give one"
    )
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT x FROM analytics.prices")) == 1


def test_a_partition_needs_a_key(platform: Platform) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def parts() -> pd.DataFrame:
        return pd.DataFrame({"x": [1]})

    resources = {"io_manager": PostgresIOManager(platform, platform.datasets)}
    with pytest.raises(dg.Failure, match=f'metadata={{"{KEY}"'):
        dg.materialize([parts], resources=resources, partition_key="a")


@pytest.mark.parametrize("name", ["measurements", "summary", "quality_report"])
def test_a_table_of_a_dataset_comes_as_polars(name: str, load: Callable[..., Any]) -> None:
    assert isinstance(load(pl.DataFrame, [examples.weather.name, name]), pl.DataFrame)


def test_readers_may_read_them(store: Store, platform: Platform, engine: Engine) -> None:
    def wrong_privileges() -> list[str]:
        with engine.connect() as conn:
            (table,) = frame_tables(conn)
            phrases = [*excess_privileges(conn, [table]), *missing_privileges(conn, [table])]
            return [phrase for phrase in phrases if "analytics.prices" in phrase]

    store(pd.DataFrame({"x": [1]}))
    assert wrong_privileges() == []
    with engine.begin() as conn:  # As after a restore.
        conn.execute(text("REVOKE ALL ON analytics.prices FROM mini_platform_reader"))
        conn.execute(text("DELETE FROM ops.fingerprints WHERE name = 'ops'"))
    assert wrong_privileges() == ["mini_platform_reader may not SELECT (x) analytics.prices"]
    create_all(engine, platform.datasets.values())
    assert wrong_privileges() == []
