"""The claims of the records system, and its documented requests, rows and files, replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mini_platform import ApiSource
from mini_platform.config.sections import ApiSourceSettings
from mini_platform.landing.sync import SyncResult
from mini_platform.operations.landing import sync
from mini_platform.operations.processing import process
from mini_platform_tests.support.api_server import Api, Reply, Request, serving
from mini_platform_tests.support.claims import Claim, different, held, partly
from mini_platform_tests.support.databases import load_files
from mini_platform_tests.support.examples import records
from mini_platform_tests.support.old_paths import Live, assert_refused, live

HERE = "replaced/test_records.py::"
SYNC = "landing/test_sync.py::"
CLAIMS: list[Claim] = [
    # Sources
    held(
        "API source /posts",
        f"{HERE}test_posts_that_ignore_paging_are_synced_and_synced_again",
        f"{HERE}test_posts_in_an_object",
        f"{SYNC}test_a_source_that_ignores_paging_ends_with_its_second_page",
        f"{SYNC}test_a_source_that_ignores_the_page_alone_fails",
        f"{SYNC}test_by_number",
    ),
    held(
        "CSV source", f"{HERE}test_the_file_of_its_generator", "datasets/test_records.py::test_two_sources_in_one_table"
    ),
    held(
        "CSV by URL (CSV_URL), headers in any case",
        f"{HERE}test_a_csv_at_a_url_with_headers_in_any_case",
        f"{SYNC}test_one_response_without_paging",
        f"{SYNC}test_a_response_that_is_not_the_csv",
    ),
    held("Third source", f"{HERE}test_a_third_source_is_a_line_of_the_declaration"),
    held(
        "Incremental ingestion by checkpoints",
        f"{HERE}test_posts_that_ignore_paging_are_synced_and_synced_again",
        f"{SYNC}test_since",
        f"{SYNC}test_only_pages_that_changed_are_landed_again",
        "landing/test_sync_kills.py::test_killed",
    ),
    held("Rate limit per source", f"{SYNC}test_the_pace_is_kept", f"{SYNC}test_retry_after_is_honoured"),
    held(
        "Retries on connection errors, with backoff",
        f"{SYNC}test_well_in_the_end",
        f"{SYNC}test_pauses_grow_and_are_drawn",
        f"{SYNC}test_given_up_for_now_and_gone_on_with",
    ),
    different(
        "Failure injection",
        "A part of the tests, which run sources that fail: no switch can break a running system.",
        f"{HERE}test_a_source_that_fails_twice_is_retried_and_one_that_fails_on_is_a_failure",
        f"{SYNC}test_well_in_the_end",
    ),
    different(
        "A failure is recorded (there: as success)",
        "It is recorded as a failure.",
        f"{HERE}test_a_source_that_fails_twice_is_retried_and_one_that_fails_on_is_a_failure",
        "dagster/test_sync_runs.py::test_a_source_that_fails_fails_its_check_and_not_the_run",
    ),
    different(
        "Runs on a schedule (ETL_INTERVAL)",
        "The schedule runs once the URL of a source is set.",
        "dagster/test_sync_runs.py::test_the_schedule",
        "dagster/test_sync_runs.py::test_intervals",
    ),
    # Rows
    held("Raw data is kept", f"{SYNC}test_by_number", f"{SYNC}test_wrong_rows_are_landed_and_validated_later"),
    held("Normalised schema", f"{HERE}test_psql_sees_the_normalized_schema"),
    held(
        "UNIQUE(source, source_id)",
        f"{HERE}test_psql_sees_the_normalized_schema",
        f"{HERE}test_a_file_keeps_its_own_source_which_belongs_to_the_key",
    ),
    held(
        "created_at never moves",
        "datasets/test_records.py::test_created_at_never_moves_and_updated_at_only_with_a_change",
        "operations/test_adopt.py::test_ids_and_times_stay_and_nothing_is_doubled",
    ),
    different(
        "Missing fields get defaults",
        "A missing value or description is empty; a row without id or name is rejected with its reason.",
        f"{HERE}test_the_file_of_its_generator",
        "datasets/test_records.py::test_a_missing_id_is_a_reject_and_not_a_collapse",
    ),
    held("Schema drift is detected", "dagster/test_definitions.py::test_the_samples"),
    held(
        "Anomaly detection",
        "warehouse/test_anomalies.py::test_what_is_out_of_the_usual_range",
        "warehouse/test_anomalies.py::test_too_few_loads_say_nothing",
    ),
    # API
    held("GET /data: paging, page_size 10, id, newest first", f"{HERE}test_data_by_page_source_and_text"),
    held("GET /data: source", f"{HERE}test_data_by_page_source_and_text"),
    held("GET /data: search", f"{HERE}test_data_by_page_source_and_text"),
    held("422 for invalid parameters", f"{HERE}test_parameters_that_data_does_not_take_are_422"),
    held("GET /stats", f"{HERE}test_a_source_that_fails_twice_is_retried_and_one_that_fails_on_is_a_failure"),
    partly(
        "GET /health",
        "Its fields are the same; status is ok, and not healthy, as clients of another replaced system expect it.",
        f"{HERE}test_a_source_that_fails_twice_is_retried_and_one_that_fails_on_is_a_failure",
        "web/api/test_health.py::test_before_anything_happened",
    ),
    held(
        "Prometheus /metrics",
        f"{HERE}test_the_file_of_its_generator",
        "web/api/test_health.py::test_lag_is_the_age_of_what_waits",
    ),
    different(
        "CORS open",
        "Closed, unless a setting names the sites.",
        "web/api/test_guard.py::test_other_sites_read_only_if_the_settings_name_them",
    ),
    # Operation
    held("Structured logs", "config/test_logs.py::test_what_became_of_a_file"),
    held("psql shell", "cli/test_cli.py::test_psql_takes_the_url_as_it_is_printed"),
    partly(
        "make up, down, test, lint, build, logs, shell, db-shell, clean",
        "There are up, down, test, lint and clean; the others are commands of Docker, or `mini-platform psql`.",
        "test_docs.py::test_targets_of_make_are_there_with_their_files",
        "cli/test_supervisor.py::test_up_down",
    ),
    partly(
        "Docker Compose",
        "Validated against its specification, and every process run by its command; there is no engine where tests run.",
        "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says",
        "operations/test_deployment.py::test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together",
    ),
    different(
        "Settings by name",
        "Names of several datasets' sources; ETL_INTERVAL and DATABASE_URL have the old ones.",
        f"{HERE}test_a_csv_at_a_url_with_headers_in_any_case",
        "dagster/test_sync_runs.py::test_intervals",
    ),
    held("CI", "operations/test_deployment.py::test_continuous_integration_runs_the_gate"),
    different(
        "Deployment to a cloud",
        "Containers for any host; no description of one cloud.",
        "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says",
    ),
]

ITEM = {"id", "source", "source_id", "name", "value", "description", "created_at", "updated_at"}
HEALTH = {"status", "db_connected", "last_etl_run", "etl_status"}
STATS = {
    *("total_records_processed", "total_duration_seconds", "last_success", "last_failure", "last_failure_reason"),
    "run_count",
}


def posts(*ids: int, **more: Any) -> list[dict[str, Any]]:
    """Return objects as the documented API sends them."""
    return [{"userId": 1 + n // 10, "id": n, "title": f"post {n}", "body": f"about\n{n}", **more} for n in ids]


def generated(rows: int = 200, seed: int = 42) -> tuple[str, dict[str, tuple[str, float | None]]]:
    """Return a CSV file as the generator of the system writes it, one row of ten dirty, and its good rows by id."""
    rng = random.Random(seed)  # noqa: S311 - sample data, not secrets
    lines, good = ["id,name,value,description"], {}
    for n in range(1, rows + 1):
        value, dirt = f"{rng.uniform(0, 1000):.2f}", rng.random()
        row = [f"g{n}", f"item {n}", value, f"Generated item {n}"]
        if dirt < 0.04:
            row[0] = ""
        elif dirt < 0.07:
            row[1] = ""
        elif dirt < 0.1:
            row[2] = "abc"
        else:
            row[2] = "" if dirt < 0.2 else value
            good[row[0]] = (row[1], float(row[2]) if row[2] else None)
        lines.append(",".join(row))
    return "\n".join([*lines, ""]), good


@pytest.fixture(scope="module")
def system(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The records system; each test has sources, or ids, of its own."""
    with live(server, template, tmp_path_factory.mktemp("records")) as opened:
        yield opened


