"""Records: named items from an HTTP API and from CSV and JSON files, in one table."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

from sqlalchemy import DateTime, Double, FromClause, Select, func, select

from mini_platform import (
    AdoptedTable,
    Aggregate,
    ApiSource,
    Csv,
    Dataset,
    Field,
    Json,
    Page,
    PageNumberPaginator,
    RejectLimit,
    RowModel,
)


class Record(RowModel):
    """A named item of one source."""

    source: str = Field("Source of the record: name of the API source, or format of the file", system="source")
    source_id: str = Field(
        "Identifier of the record at its source", aliases=("id",), str_length={"min_value": 1, "max_value": 200}
    )
    name: str = Field("Name or title", aliases=("title",), str_length={"min_value": 1, "max_value": 1000})
    value: float | None = Field("Value; 0 is a value, empty means that there is none", optional=True)
    description: str | None = Field("Description or body", aliases=("body",), optional=True)
    record_id: int = Field("Number of the record; it never changes", system="surrogate")
    created_at: dt.datetime = Field(
        "Time at which the record was first loaded; it never changes", system="first_loaded"
    )
    updated_at: dt.datetime = Field("Time at which the record last changed", system="last_loaded")


def records_by_source(r: FromClause) -> Select[Any]:
    """Records by source: number, completeness and age."""
    return select(
        r.c.source,
        func.count().label("records"),
        func.count(r.c.value).label("with_value"),
        func.count(r.c.description).label("with_description"),
        func.avg(r.c.value, type_=Double).label("mean_value"),
        func.max(r.c.created_at, type_=DateTime(timezone=True)).label("newest_at"),
        func.max(r.c.updated_at, type_=DateTime(timezone=True)).label("last_change_at"),
    ).group_by(r.c.source)


ADJECTIVES = ("small", "large", "green", "heavy", "quiet", "spare", "bright", "plain")
THINGS = ("lamp", "crate", "pump", "valve", "bench", "ladder", "cable", "filter", "gauge", "hinge")


def realistic(rng: random.Random, row: int, _last_day: dt.date) -> Mapping[str, str]:
    """Return a plausible item; one in ten has no value, one in twenty the value 0, one in five no description."""
    adjective, thing = rng.choice(ADJECTIVES), rng.choice(THINGS)
    draw = rng.random()
    value = "" if draw < 0.1 else "0" if draw < 0.15 else f"{rng.lognormvariate(3, 1):.2f}"
    has_description = rng.random() < 0.8
    return {
        "source_id": str(row + 1),
        "name": f"{adjective} {thing}",
        "value": value,
        "description": f"A {adjective} {thing}, checked in week {rng.randint(1, 52)}" if has_description else "",
    }


dataset = Dataset(
    name="records",
    table="records",
    description="Named items from an HTTP API and from files.",
    owners=["team:records"],
    rows=Record,
    key=("source", "source_id"),
    indexes=("updated_at",),
    sources=(Csv(), Json(), Json(name="pages", rows="data", suffixes=(".page",))),
    # Objects such as `{"userId": 1, "id": 1, "title": "…", "body": "…"}`, in a list or in `{"data": […]}`, requested with
    # `?page=1&limit=100`; and a CSV file at a URL. The URLs are the settings MINI_PLATFORM_API_SOURCE__RECORDS_API__URL and
    # MINI_PLATFORM_API_SOURCE__RECORDS_CSV__URL.
    api_sources=(
        ApiSource(name="api", paging=PageNumberPaginator(), suffix=".page"),
        ApiSource(name="csv", paging=None, suffix=".csv"),
    ),
    # The objects of an API have more fields than are declared here (userId), and may get new ones. Raw pages keep all of them:
    # reprocessing loads a field that is declared later.
    unexpected_columns="ignore",
    warn_limit=RejectLimit(rows=0),
    reject_limit=RejectLimit(share=0.5),
    adopts=AdoptedTable("normalized_data", {"record_id": "id"}),
    realistic=realistic,
    aggregates=(
        Aggregate(
            records_by_source,
            key=("source",),
            chart=("source", "records"),
            columns={
                "source": ("Source of the records",),
                "records": ("Number of records of the source",),
                "with_value": ("Number of records with a value",),
                "with_description": ("Number of records with a description",),
                "mean_value": ("Mean of the values",),
                "newest_at": ("Time at which the newest record was first loaded",),
                "last_change_at": ("Time at which a record last changed",),
            },
        ),
    ),
    page=Page(),
)
