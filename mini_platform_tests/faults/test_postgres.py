"""`kill -9` of Postgres, of all of it or of one backend, while rows are copied, upserted, committed; or it is away."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from mini_platform.datasets import all_datasets
from mini_platform.warehouse import connection, embedded
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import LEASE_SECONDS, CrashHarness
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

SYNCHRONOUS = {"wal_level": "replica", "max_wal_senders": "2"}
"""With these, a commit can be made to wait, after it has become durable, for a replica that does not exist."""
SLOW_COMMIT = """
CREATE FUNCTION watch.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON ops.files DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.status = 'loaded') EXECUTE FUNCTION watch.wait();
"""

Strike = Callable[[CrashHarness, int], None]


def kill_server(harness: CrashHarness, _backend: int) -> None:
    """The postmaster; its backends die of it, or are killed by the next start."""
    server = embedded.pid(harness.home)
    assert server
    os.kill(server, signal.SIGKILL)
    while embedded.pid(harness.home) == server:
        time.sleep(0.005)


def kill_backend(_harness: CrashHarness, backend: int) -> None:
    """One backend; the server throws all others out and recovers as after a crash."""
    os.kill(backend, signal.SIGKILL)


def end_backend(harness: CrashHarness, backend: int) -> None:
    """One connection is ended, as an administrator or a failing network would."""
    with cursor(harness) as db_cursor:
        db_cursor.execute("SELECT pg_terminate_backend(%s)", [backend])


STRIKES = {
    "kill -9 of the Postgres server": kill_server,
    "kill -9 of a Postgres backend": kill_backend,
    "connection to Postgres ended": end_backend,
}
strikes = pytest.mark.parametrize("strike", STRIKES)


@contextlib.contextmanager
def cursor(harness: CrashHarness) -> Iterator[psycopg2.extensions.cursor]:
    """On a connection of the test's own, wherever the server has its socket."""
    conn = psycopg2.connect(
        dbname=embedded.DATABASE, user=embedded.USER, host=harness.engine.url.query["host"], port=embedded.PORT
    )
    conn.autocommit = True
    try:
        with conn.cursor() as db_cursor:
            yield db_cursor
    finally:
        conn.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster with every table, to be copied."""
    home = tmp_path_factory.mktemp("cluster")
    engine = connection.engine(embedded.ensure_running(home))
    create_all(engine, all_datasets().values())
    engine.dispose()
    embedded.stop(home)
    return home


@pytest.fixture
def own(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CrashHarness]:
    """A harness whose server is the embedded one of its own home: workers start it if it does not run."""
    home, data = tmp_path / "home", tmp_path / "data"
    shutil.copytree(cluster / "postgres" / "data", home / "postgres" / "data")
    (data / "weather").mkdir(parents=True)
    settings = {
        "MINI_PLATFORM_HOME": str(home),
        "MINI_PLATFORM_DATA": str(data),
        "MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS),
        "MINI_PLATFORM_BATCH_FILES": "2",
    }
    monkeypatch.delenv("DATABASE_URL", raising=False)
    engine = connection.engine(embedded.ensure_running(home, SYNCHRONOUS))
    crash_harness = CrashHarness(engine, home, data, settings)
    crash_harness.watch()
    yield crash_harness
    crash_harness.close()
    engine.dispose()
    embedded.stop(home)


def backend(harness: CrashHarness, condition: str, seconds: float = 30) -> int:
    """Process id of the worker's backend as soon as this is true of it."""
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mini_platform'"
    query = f"{ours} AND {condition}"
    end = time.monotonic() + seconds
    with cursor(harness) as db_cursor:
        while time.monotonic() < end:
            db_cursor.execute(query)
            if row := db_cursor.fetchone():
                return int(row[0])
    raise AssertionError(f"no backend was ever seen with {condition}")


def recovers(harness: CrashHarness, strike: str) -> None:
    """The victim got an error, whose work another worker does; the server is started by whoever needs it."""
    victim = harness.workers[-1]
    assert victim.wait() == 1, victim.output
    if STRIKES[strike] is not kill_server:
        harness.when_up()
    harness.finish()
    assert harness.wrong() == []


def copying(harness: CrashHarness, strike: str) -> None:
    harness.drop(waves.first("copy", big=True))
    harness.start()
    STRIKES[strike](harness, backend(harness, "state = 'active' AND query LIKE 'COPY \"staging\"%'"))


@strikes
def test_copying(strike: str, own: CrashHarness, fault: Survives) -> None:
    fault(f"{strike} while rows are copied")
    copying(own, strike)
    recovers(own, strike)


