"""Fixtures for the tests of a project: a platform on a Postgres of its own, thrown away afterwards.

    pytest_plugins = ["mini_platform.testing"]        # in conftest.py

    def test_the_sample(platform):
        (file,) = platform.load("readings", "data/samples/readings/dirty.csv")
        assert file["rows_rejected"] == 4

Here: the fixture `platform`. What it does is what `mini-platform load` does, without Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pandas as pd

    from mini_platform.platform import Platform

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a server whose data nobody will miss."""


class PlatformForTests:
    """The datasets of the project, on a database and in folders of their own.

    Attributes:
        platform: settings, database and raw store, for functions of `mini_platform.operations`.
    """

    __test__ = False

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def load(self, dataset: str, *paths: str | Path) -> list[dict[str, Any]]:
        """Load files through the whole pipeline; return the accounting of each: its status and row counts.

        Args:
            dataset: name of the dataset.
            paths: the files; relative paths begin at the project's folder.
        """
        from mini_platform.config.project import project
        from mini_platform.operations.landing import land_files, named_file
        from mini_platform.operations.processing import process

        declared = self.platform.datasets[dataset]
        named = [named_file(project().folder / path) for path in paths]
        rows = [row for _, row in land_files(self.platform, declared, named, "test") if row is not None]
        return process(self.platform, declared, [row.file_id for row in rows])

    def rejects(self, dataset: str) -> pd.DataFrame:
        """Return the rejected rows of a dataset, with their reasons."""
        from mini_platform.warehouse.tables import dataset_tables

        return self._frame(dataset_tables(self.platform.datasets[dataset]).quarantine)

    def table(self, dataset: str) -> pd.DataFrame:
        """Return the production table of a dataset."""
        from mini_platform.warehouse.tables import dataset_tables

        return self._frame(dataset_tables(self.platform.datasets[dataset]).production)

    def _frame(self, table: Any) -> pd.DataFrame:
        import pandas as pd

        with self.platform.engine.connect() as conn:
            return pd.read_sql(table.select(), conn)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformForTests]:
    """A platform with every declared dataset, empty at first, for all tests of a session."""
    from mini_platform.platform import Platform
    from mini_platform.warehouse import embedded

    home = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINI_PLATFORM_HOME", str(home))
        patch.setenv("MINI_PLATFORM_DATA", str(home / "data"))
        patch.setenv("DATABASE_URL", embedded.ensure_running(home, NOT_DURABLE))
        opened = Platform()
        try:
            yield PlatformForTests(opened)
        finally:
            opened.engine.dispose()
            embedded.stop(home)
