"""The platform over TLS, on a real Postgres that takes nothing else; and what is said where TLS keeps it out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from mini_platform.operations import archive
from mini_platform.operations.doctor import CheckResult, examine
from mini_platform.platform import Platform
from mini_platform.warehouse.connection import DatabaseAwayError, engine
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.command import cli, objects
from mini_platform_tests.support.databases import set_environment
from mini_platform_tests.support.tls_postgres import NAME, TlsPostgres, programs, running
from mini_platform_tests.support.web import serving

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def postgres() -> Iterator[TlsPostgres]:
    programs()
    # Its name is short, as a socket is in it.
    with tempfile.TemporaryDirectory(prefix="tls") as folder, running(Path(folder)) as server:
        yield server


@pytest.fixture
def environment(postgres: TlsPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_environment(monkeypatch, postgres.url(), tmp_path)
    monkeypatch.setenv("PATH", f"{programs()}:/usr/bin:/bin")
    return tmp_path


def encryption() -> list[CheckResult]:
    """Return what the doctor reports on the connection to the database."""
    return [finding for finding in examine() if finding.check == "encryption" and "database" in finding.message]


@pytest.mark.timeout(900)
def test_the_whole_platform_goes_over_verified_connections(environment: Path, postgres: TlsPostgres) -> None:
    (environment / "a.csv").write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\nOSL,2026-01-02,warm,0\n")
    loaded = cli("load", "weather", environment / "a.csv", timeout=400)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    platform = Platform()
    with platform.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM dagster.runs WHERE status = 'SUCCESS'")) == 1
    site = Site(platform)
    with serving(create_app(site)) as url:
        assert httpx.get(f"{url}/api/datasets/weather/analytics/summary/", timeout=60).json()["results"]
    used = postgres.execute(
        "SELECT array_agg(DISTINCT concat_ws(' ', application_name, ssl, version)) FROM pg_stat_ssl "
        "JOIN pg_stat_activity USING (pid) WHERE usename ~ 'platform'"
    )
    assert sorted(used) == ["mini_platform t TLSv1.3", "mini_platform_api t TLSv1.3"]
    site.close()
    platform.engine.dispose()
    for command in (
        ("backup", environment / "b"),
        ("restore", environment / "b", "--replace"),
        ("psql", "-c", "SELECT 1"),
    ):
        result = cli(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    assert [row["rows_rejected"] for row in objects(cli("files", "--json").stdout)] == [1]
    assert [(f.level, f"verified to be {NAME}" in f.message) for f in encryption()] == [("ok", True)]


@pytest.mark.parametrize(
    ("words", "presented", "expected", "do"),
    [
        ({"sslrootcert": "other_ca.pem"}, {}, "certificate verify failed (self-signed", "sslrootcert"),
        ({"sslrootcert": "nowhere.pem"}, {}, "nowhere.pem\" does not exist", "sslrootcert"),
        ({"host": "db.example.org"}, {}, f'certificate for "{NAME}" does not match', "Name the server"),
        ({}, {"certificate": "expired"}, "(certificate has expired)", "Renew"),
        ({}, {"ssl": "off"}, "server does not support SSL", "Turn `ssl` on"),
        ({"sslmode": "disable"}, {}, "no encryption", "verify-full"),
        ({"user": "certified"}, {}, "requires a valid client certificate", "sslcert and sslkey"),
        ({"user": "platform:wrong"}, {}, "password authentication failed", "Check that"),
        ({"user": "nobody", "sslmode": "prefer"}, {"ssl": "off"}, "no encryption", "verify-full"),
    ],
)  # fmt: skip
def test_what_keeps_it_out_is_a_sentence(
    environment: Path, postgres: TlsPostgres, words: dict[str, str], presented: dict[str, str], expected: str, do: str
) -> None:
    if "sslrootcert" in words:
        words = {"sslrootcert": str(postgres.folder / words["sslrootcert"])}
    db_engine = engine(postgres.url(**words).replace("postgresql:", "postgresql+psycopg2:"))
    with postgres.presenting(**presented) if presented else nullcontext(), pytest.raises(DatabaseAwayError) as error:
        db_engine.connect()
    message = str(error.value)
    assert expected in message
    assert do in message.partition(expected)[2]
    assert "\n" not in message
    assert "secret" not in message


def test_commands_say_it_too(environment: Path, postgres: TlsPostgres) -> None:
    url = postgres.url(sslrootcert=postgres.folder / "other_ca.pem")
    for command in ("files", "doctor", "backup"):
        result = cli(command, *([environment / "b"] if command == "backup" else []), DATABASE_URL=url)
        assert result.returncode == 1
        assert "certificate verify failed (self-signed" in " ".join((result.stdout + result.stderr).split())
        assert "secret" not in result.stdout + result.stderr


def test_client_certificates(environment: Path, postgres: TlsPostgres) -> None:
    theirs = {"sslcert": postgres.folder / "client.pem", "sslkey": postgres.folder / "client.pem"}
    db_engine = engine(postgres.url("certified", **theirs).replace("postgresql:", "postgresql+psycopg2:"))
    with db_engine.connect() as conn:
        assert conn.scalar(text("SELECT current_user")) == "certified"
    db_engine.dispose()
    (postgres.folder / "client.pem").chmod(0o644)
    with pytest.raises(DatabaseAwayError, match=r"client\.pem.*chmod 600"):
        db_engine.connect()
    (postgres.folder / "client.pem").chmod(0o600)


@pytest.mark.parametrize(
    ("words", "level", "expected"),
    [
        ({"sslmode": "verify-ca"}, "warning", "encrypted (TLSv1.3), and it is not verified that db.example.com"),
        ({"sslmode": "prefer"}, "warning", "encrypted (TLSv1.3), and it is not verified"),
        ({"user": "in_clear", "sslmode": "disable"}, "warning", "is not encrypted, and it is not verified"),
        ({"user": "in_clear", "sslmode": "disable", "host": "localhost"}, "ok", "not encrypted, and does not leave"),
    ],
)
def test_the_doctor_tells_what_is_verified(
    environment: Path,
    postgres: TlsPostgres,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, str],
    level: str,
    expected: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url(**words))
    assert [(finding.level, expected in finding.message) for finding in encryption()] == [(level, True)]


def test_dumps_are_not_tried_by_programs_without_tls(
    environment: Path, postgres: TlsPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    db_engine = engine(postgres.url().replace("postgresql:", "postgresql+psycopg2:"))
    with db_engine.connect() as conn:
        assert archive.programs(conn, 14)[0] == programs()
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(archive.BackupError, match="do not support TLS"):
            archive.programs(conn, 14)
    db_engine.dispose()
