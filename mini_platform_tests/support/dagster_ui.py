"""Dagster's real web server on a test's database, behind our guard: without a code server, but with real runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from sqlalchemy import text
from starlette.types import ASGIApp

from mini_platform.cli.webserver import guarded, recorder
from mini_platform.dagster import webserver as dagster
from mini_platform.dagster.instance import prepare_instance
from mini_platform.platform import Platform
from mini_platform.web.serving import served
from mini_platform_tests.support.web import listening

DELETE = "mutation Delete($id: String!) { deleteRun(runId: $id) { __typename } }"

LOGGED = "Written by a test."
"""Event in the log of `new_run`."""


@dg.job
def nothing() -> None:
    """A job without steps: only its run counts."""


@contextmanager
def dagster_app(platform: Platform) -> Iterator[ASGIApp]:
    """Open the app; the environment names the platform's database and home."""
    workspace = platform.settings.home / "empty.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(prepare_instance(platform.settings)))
        workspace.write_text("load_from: []\n")
        with dagster.webserver(workspace, recorder(platform)) as app:
            yield app


@contextmanager
def serving_dagster(app: ASGIApp, platform: Platform) -> Iterator[str]:
    """Serve the app behind the guard with the settings of the platform; yields its host and port."""
    with listening(guarded(app, platform), **served(platform.settings)) as address:
        yield address


def new_run(platform: Platform) -> str:
    """Make a run with an event in its log, and return its id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(platform.settings.home / "dagster"))
        with dg.DagsterInstance.get() as instance:
            run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.SUCCESS)
            instance.report_engine_event(LOGGED, run)
            return run.run_id


def runs_of(platform: Platform) -> list[str]:
    """Return the ids of the runs in Postgres."""
    with platform.engine.connect() as conn:
        return list(conn.scalars(text("SELECT run_id FROM dagster.runs")))
