"""The claims of the customers system, and its documented requests, rows and files, replayed."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from mini_platform.config.settings import load_settings
from mini_platform.operations.alerts import services
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import files
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support import customers_files
from mini_platform_tests.support.claims import Claim, different, held, not_yet, partly
from mini_platform_tests.support.databases import Pipeline, load_files, open_platform
from mini_platform_tests.support.examples import customers
from mini_platform_tests.support.old_paths import JSON, Body, Live, assert_refused, post_half
from mini_platform_tests.support.receivers import webhook
from mini_platform_tests.support.web import serving

HERE = "replaced/test_customers.py::"
WITH_THE_LAKE = "comes with the lake"
FILES = f"{HERE}test_every_form_of_file_has_the_same_rows"
CLAIMS: list[Claim] = [
    held("CSV and JSON", FILES),
    held("nested JSON is flattened, its names joined by _", FILES),
    held("its own transformed file loads", f"{HERE}test_its_own_transformed_file_loads"),
    held(
        "cells are trimmed, cast and read as dates",
        f"{HERE}test_rows_of_its_exports_are_cleaned_checked_and_counted",
        "declare/test_columns.py::test_how_text_is_cleaned",
        "rows/test_validation.py::test_dates",
    ),
    held("rows stand in Postgres", FILES, "datasets/test_customers.py::test_a_changed_row_updates_by_csv_and_by_json"),
    held(
        "Polars and structured logs",
        "config/test_logs.py::test_what_became_of_a_file",
        "dagster/test_definitions.py::test_a_table_downstream_is_a_frame",
    ),
    held(
        "a file is loaded from the command line",
        "cli/test_cli.py::test_load_accounts_for_every_row_and_is_a_run_of_dagster",
    ),
    held("search", f"{HERE}test_documented_requests"),
    held("ordering", f"{HERE}test_documented_requests"),
    held("city and country are contained, in any case", f"{HERE}test_documented_requests"),
    held("start_date and end_date filter by ingested_at", f"{HERE}test_documented_requests"),
    held("pages by cursor", f"{HERE}test_pages_lead_to_every_row_and_back_and_tell_nobody"),
    held("Authorization: Token", f"{HERE}test_a_token_is_a_key"),
    held("POST /api/token-auth/", f"{HERE}test_a_token_is_a_key", f"{HERE}test_what_gives_no_token_says_why"),
    held("response {next, previous, results}, with its columns", f"{HERE}test_rows_have_the_columns_of_the_system"),
    held(
        "files by SFTP",
        "landing/test_inboxes_landing.py::test_files_are_landed_once_and_loaded",
        "landing/test_inboxes_trouble.py::test_another_host_key_is_not_talked_to",
        "landing/test_inboxes_trouble.py::test_a_key_instead_of_a_password",
    ),
    held(
        "several formats",
        FILES,
        "rows/readers/test_dispatch.py::test_read_file",
        "rows/readers/test_unpack.py::test_read",
    ),
    held(
        "a wrong schema is refused before any row is read",
        f"{HERE}test_a_file_without_a_column_is_refused_and_says_which",
        "rows/readers/test_header.py::test_refused",
    ),
    held(
        "retries with growing pauses",
        "landing/test_inboxes_trouble.py::test_pauses_grow_and_differ",
        "landing/test_inboxes_trouble.py::test_a_download_goes_on_after_its_connection_was_cut",
        "landing/test_sync.py::test_well_in_the_end",
    ),
    held(
        "rules; rows that break them go to quarantine, with reasons",
        f"{HERE}test_rows_of_its_exports_are_cleaned_checked_and_counted",
        "operations/test_pipeline.py::test_what_was_rejected_stands_as_it_arrived",
        "cli/test_cli.py::test_rejects_explain_each_broken_rule",
    ),
    held(
        "thresholds warn and refuse",
        "operations/test_pipeline.py::test_where_a_limit_lies",
        "operations/test_pipeline.py::test_a_file_over_its_limit_is_refused_whole",
        "dagster/test_definitions.py::test_what_warns_and_what_is_drawn_are_what_is_declared",
    ),
    held(
        "duplicates are removed, empty cells are null",
        f"{HERE}test_rows_of_its_exports_are_cleaned_checked_and_counted",
        "declare/test_columns.py::test_which_of_several_rows_of_a_key_counts",
    ),
    held(
        "schema evolution: a column is added, and the rows stay",
        "warehouse/test_schema.py::test_a_new_column_is_added_and_the_rows_stay",
        "declare/test_columns.py::test_columns_that_nobody_declared",
    ),
    held(
        "alerts by mail and webhook",
        "operations/test_alerts.py::test_a_refused_file_is_reported_once_and_then_its_correction",
        "operations/test_alerts.py::test_the_command_tests_every_url",
    ),
    held("alerts by Slack", f"{HERE}test_an_alert_goes_to_slack"),
    held(
        "errors go to Sentry",
        "operations/test_sentry.py::test_what_fails_in_a_run",
        "operations/test_sentry.py::test_what_fails_in_the_api",
    ),
    held(
        "audit log: who, what, which file, when, and why it failed",
        "warehouse/test_audit.py::test_what_becomes_of_a_file",
        "warehouse/test_audit.py::test_rows_stay_as_they_are",
        "operations/test_pipeline.py::test_raw_bytes_that_vanished_fail_their_file_alone",
        f"{HERE}test_a_file_without_a_column_is_refused_and_says_which",
    ),
    partly(
        "standard formats: names, dates, currencies",
        "names and dates; none of its columns is an amount of money",
        f"{HERE}test_its_own_transformed_file_loads",
        "rows/test_validation.py::test_postgres_reads_every_date_as_we_do",
    ),
    partly(
        "outliers",
        "loads that are unlike the ones before are pointed out; a row is judged by the declared ranges only",
        "warehouse/test_anomalies.py::test_what_is_out_of_the_usual_range",
        "rows/test_validation.py::test_ranges",
    ),
    held(
        "S3 raw/: files as they arrived",
        "landing/test_raw_bucket.py::test_files_are_kept_in_the_bucket_and_loaded_from_it",
        "landing/test_raw_bucket.py::test_changed_bytes_are_not_taken",
    ),
    held(
        "processed/: files that are loaded are put away",
        "landing/test_inboxes_landing.py::test_loaded_files_are_archived_and_refused_ones_lie_beside_their_rejects",
    ),
    partly(
        "time travel",
        "each version of a row by its key; a table as of a time comes with the lake",
        "cli/test_cli.py::test_explain_tells_the_whole_story_of_a_row",
    ),
    different(
        "Spark", "one machine suffices for its rows: Polars reads and judges them in pieces, Postgres computes", FILES
    ),
    not_yet("curated/ in a lake", WITH_THE_LAKE),
    not_yet("Iceberg tables", WITH_THE_LAKE),
    not_yet("pruning of partitions", WITH_THE_LAKE),
    not_yet("a catalog by Glue or Hive", WITH_THE_LAKE),
    not_yet("discovery of schemas by Spark or Athena", WITH_THE_LAKE),
    not_yet("queries by Athena", WITH_THE_LAKE),
    different(
        "a default user admin",
        "a password that everybody knows protects nothing",
        f"{HERE}test_what_gives_no_token_says_why",
        "operations/test_deployment.py::test_no_password_has_a_default",
    ),
    partly(
        "Docker",
        "no container engine here: compose file and Dockerfile are validated, their commands run without containers",
        "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says",
        "operations/test_deployment.py::test_the_dockerfile_is_lint_free",
        "operations/test_deployment.py::test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together",
    ),
    different(
        "rate limits: 100 requests a day",
        "a setting, by the minute, of each key and address",
        f"{HERE}test_requests_and_wrong_passwords_are_limited_by_settings",
        "web/api/test_guard.py::test_each_key_has_its_own_share",
    ),
]

PATH, TOKENS = "/api/customers/", "/api/token-auth/"
PERSONAL = {"first_name", "last_name", "phone_1", "phone_2", "email", "website"}
IDS = [row["Customer Id"] for row in customers_files.sample()]
LEONARD = IDS[0]
REFUSED = "Unable to log in with provided credentials."


@dataclass(frozen=True)
class System(Live):
    """A platform that requires keys, with the rows of the sample, and a client without a key.

    Attributes:
        clerk: name and text of a key with the scope for personal data.
        analyst: name and text of a key with the scope for all other data.
    """

    clerk: tuple[str, str]
    analyst: tuple[str, str]

    def get(self, url: str = PATH, key: tuple[str, str] | None = None, **params: object) -> httpx.Response:
        _, secret = key or self.clerk
        headers = {"Authorization": f"Token {secret}"}
        return self.client.get(url, params={n: str(v) for n, v in params.items()} or None, headers=headers)

    def ids(self, key: tuple[str, str] | None = None, **params: object) -> list[str]:
        answer = self.get(key=key, **params)
        assert answer.status_code == 200, answer.text
        return [row["customer_id"] for row in answer.json()["results"]]


@contextmanager
def served(platform: Platform, **settings: object) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"api_auth": "always", **settings}.items():
            patch.setattr(platform.settings, name, value)
        site = Site(platform)
        with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client
        site.close()


@pytest.fixture(scope="module")
def system(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Its tests change no row, and send fewer wrong keys than the limit."""
    folder = tmp_path_factory.mktemp("customers")
    with open_platform(server, template, folder) as platform:
        (folder / "customers-100.csv").write_text(customers_files.SAMPLE)
        load_files(platform, customers, folder / "customers-100.csv")
        with platform.engine.begin() as conn:
            clerk = keys.create(conn, "clerk", ["read:customers"])
            analyst = keys.create(conn, "analyst", ["read"])
        with served(platform, api_failed_keys=1000) as client:
            yield System(platform, client, ("clerk", clerk), ("analyst", analyst))


