"""A worker in a process of its own: killed at a fault point, or at work beside another one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from typing import Any

from mini_platform.config.faultpoints import VARIABLE
from mini_platform.operations.forget import forget
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse import connection
from mini_platform_tests.declarations.cells import PERSONS
from mini_platform_tests.declarations.draw import declare

POINTS = (
    "claim.after_commit",
    "stage.block_sent",
    "stage.before_commit",
    "stage.after_commit",
    "load.started",
    "load.rows_written",
    "load.quarantined",
    "load.before_commit",
    "load.after_commit",
    "aggregate.before_commit",
)
FORGETTING = ("forget.files_written", "forget.before_commit", "forget.after_commit", "forget.folder_cleaned")
LEASE_SECONDS = 1.0


def start(source: str, fault: str | None) -> Any:
    """Start a worker of a declared dataset that dies at a fault point, if one is named; returns its process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=(source, dict(os.environ), fault), daemon=True)
    process.start()
    return process


def work(source: str, environment: Mapping[str, str], fault: str | None) -> None:
    """Forget a person, if that is where it is to die; else process what waits."""
    os.environ.clear()
    os.environ.update(environment | {"MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS)})
    if fault:
        os.environ[VARIABLE] = fault
    dataset = declare(source)
    platform = Platform({dataset.name: dataset})
    platform.__dict__["engine"] = connection.engine(platform.url)
    if fault in FORGETTING:
        folder = platform.settings.home.with_name("dropped")
        forget(platform.engine, dataset, PERSONS[0], platform.raw_files(dataset), platform.store, folder)
        return
    process(platform, dataset, run_id=f"victim {os.getpid()}")
