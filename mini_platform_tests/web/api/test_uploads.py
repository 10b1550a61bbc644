"""Files sent over HTTP, to a real server on a real database: what is kept, what it is called, and what is refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from mini_platform.landing.retention import drop_old
from mini_platform.platform import Platform
from mini_platform.web.api import incoming
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline, open_platform
from mini_platform_tests.support.disks import mount
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.strings import NAMES
from mini_platform_tests.support.uploads import GOOD, HEADER, URL, form, ledger, loading, problem, stored, until
from mini_platform_tests.support.web import serving

WEATHER = weather
DIRTY = HEADER + b"OSL,2026-01-01,-4.5,0.3\nOSL,2026-01-01,-5,0.3\nOSL,2026-01-02,warm,0\n"
REFUSED = b"who,what\n1,2\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_form(client: httpx.Client, platform: Platform) -> None:
    answer = client.post(URL, files={"file": ("oslo.csv", GOOD, "text/csv")})
    assert answer.status_code == 202, answer.text
    (row,) = ledger(platform)
    body = answer.json()
    assert answer.headers["location"] == body["url"] == f"{URL}{row.file_id}/"
    assert (row.name, row.sha256, row.bytes, row.channel, row.status) == (
        "oslo.csv", sha256(GOOD), len(GOOD), "upload", "landed",
    )  # fmt: skip
    assert {name: body[name] for name in ("file_id", "name", "version", "sha256", "status", "unchanged", "same_as")} == {
        "file_id": row.file_id, "name": "oslo.csv", "version": 1, "sha256": row.sha256, "status": "landed",
        "unchanged": False, "same_as": None,
    }  # fmt: skip
    assert body["arrived_at"].endswith("Z")
    assert platform.store.path(row.sha256).read_bytes() == GOOD
    assert stored(platform) == [row.sha256]


@pytest.mark.parametrize(
    ("headers", "query", "name"),
    [
        ({}, {"name": "oslo.csv"}, "oslo.csv"),
        ({"Content-Disposition": 'attachment; filename="x;y.csv"'}, {}, "x;y.csv"),
        ({"Content-Disposition": 'attachment; filename="x.csv"'}, {"name": "first.csv"}, "first.csv"),
        ({"Content-Type": "text/csv; charset=utf-8"}, {}, f"upload-{sha256(GOOD)[:12]}.csv"),
        ({"Content-Type": "text/plain"}, {}, f"upload-{sha256(GOOD)[:12]}.txt"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, {}, f"upload-{sha256(GOOD)[:12]}.csv"),
        ({}, {}, f"upload-{sha256(GOOD)[:12]}.csv"),
    ],
)
def test_raw(
    client: httpx.Client, platform: Platform, headers: dict[str, str], query: dict[str, str], name: str
) -> None:
    answer = client.post(URL, params=query, headers=headers, content=GOOD)
    assert answer.status_code == 202, answer.text
    assert [(row.name, row.sha256) for row in ledger(platform)] == [(name, sha256(GOOD))]
    assert answer.json()["name"] == name


def test_waits_until_it_is_loaded(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    with loading(platform, pipeline):
        answer = client.post(URL, params={"wait": 30}, files={"file": ("oslo.csv", DIRTY)})
    assert answer.status_code == 200
    figures = {name: value for name, value in answer.json().items() if name.startswith("rows_")}
    assert answer.json()["status"] == "loaded"
    assert figures == {
        "rows_read": 3, "rows_inserted": 1, "rows_updated": 0, "rows_unchanged": 0, "rows_superseded": 1,
        "rows_rejected": 1,
    }  # fmt: skip


def test_refused_files_are_reported(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    with loading(platform, pipeline):
        answer = client.post(URL, params={"wait": 30}, files={"file": ("oslo.csv", REFUSED)})
    assert (answer.status_code, answer.json()["status"]) == (200, "refused")
    assert "station_id" in answer.json()["error"]
    again = client.post(URL, files={"file": ("oslo.csv", REFUSED)})
    assert (again.status_code, again.json()["status"]) == (200, "unchanged")
    assert f"it repeats file {answer.json()['file_id']}, which is refused" in again.json()["error"]


def test_a_small_file_of_rejects_alone_is_loaded(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    sent = {"file": ("oslo.csv", HEADER + b"OSL,2026-01-02,warm,0\n")}
    with loading(platform, pipeline):
        answer = client.post(URL, params={"wait": 30}, files=sent)
        imported = client.post("/api/import/", files=sent)
    known = answer.json()
    assert (answer.status_code, known["status"], known["error"]) == (200, "loaded", None)
    assert (known["rows_read"], known["rows_inserted"], known["rows_rejected"]) == (1, 0, 1)
    counts = {"rows_in_file": 1, "rows_valid": 0, "rows_invalid": 1, "rows_upserted": 0}
    assert (imported.status_code, imported.json() | counts) == (200, imported.json())


def test_wait_comes_to_its_end(client: httpx.Client) -> None:
    answer = client.post(URL, params={"wait": 0.5}, files={"file": ("oslo.csv", GOOD)})
    assert (answer.status_code, answer.json()["status"]) == (202, "landed")
    problem(client.post(URL, params={"wait": 1e9}, files={"file": ("oslo.csv", GOOD)}), 422, "wait")


def test_repeated(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    first = client.post(URL, params={"name": "a.csv"}, content=GOOD).json()
    early = client.post(URL, params={"name": "a.csv"}, content=GOOD)
    assert (early.status_code, early.json()["status"], early.json()["same_as"]) == (202, "unchanged", first["file_id"])
    pipeline(WEATHER)
    again = client.post(URL, params={"name": "a.csv"}, content=GOOD)
    assert (again.status_code, again.json()["unchanged"], again.json()["same_as"]) == (200, True, first["file_id"])
    other = client.post(URL, params={"name": "a.csv"}, content=DIRTY).json()
    back = client.post(URL, params={"name": "a.csv"}, content=GOOD).json()
    assert [first["version"], other["version"], back["version"]] == [1, 2, 3]
    assert stored(platform) == sorted([sha256(GOOD), sha256(DIRTY)])


def test_dropped_by_retention_is_not_kept_again(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    client.post(URL, params={"name": "a.csv"}, content=GOOD)
    pipeline(WEATHER)
    assert drop_old(platform.engine, WEATHER, platform.store, dt.timedelta(seconds=0))
    assert client.post(URL, params={"name": "a.csv"}, content=GOOD).json()["unchanged"] is True
    assert stored(platform) == []


@pytest.mark.parametrize("escape", ["browser", "curl"])
def test_names_are_data(client: httpx.Client, platform: Platform, escape: str) -> None:
    """Browsers escape only what would end the name, and by percent signs; curl did so by backslashes."""
    before, names = set(Path.cwd().iterdir()), []
    for name, shown in NAMES:
        sent = name.replace(b"\n", b"%0A").replace(b"\r", b"%0D")
        sent = sent.replace(b'"', b"%22") if escape == "browser" else sent.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        body, headers = form((b'name="file"; filename="' + sent + b'"', GOOD))
        answer = client.post(URL, content=body, headers=headers)
        assert answer.status_code == 202, (name, answer.text)
        # The path that old browsers sent is left out.
        names.append(shown.rpartition("\\")[2] if shown[1:3] == ":\\" else shown)
        assert answer.json()["name"] == names[-1]
    assert [row.name for row in ledger(platform)] == names
    assert stored(platform) == [sha256(GOOD)]
    assert set(Path.cwd().iterdir()) == before


def test_names_in_the_query_are_data(client: httpx.Client, platform: Platform) -> None:
    names = [(name, shown) for name, shown in NAMES if name.decode("utf-8", "replace") == shown]
    for name, shown in names:
        assert client.post(f"{URL}?name={quote(name)}", content=GOOD).json()["name"] == shown
    assert [row.name for row in ledger(platform)] == [shown for _, shown in names]


def test_names_as_httpx_writes_them(client: httpx.Client, platform: Platform) -> None:
    names = [shown for name, shown in NAMES if name.decode("utf-8", "replace") == shown and "C:\\" not in shown]
    for name in names:
        assert client.post(URL, files={"file": (name, GOOD)}).json()["name"] == name
    assert [row.name for row in ledger(platform)] == names


@pytest.mark.parametrize(
    ("sent", "name"),
    [("../../etc/passwd.csv", "passwd.csv"), ("api/1/page-000001.csv", "page-000001.csv"), ("/x.csv", "x.csv")],
)
def test_folders_are_left_out(client: httpx.Client, sent: str, name: str) -> None:
    assert client.post(URL, files={"file": (sent, GOOD)}).json()["name"] == name
    assert client.post(URL, params={"name": sent}, content=GOOD).json()["name"] == name


@pytest.fixture(scope="module")
def unused(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of which nothing is taken: one for all that is refused."""
    with open_platform(server, template, tmp_path_factory.mktemp("refused")) as platform:
        yield platform


