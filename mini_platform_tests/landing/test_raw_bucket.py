"""Raw files in a bucket: kept once, read through copies, removed from both places; a bucket that is away blames no file."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update
from typer.testing import CliRunner

from mini_platform.cli import app
from mini_platform.datasets import all_datasets
from mini_platform.landing import folder, retention
from mini_platform.operations import backup, purge, restore
from mini_platform.operations.forget import forget
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.storage import raw_bucket, remote
from mini_platform.storage.errors import RawStoreAwayError
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.inbox_harness import BAD, GOOD
from mini_platform_tests.support.orders import csv_of, order
from mini_platform_tests.support.servers import ACCESS_KEY, SECRET_KEY, S3Server, unused_port


@pytest.fixture
def stored(platform: Platform, bucket: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose raw files are in a bucket."""
    monkeypatch.setenv("MINI_PLATFORM_RAW_STORE", "s3://bucket/raw")
    for name, value in (("ENDPOINT", endpoint), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", SECRET_KEY)):
        monkeypatch.setenv(f"MINI_PLATFORM_RAW_S3__{name}", value)
    for name in ("settings", "store"):
        platform.__dict__.pop(name, None)
    assert bucket.exists()
    return platform


def stored_objects(bucket: Path) -> dict[str, bytes]:
    """Return the objects of the bucket: name to bytes."""
    paths = (path for path in (bucket.parent / "raw").rglob("*") if path.is_file())
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def copies(platform: Platform) -> list[Path]:
    return [path for path in platform.store.folder.rglob("*") if path.is_file()]


def name_of(data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    return f"{sha256[:2]}/{sha256}"


def work(platform: Platform) -> list[int]:
    return [file["file_id"] for file in process(platform, weather, run_id="test")]


def land(platform: Platform, *paths: Path) -> None:
    dropped_files = [folder.DroppedFile(path.name, path, "") for path in paths]
    assert None not in [row for _, row in folder.land(platform.engine, weather, platform.store, dropped_files, "test")]


def away(platform: Platform) -> RawStore:
    """The same store, whose bucket cannot be reached."""
    elsewhere = platform.settings.raw_s3.model_copy(update={"endpoint": f"http://127.0.0.1:{unused_port()}"})
    return RawStore(platform.store.folder, raw_bucket.RawBucket("s3://bucket/raw", elsewhere))


def forget_copies(platform: Platform) -> None:
    """Remove the local copies, so that the store is as on another machine."""
    shutil.rmtree(platform.store.folder)


def statuses(platform: Platform) -> list[tuple[Any, ...]]:
    with platform.engine.connect() as conn:
        rows = conn.execute(select(files.c.name, files.c.status, files.c.error).order_by(files.c.file_id))
        return [tuple(row) for row in rows]


def test_files_are_kept_in_the_bucket_and_loaded_from_it(stored: Platform, bucket: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "good.csv", tmp_path / "bad.csv"]
    for path, data in zip(paths, (GOOD, BAD), strict=True):
        path.write_bytes(data)
    land(stored, *paths)
    assert stored_objects(bucket) == {name_of(GOOD): GOOD, name_of(BAD): BAD}
    forget_copies(stored)
    work(stored)
    assert [status for _, status, _ in statuses(stored)] == ["loaded", "refused"]
    assert sorted(path.read_bytes() for path in copies(stored)) == sorted([GOOD, BAD])


def test_a_file_is_written_once(stored: Platform, bucket: Path) -> None:
    stored.store.put(io.BytesIO(GOOD))
    path = bucket.parent / "raw" / name_of(GOOD)
    os.utime(path, (1, 1))
    forget_copies(stored)
    assert stored.store.put(io.BytesIO(GOOD)) == (hashlib.sha256(GOOD).hexdigest(), len(GOOD))
    assert path.stat().st_mtime == 1


def test_a_large_file_goes_in_parts(stored: Platform, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_platform.storage.remote_s3.UPLOAD_BYTES", 5 * 2**20)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 2**20)
    data = os.urandom(12 * 2**20)
    sha256, _ = stored.store.put(io.BytesIO(data))
    assert stored_objects(bucket) == {name_of(data): data}
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
    assert stored_objects(bucket) == {name_of(GOOD): GOOD}


def test_a_file_of_the_folder_is_never_swept(platform: Platform) -> None:
    sha256, _ = platform.store.put(io.BytesIO(GOOD))
    os.utime(platform.store.path(sha256), (1, 1))
    platform.store.sweep()
    assert platform.store.path(sha256).read_bytes() == GOOD


def test_changed_bytes_are_not_taken(stored: Platform, bucket: Path, s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    (bucket.parent / "raw" / name_of(GOOD)).write_bytes(BAD)
    s3.refresh()
    forget_copies(stored)
    work(stored)
    ((_, status, why),) = statuses(stored)
    assert (status, why.partition(":")[0]) == ("failed", "its raw file is missing")


def test_retention_removes_the_object_and_its_copy(stored: Platform, bucket: Path) -> None:
    sha256, _ = stored.store.put(io.BytesIO(GOOD))
    with stored.engine.begin() as conn:
        retention.to_drop(conn, [sha256])
    assert retention.sweep(stored.engine, stored.store) == 1
    assert stored_objects(bucket) == {}
    assert copies(stored) == []


def test_a_bucket_that_is_away_blames_no_file(
    stored: Platform, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    forget_copies(stored)
    store = stored.store
    stored.store = away(stored)
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
    assert stored_objects(bucket) == {name_of(GOOD): GOOD}


# What operates on raw files


def nothing(_more: int, _words: str | None = None) -> None:
    """Progress that nobody looks at."""


def rows(platform: Platform) -> list[tuple[Any, ...]]:
    chosen = text("SELECT station_id, date, temp_c FROM production.measurements ORDER BY 1, 2")
    with platform.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(chosen)]


def test_a_bucket_that_was_lost_comes_back_from_the_backup(
    stored: Platform, bucket: Path, s3: S3Server, tmp_path: Path
) -> None:
    for name, data in {"a.csv": GOOD, "bad.csv": BAD}.items():
        (tmp_path / name).write_bytes(data)
    land(stored, tmp_path / "a.csv", tmp_path / "bad.csv")
    work(stored)
    forget_copies(stored)
    new_backup = backup.backup(stored, tmp_path / "backups", nothing)
    assert (new_backup.copied, new_backup.manifest.raw_missing) == (2, [])
    assert not stored.store.folder.exists(), "a backup needs no copies of its own"
    shutil.rmtree(bucket.parent / "raw")
    s3.refresh()
    with stored.engine.begin() as conn:
        conn.execute(text("UPDATE production.measurements SET temp_c = 0"))
    stored.engine.dispose()

    restored = restore.restore(stored, tmp_path / "backups", new_backup.name, nothing, replace=True)

    assert restored.raw_files == 2
    assert stored_objects(bucket) == {name_of(GOOD): GOOD, name_of(BAD): BAD}
    assert [row[2] for row in rows(stored)] == [-4.5]
    forget_copies(stored)
    with stored.engine.begin() as conn:
        conn.execute(update(files).values(status="landed", loaded_at=None, error=None))
        conn.execute(text("TRUNCATE production.measurements, quarantine.measurements"))
    work(stored)
    assert [row[2] for row in rows(stored)] == [-4.5], "and can be loaded anew"


def test_a_backup_names_what_is_damaged_in_the_bucket(
    stored: Platform, bucket: Path, s3: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    (bucket.parent / "raw" / name_of(GOOD)).write_bytes(GOOD.replace(b"OSL", b"PAR"))
    s3.refresh()
    new_backup = backup.backup(stored, tmp_path / "backups", nothing)
    assert new_backup.manifest.raw_missing == [hashlib.sha256(GOOD).hexdigest()]
    assert not stored.store.is_whole(hashlib.sha256(GOOD).hexdigest())


def test_purge_removes_old_files_from_the_bucket(stored: Platform, bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD)
    land(stored, tmp_path / "a.csv")
    work(stored)
    with stored.engine.begin() as conn:
        conn.execute(update(files).values(arrived_at=func.now() - text("interval '2 days'")))
    stored.settings.raw_retention["weather"] = 1
    gone = [item for item in purge.purge(stored, [weather], dry_run=False) if item.what == "raw files"]
    assert [(item.items, item.bytes) for item in gone] == [(1, len(GOOD))]
    assert stored_objects(bucket) == {}


MARIA = "maria.marker@example.org"


def test_who_is_forgotten_is_gone_from_the_bucket(stored: Platform, bucket: Path, data: Path, tmp_path: Path) -> None:
    sales = all_datasets()["sales"]
    path = tmp_path / "orders.csv"
    path.write_bytes(csv_of(order(1, MARIA), order(2, "ben@example.org")))
    assert [
        row for _, row in folder.land(stored.engine, sales, stored.store, [folder.DroppedFile(path.name, path, "")])
    ]
    forget_copies(stored)
    raw = stored.raw_files(sales)
    forgotten = forget(stored.engine, sales, MARIA, raw, stored.store, data / "sales")
    assert [file["action"] for file in forgotten.files] == ["rewritten without them"]
    (left,) = stored_objects(bucket).values()
    assert b"maria" not in left
    assert b"ben@example.org" in left
    assert [path.read_bytes() for path in copies(stored)] == [left]


def test_an_upload_goes_to_the_bucket_or_is_to_be_sent_again(
    stored: Platform, bucket: Path, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    sent = client.post("/api/datasets/weather/files/", params={"name": "a.csv"}, content=GOOD)
    assert sent.status_code in (201, 202), sent.text
    assert stored_objects(bucket) == {name_of(GOOD): GOOD}
    stored.store = away(stored)
    sent = client.post("/api/datasets/weather/files/", params={"name": "b.csv"}, content=BAD)
    assert sent.status_code == 503
    assert sent.headers["retry-after"] == "30"
    assert "The store of raw files cannot be reached" in sent.json()["detail"]
    assert len(statuses(stored)) == 1


def test_commands_say_that_the_bucket_is_away(
    stored: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    right = {"MINI_PLATFORM_RAW_S3__SECRET_KEY": SECRET_KEY}
    monkeypatch.setenv("MINI_PLATFORM_RAW_S3__SECRET_KEY", "another-secret")
    (tmp_path / "a.csv").write_bytes(GOOD)
    secret = (
        "s3://bucket/raw cannot be used: the secret key does not match the access key: "
        "check MINI_PLATFORM_RAW_S3__SECRET_KEY."
    )
    for line, changed in (
        (secret, {}),
        (
            "s3://none/raw cannot be used: there is no bucket none.",
            {"MINI_PLATFORM_RAW_STORE": "s3://none/raw", **right},
        ),
    ):
        for name, value in changed.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["load", "weather", str(tmp_path / "a.csv")])
        assert (result.exit_code, result.output) == (1, f"{line}\n")
    assert statuses(stored) == []
