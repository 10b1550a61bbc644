"""Dagster's storage: the classes that `dagster.yaml` names.

Here: run history and ticks in the platform's own Postgres, logs and artifacts under the platform's home, so that Dagster
needs no settings of its own and works with DAGSTER_HOME unset or set to the project's folder, from any working directory.
Not here: tables of the pipeline (`warehouse/`), runs whose process died (`run_launcher.py`).

https://docs.dagster.io/deployment/oss/oss-instance-configuration
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage
from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - its class
from sqlalchemy import Engine, Pool, event, make_url, text
from sqlalchemy.schema import CreateSchema

from mini_platform.config.settings import load_settings
from mini_platform.dagster.private import ConfigurableClassData, LocalArtifactStorage, LocalComputeLogManager
from mini_platform.dagster.upgrade import is_current
from mini_platform.warehouse.connection import APPLICATION_NAME, database_url, engine, hide_values, set_up_session
from mini_platform.warehouse.usable import require_usable

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

SCHEMA = "dagster"
"""Postgres schema of Dagster's own tables; `public` stays empty."""
NAME = f"{APPLICATION_NAME}_dagster"
"""Application name of Dagster's connections."""
LOCK = 0x64616773
"""Key of the advisory lock for creating the tables ("dags"): all processes of Dagster start at the same time."""


def dagster_url() -> str:
    """Return the URL of the platform's database for the connections that Dagster opens, by whose name `_set_up` knows them."""
    url = make_url(database_url(load_settings()))
    return url.update_query_dict({"application_name": NAME}).render_as_string(hide_password=False)


@event.listens_for(Pool, "connect")
def _set_up(connection: Any, _: object) -> None:
    """Let Dagster's connections create and read tables in the schema `dagster`, and write timestamps in UTC.

    By a statement, as poolers refuse or ignore the `options` of a URL, and environment variables may override them.
    """
    if isinstance(connection, PostgresConnection) and connection.info.dsn_parameters.get("application_name") == NAME:
        set_up_session(connection, {"search_path": SCHEMA, "TimeZone": "UTC"})


@event.listens_for(Engine, "handle_error")
def _hide_values(context: ExceptionContext) -> None:
    """Hide the events that Dagster could not write, which have previews of rows."""
    if context.engine is not None and context.engine.url.query.get("application_name") == NAME:
        hide_values(context)


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
            DatabaseAwayError: the database cannot be reached, or not be used.
            NewerDatabaseError: the tables are of a newer version of Dagster.
        """
        database = engine(database_url(load_settings()))
        try:
            require_usable(database)
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
