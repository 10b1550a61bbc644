"""The channel of uploads: bytes that a program or a person sends become a raw file with a row in the ledger.

Here: what a sent file is called, and its row. Not here: HTTP, which hands the bytes over piece by piece (`api/incoming.py`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Row

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.storage.names import display_name
from mini_platform.storage.store import Arriving
from mini_platform.warehouse import ledger

NAME_BYTES = 255
"""Longest name, in bytes of UTF-8; as of a file system, so that whatever can be dropped can be sent."""


class UnfitNameError(ValueError):
    """A file cannot be taken under this name; the message says why."""


class UnfitSuffixError(UnfitNameError):
    """The name does not end as the dataset's files do."""


def file_name(sent: str, dataset: Dataset) -> str:
    """The name of a sent file as the ledger has it: data, of which nothing is a path.

    Args:
        sent: its name; bytes that are not UTF-8 as surrogates. What stands before a slash is left out, as in the drop folder.
        dataset: whose file it is.

    Raises:
        UnfitSuffixError: it ends in none of the dataset's suffixes.
        UnfitNameError: it is empty, too long, or Postgres cannot hold it.
    """
    name = sent.rpartition("/")[2]
    if not name:
        raise UnfitNameError("The file has no name.")
    if "\0" in name:
        raise UnfitNameError("The name of the file has a NUL character, which no file can be called by.")
    if len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        raise UnfitNameError(f"The name of the file is longer than {NAME_BYTES} bytes.")
    if not name.lower().endswith(dataset.suffixes):
        raise UnfitSuffixError(f"Files of {dataset.name} have names that end in {', '.join(dataset.suffixes)}.")
    return display_name(name)


def land(engine: Engine, dataset: Dataset, name: str, arriving: Arriving, channel: str = "upload") -> Row[Any]:
    """Keep a file that has arrived in full, and write it into the ledger. On disk and committed when this returns.

    Args:
        engine: on the platform's database.
        dataset: whose file it is.
        name: as the ledger has it.
        arriving: its bytes.
        channel: how it came in.

    Returns:
        Its ledger row: with the status `unchanged` where its bytes are the current version of the name.

    Raises:
        NoRoomError: there is no room for it.
        DatabaseAwayError: the database cannot be reached.
    """
    with engine.connect() as conn:
        current = ledger.current_versions(conn, dataset.name, [name]).get(name)
    # What retention removed is not kept again: nothing would ever remove it a second time.
    if current is None or current.sha256 != arriving.sha256 or current.raw_dropped_at is None:
        arriving.keep()
        failpoint("land.raw_file_kept")
    with engine.begin() as conn:
        (row,) = ledger.register(conn, dataset.name, [ledger.Arrival(name, arriving.sha256, arriving.size)], channel)
        failpoint("land.before_commit")
    failpoint("land.after_commit")
    return row
