"""One page over HTTP: asked for, asked for again, and never taken for whole where it is not.

Here: connections to checked addresses, time-outs, redirects, limits, tries and the pauses between them. Not here: which page
comes next (`paging.py`), what is kept of it (`sync.py`).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpcore
import httpx
import tenacity

from mini_platform.declare.sources import ApiSource
from mini_platform.storage.access import Access, ForbiddenError, shown

REDIRECTS = 5
WORTH_ANOTHER_TRY = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers that may be another one a moment later."""
LOCKED_OUT = frozenset((401, 403, 407))
"""Answers that say something about credentials, and nothing about the page: with better ones it may be had."""
OK, NOT_MODIFIED = 200, 304
CHUNK = 2**16

Taken = TypeVar("Taken")


class SyncError(Exception):
    """A page cannot be had; the message is a sentence.

    Attributes:
        goes_on: whether the next run may go on where this sync stopped, or has to begin anew.
        seconds: for which the source asked to be left alone.
    """

    def __init__(self, sentence: str, *, goes_on: bool = False, seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.goes_on = goes_on
        self.seconds = seconds


class AgainError(SyncError):
    """The same, and another try may help; `seconds`: the pause that the source asked for."""

    def __init__(self, sentence: str, seconds: float | None = None) -> None:
        super().__init__(sentence, goes_on=True, seconds=seconds)


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        status: 200 or 304.
        url: that answered, after redirects.
        body: as it was sent.
        etag: of the page.
        next_link: the `Link` header with `rel="next"`, absolute.
    """

    status: int
    url: str
    body: bytes
    etag: str | None
    next_link: str | None


class _Clock:
    """When the answer that is under way must be whole."""

    def __init__(self) -> None:
        self.end = float("inf")

    def left(self, seconds: float | None) -> float:
        """The time-out of one step.

        Raises:
            httpcore.ReadTimeout: no time is left.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left if seconds is None else min(seconds, left)


class _Stream(httpcore.NetworkStream):
    """A connection on which no step outlasts the answer's time: a source that sends a byte now and then is cut off."""

    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._clock.left(timeout)), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses, never to names: each name is resolved once, here, and what it resolves to is checked."""

    def __init__(self, access: Access, clock: _Clock) -> None:
        self._access = access
        self._clock = clock
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            *others, last = self._access.addresses(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name that could be looked up
            raise httpcore.ConnectError(
                f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}"
            ) from error
        for address in others:
            try:
                return self._connected(address, port, timeout, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connected(last, port, timeout, socket_options)

    def _connected(self, address: str, port: int, timeout: float | None, options: Any) -> httpcore.NetworkStream:
        stream = self._sockets.connect_tcp(address, port, self._clock.left(timeout), None, options)
        return _Stream(stream, self._clock)


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


class _Transport(httpx.BaseTransport):
    """httpx over httpcore's connections, as its own transport is, but with our way to connect."""

    def __init__(self, access: Access, clock: _Clock) -> None:
        self._pool = httpcore.ConnectionPool(max_connections=1, network_backend=_Backend(access, clock))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        answer = self._pool.handle_request(
            httpcore.Request(request.method, target, headers=request.headers.raw, extensions=request.extensions)
        )
        assert isinstance(answer.stream, Iterable)  # noqa: S101 - the pool is not the asynchronous one
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer.stream))

    def close(self) -> None:
        self._pool.close()


