"""The datasets that come with the platform: a file each, or a folder with the declaration and what else is the dataset's own.

Adding a file here adds a dataset; `declare/registry.py` says how they are found. Not here: what a further dataset would need as
well, which is a word of `declare/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mini_platform.declare.registry import configured

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset


def all_datasets() -> dict[str, Dataset]:
    """Return every declared dataset by name, wherever the settings say that they are.

    Raises:
        DeclarationError: one is not as it should be; the message names the file.
    """
    return configured().datasets
