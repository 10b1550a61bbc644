"""What a place outside of the database is, where rows of a dataset may stand. Not here: which there are (`places.py`)."""

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
    """What goes, or went.

    Attributes:
        what: raw files, staged rows, rejected rows, quality report or runs.
        dataset: whose; None where it is not of one.
        items: how many files or rows.
        oldest: when the oldest of them arrived or was written; None where that is not known.
        bytes: of files.
    """

    what: str
    dataset: str | None
    items: int
    oldest: dt.datetime | None = None
    bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


@dataclass(frozen=True)
class Erasure:
    """A person who is to be forgotten, and where.

    Attributes:
        engine: of the database.
        dataset: whose.
        person: with the keys of their rows.
        raw: how files are read.
        dropped: the drop folder of the dataset.
    """

    engine: Engine
    dataset: Dataset
    person: Person
    raw: RawFiles
    dropped: Path


@dataclass
class Erased:
    """What was done in a place.

    Attributes:
        files: of each file with records of the person: its name, how many, and what became of it.
        unread: sentences about files that could not be searched.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FilePlace:
    """Files of one kind, here or far, in which rows of a dataset stand. What is None is done by who walks the places.

    Attributes:
        name: of such files, as people read it.
        contents: where each file of a dataset is, and its bytes: for who looks for what must not be there.
        erase: takes a person out of them.
        purge: removes those that are older than they are kept, or only looks.
        back_up: copies them into the folder of a backup; yields the files that it wrote.
        bring_back: copies them from there; what is there already stays.
    """

    name: str
    contents: Callable[[Platform, Dataset], Iterator[tuple[str, bytes]]]
    erase: Callable[[Erasure], Erased] | None = None
    purge: Callable[[Platform, Dataset, bool], Purged] | None = None
    back_up: Callable[[Platform, Path], Iterator[Path]] | None = None
    bring_back: Callable[[Platform, Path], None] | None = None
