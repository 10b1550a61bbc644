"""Dagster's own life: everything killed in the middle of a run, files dropped meanwhile, everything started again."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from mini_platform.cli.supervisor.child import marked
from mini_platform.cli.supervisor.state import supervisor_pid
from mini_platform.dagster.private import DAEMON
from mini_platform.warehouse import connection, embedded
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import CrashHarness
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.survivors import Survives

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

MOMENTS = {
    "staging": "staging.measurements",
    "loading": "production.measurements",
    "aggregating": "analytics.daily_metrics",
}
"""What a run does -> a table that it needs for it, and that somebody else has locked, so that it is caught in the act."""
DAY = 24 * 3600
RUN_SECONDS = 120.0


@dataclass
class Life:
    """`mini-platform up` in a home of its own."""

    harness: CrashHarness

    def up(self) -> None:
        inherited = {
            n: v for n, v in os.environ.items() if not n.startswith(("MINI_PLATFORM_", "DAGSTER", "DATABASE_"))
        }
        result = subprocess.run(
            [sys.executable, "-m", "mini_platform.cli", "up", "--detach"],
            cwd=PROJECT, env=inherited | self.harness.environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr

    def supervisor(self) -> psutil.Process:
        return psutil.Process(supervisor_pid(self.harness.home))

    def kill(self, *, supervisor: bool, postgres: bool) -> None:
        """The daemon, the code server, the web server and the run, at one blow; first what would start them again."""
        running = marked(self.harness.home)
        names = []
        for process in running:
            with contextlib.suppress(psutil.Error):  # It has just ended.
                names.append(" ".join(process.cmdline()))
        assert any(DAEMON in name for name in names), names
        assert any("api grpc" in name for name in names), names
        assert sum("forkserver" in name for name in names) >= 2, "a run and the process from which it was forked"
        server = embedded.pid(self.harness.home)
        assert server
        victims = [
            *([self.supervisor()] if supervisor else []),
            *([psutil.Process(server)] if postgres else []),
            *running,
        ]
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=10)
        if supervisor:
            assert not self.supervised(), "nothing of the platform may be alive while files are dropped"

    def supervised(self) -> list[psutil.Process]:
        return [process for process in marked(self.harness.home) if process.status() != psutil.STATUS_ZOMBIE]

    def clear(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.supervisor().kill()
        end = time.monotonic() + 20
        while (left := self.supervised()) and time.monotonic() < end:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.1)
        embedded.stop(self.harness.home)

    def wait_until_caught(self, table: str) -> None:
        """Wait until the run waits for a lock on this table."""
        query = text(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted"
            " AND application_name = 'mini_platform' AND relation = cast(:table AS regclass)"
        )
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            with self.harness.engine.connect() as conn:
                if conn.scalar(query, {"table": table}):
                    return
            time.sleep(0.05)
        raise AssertionError(f"no run ever asked for {table}")

    def wait_until_done(self) -> None:
        """Wait until everything that stands in the folder is loaded and nothing waits."""
        open_ends = text(
            "SELECT (SELECT count(*) FROM ops.files WHERE status IN ('landed', 'staged'))"
            " + (SELECT count(*) FROM ops.dirty_groups)"
        )
        latest = text("SELECT DISTINCT ON (name) name, sha256 FROM ops.files ORDER BY name, file_id DESC")
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            with self.harness.engine.connect() as conn:
                landed = {row.name: row.sha256 for row in conn.execute(latest)}
                if landed == self.harness.standing() and conn.scalar(open_ends) == 0:
                    return
            time.sleep(0.2)
        log = (self.harness.home / "up.log").read_text()
        raise AssertionError(f"not done after {RUN_SECONDS} s: {self.harness.wrong()[:5]}; {log}")


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home, data = tmp_path / "home", tmp_path / "data"
    (data / "weather").mkdir(parents=True)
    settings = {
        "MINI_PLATFORM_HOME": str(home),
        "MINI_PLATFORM_DATA": str(data),
        "MINI_PLATFORM_DAGSTER_PORT": str(port),
        "MINI_PLATFORM_LEASE_SECONDS": "3",
    }
    engine = connection.engine(embedded.ensure_running(home))
    lifecycle = Life(CrashHarness(engine, home, data, settings))
    lifecycle.up()
    lifecycle.harness.watch()
    yield lifecycle
    lifecycle.clear()
    engine.dispose()


def test_everything_is_killed(life: Life, fault: Survives) -> None:
    """At first the supervisor lives and starts the others again; then it dies too, and files are dropped while all is down.

    The last time Postgres is killed with them.
    """
    fault("Dagster's daemon, code server and run killed while it is staging, loading, aggregating")
    harness = life.harness
    harness.drop(waves.first("dagster"))
    life.wait_until_done()
    assert harness.wrong() == []
    for number, (moment, table) in enumerate(MOMENTS.items(), start=1):
        with harness.engine.connect() as other:
            other.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
            harness.drop(waves.second(f"dagster {moment}"))
            life.wait_until_caught(table)
            life.kill(supervisor=number > 1, postgres=number == len(MOMENTS))
            other.invalidate()
        late = {f"{moment}.csv": waves.file(f"late {moment}"), "b.csv": waves.file(f"late b {moment}")}
        harness.drop(late, age=DAY)
        if number > 1:
            life.up()
        life.wait_until_done()
        assert harness.wrong() == [], moment
