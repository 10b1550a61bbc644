"""A server that asks everybody for a password, and on it a platform with all roles, made by the commands that people type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import URL, make_url

from mini_platform.config.settings import PROJECT
from mini_platform.warehouse import embedded
from mini_platform_tests.cli.test_cli import cli, here, objects
from mini_platform_tests.conftest import FAST, set_environment

GROUPS = ("owner", "loader", "reader", "personal", "bi")
SAMPLES = {
    "weather": "seattle.csv",
    "customers": "customers.csv",
    "signals": "signals.jsonl",
    "records": "records.csv",
    "sales": "shop.csv",
}
PATIENCE = 600.0
"""Seconds that a command may take on a machine that others keep busy."""
ADMIN_PASSWORD = "an administrator, and no superuser"


@dataclass(frozen=True)
class Server:
    """A server, its superuser and where its log is."""

    superuser: str
    home: Path

    def execute(self, statement: str, database: str = "mini_platform") -> None:
        conn = psycopg2.connect(**_parts(make_url(self.superuser).set(database=database)))
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute(statement)
        conn.close()

    def url(self, user: str, password: str, database: str) -> str:
        url = make_url(self.superuser).set(username=user, password=password, database=database)
        return url.render_as_string(hide_password=False)


def _parts(url: URL) -> dict[str, str]:
    return {"dbname": str(url.database), "user": str(url.username), **{k: str(v) for k, v in url.query.items()}}


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: roles belong to servers, and those of the other tests have none but the readers."""
    home = tmp_path_factory.mktemp("guarded")
    server = Server(embedded.ensure_running(home, FAST | {"log_statement": "all"}), home)
    conn = psycopg2.connect(**_parts(make_url(server.superuser)))
    with conn, conn.cursor() as cursor:
        cursor.execute("SHOW hba_file")
        hba = Path(cursor.fetchone()[0])
    conn.close()
    hba.write_text(f"local all {make_url(server.superuser).username} trust\nlocal all all scram-sha-256\n")
    server.execute("SELECT pg_reload_conf()")
    server.execute(f"CREATE ROLE admin LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}'")
    yield server
    embedded.stop(home)


@dataclass(frozen=True)
class Platform:
    """A database with all roles; the URL of each role's login, and of the administrator's."""

    server: Server
    urls: dict[str, str]
    passwords: dict[str, str]
    folder: Path
    output: str


@pytest.fixture(scope="session")
def roles(guarded: Server, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Made by `db init` and `db login` as an administrator who is no superuser but owns the database."""
    folder = tmp_path_factory.mktemp("roles")
    guarded.execute("CREATE DATABASE separated OWNER admin")
    admin = guarded.url("admin", ADMIN_PASSWORD, "separated")
    passwords, said = {}, ""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, admin, folder)
        made = cli("db", "init", timeout=PATIENCE)
        assert made.returncode == 0, made.stderr
        for group in GROUPS:
            options: list[str] = []
            if group == "bi":
                path = folder / "password"
                path.write_text("chosen by an operator\n")
                options = ["--password-file", str(path)]
            done = here("db", "login", f"the_{group}", "--role", group, *options)
            assert done.exit_code == 0, done.stderr
            passwords[group] = done.stdout.strip() or "chosen by an operator"
            said += done.stderr
    urls = {group: guarded.url(f"the_{group}", passwords[group], "separated") for group in GROUPS} | {"admin": admin}
    return Platform(guarded, urls, passwords, folder, said)


@pytest.fixture
def as_loader(roles: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The environment of a platform that runs as the loader."""
    set_environment(monkeypatch, roles.urls["loader"], roles.folder)
    assert "DATABASE_URL" in os.environ
    return roles


@pytest.fixture(scope="session")
def loaded_samples(roles: Platform) -> None:
    """Every sample, loaded by the command as a run of Dagster."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, roles.urls["loader"], roles.folder)
        for name, file in SAMPLES.items():
            done = cli("load", name, PROJECT / "data" / name / file, "--json", timeout=PATIENCE)
            assert done.returncode == 0, (name, done.stderr)
            assert objects(done.stdout)[0]["status"] == "loaded"
