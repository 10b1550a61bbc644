"""Weather under the paths of the system that this platform replaces: stations, days, summaries, quality, download, import.

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
from mini_platform.web.api.replaced import BadRequestRoute
from mini_platform.web.api.uploads import FORM, PENDING_ANSWER, outcome_of_upload
from mini_platform.web.api.values import TEXT
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import NotFoundError, ProblemError, documented
from mini_platform.web.site import Site, SiteDep

DATASET = "weather"
SAMPLE = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,-4.5,0.3\n"
FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": FORM | {"example": {"file": SAMPLE}}},
    }
}
reads = APIRouter(
    route_class=BadRequestRoute,
    prefix="/api",
    tags=["weather"],
    dependencies=[Depends(allowed("read", DATASET))],
    responses=documented(400, 404),
)
router = APIRouter(route_class=BadRequestRoute)

Station = Annotated[
    str | None,
    Query(description="Identifier of a station; all stations by default.", pattern=TEXT, examples=["SEA"]),
]
From = Annotated[dt.date | None, Query(alias="from", description="First day.", examples=["2012-01-01"])]
To = Annotated[dt.date | None, Query(description="Last day.", examples=["2012-12-31"])]


class Stations(BaseModel):
    """All stations that have reported."""

    stations: list[str] = Field(description="Identifiers, in order", examples=[["SEA"]])


class Day(BaseModel):
    """A day at one station, or over all stations."""

    date: dt.date
    temp_c: float | None = Field(description="Mean temperature, °C; for all stations, the mean of their temperatures")
    precip_mm: float | None = Field(description="Precipitation, mm; for all stations, the sum")


class Days(BaseModel):
    """A page of days, the earliest first."""

    station_id: str | None
    count: int = Field(description="Total number of days")
    limit: int
    offset: int
    next_offset: int | None = Field(description="`offset` of the next page; null on the last one")
    data: list[Day]


class Summary(BaseModel):
    """Statistics of a range of days."""

    station_id: str | None
    from_: dt.date | None = Field(serialization_alias="from")
    to: dt.date | None
    total_rows: int
    avg_temp_c: float | None
    total_precip_mm: float | None


class DateRange(BaseModel):
    """Smallest and largest value, as numbers for columns of numbers, else as text."""

    min: float | str | None
    max: float | str | None


class Quality(BaseModel):
    """The last quality report of a table, by column."""

    table: str
    total_rows: int
    null_counts: dict[str, int]
    null_rates: dict[str, float]
    duplicates: int = Field(description="Rows whose key an earlier row has")
    min_max: dict[str, DateRange]
    out_of_range_counts: dict[str, int] = Field(description="Rows that break a rule about the values of the column")


class Imported(BaseModel):
    """Result of an imported file: `rows_in_file = rows_valid + rows_invalid`."""

    rows_in_file: int
    rows_valid: int
    rows_invalid: int = Field(description="Rejected rows; for the reasons see /api/datasets/weather/rejects/")
    rows_upserted: int = Field(
        description="Rows of the table that the file inserted, updated or confirmed: one per key"
    )
    file_id: int


@reads.get("/stations/")
def stations(site: SiteDep) -> Stations:
    """List the stations that have reported."""
    summary = _tables(site).aggregates["summary"]
    with site.read() as conn:
        return Stations(stations=list(conn.scalars(select(summary.c.station_id).order_by(summary.c.station_id))))


@reads.get("/metrics/daily/")
def daily(
    site: SiteDep,
    station_id: Station = None,
    from_: From = None,
    to: To = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Days per page.")] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000, description="Days to skip.")] = 0,
) -> Days:
    """List temperature and precipitation by day, at one station or over all stations."""
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
            _require_station(conn, tables.aggregates["summary"], station_id)
    next_offset = offset + limit
    return Days(
        station_id=station_id,
        count=count,
        limit=limit,
        offset=offset,
        next_offset=next_offset if next_offset < count else None,
        data=data,
    )


@reads.get("/metrics/summary/")
def summary(site: SiteDep, station_id: Station = None, from_: From = None, to: To = None) -> Summary:
    """Show count, mean temperature and total precipitation of a range of days, at one station or over all stations."""
    tables = _tables(site)
    table = tables.production
    figures = select(
        func.count().label("total_rows"),
        func.avg(table.c.temp_c).label("avg_temp_c"),
        func.sum(table.c.precip_mm).label("total_precip_mm"),
    ).where(*_within(table, station_id, from_, to))
    with site.read() as conn:
        row = conn.execute(figures).mappings().one()
        if not row["total_rows"]:
            _require_station(conn, tables.aggregates["summary"], station_id)
    return Summary(station_id=station_id, from_=from_, to=to, **row)


@reads.get(
    "/metrics/download/",
    summary="Measurements as CSV",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def download(site: SiteDep, station_id: Station = None, from_: From = None, to: To = None) -> Response:
    """Download the measurements as CSV: all, or those of a station or a range of days."""
    _check(from_, to)
    relation = rows_of(site.dataset(DATASET))
    params = {"station_id": station_id, "date__gte": from_, "date__lte": to}
    query = [(name, str(value)) for name, value in params.items() if value is not None]
    query.append(("fields", "station_id,date,temp_c,precip_mm"))
    return export(site, relation, ListQuery.parse(relation, query, export=True), HEADERS)


@reads.get("/quality/")
def quality(
    site: SiteDep,
    table: Annotated[Literal["measurements", "staging"], Query(description="The production table, or staging.")] = (
        "measurements"
    ),
) -> Quality:
    """Show the last quality report of the measurements, or of what was last staged."""
    dataset = site.dataset(DATASET)
    tables = dataset_tables(dataset)
    measured_table = tables.staging if table == "staging" else tables.production
    of_table = quality_report.c.table_name == measured_table.fullname
    last = select(func.max(quality_report.c.measured_at)).where(of_table).scalar_subquery()
    # Several runs may have measured at that same time.
    report = (
        select(quality_report)
        .distinct(quality_report.c.column_name)
        .where(of_table, quality_report.c.measured_at == last)
        .order_by(quality_report.c.column_name)
    )
    with site.read() as conn:
        columns = {row["column_name"]: row for row in conn.execute(report).mappings()}
    if not columns:
        raise NotFoundError("There is no quality report yet: the first load creates it.")
    number_columns = {column.name for column in dataset.columns if column.type in (int, float)}
    first = next(iter(columns.values()))
    return Quality(
        table=table,
        total_rows=first["total_rows"],
        null_counts={name: row["nulls"] for name, row in columns.items()},
        null_rates={name: row["null_rate"] for name, row in columns.items()},
        duplicates=first["duplicates"],
        min_max={name: _value_range(row, name in number_columns) for name, row in columns.items()},
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
        **documented(400, 404, 408, 413, 415, 507),
    },
    openapi_extra=FORM_BODY,
)
async def import_file(request: Request, response: Response, site: SiteDep, wait: Wait = 60) -> Imported | LandedFile:
    """Upload a weather file as multipart `file`, and wait until it is loaded.

    `rows_upserted` counts the keys of the valid rows: inserted, updated, or already with the same values. For bytes that were
    imported before, the response has the numbers of that import. If the file is not loaded when the wait is over, the response
    is 202 with the file's row in the ledger.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ProblemError("Send the file as multipart/form-data, in a part named `file`.")
    upload = await outcome_of_upload(request, site, site.dataset(DATASET), wait)
    if upload.pending:
        return upload.answer(response)
    version = upload.version
    if version.status != "loaded":
        detail = f"{upload.row.name} is {version.status}: {version.error}"
        raise ProblemError(detail, file_id=upload.row.file_id, file_status=version.status)
    return Imported(
        rows_in_file=version.rows_read,
        rows_valid=version.rows_read - version.rows_rejected,
        rows_invalid=version.rows_rejected,
        rows_upserted=version.rows_inserted + version.rows_updated + version.rows_unchanged,
        file_id=upload.row.file_id,
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


def _require_station(conn: Connection, summary: Table, station_id: str | None) -> None:
    """Raise NotFoundError if a station has never reported; one without a day in the range is not an error."""
    if station_id is not None and not conn.scalar(
        select(func.count()).select_from(summary).where(summary.c.station_id == station_id)
    ):
        raise NotFoundError(f"There is no station {station_id!r}. See /api/stations/")


def _value_range(row: Any, is_number: bool) -> DateRange:
    minimum, maximum = row["minimum"], row["maximum"]
    return (
        DateRange(min=float(minimum), max=float(maximum))
        if is_number and minimum is not None
        else DateRange(min=minimum, max=maximum)
    )


def _out_of_range(dataset: Dataset, row: Any) -> int:
    """Return how many rows break a rule about the values of the column, without rules that it is present and of its type."""
    names = {
        f"{column.name}_{check}"
        for column in dataset.columns
        if column.name == row["column_name"]
        for check in column.checks
    }
    names |= {custom.rule.name for custom in dataset.custom_rules}
    return sum(count for name, count in row["out_of_range"].items() if name in names)
