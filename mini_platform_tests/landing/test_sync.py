"""Syncing from a real HTTP server that misbehaves on purpose.

Waits are milliseconds here, by the declaration of the source. A sync's every promise is looked up in the ledger, the raw store
and the checkpoint, not in what the function returns.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine, select, text

from mini_platform import (
    ApiSource,
    Csv,
    CursorPaginator,
    Dataset,
    DeclarationError,
    HeaderLinkPaginator,
    Json,
    PageNumberPaginator,
)
from mini_platform.config.sections import ApiSourceSettings
from mini_platform.landing.fetch import retry_after
from mini_platform.landing.sync import SyncResult, sync
from mini_platform.storage.access import Access, ForbiddenError
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.tables import checkpoints, files, pages
from mini_platform_tests.support.api_server import Api, Reply, Request, numbered, serving, things
from mini_platform_tests.support.examples import records

LOOPBACK = (ip_network("127.0.0.0/8"),)
QUICK = ApiSource(name="api", rate=1000, tries=3, backoff=0.01, longest_wait=0.5, connect_seconds=2, read_seconds=2)
NOON = "Tue, 01 Jul 2025 12:00:00 GMT"


class SyncChannel:
    """A database, a raw store, and a source to be synced from a server."""

    def __init__(self, engine: Engine, folder: Path, api: Api) -> None:
        self.engine = engine
        self.store = RawStore(folder)
        self.api = api
        self.messages: list[str] = []
        self.dataset = records

    def sync(
        self, source: ApiSource = QUICK, answer: Callable[[Request], Reply] | None = None, **access: Any
    ) -> SyncResult:
        """One attempt."""
        if answer is not None:
            self.api.answer = answer
        self.api.requests.clear()
        dataset = declared(source, self.dataset)
        where = Access(**{"url": self.api.url, "networks": LOOPBACK, **access})
        return sync(self.engine, dataset, source, self.store, where, self.messages.append)

    def landed(self) -> list[tuple[str, Any]]:
        """Names and JSON of what was landed, by the ledger and the raw store."""
        with self.engine.connect() as conn:
            rows = conn.execute(select(files).order_by(files.c.file_id)).all()
        for row in rows:
            data = self.store.path(row.sha256).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (row.sha256, row.bytes)
            assert (row.dataset, row.channel, row.status) == ("records", "api:api", "landed")
        return [(row.name, json.loads(self.store.path(row.sha256).read_bytes())) for row in rows]

    def ids(self) -> list[Any]:
        """The ids of everything that was landed, in its order."""
        landed_pages = [page if isinstance(page, list) else page["items"] for _, page in self.landed()]
        return [row["id"] for page in landed_pages for row in page]

    @property
    def checkpoint(self) -> Any:
        with self.engine.connect() as conn:
            return conn.execute(select(checkpoints)).one()

    def later(self, **moved: str) -> None:
        """Move times of the checkpoint into the past."""
        sets = ", ".join(f"{name} = {name} - interval '{by}'" for name, by in moved.items())
        with self.engine.begin() as conn:
            conn.execute(text(f"UPDATE ops.checkpoints SET {sets}"))  # noqa: S608 - names from this file


def declared(source: ApiSource, dataset: Dataset = records) -> Dataset:
    """The dataset with another source."""
    return replace(dataset, api_sources=(source,))


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(numbered([things(1, 2), things(3, 4), things(5)])) as server:
        yield server


@pytest.fixture
def channel(engine: Engine, tmp_path: Path, api: Api) -> SyncChannel:
    return SyncChannel(engine, tmp_path / "raw", api)


def succeeded(result: SyncResult) -> SyncResult:
    assert (result.state, result.why) == ("succeeded", None)
    return result


def failed(result: SyncResult, *words: str) -> str:
    assert result.state == "failed"
    assert result.why is not None
    for word in words:
        assert word in result.why
    return result.why


# Paging


def test_by_number(channel: SyncChannel) -> None:
    result = succeeded(channel.sync())
    assert channel.landed() == [
        ("api/1/page-000001.json", things(1, 2)),
        ("api/1/page-000002.json", things(3, 4)),
        ("api/1/page-000003.json", things(5)),
    ]
    assert channel.api.pages == ["1", "2", "3", "4"], "the first page without rows is the end"
    assert {request.query["limit"] for request in channel.api.requests} == {"100"}
    assert (result.pages, result.rows, result.sync, len(result.file_ids)) == (4, 5, 1, 3)
    row = channel.checkpoint
    assert (row.sync, row.position, row.pages, row.pages_landed, row.rows, row.last_error) == (1, None, 4, 3, 5, None)
    assert row.last_started <= row.last_succeeded
    assert row.last_failed is None


def test_other_names_and_another_first_page(channel: SyncChannel) -> None:
    def answer(request: Request) -> Reply:
        assert set(request.query) == {"key", "offset"}
        return Reply(things(int(request.query["offset"])) if request.query["offset"] != "2" else [])

    source = replace(QUICK, paging=PageNumberPaginator(page="offset", first=0, limit=None))
    succeeded(channel.sync(source, answer, url=f"{channel.api.url}?key=7"))
    assert channel.ids() == [0, 1]


def test_by_links(channel: SyncChannel) -> None:
    def answer(request: Request) -> Reply:
        number = int(request.query.get("p", "1"))
        links = '<?p=1>; rel="first"' + (f', <?p={number + 1}>; rel="next"' if number < 3 else "")
        # The second page has no rows, and is not the last.
        return Reply(things(number) if number != 2 else [], headers={"Link": links})

    succeeded(channel.sync(replace(QUICK, paging=HeaderLinkPaginator(limit="per_page"), page_size=7), answer))
    assert channel.ids() == [1, 3]
    assert [request.query for request in channel.api.requests] == [{"per_page": "7"}, {"p": "2"}, {"p": "3"}]


def test_what_the_url_is_set_with_is_kept_nowhere(channel: SyncChannel, caplog: pytest.LogCaptureFixture) -> None:
    """A source returns the key of a request in its links; the key is sent with each request, after a failure too."""
    caplog.set_level("DEBUG")
    secret, other = "s3cret/+ä", "c4nary"

    def answer(request: Request) -> Reply:
        assert (request.query["api_key"], request.query["tag"]) == (secret, other)
        number = int(request.query.get("p", "1"))
        if number == 3 and not channel.messages:
            return Reply(status=500)
        more = urlencode({"api_key": secret, "tag": [other, "b"], "p": number + 1, "mine": "a b"}, doseq=True)
        return Reply(things(number), headers={"Link": f'<?{more}>; rel="next"'} if number < 4 else {})

    source = replace(QUICK, paging=HeaderLinkPaginator(), tries=1)
    url = f"{channel.api.url}?{urlencode({'api_key': secret, 'tag': [other, 'b']}, doseq=True)}"
    failed(channel.sync(source, answer, url=url), "answered 500")
    stored_rows = [channel.checkpoint]
    assert "p=3&mine=a+b" in stored_rows[0].position
    with channel.engine.connect() as conn:
        stored_rows += conn.execute(select(pages)).all()
    channel.messages.append("The source is well again.")
    succeeded(channel.sync(source, answer, url=url))
    assert channel.ids() == [1, 2, 3, 4]
    assert [request.query.get("p") for request in channel.api.requests] == ["3", "4"]
    with channel.engine.connect() as conn:
        stored_rows += [channel.checkpoint, *conn.execute(select(pages)).all(), *conn.execute(select(files)).all()]
    everything = f"{stored_rows} {channel.messages} {caplog.text}"
    assert "3cret" not in everything
    assert other not in everything


@pytest.mark.parametrize("end", [None, "", False, "left out"])
def test_by_cursors(channel: SyncChannel, end: Any) -> None:
    def answer(request: Request) -> Reply:
        at = request.query.get("after", "0")
        following: Any = {"0": "a b&c", "a b&c": 17, "17": end}[at]
        body = {"items": things(len(at)), "meta": {"next": following} if following != "left out" else {}}
        return Reply(body)

    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    source = replace(QUICK, paging=CursorPaginator(path="meta.next", parameter="after", limit="n" if end else None))
    succeeded(channel.sync(source, answer))
    assert {request.query.get("n") for request in channel.api.requests} == {"100" if end else None}
    assert [request.query.get("after") for request in channel.api.requests] == [None, "a b&c", "17"]
    assert channel.ids() == [1, 5, 2]


def test_no_url(channel: SyncChannel) -> None:
    result = channel.sync(url=None)
    assert (result.state, result.ok) == ("not configured", True)
    assert channel.api.requests == []
    with channel.engine.connect() as conn:
        assert conn.execute(select(checkpoints)).all() == []


# Sources that go in circles, or nowhere


def test_the_same_cursor_twice(channel: SyncChannel) -> None:
    def answer(request: Request) -> Reply:
        at = request.query.get("cursor", "")
        return Reply({"items": things(len(channel.api.requests)), "next": {"": "a", "a": "b", "b": "a"}[at]})

    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    result = channel.sync(replace(QUICK, paging=CursorPaginator()), answer)
    assert failed(result, "Page 4", "as page 2", "circle") == channel.checkpoint.last_error
    assert channel.ids() == [1, 2, 3]
    assert len(channel.api.requests) == 3, "the page was not asked for again"
    assert channel.checkpoint.position is None, "the next sync begins anew"


def test_a_link_to_itself(channel: SyncChannel) -> None:
    answer = Reply(things(1), headers={"Link": f'<{channel.api.url}>; rel="next"'})
    failed(channel.sync(replace(QUICK, paging=HeaderLinkPaginator()), lambda _: answer), "Page 2", "as page 1")
    assert channel.ids() == [1]


def ignoring(*ignored: str, rows: int = 3) -> Callable[[Request], Reply]:
    """A server of this many rows that ignores these parameters."""

    def answer(request: Request) -> Reply:
        limit = rows if "limit" in ignored else int(request.query["limit"])
        start = 0 if "page" in ignored else (int(request.query["page"]) - 1) * limit
        return Reply({"items": things(*range(rows)[start : start + limit]), "at": request.at})

    return answer


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_source_that_ignores_paging_ends_with_its_second_page(channel: SyncChannel, rows: int) -> None:
    """The time beside the rows tells nothing."""
    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    result = succeeded(channel.sync(answer=ignoring("page", "limit", rows=rows)))
    assert channel.ids() == list(range(rows))
    assert (result.rows, result.pages, channel.checkpoint.position) == (rows, 2, None)
    again = succeeded(channel.sync())
    assert (len(channel.landed()), again.sync) == (2, 2), "the time beside the rows has changed"
    grown = succeeded(channel.sync(answer=ignoring("page", "limit", rows=rows + 1)))
    assert (grown.rows, len(grown.file_ids)) == (rows + 1, 1)


@pytest.mark.parametrize("page_size", [1, 100])
def test_a_source_that_ignores_the_page_alone_fails(channel: SyncChannel, page_size: int) -> None:
    """It may have more rows than it sends: no success is reported."""
    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    result = channel.sync(replace(QUICK, page_size=page_size), ignoring("page", rows=150))
    failed(result, "Page 2", "same rows as page 1", "paging=None")
    assert channel.ids() == list(range(page_size))


def test_a_page_that_repeats_later_fails(channel: SyncChannel) -> None:
    pages = [things(1), things(2), things(1)]
    failed(channel.sync(answer=numbered(pages)), "Page 3", "same rows as page 1")


CSV_SOURCE = replace(QUICK, paging=None, suffix=".csv")
CSV = b'ID,Name,VALUE,Description\n1,lamp,2.5,"on\ntwo lines"\n2,crate,,x\n'


def csv_channel(channel: SyncChannel) -> SyncChannel:
    channel.dataset = replace(records, api_sources=(), sources=(Csv(), Json()))
    return channel


def test_one_response_without_paging(channel: SyncChannel) -> None:
    """A CSV file at a signed URL, which is requested as it is written."""
    url = channel.api.url + "?sig=a%2Fb+c"
    result = succeeded(csv_channel(channel).sync(CSV_SOURCE, lambda _: Reply(CSV, headers={"ETag": '"1"'}), url=url))
    assert (result.pages, result.rows, channel.checkpoint.position) == (1, 2, None)
    assert [dict(request.query) for request in channel.api.requests] == [{"sig": "a/b c"}]
    with channel.engine.connect() as conn:
        name, sha256 = conn.execute(select(files.c.name, files.c.sha256)).one()
    assert (name, channel.store.path(sha256).read_bytes()) == ("api/1/page-000001.csv", CSV)
    assert succeeded(channel.sync(CSV_SOURCE, lambda _: Reply(status=304), url=url)).unchanged == 1
    assert succeeded(channel.sync(CSV_SOURCE, lambda _: Reply(CSV), url=url)).unchanged == 1
    assert succeeded(channel.sync(CSV_SOURCE, lambda _: Reply(CSV + b"3,z,,\n"), url=url)).rows == 3


@pytest.mark.parametrize("body", [b"", b"<html>Down for maintenance</html>", b'{"error": "x"}', b"id,value\n1,2\n"])
def test_a_response_that_is_not_the_csv(channel: SyncChannel, body: bytes) -> None:
    answers = [Reply(body), Reply(CSV)]
    succeeded(csv_channel(channel).sync(CSV_SOURCE, lambda _: answers.pop(0)))
    failed(channel.sync(CSV_SOURCE, lambda _: Reply(body)), "The page cannot be read")
    with channel.engine.connect() as conn:
        assert len(conn.execute(select(files)).all()) == 1


def test_the_one_response_of_json_has_a_list(channel: SyncChannel) -> None:
    succeeded(channel.sync(replace(QUICK, paging=None), lambda _: Reply(things(1, 2))))
    assert [dict(request.query) for request in channel.api.requests] == [{}]
    assert channel.ids() == [1, 2]
    failed(channel.sync(replace(QUICK, paging=None), lambda _: Reply({"message": "wrong key"})), "no list of rows")


def test_no_end(channel: SyncChannel) -> None:
    result = channel.sync(replace(QUICK, max_pages=7), lambda request: Reply(things(int(request.query["page"]))))
    failed(result, "more than 7 pages")
    assert channel.ids() == [1, 2, 3, 4, 5, 6, 7]


# Misbehaviour that another try helps against


def once(*wrong: Reply) -> Callable[[Request], Reply]:
    """Page 2 goes wrong in these ways, one after the other, and then is well."""
    left = list(wrong)
    well = numbered([things(1), things(2), things(3)])

    def answer(request: Request) -> Reply:
        return left.pop(0) if request.query["page"] == "2" and left else well(request)

    return answer


BODY = json.dumps(things(2)).encode()


@pytest.mark.parametrize(
    "wrong",
    [
        [Reply(status=500), Reply(b"oh no", status=502)],
        [Reply(status=429, headers={"Retry-After": "0"})],
        [Reply(status=429, headers={"Retry-After": "soon"})],
        [Reply(BODY, cut=10)],
        [Reply(BODY, cut=0)],
        [Reply(BODY, cut=len(BODY) - 1), Reply(BODY, cut=len(BODY) - 1)],
        [Reply(BODY, cut=30, chunked=True)],
        [Reply(BODY, cut=-5, chunked=True)],
        [Reply(drop=True)],
        [Reply(BODY[:-7])],
        [Reply(b"<html>Down for maintenance</html>")],
        [Reply(b"")],
        [Reply(b"\xff\xfe\x00")],
        [Reply(b"[" * 100_000)],
        [Reply(BODY, pause=0.6)],
        [Reply(BODY, drip=0.05)],
    ],
    ids=lambda wrong: f"{wrong[0].status}-{bytes(wrong[0].body)[:9]!r}-{wrong[0].cut}-{wrong[0].pause + wrong[0].drip}",
)
def test_well_in_the_end(channel: SyncChannel, wrong: list[Reply]) -> None:
    source = replace(QUICK, read_seconds=0.3, answer_seconds=0.5)
    succeeded(channel.sync(source, once(*wrong)))
    assert channel.ids() == [1, 2, 3]
    assert channel.api.pages == ["1", *["2"] * (1 + len(wrong)), "3", "4"]
    assert len(channel.messages) == len(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Reply(status=500), "answered 500"),
        (Reply(BODY, cut=10), "could not be read to the end"),
        (Reply(BODY, cut=10, chunked=True), "could not be read to the end"),
        (Reply(pause=0.4), "did not answer in time"),
        (Reply(b"nonsense"), "not JSON"),
    ],
)
def test_given_up_for_now_and_gone_on_with(channel: SyncChannel, wrong: Reply, words: str) -> None:
    source = replace(QUICK, read_seconds=0.2)
    why = failed(channel.sync(source, once(wrong, wrong, wrong)), "Page 2", words)
    assert channel.ids() == [1]
    row = channel.checkpoint
    assert (row.last_error, row.position, row.last_succeeded) == (why, "2", None)
    assert row.last_failed is not None
    result = succeeded(channel.sync(source, once()))
    assert result.sync == 1, "the same sync goes on"
    assert channel.api.pages == ["2", "3", "4"]
    assert channel.ids() == [1, 2, 3]
    assert channel.checkpoint.last_error is None


def test_pauses_grow_and_are_drawn(channel: SyncChannel) -> None:
    source = replace(QUICK, tries=6, backoff=0.05, longest_wait=0.2)
    failed(channel.sync(source, lambda _: Reply(status=503)))
    times = [request.at for request in channel.api.requests]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    announced_pauses = [float(sentence.split("Retrying in ")[1].split()[0]) for sentence in channel.messages]
    assert len(pauses) == len(announced_pauses) == 5
    assert all(
        0 <= pause <= most + 0.05 for pause, most in zip(announced_pauses, [0.05, 0.1, 0.2, 0.2, 0.2], strict=True)
    )
    assert all(pause >= wished - 0.06 for pause, wished in zip(pauses, announced_pauses, strict=True))


@pytest.mark.parametrize("wish", ["1", "Tue, 01 Jul 2025 12:00:01 GMT"])
def test_retry_after_is_honoured(channel: SyncChannel, wish: str) -> None:
    """A date is counted by the server's own clock, which is wrong here."""
    channel.api.date = NOON
    succeeded(channel.sync(replace(QUICK, longest_wait=3), once(Reply(status=429, headers={"Retry-After": wish}))))
    first, second = (request.at for request in channel.api.requests if request.query["page"] == "2")
    assert second - first >= 1.0


