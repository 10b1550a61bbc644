"""Mini Platform: one declaration of a dataset turns arriving files into validated tables.

The names of a declaration are imported from here, as in `from mini_platform import Dataset, Field, RowModel`, and what uses
datasets: `load_defs`, and `connect`, which opens their tables for reading. They are imported on first access, so that
`import mini_platform` is fast. No package of the platform imports from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors
    from mini_platform.dagster.loading import load_defs as load_defs
    from mini_platform.declare.words import *  # noqa: F403
    from mini_platform.operations.reading import connect as connect

USES = {"connect": "mini_platform.operations.reading", "load_defs": "mini_platform.dagster.loading"}
"""Names that are not of a declaration, with their modules."""


def __getattr__(name: str) -> Any:
    """Return a name of the declaration, one that uses datasets, or the list of them all, `__all__`."""
    if name in USES:
        return getattr(import_module(USES[name]), name)
    if name == "__all__" or not name.startswith("_"):
        words = import_module("mini_platform.declare.words")
        if name == "__all__":
            return [*words.__all__, *USES]
        if name in words.__all__:
            return getattr(words, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
