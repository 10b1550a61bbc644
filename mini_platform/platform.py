"""The platform as its parts see it: settings, datasets, database, raw store. Opened when first used; no Dagster."""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from mini_platform.config.settings import PullSettings, Settings, between_commas, load_settings
from mini_platform.rows.protection import Keyring
from mini_platform.rows.readers import ReadLimits
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.connection import database_url, engine
from mini_platform.warehouse.ledger import Worker
from mini_platform.warehouse.schema import create_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.registry import Registry
    from mini_platform.declare.sources import Pull
    from mini_platform.landing.inbox_work import Visit
    from mini_platform.storage.access import Access
    from mini_platform.storage.remote import Inbox
    from mini_platform.warehouse.judged_rows import RawFiles


class Platform:
    """What assets, sensors, the IO manager and commands work on."""

    def __init__(self, datasets: Mapping[str, Dataset] | None = None) -> None:
        """Open it for these datasets, or for all that are declared; more may be added until the database is opened."""
        self._datasets = datasets

    @cached_property
    def settings(self) -> Settings:
        """The settings, read once."""
        return load_settings()

    @cached_property
    def registry(self) -> Registry:
        """Where datasets are declared, and what else is their own."""
        from mini_platform.declare.registry import registry_of

        return registry_of(self.settings.datasets)

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """By name those that it is opened for, or all that are declared.

        Raises:
            DeclarationError: one that is declared is not as it should be.
        """
        return self.registry.datasets if self._datasets is None else self._datasets

    @cached_property
    def url(self) -> str:
        """URL of the database; starts the embedded server if it is not running."""
        return database_url(self.settings)

    @cached_property
    def engine(self) -> Engine:
        """The database, with every declared table in it.

        Raises:
            DatabaseAwayError: it cannot be reached.
            MismatchError: what the datasets declare does not fit the tables that exist.
            NewerDatabaseError: it was changed by newer code than this.
            RolesError: the tables are not what is declared, and this user of the database may not change them.
        """
        made = engine(self.url)
        create_all(made, self.datasets.values())
        return made

    @cached_property
    def store(self) -> RawStore:
        """The raw files."""
        bucket = None
        if self.settings.raw_url:
            from mini_platform.storage.raw_bucket import RawBucket

            bucket = RawBucket(self.settings.raw_url, self.settings.raw_s3)
        return RawStore(self.settings.raw_store, bucket)

    @cached_property
    def keyring(self) -> Keyring:
        """The keys that hash personal data.

        Raises:
            ValueError: the setting cannot be read.
        """
        if keys := self.settings.pii_keys:
            return Keyring.from_text(keys.get_secret_value())
        return Keyring.from_file(self.settings.home / "pii.key")

    def raw_retention(self, dataset: Dataset) -> dt.timedelta | None:
        """How long the raw files of a dataset are kept; None means for ever."""
        if dataset.name not in self.settings.raw_retention:
            return dataset.raw_retention
        days = self.settings.raw_retention[dataset.name]
        return None if days is None else dt.timedelta(days=days)

    @property
    def read_limits(self) -> ReadLimits:
        """Limits of the readers."""
        s = self.settings
        return ReadLimits(s.max_file_bytes, s.max_ratio, s.max_field_bytes, s.max_record_bytes)

    def raw_files(self, dataset: Dataset) -> RawFiles:
        """The raw files of a dataset, as staging reads them."""
        from mini_platform.warehouse.judged_rows import RawFiles  # Brings polars and Pandera.

        return RawFiles(self.store.path, self.read_limits, self.keyring if dataset.is_protected else None)

    def access(self, dataset: Dataset, source: Pull) -> Access:
        """Where a source is, and what may be asked for it."""
        from ipaddress import ip_network

        from mini_platform.storage.access import Access  # Brings httpx.

        s = self.settings
        set_for_it = s.pull.get(f"{dataset.name}_{source.name}", PullSettings())
        name, _, value = (set_for_it.header.get_secret_value() if set_for_it.header else "").partition(":")
        return Access(
            url=set_for_it.url or source.url,
            header=(name, value.strip()) if name else None,
            hosts=frozenset(between_commas(s.pull_hosts)),
            networks=tuple(ip_network(network) for network in between_commas(s.pull_networks)),
            max_bytes=min(s.max_page_bytes, s.max_file_bytes),
        )

    def is_configured(self, dataset: Dataset, source: Pull) -> bool:
        """Whether it is known where a source is."""
        return bool(self.settings.pull.get(f"{dataset.name}_{source.name}", PullSettings()).url or source.url)

    def inboxes(self, dataset: Dataset) -> list[Inbox]:
        """The remote inboxes of a dataset.

        Raises:
            ValueError: two of them have one name.
        """
        if not self.settings.inbox:
            return []
        from mini_platform.storage.remote import Inbox

        names = [*self.datasets, dataset.name]
        found = []
        for key, chosen in self.settings.inbox.items():
            mine = max((name for name in names if f"{key}_".startswith(f"{name}_")), key=len, default=None)
            if mine == dataset.name and chosen.url:
                found.append(Inbox(mine, key[len(mine) + 1 :] or chosen.url.partition(":")[0], chosen))
        if len({inbox.name for inbox in found}) < len(found):
            raise ValueError(f"two inboxes of {dataset.name} have one name: give each a name by MINI_PLATFORM_INBOX__…")
        return found

    def inbox_states(self, conn: Connection, datasets: Iterable[Dataset]) -> Sequence[Row[Any]]:
        """How the remote inboxes of these datasets are: rows of `ops.inboxes`, of those that were ever visited."""
        chosen = [inbox for dataset in datasets for inbox in self.inboxes(dataset)]
        if not chosen:
            return []
        from mini_platform.landing.inbox_state import states

        return states(conn, chosen)

    def visit(self, dataset: Dataset, inbox: Inbox, *, at_once: bool = False) -> Visit | None:
        """Visit a remote inbox: see `landing.inboxes.visit`."""
        from mini_platform.landing.inboxes import visit

        limit = self.settings.max_file_bytes
        return visit(self.engine, dataset, inbox, self.store, max_bytes=limit, at_once=at_once)

    def worker(self, owner: str) -> Worker:
        """The holder of leases for a run."""
        s = self.settings
        return Worker(self.engine, owner, s.lease_seconds, s.max_attempts, s.batch_files)
