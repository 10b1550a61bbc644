"""`connect()`: tables as DataFrames, read-only, filtered by Postgres, personal data masked."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import InternalError

import mini_platform
from mini_platform import Dataset, Field, RowModel, connect
from mini_platform.config.project import ProjectError
from mini_platform.operations.frames import store_frame
from mini_platform.operations.reading import Reader, Rows
from mini_platform.platform import Platform
from mini_platform.warehouse.arrow import UnreadableError
from mini_platform_tests.support.databases import copied, set_environment
from mini_platform_tests.support.repository import PROJECT


class Visit(RowModel):
    visit: int = Field("Number")
    guest: str = Field("Who it was", personal="mask")
    city: str | None = Field("Where")
    day: dt.date = Field("When")
    price: Decimal | None = Field("What it cost", decimals=2)
    at: dt.datetime | None = Field("Time")
    signal: list[float] | None = Field("Signal")


VISITS = Dataset("visits", "visit_rows", Visit, ("visit",), "Visits")
DATASETS = {"visits": VISITS}
ROWS = """
INSERT INTO production.visit_rows (visit, guest, city, day, price, at, signal, _file_id, _loaded_at) VALUES
    (1, 'Ada', 'Oslo', '2024-01-01', 1.10, '2024-01-01 12:00:00.5+02', '{1.5,NaN}', 1, now()),
    (2, 'Bob', 'Ös "50 %"', '2024-01-02', NULL, NULL, NULL, 1, now()),
    (3, 'Cyd', NULL, '2024-01-03', 12345.00, NULL, '{}', 1, now())
