"""The platform as its parts see it: settings, datasets, database, raw store. Opened when first used; no Dagster."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from mini_platform.config.settings import Settings, load_settings
from mini_platform.rows.protection import Keyring
from mini_platform.rows.readers import ReadLimits
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.connection import database_url, engine
from mini_platform.warehouse.ledger import Worker
from mini_platform.warehouse.schema import create_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.registry import Registry
    from mini_platform.warehouse.validated_rows import RawFiles


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

    @property
    def read_limits(self) -> ReadLimits:
        """Limits of the readers."""
        s = self.settings
        return ReadLimits(s.max_file_bytes, s.max_ratio, s.max_field_bytes, s.max_record_bytes)

    def raw_files(self, dataset: Dataset) -> RawFiles:
        """The raw files of a dataset, as staging reads them."""
        from mini_platform.warehouse.validated_rows import RawFiles  # Brings polars and Pandera.

        return RawFiles(self.store.path, self.read_limits, self.keyring if dataset.is_protected else None)

    def worker(self, owner: str) -> Worker:
        """The holder of leases for a run."""
        s = self.settings
        return Worker(self.engine, owner, s.lease_seconds, s.max_attempts, s.batch_files)
