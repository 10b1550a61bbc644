"""Upgrade of Dagster's own tables after that of Dagster: older ones are migrated, newer ones are refused in a sentence.

Dagster compares only when a statement fails, with a traceback. Here the revision of the tables is compared with those that the
installed Dagster knows, without importing it, which takes seconds. Not here: the platform's tables (`warehouse/migrations`).

https://docs.dagster.io/deployment/oss/dagster-instance-migrations
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import Connection, text

from mini_platform.config.settings import Settings
from mini_platform.dagster.instance import prepare_instance
from mini_platform.dagster.private import REVISIONS
from mini_platform.warehouse.connection import database_url, engine
from mini_platform.warehouse.migrations import NewerDatabaseError


class HistoryError(RuntimeError):
    """Dagster's tables could not be migrated; the message says why."""


def upgrade(settings: Settings, log: Callable[[str], None]) -> None:
    """Migrate Dagster's tables if they are of an older version. If they are current, this costs one query.

    Raises:
        NewerDatabaseError: they are of a newer version than the installed Dagster.
        HistoryError: the migration failed.
    """
    database = engine(database_url(settings))
    try:
        with database.connect() as connection:
            if is_current(connection):
                return
    finally:
        database.dispose()
    log(f"migrating the run history to Dagster {version('dagster')}…")
    command = [sys.executable, "-m", "dagster", "instance", "migrate"]
    environment = os.environ | {"DAGSTER_HOME": str(prepare_instance(settings))}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip() or result.stdout.strip()).rpartition("\n")[2]
        raise HistoryError(f"The run history could not be migrated to Dagster {version('dagster')}: {reason}")


def is_current(connection: Connection) -> bool:
    """Return True if Dagster's tables are of the installed version, or do not exist yet.

    Raises:
        NewerDatabaseError: they are of a newer version.
    """
    if not connection.scalar(text("SELECT to_regclass('dagster.alembic_version')")):
        return True
    revision = connection.scalar(text("SELECT version_num FROM dagster.alembic_version"))
    previous = _revisions()
    if revision not in {None, *previous}:
        raise NewerDatabaseError(
            f"The run history was migrated by a newer version of Dagster than {version('dagster')}, which is installed "
            f"(to {revision}, which it does not know): install that version, or a later one."
        )
    return revision is not None and not any(revision in before for before in previous.values())


def _revisions() -> dict[str, set[str]]:
    """Return the revisions that the installed Dagster knows, each with those that it follows."""
    spec = find_spec("dagster")
    (folder,) = (spec and spec.submodule_search_locations) or ("",)
    sources = [path.read_text() for path in (Path(folder) / REVISIONS).glob("*.py")]
    pairs = (
        (re.search(r'^revision = "(\w+)"', source, re.M), re.search(r"^down_revision = (.*)", source, re.M))
        for source in sources
    )
    return {name[1]: set(re.findall(r'"(\w+)"', before[1])) for name, before in pairs if name and before}
