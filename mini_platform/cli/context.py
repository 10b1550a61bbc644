"""The objects that commands work on: settings, database and raw store; a dataset by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform


def checked_url(platform: Platform) -> str:
    """Return the URL of the database; start the embedded server if it is not running.

    Raises:
        MistakeError: DATABASE_URL names another kind of database.
    """
    from sqlalchemy import make_url

    with doing("Opening the database" if platform.settings.database_url else "Starting Postgres"):
        url = platform.url
    if (kind := make_url(url).get_backend_name()) != "postgresql":
        raise MistakeError(f"DATABASE_URL names a {kind} database; Postgres is required.")
    return url


def open_platform() -> Platform:
    """Open the platform, and create the declared tables that are missing.

    Raises:
        MistakeError: the declarations of the datasets do not fit the existing tables.
    """
    from mini_platform.platform import Platform

    platform = Platform()
    checked_url(platform)
    try:
        with doing("Opening the database"):
            platform.engine.connect().close()
    except ValueError as error:
        raise MistakeError(str(error)) from error
    return platform


def dataset_named(name: str) -> Dataset:
    """Return the dataset with this name.

    Raises:
        MistakeError: there is none.
    """
    from mini_platform.declare.registry import configured, unknown_dataset

    with doing("Reading the declarations of the datasets"):
        datasets = configured().datasets
    if name not in datasets:
        raise MistakeError(unknown_dataset(name, datasets))
    return datasets[name]


def datasets_named(name: str | None) -> list[Dataset]:
    """Return the dataset with this name, or all datasets."""
    from mini_platform.declare.registry import configured

    return list(configured().datasets.values()) if name is None else [dataset_named(name)]