def test_a_longer_wait_is_left_to_the_next_runs(channel: SyncChannel) -> None:
    result = channel.sync(answer=once(Reply(status=429, headers={"Retry-After": "3600"})))
    failed(result, "a pause of 3,600 s")
    assert channel.api.pages == ["1", "2"], "no other try"
    assert channel.checkpoint.not_before - channel.checkpoint.last_failed > dt.timedelta(minutes=59)
    waiting = channel.sync()
    assert (waiting.state, waiting.ok) == ("waiting", False)
    assert channel.api.requests == []
    channel.later(not_before="1 hour")
    assert succeeded(channel.sync(answer=once())).sync == 1
    assert channel.ids() == [1, 2, 3]


def test_no_source_is_left_alone_for_ever(channel: SyncChannel) -> None:
    failed(channel.sync(answer=once(Reply(status=503, headers={"Retry-After": "999999999"}))))
    row = channel.checkpoint
    assert dt.timedelta(hours=23) < row.not_before - row.last_failed <= dt.timedelta(days=1, seconds=5)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "Tue, 01 Jul 2025 12:00:30 GMT", "date": NOON}, 30),
        ({"retry-after": "Tuesday, 01-Jul-25 12:00:30 GMT", "date": NOON}, 30),
        ({"retry-after": "Tue, 01 Jul 2025 11:00:00 GMT", "date": NOON}, 0),
        ({"retry-after": "Tue, 01 Jul 2025 13:00:09 +0100"}, 9),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, dt.datetime(2025, 7, 1, 12, tzinfo=dt.UTC)) == seconds


