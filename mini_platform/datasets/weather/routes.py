"""Weather by the paths of the system that this platform replaces: stations, daily series, summaries, quality, download, import.

https://fastapi.tiangolo.com/tutorial/query-params-str-validations/
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Connection, Table, func, select

from mini_platform import Dataset
from mini_platform.warehouse.tables import DatasetTables, dataset_tables, quality_report
from mini_platform.web.api.answers import HEADERS
from mini_platform.web.api.export import MEDIA_TYPE, export
from mini_platform.web.api.file_status import LandedFile, Wait
from mini_platform.web.api.query import ListQuery
from mini_platform.web.api.relations import rows as rows_of
from mini_platform.web.api.uploads import FORM, PENDING_ANSWER, outcome_of_upload
from mini_platform.web.api.values import TEXT
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import NotFoundError, ProblemError, documented
from mini_platform.web.site import Site, SiteDep

DATASET = "weather"
SAMPLE = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,-4.5,0.3\n"
ONLY_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": FORM | {"example": {"file": SAMPLE}}},
    }
}
reads = APIRouter(
    prefix="/api",
    tags=["weather"],
    dependencies=[Depends(allowed("read", DATASET))],
    responses=documented(400, 404, 422),
)
router = APIRouter()

Station = Annotated[
    str | None,
    Query(description="Identifier of a station; without it, all of them.", pattern=TEXT, examples=["SEA"]),
]
From = Annotated[dt.date | None, Query(alias="from", description="First day.", examples=["2012-01-01"])]
To = Annotated[dt.date | None, Query(description="Last day.", examples=["2012-12-31"])]


class Stations(BaseModel):
    """Every station that ever reported."""

    stations: list[str] = Field(description="Identifiers, in order", examples=[["SEA"]])


class Day(BaseModel):
    """A day at one station, or over all of them."""

    date: dt.date
    temp_c: float | None = Field(description="Mean temperature, °C; over all stations: the mean of theirs")
    precip_mm: float | None = Field(description="Precipitation, mm; over all stations: their sum")


class Days(BaseModel):
    """A page of days, the first one first."""

    station_id: str | None
    count: int = Field(description="Days in all")
    limit: int
    offset: int
    next_offset: int | None = Field(description="`offset` of the next page; null on the last one")
    data: list[Day]


class Summary(BaseModel):
    """Figures of a span of days."""

    station_id: str | None
    from_: dt.date | None = Field(serialization_alias="from")
    to: dt.date | None
    total_rows: int
    avg_temp_c: float | None
    total_precip_mm: float | None


class DateRange(BaseModel):
    """Smallest and largest value, as text; of numbers, as numbers."""

    min: float | str | None
    max: float | str | None


class Quality(BaseModel):
    """What the last quality report says of a table, by column."""

    table: str
    total_rows: int
    null_counts: dict[str, int]
    null_rates: dict[str, float]
    duplicates: int = Field(description="Rows beyond the first of their key")
    min_max: dict[str, DateRange]
    out_of_range_counts: dict[str, int] = Field(description="Rows of the column that break a rule about its values")


class Imported(BaseModel):
    """What became of an imported file: `rows_in_file = rows_valid + rows_invalid`."""

    rows_in_file: int
    rows_valid: int
    rows_invalid: int = Field(description="Rejected, each with its reasons: see /api/datasets/weather/rejects/")
    rows_upserted: int = Field(description="Rows of the table that the file wrote or confirmed: one per key of it")
    file_id: int


@reads.get("/stations/")
def stations(site: SiteDep) -> Stations:
    """List the stations that ever reported."""
    summary = _tables(site).aggregates["summary"]
    with site.read() as conn:
        return Stations(stations=list(conn.scalars(select(summary.c.station_id).order_by(summary.c.station_id))))


@reads.get("/metrics/daily/")
def daily(
    site: SiteDep,
    station_id: Station = None,
    from_: From = None,
    to: To = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Days on a page.")] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000, description="Days before the page.")] = 0,
) -> Days:
    """Temperature and precipitation by the day: of a station, or of all stations together."""
    tables = _tables(site)
    if station_id is None:
        table = tables.aggregates["daily_metrics"]
        values = (table.c.avg_temp_c, table.c.total_precip_mm)
    else:
        table = tables.production
        values = (table.c.temp_c, table.c.precip_mm)
    where = _within(table, station_id, from_, to)
    days = select(table.c.date, *values).where(*where).order_by(table.c.date).limit(limit).offset(offset)
    with site.read() as conn:
        count = conn.scalar(select(func.count()).select_from(table).where(*where)) or 0
        data = [Day(date=date, temp_c=temp, precip_mm=precip) for date, temp, precip in conn.execute(days)]
        if not count:
            _known(conn, tables.aggregates["summary"], station_id)
    following = offset + limit
    return Days(
        station_id=station_id,
        count=count,
        limit=limit,
        offset=offset,
        next_offset=following if following < count else None,
        data=data,
    )


@reads.get("/metrics/summary/")
def summary(site: SiteDep, station_id: Station = None, from_: From = None, to: To = None) -> Summary:
    """Count, mean temperature and summed precipitation of a span of days, at one station or at all."""
    tables = _tables(site)
    table = tables.production
    figures = select(
        func.count().label("total_rows"),
        func.avg(table.c.temp_c).label("avg_temp_c"),
        func.sum(table.c.precip_mm).label("total_precip_mm"),
    ).where(*_within(table, station_id, from_, to))
    with site.read() as conn:
        found = conn.execute(figures).mappings().one()
        if not found["total_rows"]:
            _known(conn, tables.aggregates["summary"], station_id)
    return Summary(station_id=station_id, from_=from_, to=to, **found)


@reads.get(
    "/metrics/download/",
    summary="Measurements as CSV",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def download(site: SiteDep, station_id: Station = None, from_: From = None, to: To = None) -> Response:
    """Download the measurements as CSV: all of them, those of a station, those of a span of days."""
    _check(from_, to)
    relation = rows_of(site.dataset(DATASET))
    params = {"station_id": station_id, "date__gte": from_, "date__lte": to}
    asked = [(name, str(value)) for name, value in params.items() if value is not None]
    asked.append(("fields", "station_id,date,temp_c,precip_mm"))
    return export(site, relation, ListQuery.parse(relation, asked, export=True), HEADERS)


@reads.get("/quality/")
def quality(
    site: SiteDep,
    table: Annotated[Literal["measurements", "staging"], Query(description="Of production, or of staging.")] = (
        "measurements"
    ),
) -> Quality:
    """Show the last quality report of the measurements, or of what was last staged."""
    dataset = site.dataset(DATASET)
    tables = dataset_tables(dataset)
    measured = tables.staging if table == "staging" else tables.production
    mine = quality_report.c.table_name == measured.fullname
    last = select(func.max(quality_report.c.measured_at)).where(mine).scalar_subquery()
    # Several runs may have reported the figures of that time.
    report = (
        select(quality_report)
        .distinct(quality_report.c.column_name)
        .where(mine, quality_report.c.measured_at == last)
        .order_by(quality_report.c.column_name)
    )
    with site.read() as conn:
        columns = {row["column_name"]: row for row in conn.execute(report).mappings()}
    if not columns:
        raise NotFoundError("There is no quality report yet: it is made with the first load.")
    numbers = {column.name for column in dataset.columns if column.type in (int, float)}
    first = next(iter(columns.values()))
    return Quality(
        table=table,
        total_rows=first["total_rows"],
        null_counts={name: row["nulls"] for name, row in columns.items()},
        null_rates={name: row["null_rate"] for name, row in columns.items()},
        duplicates=first["duplicates"],
        min_max={name: _span(row, name in numbers) for name, row in columns.items()},
        out_of_range_counts={name: _out_of_range(dataset, row) for name, row in columns.items()},
    )


@router.post(
    "/api/import/",
    tags=["uploads"],
    dependencies=[Depends(allowed("write", DATASET))],
    summary="Import weather measurements",
    response_model=Imported | LandedFile,
    responses={
        200: {"model": Imported},
        **PENDING_ANSWER,
        **documented(400, 404, 408, 413, 415, 422, 507),
    },
    openapi_extra=ONLY_FORM,
)
async def import_file(request: Request, response: Response, site: SiteDep, wait: Wait = 60) -> Imported | LandedFile:
    """Send a weather file as multipart `file`, and wait until it is loaded.

    `rows_upserted` counts the keys of the valid rows: inserted, updated, or found to be as the file says. Bytes that were
    imported before are answered with the figures of that time. A file that is not loaded when the wait is over is answered
    with 202 and its row of the ledger.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ProblemError("Send the file as multipart/form-data, in a part with the name `file`.")
    found = await outcome_of_upload(request, site, site.dataset(DATASET), wait)
    if found.pending:
        return found.answer(response)
    done = found.version
    if done.status != "loaded":
        detail = f"{found.row.name} is {done.status}: {done.error}"
        raise ProblemError(detail, file_id=found.row.file_id, file_status=done.status)
    return Imported(
        rows_in_file=done.rows_read,
        rows_valid=done.rows_read - done.rows_rejected,
        rows_invalid=done.rows_rejected,
        rows_upserted=done.rows_inserted + done.rows_updated + done.rows_unchanged,
        file_id=found.row.file_id,
    )


