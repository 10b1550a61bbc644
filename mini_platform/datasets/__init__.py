"""The datasets that come with the platform. Each is a file, or a folder with the declaration and other files of the dataset.

Adding a file here adds a dataset; `declare/registry.py` describes how they are found. Not here: code that several datasets
need, which is part of `declare/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_platform.declare.registry import configured

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset


def all_datasets() -> dict[str, Dataset]:
    """Return all declared datasets by name, from the folders in the settings.

    Raises:
        DeclarationError: a declaration is not valid; the message names the file.
    """
    return configured().datasets