# Requests

TODAY = dt.datetime.now(dt.UTC).date()
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ({}, sorted(IDS)),
        ({"city": "leonard"}, [LEONARD]),
        ({"country": "chil"}, [LEONARD]),
        ({"country": "CHIL", "city": "Leonard"}, [LEONARD]),
        ({"city": "leonard", "country": "djibouti"}, []),
        ({"city": "_eonard"}, []),
        ({"city": ""}, sorted(IDS)),
        ({"search": "baxter"}, [LEONARD]),
        ({"search": "SHERYL rasmussen"}, [LEONARD]),
        ({"search": "Vega-Gentry,lozano"}, [IDS[1]]),
        ({"search": "vmata@colon.com"}, [IDS[1]]),
        ({"search": "397.884"}, [LEONARD]),
        ({"ordering": "subscription_date"}, [IDS[2], IDS[3], IDS[0], IDS[4], IDS[1]]),
        ({"ordering": "-last_name"}, [IDS[3], IDS[1], IDS[2], IDS[4], IDS[0]]),
        ({"ordering": "-subscription_date", "limit": 1}, [IDS[1]]),
        ({"start_date": TODAY - DAY}, sorted(IDS)),
        ({"end_date": TODAY - 2 * DAY}, []),
        ({"end_date": TODAY + DAY}, sorted(IDS)),
        ({"start_date": TODAY + 2 * DAY, "ordering": "email"}, []),
        ({"start_date": f"{TODAY - DAY}T00:00:00Z", "end_date": f"{TODAY + DAY}T23:59:59+02:00"}, sorted(IDS)),
        ({"end_date": "9999-12-31", "start_date": "0001-01-01", "city": "LEONARD"}, [LEONARD]),
        ({"page_size": 1, "format": "json", "city": "leonard"}, [LEONARD]),
        ({"subscription_date__gte": "2021-04-23"}, [IDS[1]]),
    ],
)
def test_documented_requests(system: System, params: dict[str, object], ids: list[str]) -> None:
    assert system.ids(**params) == ids