"""


@pytest.fixture(scope="module")
def platform(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with copied(server, template) as url, pytest.MonkeyPatch.context() as patch:
        set_environment(patch, url, tmp_path_factory.mktemp("reading"))
        instance = Platform(DATASETS)
        with instance.engine.begin() as conn:
            conn.execute(text(ROWS))
        store_frame(instance, "own/prices", pl.DataFrame({"of 50 %": [1, 2], "a__b": ["x", None]}))
        yield instance
        instance.engine.dispose()


@pytest.fixture
def data(platform: Platform) -> Iterator[Reader]:
    with Reader(platform.url, DATASETS) as reader:
        yield reader


@pytest.fixture
def visits(data: Reader) -> Rows:
    return data.table("visits")


def test_tables_are_typed_as_they_are_declared(visits: Rows) -> None:
    table = visits.order_by("visit").arrow()
    assert {field.name: field.type for field in table.schema} == {
        "visit": pa.int64(),
        "guest": pa.string(),
        "city": pa.string(),
        "day": pa.date32(),
        "price": pa.decimal128(18, 2),
        "at": pa.timestamp("us", "UTC"),
        "signal": pa.list_(pa.float64()),
    }
    first, second, third = table.to_pylist()
    assert (first["city"], second["city"], third["city"]) == ("Oslo", 'Ös "50 %"', None)
    assert (first["price"], third["price"]) == (Decimal("1.10"), Decimal(12345))
    assert first["at"] == dt.datetime(2024, 1, 1, 10, 0, 0, 500_000, dt.UTC)
    assert (first["signal"][0], second["signal"], third["signal"]) == (1.5, None, [])
    assert {column: str(kind) for column, kind in visits.df().dtypes.items()} == {
        **dict.fromkeys(("guest", "city", "day", "price", "signal"), "object"),
        "visit": "int64",
        "at": "datetime64[us, UTC]",
    }
    assert visits.polars().schema["price"] == pl.Decimal(18, 2)
    assert visits.columns("_loaded_at").arrow().num_rows == 3


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [
        ({"visit": 2}, [2]),
        ({"visit__in": np.array([1, 3])}, [1, 3]),
        ({"visit__gt": np.int64(1), "day__lte": "2024-01-02"}, [2]),
        ({"day__gte": dt.date(2024, 1, 2)}, [2, 3]),
        ({"at__lt": pd.Timestamp("2024-01-02", tz="UTC")}, [1]),
        ({"city__contains": "ös"}, [2]),
        ({"city__contains": '"50 %"'}, [2]),
        ({"city__ne": "Oslo"}, [2, 3]),
        ({"city": None}, [3]),
        ({"price__isnull": True}, [2]),
        ({"price": Decimal("1.1")}, [1]),
        ({"signal__isnull": False}, [1, 3]),
    ],
)
def test_filters_are_those_of_the_api(conditions: dict[str, Any], numbers: list[int], visits: Rows) -> None:
    rows = visits.where(**conditions).order_by("visit")
    assert rows.columns("visit").polars()["visit"].to_list() == numbers
    assert rows.count() == len(numbers)


def test_rows_and_columns_are_chosen_by_postgres(data: Reader, visits: Rows, platform: Platform) -> None:
    rows = visits.where(visit__lte=3).columns("day", "visit").order_by("-day").limit(2)
    assert rows.df().to_dict("list") == {"day": [dt.date(2024, 1, 3), dt.date(2024, 1, 2)], "visit": [3, 2]}
    assert rows.count() == 2
    with platform.engine.begin() as conn:  # Any row that is read and left out afterwards would be an error.
        conn.execute(
            text("CREATE VIEW analytics.pitfall AS SELECT visit, 1 / (visit - 3) AS x FROM production.visit_rows")
        )
    pitfall = data.table("pitfall", personal=True)
    assert pitfall.where(visit__lt=3).count() == 2
    assert pitfall.columns("visit").arrow().num_rows == 3
    with pytest.raises(UnreadableError, match="division by zero"):
        pitfall.arrow()


def test_personal_data_is_masked_by_default(data: Reader, visits: Rows) -> None:
    assert set(visits.df()["guest"]) == {"***"}
    for use in (
        lambda: visits.where(guest="Ada"),
        lambda: visits.where(guest__isnull=True),
        lambda: visits.order_by("guest"),
    ):
        with pytest.raises(UnreadableError, match="guest has personal data, which is masked"):
            use()
    assert data.table("visits", personal=True).where(guest="Ada").df()["guest"].tolist() == ["Ada"]


def test_a_url_alone_masks_by_the_grants(platform: Platform) -> None:
    with connect(platform.url.replace("+psycopg2", "")) as data:
        assert {"visit_rows", "prices", "quality_report"} <= set(data.tables())
        assert set(data.table("visit_rows").df()["guest"]) == {"***"}
        with pytest.raises(UnreadableError, match=r"no table 'visits'; did you mean visit_rows\?"):
            data.table("visits")
    with platform.engine.begin() as conn:
        conn.execute(text("CREATE TABLE analytics.others AS SELECT guest FROM production.visit_rows"))
    with connect(platform.url) as data:
        with pytest.raises(UnreadableError, match=r"Which columns of analytics.others have personal data is not known"):
            data.table("others")
        assert data.table("others", personal=True).count() == 3


def test_a_login_of_a_reader_reads_what_it_may(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        conn.execute(text("CREATE ROLE watcher LOGIN IN ROLE mini_platform_reader"))
    try:
        url = make_url(platform.url).set(username="watcher")
        with Reader(url.render_as_string(hide_password=False), DATASETS) as watching:
            assert watching.table("visits").df()["guest"].tolist() == ["***"] * 3
            with pytest.raises(UnreadableError, match="permission denied"):
                watching.table("visits", personal=True).df()
            assert watching.table("prices").count() == 2
    finally:
        with platform.engine.begin() as conn:
            conn.execute(text("DROP ROLE watcher"))


def test_own_assets_are_read_by_any_column(data: Reader) -> None:
    prices = data.table("analytics.prices")
    assert prices.where({"of 50 %__gte": 1, "a__b": "x"}).polars().rows() == [(1, "x")]
    assert repr(prices) == "<analytics.prices: of 50 % bigint, a__b text>"


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (
            lambda data: data.table("visit"),
            r"There is no table 'visit'; did you mean visits\? The tables are: visits, ",
        ),
        (
            lambda data: data.table("visits").where(dai="x"),
            r"has no column 'dai'; did you mean day\? The columns are: visit, ",
        ),
        (lambda data: data.table("visits").columns("x"), "has no column 'x'"),
        (
            lambda data: data.table("visits").where(visit__contains="1"),
            "visit can be filtered by visit__eq, .* not by contains",
        ),
        (lambda data: data.table("visits").where(visit__in="12"), "visit__in takes a list"),
        (
            lambda data: data.table("visits").where(day="soon").df(),
            "Postgres cannot read the rows: invalid input syntax",
        ),
    ],
)
def test_mistakes_are_sentences(use: Callable[[Reader], Any], sentence: str, data: Reader) -> None:
    with pytest.raises(UnreadableError, match=sentence):
        use(data)


def test_nothing_can_be_written(data: Reader) -> None:
    with data._engine.connect() as conn, pytest.raises(InternalError, match="read-only transaction"):
        conn.execute(text("DELETE FROM production.visit_rows"))


def test_the_project_is_that_of_the_folder(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "acme"
    (folder / "acme" / "datasets").mkdir(parents=True)
    (folder / "acme" / "__init__.py").touch()
    (folder / "acme" / "datasets" / "__init__.py").touch()
    (folder / "pyproject.toml").write_text('[tool.mini_platform]\npackage = "acme"\n')
    (folder / "acme" / "datasets" / "visits.py").write_text(
        "from mini_platform import Dataset, Field, RowModel\n\nclass Visit(RowModel):\n    visit: int = Field('Number')\n\n"
        "dataset = Dataset('visits', 'visit_rows', Visit, ('visit',), 'Visits')\n"
    )
    set_environment(monkeypatch, platform.url, tmp_path)
    monkeypatch.setenv("MINI_PLATFORM_PROJECT", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    with connect() as here, connect(project=folder) as named:
        assert here.table("visits").count() == named.table("visits").count() == 3
        assert set(here.table("visits").df()["guest"]) == {"***"}, "the database still withholds it from readers"
    with pytest.raises(ProjectError):
        connect(project=tmp_path)
    with pytest.raises(UnreadableError, match="takes the URL of a Postgres database"):
        connect(str(folder))


def test_the_example_of_the_documentation_runs(samples: None, capsys: pytest.CaptureFixture[str]) -> None:
    page = (PROJECT / "docs" / "how-to" / "use-the-data.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "notebook", "exec"), names)  # noqa: S102 - our own example
    assert len(names["days"]) > len(names["hot"].df()) > 0
    assert "'weather'" in capsys.readouterr().out
    names["data"].close()


def test_it_is_public() -> None:
    assert "connect" in mini_platform.__all__
    assert mini_platform.connect is connect
