"""What commands work on: the settings, the database with its tables, the raw store; a dataset by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_platform.cli.errors import MistakeError

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform


def checked_url(platform: Platform) -> str:
    """URL of the database; starts the embedded server if it is not running.

    Raises:
        MistakeError: DATABASE_URL names another kind of database.
    """
    from sqlalchemy import make_url

    if (kind := make_url(platform.url).get_backend_name()) != "postgresql":
        raise MistakeError(f"DATABASE_URL names a {kind} database; Postgres is needed.")
    return platform.url


def open_platform() -> Platform:
    """Open the platform; every declared table exists afterwards.

    Raises:
        MistakeError: what the datasets declare does not fit the tables that exist.
    """
    from mini_platform.platform import Platform

    platform = Platform()
    checked_url(platform)
    try:
        platform.engine.connect().close()
    except ValueError as error:
        raise MistakeError(str(error)) from error
    return platform


def dataset_named(name: str) -> Dataset:
    """The dataset of this name.

    Raises:
        MistakeError: there is none.
    """
    from mini_platform.declare.registry import configured

    datasets = configured().datasets
    if name not in datasets:
        those = f"The datasets are: {', '.join(datasets)}." if datasets else "None is declared."
        raise MistakeError(f"There is no dataset {name!r}. {those}")
    return datasets[name]


def datasets_named(name: str | None) -> list[Dataset]:
    """The dataset of this name, or all of them."""
    from mini_platform.declare.registry import configured

    return list(configured().datasets.values()) if name is None else [dataset_named(name)]
