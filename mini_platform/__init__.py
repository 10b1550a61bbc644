"""Mini Platform: one declaration of a dataset turns arriving files into validated tables.

The names of a declaration are imported from here, as in `from mini_platform import Dataset, Field, RowModel`. They are listed
in `declare/words.py`. `connect` opens the tables for reading. All of them are imported on first access, so that
`import mini_platform` is fast. No package of the platform imports from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # For type checkers and editors.
    from mini_platform.declare.words import *  # noqa: F403
    from mini_platform.operations.reading import connect as connect

OTHERS = {"connect": "mini_platform.operations.reading"}
"""Public names that are no words of a declaration, with their modules."""


def __getattr__(name: str) -> Any:
    """Return a public name, or the list of them, `__all__`."""
    if name in OTHERS:
        return getattr(import_module(OTHERS[name]), name)
    if name == "__all__" or not name.startswith("_"):
        words = import_module("mini_platform.declare.words")
        if name == "__all__":
            return [*words.__all__, *OTHERS]
        if name in words.__all__:
            return getattr(words, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