def test_a_day_is_all_of_it_and_a_time_is_exact(system: System) -> None:
    (row,) = system.get(city="leonard").json()["results"]
    moment = dt.datetime.fromisoformat(row["ingested_at"])
    tick = dt.timedelta.resolution
    for params, hits in (
        ({"start_date": moment.date(), "end_date": moment.date()}, 5),
        ({"start_date": moment.date() + DAY}, 0),
        ({"end_date": moment.date() - DAY}, 0),
        ({"start_date": moment.isoformat(), "end_date": moment.isoformat()}, 5),
        ({"start_date": (moment + tick).isoformat()}, 0),
        ({"end_date": (moment - tick).isoformat()}, 0),
    ):
        assert len(system.ids(**params)) == hits, params


def test_rows_have_the_columns_of_the_system(system: System) -> None:
    body = system.get(city="leonard").json()
    assert (set(body), body["next"], body["previous"]) == ({"next", "previous", "results"}, None, None)
    (row,) = body["results"]
    (expected,) = (r for r in customers_files.sample() if r["Customer Id"] == LEONARD)
    assert [str(row[name]) for name in customers_files.COLUMNS] == list(expected.values())
    assert row["source_file"] == "customers-100.csv"


@pytest.mark.parametrize("ordering", ["email", "-last_name,index", "country", "customer_id"])
def test_pages_lead_to_every_row_and_back_and_tell_nobody(system: System, ordering: str) -> None:
    """Addresses are logged by proxies and remembered by browsers: those of pages hold no personal data."""
    whole = system.ids(ordering=ordering)
    pages, url = [], f"{PATH}?ordering={ordering}&limit=2&page_size=7"
    while url:
        body = system.get(url).json()
        pages.append([row["customer_id"] for row in body["results"]])
        for link in filter(None, (body["next"], body["previous"])):
            cursor = httpx.URL(link).params["cursor"]
            words = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("latin-1")
            assert not [v for row in body["results"] for n, v in row.items() if n in PERSONAL and v in words]
        back, url = body["previous"], body["next"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [customer for page in pages for customer in page] == whole
    assert system.get(back).json()["results"] == system.get(ordering=ordering, limit=4).json()["results"][2:]


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({"ordering": "shoe_size"}, 400, "no column 'shoe_size'"),
        ({"cursor": "garbage"}, 400, "cursor: not a valid"),
        ({"cursor": "gAAAAA", "ordering": "email"}, 400, "cursor: not a valid"),
        ({"start_date": "yesterday"}, 400, "start_date: 'yesterday' is not"),
        ({"end_date": "2024-02-30"}, 400, "end_date: '2024-02-30' is not"),
        ({"end_date": "\0"}, 400, r"end_date: '\x00' is not"),
        ({"start_date": "9" * 5000}, 400, "start_date: '999"),
        ({"city": "\0"}, 400, "city: '\\x00' contains a NUL character"),
        ({"search": "\0"}, 400, "NUL"),
        ({"search": "a " * 999}, 400, "words are too many"),
        ({"limit": "0"}, 400, "limit"),
        ({"limit": "many"}, 400, "limit"),
        ({"index": "one"}, 400, "index: 'one' is not a whole number"),
        ({"email__gt__lt": "x"}, 200, ""),
        ({"utm_source": "\0"}, 200, ""),
    ],
)
def test_what_cannot_be_answered_says_why(system: System, params: dict[str, str], status: int, words: str) -> None:
    answer = system.get(**params)
    assert answer.status_code == status, answer.text
    assert words in answer.json().get("detail", "")


