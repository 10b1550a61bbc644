"""Dagster's storage: the classes that `dagster.yaml` names.

Here: run history and ticks in the platform's own Postgres, logs and artifacts under the platform's home, so that Dagster
needs no settings of its own and works with DAGSTER_HOME unset or set to the project's folder, from any working directory.
Not here: tables of the pipeline (`warehouse/`), runs whose process died (`run_launcher.py`).

https://docs.dagster.io/deployment/oss/oss-instance-configuration
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import make_url, text
from sqlalchemy.schema import CreateSchema

from mini_platform.config.settings import load_settings
from mini_platform.dagster.private import ConfigurableClassData, LocalArtifactStorage, LocalComputeLogManager
from mini_platform.dagster.upgrade import is_current
from mini_platform.warehouse.connection import database_url, engine

SCHEMA = "dagster"
"""Postgres schema of Dagster's own tables; `public` stays empty."""
LOCK = 0x64616773
"""Key of the advisory lock for creating the tables ("dags"): all processes of Dagster start at the same time."""


def dagster_url() -> str:
    """Return the URL of the platform's database, with `dagster` as the schema in which tables are read and created.

    Dagster opens its own connections and writes timestamps without a time zone: they are UTC, whatever the server's setting.
    """
    url = make_url(database_url(load_settings()))
    existing = url.query.get("options", "")
    options = (
        f"{existing if isinstance(existing, str) else ' '.join(existing)} -csearch_path={SCHEMA} -ctimezone=UTC".strip()
    )
    return url.update_query_dict({"options": options}).render_as_string(hide_password=False)


class PlatformStorage(DagsterPostgresStorage):
    """Dagster's runs, events and schedules in the platform's database; the embedded server is started if needed."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return no fields: there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformStorage:
        """Open the storage; create its schema and tables if they do not exist.

        Raises:
            DatabaseAwayError: the database cannot be reached.
            NewerDatabaseError: the tables are of a newer version of Dagster.
        """
        os.environ.pop("PGTZ", None)  # In libpq it takes precedence over the time zone in the URL.
        database = engine(database_url(load_settings()))
        try:
            with database.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
                if not connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}):
                    connection.execute(CreateSchema(SCHEMA))
                connection.commit()
                is_current(connection)  # or it is refused
                connection.commit()
                return cls(postgres_url=dagster_url(), inst_data=inst_data)
        finally:
            database.dispose()  # Closes the session, which releases the lock.


class PlatformArtifacts(LocalArtifactStorage):
    """Dagster's local files, such as pickled outputs, under the platform's home."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return no fields: there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformArtifacts:
        """Create the storage in the folder that the settings name."""
        return cls(base_dir=str(load_settings().home / "dagster"), inst_data=inst_data)


class PlatformComputeLogs(LocalComputeLogManager):
    """Output of steps, stored under the platform's home."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return no fields: there is nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformComputeLogs:
        """Create the storage in the folder that the settings name."""
        return cls(base_dir=str(load_settings().home / "dagster" / "logs"), inst_data=inst_data)
