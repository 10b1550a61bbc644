"""Dagster's UI and GraphQL as an ASGI app. Not here: who may use it (`web/auth/gate.py`), and the server (`cli/webserver.py`).

https://docs.dagster.io/guides/operate/webserver
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_webserver.webserver import DagsterWebserver
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

from mini_platform.dagster import private

PUBLIC = ("/server_info",)
"""Path that only shows versions, for checks whether the server answers."""
POSTED = ("/graphql",)
"""Path where Dagster executes the query of a query string, mutations included."""
STATEMENT_MS, POOL_SECONDS, MORE_CONNECTIONS, POLL_MS = 15_000, 3600, 20, 2000
"""Limits of statements and of the pool of connections, and how often the UI asks: the defaults of `dagster-webserver`."""


@contextmanager
def webserver(workspace: Path, record: Callable[[Sequence[str]], None]) -> Iterator[Starlette]:
    """Open the app of Dagster's instance.

    Args:
        workspace: file that names the code server.
        record: function that is called with the names of mutations before they are executed.
    """
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MS, POOL_SECONDS, MORE_CONNECTIONS)
        target = private.WorkspaceFileTarget(paths=[str(workspace)])
        with private.WorkspaceProcessContext(instance, version=dg.__version__, workspace_load_target=target) as context:
            yield _Recorded(record, context, live_data_poll_rate=POLL_MS).create_asgi_app()


class _Recorded(DagsterWebserver[Any, Any]):
    """Dagster's web server, with a record of mutations."""

    def __init__(self, record: Callable[[Sequence[str]], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._record = record

    def graphql_execution_thread(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        """Execute a request in the current thread."""
        if names := mutations(query):
            self._record(names)
        return super().graphql_execution_thread(request, query, variables, operation_name)


def mutations(query: str) -> list[str]:
    """Return the names of the mutations in a GraphQL document, such as `launchRun`; none if it cannot be parsed."""
    if "mutation" not in query:  # Most queries; some take milliseconds to parse.
        return []
    try:
        operations = [node for node in parse(query).definitions if isinstance(node, OperationDefinitionNode)]
    except GraphQLError:
        return []
    changes = [node for node in operations if node.operation is OperationType.MUTATION]
    return [
        field.name.value for node in changes for field in node.selection_set.selections if isinstance(field, FieldNode)
    ]
