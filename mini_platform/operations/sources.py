"""Sources of the files of a dataset according to the settings: remote inboxes, and the APIs that are synced.

Here: the list of sources, access to them, and a visit to an inbox. Not here: what a visit does (`landing/`), the drop folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row

from mini_platform.config.sections import ApiSourceSettings, between_commas

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.sources import ApiSource
    from mini_platform.landing.inbox_work import Visit
    from mini_platform.platform import Platform
    from mini_platform.storage.access import Access
    from mini_platform.storage.remote import Inbox


def access_to(platform: Platform, dataset: Dataset, source: ApiSource) -> Access:
    """Return URL, header and limits for requests to a source."""
    from ipaddress import ip_network

    from mini_platform.storage.access import Access  # Brings httpx.

    settings = platform.settings
    source_settings = settings.api_source.get(f"{dataset.name}_{source.name}", ApiSourceSettings())
    name, _, value = (source_settings.header.get_secret_value() if source_settings.header else "").partition(":")
    return Access(
        url=source_settings.url or source.url,
        header=(name, value.strip()) if name else None,
        hosts=frozenset(between_commas(settings.api_source_hosts)),
        networks=tuple(ip_network(network) for network in between_commas(settings.api_source_networks)),
        max_bytes=min(settings.max_page_bytes, settings.max_file_bytes),
    )


def is_configured(platform: Platform, dataset: Dataset, source: ApiSource) -> bool:
    """Return True if the URL of a source is configured."""
    return bool(
        platform.settings.api_source.get(f"{dataset.name}_{source.name}", ApiSourceSettings()).url or source.url
    )


def remote_inboxes(platform: Platform, dataset: Dataset) -> list[Inbox]:
    """Return the remote inboxes of a dataset.

    Raises:
        ValueError: two of them have the same name.
    """
    if not platform.settings.inbox:
        return []
    from mini_platform.storage.remote import Inbox

    names = [*platform.datasets, dataset.name]
    inboxes = []
    for key, inbox_settings in platform.settings.inbox.items():
        owner = max((name for name in names if f"{key}_".startswith(f"{name}_")), key=len, default=None)
        if owner == dataset.name and inbox_settings.url:
            inboxes.append(Inbox(owner, key[len(owner) + 1 :] or inbox_settings.url.partition(":")[0], inbox_settings))
    if len({inbox.name for inbox in inboxes}) < len(inboxes):
        raise ValueError(
            f"two inboxes of {dataset.name} have the same name: give each its own by MINI_PLATFORM_INBOX__…"
        )
    return inboxes


def inbox_states(platform: Platform, conn: Connection, datasets: Iterable[Dataset]) -> Sequence[Row[Any]]:
    """Return the states of the remote inboxes of these datasets that were ever visited: rows of `ops.inboxes`."""
    inboxes = [inbox for dataset in datasets for inbox in remote_inboxes(platform, dataset)]
    if not inboxes:
        return []
    from mini_platform.landing.inbox_state import states

    return states(conn, inboxes)


def visit_inbox(platform: Platform, dataset: Dataset, inbox: Inbox, *, at_once: bool = False) -> Visit | None:
    """Visit a remote inbox, and return the visit; see `landing.inboxes.visit`."""
    from mini_platform.landing import inboxes as remote

    limit = platform.settings.max_file_bytes
    return remote.visit(platform.engine, dataset, inbox, platform.store, max_bytes=limit, at_once=at_once)
