"""Sentry: errors of runs and of the API, if SENTRY_DSN is set, without any content of rows.

An event contains the types of its exceptions and where in the code they were raised. It has neither their messages, which may
quote a row, nor values of variables, nor anything of a request except its method and the template of its route.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mini_platform.config.extras import refusal

if TYPE_CHECKING:
    from pydantic import SecretStr

FLUSH_SECONDS = 3.0
EVENT_FIELDS = ("event_id", "timestamp", "platform", "level", "tags", "release", "environment", "sdk")
FRAME_FIELDS = ("filename", "function", "module", "lineno", "in_app")
HIDDEN = "not sent: it may quote a row"


def capture(dsn: SecretStr | None, error: BaseException, *, flush: bool = False, **tags: str) -> None:
    """Send an exception to Sentry; do nothing without a DSN, and only log it if Sentry's package is not installed.

    Args:
        dsn: address of Sentry.
        error: the exception.
        flush: True to wait until it is sent, for a few seconds at most, as the process may end.
        **tags: ids, such as that of the run.
    """
    if dsn is None or not dsn.get_secret_value():
        return
    if sentence := refusal("sentry", "SENTRY_DSN"):
        logging.getLogger(__name__).warning(sentence)
        return
    import sentry_sdk  # The import takes a tenth of a second.

    if not sentry_sdk.is_initialized():
        sentry_sdk.init(
            dsn.get_secret_value(),
            send_default_pii=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            default_integrations=False,  # they read requests, logs and the environment
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
    """Return an event with nothing but the fields that cannot contain data of rows."""
    values = event.get("exception", {}).get("values", ())
    exceptions = [
        {
            "type": value.get("type"),
            "module": value.get("module"),
            "value": HIDDEN,
            "stacktrace": {
                "frames": [_scrubbed_frame(frame) for frame in (value.get("stacktrace") or {}).get("frames", ())]
            },
        }
        for value in values
    ]
    return {name: event[name] for name in EVENT_FIELDS if name in event} | {"exception": {"values": exceptions}}


def _scrubbed_frame(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: frame[name] for name in FRAME_FIELDS if name in frame}
