"""`declared(dataset)`: a dataset of a single test in a separate database, from files to tables.

`trial = declared(Dataset(...))`, then `trial.load("a.csv", text)` gives the ledger's row of the file after staging, load
and aggregates; `trial.rows("id", "n")` are those of production, `trial.table("analytics.by_day")` those of any table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select, text

from mini_platform import Dataset
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.quarantine import rejects
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import files

Declared = Callable[[Dataset], "Trial"]


@dataclass
class Trial:
    """A declared dataset and its tables."""

    platform: Platform
    dataset: Dataset

    def land(self, name: str, data: str | bytes) -> int:
        """Land a file; return its id in the ledger."""
        path = self.platform.settings.home.with_name("arriving")
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        with path.open("rb") as source:
            arrival = ledger.Arrival(name, *self.platform.store.put(source))
        with self.platform.engine.begin() as conn:
            (row,) = ledger.register(conn, self.dataset.name, [arrival], "test")
        return int(row.file_id)

    def run(self) -> None:
        """Process all that waits, until nothing does."""
        process(self.platform, self.dataset, run_id="test")

    def load(self, name: str, data: str | bytes) -> Row[Any]:
        """Land and load a file; return its row of the ledger."""
        file_id = self.land(name, data)
        self.run()
        return self.file(file_id)

    def file(self, file_id: int) -> Row[Any]:
        with self.platform.engine.connect() as conn:
            return conn.execute(select(files).where(files.c.file_id == file_id)).one()

    def reprocess(self, file_id: int | None = None) -> None:
        with self.platform.engine.begin() as conn:
            ledger.reprocess(conn, self.dataset.name, file_id)
        self.run()

    def table(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table, sorted, as the server has them."""
        chosen = ", ".join(f'"{column}"' for column in columns) or "*"
        with self.platform.engine.connect() as conn:
            rows = conn.execute(text(f"SELECT {chosen} FROM {name} ORDER BY {chosen}"))  # noqa: S608 - of the test's own
            return [tuple(row) for row in rows]

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of production, sorted."""
        return self.table(f'production."{self.dataset.table}"', *columns)

    def rejects(self) -> list[dict[str, Any]]:
        with self.platform.engine.connect() as conn:
            return list(rejects(conn, self.dataset))

    def differences(self) -> dict[str, list[dict[str, Any]]]:
        """Return the differences that `verify` reports, by aggregate."""
        with self.platform.engine.connect() as conn:
            by_aggregate = {a.name: aggregates.differences(conn, self.dataset, a) for a in self.dataset.aggregates}
        return {name: items for name, items in by_aggregate.items() if items}


@pytest.fixture
def declared(platform: Platform, tmp_path: Path) -> Declared:
    tmp_path.joinpath("home").mkdir(exist_ok=True)

    def declare(dataset: Dataset) -> Trial:
        for refused in create_all(platform.engine, [dataset]).values():
            raise refused
        return Trial(platform, dataset)

    return declare
