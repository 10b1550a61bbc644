"""Checks of the doctor on what the platform exchanges with others: drop folders, remote inboxes, the bucket, notifications."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from mini_platform.config.extras import refusal
from mini_platform.config.settings import Settings
from mini_platform.operations.alerts import AlertsError, services
from mini_platform.operations.check_result import CheckResult
from mini_platform.operations.sources import remote_inboxes
from mini_platform.platform import Platform
from mini_platform.storage.errors import RawStoreAwayError

if TYPE_CHECKING:
    from mini_platform.storage.remote import Inbox

ADVICE = "Correct the setting or the server; other sources are not affected, and it is retried automatically."


def inboxes(settings: Settings) -> Iterator[CheckResult]:
    """Check that every dataset has its drop folder, and that every remote inbox can be listed now."""
    platform = Platform()
    missing, datasets = [], platform.datasets
    for name in datasets:
        folder = settings.data / name
        if not folder.is_dir():
            missing.append(name)
        elif not os.access(folder, os.R_OK | os.X_OK):
            yield CheckResult(
                "inboxes", "problem", f"{folder} cannot be read", "Make it readable for the user of the platform."
            )
    if missing:
        do = f"mkdir -p {' '.join(str(settings.data / name) for name in missing)}"
        yield CheckResult("inboxes", "warning", f"there is no drop folder for {', '.join(missing)}", do)
    else:
        yield CheckResult("inboxes", "ok", f"every dataset has its folder in {settings.data}")
    try:
        remote = [inbox for dataset in datasets.values() for inbox in remote_inboxes(platform, dataset)]
    except ValueError as error:
        yield CheckResult("inboxes", "problem", str(error), "Correct the settings.")
        return
    for key in settings.inbox:
        if not any(f"{key}_".startswith(f"{name}_") for name in datasets):
            message = f"MINI_PLATFORM_INBOX__{key.upper()} does not begin with the name of a dataset, and is ignored"
            yield CheckResult("inboxes", "warning", message, f"The datasets are {', '.join(datasets)}.")
    if remote:
        with ThreadPoolExecutor(len(remote)) as pool:
            yield from pool.map(_check_listing, remote)


def _check_listing(inbox: Inbox) -> CheckResult:
    from mini_platform.storage.connect import connect
    from mini_platform.storage.errors import InboxError, ObjectError

    try:
        with closing(connect(inbox)) as connection:
            next(connection.pages(b""))
    except InboxError as error:
        return CheckResult("inboxes", "problem", str(error), ADVICE)
    except ObjectError as error:
        return CheckResult("inboxes", "problem", f"{inbox.url} cannot be listed: {error}", ADVICE)
    return CheckResult("inboxes", "ok", f"{inbox.url} of {inbox.dataset} can be listed")


def raw_store(settings: Settings) -> Iterator[CheckResult]:
    """Check that the bucket of raw files, if there is one, answers."""
    if settings.raw_url is None:
        return
    try:
        Platform().store.size("0" * 64)
    except RawStoreAwayError as error:
        do = "Correct MINI_PLATFORM_RAW_STORE, MINI_PLATFORM_RAW_S3__… or the server; until then nothing is landed."
        yield CheckResult("raw store", "problem", str(error), do)
    else:
        yield CheckResult("raw store", "ok", f"{settings.raw_url} answers")


def notifications(settings: Settings) -> Iterator[CheckResult]:
    """Check that the settings of alerts and of Sentry, if there are any, can be used; nothing is sent."""
    try:
        if names := ", ".join(service.name for service in services(settings)):
            yield CheckResult("alerts", "ok", f"they are sent to {names}")
    except AlertsError as error:
        yield CheckResult("alerts", "problem", str(error), "Until then nobody is notified: mini-platform alerts test.")
    if settings.sentry_dsn and settings.sentry_dsn.get_secret_value() and (why := refusal("sentry", "SENTRY_DSN")):
        yield CheckResult("sentry", "problem", why, "Until then errors are only in the logs.")


CHECKS = (inboxes, raw_store, notifications)
