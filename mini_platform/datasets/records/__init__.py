"""Records: what an HTTP API and CSV files say of things with a name, in one table."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

from sqlalchemy import DateTime, Double, FromClause, Select, func, select

from mini_platform import (
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
    """A thing with a name, as one source has it."""

    source: str = Field(
        "Where the record comes from: the API that was read, or the format of the file", system="source"
    )
    source_id: str = Field("Identifier at the source", aliases=("id",), str_length={"min_value": 1, "max_value": 200})
    name: str = Field("Name or title", aliases=("title",), str_length={"min_value": 1, "max_value": 1000})
    value: float | None = Field("Value; 0 is a value, and empty is none", optional=True)
    description: str | None = Field("Description or body", aliases=("body",), optional=True)
    created_at: dt.datetime = Field("When the record was first seen; it never moves", system="first_loaded")
    updated_at: dt.datetime = Field("When the record last changed", system="last_loaded")


def records_by_source(r: FromClause) -> Select[Any]:
    """Records of a source: how many, how complete, how new."""
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


def realistic(rng: random.Random, row: int) -> Mapping[str, str]:
    """A plausible thing; one in ten has no value, one in twenty the value 0, one in five no description."""
    adjective, thing = rng.choice(ADJECTIVES), rng.choice(THINGS)
    luck = rng.random()
    value = "" if luck < 0.1 else "0" if luck < 0.15 else f"{rng.lognormvariate(3, 1):.2f}"
    described = rng.random() < 0.8
    return {
        "source_id": str(row + 1),
        "name": f"{adjective} {thing}",
        "value": value,
        "description": f"A {adjective} {thing}, checked in week {rng.randint(1, 52)}" if described else "",
    }


dataset = Dataset(
    name="records",
    table="records",
    description="Things with a name, from an HTTP API and from files.",
    owners=["team:records"],
    rows=Record,
    key=("source", "source_id"),
    sources=(Csv(), Json()),
    # `{"userId": 1, "id": 1, "title": "…", "body": "…"}`, asked for by `?page=1&limit=100`. Where it is:
    # MINI_PLATFORM_API_SOURCE__RECORDS_API__URL
    api_sources=(ApiSource(name="api", paging=PageNumberPaginator()),),
    # The objects of an API have more than is taken here (userId) and grow. Raw pages keep it: a reprocess brings in what is
    # declared later.
    unexpected_columns="ignore",
    warn_limit=RejectLimit(share=0),
    reject_limit=RejectLimit(share=0.5),
    realistic=realistic,
    aggregates=(
        Aggregate(
            records_by_source,
            key=("source",),
            chart=("source", "records"),
            columns={
                "source": ("Where the records come from",),
                "records": ("Records of the source",),
                "with_value": ("Those that have a value",),
                "with_description": ("Those that have a description",),
                "mean_value": ("Mean of the values",),
                "newest_at": ("When the newest record was first seen",),
                "last_change_at": ("When a record last changed",),
            },
        ),
    ),
    page=Page(),
)