@pytest.fixture(scope="module")
def refuser(unused: Platform) -> Iterator[httpx.Client]:
    site = Site(unused)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
    site.close()


@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("oslo.xlsx", 415, r"end in \.csv, \.csv\.gz"),
        ("csv", 415, "end in"),
        ("oslo.csv ", 415, "end in"),
        ("oslo.csv/", 400, "no name"),
        ("a\0b.csv", 400, "NUL"),
        ("x" * 252 + ".csv", 400, "255 bytes"),
        ("é" * 126 + ".csv", 400, "255 bytes"),
    ],
)
def test_names_that_cannot_be_taken(
    refuser: httpx.Client, unused: Platform, name: str, status: int, detail: str
) -> None:
    problem(refuser.post(URL, params={"name": name}, content=GOOD), status, detail)
    problem(refuser.post(URL, files={"file": (name, GOOD)}), status, detail)
    assert (ledger(unused), stored(unused)) == ([], [])


FILE = b'name="file"; filename="oslo.csv"'
WHOLE, TYPE = form((FILE, GOOD))


@pytest.mark.parametrize(
    ("body", "headers", "detail"),
    [
        (b"", {}, "empty"),
        (form((FILE, b""))[0], TYPE, "empty"),
        (form((b'name="file"; filename=""', b""))[0], TYPE, "No file was chosen"),
        (form((b'name="other"; filename="oslo.csv"', GOOD))[0], TYPE, "no part with the name `file`"),
        (b"--xyz--\r\n", TYPE, "no part"),
        (form((FILE, GOOD), (FILE, GOOD))[0], TYPE, "several parts"),
        (form(*[(b'name="other"', b"x")] * 100, (FILE, GOOD))[0], TYPE, "more than 100 parts"),
        (WHOLE[:-8], TYPE, "ends too soon"),
        (WHOLE[: WHOLE.index(b"OSL")], TYPE, "ends too soon"),
        (b"", TYPE, "ends too soon"),
        (GOOD, TYPE, "cannot be read"),
        (WHOLE, {"Content-Type": "multipart/form-data"}, "names no boundary"),
        (WHOLE, {"Content-Type": "multipart/form-data; boundary=" + "x" * 1000}, "cannot be read"),
        (b"--xyz\r\n" + b"X-Long: " + b"x" * 9000 + b"\r\n\r\n\r\n--xyz--", TYPE, "cannot be read"),
        (b"--xyz\r\nno header\r\n\r\n\r\n--xyz--", TYPE, "cannot be read"),
    ],
)
def test_bodies_that_are_no_upload(
    refuser: httpx.Client, unused: Platform, body: bytes, headers: dict[str, str], detail: str
) -> None:
    problem(refuser.post(URL, content=body, headers=headers), 400, detail)
    assert (ledger(unused), stored(unused)) == ([], [])