@contextmanager
def source_of(system: Live, answer: Callable[[Request], Reply], name: str = "api") -> Iterator[Api]:
    """Run a source, and set its URL."""
    settings = system.platform.settings
    with serving(answer) as api:
        changed = {
            "api_source": {f"records_{name}": ApiSourceSettings(url=api.url)},
            "api_source_networks": "127.0.0.0/8",
        }
        system.platform.__dict__["settings"] = settings.model_copy(update=changed)
        try:
            yield api
        finally:
            system.platform.__dict__["settings"] = settings


def synced(system: Live, name: str = "api", **options: Any) -> SyncResult:
    """Sync a declared source, faster than it is declared, and load what it sent."""
    declared = next(source for source in records.api_sources if source.name == name)
    source = replace(declared, rate=1000, backoff=0.01, longest_wait=0.1, **options)
    result = sync(system.platform, replace(records, api_sources=(source,)), source)
    process(system.platform, records, run_id="test")
    return result


def stored(system: Live, source: str) -> dict[str, tuple[Any, ...]]:
    statement = f"SELECT source_id, name, value, description FROM production.records WHERE source = '{source}'"  # noqa: S608
    return {row.source_id: tuple(row)[1:] for row in system.rows(statement)}


def listed(system: Live, **parameters: Any) -> dict[str, Any]:
    answer = system.client.get("/data", params=parameters)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


