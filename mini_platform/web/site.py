"""State shared by all routes: settings, datasets, read-only connections, and the platform for landing files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from sqlalchemy import Connection, Engine, Row, func, select

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.registry import unknown_dataset
from mini_platform.platform import Platform
from mini_platform.warehouse import run_history
from mini_platform.warehouse.connection import APPLICATION_NAME
from mini_platform.warehouse.logins import reading_engine, refuse_changed, try_login
from mini_platform.warehouse.roles import PERSONAL, READER
from mini_platform.web.envelope import no_store
from mini_platform.web.problems import AWAY, NotFoundError, ProblemError
from mini_platform.web.runs import Runs

READERS, PERSONAL_READERS = 11, 8
"""Maximum numbers of concurrent reads, without and with personal data; other requests wait."""
EXPORTS = 6
"""Maximum number of concurrent exports among them, as slow clients can make them long."""


class Site:
    """One per process, in `app.state.site`; routes take it as a parameter of the type `SiteDep`.

    Attributes:
        platform: the database as its owner, and the raw store; only for landing files and rows of `ops`.
    """

    def __init__(self, platform: Platform | None = None, datasets: Mapping[str, Dataset] | None = None) -> None:
        """Serve these datasets, or those of the platform. No connection is opened yet."""
        self.platform = platform or Platform(datasets)
        self._datasets = datasets
        self.platform.datasets  # noqa: B018 - fails now if there is no package or folder of them
        self._exports = BoundedSemaphore(EXPORTS)

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        return self.platform.settings

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """Return the usable datasets by name."""
        if self._datasets is None:
            return self.platform.datasets
        return {name: one for name, one in self._datasets.items() if name not in self.platform.refused}

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of this name.

        Raises:
            NotFoundError: no dataset has this name.
            ProblemError: its declaration is invalid, or the database refuses its tables.
        """
        if name in self.datasets or name in self.platform.refused:
            with suppress(*AWAY):
                self.platform.refusal(name)  # The database may refuse it.
        if name not in self.datasets and (sentence := self.platform.why_invalid(name)):
            raise ProblemError(f"The dataset {name!r} cannot be used. {sentence}", HTTPStatus.SERVICE_UNAVAILABLE)
        if name not in self.datasets:
            raise NotFoundError(unknown_dataset(name, self.datasets))
        return self.datasets[name]

    @contextmanager
    def read(self, *, personal: bool = False) -> Iterator[Connection]:
        """Open a read-only connection with one transaction, which sees one state of the data.

        Args:
            personal: allow reading personal data; the caller has checked the permission, or masks the data. The response is
                then not stored by browsers and proxies.

        Raises:
            DatabaseAwayError: the database cannot be reached, or the connection may do more than it should.
        """
        if personal:
            no_store()
        with self._readers(personal=personal).connect() as conn:
            yield conn
            refuse_changed(conn)

    @contextmanager
    def export(self, *, personal: bool = False) -> Iterator[Connection]:
        """Open a connection as `read` does, for as long as an export takes.

        Raises:
            ProblemError: the maximum number of exports is running.
            DatabaseAwayError: the database cannot be reached.
        """
        if not self._exports.acquire(blocking=False):
            raise ProblemError(
                f"{EXPORTS} exports are already running; try again later.",
                HTTPStatus.SERVICE_UNAVAILABLE,
                {"Retry-After": "10"},
            )
        try:
            with self.read(personal=personal) as conn:
                yield conn
        finally:
            self._exports.release()

    def run_history(self) -> dict[str, Row[Any]]:
        """Return Dagster's run records of each dataset (`run_history.summary`), which the read-only role cannot see.

        Raises:
            DatabaseAwayError: the database cannot be reached.
        """
        with self.read_all() as conn:
            return run_history.summary(conn)

    @contextmanager
    def read_all(self) -> Iterator[Connection]:
        """Open a connection that can read what the read-only role cannot see: staging, and Dagster's records.

        Raises:
            DatabaseAwayError: the database cannot be reached.
        """
        with self.platform.engine.connect() as conn:
            conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            conn.execute(select(func.set_config("statement_timeout", self._timeout, True)))
            yield conn

    @property
    def _timeout(self) -> str:
        return f"{self.settings.read_seconds * 1000:.0f}"

    def _readers(self, *, personal: bool) -> Engine:
        """Return the connections of the role that may read personal data, or of the one that may not."""
        return self._personal_reader if personal else self._reader

    @cached_property
    def _reader(self) -> Engine:
        return self._open(READER, READERS)

    @cached_property
    def _personal_reader(self) -> Engine:
        return self._open(PERSONAL, PERSONAL_READERS)

    def _open(self, role: str, pool: int) -> Engine:
        """Open connections for reading as a role.

        Raises:
            ReadingRefusedError: the database does not accept its login.
        """
        self.platform.engine  # noqa: B018 - opened: it is reachable, and has its tables
        access, seconds = self.platform.access(role), self.settings.read_seconds
        opened = reading_engine(access, seconds, name=f"{APPLICATION_NAME}_api", pool=pool)
        try_login(opened)
        return opened

    @cached_property
    def runs(self) -> Runs:
        """Return the client of Dagster."""
        return Runs(self.settings)

    def close(self) -> None:
        """Close the read-only connections, and the one to Dagster."""
        for name in {"_reader", "_personal_reader"} & vars(self).keys():
            vars(self)[name].dispose()
        if "runs" in vars(self):
            self.runs.close()


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


SiteDep = Annotated[Site, Depends(_site)]
DatasetName = Annotated[str, Path(alias="dataset", description="Name of the dataset")]
