"""A server that asks everybody for a password, and on it a platform with all roles, made by the commands that people type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url, select

from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse import embedded
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.command import cli, here, objects
from mini_platform_tests.support.databases import FAST, load_files, set_environment
from mini_platform_tests.support.roles import GROUPS, PATIENCE, SAMPLES, RolesPlatform, Server, parts_of
from mini_platform_tests.support.sample_files import SAMPLE_FILES

BY_COMMAND = "weather"
"""The dataset whose sample is loaded by a run of Dagster."""
ADMIN_PASSWORD = "an administrator, and no superuser"


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: roles belong to servers, and those of the other tests have none but the readers."""
    home = tmp_path_factory.mktemp("guarded")
    server = Server(embedded.ensure_running(home, FAST | {"log_statement": "all"}), home)
    conn = psycopg2.connect(**parts_of(make_url(server.superuser)))
    with conn, conn.cursor() as cursor:
        cursor.execute("SHOW hba_file")
        hba = Path(cursor.fetchone()[0])
    conn.close()
    hba.write_text(f"local all {make_url(server.superuser).username} trust\nlocal all all scram-sha-256\n")
    server.execute("SELECT pg_reload_conf()")
    server.execute(f"CREATE ROLE admin LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}'")
    yield server
    embedded.stop(home)


@pytest.fixture(scope="session")
def roles(guarded: Server, tmp_path_factory: pytest.TempPathFactory) -> RolesPlatform:
    """Made by `db init` and `db login` as an administrator who is no superuser but owns the database."""
    folder = tmp_path_factory.mktemp("roles")
    guarded.execute("CREATE DATABASE separated OWNER admin")
    admin = guarded.url("admin", ADMIN_PASSWORD, "separated")
    passwords, output = {}, ""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, admin, folder)
        init = cli("db", "init", timeout=PATIENCE)
        assert init.returncode == 0, init.stderr
        for group in GROUPS:
            options: list[str] = []
            if group == "bi":
                path = folder / "password"
                path.write_text("chosen by an operator\n")
                options = ["--password-file", str(path)]
            login = here("db", "login", f"the_{group}", "--role", group, *options)
            assert login.exit_code == 0, login.stderr
            passwords[group] = login.stdout.strip() or "chosen by an operator"
            output += login.stderr
    urls = {group: guarded.url(f"the_{group}", passwords[group], "separated") for group in GROUPS} | {"admin": admin}
    return RolesPlatform(guarded, urls, passwords, folder, output)


@pytest.fixture
def as_loader(roles: RolesPlatform, monkeypatch: pytest.MonkeyPatch) -> RolesPlatform:
    """The environment of a platform that runs as the loader."""
    set_environment(monkeypatch, roles.urls["loader"], roles.folder)
    assert "DATABASE_URL" in os.environ
    return roles


@pytest.fixture(scope="session")
def loaded_samples(roles: RolesPlatform) -> None:
    """Every sample, loaded as the loader: one by the command as a run of Dagster, the others by what such a run calls."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, roles.urls["loader"], roles.folder)
        paths = {name: SAMPLE_FILES / name / file for name, file in SAMPLES.items()}
        result = cli("load", BY_COMMAND, paths[BY_COMMAND], "--json", timeout=PATIENCE)
        assert result.returncode == 0, result.stderr
        assert objects(result.stdout)[0]["status"] == "loaded"
        platform = Platform()
        for name in paths.keys() - {BY_COMMAND}:
            assert len(load_files(platform, all_datasets()[name], paths[name])) == 1
        with platform.engine.connect() as conn:
            assert set(conn.scalars(select(files.c.status))) == {"loaded"}
        platform.engine.dispose()
