"""What commands work on: the settings, the database with its tables, the raw store; a dataset by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mini_platform.cli.errors import MistakeError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mini_platform.dataset import Dataset
    from mini_platform.landing.store import RawStore
    from mini_platform.readers import ReadLimits
    from mini_platform.settings import Settings


@dataclass(frozen=True)
class Opened:
    """The platform without Dagster, whose import takes seconds."""

    settings: Settings
    engine: Engine
    store: RawStore

    @property
    def read_limits(self) -> ReadLimits:
        """Limits of the readers."""
        from mini_platform.readers import ReadLimits

        s = self.settings
        return ReadLimits(max_file_bytes=s.max_file_bytes, max_ratio=s.max_ratio, max_field_bytes=s.max_field_bytes)


def settings_and_url() -> tuple[Settings, str]:
    """The settings and the URL of the database; starts the embedded server if it is not running.

    Raises:
        MistakeError: DATABASE_URL names another kind of database.
    """
    from sqlalchemy import make_url

    from mini_platform.settings import load_settings
    from mini_platform.warehouse.connection import database_url

    settings = load_settings()
    url = database_url(settings)
    if make_url(url).get_backend_name() != "postgresql":
        raise MistakeError(f"DATABASE_URL names a {make_url(url).get_backend_name()} database; Postgres is needed.")
    return settings, url


def open_platform() -> Opened:
    """Open the platform; every declared table exists afterwards.

    Raises:
        MistakeError: what the datasets declare does not fit the tables that exist.
    """
    from mini_platform.landing.store import RawStore
    from mini_platform.warehouse.connection import engine
    from mini_platform.warehouse.schema import create_all

    settings, url = settings_and_url()
    made = engine(url)
    try:
        create_all(made)
    except ValueError as error:
        raise MistakeError(str(error)) from error
    return Opened(settings, made, RawStore(settings.raw_store))


def dataset_named(name: str) -> Dataset:
    """The dataset of this name.

    Raises:
        MistakeError: there is none.
    """
    from mini_platform.datasets import all_datasets

    datasets = all_datasets()
    if name not in datasets:
        raise MistakeError(f"There is no dataset {name!r}. The datasets are: {', '.join(datasets)}.")
    return datasets[name]


def datasets_named(name: str | None) -> list[Dataset]:
    """The dataset of this name, or all of them."""
    from mini_platform.datasets import all_datasets

    return list(all_datasets().values()) if name is None else [dataset_named(name)]
