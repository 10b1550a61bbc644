"""Query parameters that a route does not declare: an error on our own paths. On those of replaced systems see `replaced.py`.

Routes with filters by column declare none of them: `ListQuery.parse` checks their parameters.
"""

from __future__ import annotations

from fastapi import Request

from mini_platform.web.problems import ProblemError


def declared(request: Request) -> list[str]:
    """Return the names of the query parameters that the route of a request declares."""
    return [field.alias for field in request.scope["route"].dependant.query_params]


def undeclared(request: Request) -> list[str]:
    """Return the names of the query parameters of a request that its route does not declare."""
    return sorted(request.query_params.keys() - set(declared(request)))


def refuse_undeclared(request: Request) -> None:
    """Refuse undeclared query parameters, as a dependency: `Depends(refuse_undeclared)`.

    Raises:
        ProblemError: there is such a parameter; the message names those that exist.
    """
    for name in undeclared(request):
        known = declared(request)
        hint = f"The parameters are: {', '.join(known)}." if known else "This path has no parameters."
        raise ProblemError(f"There is no parameter {name!r}. {hint}", parameter=name, allowed=known)