def test_unknown_parameters_are_ignored_and_logged(system: System, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="mini_platform.web.api.replaced")
    assert system.ids(page_size=1, page=3, email__is="vmata@colon.com", city__contains="leonard") == [LEONARD]
    (record,) = (record for record in caplog.records if record.name == "mini_platform.web.api.replaced")
    assert record.__dict__["parameters"] == ["email__is", "page", "page_size"]
    assert "vmata" not in str(record.__dict__)


# Tokens


def test_a_token_is_a_key(system: System) -> None:
    name, secret = system.clerk
    credentials = {"username": name, "password": secret}
    multipart = {field: (None, value) for field, value in credentials.items()}
    for sent in ({"json": credentials}, {"data": credentials}, {"files": multipart}, {"json": credentials}):
        answer = system.client.post(TOKENS, **sent)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()) == (200, {"token": secret}), sent
        headers = {"Authorization": f"Token {answer.json()['token']}"}
        assert len(system.client.get(PATH, headers=headers).json()["results"]) == len(IDS)
    answer = system.client.get("/api/stations/", headers=headers)
    assert answer.status_code == 403, "it has the scopes of the key"


def body_of(username: object, password: object) -> dict[str, Any]:
    return {"json": {"username": username, "password": password}}


@pytest.mark.parametrize(
    ("sent", "status", "members"),
    [
        (body_of("admin", "admin"), 400, {"non_field_errors": [REFUSED]}),
        (body_of("admin", "KEY"), 400, {"non_field_errors": [REFUSED]}),
        (body_of("clerk", "mp_aaaaaaaa_" + "a" * 43), 400, {"non_field_errors": [REFUSED]}),
        ({"content": rb'{"username": "clerk", "password": "\u0000\ud800"}', "headers": JSON},
         400, {"non_field_errors": [REFUSED]}),
        (body_of("clerk", 10**400), 400, {"non_field_errors": [REFUSED]}),
        ({"json": {"username": "clerk"}}, 400, {"password": ["This field is required."]}),
        (body_of(" ", None), 400, {
            "username": ["This field may not be blank."], "password": ["This field may not be null."],
        }),
        (body_of(["clerk"], True), 400, {
            "username": ["Not a valid string."], "password": ["Not a valid string."],
        }),
        ({"json": ["clerk"]}, 400, {
            "non_field_errors": ["Invalid data. Expected a dictionary, but got list."],
        }),
        ({}, 400, {"username": ["This field is required."], "password": ["This field is required."]}),
        ({"data": {"username": "clerk"}}, 400, {"password": ["This field is required."]}),
        ({"files": {"username": ("a.txt", b"x"), "password": (None, "x")}}, 400, {
            "username": ["Not a valid string."],
        }),
        ({"content": b"username=%ff%00&&=&password", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
         400, {"password": ["This field may not be blank."]}),
        ({"content": b'{"username": ', "headers": JSON}, 400, {}),
        ({"content": b"[" * 50_000, "headers": JSON}, 400, {}),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json; charset=utf-8"}}, 400, {}),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, {}),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, {}),
        ({"content": b"clerk", "headers": {"Content-Type": "text/plain"}}, 415, {}),
        (body_of("clerk", "x" * 70_000), 413, {"max_bytes": 2**16}),
        ({"content": iter([b"x" * 70_000])}, 413, {"max_bytes": 2**16}),
    ],
)  # fmt: skip
def test_what_gives_no_token_says_why(
    system: System, sent: dict[str, Any], status: int, members: dict[str, object]
) -> None:
    if sent == body_of("admin", "KEY"):
        sent = body_of("admin", system.clerk[1])  # a key by the name of another one
    answer = system.client.post(TOKENS, **sent)
    assert_refused(answer, status)
    assert members.items() <= answer.json().items()
    assert "token" not in answer.json()


def test_half_a_body_gives_no_token_and_hinders_nobody(system: System) -> None:
    name, secret = system.clerk
    credentials = json.dumps({"username": name, "password": secret}).encode()
    assert b" 200 " not in post_half(system, TOKENS, Body(credentials, JSON)).partition(b"\r\n")[0]
    assert system.client.post(TOKENS, content=credentials, headers=JSON).json() == {"token": secret}


def test_requests_and_wrong_passwords_are_limited_by_settings(system: System) -> None:
    name, secret = system.clerk
    headers = {"Authorization": f"Token {secret}"}
    with served(system.platform, api_reads=2, api_failed_keys=2) as client:
        assert [client.get(PATH, headers=headers).status_code for _ in range(3)] == [200, 200, 429]
        wrong, right = ({"username": name, "password": key} for key in ("guessed", secret))
        assert [client.post(TOKENS, json=wrong).status_code for _ in range(3)] == [400, 400, 429]
        refused = client.post(TOKENS, json=wrong)
        assert int(refused.headers["retry-after"]) > 0
        assert "Too many invalid keys" in refused.json()["detail"]
        assert client.get(PATH, headers={"Authorization": "Token guessed"}).status_code == 429, "tried in either way"
        assert client.post(TOKENS, json=right).json() == {"token": secret}, "which stops no good one"


# Personal data


def test_without_the_scope_personal_data_is_withheld(system: System) -> None:
    clear, masked = (system.get(key=key).json()["results"] for key in (system.clerk, system.analyst))
    others = set(clear[0]) - PERSONAL
    assert [{n: row[n] for n in others} for row in masked] == [{n: row[n] for n in others} for row in clear]
    assert {row[name] for row in masked for name in PERSONAL} == {"***"}


@pytest.mark.parametrize("word", ["sheryl", "baxter", "zunigavanessa@smith.info", "229.077", "stephenson.com"])
def test_without_the_scope_personal_data_is_not_searched(system: System, word: str) -> None:
    assert system.ids(search=word) == [LEONARD]
    assert system.ids(system.analyst, search=word) == []
    assert system.ids(system.analyst, search="rasmussen leonard CHILE") == [LEONARD]


@pytest.mark.parametrize("name", sorted(PERSONAL))
def test_without_the_scope_personal_data_neither_filters_nor_sorts(system: System, name: str) -> None:
    cursor = httpx.URL(system.get(ordering=name, limit=2).json()["next"]).params["cursor"]
    for params in (
        {name: "x"}, {f"{name}__isnull": "true"}, {f"{name}__gt": "m"}, {f"{name}__contains": "a"}, {"ordering": name},
        {"ordering": f"city,-{name}"}, {"ordering": name, "cursor": cursor}, {"cursor": cursor},
    ):  # fmt: skip
        assert system.get(**params).status_code in {200, 400}
        answer = system.get(key=system.analyst, **params)
        assert answer.status_code == (400 if params == {"cursor": cursor} else 403), params
        assert answer.json()["detail"]
        assert answer.status_code == 400 or "personal=true, which takes the scope read:customers" in answer.text


def test_only_a_key_made_for_it_shows_personal_data_to_a_client_that_does_not_ask(system: System) -> None:
    """Clients of the replaced system go on with such a key, on loopback too; others, and people, have to ask."""
    with system.platform.engine.begin() as conn:
        admin = ("admin", keys.create(conn, "admin", ["admin"]))
    assert system.get().json()["results"][0]["email"] != "***"
    assert system.get(personal="false").json()["results"][0]["email"] == "***"
    assert system.get(key=admin).json()["results"][0]["email"] == "***"
    assert "@" in system.get(key=admin, personal="true").json()["results"][0]["email"]
    assert system.get(key=system.analyst, personal="true").status_code == 403
    with served(system.platform, api_auth="auto") as client:
        headers = {"Authorization": f"Token {system.clerk[1]}"}
        assert client.get(PATH).json()["results"][0]["email"] == "***"
        assert "@" in client.get(PATH, headers=headers).json()["results"][0]["email"]
        assert client.get(PATH, headers={"Authorization": "Token guessed"}).status_code == 401


def test_without_the_scope_the_rest_works(system: System) -> None:
    params = {"country": "chil", "start_date": TODAY - DAY, "ordering": "-subscription_date", "fields": "customer_id"}
    assert system.ids(system.analyst, **params) == [LEONARD]
    page = system.get(key=system.analyst, ordering="city", limit=2).json()
    assert len(system.get(page["next"], key=system.analyst).json()["results"]) == 2
    known = system.get(key=system.clerk).headers["etag"]
    headers = {"Authorization": f"Token {system.analyst[1]}", "If-None-Match": known}
    assert system.client.get(PATH, headers=headers).status_code == 200, "another answer by the same address"
    exported = system.client.get(PATH, headers={**headers, "Accept": "text/csv"}).text
    assert "Chile" in exported
    assert "smith.info" not in exported


def test_who_may_not_read_gets_the_old_codes(system: System) -> None:
    with system.platform.engine.begin() as conn:
        writer = keys.create(conn, "writer", ["write", "read:weather"])
    answers = [
        system.client.get(PATH),
        system.client.get(PATH, headers={"Authorization": "Token guessed"}),
        system.client.get(PATH, headers={"Authorization": f"Token {writer}"}),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 403]
    assert all(answer.json()["detail"] for answer in answers)
    assert "read:customers" in answers[2].json()["detail"]


# Files


def accounting(platform: Platform, file_id: int) -> dict[str, Any]:
    with platform.engine.connect() as conn:
        row = conn.execute(select(files).where(files.c.file_id == file_id)).mappings().one()
    return dict(row)


def stands(platform: Platform) -> list[list[str]]:
    """Return the 12 columns of the table, as texts, by index."""
    with platform.engine.connect() as conn:
        columns = ", ".join(customers_files.COLUMNS)
        rows = conn.execute(text(f"SELECT {columns} FROM production.customers ORDER BY index"))  # noqa: S608
        return [["" if value is None else str(value) for value in row] for row in rows]


def test_every_form_of_file_has_the_same_rows(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    drawn, _ = customers_files.drawn(40)
    rows = [*customers_files.sample(), *({**row, "Index": str(int(row["Index"]) + 5)} for row in drawn)]
    for number, (name, write) in enumerate(
        (
            ("customers-100.csv", customers_files.as_csv),
            ("list.json", customers_files.as_json_list),
            ("nested.json", customers_files.as_nested_json),
        )
    ):
        (tmp_path / name).write_text(write(rows))
        (file_id,) = pipeline(customers, tmp_path / name)
        entry = accounting(platform, file_id)
        assert (entry["status"], entry["rows_read"], entry["rows_rejected"]) == ("loaded", 45, 0), name
        assert (entry["rows_inserted"], entry["rows_unchanged"]) == ((45, 0) if number == 0 else (0, 45)), name
    assert stands(platform) == [[cell.strip() for cell in row.values()] for row in rows]


def test_its_own_transformed_file_loads(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    """It has two columns by the names of columns that the platform fills in, and writes days as times."""
    (tmp_path / "transformed.csv").write_text(customers_files.transformed(customers_files.sample()))
    (file_id,) = pipeline(customers, tmp_path / "transformed.csv")
    entry = accounting(platform, file_id)
    assert (entry["status"], entry["rows_inserted"], entry["rows_rejected"], entry["error"]) == ("loaded", 5, 0, None)
    assert stands(platform) == [list(row.values()) for row in customers_files.sample()]
    with platform.engine.connect() as conn:
        filled = conn.execute(
            text("SELECT DISTINCT source_file, ingested_at > now() - interval '1 hour' FROM production.customers")
        )
        assert [tuple(row) for row in filled] == [("transformed.csv", True)]


def test_rows_of_its_exports_are_cleaned_checked_and_counted(
    platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    rows, broken = customers_files.drawn(120, dirty=0.1, seed=7)
    assert set(broken) == {rule for rule, _ in customers_files.DIRT}
    again = [row | {"City": "Moved"} for row in rows[:10]]
    (tmp_path / "export.csv").write_text(customers_files.as_csv([*rows, *again]))
    (file_id,) = pipeline(customers, tmp_path / "export.csv")
    entry = accounting(platform, file_id)
    counts = {rule: count for rule, count in entry["rule_counts"].items() if count}
    rejected = sum(broken.values())
    assert entry["status"] == "loaded"
    assert entry["rows_read"] == 130
    assert set(counts) == set(broken)
    assert entry["rows_rejected"] >= rejected
    assert entry["rows_inserted"] + rejected == 120
    assert entry["rows_superseded"] + entry["rows_rejected"] - rejected == 10
    table = {row[1]: row for row in stands(platform)}
    assert {row[5] for row in table.values()} >= {"Moved", "Québec"}
    assert all(cell == cell.strip() for row in table.values() for cell in row)
    with platform.engine.connect() as conn:
        empty = conn.scalar(text("SELECT count(*) FROM production.customers WHERE phone_1 = '' OR website = ''"))
        reasons = conn.scalars(text("SELECT DISTINCT unnest(_rules) FROM quarantine.customers")).all()
    assert (empty, set(reasons)) == (0, set(broken))


def test_a_file_without_a_column_is_refused_and_says_which(
    platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    reader = csv.DictReader(io.StringIO(customers_files.SAMPLE))
    (tmp_path / "short.csv").write_text(
        customers_files.as_csv([{n: v for n, v in row.items() if n not in {"Email", "Country"}} for row in reader])
    )
    (file_id,) = pipeline(customers, tmp_path / "short.csv")
    entry = accounting(platform, file_id)
    assert entry["status"] == "refused"
    assert "country" in entry["error"]
    assert "email" in entry["error"]
    assert stands(platform) == []


# Alerts


def test_an_alert_goes_to_slack(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an incoming webhook, to a server that answers as Slack's does."""
    assert home.parent.exists()
    with webhook() as hook:
        hook.answer = b"ok"
        monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", f"http://{hook.url}/services")
        monkeypatch.setenv("MINI_PLATFORM_ALERTS", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#data")
        (slack,) = services(load_settings())
        assert slack.send("File refused: customers", "customers.csv lacks email") is None
        (message,) = hook.bodies
        assert message["channel"] == "#data"
        assert "customers.csv lacks email" in json.dumps(message)
        hook.status = 403
        assert "403" in str(slack.send("File refused: customers", "again"))
