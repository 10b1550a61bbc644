"""Everything that a platform stores, in every table and every place of files, for tests of what must not be there."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator

from sqlalchemy import text

from mini_platform import Dataset
from mini_platform.operations.places import FILES
from mini_platform.platform import Platform

TABLES = text("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname !~ '^(pg_|information)'")


def everything(platform: Platform, *datasets: Dataset) -> Iterator[tuple[str, bytes]]:
    """Yield each table as text, each file of each place, and each one in the platform's folders, unpacked.

    All tables of the database are read, not only those in the registry of places, to find those that it lacks.
    """
    with platform.engine.connect() as conn:
        for table in conn.execute(TABLES).scalars().all():
            rows = conn.execute(text(f"SELECT t::text FROM {table} t")).scalars()  # noqa: S608 - its name is quoted
            yield table, "\n".join(rows).encode()
    for where, content in (
        item for place in FILES for dataset in datasets for item in place.contents(platform, dataset)
    ):
        yield where, _unpacked(content)
    for root in (platform.settings.home, platform.settings.data):
        for path in root.rglob("*"):
            if path.is_file() and path.name != "pii.key":
                yield str(path), _unpacked(path.read_bytes())


def _unpacked(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return b"\n".join(archive.read(name) for name in archive.namelist())
    return data