def test_fields_beside_the_file_are_left_out(client: httpx.Client, platform: Platform) -> None:
    body, headers = form((b'name="comment"', b"hello"), (FILE, GOOD), (b'name="token"', b"x" * 1000))
    assert client.post(URL, content=body, headers=headers).status_code == 202
    assert stored(platform) == [sha256(GOOD)]


def test_contents_are_unharmed(client: httpx.Client, platform: Platform) -> None:
    """Bytes that look like boundaries, cut at any place on their way, and larger than a piece."""
    tricky = b"\r\n--xy\r\n--xyz\r--xyz-\r\n--\r\n\r\n" * 3 + bytes(range(256)) + b"\r\n--xy"
    large = os.urandom(3 * incoming.PIECE + 7)
    for data in (tricky, large, tricky * 50_000):
        body, headers = form((FILE, data.replace(b"\r\n--xyz", b"\r\n--xya")))
        for step in (len(body), 65_537):
            pieces = (body[start : start + step] for start in range(0, len(body), step))
            answer = client.post(URL, content=pieces, headers=headers)
            assert answer.json()["sha256"] == sha256(data.replace(b"\r\n--xyz", b"\r\n--xya"))
        assert client.post(URL, params={"name": "raw.csv"}, content=data).json()["sha256"] == sha256(data)
    body, headers = form((FILE, tricky.replace(b"\r\n--xyz", b"\r\n--xya")))
    assert client.post(URL, content=(bytes([byte]) for byte in body), headers=headers).status_code == 202


def test_unknown_dataset(client: httpx.Client, platform: Platform) -> None:
    problem(client.post("/api/datasets/nothing/files/", content=GOOD), 404, "There is no dataset 'nothing'")
    assert stored(platform) == []


@pytest.fixture
def small(platform: Platform) -> int:
    platform.settings.max_upload_bytes = 3 * incoming.PIECE
    return platform.settings.max_upload_bytes


