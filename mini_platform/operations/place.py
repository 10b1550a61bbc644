"""Types for places outside the database that may hold rows of a dataset. Not here: the list of places (`places.py`)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from mini_platform.declare.dataset import Dataset
from mini_platform.platform import Platform

if TYPE_CHECKING:
    from mini_platform.landing.erasing import Person
    from mini_platform.warehouse.validated_rows import RawFiles


@dataclass(frozen=True)
class Purged:
    """Items that are or would be removed by a purge.

    Attributes:
        what: raw files, staged rows, rejected rows, quality report, sessions or runs.
        dataset: name of the dataset; None if they belong to no single one.
        items: number of files or rows.
        oldest: time at which the oldest of them arrived or was written; None if unknown.
        bytes: total size of files.
    """

    what: str
    dataset: str | None
    items: int
    oldest: dt.datetime | None = None
    bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class Erasure:
    """A person to be forgotten, and the dataset to remove them from.

    Attributes:
        engine: engine of the database.
        dataset: the dataset.
        person: the person, with the keys of their rows.
        raw: the limits that files are read with, and the keys.
        dropped: the drop folder of the dataset.
    """

    engine: Engine
    dataset: Dataset
    person: Person
    raw: RawFiles
    dropped: Path


@dataclass
class Erased:
    """The result of removing a person from a place.

    Attributes:
        files: a dict per file with records of the person: its name, number of records and what was done with it.
        unread: sentences about files that could not be searched.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FilePlace:
    """Files of one kind, local or remote, that hold rows of a dataset. Callers handle operations that are None themselves.

    Attributes:
        name: name of the kind, for people.
        contents: yields location and bytes of each file of a dataset, to search for data that must not be there.
        erase: removes a person from the files.
        purge: removes files that are past their retention, or only counts them.
        back_up: copies the files into the folder of a backup, and yields the files that it wrote.
        restore: copies the files back from there; existing files stay.
    """

    name: str
    contents: Callable[[Platform, Dataset], Iterator[tuple[str, bytes]]]
    erase: Callable[[Erasure], Erased] | None = None
    purge: Callable[[Platform, Dataset, bool], Purged] | None = None
    back_up: Callable[[Platform, Path], Iterator[Path]] | None = None
    restore: Callable[[Platform, Path], None] | None = None
