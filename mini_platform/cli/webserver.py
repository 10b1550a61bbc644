"""Dagster's web server behind our guard: `python -m mini_platform.cli.webserver WORKSPACE`.

Here `dagster/`, which makes the app, meets `web/`, which guards it: neither may import the other.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from mini_platform.platform import Platform
    from mini_platform.web.auth.gate import Gate


def main(workspace: Path) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    # What is imported and built lives as long as the process: to look for garbage in it takes a tenth of the start.
    gc.disable()
    from mini_platform.config import logs
    from mini_platform.dagster.webserver import webserver
    from mini_platform.operations import https
    from mini_platform.platform import Platform
    from mini_platform.warehouse.connection import engine
    from mini_platform.web.serving import serve

    platform = Platform({})
    platform.__dict__["engine"] = engine(platform.url)  # For keys and audit only: its tables are made by others.
    settings = platform.settings
    logs.configure(settings.logs)
    logging.getLogger("dagster").setLevel(logging.WARNING)
    if refusal := https.refusal(settings):
        sys.exit(refusal)
    # uvicorn repeats the signal that ended it: as an exception it lets Dagster close its connections.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with webserver(workspace, recorder(platform)) as app:
        gc.freeze()
        gc.enable()
        serve(guarded(app, platform), settings, settings.dagster_port)


def guarded(app: ASGIApp, platform: Platform) -> Gate:
    """Return Dagster's app behind the guard."""
    from mini_platform.dagster.webserver import POSTED, PUBLIC
    from mini_platform.web.auth.gate import Gate
    from mini_platform.web.site import Site

    return Gate(app, Site(platform, {}), public=PUBLIC, posted=POSTED)


def recorder(platform: Platform) -> Callable[[Sequence[str]], None]:
    """Return the function that records mutations in the audit log, except those of the platform's own processes."""
    from mini_platform.warehouse import audit

    def record(mutations: Sequence[str]) -> None:
        if audit.current_actor.get():
            with platform.engine.begin() as conn:
                audit.record_all(conn, "changed Dagster", mutations)

    return record


if __name__ == "__main__":
    main(Path(sys.argv[1]))
