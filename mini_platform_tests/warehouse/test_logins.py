"""Reading runs on logins that are members of one reader role only: what a statement may try, and what is read back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from mini_platform.operations.doctor import examine
from mini_platform.platform import Platform
from mini_platform.warehouse import connection
from mini_platform.warehouse.logins import ReadingRefusedError
from mini_platform.warehouse.roles import PERSONAL, READER
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import copied, execute, open_platform, set_environment, url_of
from mini_platform_tests.support.web import serving

CANARY = "canary@example.org"
FILL = """
INSERT INTO ops.pages (dataset, source, request, sync, page, sha256, rows_sha256, rows)
VALUES ('customers', 'api', 'canary@example.org', 1, 1, '', '', 0)
"""
READ = "(SELECT string_agg(word, ' ') FROM ts_stat('SELECT to_tsvector(''simple'', request) FROM ops.pages'))"
"""Executes the text of a statement, as `query_to_xml` does, which the embedded server lacks."""
AS = "SELECT {} FROM (SELECT set_config('{}', '{}', {}) OFFSET 0) AS changed"
ATTACKS = {
    "without more": f"SELECT {READ}",
    "as the owner": AS.format(READ, "role", "{owner}", "false"),
    "as the owner's session": AS.format(READ, "session_authorization", "{owner}", "true"),
    "as no role": AS.format(READ, "role", "none", "true"),
    "as the other role": AS.format(READ, "role", "{other}", "true"),
    "as a role of the server": AS.format(READ, "role", "pg_read_all_data", "true"),
    "by XML": AS.format("query_to_xml('TABLE ops.pages', true, true, '')::text", "role", "{owner}", "true"),
    "by statements": f"COMMIT; RESET ROLE; RESET SESSION AUTHORIZATION; SELECT {READ}",
    "from a file": "SELECT pg_read_file('PG_VERSION')",
    "by a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "by writing": "COMMIT; BEGIN READ WRITE; DELETE FROM ops.pages",
    "by granting": "COMMIT; BEGIN READ WRITE; GRANT {owner} TO CURRENT_USER",
}
CHANGES = {
    "time limit": "COMMIT; SET statement_timeout = 0",
    "writing": "COMMIT; SET default_transaction_read_only = off",
    "role": f"COMMIT; SET ROLE {READER}",
}
"""Changes that a statement can make in its own session, for the next one."""
ONLY = f"is not a member of {READER} only"
LOGINS = {
    "of a superuser": ("LOGIN SUPERUSER", "is a superuser's"),
    "of two roles": (f"LOGIN IN ROLE {READER}, {PERSONAL}", ONLY),
    "of another role": (f"LOGIN IN ROLE {PERSONAL}", ONLY),
    "that bypasses row security": (f"LOGIN BYPASSRLS IN ROLE {READER}", ONLY),
    "that may not log in": (f"IN ROLE {READER}", "cannot connect"),
}
"""Logins that somebody may name in MINI_PLATFORM_READER_URL, and why they are refused."""


@pytest.fixture(scope="module")
def site(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_platform(server, template, tmp_path_factory.mktemp("logins")) as platform:
        execute(platform.url, FILL)
        opened = Site(platform)
        yield opened
        opened.close()


@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_statement_reads_nothing_more_and_writes_nothing(site: Site, attack: str, personal: bool) -> None:
    owner = make_url(site.platform.url).username
    statement = ATTACKS[attack].format(owner=owner, other=READER if personal else PERSONAL)
    with site.read(personal=personal) as conn, pytest.raises(DBAPIError, match="permission denied") as caught:
        conn.exec_driver_sql(statement)
    assert CANARY not in str(caught.value)


def test_on_the_login_of_the_owner_the_same_statement_reads_all(site: Site) -> None:
    """The attack is real where the owner's login assumes the role."""
    owner = connection.engine(site.platform.url, session={"role": READER})
    with owner.connect() as conn:
        statement = ATTACKS["as the owner"].format(owner=make_url(site.platform.url).username)
        assert CANARY in str(conn.exec_driver_sql(statement).scalar())
    owner.dispose()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_session_answers_nobody(site: Site, change: str) -> None:
    def changed() -> None:
        with site._reader.connect() as conn:
            conn.exec_driver_sql(CHANGES[change])

    with serving(create_app(site)) as url, httpx.Client(base_url=url) as client:
        changed()
        refused = client.get("/api/datasets/")
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert "Nothing is read" in refused.json()["detail"]
        changed()
        health = client.get("/health")
        assert (health.status_code, health.json()["db_connected"]) == (503, True)
        assert client.get("/api/datasets/").status_code == 200


