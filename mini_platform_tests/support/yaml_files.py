"""Datasets in a YAML file, or the first error of it."""

from __future__ import annotations

from pathlib import Path

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.from_yaml import YamlError, read_each


def read_yaml(path: Path) -> list[Dataset]:
    """Return the datasets that a file declares.

    Raises:
        YamlError: the file cannot be read, or declares an invalid dataset.
    """
    datasets = []
    for item in read_each(path):
        if isinstance(item, YamlError):
            raise item
        datasets.append(item)
    return datasets
