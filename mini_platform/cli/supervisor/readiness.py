"""Readiness: the dashboard answers, and so does Dagster's UI, with the definitions loaded."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

from mini_platform.cli.supervisor.processes import Processes
from mini_platform.cli.supervisor.state import PlatformError
from mini_platform.config.settings import Settings
from mini_platform.operations.answering import api_answers, dagster_answers, opener
from mini_platform.web.secret import own_headers

READY_SECONDS = 180.0
"""Maximum wait. Starting takes about ten seconds on two cores."""
DEFINITIONS = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"


def addresses(settings: Settings) -> str:
    """Return the addresses of the dashboard and of Dagster's UI, as text."""
    return f"dashboard {settings.api_url}, Dagster {settings.dagster_url}"


def wait_until_ready(settings: Settings, processes: Processes) -> None:
    """Wait until everything answers.

    Raises:
        PlatformError: a process ended, or it takes too long.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not (api_answers(settings) and dagster_answers(settings) and _has_definitions(settings)):
        for child in processes.ended():
            raise PlatformError(f"The process {child.name} did not start: see {settings.home / child.name}.log")
        if time.monotonic() > deadline:
            raise PlatformError(f"The platform did not become ready: see the logs in {settings.home}")
        time.sleep(0.1)


def _has_definitions(settings: Settings) -> bool:
    """Return True if the UI has loaded the definitions."""
    request = urllib.request.Request(  # noqa: S310 - http
        f"{settings.dagster_url}/graphql",
        data=json.dumps({"query": DEFINITIONS}).encode(),
        headers={"Content-Type": "application/json", **own_headers(settings)},
    )
    try:
        with opener().open(request, timeout=10) as answer:
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except (OSError, urllib.error.URLError, KeyError, TypeError, ValueError):
        return False
    return any((entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries)
