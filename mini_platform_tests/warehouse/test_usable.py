"""A database that the platform cannot use is a sentence before anything is written, for whatever opens it, and the doctor."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, make_url, text

from mini_platform.config.settings import load_settings
from mini_platform.dagster.storage import PlatformStorage
from mini_platform.operations.doctor import examine
from mini_platform.platform import Platform
from mini_platform.warehouse import usable
from mini_platform.warehouse.connection import DatabaseAwayError, engine
from mini_platform.warehouse.roles import READER
from mini_platform.warehouse.usable import UnusableDatabaseError, require_usable
from mini_platform.web.app import _refusal
from mini_platform.web.site import Site
from mini_platform_tests.support.command import here
from mini_platform_tests.support.databases import execute, set_environment, url_of
from mini_platform_tests.support.pgbouncer import pooled

WEAK = "weak_user"
RELATIONS = """
SELECT concat_ws('.', nspname, relname) FROM pg_namespace n LEFT JOIN pg_class c ON relnamespace = n.oid AND relkind <> 'i'
WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1
"""
KINDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "encoding": (
        f"OWNER {WEAK} ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'",
        (),
        r"Its encoding is SQL_ASCII, which cannot hold every text\. Make another one.* ENCODING 'UTF8'",
    ),
    "read-only": (
        f"OWNER {WEAK}",
        ("ALTER DATABASE {name} SET default_transaction_read_only = on",),
        r"It is read-only by default_transaction_read_only\. Reset it",
    ),
    "connections of the user": (
        f"OWNER {WEAK}",
        (f"ALTER ROLE {WEAK} CONNECTION LIMIT 9",),
        f"It allows {WEAK} 9 connections, and the platform needs 24. Raise the limit of the user",
    ),
    "connections of the database": (
        f"OWNER {WEAK}",
        ("ALTER DATABASE {name} CONNECTION LIMIT 9",),
        "9 connections, .* Raise the limit of the database",
    ),
    "not owner": (
        "",
        (),
        f"The user {WEAK} may not create schemas, and ops, .*, dagster are missing. As its owner: GRANT CREATE ON DATABASE",
    ),
    "schema of another user": (
        f"OWNER {WEAK}",
        ("CREATE SCHEMA production",),
        f"The user {WEAK} has no rights in the schema production of postgres",
    ),
    "schema of another program": (
        f"OWNER {WEAK}",
        (f"CREATE SCHEMA ops AUTHORIZATION {WEAK}", "CREATE TABLE ops.jobs (id int)"),
        "Its schema ops is another program's, and has the table jobs. Use another database",
    ),
}
"""Kind of database -> how it is created, what is changed in it, and the sentence. Its user is no superuser."""


@pytest.fixture
def wrong(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database of a kind."""
    created, changes, _ = KINDS[request.param]
    name = f"wrong_{uuid.uuid4().hex}"
    execute(server, f"DO $$ BEGIN CREATE ROLE {WEAK} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    execute(server, f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY FILE_COPY {created}")
    for change in changes:
        execute(url_of(server, name), change.format(name=name))
    yield make_url(server).set(database=name, username=WEAK).render_as_string(hide_password=False)
    execute(server, f"ALTER ROLE {WEAK} CONNECTION LIMIT -1")
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def relations(url: str) -> list[str]:
    with engine(url).connect() as conn:
        return list(conn.execute(text(RELATIONS)).scalars())


@pytest.mark.parametrize(
    ("wrong", "sentence"), [(kind, KINDS[kind][2]) for kind in KINDS], indirect=["wrong"], ids=KINDS
)
def test_a_wrong_database(wrong: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, wrong, tmp_path)
    before = relations(wrong)
    with pytest.raises(UnusableDatabaseError, match=sentence) as caught:
        Platform().engine  # noqa: B018 - opened
    with pytest.raises(UnusableDatabaseError, match=sentence):
        PlatformStorage.from_config_value(None, {})
    assert _refusal(Site(Platform())) == str(caught.value)
    for command in (("files",), ("db", "init")):
        result = here(*command)
        assert (result.exit_code, result.stderr.strip()) == (1, str(caught.value))
    assert relations(wrong) == before
    (finding,) = [finding for finding in examine() if (finding.check, finding.level) == ("database", "problem")]
    assert f"{finding.message}. {finding.advice}".lower() in str(caught.value).lower()


def test_a_server_that_is_too_old(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable, "LEAST_POSTGRES", 99)
    with pytest.raises(
        UnusableDatabaseError, match=r"The server is Postgres \d\d. Use 99 or later; up to 18 was tried."
    ):
        require_usable(engine(database_url))


def test_a_database_with_tables_costs_one_query(database_url: str) -> None:
    db_engine = engine(database_url)
    statements: list[str] = []
    event.listen(db_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    require_usable(db_engine)
    assert len(statements) == 1


@pytest.mark.faults
@pytest.mark.parametrize("size", [1, 2, 20])
def test_a_pooler_by_transaction(database_url: str, size: int) -> None:
    with (
        pooled(database_url, "transaction", size) as url,
        pytest.raises(
            UnusableDatabaseError, match=r"A pooler in between gives sessions another connection .*session mode"
        ),
    ):
        require_usable(engine(url))


@pytest.mark.faults
def test_a_pooler_by_statement(database_url: str) -> None:
    with pooled(database_url, "statement") as url, pytest.raises(DatabaseAwayError, match="in session mode"):
        require_usable(engine(url))


@pytest.mark.faults
@pytest.mark.parametrize("ignored", ["", "options"])
def test_a_pooler_by_session(database_url: str, ignored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles, limits and Dagster's schema are set by statements, as it refuses or ignores start-up options."""
    with pooled(database_url, "session", ignored=ignored) as url:
        set_environment(monkeypatch, url, tmp_path)
        platform = Platform()
        site = Site(platform)
        with site.read() as conn:
            shown = [conn.scalar(text(f"SHOW {name}")) for name in ("role", "transaction_read_only", "TimeZone")]
            assert shown == ["none", "on", "UTC"]
            assert str(conn.scalar(text("SELECT session_user"))).startswith(READER)
            assert conn.scalar(text("SHOW statement_timeout")) == f"{load_settings().read_seconds:.0f}s"
        storage = PlatformStorage.from_config_value(None, {})
        with storage.run_storage.connect() as conn:  # type: ignore[attr-defined]
            assert [conn.scalar(text(f"SHOW {name}")) for name in ("TimeZone", "search_path")] == ["UTC", "dagster"]
        site.close()
        platform.engine.dispose()
