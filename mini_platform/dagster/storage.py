"""Where Dagster keeps what it knows: classes that `dagster.yaml` names.

Here: run history and ticks in the platform's own Postgres, logs and artifacts under the platform's home, so that Dagster
needs no setting of its own and works with DAGSTER_HOME unset or set to the project's folder, from any working directory.
Not here: what the pipeline writes (`warehouse/`), runs whose process died (`run_launcher.py`).

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
from mini_platform.warehouse.connection import database_url, engine

SCHEMA = "dagster"
"""Postgres schema of Dagster's own tables, which keeps `public` empty."""
LOCK = 0x64616773
"""Key of the advisory lock under which the tables are created ("dags"): Dagster's processes all start at once."""


def dagster_url() -> str:
    """URL of the platform's database with `dagster` as the schema in which tables are found and created.

    Dagster, which makes its own connections, writes moments without a zone: they are UTC, whatever the server says.
    """
    url = make_url(database_url(load_settings()))
    given = url.query.get("options", "")
    options = f"{given if isinstance(given, str) else ' '.join(given)} -csearch_path={SCHEMA} -ctimezone=UTC".strip()
    return url.update_query_dict({"options": options}).render_as_string(hide_password=False)


class PlatformStorage(DagsterPostgresStorage):
    """Dagster's runs, events and schedules in the platform's database; the embedded server is started if need be."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformStorage:
        """Open the storage; create its schema and tables if they are not there.

        Raises:
            DatabaseAwayError: the database cannot be reached.
        """
        os.environ.pop("PGTZ", None)  # libpq would have it overrule what the URL says
        made = engine(database_url(load_settings()))
        try:
            with made.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
                if not connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}):
                    connection.execute(CreateSchema(SCHEMA))
                connection.commit()
                return cls(postgres_url=dagster_url(), inst_data=inst_data)
        finally:
            made.dispose()  # closes the session, and with it ends the lock


class PlatformArtifacts(LocalArtifactStorage):
    """Dagster's local files, such as pickled outputs, under the platform's home."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformArtifacts:
        """Take the folder from the settings."""
        return cls(base_dir=str(load_settings().home / "dagster"), inst_data=inst_data)


class PlatformComputeLogs(LocalComputeLogManager):
    """What steps print, under the platform's home."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PlatformComputeLogs:
        """Take the folder from the settings."""
        return cls(base_dir=str(load_settings().home / "dagster" / "logs"), inst_data=inst_data)