@pytest.mark.parametrize("change", [*CHANGES.values(), "SELECT set_config('statement_timeout', '0', true)"])
def test_a_statement_that_changes_its_session_is_no_answer(site: Site, change: str) -> None:
    read = site.read()
    with pytest.raises(ReadingRefusedError, match="a statement has changed"), read as conn:
        conn.exec_driver_sql(change)
    with site.read() as conn:
        assert conn.scalar(text("SHOW statement_timeout")) == "10s"


def test_a_connection_that_broke_while_it_was_idle_is_replaced(site: Site) -> None:
    with site.read() as conn:
        pid = conn.scalar(text("SELECT pg_backend_pid()"))
    execute(site.platform.url, f"SELECT pg_terminate_backend({pid}, 10000)")
    with site.read() as conn:
        assert conn.scalar(text("SELECT pg_backend_pid()")) != pid


@pytest.mark.parametrize("login", LOGINS)
def test_a_login_that_may_do_more_answers_nobody(
    home: Path, database_url: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes, reason = LOGINS[login]
    name = f"login_{uuid.uuid4().hex}"
    execute(database_url, f"CREATE ROLE {name} {attributes}")
    monkeypatch.setenv(
        "MINI_PLATFORM_READER_URL", make_url(database_url).set(username=name).render_as_string(hide_password=False)
    )
    site = Site(Platform())
    with pytest.raises(ReadingRefusedError, match=reason), site.read():
        pass
    with site.read(personal=True) as conn:  # On a login of its own.
        assert str(conn.scalar(text("SELECT session_user"))).startswith(PERSONAL)
    (problem,) = [finding for finding in examine() if (finding.check, finding.level) == ("roles", "problem")]
    assert reason in problem.message
    site.close()
    site.platform.engine.dispose()
    execute(database_url, f"DROP ROLE {name}")


def test_each_home_and_each_database_has_logins_of_its_own(
    site: Site, server: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copied(server, template) as other:
        logins = set()
        for url in (site.platform.url, other):
            set_environment(monkeypatch, url, tmp_path / "another")
            logins |= {Platform().access(role).url for role in (READER, PERSONAL) for _ in range(2)}
        assert len(logins) == 4
    assert not {site.platform.access(role).url for role in (READER, PERSONAL)} & logins
    with site.read() as conn:
        assert conn.scalar(text("SHOW statement_timeout")) == f"{site.settings.read_seconds:g}s"
        limits = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = CAST(session_user AS regrole)"
        assert set(conn.execute(text(limits)).scalar_one()) == {
            "default_transaction_read_only=on",
            "statement_timeout=10000",
        }


@pytest.mark.parametrize(
    ("granted", "means"),
    [("", "in read-only transactions"), (READER, f"assuming {READER}, which a statement can undo")],
)
def test_a_user_who_may_create_no_login_reads_itself_and_the_doctor_tells(
    server: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str, means: str
) -> None:
    name = f"managed_{uuid.uuid4().hex}"
    execute(server, f"CREATE ROLE {name} LOGIN {f'IN ROLE {granted}' if granted else ''}")
    execute(server, f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0 STRATEGY FILE_COPY")
    url = make_url(url_of(server, name)).set(username=name).render_as_string(hide_password=False)
    set_environment(monkeypatch, url, tmp_path)
    site = Site(Platform({}))
    with site.read() as conn:
        assert conn.scalar(text("SELECT current_user")) == (granted or name)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            conn.exec_driver_sql("CREATE TABLE public.x (i int)")
    first, _ = [finding.message for finding in examine() if (finding.check, finding.level) == ("roles", "warning")]
    assert first == f"the API reads on the login of the platform, {name}, {means}"
    site.close()
    site.platform.engine.dispose()
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")
    execute(server, f"DROP ROLE {name}")