router.include_router(reads)


def _tables(site: Site) -> DatasetTables:
    return dataset_tables(site.dataset(DATASET))


def _check(from_: dt.date | None, to: dt.date | None) -> None:
    if from_ and to and from_ > to:
        raise ProblemError(f"from ({from_}) is after to ({to}).")


def _within(
    table: Table, station_id: str | None, from_: dt.date | None, to: dt.date | None
) -> list[ColumnElement[bool]]:
    _check(from_, to)
    where = [] if station_id is None else [table.c.station_id == station_id]
    where += [] if from_ is None else [table.c.date >= from_]
    return where + ([] if to is None else [table.c.date <= to])


def _known(conn: Connection, summary: Table, station_id: str | None) -> None:
    """A station without a day in the span is one thing, a station that never was another."""
    if station_id is not None and not conn.scalar(
        select(func.count()).select_from(summary).where(summary.c.station_id == station_id)
    ):
        raise NotFoundError(f"There is no station {station_id!r}. See /api/stations/")


def _span(row: Any, is_number: bool) -> DateRange:
    least, most = row["minimum"], row["maximum"]
    return (
        DateRange(min=float(least), max=float(most))
        if is_number and least is not None
        else DateRange(min=least, max=most)
    )


def _out_of_range(dataset: Dataset, row: Any) -> int:
    """Rows that break a rule about the values of the column: not those that it is there, and of its type."""
    names = {
        f"{column.name}_{check}"
        for column in dataset.columns
        if column.name == row["column_name"]
        for check in column.checks
    }
    names |= {custom.rule.name for custom in dataset.custom_rules}
    return sum(count for name, count in row["out_of_range"].items() if name in names)