# Sources


def test_posts_that_ignore_paging_are_synced_and_synced_again(system: Live) -> None:
    content = posts(*range(1, 101))
    with source_of(system, lambda _: Reply(content)) as api:
        assert (synced(system).state, len(api.requests)) == ("succeeded", 3)
        assert {tuple(request.query.items()) for request in api.requests[:2]} == {
            (("limit", "100"), ("page", "1")),
            (("limit", "100"), ("page", "2")),
        }
        assert stored(system, "api") == {str(n): (f"post {n}", None, f"about\n{n}") for n in range(1, 101)}
        before = {item["source_id"]: item for item in listed(system, source="api", page_size=100)["data"]}
        again = synced(system)
        assert (again.state, again.rows, again.unchanged) == ("succeeded", 0, 2)

        content[6]["title"] = "changed"
        content.append(posts(101)[0])
        assert synced(system).state == "succeeded"
        page = listed(system, source="api")
        assert {item["source_id"] for item in page["data"][:2]} == {"7", "101"}, "what changed last is first"
        changed = next(item for item in page["data"] if item["source_id"] == "7")
        assert (changed["id"], changed["created_at"]) == (before["7"]["id"], before["7"]["created_at"])
        assert (changed["name"], changed["updated_at"] > before["7"]["updated_at"]) == ("changed", True)
        others = [
            item for item in listed(system, source="api", page=2, page_size=50)["data"] if item["source_id"] in before
        ]
        assert all(item == before[item["source_id"]] for item in others)


def test_posts_in_an_object(system: Live) -> None:
    def paged(request: Request) -> Reply:
        page, limit = (int(request.query[name]) for name in ("page", "limit"))
        return Reply({"data": posts(*range(1001, 1151))[(page - 1) * limit : page * limit], "total": 150})

    for answer in (paged, lambda _: Reply({"data": posts(*range(1001, 1151)), "total": 150})):
        with source_of(system, answer):
            assert synced(system).state == "succeeded"
    ids = {int(n) for n in stored(system, "api")}
    assert ids >= set(range(1001, 1151))
    assert [
        row.version for row in system.rows("SELECT max(version) AS version FROM ops.files WHERE status = 'failed'")
    ] == [None]


@pytest.mark.parametrize(
    "header", ["id,name,value,description", "ID,Name,VALUE,Description", "Description,Value,NAME,Id"]
)
def test_a_csv_at_a_url_with_headers_in_any_case(system: Live, header: str) -> None:
    cells = {"id": "u1", "name": f"by {header[0]}", "value": "1.5", "description": '"two\nlines"'}
    text = f"{header}\n{','.join(cells[name] for name in header.lower().split(','))}\n"
    with source_of(system, lambda _: Reply(text.encode(), headers={"Content-Type": "text/csv"}), "csv") as api:
        assert (synced(system, "csv").state, len(api.requests)) == ("succeeded", 1)
    assert stored(system, "csv")["u1"] == (f"by {header[0]}", 1.5, "two\nlines")


def test_a_third_source_is_a_line_of_the_declaration(system: Live) -> None:
    third = ApiSource(name="shop", paging=None, rate=1000)
    dataset = replace(records, api_sources=(*records.api_sources, third))
    with source_of(system, lambda _: Reply(posts(1, 2)), "shop"):
        assert sync(system.platform, dataset, third).state == "succeeded"
        process(system.platform, dataset, run_id="test")
    assert set(stored(system, "shop")) == {"1", "2"}


def test_a_source_that_fails_twice_is_retried_and_one_that_fails_on_is_a_failure(system: Live) -> None:
    """Failure injection: the system let its sources fail by a setting; here the source itself fails."""
    failures = [Reply(status=500), Reply(drop=True)]
    with source_of(system, lambda _: failures.pop() if failures else Reply(posts(2001))) as api:
        assert (synced(system).state, len(api.requests)) == ("succeeded", 5)
        assert system.client.get("/health").json()["etl_status"] == "success"
        api.answer = lambda request: Reply(posts(2002)) if request.query["page"] == "1" else Reply(status=503)
        result = synced(system, tries=2)
        assert result.state == "failed"
        assert "2002" in stored(system, "api"), "what arrived before is loaded"
        health, stats = (system.client.get(path).json() for path in ("/health", "/stats"))
        assert set(stats) == STATS
        assert stats["last_failure_reason"] == result.why
        assert datetime.fromisoformat(stats["last_failure"])
        assert "503" in str(result.why)
        assert set(health) == HEALTH
        assert health["db_connected"] is True
        requested = len(api.requests)
        api.answer = lambda _: Reply(posts(2002))
        assert synced(system).state == "succeeded"
        assert api.requests[requested].query["page"] == "2", "it resumes where it stopped"
    assert system.client.get("/health").json()["etl_status"] == "success"


