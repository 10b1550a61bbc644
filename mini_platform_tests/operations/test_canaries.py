"""Secrets stay where they are: the platform runs with a canary for each of them, and everything that it leaves is searched.

Which settings are secret is read from their types, so a new one is watched by itself. The canaries come from all sources, a
Vault among them; the processes are those of `up`, Postgres asks for a password. Searched: what processes print and log, their
arguments while they run, every table with Dagster's run history, files under the home, backups, HTTP answers, tracebacks.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import psycopg2
import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import make_url

from mini_platform.config.sections import ApiSourceSettings
from mini_platform.config.settings import Settings
from mini_platform.config.vault import VaultSettings
from mini_platform.warehouse import embedded
from mini_platform.warehouse.roles import PERSONAL, READER
from mini_platform_tests.support.api_server import Reply, Request, serving
from mini_platform_tests.support.databases import FAST
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.vault_server import Vault, serving_vault

SMELL = re.compile(
    r"secret|passw|passphrase|token|credential|dsn|apprise|header|webhook|private|(^|_)keys?$|^database_url$"
)
NOT_SECRET = {"access_key"}
"""The name of a key, as a user's name is of a password."""
MEMBERS = {"api_source": "RECORDS_API", "inbox": "WEATHER"}
"""Under which key of a dict of settings its canaries go."""
SHAPES = {
    "DATABASE_URL": "postgresql://loader:{}@/canary",
    "MINI_PLATFORM_READER_URL": "postgresql://reading:{}@/canary",
    "MINI_PLATFORM_PERSONAL_URL": "postgresql://reading_people:{}@/canary",
    "MINI_PLATFORM_HEARTBEAT_URL": "http://127.0.0.1:1/{}",
    "MINI_PLATFORM_PII_KEYS": "k1:{}",
    "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER": "Authorization: Bearer {}",
    "MINI_PLATFORM_ALERTS": "json://user:{}@127.0.0.1:1/",
    "SENTRY_DSN": "https://{}@127.0.0.1:1/1",
}
"""Shapes of the values of secrets that are not just any text."""
READERS = {"MINI_PLATFORM_READER_URL": READER, "MINI_PLATFORM_PERSONAL_URL": PERSONAL}
WEATHER = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\nOSL,2026-01-02,warm,0\n"
PAGES = [
    "/", "/files", "/files/1", "/runs", "/quality", "/weather", "/sales", "/login", "/nothing", "/static/nothing.css",
    "/health", "/metrics", "/stats", "/openapi.json", "/api/docs", "/api/health/", "/api/datasets/", "/api/datasets/weather/",
    "/api/datasets/weather/?limit=x", "/api/nothing", "/data?limit=-1",
]  # fmt: skip
QUERY = """{ instance { info daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message } } } }
  runsOrError { ... on Runs { results { status runConfigYaml tags { key value }
    eventConnection { events { ... on MessageEvent { message } } } } } } }"""


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Variable, name and type of every setting, down to those inside of others."""
    for name, info in model.model_fields.items():
        variable = info.validation_alias if isinstance(info.validation_alias, str) else f"{prefix}{name.upper()}"
        kinds = [info.annotation, *get_args(info.annotation)]
        nested = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if nested:
            member = (
                f"{MEMBERS.get(name, 'CANARY')}__" if dict in (getattr(k, "__origin__", None) for k in kinds) else ""
            )
            yield from fields(nested, f"{variable}__{member}")
        else:
            yield variable, name, info.annotation


ALL = [*fields(Settings, "MINI_PLATFORM_"), *fields(VaultSettings, "VAULT_")]
SECRETS = [variable for variable, _, kind in ALL if SecretStr in (kind, *get_args(kind))]


def test_every_setting_that_smells_like_a_secret_is_one() -> None:
    text = [(variable, name) for variable, name, kind in ALL if str in (kind, *get_args(kind))]
    assert [variable for variable, name in text if SMELL.search(name) and name not in NOT_SECRET] == []
    assert {"DATABASE_URL", "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER", "VAULT_SECRET_ID"} <= set(SECRETS)


def test_errors_of_settings_show_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for build in (
        lambda: ApiSourceSettings(header="hunter2"),
        lambda: Settings(api_source={"x": {"header": "hunter2"}}),
    ):  # type: ignore[arg-type,dict-item]
        with pytest.raises(ValueError, match="Name: value") as caught:
            build()
        assert "hunter2" not in str(caught.value) + repr(caught.value)


OTHERS = ("token of the login", "a wrong password")


class Watch:
    """The canaries, which may appear nowhere, and the places where they did."""

    def __init__(self) -> None:
        self.canaries = {variable: f"canary{secrets.token_hex(12)}" for variable in [*SECRETS, *OTHERS]}
        self.leaks: set[tuple[str, str]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_at_arguments)
        self.looked = 0

    def search(self, where: str, *texts: str | bytes) -> None:
        """Look for every canary."""
        for text in texts:
            data = text if isinstance(text, bytes) else text.encode()
            self.leaks |= {(where, variable) for variable, value in self.canaries.items() if value.encode() in data}

    def _look_at_arguments(self) -> None:
        read_files: set[bytes] = set()
        while not self._over.wait(0.03):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = path.read_bytes()
                except OSError:  # it has ended
                    continue
                self.looked += 1
                if words in read_files:
                    continue
                read_files.add(words)
                program = os.fsdecode(words.partition(b"\0")[0])
                self.search(f"arguments of {Path(program).name}", words)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Guarded:
    """A Postgres that asks its users for their passwords."""

    def __init__(self, home: Path, password: str) -> None:
        self.home = home
        self.url = make_url(embedded.ensure_running(home, FAST))
        self.execute("CREATE ROLE loader LOGIN CREATEROLE PASSWORD %s", password)
        self.execute("CREATE DATABASE canary OWNER loader")
        self.execute("SELECT pg_reload_conf()", before=self._ask_for_passwords)

    def execute(self, statement: str, *values: str, before: Any = None, database: str | None = None) -> list[Any]:
        """Run a statement as superuser, whom it does not ask."""
        url = self.url
        conn = psycopg2.connect(
            dbname=database or url.database, user=url.username, host=url.query["host"], port=url.query["port"]
        )
        conn.autocommit = True
        if before:
            before(conn)
        with conn.cursor() as cursor:
            cursor.execute(statement, values)
            rows = cursor.fetchall() if cursor.description else []
        conn.close()
        return rows

    def add_reader(self, login: str, password: str, role: str) -> None:
        """Add a login for reading, which is a member of one role."""
        self.execute(f"CREATE ROLE {login} LOGIN PASSWORD %s IN ROLE {role}", password)
        for setting in ("default_transaction_read_only = on", "statement_timeout = '10s'"):
            self.execute(f"ALTER ROLE {login} SET {setting}")

    def _ask_for_passwords(self, conn: Any) -> None:
        with conn.cursor() as cursor:
            cursor.execute("SHOW hba_file")
            path = Path(cursor.fetchone()[0])
        lines = [f"local all {login} scram-sha-256\n" for login in ("loader", "reading", "reading_people")]
        path.write_text("".join(lines) + path.read_text())

    def value(self, shape: str, password: str) -> str:
        """DATABASE_URL with this password."""
        return f"{shape.format(password)}?host={self.url.query['host']}&port={self.url.query['port']}"

    def contents(self) -> bytes:
        """Everything in the database, what is compressed in it too."""
        where = [
            f"--host={self.url.query['host']}",
            f"--port={self.url.query['port']}",
            f"--username={self.url.username}",
        ]
        dump = subprocess.run([embedded.binary("pg_dump"), *where, "canary"], capture_output=True, check=True).stdout
        unpacked = []
        for hexadecimal in re.findall(rb"\\\\x([0-9a-f]+)", dump):
            try:
                unpacked.append(zlib.decompress(bytes.fromhex(hexadecimal.decode())))
            except (ValueError, zlib.error):
                unpacked.append(bytes.fromhex(hexadecimal.decode()))
        assert unpacked, "Dagster keeps its snapshots compressed"
        return b"\n".join([dump, *unpacked])


class Operator:
    """Somebody who types commands; all that comes back is searched."""

    def __init__(self, watch: Watch, environment: dict[str, str]) -> None:
        self.watch = watch
        self.environment = environment

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, *command], cwd=PROJECT, env=self.environment | more, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        self.watch.search(f"output of {' '.join(command)[:80]}", result.stdout, result.stderr)
        return result

    def cli(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "mini_platform.cli", *arguments, **more)


def echo(request: Request) -> Reply:
    """A source that refuses every request, and repeats its credentials in every place that there is."""
    authorization = request.headers.get("authorization", "")
    return Reply(
        {"error": authorization},
        403,
        {
            "X-Said": authorization,
            "Link": f'<http://127.0.0.1/?{authorization}>; rel="next"',
            "ETag": f'"{authorization}"',
        },
    )


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("supervisor")
def test_no_secret_is_anywhere(tmp_path: Path) -> None:
    watch = Watch()
    home, data, port = tmp_path / "home", tmp_path / "data", str(free_port())
    (data / "weather").mkdir(parents=True)
    with serving_vault(Vault()) as vault, serving(echo) as source, watch:
        postgres = Guarded(tmp_path / "server", watch.canaries["DATABASE_URL"])
        values = {v: SHAPES.get(v, "{}").format(canary) for v, canary in watch.canaries.items() if v in SECRETS}
        for name in ("DATABASE_URL", *READERS):
            values[name] = postgres.value(SHAPES[name], watch.canaries[name])
        environment = spread(values, vault, tmp_path, watch.canaries["token of the login"]) | {
            "MINI_PLATFORM_HOME": str(home),
            "MINI_PLATFORM_DATA": str(data),
            "MINI_PLATFORM_API_PORT": port,
            "MINI_PLATFORM_DAGSTER_PORT": str(free_port()),
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__URL": source.url,
            "MINI_PLATFORM_API_SOURCE_NETWORKS": "127.0.0.0/8",
        }
        operator = Operator(watch, environment)
        try:
            up = operator.cli("up", "--detach")
            assert up.returncode == 0, up.stdout + up.stderr
            for name, role in READERS.items():
                postgres.add_reader(make_url(values[name]).username or "", watch.canaries[name], role)
            work(operator, watch, postgres, source.requests, tmp_path)
        finally:
            operator.cli("down")
            embedded.stop(postgres.home)
        assert vault.requests[:2] == ["POST /v1/auth/approle/login", "GET /v1/secret/data/mini-platform"]
    logs = [path for folder in (home, postgres.home) for path in folder.rglob("*") if path.is_file()]
    for path in [*logs, *(path for path in (tmp_path / "backup").rglob("*") if path.is_file())]:
        watch.search(f"file {path.relative_to(tmp_path)}", path.read_bytes())
    assert {"up.log", "api.log", "daemon.log", "code_server.log", "webserver.log"} <= {path.name for path in logs}
    assert watch.looked > 1000
    assert sorted(watch.leaks) == []
    watch.search("what it would find", watch.canaries["DATABASE_URL"])
    assert watch.leaks == {("what it would find", "DATABASE_URL")}


def spread(values: dict[str, str], vault: Vault, folder: Path, token: str) -> dict[str, str]:
    """Give the secrets to the sources in turn; the environment that tells of the others."""
    (folder / "secrets").mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MINI_", "DAGSTER", "DATABASE"))
    }
    environment |= {"VAULT_ADDR": vault.url, "MINI_PLATFORM_SECRETS_DIR": str(folder / "secrets")}
    vault.token, vault.login, held = token, (values["VAULT_ROLE_ID"], values["VAULT_SECRET_ID"]), {}
    for number, (name, value) in enumerate(values.items()):
        if name == "VAULT_TOKEN":
            continue  # it would be used in place of the AppRole's
        if name.startswith("VAULT_") or number % 4 == 0:
            (folder / f"{number}").write_text(value + "\n")
            environment[f"{name}_FILE"] = str(folder / f"{number}")
        elif number % 4 == 1:
            (folder / "secrets" / name.lower()).write_text(value + "\n")
        elif number % 4 == 2:
            held[name] = value
        else:
            environment[name] = value
    vault.secrets["secret/mini-platform"] = held
    return environment


def work(operator: Operator, watch: Watch, postgres: Guarded, requests: list[Request], folder: Path) -> None:
    """Everything that the platform does, and most of what can go wrong."""
    web = f"http://127.0.0.1:{operator.environment['MINI_PLATFORM_API_PORT']}"
    dagster = f"http://127.0.0.1:{operator.environment['MINI_PLATFORM_DAGSTER_PORT']}"
    (folder / "data" / "weather" / "a.csv").write_text(WEATHER)
    (folder / "data" / "customers").mkdir(exist_ok=True)
    (folder / "data" / "customers" / "a.csv").write_text("\x00nonsense")
    assert operator.cli("sync", "records").returncode == 1
    assert watch.canaries["MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER"] in requests[0].headers["authorization"]
    launched = operator.run(
        "-m", "dagster", "job", "execute", "-m", "mini_platform.definitions", "-j", "sync_records_api",
        DAGSTER_HOME=str(folder / "home" / "dagster"),
    )  # fmt: skip
    assert "RUN_SUCCESS" in launched.stderr
    loaded(postgres)
    for command in ("doctor", "sources", "rejects weather"):
        operator.cli(*command.split())
    assert operator.cli("psql", "-c", "SELECT pg_sleep(0.3)").returncode == 0
    assert operator.cli("backup", str(folder / "backup")).returncode == 0
    assert watch.canaries["DATABASE_URL"] in bare(operator, "url"), "what is asked for is printed"
    pages(watch, web, dagster)
    watch.search("database", postgres.contents())
    failing(operator, watch, postgres, folder)
    embedded.stop(postgres.home)
    pages(watch, web, dagster)
    time.sleep(5)  # the daemon and the sensors notice, and complain


def bare(operator: Operator, command: str) -> str:
    """Return the output of a command whose business it is to print a secret."""
    return subprocess.run(
        [sys.executable, "-m", "mini_platform.cli", command], cwd=PROJECT, env=operator.environment,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def loaded(postgres: Guarded) -> None:
    """Wait for the sensor's run."""
    give_up = time.monotonic() + 300
    while not postgres.execute("SELECT 1 FROM ops.files WHERE status = 'loaded'", database="canary"):
        assert time.monotonic() < give_up
        time.sleep(0.5)