class Fetcher:
    """Asks one source for pages; one connection, at the source's pace. Close it at the end."""

    def __init__(self, source: ApiSource, access: Access, say: Callable[[str], None]) -> None:
        self._source = source
        self._access = access
        self._say = say
        self._clock = _Clock()
        self._asked_at = float("-inf")
        timeout = httpx.Timeout(source.read_seconds, connect=source.connect_seconds)
        for library in ("httpx", "httpcore"):  # They tell whole URLs and headers to who listens, with the keys in them.
            logging.getLogger(library).setLevel(logging.WARNING)
        # Nothing of the environment: a proxy would resolve names and connect for us, to wherever it likes.
        self._client = httpx.Client(transport=_Transport(access, self._clock), timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch(self, url: str, etag: str | None, take: Callable[[Answer], Taken]) -> Taken:
        """Ask for a page until it is whole and `take` accepts it.

        Args:
            url: of the page.
            etag: of the page as it is known: an unchanged one need not be sent again.
            take: makes something of an answer; its `AgainError` is worth another try.

        Raises:
            SyncError: the page cannot be had.
        """
        drawn = tenacity.wait_random_exponential(self._source.backoff, self._source.longest_wait)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.seconds if isinstance(error, AgainError) else None
            return max(asked or 0.0, drawn(state))

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._say(
                f"try {state.attempt_number} of {self._source.tries}: {error} Again in {state.upcoming_sleep:.1f} s."
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._source.tries),
            retry=tenacity.retry_if_exception_type(AgainError),
            wait=wait,
            before_sleep=tell,
            reraise=True,
        )
        taken: Taken = retrying(lambda: take(self._request(url, etag)))
        return taken

    def _request(self, url: str, etag: str | None) -> Answer:
        try:
            return self._follow_redirects(url, etag)
        except ForbiddenError as error:
            raise SyncError(f"{error}.") from error
        except (httpx.InvalidURL, httpx.TransportError) as error:  # Of httpx itself: it looks at redirects.
            raise SyncError(f"{shown(url)} leads to a URL that cannot be read.") from error
        except httpcore.TimeoutException as error:
            raise AgainError(f"{shown(url)} did not answer in time.") from error
        except (httpcore.ProtocolError, httpcore.NetworkError) as error:
            said = str(error) or type(error).__name__
            raise AgainError(f"{shown(url)} could not be read to the end: {said}.") from error

    def _follow_redirects(self, url: str, etag: str | None) -> Answer:
        """Follow redirects, each of them checked."""
        for _ in range(REDIRECTS + 1):
            self._access.check(url)
            self._keep_pace()
            with self._opened(url, etag) as response:
                if not (response.has_redirect_location and response.is_redirect):
                    return self._answer(response, url)
                target = str(response.url.join(response.headers["location"]))
            try:
                self._access.check(target)
            except ForbiddenError as error:
                raise ForbiddenError(f"{shown(url)} redirects, but {error}") from error
            if url.startswith("https:") and target.startswith("http:"):
                raise ForbiddenError(f"{shown(url)} redirects to http, where all can read it")
            url = target
        raise SyncError(f"{shown(url)} redirects more than {REDIRECTS} times.")

    @contextmanager
    def _opened(self, url: str, etag: str | None) -> Iterator[httpx.Response]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "mini-platform"}
        if etag:
            headers["If-None-Match"] = etag
        if self._access.header and self._access.is_own(url):
            name, value = self._access.header
            headers[name] = value
        with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            yield response

    def _keep_pace(self) -> None:
        time.sleep(max(0.0, self._asked_at + 1 / self._source.rate - time.monotonic()))
        self._asked_at = time.monotonic()
        self._clock.end = self._asked_at + self._source.answer_seconds

    def _answer(self, response: httpx.Response, url: str) -> Answer:
        status = response.status_code
        if status in WORTH_ANOTHER_TRY:
            seconds = retry_after(response.headers)
            if seconds is not None and seconds > self._source.longest_wait:
                sentence = f"{shown(url)} answered {status} and asked to be left alone for {seconds:,.0f} s."
                raise SyncError(sentence, goes_on=True, seconds=seconds)
            raise AgainError(f"{shown(url)} answered {status}.", seconds)
        if status not in (OK, NOT_MODIFIED):
            said = f"{shown(url)} answered {status} {httpx.codes.get_reason_phrase(status)}."
            raise SyncError(said, goes_on=status in LOCKED_OUT)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise SyncError(f"{shown(url)} answered with an encoding that was not asked for.")
        # A link may have several relations, in any case (RFC 8288, 3.3).
        links = response.links.values()
        link = next((link["url"] for link in links if "next" in link.get("rel", "").lower().split()), None)
        etag = response.headers.get("etag")
        return Answer(
            status,
            url,
            self._body(response, url),
            etag if etag and etag.isascii() else None,  # Or it could not be sent back.
            str(httpx.URL(url).join(link)) if link else None,
        )

    def _body(self, response: httpx.Response, url: str) -> bytes:
        """The body as it was sent; h11 sees to it that it is as long as was announced."""
        most = self._access.max_bytes
        parts, size = [], 0
        for part in response.iter_raw(CHUNK):
            parts.append(part)
            size += len(part)
            if size > most:
                raise SyncError(f"{shown(url)} answered with more than the {most:,} bytes that a page may have.")
        return b"".join(parts)


def retry_after(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Seconds of a `Retry-After`, which may be a number or a date (RFC 9110, 10.2.3); None where there is none to be read.

    A date is counted from the answer's own `Date`, as the source's clock may be another one than ours.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return float(value[:9])
    moment = _date(value)
    if moment is None:
        return None
    sent = _date(headers.get("date", "")) or now or dt.datetime.now(dt.UTC)
    return max(0.0, (moment - sent).total_seconds())


def _date(text: str) -> dt.datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