def test_the_pace_is_kept(channel: SyncChannel) -> None:
    succeeded(channel.sync(replace(QUICK, rate=10)))
    times = [request.at for request in channel.api.requests]
    assert times[-1] - times[0] >= 0.1 * (len(times) - 1) - 0.05


def test_a_slow_source_is_cut_off_whatever_it_sends(channel: SyncChannel) -> None:
    """A byte now and then keeps every single read short; the answer as a whole is not let last."""
    started = time.monotonic()
    source = replace(QUICK, tries=1, read_seconds=1, answer_seconds=0.3)
    failed(channel.sync(source, lambda _: Reply(BODY, drip=0.05)), "in time")
    assert time.monotonic() - started < 2


def test_a_connection_that_is_not_made_is_given_up(channel: SyncChannel) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as nobody_accepts:
        address = nobody_accepts.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # More than the server has room for: the next ones hang.
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        started = time.monotonic()
        source = replace(QUICK, tries=1, connect_seconds=0.3, read_seconds=30)
        failed(channel.sync(source, url=f"http://127.0.0.1:{address[1]}/"), "did not answer in time")
        assert 0.3 <= time.monotonic() - started < 5
        for client in waiting:
            client.close()


# Misbehaviour that nothing helps against


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(b"x" * 2001), "more than the 2,000 bytes"),
        (Reply(b"x" * 2001, chunked=True), "more than the 2,000 bytes"),
        (Reply(status=404), "answered 404"),
        (Reply(status=401), "answered 401"),
        (Reply(status=204), "answered 204"),
        (Reply(status=304), "without an ETag"),
        (Reply({"message": "wrong key"}), "no list of rows"),
        (Reply(b"7"), "no list of rows"),
        (Reply(b"null"), "no list of rows"),
        (Reply(things(1), headers={"Content-Encoding": "gzip"}), "encoding"),
        (Reply(status=302, headers={"Location": "/things?page=1&limit=100"}), "more than 5 times"),
        (Reply(status=302, headers={"Location": "http://[::1"}), "invalid URL"),
        (Reply(status=302), "answered 302"),
    ],
)
def test_failed_at_once(channel: SyncChannel, reply: Reply, words: str) -> None:
    why = failed(channel.sync(answer=lambda _: reply, max_bytes=2000), words)
    assert channel.landed() == []
    assert not list(channel.store.folder.rglob("*"))
    assert (channel.checkpoint.position, channel.checkpoint.last_error) == (None, why)
    assert len(channel.api.requests) in (1, 6)
    assert succeeded(channel.sync(answer=numbered([things(1)]))).sync == 2, "the next one begins anew"


