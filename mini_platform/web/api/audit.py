"""The audit trail, for keys of the scope `admin`: `/api/audit/`."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response

from mini_platform.web.api import relations
from mini_platform.web.api.answers import listing
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import documented
from mini_platform.web.site import SiteDep

router = APIRouter(
    prefix="/api",
    tags=["audit"],
    dependencies=[Depends(allowed("admin"))],
    responses={
        HTTPStatus.NOT_MODIFIED: {"description": "Unchanged: the ETag matches `If-None-Match`"},
        **documented(400, 401, 403, 422, 429, 503),
    },
)


@router.get("/audit/", summary="Audit trail", response_model=None)
def audit(request: Request, site: SiteDep) -> Response:
    """List all recorded actions, newest first; as CSV if `Accept` is `text/csv`."""
    return listing(request, site, relations.audit())


@router.get("/audit.csv", summary="Audit trail as CSV", response_model=None)
def audit_as_csv(request: Request, site: SiteDep) -> Response:
    """Download all recorded actions as a CSV file, restricted by filters and `limit`."""
    return listing(request, site, relations.audit(), form="csv")
