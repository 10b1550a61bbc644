"""Logging in and out, if the site requires keys."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from mini_platform.web.api.incoming import form
from mini_platform.web.auth import guard
from mini_platform.web.envelope import no_store
from mini_platform.web.pages.rendering import POLICY, dagster_url, render
from mini_platform.web.problems import ProblemError
from mini_platform.web.site import Site, SiteDep

router = APIRouter(include_in_schema=False)

FORM_BYTES = 2**16
"""Maximum length of the form, whose parameter `then` is the URL of a page."""


@router.get("/login")
def login_form(request: Request, then: str = "/") -> Response:
    """Return the login form."""
    no_store()
    return _page(request, _within(then))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Open a session with a key, and redirect to the requested page."""
    no_store()
    fields = {name: value for name, value in (await form(request, FORM_BYTES)).items() if isinstance(value, str)}
    then = _within(fields.get("then", "/"))
    try:
        cookie = await run_in_threadpool(guard.log_in, request, fields.get("key", ""))
    except ProblemError as error:
        return _page(request, then, error)
    response = RedirectResponse(then, HTTPStatus.SEE_OTHER)
    response.set_cookie(**cookie)
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session of this browser."""
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    response.set_cookie(**guard.log_out(request))
    return response


@router.get("/dagster/{path:path}", dependencies=[Depends(guard.allowed("admin"))])
def dagster(request: Request, site: SiteDep, path: str) -> Response:
    """Redirect to a page of Dagster's UI, which cannot be an address that the form returns to: it is another origin."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{dagster_url(request, site)}/{path}{query}", HTTPStatus.SEE_OTHER)


def _page(request: Request, then: str, error: ProblemError | None = None) -> Response:
    site: Site = request.app.state.site
    # Browsers apply the policy of a form to redirects of its response, too.
    policy = POLICY.replace("form-action 'self'", f"form-action 'self' {dagster_url(request, site)}")
    headers = {"Content-Security-Policy": policy, **((error and error.headers) or {})}
    status, refused = (error.status, error.detail) if error else (HTTPStatus.OK, None)
    return render(request, "login.html", status, headers, then=then, refused=refused)


def _within(path: str) -> str:
    """Return a path of this site; never a URL of another one."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