def test_a_huge_body_is_not_taken_into_memory(channel: SyncChannel) -> None:
    """The server sends as fast as it can; what is over the limit is never read."""
    sent = threading.Event()

    def answer(_: Request) -> Reply:
        sent.set()
        return Reply(b" " * 50_000_000)

    failed(channel.sync(answer=answer, max_bytes=100_000), "more than the 100,000 bytes")
    assert sent.is_set()


@pytest.mark.parametrize("cursor", [{"a": 1}, ["x"], True, "a\0b", "\ud800", "x" * 10_001])
def test_cursors_that_are_none(channel: SyncChannel, cursor: Any) -> None:
    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    failed(
        channel.sync(replace(QUICK, paging=CursorPaginator()), lambda _: Reply({"items": things(1), "next": cursor}))
    )
    assert channel.landed() == []


def test_wrong_rows_are_landed_and_validated_later(channel: SyncChannel) -> None:
    """Wrong rows are the business of the reader: the page is stored as it came."""
    page = b'[{"id": 1, "title": NaN}, 7, {"id": 123456789012345678901234567890}]'
    succeeded(channel.sync(answer=lambda request: Reply(page if request.query["page"] == "1" else b"[]")))
    with channel.engine.connect() as conn:
        (sha256,) = conn.execute(select(files.c.sha256)).scalars()
    assert channel.store.path(sha256).read_bytes() == page


