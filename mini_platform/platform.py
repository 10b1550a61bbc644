"""The platform: settings, datasets, database and raw store, each opened on first access. Not here: Dagster."""

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
    """The shared context of assets, sensors, the IO manager and commands."""

    def __init__(self, datasets: Mapping[str, Dataset] | None = None) -> None:
        """Use these datasets, or all that are declared; more may be added until the database is opened."""
        self._datasets = datasets

    @cached_property
    def settings(self) -> Settings:
        """Return the settings, which are read once."""
        return load_settings()

    @cached_property
    def registry(self) -> Registry:
        """Return the registry of the declared datasets."""
        from mini_platform.declare.registry import registry_of

        return registry_of(self.settings.datasets)

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """Return the datasets of this platform by name: those passed to it, or all that are declared.

        Raises:
            DeclarationError: a declaration is invalid.
        """
        return self.registry.datasets if self._datasets is None else self._datasets

    @cached_property
    def url(self) -> str:
        """Return the URL of the database; start the embedded server if it is not running."""
        return database_url(self.settings)

    @cached_property
    def engine(self) -> Engine:
        """Return the database, with every declared table in it.

        Raises:
            DatabaseAwayError: the database cannot be reached.
            MismatchError: the declarations do not fit the existing tables.
            NewerDatabaseError: the database was changed by newer code than this.
            RolesError: the tables differ from their declaration, and this user of the database may not change them.
        """
        opened = engine(self.url)
        create_all(opened, self.datasets.values())
        return opened

    @cached_property
    def store(self) -> RawStore:
        """Return the store of raw files."""
        bucket = None
        if self.settings.raw_url:
            from mini_platform.storage.raw_bucket import RawBucket

            bucket = RawBucket(self.settings.raw_url, self.settings.raw_s3)
        return RawStore(self.settings.raw_store, bucket)

    @cached_property
    def keyring(self) -> Keyring:
        """Return the keys that hash personal data.

        Raises:
            ValueError: the setting cannot be parsed.
        """
        if keys := self.settings.pii_keys:
            return Keyring.from_text(keys.get_secret_value())
        return Keyring.from_file(self.settings.home / "pii.key")

    @property
    def read_limits(self) -> ReadLimits:
        """Return the limits of the readers."""
        settings = self.settings
        return ReadLimits(
            settings.max_file_bytes, settings.max_ratio, settings.max_field_bytes, settings.max_record_bytes
        )

    def raw_files(self, dataset: Dataset) -> RawFiles:
        """Return the raw files of a dataset for staging."""
        from mini_platform.warehouse.validated_rows import RawFiles  # Imports polars and Pandera.

        return RawFiles(self.store.path, self.read_limits, self.keyring if dataset.is_protected else None)

    def worker(self, owner: str) -> Worker:
        """Return the holder of leases for a run."""
        settings = self.settings
        return Worker(self.engine, owner, settings.lease_seconds, settings.max_attempts, settings.batch_files)
