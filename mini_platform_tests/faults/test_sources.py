"""The file in the drop folder changes while it is read. What is landed are bytes that stood there, at last the final ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from mini_platform.landing import folder
from mini_platform.storage.names import SETTLE_SECONDS
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import PATIENT, CrashHarness
from mini_platform_tests.support.processes import AS_A_USER
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

SETTLED = SETTLE_SECONDS + 0.2
MORE = b"S9,2024-02-01,1.5,2\n"


def truncate(path: Path) -> bytes:
    os.truncate(path, path.stat().st_size // 2 + 7)
    return path.read_bytes()


def append(path: Path) -> bytes:
    with path.open("ab") as file:
        file.write(MORE)
    return path.read_bytes()


def overwrite(path: Path) -> bytes:
    """In place and at one blow, with as many bytes as before."""
    old = path.read_bytes()
    new = old[: len(old) // 3].replace(b"S1", b"S7") + old[len(old) // 3 :].replace(b"S2", b"S8")
    with path.open("r+b", buffering=0) as file:
        file.write(new)
    return path.read_bytes()


def replace(path: Path) -> bytes:
    new = path.with_name(".new")
    new.write_bytes(waves.file("replaced"))
    new.rename(path)
    return path.read_bytes()


def delete(path: Path) -> None:
    path.unlink()


CHANGES: dict[str, Callable[[Path], bytes | None]] = {
    "truncated": truncate,
    "appended to": append,
    "overwritten": overwrite,
    "replaced": replace,
    "deleted": delete,
}


@pytest.mark.parametrize("change", CHANGES)
def test_while_it_is_read(change: str, harness: CrashHarness, fault: Survives) -> None:
    """The reader stands still in the middle of the copy; the file is changed before it and behind it."""
    fault(f"source file {change} while it is read")
    harness.drop({"big.csv": waves.padded(change)})
    reader = harness.start("land.copying:3:stop", **PATIENT)
    reader.wait_until_frozen()
    (arriving,) = (harness.home / "raw").glob(".arriving-*")
    new = CHANGES[change](harness.inbox / "big.csv")
    if new is not None:
        harness.record(new)
    assert 0 < arriving.stat().st_size < len(waves.padded(change))
    reader.send(signal.SIGCONT)
    assert reader.wait() == 0, reader.output
    time.sleep(SETTLED)
    harness.finish()
    assert harness.wrong() == []


def test_while_it_grows(harness: CrashHarness, fault: Survives) -> None:
    """Written in pieces, with pauses that are shorter than a file must stand still: only the whole of it is landed."""
    fault("source file looked at while it is written")
    whole = harness.record(waves.file("growing", rows=60))
    pieces = [whole[start : start + len(whole) // 10 + 1] for start in range(0, len(whole), len(whole) // 10 + 1)]
    path = harness.inbox / "growing.csv"
    for piece in pieces:
        with path.open("ab") as file:
            file.write(piece)
        begin = time.monotonic()
        harness.finish()
        time.sleep(max(0, SETTLE_SECONDS / 2 - (time.monotonic() - begin)))
    time.sleep(SETTLED)
    harness.finish()
    assert harness.wrong() == []


def test_that_may_not_be_read(harness: CrashHarness, fault: Survives) -> None:
    fault("source file that may not be read")
    harness.drop(waves.first("closed"))
    (harness.inbox / "b.csv").chmod(0)
    result = subprocess.run(
        [*AS_A_USER, sys.executable, "-m", "mini_platform_tests.support.worker"],
        cwd=PROJECT, env=os.environ | harness.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with harness.engine.connect() as conn:
        names = set(conn.execute(text("SELECT name FROM ops.files WHERE status IN ('loaded', 'refused')")).scalars())
    assert names == set(waves.first("closed")) - {"b.csv"}
    (harness.inbox / "b.csv").chmod(0o600)
    harness.finish()
    assert harness.wrong() == []


def test_between_the_look_and_the_reading(harness: CrashHarness, platform: object, fault: Survives) -> None:
    """It was written to once more: perhaps not for the last time, so it must stand still first."""
    fault("source file changed between the look and the reading")
    harness.drop({"a.csv": waves.file("looked at")})
    files = folder.look(harness.inbox, harness.dataset)
    assert [file.skip_reason for file in files] == [None]
    harness.record(append(harness.inbox / "a.csv"))
    assert [row for _, row in folder.land(harness.engine, harness.dataset, harness.store, files)] == [None]
    time.sleep(SETTLED)
    harness.finish()
    assert harness.wrong() == []
    with harness.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM ops.files")) == 1
