"""The results of files with nasty rows, row by row."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, select

from mini_platform import Dataset
from mini_platform.landing import folder
from mini_platform.operations.processing import process
from mini_platform.rows.protection import Keyring
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import aggregates, quarantine
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.tables import dataset_tables, dirty_groups, files, inbox
from mini_platform_tests.support import examples
from mini_platform_tests.support.databases import platform_on

COUNTERS = ("inserted", "updated", "unchanged", "superseded", "rejected")


SHOWN = 80
"""Number of characters of a rejected value that are compared: a field may have a megabyte."""


KEYRING = Keyring.from_text("test:a secret of the tests")


@dataclass(frozen=True)
class Outcome:
    """The result of one file.

    Attributes:
        name: in the ledger.
        summary: status and accounting, such as `loaded: 2 read, 1 inserted, 1 rejected`; counters of 0 are left out.
        error: the sentence in the ledger; empty if there is none.
        rejects: `line rule 'value'` of each broken rule, as `mini-platform rejects` shows them.
        rows: the rows of production that are from this file, as `A|2024-01-01|1.0|`.
        extra: the columns that were not declared.
    """

    name: str
    summary: str
    error: str = ""
    rejects: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@dataclass
class Bench:
    """The steps of a run, from the drop folder to the aggregates, as the assets execute them."""

    engine: Engine
    inbox: Path
    store: RawStore
    known: list[Dataset] = field(default_factory=lambda: [examples.weather])

    def drop(self, *dropped: tuple[str | bytes, bytes]) -> None:
        """Put complete files into the drop folder, and nothing else."""
        shutil.rmtree(self.inbox, ignore_errors=True)
        self.inbox.mkdir()
        for name, data in dropped:
            with open(os.path.join(os.fsencode(self.inbox), os.fsencode(name)), "wb") as file:  # noqa: PTH118, PTH123 - bytes
                file.write(data)

    def run(self, dataset: Dataset | None = None) -> list[Outcome]:
        """Land what stands in the folder, and process it; what became of each new file, in its turn."""
        dataset = dataset or examples.weather
        with self.engine.connect() as conn:
            dropped = folder.changed(conn, self.inbox, dataset, now=time.time() + 60)
        new = [file for file in dropped if not file.skip_reason]
        landed = [row for _, row in folder.land(self.engine, dataset, self.store, new) if row]
        assert len(landed) == len(new)
        self.work(dataset)
        with self.engine.connect() as conn:
            return [_outcome(conn, dataset, row.same_as or row.file_id) for row in landed]

    def work(self, dataset: Dataset) -> None:
        """Process what is landed."""
        platform = platform_on(self.engine, self.inbox.with_name("bench"), store=self.store, keyring=KEYRING)
        process(platform, dataset, run_id="nasty")

    def skip_reason(self, dataset: Dataset | None = None) -> dict[str, str]:
        """Return the reason by name of the files in the folder that are skipped."""
        dataset = dataset or examples.weather
        dropped = folder.look(self.inbox, dataset, now=time.time() + 60)
        return {file.name: file.skip_reason for file in dropped if file.skip_reason}

    def wrong(self, dataset: Dataset | None = None) -> list[str]:
        """Return violated invariants, which hold for any files, as sentences."""
        dataset = dataset or examples.weather
        with self.engine.connect() as conn:
            wrong = [
                f"{row.name}: {row.status} after {row.attempts} attempts: {row.error}"
                for row in conn.execute(select(files).where(files.c.status.in_(("landed", "staged", "failed"))))
            ]
            wrong += [
                f"{row.name}: loaded, and its rows are not accounted for"
                for row in conn.execute(select(files).where(files.c.status == "loaded"))
                if row.rows_read != sum(row._mapping[f"rows_{name}"] for name in COUNTERS)
            ]
            wrong += [
                f"a reject without file, line, rule or sentence: {one}"
                for one in quarantine.rejects(conn, dataset)
                if not (one["file"] and one["line"] > 0 and one["rule"] and len(one["reason"].split()) > 1)
            ]
            for aggregate in dataset.aggregates:
                wrong += map(str, aggregates.differences(conn, dataset, aggregate))
        return wrong

    def clear(self) -> None:
        """Delete everything that arrived."""
        with self.engine.begin() as conn:
            for table in (
                files,
                inbox,
                dirty_groups,
                *(t for dataset in self.known for t in tables_of(dataset)),
            ):
                conn.execute(delete(table))


def _outcome(conn: Any, dataset: Dataset, file_id: int) -> Outcome:
    row = conn.execute(select(files).where(files.c.file_id == file_id)).one()
    counts = [f"{row.rows_read or 0} read"]
    counts += [f"{n} {name}" for name in COUNTERS if (n := row._mapping[f"rows_{name}"])]
    rejects = list(quarantine.rejects(conn, dataset, file_id=file_id))
    assert all(reject["file"] == row.name and reject["reason"] for reject in rejects)
    production = dataset_tables(dataset).production
    names = [column.name for column in dataset.stored_columns]
    rows = conn.execute(select(*(production.c[name] for name in names)).where(production.c._file_id == file_id))
    return Outcome(
        row.name,
        f"{row.status}: {', '.join(counts)}",
        row.error or "",
        tuple(
            f"{reject['line']} {reject['rule']} {reject['value'] and reject['value'][:SHOWN]!r}" for reject in rejects
        ),
        tuple(sorted("|".join("" if cell is None else str(cell) for cell in cells) for cells in rows)),
        tuple(row.unexpected_columns or ()),
    )


def explained(expected: Sequence[tuple[str, Any, Any]]) -> str:
    """Return the differences of (name, expected, got) by name, on lines one below the other; empty if there are none."""
    return "".join(
        f"\n  {name}\n    expected: {right!r}\n    got:      {got!r}" for name, right, got in expected if right != got
    )
