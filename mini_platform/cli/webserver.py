"""Dagster's web server behind our guard: `python -m mini_platform.cli.webserver WORKSPACE`.

Here `dagster/`, which makes the app, meets `web/`, which guards it: neither may import the other.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine
from starlette.types import ASGIApp

from mini_platform.config import logs
from mini_platform.dagster import webserver as dagster
from mini_platform.operations import https
from mini_platform.platform import Platform
from mini_platform.warehouse import audit
from mini_platform.warehouse.connection import engine
from mini_platform.web.auth.gate import Gate
from mini_platform.web.serving import run
from mini_platform.web.site import Site


class _Keys(Platform):
    """A platform without datasets, for keys and audit: its tables are made by others."""

    @cached_property
    def engine(self) -> Engine:
        return engine(self.url)


def main(workspace: Path) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    platform = _Keys({})
    settings = platform.settings
    logs.configure(settings.logs)
    logging.getLogger("dagster").setLevel(logging.WARNING)
    if refusal := https.refusal(settings):
        sys.exit(refusal)
    # uvicorn repeats the signal that ended it: as an exception it lets Dagster close its connections.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with dagster.webserver(workspace, recorder(platform)) as app:
        run(guarded(app, Site(platform, {})), settings, settings.dagster_port)


def guarded(app: ASGIApp, site: Site) -> Gate:
    """Return Dagster's app behind the guard."""
    return Gate(app, site, public=dagster.PUBLIC, posted=dagster.POSTED)


def recorder(platform: Platform) -> Callable[[Sequence[str]], None]:
    """Return the function that records mutations in the audit log, except those of the platform's own processes."""

    def record(mutations: Sequence[str]) -> None:
        if audit.current_actor.get():
            with platform.engine.begin() as conn:
                audit.record_all(conn, "changed Dagster", mutations)

    return record


if __name__ == "__main__":
    main(Path(sys.argv[1]))
