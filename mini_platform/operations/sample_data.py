"""Sample data: clean files that are dropped into a new platform, and files with invalid rows beside them, loaded by choice.

Here: which datasets get sample data, and where it stands: clean files in the drop folders, the others in the folder `samples`
beside them. A project whose data folder lacks that folder gets none. Not here: how rows are drawn (`sampling/`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, exists, func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.operations.landing import land_files, named_file
from mini_platform.operations.sampling import suffix_of, write_sample
from mini_platform.warehouse.tables import files

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.platform import Platform

FOLDER = "samples"
"""Name of the folder in the data folder; no dataset can have it."""
CLEAN, DIRTY = "sample", "dirty"
"""Names of the files, without their endings."""
CLEAN_ROWS, DIRTY_ROWS, DIRTY_SHARE = 1_800, 120, 0.3


def without_files(conn: Connection, data: Path, datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the datasets that get sample data: those with realistic rows and an empty drop folder.

    None does if a file has ever arrived at the platform, or if the project wants no sample data.
    """
    if not (data / FOLDER).is_dir() or conn.scalar(select(exists().select_from(files))):
        return []
    return [dataset for dataset in datasets if dataset.realistic and not _has_files(data / dataset.name)]


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())


def drop_clean(data: Path, dataset: Dataset) -> Path:
    """Drop a clean file into the drop folder of a dataset, and write one with invalid rows to the folder of samples."""
    target, beside = data / dataset.name, data / FOLDER / dataset.name
    for folder in (target, beside):
        folder.mkdir(exist_ok=True)
    if _dirty_file(data, dataset) is None:
        _write_dirty(dataset, beside)
    path = target / f"{CLEAN}{suffix_of(dataset)}"
    write_sample(dataset, path, CLEAN_ROWS)
    return path


def has_samples_only(conn: Connection, data: Path, names: Collection[str]) -> set[str]:
    """Return those of the named datasets that have loaded their clean file, and no other has arrived."""
    if not (data / FOLDER).is_dir():
        return set()
    is_clean = files.c.name.startswith(f"{CLEAN}.", autoescape=True)
    of_samples = (
        select(files.c.dataset)
        .where(files.c.dataset.in_(names))
        .group_by(files.c.dataset)
        .having(func.bool_and(is_clean), func.bool_or(files.c.status == "loaded"))
    )
    return set(conn.scalars(of_samples))


def land_dirty(platform: Platform, dataset: Dataset) -> Row[Any]:
    """Land the file with invalid rows: that of the project, or a drawn one; return its ledger row.

    Raises:
        ValueError: there is none, and it cannot be drawn or landed; the message is a sentence.
    """
    with TemporaryDirectory() as folder:
        path = _dirty_file(platform.settings.data, dataset) or _write_dirty(dataset, Path(folder))
        ((file, row),) = land_files(platform, dataset, [named_file(path)], "upload")
    if row is None:
        raise ValueError(f"{file.name} cannot be loaded: {file.skip_reason}")
    return row


def _dirty_file(data: Path, dataset: Dataset) -> Path | None:
    """Return the file with invalid rows in the folder of samples."""
    beside = (data / FOLDER / dataset.name).glob(f"{DIRTY}.*")
    return next((path for path in sorted(beside) if path.name.endswith(dataset.suffixes)), None)


def _write_dirty(dataset: Dataset, folder: Path) -> Path:
    """Write a file with as many invalid rows as the dataset accepts in a file, and return its path.

    Its rows are those after the rows of the clean file: no valid row replaces another one.
    """
    limit, most = dataset.reject_limit, round(DIRTY_SHARE * DIRTY_ROWS)
    invalid = next((n for n in range(most, 0, -1) if not limit.exceeded(n, DIRTY_ROWS)), most)
    path = folder / f"{DIRTY}{suffix_of(dataset)}"
    write_sample(dataset, path, range(CLEAN_ROWS, CLEAN_ROWS + DIRTY_ROWS), invalid / DIRTY_ROWS, seed=1)
    return path
