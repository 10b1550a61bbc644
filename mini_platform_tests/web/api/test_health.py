"""Health, figures and metrics on a real database that goes away and comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url, text

from mini_platform.platform import Platform
from mini_platform.web.auth import keys
from mini_platform_tests.support import examples
from mini_platform_tests.support.processes import away, back, process
from mini_platform_tests.support.repository import PROJECT

HEAVY = ("dagster", "plotly", "polars", "pandas", "pandera", "pyarrow")


def scraped(client: httpx.Client) -> dict[str, float]:
    """Samples by name and labels, as Prometheus reads them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    return {f"{s.name}{json.dumps(s.labels, sort_keys=True)}": s.value for s in samples}


def sample(name: str, **labels: str) -> str:
    return f"mini_platform_{name}{json.dumps(labels, sort_keys=True)}"


def test_before_anything_happened(client: httpx.Client) -> None:
    assert client.get("/api/health/").json() == {"status": "ok"}
    health = client.get("/health")
    assert health.status_code == 200
    assert health.json() == {"status": "ok", "db_connected": True, "last_etl_run": None, "etl_status": "never_run"}
    assert client.get("/stats").json() == {
        "total_records_processed": 0,
        "total_duration_seconds": 0,
        "last_success": None,
        "last_failure": None,
        "last_failure_reason": None,
        "run_count": 0,
    }
    assert scraped(client)[sample("database_up")] == 1


def test_figures_of_files_pulls_and_runs(
    client: httpx.Client, platform: Platform, pipeline: Callable[..., list[int]], tmp_path: Path
) -> None:
    file = tmp_path / "things.csv"
    file.write_text("id,name,value\n1,lamp,2\n2,crate,\n3,,1\n")
    pipeline(examples.records, file)
    health, stats = client.get("/health").json(), client.get("/stats").json()
    assert (health["etl_status"], health["last_etl_run"]) == ("success", stats["last_success"])
    assert stats["last_success"].endswith("Z")
    assert (stats["total_records_processed"], stats["run_count"]) == (3, 0)

    a_run(platform, "done", "SUCCESS", 100, 107.5)
    a_run(platform, "broken", "FAILURE", 4_000_000_000, 4_000_000_002)
    stats = client.get("/stats").json()
    assert (stats["run_count"], stats["total_duration_seconds"]) == (2, 9.5)
    assert stats["last_failure"] == "2096-10-02T07:06:42Z"
    assert stats["last_failure_reason"] == "Run broken failed; Dagster shows why."
    assert client.get("/health").json()["status"] == "degraded"

    a_pull(platform, "The source answered 500.")
    stats = client.get("/stats").json()
    assert stats["last_failure"] == "2100-01-01T00:00:00Z"
    assert stats["last_failure_reason"] == "The source answered 500."

    a_run(platform, "now", "STARTED", 4_200_000_000, None)
    assert client.get("/health").json()["etl_status"] == "running"

    metrics = scraped(client)
    assert metrics[sample("files", dataset="records", status="loaded")] == 1
    assert metrics[sample("rows", dataset="records", action="inserted")] == 2
    assert metrics[sample("rows", dataset="records", action="rejected")] == 1
    assert metrics[sample("oldest_pending_file_age_seconds", dataset="records")] == 0
    assert 0 <= metrics[sample("freshness_seconds", dataset="records")] < 300
    assert metrics[sample("runs", dataset="records", status="failed")] == 1
    assert metrics[sample("runs_duration_seconds", dataset="records")] == 9.5
    assert metrics[sample("last_successful_run_duration_seconds", dataset="records")] == 7.5


def test_lag_is_the_age_of_what_waits(client: httpx.Client, platform: Platform) -> None:
    with platform.engine.begin() as conn:
        for hours in (1, 3):
            statement = (
                "INSERT INTO ops.files (dataset, name, version, sha256, bytes, channel, status, arrived_at) VALUES "
                "('weather', :name, 1, '', 0, 'test', 'landed', now() - make_interval(hours => :hours))"
            )
            conn.execute(text(statement), {"name": str(hours), "hours": hours})
    metrics = scraped(client)
    assert 3 * 3600 <= metrics[sample("oldest_pending_file_age_seconds", dataset="weather")] < 3 * 3600 + 300
    assert metrics[sample("files", dataset="weather", status="landed")] == 2


def test_requests_are_counted_by_template_never_by_path(client: httpx.Client) -> None:
    for path in ("/health", "/health?x=1", "/nowhere/1", "/nowhere/2"):
        client.get(path)
    client.request("PROPFIND", "/health")
    client.get("/health", headers={"Host": "evil.example"})
    metrics = scraped(client)
    assert metrics[sample("http_requests_total", method="GET", route="/health", status="200")] == 2
    assert metrics[sample("http_requests_total", method="GET", route="other", status="404")] == 2
    assert metrics[sample("http_requests_total", method="GET", route="other", status="421")] == 1
    assert metrics[sample("http_requests_total", method="other", route="/health", status="405")] == 1
    assert metrics[sample("http_request_duration_seconds_count", method="GET", route="/health")] == 2
    assert not [name for name in metrics if "nowhere" in name or "evil" in name or "PROPFIND" in name]