def chunked(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


def test_too_large(client: httpx.Client, platform: Platform, small: int) -> None:
    fits, too_much = b"x" * small, b"x" * (small + 1)
    assert client.post(URL, params={"name": "a.csv"}, content=fits).status_code == 202
    assert client.post(URL, content=form((FILE, fits))[0], headers=TYPE).status_code == 202
    requests: list[Callable[[], httpx.Response]] = [
        lambda: client.post(URL, params={"name": "b.csv"}, content=too_much),
        lambda: client.post(URL, params={"name": "b.csv"}, content=chunked(too_much * 10)),
        lambda: client.post(URL, content=form((FILE, too_much))[0], headers=TYPE),
        lambda: client.post(URL, content=chunked(form((FILE, too_much))[0]), headers=TYPE),
        lambda: client.post(URL, content=chunked(form((b'name="x"', too_much * 2), (FILE, GOOD))[0]), headers=TYPE),
    ]
    for send in requests:
        problem(send(), 413, "the limit is")
        assert client.post(URL, params={"name": "a.csv"}, content=fits).json()["unchanged"] is True, (
            "connection goes on"
        )
    assert stored(platform) == [sha256(fits)]


def test_too_large_is_reported_before_the_body_is_sent(web: str, small: int) -> None:
    with connected(web) as sock:
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n" % URL.encode())
        sock.sendall(b"Expect: 100-continue\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 413 ")


@contextlib.contextmanager
def connected(web: str) -> Iterator[socket.socket]:
    host, _, port = web.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        yield sock


@pytest.mark.parametrize("wrapped", [True, False])
def test_client_that_goes_away(web: str, platform: Platform, wrapped: bool) -> None:
    body = form((FILE, os.urandom(3 * incoming.PIECE)))[0] if wrapped else os.urandom(3 * incoming.PIECE)
    kind = TYPE["Content-Type"].encode() if wrapped else b"text/csv"
    with connected(web) as sock:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        sock.sendall(head % (URL.encode(), kind, len(body)) + body[: 2 * incoming.PIECE])
        until(lambda: bool(stored(platform)))
        assert [name[:10] for name in stored(platform)] == [".arriving-"]
    until(lambda: not stored(platform))
    assert ledger(platform) == []


def test_client_that_is_too_slow(web: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "PIECE_SECONDS", 0.2)
    with connected(web) as sock:
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx" % URL.encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert stored(platform) == []


@pytest.fixture
def one_megabyte(platform: Platform) -> Iterator[None]:
    mount(platform.store.folder, "size=1m", "mode=700")
    yield
    subprocess.run(["umount", "--lazy", str(platform.store.folder)], check=True)


@pytest.mark.usefixtures("one_megabyte")
def test_full_disk(client: httpx.Client, platform: Platform) -> None:
    large = os.urandom(2**21)
    problem(client.post(URL, files={"file": ("a.csv", large)}), 507, "disk .* is full")
    problem(client.post(URL, params={"name": "a.csv"}, content=large), 507, "disk .* is full")
    problem(client.post("/ingest", json=large.hex()), 507, "disk .* is full")
    assert (ledger(platform), stored(platform)) == ([], [])
    assert client.post(URL, params={"name": "a.csv"}, content=GOOD).status_code == 202


def test_same_name_at_once(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    bodies = [HEADER + f"S{i % 5},2026-01-01,{i % 5},0\n".encode() for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: client.post(URL, params={"name": "a.csv"}, content=body).json(), bodies))
    for answer, body in zip(answers, bodies, strict=True):
        assert answer["sha256"] == sha256(body)
    rows = ledger(platform)
    assert len(rows) == 40
    versions = [row for row in rows if row.same_as is None]
    assert [row.version for row in versions] == list(range(1, len(versions) + 1))
    assert all(before.sha256 != after.sha256 for before, after in itertools.pairwise(versions))
    pipeline(WEATHER)
    assert {row.status for row in ledger(platform)} <= {"loaded", "unchanged"}


def test_import(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    with loading(platform, pipeline):
        answer = client.post("/api/import/", files={"file": ("oslo.csv", DIRTY)})
        again = client.post("/api/import/", files={"file": ("oslo.csv", DIRTY)})
        refused = client.post("/api/import/", files={"file": ("bad.csv", REFUSED)})
    figures = {"rows_in_file": 3, "rows_valid": 2, "rows_invalid": 1, "rows_upserted": 1}
    first, second, third = (row.file_id for row in ledger(platform))
    assert (answer.status_code, answer.json()) == (200, figures | {"file_id": first})
    assert (again.status_code, again.json()) == (200, figures | {"file_id": second})
    problem(refused, 400, "bad.csv is refused: .*station_id")
    assert refused.json()["file_id"] == third


def test_import_without_a_file(client: httpx.Client) -> None:
    problem(client.post("/api/import/"), 400, "multipart/form-data")
    problem(client.post("/api/import/", content=GOOD), 400, "multipart/form-data")
    problem(client.post("/api/import/", content=form()[0], headers=TYPE), 400, "no part")
    late = client.post("/api/import/", params={"wait": 0}, files={"file": ("a.csv", GOOD)})
    assert (late.status_code, late.json()["status"]) == (202, "landed")
