"""What all routes share: the settings, the datasets, connections that read, and the platform that files are landed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from sqlalchemy import Connection, Engine, Row, func, select

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.platform import Platform
from mini_platform.warehouse import run_history
from mini_platform.warehouse.connection import APPLICATION_NAME, engine
from mini_platform.warehouse.roles import PERSONAL, READER, may_become_readers
from mini_platform.web.problems import NotFoundError, ProblemError
from mini_platform.web.runs import Runs

READERS = 16
"""Requests that read at the same time; the others wait for their turn."""
EXPORTS = 6
"""Of these so many may be exports, which can take as long as their clients like."""


class Site:
    """One per process, in `app.state.site`; routes take it as a parameter of the type `SiteDep`.

    Attributes:
        platform: the database as its owner, and the raw store: for landing files and rows of `ops`, nothing else.
        datasets: by name.
    """

    def __init__(self, platform: Platform | None = None, datasets: Mapping[str, Dataset] | None = None) -> None:
        """Serve these datasets, or those of the platform. Nothing is opened yet."""
        self.platform = platform or Platform(datasets)
        self.datasets = dict(self.platform.datasets if datasets is None else datasets)
        self._exports = BoundedSemaphore(EXPORTS)

    @property
    def settings(self) -> Settings:
        """The settings, read once."""
        return self.platform.settings

    def dataset(self, name: str) -> Dataset:
        """The dataset of this name.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self.datasets:
            those = f"The datasets are: {', '.join(self.datasets)}." if self.datasets else "None is declared."
            raise NotFoundError(f"There is no dataset {name!r}. {those}")
        return self.datasets[name]

    @contextmanager
    def read(self, *, personal: bool = False) -> Iterator[Connection]:
        """A connection that can write nothing, in one transaction that sees one state of the data.

        Args:
            personal: it can read personal data, too; the caller knows that whoever asks may have them, or masks them.

        Raises:
            DatabaseAwayError: the database cannot be reached.
        """
        with self._reader.connect() as conn:
            if personal and self._has_roles:
                conn.exec_driver_sql(f"SET LOCAL ROLE {PERSONAL}")
            yield conn

    @contextmanager
    def export(self, *, personal: bool = False) -> Iterator[Connection]:
        """The same for as long as an export takes.

        Raises:
            ProblemError: there are as many exports already as may be.
            DatabaseAwayError: the database cannot be reached.
        """
        if not self._exports.acquire(blocking=False):
            raise ProblemError(
                f"{EXPORTS} exports are under way already; try again later.",
                HTTPStatus.SERVICE_UNAVAILABLE,
                {"Retry-After": "10"},
            )
        try:
            with self.read(personal=personal) as conn:
                yield conn
        finally:
            self._exports.release()

    def run_history(self) -> dict[str, Row[Any]]:
        """What Dagster wrote of each dataset's runs (`run_history.summary`), which the role that reads does not see.

        Raises:
            DatabaseAwayError: the database cannot be reached.
        """
        with self.platform.engine.connect() as conn:
            conn.execute(select(func.set_config("statement_timeout", self._timeout, True)))
            return run_history.summary(conn)

    @property
    def _timeout(self) -> str:
        return f"{self.settings.read_seconds * 1000:.0f}"

    @cached_property
    def _has_roles(self) -> bool:
        with self.platform.engine.connect() as conn:
            return may_become_readers(conn)

    @cached_property
    def _reader(self) -> Engine:
        role = {"role": READER} if self._has_roles else {}
        return engine(
            self.platform.url,
            name=f"{APPLICATION_NAME}_api",
            session={"default_transaction_read_only": "on", "statement_timeout": self._timeout, **role},
            pool=READERS,
            isolation_level="REPEATABLE READ",
            hide_parameters=True,  # a filter may name a person, and errors are logged
        )

    @cached_property
    def runs(self) -> Runs:
        """Dagster, to be asked for runs."""
        return Runs(self.settings.dagster_url)

    def close(self) -> None:
        """Give the connections that read back, and that to Dagster."""
        if "_reader" in vars(self):
            self._reader.dispose()
        if "runs" in vars(self):
            self.runs.close()


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


SiteDep = Annotated[Site, Depends(_site)]
DatasetName = Annotated[str, Path(alias="dataset", description="Name of the dataset")]
