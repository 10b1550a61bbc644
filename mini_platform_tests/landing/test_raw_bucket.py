"""Raw files in a bucket: kept once, read through copies, removed from both places; a bucket that is away blames no file."""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from mini_platform.datasets.weather import dataset as weather
from mini_platform.landing import folder, raw_bucket, remote, retention
from mini_platform.landing.store import RawStoreAwayError
from mini_platform.platform import Platform
from mini_platform.warehouse import ledger
from mini_platform.warehouse.load import load
from mini_platform.warehouse.staging import stage
from mini_platform.warehouse.tables import files
from mini_platform_tests.landing.servers import ACCESS_KEY, SECRET_KEY, unused_port
from mini_platform_tests.landing.yard import BAD, GOOD


@pytest.fixture
def stored(platform: Platform, bucket: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose raw files are in a bucket."""
    monkeypatch.setenv("MINI_PLATFORM_RAW_STORE", "s3://bucket/raw")
    for name, value in (("ENDPOINT", endpoint), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", SECRET_KEY)):
        monkeypatch.setenv(f"MINI_PLATFORM_RAW_S3__{name}", value)
    platform.__dict__.pop("settings")
    assert bucket.exists()
    return platform


def kept(bucket: Path) -> dict[str, bytes]:
    """What the bucket holds."""
    found = (path for path in (bucket.parent / "raw").rglob("*") if path.is_file())
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


def copies(platform: Platform) -> list[Path]:
    return [path for path in platform.store.folder.rglob("*") if path.is_file()]


def name_of(data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    return f"{sha256[:2]}/{sha256}"


def work(platform: Platform) -> list[int]:
    worker = platform.worker("test")
    with ledger.lease(worker):
        taken = stage(worker, weather, platform.raw_files(weather), limit=1000)
        load(worker, weather, limit=1000)
    return taken


def land(platform: Platform, *paths: Path) -> None:
    found = [folder.Found(path.name, path, "") for path in paths]
    assert None not in [row for _, row in folder.land(platform.engine, weather, platform.store, found, "test")]


def statuses(platform: Platform) -> list[tuple[Any, ...]]:
    with platform.engine.connect() as conn:
        rows = conn.execute(select(files.c.name, files.c.status, files.c.error).order_by(files.c.file_id))
        return [tuple(row) for row in rows]


def test_files_are_kept_in_the_bucket_and_loaded_from_it(stored: Platform, bucket: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "good.csv", tmp_path / "bad.csv"]
    for path, data in zip(paths, (GOOD, BAD), strict=True):
        path.write_bytes(data)
    land(stored, *paths)
    assert kept(bucket) == {name_of(GOOD): GOOD, name_of(BAD): BAD}
    for copy in copies(stored):
        copy.unlink()
    work(stored)
    assert [status for _, status, _ in statuses(stored)] == ["loaded", "refused"]
    assert sorted(path.read_bytes() for path in copies(stored)) == sorted([GOOD, BAD])


def test_a_file_is_written_once(stored: Platform, bucket: Path) -> None:
    stored.store.put(io.BytesIO(GOOD))
    path = bucket.parent / "raw" / name_of(GOOD)
    os.utime(path, (1, 1))
    for copy in copies(stored):
        copy.unlink()
    assert stored.store.put(io.BytesIO(GOOD)) == (hashlib.sha256(GOOD).hexdigest(), len(GOOD))
    assert path.stat().st_mtime == 1


def test_a_large_file_goes_in_parts(stored: Platform, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_platform.landing.remote_s3.UPLOAD_BYTES", 5 * 2**20)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 2**20)
    data = os.urandom(12 * 2**20)
    sha256, _ = stored.store.put(io.BytesIO(data))
    assert kept(bucket) == {name_of(data): data}
    stored.store.path(sha256).unlink()
    assert stored.store.path(sha256).read_bytes() == data


def test_copies_that_nobody_asks_for_are_removed(stored: Platform, bucket: Path) -> None:
    sha256, _ = stored.store.put(io.BytesIO(GOOD))
    (copy,) = copies(stored)
    os.utime(copy, (1, 1))
    stored.store.path(sha256)
    stored.store.sweep()
    assert copies(stored) == [copy], "it was asked for just now"
    os.utime(copy, (1, 1))
    stored.store.sweep()
    assert copies(stored) == []
    assert stored.store.path(sha256).read_bytes() == GOOD
    assert kept(bucket) == {name_of(GOOD): GOOD}


def test_a_file_of_the_folder_is_never_swept(platform: Platform) -> None:
    sha256, _ = platform.store.put(io.BytesIO(GOOD))
    os.utime(platform.store.path(sha256), (1, 1))
    platform.store.sweep()
    assert platform.store.path(sha256).read_bytes() == GOOD


def test_changed_bytes_are_not_taken(stored: Platform, bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    (bucket.parent / "raw" / name_of(GOOD)).write_bytes(BAD)
    for copy in copies(stored):
        copy.unlink()
    work(stored)
    ((_, status, why),) = statuses(stored)
    assert (status, why.partition(":")[0]) == ("failed", "its raw file is missing")


def test_retention_removes_the_object_and_its_copy(stored: Platform, bucket: Path) -> None:
    sha256, _ = stored.store.put(io.BytesIO(GOOD))
    with stored.engine.begin() as conn:
        retention.to_drop(conn, [sha256])
    assert retention.sweep(stored.engine, stored.store) == 1
    assert kept(bucket) == {}
    assert copies(stored) == []


def test_a_bucket_that_is_away_blames_no_file(
    stored: Platform, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    for copy in copies(stored):
        copy.unlink()
    settings, store = stored.settings, stored.store
    elsewhere = settings.raw_s3.model_copy(update={"endpoint": f"http://127.0.0.1:{unused_port()}"})
    gone = raw_bucket.RawBucket("s3://bucket/raw", elsewhere)
    stored.store = type(store)(store.folder, gone)
    for _ in range(3):
        with pytest.raises(RawStoreAwayError, match="cannot be reached"):
            work(stored)
        with pytest.raises(RawStoreAwayError, match="cannot be reached"):
            stored.store.put(io.BytesIO(BAD))
    assert statuses(stored) == [("a.csv", "landed", None)]
    stored.store = store
    began = time.monotonic()
    work(stored)
    assert time.monotonic() - began < 60
    assert statuses(stored) == [("a.csv", "loaded", None)]
    assert kept(bucket) == {name_of(GOOD): GOOD}
