"""The audit trail: who did what is written with the thing itself, and can be neither changed nor removed."""

from __future__ import annotations

import datetime as dt
import getpass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from mini_platform.datasets import all_datasets
from mini_platform.landing import retention
from mini_platform.operations.forget import forget
from mini_platform.platform import Platform
from mini_platform.warehouse import audit, ledger
from mini_platform.warehouse.tables import audit as trail
from mini_platform.web.auth import keys
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.sample_files import SAMPLE_FILES

GOOD = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\n"
ME = f"user {getpass.getuser()}"


def audit_rows(engine: Engine) -> list[tuple[str, str, str | None, str | None]]:
    columns = (trail.c.actor, trail.c.action, trail.c.dataset, trail.c.subject)
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(select(*columns).order_by(trail.c.audit_id))]


def test_what_becomes_of_a_file(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    weather = all_datasets()["weather"]
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "b.csv").write_text(GOOD + "OSL,2026-01-02,warm,0\n" * 99)
    pipeline(weather, tmp_path / "a.csv", tmp_path / "b.csv")
    with platform.engine.begin() as conn:
        ledger.reprocess(conn, "weather", 1)
    (tmp_path / "a.csv").write_text(GOOD)
    pipeline(weather, tmp_path / "a.csv")
    rows = audit_rows(platform.engine)
    assert rows == [
        (ME, "landed", "weather", "1"),
        (ME, "landed", "weather", "2"),
        ("run test", "refused", "weather", "2"),
        ("run test", "loaded", "weather", "1"),
        (ME, "re-drove", "weather", "1"),
        ("run test", "loaded", "weather", "1"),
    ], "the same bytes again are not landed"
    with platform.engine.connect() as conn:
        details = conn.execute(select(trail.c.details).where(trail.c.action == "refused")).scalar_one()
    assert details == {"rows_read": 100, "rows_rejected": 99}
    with platform.engine.begin() as conn:
        conn.execute(text("UPDATE ops.files SET arrived_at = now() - interval '9 days'"))
    retention.drop_old(platform.engine, weather, platform.store, dt.timedelta(days=1))
    assert audit_rows(platform.engine)[6:] == [(ME, "dropped the raw file", "weather", str(n)) for n in (1, 2)]


def test_what_is_rolled_back_was_not_done(platform: Platform) -> None:
    with platform.engine.connect() as conn:
        keys.create(conn, "reports", ["read"])
        conn.rollback()
    assert audit_rows(platform.engine) == []


def test_keys(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        key = keys.create(conn, "reports", ["read"])
        assert keys.revoke(conn, key[:11])
        assert keys.revoke(conn, "mp_nosuch00") is None
    assert audit_rows(platform.engine) == [(ME, "created a key", None, key[:11]), (ME, "revoked a key", None, key[:11])]


def test_who_is_forgotten_is_not_named(platform: Platform, pipeline: Pipeline, data: Path) -> None:
    sales = all_datasets()["sales"]
    pipeline(sales, SAMPLE_FILES / "sales" / "shop.csv")
    lines = (SAMPLE_FILES / "sales" / "shop.csv").read_text(encoding="utf-8").splitlines()
    address = next(word for word in lines[1].replace(";", ",").split(",") if "@" in word).strip('"')
    raw = platform.raw_files(sales)
    assert not forget(platform.engine, sales, address, raw, platform.store, data / "sales").is_empty
    assert (ME, "forgot", "sales", None) in audit_rows(platform.engine)
    with platform.engine.connect() as conn:
        assert address not in str(conn.execute(select(trail)).all())


@pytest.mark.parametrize(
    "statement", ["UPDATE ops.audit SET actor = 'nobody'", "DELETE FROM ops.audit", "TRUNCATE ops.audit"]
)
def test_rows_stay_as_they_are(engine: Engine, statement: str) -> None:
    """For the owner, too, who would have to take the trigger off."""
    with engine.begin() as conn:
        audit.record(conn, "tried")
    with pytest.raises(DBAPIError, match=r"ops.audit is append-only"), engine.begin() as conn:
        conn.execute(text(statement))
    assert [action for _, action, _, _ in audit_rows(engine)] == ["tried"]


def test_who_does_something_by_the_api(platform: Platform, client: httpx.Client, data: Path) -> None:
    assert data.exists()
    content = {"file": ("a.csv", GOOD, "text/csv")}
    assert client.post("/api/datasets/weather/files/", files=content).status_code < 300
    assert audit_rows(platform.engine) == [("anybody on this machine", "landed", "weather", "1")]
    listed = client.get("/api/audit/", params={"action": "landed"}).json()["results"]
    assert [(row["actor"], row["subject"]) for row in listed] == [("anybody on this machine", "1")]
    assert client.get("/api/audit.csv").text.splitlines()[0].startswith("audit_id,at,actor,action")
