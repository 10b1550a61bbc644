"""Logging in and out, if the site requires keys."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from mini_platform.web.auth import guard
from mini_platform.web.pages.rendering import render
from mini_platform.web.problems import ProblemError

router = APIRouter(include_in_schema=False)


@router.get("/login")
def form(request: Request, then: str = "/") -> Response:
    """Return the login form."""
    return render(request, "login.html", then=_within(then), refused=None)


@router.post("/login")
def log_in(request: Request, key: Annotated[str, Form()] = "", then: Annotated[str, Form()] = "/") -> Response:
    """Open a session with a key, and redirect to the requested page."""
    try:
        cookie = guard.log_in(request, key)
    except ProblemError as error:
        return render(request, "login.html", error.status, error.headers, then=_within(then), refused=error.detail)
    response = RedirectResponse(_within(then), HTTPStatus.SEE_OTHER)
    response.set_cookie(**cookie)
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session of this browser."""
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    response.set_cookie(**guard.log_out(request))
    return response


def _within(path: str) -> str:
    """Return a path of this site; never a URL of another one."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