# Addresses that may be requested


NO_URLS = [
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "//127.0.0.1/x",
    "127.0.0.1",
    "",
    "http://",
    "http://user:secret@127.0.0.1/",
    "http://127.0.0.1:99999/",
    "http://[::1",
    "javascript:alert(1)",
]


def test_urls_that_are_none(channel: SyncChannel, subtests: pytest.Subtests) -> None:
    for url in NO_URLS:
        with subtests.test(url):
            assert "secret" not in failed(channel.sync(url=url))
            assert channel.api.requests == []


PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "localhost",
    "0.0.0.0",  # noqa: S104 - requested, not bound
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fc00::1]",
    "[ff02::1]",
]


def test_private_addresses_are_refused_by_default(channel: SyncChannel, subtests: pytest.Subtests) -> None:
    port = channel.api.url.split(":")[2].split("/")[0]
    for host in PRIVATE:
        with subtests.test(host):
            failed(channel.sync(url=f"http://{host}:{port}/things", networks=()), "MINI_PLATFORM_API_SOURCE_NETWORKS")
            assert channel.api.requests == []


def test_a_network_that_is_allowed_allows_no_other() -> None:
    access = Access("http://x/", networks=(ip_network("127.0.0.0/8"), ip_network("10.0.0.0/24")))
    assert access.addresses("127.0.0.1", 80) == ["127.0.0.1"]
    assert access.addresses("10.0.0.9", 80) == ["10.0.0.9"]
    assert access.addresses("1.1.1.1", 80) == ["1.1.1.1"]
    for host in ("10.0.1.1", "169.254.169.254", "::1"):
        with pytest.raises(ForbiddenError, match="link-local"):
            access.addresses(host, 80)


