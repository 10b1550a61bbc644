"""Backups and what comes of them: real dumps by real programs, restored on a real Postgres, held to the oracle."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text, update

from mini_platform.datasets import all_datasets
from mini_platform.landing import retention
from mini_platform.operations import archive
from mini_platform.operations.archive import BackupError
from mini_platform.operations.backup import backup, expire
from mini_platform.operations.restore import Restored, restore
from mini_platform.platform import Platform
from mini_platform.warehouse.migrations import NEWEST
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import api_keys, audit, files, migrations
from mini_platform.web.auth import keys, sessions
from mini_platform_tests.support.command import cli, here
from mini_platform_tests.support.oracle import Oracle
from mini_platform_tests.support.pipeline_harness import PipelineHarness

HEADER = "station_id,date,temp_c,precip_mm\n"


def day(number: int, temp: float, station: str = "OSL", *more: str) -> bytes:
    return (HEADER + f"{station},2026-01-{number:02},{temp},0.5\n" + "".join(f"{line}\n" for line in more)).encode()


YESTERDAY = (
    ("a.csv", day(1, -4.0, "OSL", "OSL,2026-01-09,warm,0", "BER,2026-01-01,2,0")),
    ("b.csv", day(2, -3.0)),
    ("a.csv", day(1, -5.0)),
)
TODAY = (
    ("b.csv", day(2, 7.5, "OSL", "OSL,2026-01-01,8,0")),
    ("c.csv", day(3, 1.0, "PAR")),
    ("a.csv", YESTERDAY[0][1]),
    ("c.csv", day(3, 1.5, "PAR", "PAR,2026-99-99,1,1")),
)


def nothing(_more: int, _words: str | None = None) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def harness(platform: Platform) -> PipelineHarness:
    return PipelineHarness(platform.engine, platform.settings.raw_store)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def bring_back(platform: Platform, folder: Path, **options: bool) -> Restored:
    """Restore the newest backup, as a command would: with nobody else connected."""
    platform.engine.dispose()
    return restore(platform, folder, archive.backups(folder)[-1], nothing, **options)


def as_the_ledger_says(harness: PipelineHarness, contents: dict[str, bytes]) -> None:
    """An oracle of what the ledger has, in its order."""
    harness.oracle = Oracle()
    with harness.engine.connect() as conn:
        for row in conn.execute(select(files).order_by(files.c.file_id)):
            harness.oracle.arrive(row.name, contents[row.sha256], row.file_id)


def contents(harness: PipelineHarness) -> dict[str, bytes]:
    """Bytes by their hash, as they are in the raw store."""
    return {path.name: path.read_bytes() for path in harness.store.folder.glob("??/*")}


@pytest.mark.parametrize("how", ["replayed", "dropped again"])
def test_drill_yesterdays_backup_and_what_arrived_since_are_what_the_oracle_says(
    platform: Platform, harness: PipelineHarness, there: Path, how: str
) -> None:
    harness.land(*YESTERDAY)
    harness.run()
    harness.land(("waits.csv", day(5, 3.0)))  # landed, and not loaded when the backup is made
    harness.stage()
    backup(platform, there, nothing)
    harness.run()
    harness.land(*TODAY)
    harness.run()
    harness.check()
    with harness.engine.begin() as conn:  # the disaster
        conn.execute(text("UPDATE production.measurements SET temp_c = 0"))
        conn.execute(text("DROP TABLE analytics.summary, quarantine.measurements CASCADE"))
    bytes_of = contents(harness)

    restored = bring_back(platform, there, replace=True, replay=how == "replayed")

    assert (restored.later, restored.replayed) == (len(TODAY), len(TODAY) if how == "replayed" else 0)
    if how == "dropped again":
        harness.land(*TODAY)
    as_the_ledger_says(harness, bytes_of)
    assert [file.name for file in harness.oracle.files] == [n for n, _ in (*YESTERDAY, ("waits.csv", b""), *TODAY)]
    harness.run()
    harness.check()


def test_a_lost_machine_comes_back_from_the_backup_alone(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    harness.run()
    harness.reprocess()
    with harness.engine.begin() as conn:
        lease = {"leased_by": "a run of the lost machine", "leased_until": func.now() + dt.timedelta(hours=1)}
        conn.execute(files.update().values(lease))
    saved = backup(platform, there, nothing)
    for path in harness.store.folder.glob("??/*"):
        path.unlink()
    with harness.engine.begin() as conn:
        conn.execute(text("DROP SCHEMA ops, staging, production, quarantine, analytics, dagster CASCADE"))

    restored = bring_back(platform, there)

    assert (restored.raw_files, saved.copied, saved.manifest.raw_files) == (3, 3, 3)
    harness.run()
    harness.check()
    with harness.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM dagster.runs")) == 0  # its history is part of it
        assert conn.scalar(
            text("SELECT has_table_privilege('mini_platform_reader', 'production.measurements', 'SELECT')")
        )
        assert not conn.scalar(text("SELECT has_table_privilege('mini_platform_reader', 'ops.api_keys', 'SELECT')"))
    harness.reprocess()
    harness.run()
    harness.check()


def test_what_is_loaded_meanwhile_is_in_it_whole_or_not_at_all(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    stop, numbers = threading.Event(), iter(range(1, 10_000))

    def work() -> None:
        while not stop.is_set():
            number = next(numbers)
            harness.land((f"{number % 7}.csv", day(1 + number % 28, number / 100)))
            harness.run()

    harness.land(*YESTERDAY)
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(2):
        backup(platform, there, nothing)
    stop.set()
    thread.join()
    bytes_of = contents(harness)
    assert len(bytes_of) > 3
    for path in harness.store.folder.glob("??/*"):
        path.unlink()
    for name in archive.backups(there):
        platform.engine.dispose()
        restore(platform, there, name, nothing, replace=True)
        as_the_ledger_says(harness, bytes_of)
        harness.run()
        harness.check()


def test_a_second_backup_copies_what_is_new_and_old_ones_go_with_what_only_they_name(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    first = backup(platform, there, nothing)
    harness.land(TODAY[1])
    with harness.engine.begin() as conn:
        gone = conn.scalar(select(files.c.sha256).order_by(files.c.file_id).limit(1))
        conn.execute(files.update().where(files.c.sha256 == gone).values(raw_dropped_at=func.now()))
    second = backup(platform, there, nothing)
    assert (first.copied, second.copied, second.manifest.raw_files) == (3, 1, 3)
    assert (there / "raw" / str(gone)[:2] / str(gone)).exists()
    assert expire(there, 2) == []
    assert expire(there, 1) == [first.name]
    assert archive.backups(there) == [second.name]
    assert not (there / "raw" / str(gone)[:2] / str(gone)).exists()
    assert bring_back(platform, there, replace=True).manifest == second.manifest


def _edit(backup_: Path, **values: Any) -> None:
    path = backup_ / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _raw(folder: Path) -> Path:
    return next(folder.glob("raw/??/*"))


DAMAGE: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "dump": (lambda _, one: _flip(one / "database.dump"), "database.dump does not have the bytes"),
    "dump gone": (lambda _, one: (one / "database.dump").unlink(), "database.dump is missing"),
    "sums": (lambda _, one: _flip(one / "SHA256SUMS"), "SHA256SUMS does not have the bytes"),
    "manifest": (lambda _, one: (one / "manifest.json").write_text('{"format": 1'), "manifest.json is damaged"),
    "later format": (lambda _, one: _edit(one, format=2), "manifest.json is damaged, or of another version: format"),
    "raw file": (lambda folder, _: _flip(_raw(folder)), "does not have the bytes"),
    "raw file gone": (lambda folder, _: _raw(folder).unlink(), "is missing"),
    "rows": (
        lambda _, one: _edit(one, rows={"production.measurements": 99}),
        "production.measurements does not have its 99 rows",
    ),
    "server": (lambda _, one: _edit(one, postgres=99), "is of Postgres 99, but the server is Postgres 18"),
    "program": (lambda _, one: _edit(one, pg_dump=99), "psql of Postgres 99 or later are needed"),
}


def test_a_damaged_backup_is_refused_by_name_and_changes_nothing(
    platform: Platform, harness: PipelineHarness, there: Path, subtests: pytest.Subtests
) -> None:
    harness.land(*YESTERDAY)
    harness.run()
    saved = backup(platform, there, nothing)
    harness.land(*TODAY)
    harness.run()
    before, undamaged = contents(harness), there.with_name("undamaged")
    shutil.copytree(there, undamaged)
    for damage, (hurt, sentence) in DAMAGE.items():
        for path in harness.store.folder.glob("??/*"):
            path.unlink()
        hurt(there, there / saved.name)
        with subtests.test(damage), pytest.raises(BackupError, match=sentence):
            bring_back(platform, there, replace=True)
        for sha256, data in before.items():
            harness.store.path(sha256).write_bytes(data)
        with subtests.test(damage, then="nothing is changed"):
            harness.check()
        shutil.rmtree(there)
        shutil.copytree(undamaged, there)


def test_a_backup_of_newer_code_is_refused_and_nothing_is_changed(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    harness.run()
    with platform.engine.begin() as conn:
        conn.execute(insert(migrations).values(number=NEWEST + 1, name="what is not known here"))
    backup(platform, there, nothing)
    with platform.engine.begin() as conn:
        conn.execute(delete(migrations).where(migrations.c.number > NEWEST))
    with pytest.raises(BackupError, match=r"is unchanged: .*made by a newer version of Mini Platform"):
        bring_back(platform, there, replace=True)
    harness.check()


def test_a_platform_with_files_is_replaced_only_if_requested(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    backup(platform, there, nothing)
    with pytest.raises(BackupError, match="use --replace"):
        bring_back(platform, there)
    with platform.engine.connect(), pytest.raises(BackupError, match=r"connected to the database \(mini_platform\)"):
        restore(platform, there, archive.backups(there)[-1], nothing, replace=True)


def test_secrets_are_in_it_only_if_requested_and_other_keys_are_noticed(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    assert platform.keyring  # made now, as by the first personal data
    key = platform.settings.home / "pii.key"
    saved = backup(platform, there, nothing)
    assert not [path for path in there.rglob("*") if path.is_file() and key.read_bytes().strip() in path.read_bytes()]
    assert saved.manifest.secrets == []
    key_bytes = key.read_bytes()
    key.unlink()
    fresh = Platform()  # another process, on another machine: it has no key, or one of its own
    platform.engine.dispose()
    with pytest.raises(BackupError, match="use --other-keys if they are lost"):
        bring_back(fresh, there, replace=True)
    assert bring_back(fresh, there, replace=True, other_keys=True).manifest == saved.manifest

    key.write_bytes(key_bytes)
    assert backup(platform, there, nothing, secrets=True).manifest.secrets == ["pii.key"]
    key.unlink()
    platform.engine.dispose()
    bring_back(Platform(), there, replace=True)
    assert key.read_bytes() == key_bytes
    assert key.stat().st_mode & 0o777 == 0o600
    assert there.stat().st_mode & 0o077 == 0


def test_a_key_that_was_revoked_since_and_sessions_do_not_come_back(
    platform: Platform, harness: PipelineHarness, there: Path
) -> None:
    harness.land(*YESTERDAY)
    with platform.engine.begin() as conn:
        for name in ("kept", "revoked"):
            key = keys.verify(conn, keys.create(conn, name, ["read"], None))
            sessions.begin(conn, platform.settings, key, secure=False)
    backup(platform, there, nothing)
    with platform.engine.begin() as conn:
        conn.execute(update(api_keys).where(api_keys.c.name == "revoked").values(revoked_at=func.now()))
    bring_back(platform, there, replace=True)
    with platform.engine.connect() as conn:
        valid = select(api_keys.c.name).where(api_keys.c.revoked_at.is_(None))
        assert conn.execute(valid).scalars().all() == ["kept"]
        assert not sessions.listed(conn), "one may have been ended since"


def test_the_audit_trail_goes_on(platform: Platform, harness: PipelineHarness, there: Path) -> None:
    """The actions since the backup stay in the trail, though their effects are undone."""
    harness.land(*YESTERDAY)
    with platform.engine.begin() as conn:
        keys.create(conn, "before", ["read"], None)
    name = backup(platform, there, nothing).name
    with platform.engine.begin() as conn:
        keys.create(conn, "since", ["read"], None)
    with platform.engine.connect() as conn:
        trail = select(audit.c.actor, audit.c.action, audit.c.subject).order_by(audit.c.at, audit.c.audit_id)
        before = conn.execute(trail).all()
    assert [action for _, action, _ in before][-2:] == ["created a key", "created a key"]
    bring_back(platform, there, replace=True)
    with platform.engine.connect() as conn:
        *same, last = conn.execute(trail).all()
    assert same == before
    assert last[1:] == ("restored", name)


def test_raw_files_stay_while_a_backup_copies_them(
    platform: Platform, harness: PipelineHarness, engine: Engine
) -> None:
    from mini_platform.warehouse.locks import shared_lock

    harness.land(*YESTERDAY)
    with engine.begin() as conn:
        sha256 = conn.scalar(select(files.c.sha256).limit(1))
        conn.execute(files.update().where(files.c.sha256 == sha256).values(raw_dropped_at=func.now()))
        retention.to_drop(conn, [str(sha256)])
    with shared_lock(engine, retention.PENDING_DELETES), shared_lock(engine, retention.PENDING_DELETES):
        assert retention.sweep(engine, harness.store, wait=False) == 0
        assert harness.store.path(str(sha256)).exists()
    assert retention.sweep(engine, harness.store, wait=False) == 1
    assert not harness.store.path(str(sha256)).exists()


def test_the_commands(platform: Platform, harness: PipelineHarness, there: Path) -> None:
    harness.land(*YESTERDAY)
    harness.run()
    assert "There is no backup in" in cli("restore", there).stderr
    result = cli("backup", there, "--keep", "3", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["raw files"] == 3
    sums = there / archive.backups(there)[0] / "SHA256SUMS"
    assert len(sums.read_text().splitlines()) == 4
    platform.engine.dispose()
    refused = cli("restore", there)
    assert (refused.returncode, "use --replace" in refused.stderr) == (1, True)
    platform.engine.dispose()
    back = cli("restore", there, "--replace", "--json")
    assert back.returncode == 0, back.stderr
    create_all(platform.engine, all_datasets().values())
    harness.check()
    _raw(harness.store.folder.parent).unlink()
    holey = here("backup", there)
    assert holey.exit_code == 0  # it is in the folder already
    lone = here("backup", there.with_name("elsewhere"))
    assert (lone.exit_code, "1 raw files are missing or damaged" in lone.stderr) == (1, True)
