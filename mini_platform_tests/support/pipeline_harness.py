"""Files in the pipeline, and the results that the oracle expects."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text

from mini_platform import Dataset
from mini_platform.operations import processing
from mini_platform.operations.sampling import write_sample
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform_tests.support.databases import platform_on
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.oracle import COUNTERS, Oracle, Rules, differences

HEADER = "station_id,date,temp_c,precip_mm\n"


RUN = "tests"


class PipelineHarness:
    """The steps of a run as its assets execute them, without Dagster, together with the oracle."""

    def __init__(self, engine: Engine, folder: Path, dataset: Dataset = weather) -> None:
        self.engine = engine
        self.store = RawStore(folder)
        self.platform = platform_on(engine, folder.with_name("harness"), store=self.store)
        self.dataset = dataset
        self.oracle = Oracle()
        self.others_first = False

    def using(self, **settings: Any) -> None:
        """Continue with other settings."""
        self.platform.__dict__["settings"] = self.platform.settings.model_copy(update=settings)

    @property
    def worker(self) -> ledger.Worker:
        """Return the owner of the leases."""
        return replace(self.platform.worker(RUN), others_first=self.others_first)

    def land(self, *arrivals: tuple[str, bytes]) -> list[int]:
        """Add files in this order to the ledger and to the oracle; return their ids."""
        registered = [ledger.Arrival(name, *self.store.put(io.BytesIO(data))) for name, data in arrivals]
        with self.engine.begin() as conn:
            rows = ledger.register(conn, self.dataset.name, registered, "tests")
        for row, (name, data) in zip(rows, arrivals, strict=True):
            self.oracle.arrive(name, data, row.file_id)
        return [row.file_id for row in rows]

    def stage(self, only: Sequence[int] | None = None) -> list[int]:
        """Stage what is landed."""
        return processing.stage(self.platform, self.dataset, RUN, only, others_first=self.others_first)

    def load(self, only: Sequence[int] | None = None) -> list[int]:
        """Load what is staged."""
        return processing.load(self.platform, self.dataset, RUN, only)

    def refresh(self) -> None:
        """Refresh the aggregates."""
        for aggregate in self.dataset.aggregates:
            processing.refresh(self.platform, self.dataset, aggregate)

    def run(self, only: Sequence[int] | None = None) -> None:
        """Run all steps over some files, or until none is pending; files that are queued for ever run into the time-out."""
        processing.process(self.platform, self.dataset, only, run_id=RUN)

    def reprocess(self, dataset: Dataset | None = None, *, rules: Rules | None = None) -> None:
        """Queue all files again, from now on with the rules of this dataset."""
        self.dataset = dataset or self.dataset
        self.oracle = self.oracle.trusted_by(rules or self.oracle.rules)
        with self.engine.begin() as conn:
            ledger.return_to_landed(
                conn, self.dataset.name, files.c.status.in_(("loaded", "refused", "failed", "staged"))
            )

    def check(self, *, sequential: bool = False) -> None:
        """Check everything against the oracle, and the aggregates against their selects."""
        with self.engine.connect() as conn:
            assert differences(conn, self.oracle, sequential=sequential) == []
            for aggregate in self.dataset.aggregates:
                assert aggregates.differences(conn, self.dataset, aggregate) == []
            accounted = sum((func.coalesce(files.c[name], 0) for name in (*COUNTERS, "rows_rejected")), start=0)
            assert (
                conn.scalar(select(func.count()).where(files.c.status == "loaded", files.c.rows_read != accounted)) == 0
            )

    def status(self, file_id: int) -> Any:
        """Return the row in the ledger."""
        with self.engine.connect() as conn:
            return conn.execute(select(files).where(files.c.file_id == file_id)).one()

    def physical(self, *, quarantined: bool = True) -> dict[str, list[Any]]:
        """Return the physical position of every row of every table, and the transaction that wrote it."""
        tables = dataset_tables(self.dataset)
        chosen = [tables.production, *tables.aggregates.values(), *([tables.quarantine] if quarantined else [])]
        with self.engine.connect() as conn:
            return {
                table.fullname: conn.execute(
                    select(text("ctid::text"), text("xmin::text")).select_from(table).order_by(text("ctid"))
                ).all()
                for table in chosen
            }


def csv_of(*rows: str) -> bytes:
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


def sample(rows: int, dirty: float, seed: int, dataset: Dataset = weather) -> bytes:
    out = io.BytesIO()
    write_sample(dataset, out, rows, dirty, seed)
    return out.getvalue()


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - test data, not secrets


def random_file(rng: random.Random) -> bytes:
    """Draw rows of few keys and few values, so that files and lines overlap, repeat and contradict each other; some are bad."""
    cells = (
        ("A", "B", " B ", "é", "e\u0301"),
        ("2024-01-01", "2024-01-02", "2024-01-04"),
        ("1", "1.0", "2", ""),
        ("0", "3"),
    )
    good = [",".join(map(rng.choice, cells)) for _ in range(rng.randint(0, 14))]
    bad = [
        "A,2024-02-30,1,1",
        "B,2024-01-01,,",
        ",2024-01-01,1,1",
        "A,2024-01-01,nan,1",
        "A,2024-01-01,99,-1",
        "A,2024-01-01,1",
        "A,2024-01-01,1,1,1",
        'A,"2024-01-01"x,1,1',
        "A,2024-01-01,1,\0",
        HEADER.strip(),
        'B,2024-01-02,"1,2',
        "",
    ]
    rows = [*good, *rng.choices(bad, k=rng.randint(0, len(good) // 3 + 1))]
    rng.shuffle(rows)
    return csv_of(*rows)


def random_arrivals(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Draw arrivals: few names, so that many are versions of one; and bytes repeated under the same or another name."""
    rng = seeded(seed)
    arrivals: list[tuple[str, bytes]] = []
    for _ in range(count):
        again = arrivals and rng.random() < 0.2
        data = rng.choice(arrivals)[1] if again else random_file(rng)
        if rng.random() < 0.05:
            data = b"station_id,date,temp_c\nA,2024-01-01,1\n"
        arrivals.append((f"{rng.choice('abcd')}.csv", data))
    return arrivals
