"""Paths of replaced systems: errors have the members and codes that their clients know, and unknown parameters are ignored.

A dataset's `routes.py` uses it as the class of its routes: `APIRouter(route_class=ReplacedRoute)`; for a system with other
codes there is a subclass. https://fastapi.tiangolo.com/how-to/custom-request-and-route/
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
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
        statuses: status of the platform's own paths -> that of the replaced system, where they differ.
    """

    statuses: ClassVar[Mapping[int, int]] = {}

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
            status = HTTPStatus(self.statuses.get(response.status_code, response.status_code))
            members = json.loads(bytes(response.body))
            members |= {"title": status.phrase, "status": status, "error": members["detail"]}
            response.status_code = status
            response.body = response.render(members)
            response.headers["content-length"] = str(len(response.body))
            return response

        return handle

    def ignored(self, request: Request) -> Sequence[str]:
        """Return the names of the query parameters that the route ignores; a route with filters by column overrides it."""
        return undeclared(request)


class BadRequestRoute(ReplacedRoute):
    """A route of a replaced system that answers 400 to every invalid request."""

    statuses = dict.fromkeys(
        (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY), HTTPStatus.BAD_REQUEST
    )