def test_the_address_that_was_checked_is_the_one_connected_to(
    channel: SyncChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to a good address when it is looked at, and to a bad one the next time (DNS rebinding)."""
    real, lookups = socket.getaddrinfo, []

    def rebinding(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        lookups.append(host)
        if host != "rebinding.test":
            return real(host, port, *more, **named)
        good = len([name for name in lookups if name == host]) == 1
        return real("127.0.0.1" if good else "127.0.0.99", port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = channel.api.url.replace("127.0.0.1", "rebinding.test")
    succeeded(channel.sync(url=url, networks=(ip_network("127.0.0.1/32"),)))
    assert lookups.count("rebinding.test") == 1
    assert set(lookups) == {"rebinding.test", "127.0.0.1"}, "what was connected to is the address"
    assert {request.headers["host"].split(":")[0] for request in channel.api.requests} == {"rebinding.test"}


def test_an_address_that_does_not_answer_gives_way_to_the_next(
    channel: SyncChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def several(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != "several.test":
            return real(host, port, *more, **named)
        hosts = ("10.0.0.1", "127.0.0.77", "127.0.0.1")  # The first is not allowed, nobody listens on the second.
        return [entry for one in hosts for entry in real(one, port, *more, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    succeeded(channel.sync(url=channel.api.url.replace("127.0.0.1", "several.test")))
    assert channel.ids() == [1, 2, 3, 4, 5]


def test_a_host_that_cannot_be_resolved_may_be_resolved_later(channel: SyncChannel) -> None:
    for host in ("nowhere.invalid", "x" * 70):
        failed(channel.sync(url=f"http://{host}/"), "cannot be resolved")
    assert channel.checkpoint.position == "1"


def test_no_redirect_to_another_host(channel: SyncChannel) -> None:
    with serving(numbered([things(9)]), "127.0.0.2") as other:
        target = other.url + "?page=1"
        redirect = Reply(status=302, headers={"Location": target})
        failed(channel.sync(answer=lambda _: redirect), "redirects, but", "127.0.0.2", "not among the allowed hosts")
        assert other.requests == []
        hosts = frozenset(("127.0.0.1", "127.0.0.2"))
        secret = ("Authorization", "Bearer secret")
        channel.api.answer = lambda request: redirect if request.query["page"] == "1" else Reply([])
        succeeded(channel.sync(hosts=hosts, header=secret))
        assert channel.ids() == [9]
        assert [request.headers.get("authorization") for request in other.requests] == [None]
        assert {request.headers["authorization"] for request in channel.api.requests} == {"Bearer secret"}


def test_no_link_to_another_host(channel: SyncChannel) -> None:
    reply = Reply(things(1), headers={"Link": '<http://169.254.169.254/latest/meta-data>; rel="next"'})
    failed(channel.sync(replace(QUICK, paging=HeaderLinkPaginator()), lambda _: reply), "Page 2", "169.254.169.254")
    assert channel.ids() == [1]


def test_a_redirect_to_a_private_address_of_an_allowed_host(channel: SyncChannel) -> None:
    redirect = Reply(status=307, headers={"Location": "http://169.254.169.254/x"})
    hosts = frozenset(("127.0.0.1", "169.254.169.254"))
    failed(channel.sync(answer=lambda _: redirect, hosts=hosts), "169.254.169.254", "link-local")


def test_redirects_on_the_own_host_are_followed(channel: SyncChannel) -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/things":
            return Reply(status=301, headers={"Location": f"/v2{request.path}?page={request.query['page']}"})
        return numbered([things(1)])(request)

    succeeded(channel.sync(answer=answer, header=("X-Key", "k")))
    assert channel.ids() == [1]
    assert {request.headers["x-key"] for request in channel.api.requests} == {"k"}


def test_an_allowed_host_must_be_the_own_one_too(channel: SyncChannel) -> None:
    failed(
        channel.sync(hosts=frozenset(("example.org",))), "127.0.0.1, which is not among the allowed hosts: example.org"
    )
    assert channel.api.requests == []


def test_credentials_are_shown_nowhere(channel: SyncChannel) -> None:
    header = ("Authorization", "Bearer s3cr3t")
    result = channel.sync(answer=lambda _: Reply(status=500), header=header, url=channel.api.url + "?key=t0ken")
    shown = repr(result) + repr(Access("http://x", header)) + "".join(channel.messages) + repr(channel.checkpoint)
    assert "s3cr3t" not in shown
    assert "t0ken" not in shown
    assert channel.api.requests[0].headers["authorization"] == "Bearer s3cr3t"


def test_no_proxy_of_the_environment(channel: SyncChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect for us to wherever it likes."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    succeeded(channel.sync())


# What did not change


def with_etags(pages: list[list[Any]]) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        reply = numbered(pages)(request)
        etag = '"' + hashlib.sha256(json.dumps(reply.body).encode()).hexdigest()[:8] + '"'
        if request.headers.get("if-none-match") == etag:
            return Reply(status=304, headers={"ETag": etag})
        return replace(reply, headers={"ETag": etag})

    return answer


@pytest.mark.parametrize("make", [with_etags, numbered])
def test_only_pages_that_changed_are_landed_again(channel: SyncChannel, make: Callable[..., Any]) -> None:
    pages = [things(1, 2), things(3, 4), things(5)]
    succeeded(channel.sync(answer=make(pages)))
    again = succeeded(channel.sync())
    assert (again.pages, again.unchanged, again.rows, again.file_ids) == (4, 4, 0, [])
    assert len(channel.landed()) == 3
    pages[1] = things(3, 4, value=0)
    pages.append(things(6))
    changed = succeeded(channel.sync(answer=make(pages)))
    assert changed.unchanged == 2
    assert channel.landed()[3:] == [("api/3/page-000002.json", pages[1]), ("api/3/page-000004.json", things(6))]
    sent = [request.headers.get("if-none-match") for request in channel.api.requests]
    assert [etag is not None for etag in sent] == ([True] * 4 + [False] if make is with_etags else [False] * 5)


def test_everything_is_requested_now_and_then(channel: SyncChannel) -> None:
    succeeded(channel.sync(answer=with_etags([things(1), things(2)])))
    channel.later(whole_begun_at="25 hours")
    whole = succeeded(channel.sync())
    assert (whole.unchanged, whole.rows) == (0, 2)
    assert all("if-none-match" not in request.headers for request in channel.api.requests)
    assert succeeded(channel.sync()).unchanged == 3


def test_an_unchanged_page_leads_on_by_what_is_known_of_it(channel: SyncChannel) -> None:
    def answer(request: Request) -> Reply:
        if request.headers.get("if-none-match"):
            return Reply(status=304)
        at = request.query.get("cursor", "a")
        return Reply({"items": things(ord(at)), "next": {"a": "b", "b": None}[at]}, headers={"ETag": f'"{at}"'})

    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))
    source = replace(QUICK, paging=CursorPaginator())
    succeeded(channel.sync(source, answer))
    for _ in range(2):
        result = succeeded(channel.sync(source))
        assert (result.pages, result.unchanged) == (2, 2)
        assert [r.headers["if-none-match"] for r in channel.api.requests] == ['"a"', '"b"'], "it is known beyond a 304"


def test_since(channel: SyncChannel) -> None:
    source = replace(QUICK, since="changed_after", overlap=dt.timedelta(minutes=5))
    succeeded(channel.sync(source))
    assert all("changed_after" not in request.query for request in channel.api.requests), (
        "the first asks for everything"
    )
    first = channel.checkpoint
    succeeded(channel.sync(source, numbered([things(2)])))
    since_values = {request.query["changed_after"] for request in channel.api.requests}
    since = dt.datetime.fromisoformat(since_values.pop())
    assert not since_values
    assert since == (first.begun_at - source.overlap).replace(microsecond=0)
    assert channel.ids() == [1, 2, 3, 4, 5, 2]
    channel.later(whole_begun_at="25 hours")
    succeeded(channel.sync(source, numbered([things(1)])))
    assert all("changed_after" not in request.query for request in channel.api.requests)


def test_a_sync_that_failed_moves_since_not_on(channel: SyncChannel) -> None:
    source = replace(QUICK, since="since")
    succeeded(channel.sync(source))
    begun = channel.checkpoint.begun_at
    failed(channel.sync(source, lambda _: Reply(status=404)))
    succeeded(channel.sync(source, numbered([])))
    assert channel.checkpoint.since == begun - source.overlap


def test_another_url_is_another_source(channel: SyncChannel) -> None:
    """Nothing that is known of the one holds for the other."""
    source = replace(QUICK, since="since")
    succeeded(channel.sync(source, with_etags([things(1)])))
    failed(channel.sync(source, lambda _: Reply(status=404), url=channel.api.url + "/2"))
    succeeded(channel.sync(source, with_etags([things(1)]), url=channel.api.url + "/2"))
    assert all("since" not in r.query and "if-none-match" not in r.headers for r in channel.api.requests)
    assert channel.ids() == [1, 1]


# Crawls that are interrupted


def test_a_sync_that_takes_long_pauses(channel: SyncChannel) -> None:
    source = replace(QUICK, sync_seconds=1e-9)
    paused = channel.sync(source)
    assert (paused.state, paused.ok, paused.pages) == ("paused", True, 0)
    slow = replace(QUICK, sync_seconds=0.05, rate=4)
    assert channel.sync(slow).state == "paused"
    reached = channel.checkpoint.position
    assert reached in ("2", "3")
    succeeded(channel.sync(QUICK))
    assert channel.api.pages[0] == reached
    assert channel.ids() == [1, 2, 3, 4, 5]


def test_an_old_sync_is_not_gone_on_with(channel: SyncChannel) -> None:
    failed(channel.sync(answer=once(*[Reply(status=500)] * 3)))
    channel.later(begun_at="25 hours")
    assert succeeded(channel.sync(answer=once())).sync == 2
    assert channel.api.pages == ["1", "2", "3", "4"]


def test_of_two_that_sync_one_source_one_stops(channel: SyncChannel) -> None:
    """The second takes the sync over while the first waits for page 2; no page is landed twice."""
    first_waits, go_on = threading.Event(), threading.Event()
    well = numbered([things(1, 2), things(3, 4), things(5)])

    def answer(request: Request) -> Reply:
        if request.query["page"] == "2" and not first_waits.is_set():
            first_waits.set()
            assert go_on.wait(20)
        return well(request)

    results: list[SyncResult] = []
    source = replace(QUICK, read_seconds=30)
    first = threading.Thread(target=lambda: results.append(channel.sync(source, answer)))
    first.start()
    assert first_waits.wait(20)
    second = sync(
        channel.engine, records, source, channel.store, Access(channel.api.url, networks=LOOPBACK), lambda _: None
    )
    go_on.set()
    first.join(20)
    assert (succeeded(second).pages, results[0].state, results[0].ok) == (3, "overtaken", True)
    assert channel.ids() == [1, 2, 3, 4, 5]
    assert channel.checkpoint.pages == 4


def test_a_page_that_changes_while_the_sync_is_under_way(channel: SyncChannel) -> None:
    """A new row at the front moves the others: one of them is met twice, none is lost; the upsert takes the last."""
    state = {"rows": things(1, 2, 3, 4, 5)}

    def answer(request: Request) -> Reply:
        page = int(request.query["page"])
        reply = Reply(state["rows"][2 * page - 2 : 2 * page])
        if page == 1:
            state["rows"] = [*things(9), *state["rows"]]
        return reply

    succeeded(channel.sync(answer=answer))
    assert channel.ids() == [1, 2, 2, 3, 4, 5]
    succeeded(channel.sync(answer=answer))
    assert 9 in channel.ids()


def test_two_sources_of_which_one_fails(channel: SyncChannel) -> None:
    with serving(lambda _: Reply(status=500)) as broken:
        sources = (replace(QUICK, name="broken"), QUICK)
        dataset = replace(records, api_sources=sources)
        results = [
            sync(channel.engine, dataset, one, channel.store, Access(api.url, networks=LOOPBACK))
            for one, api in zip(sources, (broken, channel.api), strict=True)
        ]
    failed(results[0], "answered 500")
    succeeded(results[1])
    assert channel.ids() == [1, 2, 3, 4, 5]
    with channel.engine.connect() as conn:
        rows = {row.source: row for row in conn.execute(select(checkpoints))}
    assert rows["broken"].last_error == results[0].why
    assert (rows["api"].last_error, rows["api"].pages) == (None, 4)


def test_what_goes_wrong_here_is_no_fault_of_the_source(channel: SyncChannel, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="raw"):
        channel.sync()
    assert channel.checkpoint.last_error is None
    (tmp_path / "raw").unlink()
    succeeded(channel.sync())


# Declarations


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ApiSource(name="Api"),
        lambda: ApiSource(name="a__b"),
        lambda: ApiSource(name="api", rate=0),
        lambda: replace(records, api_sources=(ApiSource(name="api"), ApiSource(name="api"))),
        lambda: replace(records, api_sources=(ApiSource(name="csv"),)),
        lambda: replace(records, api_sources=(ApiSource(name="api", suffix=".xml"),)),
    ],
)
def test_declarations_that_contradict_themselves(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"ApiSource|dataset records"):
        wrong()


# Nothing is skipped, whatever is known


def linked(pages: Sequence[list[Any]], *, on_304: bool) -> Callable[[Request], Reply]:
    """Pages by links, each with the ETag of its rows; an unchanged one is answered 304, with or without its link."""

    def answer(request: Request) -> Reply:
        number = int(request.query.get("p", "1"))
        link = {"Link": f'<?p={number + 1}>; rel="last Next"'} if number < len(pages) else {}
        etag = '"' + hashlib.sha256(json.dumps(pages[number - 1]).encode()).hexdigest()[:8] + '"'
        if request.headers.get("if-none-match") == etag:
            return Reply(status=304, headers={"ETag": etag, **(link if on_304 else {})})
        return Reply(pages[number - 1], headers={"ETag": etag, **link})

    return answer


@pytest.mark.parametrize("on_304", [True, False])
def test_a_page_behind_the_last_one_that_did_not_change(channel: SyncChannel, on_304: bool) -> None:
    """The link to the next page is beside the rows: they are unchanged, and there is a next page all the same."""
    source, pages = replace(QUICK, paging=HeaderLinkPaginator()), [things(1), things(2)]
    succeeded(channel.sync(source, linked(pages, on_304=on_304)))
    for more in (things(3), things(4)):
        pages.append(more)
        succeeded(channel.sync(source))
    assert channel.ids() == [1, 2, 3, 4]
    assert "if-none-match" in channel.api.requests[0].headers, "what leads on is not sent again"


def test_a_304_leads_to_where_its_own_link_does(channel: SyncChannel) -> None:
    source, pages = replace(QUICK, paging=HeaderLinkPaginator()), {"1": (things(1), "2"), "2": (things(2), None)}

    def answer(request: Request) -> Reply:
        rows, following = pages[request.query.get("p", "1")]
        headers = {"ETag": f'"{rows[0]["id"]}"'} | ({"Link": f"<?p={following}>; rel=next"} if following else {})
        return Reply(
            rows, status=304 if request.headers.get("if-none-match") == headers["ETag"] else 200, headers=headers
        )

    succeeded(channel.sync(source, answer))
    pages["1"], pages["new"] = (things(1), "new"), (things(9), "2")
    succeeded(channel.sync(source))
    assert channel.ids() == [1, 2, 9]


def test_a_cursor_that_ran_out_is_not_requested_again(channel: SyncChannel) -> None:
    """The page that led to it is unchanged; a 304 for it would lead there for ever."""
    channel.dataset, alive = replace(records, api_sources=(), sources=(Json(rows="items"),)), ["a"]

    def answer(request: Request) -> Reply:
        at = request.query.get("cursor")
        if at is not None:
            return Reply({"items": things(2)}, status=200 if at == alive[0] else 400)
        etag = {"ETag": '"always"'}
        if request.headers.get("if-none-match"):
            return Reply(status=304, headers=etag)
        return Reply({"items": things(1), "next": alive[0]}, headers=etag)

    source = replace(QUICK, paging=CursorPaginator())
    succeeded(channel.sync(source, answer))
    alive[0] = "b"
    failed(channel.sync(source), "answered 400")
    succeeded(channel.sync(source))


@pytest.mark.parametrize("status", [401, 403, 407])
def test_credentials_that_run_out_in_the_middle(channel: SyncChannel, status: int) -> None:
    well, tokens = numbered([things(n) for n in range(1, 8)]), []

    def answer(request: Request) -> Reply:
        tokens.append(request.headers["authorization"])
        return well(request) if tokens.count(tokens[-1]) <= 3 else Reply(status=status)

    for token in ("a", "b"):
        failed(channel.sync(answer=answer, header=("Authorization", token)), f"answered {status}")
    assert succeeded(channel.sync(header=("Authorization", "c"))).sync == 1
    assert channel.ids() == [1, 2, 3, 4, 5, 6, 7]


def test_an_error_in_a_200(channel: SyncChannel) -> None:
    failed(channel.sync(answer=once(Reply({"error": "try later"}))), "Page 2", "no list of rows")
    assert channel.checkpoint.position == "2"
    succeeded(channel.sync())
    assert channel.ids() == [1, 2, 3]


@pytest.mark.parametrize("paging", [HeaderLinkPaginator(), CursorPaginator()])
def test_equal_pages_are_gone_through(channel: SyncChannel, paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without anything of their own: heartbeats, say. The source leads on, and the sync follows."""
    channel.dataset = replace(records, api_sources=(), sources=(Json(rows="items"),))

    def answer(request: Request, pages: int = 7) -> Reply:
        number = int(request.query.get("cursor", "1"))
        body = {"items": things(1) if number < 7 else things(2), "next": number + 1 if number < pages else None}
        return Reply(body, headers={"Link": f'<?cursor={number + 1}>; rel="next"'} if number < pages else {})

    succeeded(channel.sync(replace(QUICK, paging=paging), answer))
    assert channel.ids() == [1] * 6 + [2]
    monkeypatch.setattr("mini_platform.landing.sync.EQUAL_PAGES", 8)

    def endless(request: Request) -> Reply:
        more = answer(request, 10**9)
        return replace(more, body=more.body | {"items": things(1)})

    failed(channel.sync(replace(QUICK, paging=paging), endless), "Page 9", "same rows as page 1")


def test_what_is_never_sent_is_refused() -> None:
    with pytest.raises(DeclarationError, match="the part of its url after # is never sent"):
        ApiSource(name="api", url="http://example.com/rows#new")
    with pytest.raises(ValueError, match="the part after a # is never sent"):
        ApiSourceSettings(url="http://example.com/rows#new")
