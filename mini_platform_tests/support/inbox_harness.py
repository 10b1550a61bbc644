"""A dataset with one remote inbox on real servers: files in the inbox, landed files, and the state of the inbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text, update

from mini_platform import Dataset
from mini_platform.config.sections import InboxSettings
from mini_platform.landing.inbox_work import Visit
from mini_platform.operations.processing import process
from mini_platform.operations.sources import visit_inbox
from mini_platform.platform import Platform
from mini_platform.storage.remote import Inbox
from mini_platform.warehouse.tables import files, inbox_files, inboxes
from mini_platform_tests.support import examples

GOOD = b"station_id,date,temp_c,precip_mm\nOSL,2026-01-01,-4.5,0.3\n"
BAD = b"station_id,date,temp_c,precip_mm\nOSL,2026-01-01,=warm,0.3\n" + b",,,\n" * 99
CHANGED = b"station_id,date,temp_c,precip_mm\nOSL,2026-01-01,-5.5,0.3\n"


@dataclass
class InboxHarness:
    """A remote inbox of weather.

    Attributes:
        platform: platform with separate settings.
        folder: folder that the server serves as the inbox.
        settings: settings of the inbox; `using` changes them.
        refresh: callback that makes the server read changes in the folder.
    """

    platform: Platform
    folder: Path
    settings: dict[str, Any]
    dataset: Dataset = field(default_factory=lambda: examples.weather)
    name: str = "partner"
    refresh: Callable[[], None] = lambda: None

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.dataset.name, self.name, InboxSettings(**self.settings))

    def using(self, **settings: Any) -> InboxHarness:
        """Return a copy of this harness with other settings."""
        return replace(self, settings=self.settings | settings)

    def put(self, name: str | bytes, data: bytes = GOOD) -> Path:
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.refresh()
        return path

    def age(self, seconds: float = 60) -> None:
        """Move the last look this many seconds into the past."""
        with self.platform.engine.begin() as conn:
            conn.execute(update(inbox_files).values(seen_at=func.now() - text(f"interval '{seconds} s'")))

    def visit(self, *, at_once: bool = True) -> Visit:
        self.refresh()
        visit = visit_inbox(self.platform, self.dataset, self.inbox, at_once=at_once)
        assert visit is not None
        return visit

    def visits(self) -> Visit:
        """Visit the inbox twice, with some time in between."""
        first = self.visit()
        self.age()
        second = self.visit()
        second.file_ids[:0] = first.file_ids
        return second

    def load(self) -> None:
        """Process the landed files, as a run does."""
        process(self.platform, self.dataset, run_id="test")

    def ledger(self, *columns: str) -> list[tuple[Any, ...]]:
        chosen: Sequence[str] = columns or ("name", "version", "status")
        with self.platform.engine.connect() as conn:
            rows = conn.execute(select(*(files.c[name] for name in chosen)).order_by(files.c.file_id))
            return [tuple(row) for row in rows]

    def row(self) -> Any:
        """Return the inbox's row of `ops.inboxes`."""
        with self.platform.engine.connect() as conn:
            return conn.execute(select(inboxes).where(inboxes.c.inbox == self.name)).one()

    def known(self) -> dict[bytes, str | None]:
        """Return the known files of the inbox, with the reason if a file is skipped."""
        with self.platform.engine.connect() as conn:
            rows = conn.execute(select(inbox_files.c.key, inbox_files.c.skip_reason))
            return {bytes(row.key): row.skip_reason for row in rows}

    def stands(self) -> list[str]:
        """Return the files in the inbox, including those in folders below it."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in paths)

    def raw(self) -> list[bytes]:
        """Return the contents of the raw store, without unfinished files of a killed process, which are removed later."""
        return sorted(path.read_bytes() for path in self.platform.store.folder.glob("??/*"))


INBOX = "MINI_PLATFORM_INBOX__WEATHER"
