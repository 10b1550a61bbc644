"""Paths of replaced systems: errors have the members and codes that their clients know, and unknown parameters are ignored.

A dataset's `routes.py` uses it as the class of its routes: `APIRouter(route_class=ReplacedRoute)`; a system that answers 400
where ours would be 422 uses a subclass. https://fastapi.tiangolo.com/how-to/custom-request-and-route/
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from mini_platform.web.api.parameters import undeclared
from mini_platform.web.problems import response_to

log = logging.getLogger(__name__)


class ReplacedRoute(APIRoute):
    """A route of a replaced system.

    Its errors are problems with the further member `error`: the sentence, as in `detail`. Unknown query parameters are ignored,
    and logged.

    Attributes:
        invalid_status: status for parameters and bodies that are invalid.
    """

    invalid_status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, with errors in the form of the replaced system."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if names := self.ignored(request):
                # Only the names: a value may be personal data.
                log.info("ignored parameters", extra={"path": request.url.path, "parameters": names})
            try:
                return await answer(request)
            except Exception as error:  # every error has this form
                response = await response_to(request, error)
            if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
                response.status_code = self.invalid_status
            members = json.loads(bytes(response.body))
            status = HTTPStatus(response.status_code)
            members |= {"title": status.phrase, "status": status, "error": members["detail"]}
            response.body = response.render(members)
            response.headers["content-length"] = str(len(response.body))
            return response

        return handle

    def ignored(self, request: Request) -> Sequence[str]:
        """Return the names of the query parameters that the route ignores; a route with filters by column overrides it."""
        return undeclared(request)


class BadRequestRoute(ReplacedRoute):
    """A route of a replaced system that answers 400 if parameters or bodies are invalid."""

    invalid_status = HTTPStatus.BAD_REQUEST
