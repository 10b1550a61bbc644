"""Records under the paths of the system that this platform replaces, with numbered pages."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import func, or_, select

from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.api.replaced import ReplacedRoute
from mini_platform.web.api.values import TEXT
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import documented
from mini_platform.web.site import SiteDep

router = APIRouter(
    route_class=ReplacedRoute,
    tags=["records"],
    dependencies=[Depends(allowed("read", "records"))],
    responses=documented(404, 422),
)


class RecordItem(BaseModel):
    """A named item of one source."""

    id: int = Field(description="Number of the record; it never changes")
    source: str
    source_id: str
    name: str
    value: float | None
    description: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


class RecordPage(BaseModel):
    """A page of records, those that changed last first."""

    data: list[RecordItem]
    total: int
    page: int
    page_size: int
    has_more: bool


@router.get("/data")
def data(
    site: SiteDep,
    page: Annotated[int, Query(ge=1, le=1_000_000, description="Number of the page, from 1.")] = 1,
    page_size: Annotated[int, Query(ge=1, le=100, description="Records per page.")] = 10,
    source: Annotated[
        str | None, Query(description="Only records of this source.", pattern=TEXT, examples=["api"])
    ] = None,
    search: Annotated[
        str | None, Query(description="Text in the name or the description.", pattern=TEXT, examples=["lamp"])
    ] = None,
) -> RecordPage:
    """List the records that were synced and loaded."""
    table = dataset_tables(site.dataset("records")).production
    where = [] if source is None else [table.c.source == source]
    if search:
        where.append(or_(*(table.c[name].icontains(search, autoescape=True) for name in ("name", "description"))))
    columns = [table.c[name] for name in RecordItem.model_fields if name != "id"]
    rows = select(table.c.record_id.label("id"), *columns).where(*where)
    rows = rows.order_by(table.c.updated_at.desc(), table.c.record_id.desc())
    with site.read() as conn:
        total = conn.scalar(select(func.count()).select_from(table).where(*where)) or 0
        page_rows = conn.execute(rows.limit(page_size).offset((page - 1) * page_size)).mappings()
        return RecordPage(
            data=[RecordItem(**row) for row in page_rows],
            total=total,
            page=page,
            page_size=page_size,
            has_more=page * page_size < total,
        )
