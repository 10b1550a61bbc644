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
from mini_platform.rows.readers.header import columns_of_refused
from mini_platform.warehouse.quality import current, rows_outside
from mini_platform.warehouse.tables import DatasetTables, dataset_tables
from mini_platform.web.api.answers import HEADERS
from mini_platform.web.api.export import MEDIA_TYPE, export
from mini_platform.web.api.file_status import LONGEST_SECONDS, LandedFile, Wait
from mini_platform.web.api.query import ListQuery
from mini_platform.web.api.relations import rows as rows_of
from mini_platform.web.api.replaced import BadRequestRoute
from mini_platform.web.api.uploads import FORM, PENDING_ANSWER, outcome_of_upload
from mini_platform.web.api.values import TEXT
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import NotFoundError, ProblemError, documented
from mini_platform.web.site import Site, SiteDep

DATASET = "weather"
MOST_DAYS = 1000
"""Maximum number of days of a page."""
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


class Duplicates(BaseModel):
    """Rows with the key of another row."""

    key: list[str] = Field(description="Columns of the key", examples=[["station_id", "date"]])
    extra_duplicate_rows: int = Field(description="Rows whose key an earlier row has")


class Quality(BaseModel):
    """Figures of a table, by column."""

    table: str
    total_rows: int
    null_counts: dict[str, int]
    null_rates: dict[str, float]
    duplicates: Duplicates
    min_max: dict[str, DateRange]
    out_of_range_counts: dict[str, int] = Field(
        description="Rows below and above the limits of a column", examples=[{"temp_c_lt_-90": 0, "temp_c_gt_60": 0}]
    )


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
    limit: Annotated[int, Query(ge=1, description=f"Days per page; more than {MOST_DAYS} are {MOST_DAYS}.")] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000, description="Days to skip.")] = 0,
) -> Days:
    """List temperature and precipitation by day, at one station or over all stations."""
    limit = min(limit, MOST_DAYS)
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
    query.append(("fields", "date,station_id,temp_c,precip_mm"))
    return export(site, relation, ListQuery.parse(relation, query, export=True), HEADERS)


@reads.get("/quality/")
def quality(
    site: SiteDep,
    table: Annotated[Literal["measurements", "staging"], Query(description="The production table, or staging.")] = (
        "measurements"
    ),
) -> Quality:
    """Show the quality of the measurements, or of the rows of the last load as they were staged, as they are now."""
    dataset = site.dataset(DATASET)
    staged = table == "staging"
    # Staging is closed to the read-only role.
    with site.read_all() if staged else site.read() as conn:
        columns = {row["column_name"]: row for row in current(conn, dataset, staged=staged)}
        out_of_range_counts = _out_of_range_counts(conn, dataset, staged=staged)
    numbers = {column.name for column in dataset.columns if column.type in (int, float)}
    first = columns[dataset.key[0]]
    return Quality(
        table=table,
        total_rows=first["total_rows"],
        null_counts={name: row["nulls"] for name, row in columns.items()},
        null_rates={name: row["null_rate"] for name, row in columns.items()},
        duplicates=Duplicates(key=list(dataset.key), extra_duplicate_rows=first["duplicates"]),
        min_max={name: _value_range(row, name in numbers) for name, row in columns.items()},
        out_of_range_counts=out_of_range_counts,
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
        **documented(400, 404, 408, 413, 507),
    },
    openapi_extra=FORM_BODY,
)
async def import_file(
    request: Request, response: Response, site: SiteDep, wait: Wait = LONGEST_SECONDS
) -> Imported | LandedFile:
    """Upload a weather file as multipart `file`, and wait until it is loaded.

    From the response on, the other paths show the file. `rows_upserted` counts the keys of the valid rows: inserted, updated,
    or already with the same values. For bytes that were imported before, the response has the numbers of that import. If the
    file is not loaded when the wait is over, the response is 202 with the file's row in the ledger.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ProblemError("Send the file as multipart/form-data, in a part named `file`.")
    upload = await outcome_of_upload(request, site, site.dataset(DATASET), wait)
    if upload.pending:
        return upload.answer(response)
    version = upload.version
    if version.status != "loaded":
        detail = f"{upload.row.name} is {version.status}: {version.error}"
        more: dict[str, Any] = {"file_id": upload.row.file_id, "file_status": version.status}
        if columns := columns_of_refused(version.error or ""):
            more["found"] = columns
        raise ProblemError(detail, **more)
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


def _out_of_range_counts(conn: Connection, dataset: Dataset, *, staged: bool) -> dict[str, int]:
    """Return the number of rows below and above each limit, named like `temp_c_lt_-90`."""
    counts: dict[str, int] = {}
    for column in dataset.columns:
        if limits := column.checks.get("in_range"):
            below, above = rows_outside(conn, dataset, column, staged=staged)
            counts |= {
                f"{column.name}_lt_{limits['min_value']}": below,
                f"{column.name}_gt_{limits['max_value']}": above,
            }
    return counts
