"""Sentry, by a server that takes envelopes as Sentry's does: exceptions arrive, and nothing of a row with them."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import sentry_sdk
from pydantic import SecretStr
from sqlalchemy import Engine, text

from mini_platform.config import logs
from mini_platform.config.sentry import capture
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.web import serving, serving_platform

CANARY = "CANARY-4711"
Envelopes = list[tuple[str, list[Any]]]


@pytest.fixture
def envelopes(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Envelopes]:
    """Yield the envelopes that a server received: the path, and the lines of each.

    https://develop.sentry.dev/sdk/data-model/envelopes/
    """
    assert home.parent.exists()
    received: Envelopes = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, [json.loads(line) for line in body.splitlines() if line]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None: ...

    sentry_sdk.get_global_scope().set_client(None)  # of another test, which reports to another server
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SENTRY_DSN", f"http://key@127.0.0.1:{server.server_port}/7")
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def event(envelopes: Envelopes) -> dict[str, Any]:
    """The one event that arrived."""
    ((path, (_, item, content)),) = envelopes
    assert (path, item["type"]) == ("/api/7/envelope/", "event")
    assert CANARY not in json.dumps(content)
    assert set(content) <= {
        *("event_id", "timestamp", "platform", "level", "tags", "release", "environment", "sdk", "exception"),
        *("contexts", "server_name"),
    }
    return dict(content)


def test_what_fails_in_a_run(envelopes: Envelopes, engine: Engine, tmp_path: Path) -> None:
    """An error of Postgres, which quotes the row."""
    with engine.begin() as conn:
        conn.execute(text(f"ALTER TABLE production.measurements ADD CHECK (station_id <> '{CANARY}')"))
    (tmp_path / "a.csv").write_text(f"station_id,date,temp_c,precip_mm\n{CANARY},2026-01-01,1,0\n")
    command = [sys.executable, "-m", "mini_platform.cli", "load", "weather", str(tmp_path / "a.csv")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=PROJECT, env=os.environ, timeout=250
    )
    assert result.returncode == 1
    assert "a row is not allowed by a check constraint: constraint measurements_station_id_check" in result.stderr
    assert CANARY not in result.stderr
    sent_event = event(envelopes)
    assert sent_event["tags"]["step"] == "weather__measurements"
    assert sent_event["tags"]["run_id"] in result.stderr
    assert "IntegrityError" in {value["type"] for value in sent_event["exception"]["values"]}
    frames = [frame for value in sent_event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    assert any(frame["filename"].endswith("warehouse/upsert.py") or "load" in frame["filename"] for frame in frames)


def test_what_fails_in_the_api(envelopes: Envelopes, platform: Platform) -> None:
    site = Site(platform)
    app = create_app(site)

    @app.get("/broken/{person}")
    def broken(person: str) -> None:
        raise ValueError(f"nobody knows {person}")

    with serving(app) as url:
        answer = httpx.get(f"{url}/broken/{CANARY}", params={"q": CANARY}, headers={"X-Request-ID": "request-0815"})
    site.close()
    sentry_sdk.flush(10)
    assert answer.status_code == 500
    sent_event = event(envelopes)
    assert sent_event["tags"] == {"request_id": "request-0815", "route": "GET /broken/{person}"}
    assert [value["type"] for value in sent_event["exception"]["values"]] == ["ValueError"]


REFUSALS = {
    "a value is missing in a column that may not be empty": "NEW.dataset := NULL;",
    "a row is not allowed by a check constraint": "NEW.status := NEW.name;",
    "two rows have the same values in columns that must be unique": "NEW.file_id := 1;",
    "invalid text representation: function refuse": "NEW.bytes := NEW.name;",
    "numeric value out of range": "NEW.attempts := CAST(substring(NEW.name, '[0-9]+') || '000000' AS bigint);",
    "raise exception: function refuse": "RAISE 'not %', NEW.name;",
    "external routine exception: function refuse": "RAISE external_routine_exception USING MESSAGE = NEW.name;",
    "disk full: function refuse": "RAISE disk_full USING MESSAGE = NEW.name;",
}
"""The phrase that remains -> what a trigger does to the row of an upload, whose name is a canary."""
REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON ops.files FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of this process, as JSON; afterwards other tests have their own again."""
    root, written = logging.getLogger(), io.StringIO()
    level, handlers = root.level, root.handlers[:]
    logs.configure("json")
    (handler,) = root.handlers
    handler.setStream(written)  # type: ignore[attr-defined]
    yield written
    root.setLevel(level)
    root.handlers[:] = handlers


def test_a_row_that_the_database_refuses_in_a_request(
    envelopes: Envelopes,
    platform: Platform,
    pipeline: Pipeline,
    tmp_path: Path,
    subtests: pytest.Subtests,
    log: io.StringIO,
) -> None:
    """Neither the answer, the log nor the event has the canary."""
    row = f"station_id,date,temp_c,precip_mm\n{CANARY},2026-01-01,1,0\n"
    (tmp_path / "first.csv").write_text(row)
    pipeline(all_datasets()["weather"], tmp_path / "first.csv")
    with serving_platform(platform) as url:
        for number, (phrase, statement) in enumerate(REFUSALS.items()):
            with subtests.test(phrase):
                with platform.engine.begin() as conn:
                    conn.exec_driver_sql(REFUSE.format(statement).replace("%", "%%"))
                envelopes.clear()
                log.seek(log.truncate(0))
                body = {"file": (f"{CANARY}.csv", f"{row}OSL,2026-01-0{number + 1},1,0\n")}
                answer = httpx.post(f"{url}/api/datasets/weather/files/", files=body)
                sentry_sdk.flush(10)
                assert phrase in log.getvalue()
                assert CANARY not in answer.text + str(answer.headers) + log.getvalue()
                if phrase.startswith("disk full"):
                    detail = "The disk of the database is full; try again later."
                    assert (answer.status_code, answer.json()["detail"], envelopes) == (507, detail, [])
                else:
                    assert answer.status_code == 500
                    assert event(envelopes)["tags"]["route"] == "POST /api/datasets/{dataset}/files/"


def test_without_its_package_an_error_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    capture(SecretStr("https://key@sentry.example.com/1"), ValueError(CANARY))
    assert "pip install 'mini-platform[sentry]'" in caplog.text
    assert CANARY not in caplog.text


def test_without_a_dsn_nothing_is_imported(home: Path) -> None:
    assert home.parent.exists()
    code = (
        "import sys, mini_platform.definitions, mini_platform.web.app; "
        "sys.exit(bool({'sentry_sdk', 'apprise'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False, timeout=200).returncode == 0
