"""Naughty strings through every channel of the API: as values, names of files, parameters and parts of paths."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline, open_platform
from mini_platform_tests.support.strings import NAUGHTY
from mini_platform_tests.support.uploads import loading
from mini_platform_tests.support.web import serving

UPLOAD = "/api/datasets/records/files/"
ROWS = "/api/datasets/records/rows/"


def listed(client: httpx.Client, path: str, **params: str | int) -> list[dict[str, object]]:
    answer = client.get(path, params={"limit": 1000, **params})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


@pytest.fixture
def sent(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    """A CSV file and a JSON file of these strings, sent and loaded."""
    items = [{"id": f"{n}", "name": words, "description": words} for n, words in enumerate(NAUGHTY)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "name", "description"])
    writer.writeheader()
    writer.writerows(items)
    with loading(platform, pipeline, "records"):
        for name, body in (("strings.csv", text.getvalue()), ("strings.json", json.dumps(items))):
            loaded = client.post(UPLOAD, params={"name": name, "wait": 60}, content=body.encode()).json()
            assert (loaded["status"], loaded["rows_inserted"]) == ("loaded", len(NAUGHTY)), loaded


@pytest.mark.usefixtures("sent")
def test_values_come_back_equal(client: httpx.Client) -> None:
    """Composed, as every text is that is loaded: what looks the same is the same."""
    composed = [unicodedata.normalize("NFC", words) for words in NAUGHTY]
    for source in ("csv", "json"):
        rows = listed(client, ROWS, source=source)
        assert {int(str(row["source_id"])): (row["name"], row["description"]) for row in rows} == {
            n: (words, words) for n, words in enumerate(composed)
        }
    records = client.get("/data", params={"source": "csv", "page_size": 100}).json()["data"]
    assert sorted(row["name"] for row in records) == sorted(composed)
    for words in composed:
        assert {row["name"] for row in listed(client, ROWS, name=words, source="csv")} == {words}
        for path in (ROWS, "/api/datasets/records/rows.csv", "/data"):
            named = client.get(path, params={"search": words})
            assert named.status_code == 200, named.text
            assert len(named.content) > 100, "found"


@pytest.fixture(scope="module")
def shared(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a web process for tests that do not mind the files of each other."""
    with open_platform(server, template, tmp_path_factory.mktemp("shared")) as platform:
        site = Site(platform)
        with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client
        site.close()


def test_file_names_come_back_equal(shared: httpx.Client) -> None:
    names = [f"{words.rpartition('/')[2]}.csv" for words in NAUGHTY]
    for words, name in zip(NAUGHTY, names, strict=True):
        answer = shared.post(UPLOAD, params={"name": f"{words}.csv"}, content=b"id,name\n1,x\n")
        assert (answer.status_code, answer.json()["name"]) == (202, name)
        assert {row["name"] for row in listed(shared, UPLOAD, name=name)} == {name}


@pytest.mark.parametrize(
    "path",
    [
        f"{ROWS}?{{word}}={{words}}",
        "/api/customers/?{word}={words}",
        "/data?{word}={words}",
        "/api/metrics/daily/?station_id={words}",
        "/api/metrics/download/?station_id={words}",
        "/api/datasets/{words}/",
        "/api/datasets/records/analytics/{words}/",
        "/api/datasets/records/files/{words}/",
    ],
)
def test_no_parameter_is_taken_for_anything_else(shared: httpx.Client, path: str) -> None:
    """Each string in three of the parameters, each parameter with a third of the strings."""
    words = ("search", "cursor", "ordering", "fields", "limit", "name", "source_id__in", "value__gte", "city", "page")
    for n, naughty in enumerate(NAUGHTY):
        for word in words[n % 3 :: 3] if "{word}" in path else ("",):
            answer = shared.get(path.format(word=word, words=quote(naughty, safe="")))
            assert answer.status_code in (200, 307, 400, 404, 422), (answer.url, answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["detail"]


@pytest.mark.parametrize(
    "words", ["%00", "a%00b", "%ff%fe", "%ed%a0%80", "%", "%zz", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "a" * 8000]
)
def test_bytes_that_are_no_text_are_nobodys_mistake_but_the_clients(shared: httpx.Client, words: str) -> None:
    filtered = (f"{ROWS}?name={words}", f"{ROWS}?{words}=1", f"/data?search={words}", f"/records?search={words}")
    parts = [
        f"{start}{words}" for start in ("/api/datasets/", "/datasets/", "/files/", "/static/", "/api/swagger/", "/")
    ]
    for path in (*filtered, *parts, f"/api/metrics/daily/?station_id={words}", f"/login?then={words}"):
        answer = shared.get(path, headers={"Accept": "text/html"})
        assert answer.status_code in (200, 307, 400, 404, 422), (path, answer.text)
        assert shared.post(f"{UPLOAD}?name={words}.csv", content=b"id\n").status_code in (202, 400)


def test_payloads_are_kept_as_they_are(client: httpx.Client, platform: Platform) -> None:
    for naughty in NAUGHTY:
        body = json.dumps({"time_stamp": naughty, "data": [naughty], naughty: None}).encode()
        raw_id = client.post("/ingest", content=body).json()["raw_id"]
        sha256 = client.get(f"/api/datasets/signals/files/{raw_id}/").json()["sha256"]
        assert platform.store.path(sha256).read_bytes() == body
