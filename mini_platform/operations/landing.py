"""Landing: store arrived files as raw files with a row in the ledger, and remove raw files past their retention.

Here: landing for a run, files named by a user, pages of an API. Not here: how a channel is read (`landing/`), how files are
processed (`processing.py`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import nearest
from mini_platform.landing import folder, retention
from mini_platform.landing.folder import DroppedFile
from mini_platform.operations.raw_files import raw_retention
from mini_platform.operations.sources import access_to, remote_inboxes, visit_inbox
from mini_platform.storage.names import SETTLE_SECONDS, display_name
from mini_platform.warehouse import audit

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.sources import ApiSource
    from mini_platform.landing.sync import SyncResult
    from mini_platform.platform import Platform

LAND_TRIES = 5
"""Attempts to land a file that changes while it is read."""


class FileError(ValueError):
    """A file named by a user cannot be landed; the message is a sentence."""


@dataclass(frozen=True)
class Landed:
    """The result of landing from the channels of a dataset.

    Attributes:
        file_ids: ids of the files that arrived, in their order.
        skipped: files of the drop folder that are not landed yet, each with the reason; blocked ones come first.
        expired: ledger rows of the files whose raw file was removed, as it was past its retention.
    """

    file_ids: Sequence[int]
    skipped: Sequence[DroppedFile]
    expired: Sequence[Row[Any]]

    @property
    def blocked(self) -> list[DroppedFile]:
        """Return the skipped files that will not be landed until a user intervenes."""
        return [file for file in self.skipped if file.blocked]


def land(
    platform: Platform,
    dataset: Dataset,
    run_id: str,
    files: Sequence[int] | None = None,
    *,
    visit_inboxes: bool = True,
) -> Landed:
    """Land new files of the drop folder and the remote inboxes of a dataset, and remove raw files past their retention.

    Args:
        platform: settings, database and raw store.
        dataset: dataset of the files.
        run_id: run that the audit trail records as the actor.
        files: ids of landed files that the run is limited to; if set, no new files are landed.
        visit_inboxes: False if another process visits them all the time.
    """
    platform.require(dataset)
    with audit.on_behalf_of(platform.worker(run_id).actor):
        file_ids, skipped = _land_dropped(platform, dataset) if files is None else ([], [])
        if files is None and visit_inboxes:
            file_ids += _land_remote(platform, dataset)
        expired = retention.drop_old(platform.engine, dataset, platform.store, raw_retention(platform, dataset))
    return Landed(file_ids, sorted(skipped, key=lambda file: not file.blocked), expired)


def _land_dropped(platform: Platform, dataset: Dataset) -> tuple[list[int], list[DroppedFile]]:
    """Land the drop folder; return ids of the files that arrived, and the skipped files."""
    with platform.engine.connect() as conn:
        dropped = folder.changed(conn, platform.settings.data / dataset.name, dataset)
    skipped = [file for file in dropped if file.skip_reason]
    new = [file for file in dropped if not file.skip_reason]
    landed = list(folder.land(platform.engine, dataset, platform.store, new))
    return [row.file_id for _, row in landed if row], skipped + [file for file, row in landed if row is None]


def _land_remote(platform: Platform, dataset: Dataset) -> list[int]:
    """Visit the remote inboxes; return ids of the files that arrived."""
    inboxes = remote_inboxes(platform, dataset)
    if not inboxes:
        return []
    from mini_platform.landing.inboxes import visit_all  # Brings the clients of S3 and SFTP.

    visits = [partial(visit_inbox, platform, dataset, inbox, at_once=True) for inbox in inboxes]
    return [file_id for visit in visit_all(visits) for file_id in visit.file_ids]


def named_file(path: Path) -> DroppedFile:
    """Return the file at a path that a user named; links are followed.

    Raises:
        FileError: it does not exist, is not a regular file, or cannot be read.
    """
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or "it is a loop of links"
        siblings = (sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else ()
        hint = nearest(path.name, siblings) if isinstance(error, FileNotFoundError) else ""
        raise FileError(f"{path}: {reason}{hint}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise FileError(f"{path}: it is {kind}")
    if not os.access(target, os.R_OK):
        raise FileError(f"{path}: permission denied")
    return DroppedFile(display_name(path.name or target.name), target, "")


def land_files(
    platform: Platform, dataset: Dataset, named: Sequence[DroppedFile], channel: str = "load"
) -> Iterator[tuple[DroppedFile, Row[Any] | None]]:
    """Land files in the order in which they are named; retry a file that changes meanwhile for some time.

    Yields:
        Each file with its ledger row; or with None, and the reason, if it cannot be landed.
    """
    platform.require(dataset)
    for batch in _by_distinct_names(named):
        for first_try, first_row in folder.land(platform.engine, dataset, platform.store, batch, channel):
            file, row = first_try, first_row
            for _ in range(LAND_TRIES):
                if row is not None or file.blocked:
                    break
                time.sleep(SETTLE_SECONDS)
                ((file, row),) = folder.land(platform.engine, dataset, platform.store, [file], channel)
            yield file, row


def _by_distinct_names(named: Iterable[DroppedFile]) -> Iterator[list[DroppedFile]]:
    """Yield batches of consecutive files; a repeated name, which is the next version, starts a new batch."""
    batch: dict[str, DroppedFile] = {}  # by name: a search in a list would take minutes for 100,000 files
    for file in named:
        if file.name in batch:
            yield [*batch.values()]
            batch = {}
        batch[file.name] = file
    if batch:
        yield [*batch.values()]


def sync(
    platform: Platform,
    dataset: Dataset,
    source: ApiSource,
    log: Callable[[str], None] | None = None,
    *,
    run_id: str | None = None,
) -> SyncResult:
    """Fetch new data of an API page by page and land it; return the result, with errors of the source in it.

    Args:
        platform: settings, database and raw store.
        dataset: dataset of the source.
        source: the API source to sync.
        log: called with sentences about retries and pauses.
        run_id: run that the audit trail records as the actor; by default it is the user of the operating system.
    """
    from mini_platform.landing.sync import sync  # Brings httpx.

    platform.require(dataset)
    access = access_to(platform, dataset, source)
    with audit.on_behalf_of(platform.worker(run_id).actor) if run_id else nullcontext():
        return sync(platform.engine, dataset, source, platform.store, access, log or (lambda _: None))