@strikes
def test_upserting(strike: str, own: CrashHarness, fault: Survives) -> None:
    """The rows of production are locked by somebody else, so that the upsert stands still in its middle."""
    fault(f"{strike} in the middle of an upsert")
    own.drop(waves.first("upsert"))
    own.finish()
    own.drop(waves.second("upsert"))
    with own.engine.connect() as other:
        other.execute(text("SELECT FROM production.measurements FOR UPDATE")).all()
        own.start()
        waits = "wait_event_type = 'Lock' AND query ~ '(INSERT INTO|UPDATE|MERGE INTO) production.measurements'"
        STRIKES[strike](own, backend(own, waits))
        with contextlib.suppress(Exception):
            other.rollback()
        other.invalidate()
    recovers(own, strike)


@strikes
def test_committing(strike: str, own: CrashHarness, fault: Survives) -> None:
    """A deferred trigger makes the commit of a load last, so that it is struck before it is durable."""
    fault(f"{strike} before a commit is durable")
    with own.engine.begin() as conn:
        conn.execute(text(SLOW_COMMIT))
    own.drop(waves.first("commit", big=True))
    victim = own.start()
    STRIKES[strike](own, backend(own, "state = 'active' AND wait_event = 'PgSleep' AND query = 'COMMIT'"))
    assert victim.wait() == 1, victim.output
    embedded.ensure_running(own.home)
    own.when_up("DROP TRIGGER slow ON ops.files")
    with own.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM production.measurements")) == 0
    recovers(own, strike)


@strikes
def test_committed_without_an_answer(strike: str, own: CrashHarness, fault: Survives) -> None:
    """The commit of a load is durable, and its answer never arrives: nobody may load the files again."""
    fault(f"{strike} between a commit and its answer")
    own.drop(waves.first("answer", big=True))
    victim = own.start("load.before_commit:1:stop")
    victim.wait_until_frozen()
    with (own.home / "postgres" / "data" / embedded.CONFIGURATION_FILE).open("a") as file:
        file.write("synchronous_standby_names = 'nobody'\n")
    with cursor(own) as db_cursor:
        db_cursor.execute("SET synchronous_commit = local; SELECT pg_reload_conf()")
    time.sleep(0.2)
    victim.send(signal.SIGCONT)
    waiting = backend(own, "wait_event = 'SyncRep' AND xact_start < now() - interval '0.1 s'")
    if strike == "connection to Postgres ended":
        own.engine.dispose()
    STRIKES[strike](own, waiting)
    if STRIKES[strike] is not kill_server:
        conf = own.home / "postgres" / "data" / embedded.CONFIGURATION_FILE
        conf.write_text(conf.read_text().replace("synchronous_standby_names = 'nobody'\n", ""))
        server = embedded.pid(own.home)
        assert server
        os.kill(server, signal.SIGHUP)
    victim.wait()
    embedded.ensure_running(own.home)
    own.when_up()
    with own.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM ops.files WHERE status = 'loaded'")), "it was not durable yet"
    own.finish()
    assert own.wrong() == []


def test_staged_rows_are_lost_with_the_server(own: CrashHarness, fault: Survives) -> None:
    fault("staged rows emptied by a crash of Postgres")
    own.drop(waves.first("unlogged"))
    own.kill_at("stage.after_commit:3")
    with own.engine.connect() as conn:
        staged = conn.scalar(text("SELECT count(*) FROM ops.files WHERE status = 'staged' AND rows_read > 0"))
        assert staged
    kill_server(own, 0)
    embedded.ensure_running(own.home)
    with own.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM staging.measurements")) == 0
    own.finish()
    assert own.wrong() == []
    with own.engine.connect() as conn:
        again = conn.scalar(text("SELECT count(*) FROM watch.moves WHERE old = 'staged' AND new = 'landed'"))
    assert again == staged


def test_server_that_is_away(own: CrashHarness, fault: Survives) -> None:
    fault("Postgres is away at the start and comes back")
    url = embedded.ensure_running(own.home)
    own.drop(waves.first("away"))
    embedded.stop(own.home)
    victim = own.start(DATABASE_URL=url)
    assert victim.wait() == 1
    assert "DatabaseAwayError" in victim.output
    assert "cannot be reached" in victim.output.splitlines()[-1]
    embedded.ensure_running(own.home)
    after = own.start(DATABASE_URL=url)
    assert after.wait() == 0, after.output
    assert own.wrong() == []


def test_embedded_server_is_started_by_who_needs_it(own: CrashHarness, fault: Survives) -> None:
    fault("the embedded Postgres does not run")
    own.drop(waves.first("stopped"))
    embedded.stop(own.home)
    own.finish()
    assert own.wrong() == []
