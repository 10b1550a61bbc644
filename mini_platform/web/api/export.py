"""Exports: a listing as CSV or JSON, streamed from a server-side cursor in constant memory; masked columns are left out."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import math
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import anyio
from fastapi.concurrency import iterate_in_threadpool, run_in_threadpool
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from mini_platform.rows.readers.exports import WITHHELD
from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.rows.wording import plain
from mini_platform.web.api.query import ListQuery, stream
from mini_platform.web.api.relations import Relation
from mini_platform.web.site import Site

Form = Literal["csv", "json", "ndjson"]
"""Format of an export: CSV, a JSON list, or one JSON object per line."""
MEDIA_TYPE = "text/csv"
MEDIA_TYPES: Mapping[Form, str] = {"csv": MEDIA_TYPE, "json": "application/json", "ndjson": "application/x-ndjson"}
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


def _json_stream(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, lines: bool) -> Iterator[bytes]:
    """Yield rows as JSON objects with values as in pages: one per line, in a list unless `lines`."""
    buffer = bytearray(b"" if lines else b"[")
    for number, row in enumerate(rows):
        if not lines:
            buffer += b",\n" if number else b"\n"
        buffer += to_json(dict(zip(columns, map(plain, row), strict=True)), inf_nan_mode="null")
        if lines:
            buffer += b"\n"
        if len(buffer) > CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer if lines else buffer + b"\n]\n")


def exported(conn: Connection, relation: Relation, query: ListQuery, form: Form) -> Iterator[bytes]:
    """Yield all rows of a query in chunks; masked columns are left out, and a column `_withheld` names them."""
    withheld = [name for name in query.fields if relation.columns[name].masked]
    columns = tuple(name for name in query.fields if name not in withheld)
    rows: Iterable[tuple[Any, ...]] = stream(conn, relation, replace(query, fields=columns))
    if withheld:
        names = " ".join(withheld)
        columns, rows = (*columns, WITHHELD), ((*row, names) for row in rows)
    return csv_stream(columns, rows) if form == "csv" else _json_stream(columns, rows, lines=form == "ndjson")


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


def export(
    site: Site, relation: Relation, query: ListQuery, headers: dict[str, str], form: Form = "csv"
) -> ExportResponse:
    """Return all rows of a query. The first rows are fetched before the response starts, so that errors are reported.

    Raises:
        ProblemError: too many exports are running.
    """

    def chunks() -> Generator[bytes, None, None]:
        with site.export(personal=relation.is_personal) as conn:
            yield from exported(conn, relation, query, form)

    name = relation.name.replace(".", "_").strip("_")
    disposition = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
    return ExportResponse(chunks(), headers | disposition, MEDIA_TYPES[form])


class ExportResponse(StreamingResponse):
    """A streaming response that always releases its connection, even if the client disconnects."""

    def __init__(self, chunks: Generator[bytes, None, None], headers: dict[str, str], media_type: str) -> None:
        """Fetch the first chunk."""
        self._chunks = chunks
        first = next(chunks)
        super().__init__(self._body(first), headers=headers, media_type=media_type)

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
