"""Dagster's tables of an older version are migrated, those of a newer one are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mini_platform.config.settings import load_settings
from mini_platform.dagster.storage import PlatformStorage
from mini_platform.dagster.upgrade import is_current, upgrade
from mini_platform.warehouse.migrations import NewerDatabaseError

OLDER = "6b7fb194ff9c"
"""The revision before that which adds the column `using_default_limit`."""


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE dagster.alembic_version SET version_num = :revision"), {"revision": revision})


def test_older_tables_are_migrated_once(home: Path, engine: Engine) -> None:
    messages: list[str] = []
    upgrade(load_settings(), messages.append)
    assert messages == [], "a new database has the newest tables"
    with engine.begin() as conn:
        conn.execute(text("ALTER TABLE dagster.concurrency_limits DROP COLUMN using_default_limit"))
    set_revision(engine, OLDER)
    upgrade(load_settings(), messages.append)
    upgrade(load_settings(), messages.append)
    assert [message.partition(" to ")[0] for message in messages] == ["migrating the run history"]
    with engine.connect() as conn:
        assert is_current(conn)
        assert conn.scalar(text("SELECT count(using_default_limit) FROM dagster.concurrency_limits")) == 0


def test_newer_tables_are_refused(home: Path, engine: Engine) -> None:
    set_revision(engine, "0123456789ab")
    message = "migrated by a newer version of Dagster than .* 0123456789ab"
    with pytest.raises(NewerDatabaseError, match=message):
        upgrade(load_settings(), print)
    with pytest.raises(NewerDatabaseError, match=message):
        PlatformStorage.from_config_value(None, {})