def a_run(platform: Platform, run_id: str, status: str, start: float, end: float | None) -> None:
    with platform.engine.begin() as conn:
        row = {"id": run_id, "status": status, "start": start, "end": end}
        conn.execute(
            text("INSERT INTO dagster.runs (run_id, status, start_time, end_time) VALUES (:id, :status, :start, :end)"),
            row,
        )
        conn.execute(
            text("INSERT INTO dagster.run_tags (run_id, key, value) VALUES (:id, 'mini_platform/dataset', 'records')"),
            row,
        )


def a_pull(platform: Platform, error: str) -> None:
    with platform.engine.begin() as conn:
        statement = """
            INSERT INTO ops.checkpoints (dataset, source, step, sync, target, whole, begun_at, pages, pages_landed, rows,
                last_started, last_failed, last_error)
            VALUES ('records', 'api', 1, 1, '', true, now(), 0, 0, 0, now(), '2100-01-01 00:00:00+00', :error)
        """
        conn.execute(text(statement), {"error": error})


# The process


def test_it_starts_and_lives_without_its_database_and_recovers(home: Path, database_url: str) -> None:
    url = make_url(database_url)
    template = url.set(database="postgres").render_as_string(hide_password=False)
    with process(home) as (_, client):
        assert client.get("/health").status_code == 200
        with away(template, str(url.database)):
            for _ in range(2):
                health = client.get("/health")
                assert health.status_code == 503
                assert health.json() == {
                    "status": "unavailable",
                    "db_connected": False,
                    "last_etl_run": None,
                    "etl_status": "unknown",
                }
            assert client.get("/api/health/").json() == {"status": "ok"}
            assert client.get("/stats").status_code == 503
            metrics = scraped(client)
            assert metrics[sample("database_up")] == 0
            assert metrics[sample("http_requests_total", method="GET", route="/health", status="503")] == 2
            with process(home.with_name("late")) as (_, late):
                assert late.get("/health").status_code == 503
                assert scraped(late)[sample("database_up")] == 0
                back(template, str(url.database))
                assert late.get("/health").status_code == 200
        assert client.get("/health").status_code == 200
        assert scraped(client)[sample("database_up")] == 1


def test_it_ends_on_sigterm_and_logs_neither_queries_nor_keys(home: Path) -> None:
    with process(home) as (started, client):
        headers = {"X-Request-ID": "asked-by-test", "Authorization": "Bearer mp_secret"}
        assert client.get("/health?email=ann@example.com", headers=headers).status_code == 200
        client.get("/nowhere/1")
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=30)
    log = (home / "test.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    ignored, line = (line for line in lines if line.get("request_id") == "asked-by-test")
    assert (ignored["event"], ignored["parameters"]) == ("ignored parameters", ["email"])
    assert (line["method"], line["path"], line["status"], line["level"]) == ("GET", "/health", 200, "info")
    assert line["ms"] > 0
    assert "ann@example.com" not in log
    assert "mp_secret" not in log
    assert all(line["request_id"] for line in lines if line["event"] == "request")


def test_it_refuses_to_be_reached_by_others_without_a_key(home: Path, platform: Platform) -> None:
    with process(home, MINI_PLATFORM_HOST="0.0.0.0") as (started, client):  # noqa: S104 - refused
        assert started.wait(timeout=30) == 1
    log = (home / "test.log").read_text()
    assert "mini-platform key create" in log
    assert "Traceback" not in log
    with platform.engine.begin() as conn:
        key = keys.create(conn, "test", ["read"])
    with process(home, MINI_PLATFORM_API_AUTH="always", MINI_PLATFORM_API_FAILED_KEYS="1") as (started, client):
        assert started.poll() is None
        assert client.get("/api/health/").status_code == 200
        assert client.get("/stats").status_code == 401
        assert client.get("/stats", headers={"X-API-Key": key}).status_code == 200
        made_up = [{"X-API-Key": "x", "X-Forwarded-For": f"10.0.0.{i}"} for i in range(2)]
        assert [client.get("/stats", headers=headers).status_code for headers in made_up] == [401, 429], "one address"


def test_what_goes_wrong_is_logged_as_one_line_with_its_request() -> None:
    code = """
import logging, structlog
from mini_platform.config import logs
logs.configure()
with structlog.contextvars.bound_contextvars(request_id="r1"):
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("x").exception("GET / failed")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    line = json.loads(result.stderr)
    assert (line["event"], line["level"], line["request_id"]) == ("GET / failed", "error", "r1")
    assert "ZeroDivisionError" in line["exception"]


def test_its_start_imports_nothing_heavy(home: Path) -> None:
    code = f"import sys, mini_platform.web.app as w; w.create_app(); print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
