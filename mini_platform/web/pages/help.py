"""Help: the documentation that `make docs` built, at `/help/`."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mini_platform.web.problems import ProblemError

FOLDER = Path(__file__).parent.parent / "help"
"""Written by `make docs`, and part of the wheel; not in the repository."""
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Sphinx's theme has scripts and styles in its pages, which are ours: nothing in them comes from data."""


class Help(StaticFiles):
    """The pages of the documentation, as files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Serve a folder, which need not be there."""
        super().__init__(directory=folder, html=True, check_dir=False)
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            ProblemError: the documentation was not built.
        """
        if not self._folder.is_dir():
            raise ProblemError("The documentation is not built in this clone: run `make docs`.", HTTPStatus.NOT_FOUND)
        await super().__call__(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a page under the policy of the documentation."""
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = POLICY
        return response
