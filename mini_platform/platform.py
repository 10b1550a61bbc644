"""The platform: settings, datasets, database and raw store, each opened on first access. Not here: Dagster."""

from __future__ import annotations

import secrets
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from mini_platform.config.settings import Settings, load_settings
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.places import place_of
from mini_platform.rows.protection import Keyring, load_or_create_secret
from mini_platform.rows.readers import ReadLimits
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.connection import database_url, engine
from mini_platform.warehouse.ledger import Worker
from mini_platform.warehouse.logins import Access, access
from mini_platform.warehouse.roles import PERSONAL, READER
from mini_platform.warehouse.schema import create_all, refusals
from mini_platform.warehouse.tables import without_tables
from mini_platform.warehouse.usable import require_usable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.registry import InvalidDeclaration, Registry
    from mini_platform.warehouse.validated_rows import RawFiles


PAUSE_SECONDS = 5.0
"""Time until the tables of refused datasets are tried again."""
READER_KEY = "reader.key"
"""Private file under `home` with the secret from which the passwords of the logins for reading are derived; it can be lost."""


class Platform:
    """The shared context of assets, sensors, the IO manager and commands."""

    def __init__(self, datasets: Mapping[str, Dataset] | None = None) -> None:
        """Use these datasets, or all that are declared; more may be added until the database is opened."""
        self._datasets = datasets
        self._tried_at = 0.0

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
        """Return the usable datasets by name: those passed to the platform or all that are declared, without `refused` ones.

        Raises:
            RegistryError: the package or folder of the datasets cannot be used.
        """
        declared = self._declared
        return {name: declared[name] for name in declared if name not in self.refused}

    @property
    def _declared(self) -> Mapping[str, Dataset]:
        return self.registry.datasets if self._datasets is None else self._datasets

    @cached_property
    def refused(self) -> dict[str, str]:
        """Return why datasets cannot be used, by name, although their declarations are valid by themselves.

        These are the ones for which no tables can be made, and, once the database is open, those whose tables it refuses.
        """
        return self._sentences(without_tables(self._declared.values()))

    def _sentences(self, errors: Mapping[str, ValueError]) -> dict[str, str]:
        """Return the messages of errors of datasets, each with the place of the error or of the dataset."""
        return {
            name: str(error)
            if getattr(error, "place", None) or not (place := place_of(self._declared[name]))
            else f"{place}: {error}"
            for name, error in errors.items()
        }

    @property
    def invalid(self) -> list[InvalidDeclaration]:
        """Return the declarations that cannot be used: those of the registry, and `refused`."""
        from mini_platform.declare.registry import InvalidDeclaration

        if self.refused and "engine" in vars(self):
            self._try_again()
        refused = []
        for name, message in self.refused.items():
            place = place_of(self._declared[name])
            refused.append(InvalidDeclaration(name, Path(place.file) if place else None, message, place and place.line))
        return [*self.registry.invalid, *refused]

    def why_invalid(self, name: str) -> str | None:
        """Return why the dataset with this name cannot be used; None if it can, or if there is none."""
        if name in self._declared:
            return self.refused.get(name)
        return self.registry.why_invalid(name)

    def refusal(self, dataset: str) -> str | None:
        """Open the database, and return why the dataset with this name cannot be used; None if it can."""
        self.engine  # noqa: B018 - opened
        if dataset in self.refused:
            self._try_again()
        return self.refused.get(dataset)

    def require(self, dataset: Dataset) -> None:
        """Open the database.

        Raises:
            DeclarationError: it refuses the tables of this dataset.
        """
        if sentence := self.refusal(dataset.name):
            raise DeclarationError(sentence)

    def examine(self, database: Engine) -> None:
        """Learn which datasets the database refuses, without changing anything."""
        self.refused = self._sentences(refusals(database, self._declared.values()))

    def _try_again(self) -> None:
        """Make the tables of refused datasets, as the database may have been corrected; at most every few seconds."""
        if time.monotonic() - self._tried_at >= PAUSE_SECONDS:
            self._create_tables(self.engine)

    def _create_tables(self, database: Engine) -> None:
        self._tried_at = time.monotonic()
        self.refused = self._sentences(create_all(database, self._declared.values()))

    @cached_property
    def url(self) -> str:
        """Return the URL of the database; start the embedded server if it is not running."""
        return database_url(self.settings)

    @cached_property
    def engine(self) -> Engine:
        """Return the database, with every declared table in it, except those of `refused` datasets.

        Raises:
            DatabaseAwayError: the database cannot be reached, or not be used.
            NewerDatabaseError: the database was changed by newer code than this.
            RolesError: the tables differ from their declaration, and this user of the database may not change them.
        """
        opened = engine(self.url)
        require_usable(opened)
        self._create_tables(opened)
        return opened

    def access(self, role: str, *, unchanged: Engine | None = None) -> Access:
        """Return the access to the database as a reader role, by a login that the settings name, or that is created.

        Args:
            role: one of the reader roles.
            unchanged: the database, to create nothing in it.
        """
        settings, secret = self.settings, self.settings.home / READER_KEY
        if named := {READER: settings.reader_url, PERSONAL: settings.personal_url}[role]:
            return Access(role, named.get_secret_value())
        if unchanged:
            known = secret.read_text().strip() if secret.exists() else ""
            return access(unchanged, self.url, role, known, settings.read_seconds, make=False)
        created = load_or_create_secret(secret, secrets.token_hex(32))
        return access(self.engine, self.url, role, created, settings.read_seconds)

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
