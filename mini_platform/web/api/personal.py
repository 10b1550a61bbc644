"""Personal data in answers: masked, on loopback too, unless a request wants it in clear, may have it, and that is recorded.

Here: the one decision, `reveals`. Not here: what is masked (`relations.py`), and that rows are neither searched, filtered nor
sorted by it then (`query.py`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import audit
from mini_platform.web.auth.guard import Guard, presented, require
from mini_platform.web.envelope import no_store

ACTION = "showed personal data"
InClear = Annotated[
    bool | None,
    Query(
        description="Show personal data in clear: it takes the scope of the dataset by name, and is recorded",
        examples=[False],
    ),
]
"""The parameter `personal` of a route."""


def reveals(request: Request, dataset: Dataset, personal: bool | None, *, by_key: bool = False) -> bool:
    """Return True if the answer to a request shows the personal data of a dataset in clear.

    Then the audit trail has a row with who, dataset and path, one a minute for each: it is written before anything is read. No
    browser or proxy stores the answer (`envelope.py`).

    Args:
        request: the request.
        dataset: dataset of the answer.
        personal: the parameter `personal` of the request; None if it has none.
        by_key: without the parameter, a key in a header whose scopes name the dataset stands for it: for clients of replaced
            systems, which do not know it. A session of the dashboard, or a key with the scope `admin`, does not.

    Raises:
        ProblemError: the caller lacks the scope (403).
        DatabaseAwayError: it cannot be recorded.
    """
    is_clear = personal if personal is not None else by_key and _is_named(request, dataset)
    if not is_clear or not dataset.is_personal:
        return False
    require(request, "read", dataset)
    guard: Guard = request.app.state.guard

    def record() -> None:
        with guard.site(request).platform.engine.begin() as conn:
            audit.record(conn, ACTION, request.url.path, dataset=dataset.name)

    guard.once_a_minute(record, ACTION, str(audit.current_actor.get()), dataset.name, request.url.path)
    no_store()
    return True


def _is_named(request: Request, dataset: Dataset) -> bool:
    """Return True if the request has a key in a header that was made for this dataset."""
    caller = request.state.caller
    return caller is not None and presented(request.headers) is not None and f"read:{dataset.name}" in caller.scopes
