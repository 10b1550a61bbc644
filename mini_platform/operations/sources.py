"""Where the files of a dataset come from, as the settings say: its remote inboxes, and the APIs that are synced.

Here: which there are, where they are, and a visit to one. Not here: what a visit does (`landing/`), the drop folder.
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
    """Return where a source is, and what may be asked for it."""
    from ipaddress import ip_network

    from mini_platform.storage.access import Access  # Brings httpx.

    s = platform.settings
    set_for_it = s.api_source.get(f"{dataset.name}_{source.name}", ApiSourceSettings())
    name, _, value = (set_for_it.header.get_secret_value() if set_for_it.header else "").partition(":")
    return Access(
        url=set_for_it.url or source.url,
        header=(name, value.strip()) if name else None,
        hosts=frozenset(between_commas(s.api_source_hosts)),
        networks=tuple(ip_network(network) for network in between_commas(s.api_source_networks)),
        max_bytes=min(s.max_page_bytes, s.max_file_bytes),
    )


def is_configured(platform: Platform, dataset: Dataset, source: ApiSource) -> bool:
    """True if it is known where a source is."""
    return bool(
        platform.settings.api_source.get(f"{dataset.name}_{source.name}", ApiSourceSettings()).url or source.url
    )


def remote_inboxes(platform: Platform, dataset: Dataset) -> list[Inbox]:
    """Return the remote inboxes of a dataset.

    Raises:
        ValueError: two of them have one name.
    """
    if not platform.settings.inbox:
        return []
    from mini_platform.storage.remote import Inbox

    names = [*platform.datasets, dataset.name]
    found = []
    for key, chosen in platform.settings.inbox.items():
        mine = max((name for name in names if f"{key}_".startswith(f"{name}_")), key=len, default=None)
        if mine == dataset.name and chosen.url:
            found.append(Inbox(mine, key[len(mine) + 1 :] or chosen.url.partition(":")[0], chosen))
    if len({inbox.name for inbox in found}) < len(found):
        raise ValueError(f"two inboxes of {dataset.name} have one name: give each a name by MINI_PLATFORM_INBOX__…")
    return found


def inbox_states(platform: Platform, conn: Connection, datasets: Iterable[Dataset]) -> Sequence[Row[Any]]:
    """Return how the remote inboxes of these datasets are: rows of `ops.inboxes`, of those that were ever visited."""
    chosen = [inbox for dataset in datasets for inbox in remote_inboxes(platform, dataset)]
    if not chosen:
        return []
    from mini_platform.landing.inbox_state import states

    return states(conn, chosen)


def visit_inbox(platform: Platform, dataset: Dataset, inbox: Inbox, *, at_once: bool = False) -> Visit | None:
    """Visit a remote inbox: see `landing.inboxes.visit`."""
    from mini_platform.landing import inboxes as remote

    limit = platform.settings.max_file_bytes
    return remote.visit(platform.engine, dataset, inbox, platform.store, max_bytes=limit, at_once=at_once)
