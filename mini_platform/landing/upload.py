"""The channel of uploads: bytes that a program or a person sends become a raw file with a row in the ledger.

Here: the name of an uploaded file, and its row. Not here: HTTP, which passes the bytes on in pieces (`api/incoming.py`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Row

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.storage.names import display_name
from mini_platform.storage.store import Arriving
from mini_platform.warehouse import ledger

PAYLOADS = "post"
"""Channel of request bodies without a name: each is a file of its own, which no later version corrects."""
NAME_BYTES = 255
"""Maximum length of a name, in bytes of UTF-8; that of a file system, so that whatever can be dropped can be uploaded."""


class UnfitNameError(ValueError):
    """A file cannot be accepted under this name; the message says why."""


class UnfitSuffixError(UnfitNameError):
    """The name has none of the dataset's suffixes."""


def file_name(sent: str, dataset: Dataset) -> str:
    """Return the name of an uploaded file for the ledger: plain data, never a path.

    Args:
        sent: name as sent; bytes that are not UTF-8 as surrogates. The part before a slash is removed, as in the drop folder.
        dataset: dataset of the file.

    Raises:
        UnfitSuffixError: the name has none of the dataset's suffixes.
        UnfitNameError: the name is empty, too long, or Postgres cannot store it.
    """
    name = sent.rpartition("/")[2]
    if not name:
        raise UnfitNameError("The file has no name.")
    if "\0" in name:
        raise UnfitNameError("The name of the file has a NUL character, which is not allowed.")
    if len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        raise UnfitNameError(f"The name of the file is longer than {NAME_BYTES} bytes.")
    if not name.lower().endswith(dataset.suffixes):
        raise UnfitSuffixError(f"Files of {dataset.name} have names that end in {', '.join(dataset.suffixes)}.")
    return display_name(name)


def land(engine: Engine, dataset: Dataset, name: str, arriving: Arriving, channel: str = "upload") -> Row[Any]:
    """Store a file that has arrived in full, and register it in the ledger. On disk and committed when this returns.

    Args:
        engine: engine of the platform's database.
        dataset: dataset of the file.
        name: name in the ledger.
        arriving: bytes of the file.
        channel: channel by which it arrived.

    Returns:
        The ledger row: with the status `unchanged` if the bytes are the current version of the name.

    Raises:
        NoRoomError: there is not enough disk space.
        DatabaseAwayError: the database cannot be reached.
    """
    with engine.connect() as conn:
        current = ledger.current_versions(conn, dataset.name, [name]).get(name)
    # A raw file that retention removed is not stored again: nothing would remove it a second time.
    if current is None or current.sha256 != arriving.sha256 or current.raw_dropped_at is None:
        arriving.keep()
        failpoint("land.raw_file_kept")
    with engine.begin() as conn:
        (row,) = ledger.register(conn, dataset.name, [ledger.Arrival(name, arriving.sha256, arriving.size)], channel)
        failpoint("land.before_commit")
    failpoint("land.after_commit")
    return row
