"""`kill -9` at every fault point, for every dataset: afterwards all is as after a run that nobody disturbed.

Weather has more of it in `test_kills.py`, and an oracle of its own.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from mini_platform import Dataset
from mini_platform.config.faultpoints import POINTS
from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import Form
from mini_platform.warehouse import aggregates
from mini_platform.warehouse.load import BULK_ROWS
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform_tests.support import worker
from mini_platform_tests.support.crash_harness import INVARIANTS, LEASE_SECONDS, CrashHarness
from mini_platform_tests.support.samples import EVERY, compared, sample
from mini_platform_tests.support.survivors import Survives
from mini_platform_tests.support.waves import ONLY_INTO_EMPTY_TABLES

pytestmark = pytest.mark.faults

OTHERS = sorted({name for name, _ in EVERY} - {"weather"})
CASES = [
    (name, point)
    for name in OTHERS
    for point in POINTS
    if all_datasets()[name].aggregates or not point.startswith("aggregate.")
]
NO_ROWS = ("land.", "claim.")
"""Points that know nothing of rows: once is enough."""
Contents = dict[str, Counter[tuple[Any, ...]]]


@cache
def file(name: str, form: Form, seed: int, rows: int, dirty: float) -> bytes:
    return sample(all_datasets()[name], form, rows, dirty, seed).data


def waves(name: str, *, big: bool) -> list[dict[str, bytes]]:
    """Return the files of each wave: over the same keys in every form, a copy, refused ones, one that is mended."""
    forms = [form for dataset, form in EVERY if dataset == name]

    def wave(seeds: dict[str, tuple[int, int, float]]) -> dict[str, bytes]:
        named = [(letter, forms[ord(letter) % len(forms)], how) for letter, how in seeds.items()]
        return {f"{letter}.{form}": file(name, form, *how) for letter, form, how in named}

    first = wave({"b": (1, 40, 0.2), "c": (2, 50, 0.0), "d": (3, 30, 0.3), "e": (4, 120, 0.9)})
    copied = next(iter(first))
    first[f"f{copied[1:]}"] = first[copied]
    if big:
        first = wave({"a": (7, BULK_ROWS + 100, 0.0)}) | first
    return [first, wave({"b": (5, 45, 0.1), "e": (6, 20, 0.1), "g": (8, 60, 0.2)})]


@dataclass
class DatasetYard(CrashHarness):
    """A harness of another dataset than weather, validated by what its tables hold after an undisturbed run."""

    name: str = ""

    @property
    def dataset(self) -> Dataset:
        return all_datasets()[self.name]

    @property
    def inbox(self) -> Path:
        return self.data / self.name

    def contents(self) -> Contents:
        """Return what must not depend on when workers die.

        What names a file does (one that changes nothing writes nothing), and times and surrogate keys do: so aggregates are
        compared with production instead, in `wrong`.
        """
        tables = dataset_tables(self.dataset)
        columns = [c.name for c in self.dataset.stored_columns if not c.system or c.name in self.dataset.key]
        ledger = ("name", "version", "sha256", "status", "error", "rows_read", "rows_rejected")
        with self.engine.connect() as conn:
            queries = {
                "production": select(*(tables.production.c[column] for column in columns)),
                "quarantine": select(
                    files.c.name, files.c.version, tables.quarantine.c._line, tables.quarantine.c._rules
                ).join(files, files.c.file_id == tables.quarantine.c._file_id),
                "ledger": select(*(files.c[column] for column in ledger)),
            }
            return {what: Counter(map(repr, conn.execute(query))) for what, query in queries.items()}  # type: ignore[misc]

    def wrong(self) -> list[str]:
        with self.engine.connect() as conn:
            return [*self._bytes(conn), *self._held(conn), *self._raw_store(conn)]

    def _held(self, conn: Connection) -> list[str]:
        wrong = []
        for sentence, query in INVARIANTS.items():
            rows = conn.execute(text(query.replace("measurements", self.dataset.table))).mappings()
            wrong += [f"{sentence}: {dict(row)}" for row in rows]
        for aggregate in self.dataset.aggregates:
            wrong += map(str, aggregates.differences(conn, self.dataset, aggregate))
        return wrong

    def _ledger(self, conn: Connection) -> list[Any]:
        return list(conn.execute(select(files).where(files.c.dataset == self.name).order_by(files.c.file_id)))

    def start_anew(self) -> None:
        """Empty tables and folders: nothing has arrived."""
        with self.engine.begin() as conn:
            names = [table.fullname for table in tables_of(self.dataset)]
            conn.execute(
                text(
                    f"TRUNCATE watch.moves, ops.files, ops.inbox, ops.dirty_groups, {', '.join(names)} RESTART IDENTITY"
                )
            )
        for folder in (self.inbox, self.home / "raw"):
            shutil.rmtree(folder)
        self.inbox.mkdir()


_undisturbed: dict[tuple[str, bool], list[Contents]] = {}


def undisturbed(harness: DatasetYard, *, big: bool) -> list[Contents]:
    """Return the contents of the tables after each wave if nothing happens."""
    if (harness.name, big) not in _undisturbed:
        held = []
        for wave in waves(harness.name, big=big):
            harness.drop(wave)
            harness.finish()
            assert harness.wrong() == []
            held.append(harness.contents())
        _undisturbed[harness.name, big] = held
        harness.start_anew()
    return _undisturbed[harness.name, big]


@pytest.fixture
def open_harness(engine: Engine, database_url: str, home: Path, data: Path) -> Iterator[Any]:
    harnesses = []

    def opened(name: str) -> DatasetYard:
        settings = {
            "DATABASE_URL": database_url,
            "MINI_PLATFORM_HOME": str(home),
            "MINI_PLATFORM_DATA": str(data),
            "MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS),
            "MINI_PLATFORM_BATCH_FILES": "2",
            "MINI_PLATFORM_PII_KEYS": "test:a secret of the tests",
            worker.DATASET: name,
        }
        harnesses.append(DatasetYard(engine, home, data, settings, name=name))
        harnesses[-1].watch()
        return harnesses[-1]

    yield opened
    for harness in harnesses:
        harness.close()


@pytest.mark.parametrize(("name", "point"), CASES)
def test_killed(name: str, point: str, open_harness: Any, fault: Survives) -> None:
    """In the first load at its first pass by the point; in a later one, into full tables, at the second."""
    fault(f"kill -9 of the worker at {point}")
    harness = open_harness(name)
    big = point == ONLY_INTO_EMPTY_TABLES
    expected = undisturbed(harness, big=big)
    first, later = waves(name, big=big)
    harness.drop(first)
    harness.kill_at(point)
    harness.finish()
    assert harness.wrong() == []
    assert harness.contents() == expected[0]
    if big or point.startswith(NO_ROWS):
        return
    harness.drop(later)
    one_pass = point.startswith("aggregate.") and len(harness.dataset.aggregates) == 1
    harness.kill_at(point if one_pass else f"{point}:2")
    harness.finish()
    assert harness.wrong() == []
    assert harness.contents() == expected[1]


@pytest.mark.parametrize("name", OTHERS)
def test_nobody_is_killed(name: str, open_harness: Any) -> None:
    """The contents to compare with are right themselves: of each key, the last arrival that was not refused."""
    harness = open_harness(name)
    *_, last = undisturbed(harness, big=False)
    for wave in waves(name, big=False):
        harness.drop(wave)
        harness.finish()
    assert harness.contents() == last, "the same again"
    dataset = harness.dataset
    columns = [column.name for column in compared(dataset)]
    if not set(dataset.key) <= set(columns):
        pytest.skip("its key is not what stands in the files")
    rows: dict[Any, tuple[Any, ...]] = {}
    arrivals = [
        *(("b", (1, 40, 0.2)), ("c", (2, 50, 0.0)), ("d", (3, 30, 0.3)), ("f", (1, 40, 0.2))),
        *(("b", (5, 45, 0.1)), ("e", (6, 20, 0.1)), ("g", (8, 60, 0.2))),
    ]
    forms = [form for one, form in EVERY if one == name]
    for letter, (seed, count, dirty) in arrivals:
        form = forms[ord("b" if letter == "f" else letter) % len(forms)]
        for values in sample(dataset, form, count, dirty, seed).rows.values():
            cells = dict(zip(columns, values, strict=True))
            rows[tuple(cells[part] for part in dataset.key)] = values
    table = dataset_tables(dataset).production
    with harness.engine.connect() as conn:
        stored = set(map(tuple, conn.execute(select(*(table.c[column] for column in columns)))))
    assert stored == set(rows.values())
