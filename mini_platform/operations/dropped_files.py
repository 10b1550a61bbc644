"""Files in the drop folder as a place: a person is removed from them, as they might be landed again.

The files belong to the user: they are not purged by age, and no backup has them, as landed files are in the raw store.
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
    """Yield the path of a temporary file to write and move; remains of killed processes are swept by its name."""
    folder_.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".arriving-", dir=folder_)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def rewriting_of(name: str, search: Search, *, written: bool) -> dict[str, Any]:
    """Return name, number of records and action of a file with records of a person."""
    action = "rewritten without them" if written else f"dropped: {search.problem}"
    return {"name": name, "records": len(search.lines), "action": action}


def _erase(erasure: Erasure) -> Erased:
    """Rewrite the files in the drop folder without the person, or remove them, as they might be landed again."""
    from mini_platform.landing.erasing import erase  # Brings polars.

    dataset, dropped = erasure.dataset, erasure.dropped
    nobody = replace(erasure.person, keys=erasure.person.keys.clear())
    result = Erased()
    for file in folder.look(dropped, dataset):
        if file.blocked:
            result.unread.append(f"{file.path} could not be searched: {file.skip_reason}")
        if not file.is_read:
            continue
        try:
            with scratch(dropped) as target:
                search, written = erase(dataset, file.path, file.name, "folder", erasure.raw.limits, nobody, target)
                if not (search.lines or search.mentioned):
                    if search.unread:
                        result.unread.append(f"{file.path} could not be searched: {search.unread}")
                    continue
                if written:
                    target.replace(file.path)
                else:
                    file.path.unlink()
        except FileNotFoundError:
            continue  # It was removed meanwhile.
        except OSError as error:
            result.unread.append(f"{file.path} could not be rewritten: {error.strerror}")
            continue
        result.files.append(rewriting_of(file.name, search, written=written))
        if written:
            _remember(erasure.engine, dataset, file)
    if result.files:
        with erasure.engine.begin() as conn:  # A process that has read one of them but not landed it yet notices it.
            audit.record(conn, "forgot", dataset=dataset.name, dropped_files=len(result.files))
    return result


def _remember(engine: Engine, dataset: Dataset, file: folder.DroppedFile) -> None:
    """Record in the inbox table that a rewritten file is the current version of its name, so that it is not hashed again."""
    with engine.begin() as conn:
        current = ledger.current_versions(conn, dataset.name, [file.name]).get(file.name)
        with file.path.open("rb") as source:
            same = current is not None and sha256_of(source) == current.sha256
            signature = folder.signature(os.fstat(source.fileno()))
        if same:
            same_name = and_(inbox.c.dataset == dataset.name, inbox.c.name == file.name)
            conn.execute(update(inbox).where(same_name).values(signature=signature))


DROPPED_FILES = FilePlace("dropped files", _contents, erase=_erase)
