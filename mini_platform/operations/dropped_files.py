"""Files in the drop folder as a place: a person is taken out of them, or they would be landed again one day.

They are the user's: nothing here removes them for their age, and no backup has them, as what was landed is in the raw store.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, and_, update

from mini_platform.declare.dataset import Dataset
from mini_platform.landing import folder
from mini_platform.operations.place import Erased, Erasure, FilePlace
from mini_platform.platform import Platform
from mini_platform.storage.store import sha256_of
from mini_platform.warehouse import audit, ledger
from mini_platform.warehouse.tables import inbox

if TYPE_CHECKING:
    from mini_platform.landing.erasing import Search


def _contents(platform: Platform, dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    for path in (platform.settings.data / dataset.name).rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


@contextlib.contextmanager
def scratch(folder_: Path) -> Iterator[Path]:
    """A path for a file that is made and then moved; its name is one that is swept where a process was killed."""
    folder_.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".arriving-", dir=folder_)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def outcome_of(name: str, found: Search, *, written: bool) -> dict[str, Any]:
    """Return what became of a file with records of a person."""
    outcome = "rewritten without them" if written else f"dropped: {found.problem}"
    return {"name": name, "records": len(found.lines), "outcome": outcome}


def _erase(erasure: Erasure) -> Erased:
    """Rewrite the files that stand in the drop folder, or remove them: or they would be landed again one day."""
    from mini_platform.landing.erasing import erase  # Brings polars.

    dataset, dropped = erasure.dataset, erasure.dropped
    nobody = replace(erasure.person, keys=erasure.person.keys.clear())
    done = Erased()
    for file in folder.look(dropped, dataset):
        if not file.is_read:
            continue
        with scratch(dropped) as target:
            try:
                found, written = erase(dataset, file.path, file.name, "folder", erasure.raw.limits, nobody, target)
                if not (found.lines or found.mentioned):
                    if found.unread:
                        done.unread.append(f"{file.path} could not be searched: {found.unread}")
                    continue
                if written:
                    target.replace(file.path)
                else:
                    file.path.unlink()
            except FileNotFoundError:
                continue  # Somebody took it away.
            except OSError as error:
                done.unread.append(f"{file.path} could not be rewritten: {error.strerror}")
                continue
        done.files.append(outcome_of(file.name, found, written=written))
        if written:
            _remember(erasure.engine, dataset, file)
    if done.files:
        with erasure.engine.begin() as conn:  # Who has read one of them, and not landed it yet, is to see it.
            audit.record(conn, "forgot", dataset=dataset.name, dropped_files=len(done.files))
    return done


def _remember(engine: Engine, dataset: Dataset, file: folder.DroppedFile) -> None:
    """Tell the inbox that a rewritten file is the current version of its name: it need not be hashed to be known."""
    with engine.begin() as conn:
        current = ledger.current_versions(conn, dataset.name, [file.name]).get(file.name)
        with file.path.open("rb") as source:
            same = current is not None and sha256_of(source) == current.sha256
            signature = folder.signature(os.fstat(source.fileno()))
        if same:
            mine = and_(inbox.c.dataset == dataset.name, inbox.c.name == file.name)
            conn.execute(update(inbox).where(mine).values(signature=signature))


DROPPED_FILES = FilePlace("dropped files", _contents, erase=_erase)
