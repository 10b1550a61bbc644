"""The server under both web processes, the API's and Dagster's: one place for https, proxies and limits."""

from __future__ import annotations

from typing import Any

import uvicorn
from starlette.types import ASGIApp

from mini_platform.config.settings import Settings
from mini_platform.operations import https

STOP_SECONDS = 10
"""Time for requests in progress to end after SIGTERM; less than the time until the process is killed."""


def run(app: ASGIApp, settings: Settings, port: int) -> None:
    """Serve an app until SIGTERM or Ctrl-C.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    options = served(settings)
    uvicorn.run(app, host=settings.host, port=port, log_config=None, timeout_graceful_shutdown=STOP_SECONDS, **options)


def served(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's options for these settings: https if they name a certificate, and the proxies that they name.

    Raises:
        CertificateError: the certificate cannot be used.
    """
    context = https.context(settings)
    return {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # Otherwise any process on this machine could forge the client address.
        "proxy_headers": bool(settings.api_proxies),
        "forwarded_allow_ips": settings.api_proxies,
        "ssl_context_factory": (lambda *_: context) if context else None,
    }
