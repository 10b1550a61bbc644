"""Sentry: what failed in a run or in the API, if SENTRY_DSN is set; without anything that a row may stand in.

An event has the types of its exceptions and where in the code they were raised. It has neither their messages, which may
quote a row, nor values of variables, nor anything of a request but its method and the template of its route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import SecretStr

FLUSH_SECONDS = 3.0
KEPT = ("event_id", "timestamp", "platform", "level", "tags", "release", "environment", "sdk")
KEPT_OF_FRAMES = ("filename", "function", "module", "lineno", "in_app")
HIDDEN = "not sent: it may quote a row"


def capture(dsn: SecretStr | None, error: BaseException, *, flush: bool = False, **tags: str) -> None:
    """Tell Sentry of an exception; nothing is done without a DSN.

    Args:
        dsn: where Sentry is.
        error: what was raised.
        flush: wait until it is sent, for a few seconds at most, as the process may end.
        **tags: ids, such as that of the run.
    """
    if dsn is None or not dsn.get_secret_value():
        return
    import sentry_sdk  # A tenth of a second, for those who have it.

    if not sentry_sdk.is_initialized():
        sentry_sdk.init(
            dsn.get_secret_value(),
            send_default_pii=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            default_integrations=False,  # they look into requests, logs and the environment
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            before_send=scrubbed,
        )
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        scope.capture_exception(error)
    if flush:
        sentry_sdk.flush(FLUSH_SECONDS)


def scrubbed(event: Any, _: Any = None) -> Any:
    """An event with nothing in it but what is known to be escape_formula."""
    values = event.get("exception", {}).get("values", ())
    exceptions = [
        {
            "type": value.get("type"),
            "module": value.get("module"),
            "value": HIDDEN,
            "stacktrace": {"frames": [_of(frame) for frame in (value.get("stacktrace") or {}).get("frames", ())]},
        }
        for value in values
    ]
    return {name: event[name] for name in KEPT if name in event} | {"exception": {"values": exceptions}}


def _of(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: frame[name] for name in KEPT_OF_FRAMES if name in frame}
