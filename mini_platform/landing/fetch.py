"""One page over HTTP: requests, retries, and complete responses only.

Here: connections to checked addresses, time-outs, redirects, limits, tries and the pauses between them. Not here: which page
comes next (`paging.py`), what is stored of it (`sync.py`).
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
RETRYABLE_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses of temporary errors."""
CREDENTIAL_STATUSES = frozenset((401, 403, 407))
"""Statuses about credentials and not about the page: with better ones the sync can resume."""
OK, NOT_MODIFIED = 200, 304
CHUNK = 2**16

Result = TypeVar("Result")


class SyncError(Exception):
    """A page cannot be fetched; the message is a sentence.

    Attributes:
        resumable: True if the next run may resume where this sync stopped; otherwise it starts from the first page.
        seconds: pause that the source requested.
    """

    def __init__(self, sentence: str, *, resumable: bool = False, seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.resumable = resumable
        self.seconds = seconds


class RetryableError(SyncError):
    """A page cannot be fetched, and a retry may help; `seconds` is the pause that the source requested."""

    def __init__(self, sentence: str, seconds: float | None = None) -> None:
        super().__init__(sentence, resumable=True, seconds=seconds)


@dataclass(frozen=True)
class Answer:
    """A complete response.

    Attributes:
        status: 200 or 304.
        url: URL of the response, after redirects.
        body: body as it was sent.
        etag: ETag of the page.
        next_link: the `Link` header with `rel="next"`, absolute.
    """

    status: int
    url: str
    body: bytes
    etag: str | None
    next_link: str | None


class _Clock:
    """The deadline of the response in progress."""

    def __init__(self) -> None:
        self.end = float("inf")

    def remaining(self, seconds: float | None) -> float:
        """Return the time-out of one step.

        Raises:
            httpcore.ReadTimeout: the deadline is over.
        """
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise httpcore.ReadTimeout
        return remaining if seconds is None else min(seconds, remaining)


class _Stream(httpcore.NetworkStream):
    """A connection on which no step outlasts the response's deadline: a source that sends a byte now and then is cut off."""

    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._stream.start_tls(ssl_context, server_hostname, self._clock.remaining(timeout)), self._clock
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """A network backend that connects to addresses, never to names: each name is resolved once and its addresses checked."""

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
        except (OSError, UnicodeError) as error:  # UnicodeError: the name is not a valid host name
            raise httpcore.ConnectError(
                f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}"
            ) from error
        for address in others:
            try:
                return self._connect(address, port, timeout, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(last, port, timeout, socket_options)

    def _connect(self, address: str, port: int, timeout: float | None, options: Any) -> httpcore.NetworkStream:
        stream = self._sockets.connect_tcp(address, port, self._clock.remaining(timeout), None, options)
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
    """An httpx transport over httpcore's connection pool, like httpx's own, but with `_Backend`."""

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
    """Requests the pages of one source over one connection, within the source's rate limit. Close it at the end."""

    def __init__(self, source: ApiSource, access: Access, log: Callable[[str], None]) -> None:
        self._source = source
        self._access = access
        self._log = log
        self._clock = _Clock()
        self._requested_at = float("-inf")
        timeout = httpx.Timeout(source.read_seconds, connect=source.connect_seconds)
        for library in ("httpx", "httpcore"):  # They log whole URLs and headers, keys included.
            logging.getLogger(library).setLevel(logging.WARNING)
        # Without the environment's proxy: it would resolve names and connect by itself, unchecked.
        self._client = httpx.Client(transport=_Transport(access, self._clock), timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch(self, url: str, etag: str | None, convert: Callable[[Answer], Result]) -> Result:
        """Request a page until it is complete and `convert` accepts it.

        Args:
            url: URL of the page.
            etag: ETag of the known version: an unchanged page is not sent again.
            convert: converts a response to the result; its `RetryableError` causes a retry.

        Raises:
            SyncError: the page cannot be fetched.
        """
        backoff = tenacity.wait_random_exponential(self._source.backoff, self._source.longest_wait)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            requested = error.seconds if isinstance(error, RetryableError) else None
            return max(requested or 0.0, backoff(state))

        def log_retry(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._log(
                f"try {state.attempt_number} of {self._source.tries}: {error} Retrying in {state.upcoming_sleep:.1f} s."
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._source.tries),
            retry=tenacity.retry_if_exception_type(RetryableError),
            wait=wait,
            before_sleep=log_retry,
            reraise=True,
        )
        result: Result = retrying(lambda: convert(self._request(url, etag)))
        return result

    def _request(self, url: str, etag: str | None) -> Answer:
        try:
            return self._follow_redirects(url, etag)
        except ForbiddenError as error:
            raise SyncError(f"{error}.") from error
        except (httpx.InvalidURL, httpx.TransportError) as error:  # Raised by httpx itself, which parses redirects.
            raise SyncError(f"{shown(url)} redirects to an invalid URL.") from error
        except httpcore.TimeoutException as error:
            raise RetryableError(f"{shown(url)} did not answer in time.") from error
        except (httpcore.ProtocolError, httpcore.NetworkError) as error:
            reason = str(error) or type(error).__name__
            raise RetryableError(f"{shown(url)} could not be read to the end: {reason}.") from error

    def _follow_redirects(self, url: str, etag: str | None) -> Answer:
        """Request a URL and follow its redirects, each of them checked."""
        for _ in range(REDIRECTS + 1):
            self._access.check(url)
            self._keep_pace()
            with self._open(url, etag) as response:
                if not (response.has_redirect_location and response.is_redirect):
                    return self._answer(response, url)
                target = str(response.url.join(response.headers["location"]))
            try:
                self._access.check(target)
            except ForbiddenError as error:
                raise ForbiddenError(f"{shown(url)} redirects, but {error}") from error
            if url.startswith("https:") and target.startswith("http:"):
                raise ForbiddenError(f"{shown(url)} redirects from https to http, which is not encrypted")
            url = target
        raise SyncError(f"{shown(url)} redirects more than {REDIRECTS} times.")

    @contextmanager
    def _open(self, url: str, etag: str | None) -> Iterator[httpx.Response]:
        headers = {
            "Accept": "application/json, */*;q=0.5",
            "Accept-Encoding": "identity",
            "User-Agent": "mini-platform",
        }
        if etag:
            headers["If-None-Match"] = etag
        if self._access.header and self._access.is_own(url):
            name, value = self._access.header
            headers[name] = value
        with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            yield response

    def _keep_pace(self) -> None:
        time.sleep(max(0.0, self._requested_at + 1 / self._source.rate - time.monotonic()))
        self._requested_at = time.monotonic()
        self._clock.end = self._requested_at + self._source.answer_seconds

    def _answer(self, response: httpx.Response, url: str) -> Answer:
        status = response.status_code
        if status in RETRYABLE_STATUSES:
            seconds = retry_after(response.headers)
            if seconds is not None and seconds > self._source.longest_wait:
                sentence = f"{shown(url)} answered {status} and asked for a pause of {seconds:,.0f} s."
                raise SyncError(sentence, resumable=True, seconds=seconds)
            raise RetryableError(f"{shown(url)} answered {status}.", seconds)
        if status not in (OK, NOT_MODIFIED):
            sentence = f"{shown(url)} answered {status} {httpx.codes.get_reason_phrase(status)}."
            raise SyncError(sentence, resumable=status in CREDENTIAL_STATUSES)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise SyncError(f"{shown(url)} answered with a content encoding that was not requested.")
        # A link may have several relations, in any case (RFC 8288, 3.3).
        links = response.links.values()
        link = next((link["url"] for link in links if "next" in link.get("rel", "").lower().split()), None)
        etag = response.headers.get("etag")
        return Answer(
            status,
            url,
            self._body(response, url),
            etag if etag and etag.isascii() else None,  # Others could not be sent back.
            str(httpx.URL(url).join(link)) if link else None,
        )

    def _body(self, response: httpx.Response, url: str) -> bytes:
        """Return the body as it was sent; h11 makes sure that it has the announced length."""
        max_bytes = self._access.max_bytes
        parts, size = [], 0
        for part in response.iter_raw(CHUNK):
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                raise SyncError(f"{shown(url)} answered with more than the {max_bytes:,} bytes that a page may have.")
        return b"".join(parts)


def retry_after(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Return the seconds of a `Retry-After`, which may be a number or a date (RFC 9110, 10.2.3); None if there is none.

    A date is counted from the response's own `Date`, as the source's clock may differ from ours.
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
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
