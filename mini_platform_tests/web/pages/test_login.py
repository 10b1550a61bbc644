"""The form that takes keys: pages send to it, and show what the key may read."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support.web import serving


@pytest.fixture
def guarded(platform: Platform, samples: None) -> Iterator[httpx.Client]:
    platform.settings.api_auth = "always"
    site = Site(platform)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, headers={"Accept": "text/html"}) as client:
        yield client
    site.close()


def key(platform: Platform, *scopes: str) -> str:
    with platform.engine.begin() as conn:
        return keys.create(conn, "test", scopes)


def test_who_has_no_key_is_sent_to_the_form_and_back(guarded: httpx.Client, platform: Platform) -> None:
    answer = guarded.get("/weather?station=SEA")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?then=%2Fweather%3Fstation%3DSEA")
    form = guarded.get(answer.headers["location"])
    assert 'value="/weather?station=SEA"' in form.text
    wrong = guarded.post("/login", data={"key": "nonsense", "then": "/"})
    assert wrong.status_code == 401
    assert 'role="alert"' in wrong.text
    right = guarded.post("/login", data={"key": key(platform, "read"), "then": "/weather?station=SEA"})
    assert (right.status_code, right.headers["location"]) == (303, "/weather?station=SEA")
    assert guarded.get("/weather?station=SEA").status_code == 200
    assert '<form method="post" action="/logout">' in guarded.get("/weather").text
    guarded.post("/logout", headers={"Origin": str(guarded.base_url).rstrip("/")})
    assert guarded.get("/weather").status_code == 303


def test_nothing_of_a_session_or_a_person_is_stored(guarded: httpx.Client, platform: Platform) -> None:
    """Keys, sessions, and answers with personal data, masked or not; what is neither stays in the caches of its readers."""
    secret = key(platform, "read", "read:customers", "write")
    reader = {"Authorization": f"Bearer {secret}"}
    for response, stored in (
        (guarded.get("/login"), False),
        (guarded.post("/login", data={"key": "nonsense"}), False),
        (guarded.get("/customers", headers=reader), False),
        (guarded.get("/api/customers/", headers=reader), False),
        (guarded.get("/api/datasets/customers/rows/", headers=reader | {"Accept": "text/csv"}), False),
        (guarded.post("/api/token-auth/", json={"username": "test", "password": secret}), False),
        (guarded.get("/weather", headers=reader), True),
        (guarded.get("/api/datasets/weather/rows/", headers=reader), True),
        (guarded.post("/login", data={"key": secret}), False),
        (guarded.get("/weather"), False),
        (guarded.post("/logout"), False),
    ):
        what = (response.request.method, response.request.url.path, response.status_code)
        assert (response.headers.get("cache-control") == "no-store") is not stored, what
        assert response.status_code < 500, what
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_form_has_a_size(guarded: httpx.Client) -> None:
    assert guarded.post("/login", data={"key": "x" * 2**17}).status_code == 413
    for parts, status in ((1, 401), (100, 401), (101, 400)):
        assert guarded.post("/login", files=[("key", b"x")] * parts).status_code == status


@pytest.mark.parametrize("path", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example"])
def test_the_form_leads_nowhere_else(guarded: httpx.Client, platform: Platform, path: str) -> None:
    answer = guarded.post("/login", data={"key": key(platform, "read"), "then": path})
    assert answer.headers["location"] == "/"


def test_personal_data_takes_its_scope(guarded: httpx.Client, platform: Platform) -> None:
    guarded.post("/login", data={"key": key(platform, "read")})
    for path in ("/customers", "/sales", "/datasets/customers", "/quality?dataset=sales", "/files?dataset=customers"):
        answer = guarded.get(path)
        assert answer.status_code == 403, path
        assert "key" in answer.text
    with platform.engine.connect() as conn:
        (file_id,) = conn.exec_driver_sql("SELECT min(file_id) FROM ops.files WHERE dataset = 'customers'").one()
    assert guarded.get(f"/files/{file_id}").status_code == 403
    for path in ("/", "/files", "/runs", "/quality"):
        assert "nested.json" not in guarded.get(path).text, path
    assert guarded.post(f"/files/{file_id}/reprocess").status_code == 403
    guarded.post("/login", data={"key": key(platform, "read", "read:customers")})
    assert guarded.get("/customers").status_code == 200


def test_a_key_that_only_reads_is_shown_nothing_to_change(guarded: httpx.Client, platform: Platform) -> None:
    guarded.post("/login", data={"key": key(platform, "read")})
    assert 'id="upload"' not in guarded.get("/files").text
    guarded.post("/login", data={"key": key(platform, "read", "write")})
    assert 'id="upload"' in guarded.get("/files").text
