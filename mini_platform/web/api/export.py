"""Exports: a listing as CSV, streamed from a server-side cursor in constant memory."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import math
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import Any

import anyio
from fastapi.concurrency import iterate_in_threadpool, run_in_threadpool
from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.rows.wording import plain
from mini_platform.web.api.query import ListQuery, stream
from mini_platform.web.api.relations import Relation
from mini_platform.web.site import Site

MEDIA_TYPE = "text/csv"
CHUNK_BYTES = 2**16
STALLED_SECONDS = 60.0
"""Maximum time in which a client reads nothing, as its export holds a connection."""


def csv_stream(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Yield rows as CSV that is safe to open in spreadsheet programs; values as in JSON, an empty cell for null."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        if buffer.tell() > CHUNK_BYTES:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return escape_formula(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    return (
        escape_formula(to_json(value, inf_nan_mode="null").decode()) if isinstance(value, list | dict) else plain(value)
    )


def export(site: Site, relation: Relation, query: ListQuery, headers: dict[str, str]) -> CsvResponse:
    """Return all rows of a query as CSV. The first rows are fetched before the response starts, so that errors are reported.

    Raises:
        ProblemError: too many exports are running.
    """

    def chunks() -> Generator[bytes, None, None]:
        with site.export(personal=relation.is_personal) as conn:
            yield from csv_stream(query.fields, stream(conn, relation, query))

    name = relation.name.replace(".", "_").strip("_")
    return CsvResponse(chunks(), headers | {"Content-Disposition": f'attachment; filename="{name}.csv"'})


class CsvResponse(StreamingResponse):
    """A streaming response that always releases its connection, even if the client disconnects."""

    def __init__(self, chunks: Generator[bytes, None, None], headers: dict[str, str]) -> None:
        """Fetch the first chunk."""
        self._chunks = chunks
        first = next(chunks)
        super().__init__(self._body(first), headers=headers, media_type=MEDIA_TYPE)

    async def _body(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        async for chunk in iterate_in_threadpool(self._chunks):
            yield chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; end it if the client disconnects or stalls."""

        async def patiently(message: Message) -> None:
            await asyncio.wait_for(send(message), STALLED_SECONDS)

        try:
            await super().__call__(scope, receive, patiently)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._chunks.close)
