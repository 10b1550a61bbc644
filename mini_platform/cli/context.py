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


def open_platform(dataset: Dataset | None = None) -> Platform:
    """Open the platform, and create the declared tables that are missing.

    Args:
        dataset: the dataset that the command is about.

    Raises:
        DeclarationError: the database refuses the tables of this dataset.
    """
    from mini_platform.platform import Platform

    platform = Platform()
    checked_url(platform)
    with doing("Opening the database"):
        platform.engine.connect().close()
        if dataset is not None:
            platform.require(dataset)
    return platform


def dataset_named(name: str) -> Dataset:
    """Return the dataset with this name.

    Raises:
        MistakeError: there is none, or its declaration is invalid.
    """
    from mini_platform.declare.registry import configured, unknown_dataset

    with doing("Reading the declarations of the datasets"):
        registry = configured()
        datasets = registry.datasets
    if name not in datasets:
        if sentence := registry.why_invalid(name):
            raise MistakeError(f"The dataset {name!r} cannot be used. {sentence}")
        raise MistakeError(unknown_dataset(name, datasets))
    return datasets[name]


def open_datasets(name: str | None) -> tuple[Platform, list[Dataset]]:
    """Open the platform, and return it with the dataset of this name, or with all datasets; print which ones are left out.

    Raises:
        MistakeError: there is no such dataset, or its declaration is invalid.
        DeclarationError: the database refuses its tables.
    """
    if name is not None:
        dataset = dataset_named(name)
        return open_platform(dataset), [dataset]
    from mini_platform.cli.output import print_message

    platform = open_platform()
    for invalid in platform.invalid:
        print_message(f"Left out: {invalid.message}")
    return platform, list(platform.datasets.values())
