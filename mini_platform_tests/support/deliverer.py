"""Processes that sync from a source or visit an inbox of `deliveries.py`, and die on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from mini_platform.config.faultpoints import VARIABLE
from mini_platform.config.sections import InboxSettings
from mini_platform.landing import sync as syncing
from mini_platform.landing.sync import SyncResult
from mini_platform.operations.sources import visit_inbox
from mini_platform.platform import Platform
from mini_platform.storage.access import Access
from mini_platform.storage.remote import Inbox
from mini_platform.warehouse import connection
from mini_platform_tests.support.deliveries import things

LOOPBACK = (ip_network("127.0.0.0/8"),)


def sync(platform: Platform, paging: str, url: str, credential: str) -> SyncResult:
    """Sync the source once."""
    dataset = things(paging)
    access = Access(url, header=("Authorization", credential), networks=LOOPBACK)
    return syncing.sync(platform.engine, dataset, dataset.api_sources[0], platform.store, access)


def visit(platform: Platform, name: str, settings: Mapping[str, Any]) -> None:
    """Visit the inbox once."""
    visit_inbox(platform, things(), Inbox("things", name, InboxSettings(**settings)), at_once=True)


def killed(work: Callable[..., Any], *arguments: Any, fault: str) -> bool:
    """Run work in a separate process that is killed at a fault point; return False if it never reached the point."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_work, args=(dict(os.environ) | {VARIABLE: fault}, work, *arguments), daemon=True)
    process.start()
    try:
        process.join(60)
    finally:
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _work(environment: Mapping[str, str], work: Callable[..., Any], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    platform = Platform({"things": things()})
    platform.__dict__["engine"] = connection.engine(platform.url)
    work(platform, *arguments)
