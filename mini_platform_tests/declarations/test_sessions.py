"""Sessions: every one speaks the same, whatever server, database, role, environment and URL say."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Date, Double, FromClause, Select, func, make_url, select, text

from mini_platform import Aggregate, Dataset, Field, RowModel, View
from mini_platform.dagster.storage import PlatformStorage
from mini_platform.platform import Platform
from mini_platform.warehouse.connection import SESSION, engine
from mini_platform.web.site import Site
from mini_platform_tests.support.trial import Declared

FOREIGN = {
    "TimeZone": "'America/New_York'",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "iso_8601",
    "client_encoding": "LATIN1",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "search_path": "analytics, production, pg_temp, public",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "1",
    "statement_timeout": "20000",
    "idle_in_transaction_session_timeout": "20000",
}
"""Settings that a server of somebody else's may have; where a test has to go on in spite of it, not to the worst."""


@pytest.fixture
def foreign(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a database that is set to what we do not want, as are libpq's environment and the URL itself."""
    url = make_url(platform.url)
    with platform.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for name, value in FOREIGN.items():
            conn.execute(text(f'ALTER DATABASE "{url.database}" SET {name} = {value}'))
    platform.engine.dispose()
    for name, value in {
        "PGOPTIONS": "-c timezone=Asia/Kolkata -c lock_timeout=1",
        "PGTZ": "Asia/Tokyo",
        "PGDATESTYLE": "German",
        "PGCLIENTENCODING": "WIN1252",
    }.items():
        monkeypatch.setenv(name, value)
    parameters = {"options": "-c TimeZone=Pacific/Apia -c search_path=quarantine", "client_encoding": "latin1"}
    return url.update_query_dict(parameters).render_as_string(hide_password=False)


def test_every_setting_is_ours(foreign: str) -> None:
    own_engine = engine(foreign)
    with own_engine.connect() as conn:
        # None: a server that has no such setting yet.
        settings = {name: conn.scalar(text("SELECT current_setting(:n, true)"), {"n": name}) for name in SESSION}
        assert {name: value for name, value in settings.items() if value is not None} == {
            name: SESSION[name] for name, value in settings.items() if value is not None
        }
        assert conn.scalar(text("SHOW client_encoding")) == "UTF8"
        assert conn.scalar(text("SELECT 'ü€🚲' || chr(8364)")) == "ü€🚲€"
        conn.rollback()
        assert conn.scalar(text("SHOW TimeZone")) == "UTC", "a rollback does not undo it"
    own_engine.dispose()


def test_the_connections_that_read_are_limited_and_can_write_nothing(platform: Platform, foreign: str) -> None:
    vars(platform)["url"] = foreign
    site = Site(platform)
    with site.read() as conn:
        shown = [conn.scalar(text(f"SHOW {name}")) for name in ("TimeZone", "transaction_read_only")]
        assert shown == ["UTC", "on"]
        assert conn.scalar(text("SHOW statement_timeout")) == f"{site.settings.read_seconds:.0f}s"
        assert conn.scalar(text("SHOW transaction_isolation")) == "repeatable read"
    site.close()


def test_dagster_writes_moments_in_utc(foreign: str) -> None:
    storage = PlatformStorage.from_config_value(None, {})
    with storage.run_storage.connect() as conn:  # type: ignore[attr-defined]
        assert [conn.scalar(text(f"SHOW {name}")) for name in ("TimeZone", "search_path")] == ["UTC", "dagster"]


class Reading(RowModel):
    name: str = Field("Name", str_length={"min_value": 1, "max_value": 20})
    at: dt.datetime = Field("When")
    value: float = Field("Value")


def by_day(r: FromClause) -> Select[Any]:
    """Readings by the day of the session."""
    day = func.date(r.c.at, type_=Date).label("day")
    return select(day, func.max(r.c.value, type_=Double).label("value")).group_by(day)


def by_day_now(r: FromClause) -> Select[Any]:
    """The same as a view."""
    return by_day(r)


def test_days_texts_and_figures_do_not_follow_the_server(declared: Declared, foreign: str) -> None:
    descriptions = {"day": ("Day",), "value": ("Highest",)}
    trial = declared(
        Dataset(
            name="speak",
            table="speak",
            description="x",
            rows=Reading,
            key=("name", "at"),
            aggregates=(Aggregate(by_day, ("day",), descriptions, ("day", "value")),),
            views=(View(by_day_now, descriptions, ("day", "value")),),
        )
    )
    assert trial.load("a.csv", "name,at,value\nÜ€,2026-01-01T02:30:00Z,0.1\nn,2026-03-04T05:06:07.000001Z,1e-300\n")
    assert trial.load("b.csv", "name,at,value\nÜ€,2026-01-01T02:30:00Z,0.30000000000000004\n").rows_updated == 1
    assert trial.rows("name", "value") == [("n", 1e-300), ("Ü€", 0.30000000000000004)]
    days = [(dt.date(2026, 1, 1), 0.30000000000000004), (dt.date(2026, 3, 4), 1e-300)]
    assert trial.table("analytics.by_day", "day", "value") == days
    assert trial.table("analytics.by_day_now", "day", "value") == days
    assert trial.differences() == {}
