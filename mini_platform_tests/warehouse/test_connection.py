"""The way to the database: the pool, and one sentence when the database is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from mini_platform.config.settings import Settings
from mini_platform.warehouse import embedded
from mini_platform.warehouse.connection import DatabaseAwayError, database_url, engine


@pytest.mark.parametrize(
    "where", ["127.0.0.1:1/nowhere", "no-such-host.invalid/nowhere", "/nowhere?host=/no/such/folder"]
)
def test_away_is_reported_without_the_password(where: str) -> None:
    db_engine = engine(f"postgresql+psycopg2://user:secret@{where}")
    with pytest.raises(DatabaseAwayError, match=r"The database nowhere at .* cannot be reached") as caught:
        db_engine.connect()
    assert "secret" not in str(caught.value)


def test_embedded_server_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings = Settings(home=tmp_path)
    db_engine = engine(database_url(settings))
    try:
        with db_engine.connect() as connection:
            name = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            assert connection.scalar(text(name)) == "mini_platform"
            with pytest.raises(ProgrammingError):
                connection.execute(text("SELECT nonsense"))
        embedded.stop(tmp_path)
        with pytest.raises(DatabaseAwayError):
            db_engine.connect()
        embedded.ensure_running(tmp_path)
        with db_engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    finally:
        db_engine.dispose()
        embedded.stop(tmp_path)


def test_given_url_is_used_with_the_driver_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://me@example.invalid/db")
    assert database_url(Settings()) == "postgresql+psycopg2://me@example.invalid/db"
