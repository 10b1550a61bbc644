"""Customers under the path of the system that this platform replaces, with personal data for users who may read it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from mini_platform.web.api.answers import NOT_MODIFIED, listing
from mini_platform.web.api.export import MEDIA_TYPE
from mini_platform.web.api.relations import rows
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import documented
from mini_platform.web.site import SiteDep

DATASET = "customers"
router = APIRouter(
    tags=["customers"],
    dependencies=[Depends(allowed("read", DATASET))],
    responses=NOT_MODIFIED | documented(400, 404, 422),
)


class Customers(BaseModel):
    """A page of customers."""

    next: str | None = Field(description="URL of the next page; null on the last one")
    previous: str | None = Field(description="URL of the previous page; null on the first one")
    results: list[dict[str, Any]] = Field(description="Customers, with the columns of /api/datasets/customers/")


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Customers, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}


@router.get("/api/customers/", summary="Customers", responses=ANSWERS, response_model=None)
def customers(  # noqa: PLR0913, PLR0917 - read by `listing`; here they are documented
    request: Request,
    site: SiteDep,
    search: Annotated[str | None, Query(description="Words to find in columns of text.", examples=["Oslo"])] = None,
    city: Annotated[str | None, Query(description="Only customers in this city.", examples=["Oslo"])] = None,
    country: Annotated[str | None, Query(description="Only customers in this country.", examples=["Norway"])] = None,
    ordering: Annotated[
        str | None,
        Query(
            description="Columns to order by; `-` before a column sorts descending.",
            examples=["country,-subscription_date"],
        ),
    ] = None,
    cursor: Annotated[str | None, Query(description="Position of the page, from `next` or `previous`.")] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="Customers per page; 100 by default.", examples=[100])
    ] = None,
) -> Response:
    """List the customers with unmasked personal data. Every filter of `/api/datasets/customers/rows/` works here too."""
    dataset = site.dataset(DATASET)
    return listing(request, site, rows(dataset, clear=True), stored_for=dataset)