# Files


def test_a_file_keeps_its_own_source_which_belongs_to_the_key(system: Live, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("source,id,name\nerp,1,one of erp\ncrm,1,one of crm\n,f1,of no source\n")
    load_files(system.platform, records, tmp_path / "own.csv")
    assert stored(system, "erp") == {"1": ("one of erp", None, None)}
    assert stored(system, "crm") == {"1": ("one of crm", None, None)}
    assert stored(system, "csv")["f1"] == ("of no source", None, None)


def test_the_file_of_its_generator(system: Live, tmp_path: Path) -> None:
    text, good = generated()
    (tmp_path / "generated.csv").write_text(text)
    (file_id,) = load_files(system.platform, records, tmp_path / "generated.csv")
    loaded = {key: (name, value) for key, (name, value, _) in stored(system, "csv").items() if key.startswith("g")}
    assert loaded == good
    counted = "SELECT rows_read, rows_inserted, rows_rejected FROM ops.files WHERE file_id = "
    assert system.rows(f"{counted}{file_id}") == [(200, len(good), 200 - len(good))]
    reasons = f"SELECT DISTINCT unnest(_rules) FROM quarantine.records WHERE _file_id = {file_id}"  # noqa: S608
    assert {row[0] for row in system.rows(reasons)} == {"source_id_required", "name_required", "value_is_number"}
    metrics = system.client.get("/metrics").text
    assert 'mini_platform_rows{action="inserted",dataset="records"}' in metrics


# Requests


def test_data_by_page_source_and_text(system: Live, tmp_path: Path) -> None:
    rows = "".join(f"paged,p{n},paged thing {n:02},{n},100%_{n}\n" for n in range(25))
    (tmp_path / "paged.csv").write_text(f"source,id,name,value,description\n{rows}")
    load_files(system.platform, records, tmp_path / "paged.csv")
    first = listed(system, source="paged")
    assert first | {"data": []} == {"data": [], "total": 25, "page": 1, "page_size": 10, "has_more": True}
    pages = [listed(system, source="paged", page=n) for n in (1, 2, 3, 4)]
    assert [(len(page["data"]), page["has_more"]) for page in pages] == [(10, True), (10, True), (5, False), (0, False)]
    items = [item for page in pages for item in page["data"]]
    assert all(set(item) == ITEM for item in items)
    assert len({item["id"] for item in items}) == 25
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True), "of one time, by id"
    assert all(type(item["id"]) is int for item in items)
    assert listed(system, search="PAGED THING 07")["total"] == 1
    assert listed(system, search="100%_2", source="paged")["total"] == 6
    assert listed(system, source="nobody")["total"] == 0
    assert listed(system, source="paged", sort="name", shoe_size=43) == first, "unknown parameters are ignored"
    newest = listed(system)["data"]
    assert [item["updated_at"] for item in newest] == sorted((item["updated_at"] for item in newest), reverse=True)


@pytest.mark.parametrize("query", ["page=0", "page=x", "page_size=0", "page_size=101", "page_size=ten", "page=1.5"])
def test_parameters_that_data_does_not_take_are_422(system: Live, query: str) -> None:
    assert_refused(system.client.get(f"/data?{query}"), 422)


@pytest.mark.parametrize(("path", "status"), [("/data", 405), ("/etl/run", 404)])
def test_what_only_its_code_had_is_refused(system: Live, path: str, status: int) -> None:
    files = system.rows("SELECT count(*) FROM ops.files")
    assert system.client.post(path, json={"name": "x"}).status_code == status
    assert system.rows("SELECT count(*) FROM ops.files") == files


def test_psql_sees_the_normalized_schema(system: Live) -> None:
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'records' AND table_schema = 'production'"
    names = {row[0] for row in system.rows(columns)}
    assert names >= {"record_id", *(ITEM - {"id"})}
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'production' AND tablename = 'records'"
    unique = [row[0] for row in system.rows(indexes) if "UNIQUE" in row[0]]
    assert any("(source, source_id)" in index for index in unique)
    assert any("(record_id)" in index for index in unique)