def pages(watch: Watch, web: str, dagster: str) -> None:
    """Ask for everything, as one may and as one may not."""
    with httpx.Client(timeout=30, trust_env=False) as client:
        for path in PAGES:
            for headers in ({}, {"Authorization": "Bearer nonsense"}):
                answer = client.get(web + path, headers=headers)
                watch.search(f"answer of {path}", answer.content, str(answer.headers))
        answer = client.post(f"{web}/ingest", content=b"{")
        watch.search("answer of /ingest", answer.content)
        for path, body in (("/server_info", None), ("/graphql", {"query": QUERY})):
            try:
                answer = client.post(dagster + path, json=body) if body else client.get(dagster + path)
            except httpx.HTTPError:  # Dagster's, once its database is away
                continue
            watch.search(f"answer of Dagster's {path}", answer.content)
            assert body is None or answer.status_code != 200 or "results" in answer.text or "errors" in answer.text


def failing(operator: Operator, watch: Watch, postgres: Guarded, folder: Path) -> None:
    """A wrong password, a database that is away, settings that are invalid, a Vault that refuses; and their tracebacks."""
    wrong = watch.canaries["a wrong password"]
    urls = {
        "away": f"postgresql://loader:{wrong}@127.0.0.1:1/canary",
        "cut": f"postgresql://loader:x@{wrong}/@127.0.0.1:1/canary",
        "none": wrong,
        "wrong": postgres.value(SHAPES["DATABASE_URL"], wrong),
    }
    code = "from mini_platform.platform import Platform; Platform().engine.connect()"
    for name, url in urls.items():
        (folder / name).write_text(url)
        database_settings = {"DATABASE_URL_FILE": str(folder / name), "DATABASE_URL": url}
        other = {"MINI_PLATFORM_HOME": str(folder / "other")}
        for arguments in ("doctor", "files", "up", "backup none", "psql")[: 5 if name == "wrong" else 1]:
            assert operator.cli(*arguments.split(), **database_settings, **other).returncode != 0, (name, arguments)
        assert "Traceback" in operator.run("-c", code, **database_settings).stderr
    instance = str(folder / "home" / "dagster")
    assert operator.run("-m", "dagster", "run", "list", DAGSTER_HOME=instance, **database_settings).returncode != 0
    code = "from mini_platform.config.settings import *; s = load_settings(); print(repr(s), s, s.model_dump_json(), sources())"
    assert "**********" in operator.run("-c", code).stdout
    header = {"MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER": wrong, "MINI_PLATFORM_API_PORT": wrong}
    assert "Traceback" in operator.run("-c", code, **header).stderr
    assert operator.cli("doctor", **header).returncode == 1
    assert "Traceback" in operator.run("-c", code, VAULT_TOKEN=wrong).stderr
    assert operator.cli("doctor", VAULT_TOKEN=wrong).returncode == 1
    assert "Traceback" in operator.run("-c", code, VAULT_SECRET_ID=wrong).stderr
    assert json.loads(operator.cli("status", "--json").stdout)["running"] is True
