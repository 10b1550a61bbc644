"""The paths of the replaced systems: keys, and a database that is away. Their requests are replayed in `replaced/`."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import make_url

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support.processes import away
from mini_platform_tests.support.web import serving

WEATHER = "station_id,date,temp_c,precip_mm\nA,2024-01-01,1.5,0\n"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/data?page_size=101", 422, "page_size"),
        ("/data?page_size=0", 422, "page_size"),
        ("/data?page=0", 422, "page"),
    ],
)
def test_what_cannot_be_answered_says_why(client: httpx.Client, path: str, status: int, message: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert message in answer.json()["detail"]
    assert answer.json() | {"error": answer.json()["detail"], "status": status} == answer.json()


READS = (
    *("/api/stations/", "/api/metrics/daily/", "/api/metrics/summary/", "/api/metrics/download/", "/api/customers/"),
    *("/data", "/stats", "/api/quality/?table=staging", "/metrics"),
)


def _responses(client: httpx.Client, headers: dict[str, str]) -> dict[str, httpx.Response]:
    """Return the response of every path to one request."""
    answers = {path: client.get(path, headers=headers) for path in READS}
    answers["/ingest"] = client.post("/ingest", json={"data": [1]}, headers=headers)
    answers["/process"] = client.post("/process", params={"wait": 0}, headers=headers)
    file = {"file": ("a.csv", WEATHER)}
    return answers | {"/api/import/": client.post("/api/import/", params={"wait": 0}, files=file, headers=headers)}


@pytest.mark.parametrize("header", ["Authorization: Token {}", "x-api-key: {}"])
def test_keys_as_the_replaced_systems_took_them(platform: Platform, samples: None, header: str) -> None:
    platform.settings.api_auth = "always"
    with platform.engine.begin() as conn:
        key = keys.create(conn, "test", ["read", "write", "read:customers"])
    site = Site(platform)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert {answer.status_code for answer in _responses(client, {}).values()} == {401}
        assert all(client.get(path).status_code == 200 for path in ("/health", "/api/health/")), "for load balancers"
        name, _, value = header.format(key).partition(": ")
        answers = _responses(client, {name: value})
        assert {path: answer.status_code for path, answer in answers.items() if answer.status_code != 200} == {
            "/ingest": 202, "/api/import/": 202
        }  # fmt: skip
    site.close()


def test_without_the_database_every_path_says_so(client: httpx.Client, database_url: str, platform: Platform) -> None:
    name = str(make_url(database_url).database)
    server = make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    with away(server, name):
        answers = _responses(client, {})
    assert answers.pop("/metrics").status_code == 200, "which says that it is away"
    for path, answer in answers.items():
        assert answer.status_code == 503, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "database cannot be reached" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert [path for path in platform.store.folder.rglob("*") if path.is_file()] == [], "what is not in the ledger"
    assert client.get("/api/stations/").status_code == 200
