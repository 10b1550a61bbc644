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
        HTTPStatus.NOT_MODIFIED: {"description": "It is as the `If-None-Match` of the request has it"},
        **documented(400, 401, 403, 422, 429, 503),
    },
)


@router.get("/audit/", summary="The audit trail", response_model=None)
def audit(request: Request, site: SiteDep) -> Response:
    """List who did what, the last first; CSV where `Accept` says `text/csv`."""
    return listing(request, site, relations.audit())


@router.get("/audit.csv", summary="The audit trail as CSV", response_model=None)
def audit_as_csv(request: Request, site: SiteDep) -> Response:
    """Give who did what as a CSV file, whole or as far as filters and `limit` say."""
    return listing(request, site, relations.audit(), as_csv=True)
