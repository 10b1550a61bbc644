"""Mini Platform: files arrive, one declaration of a dataset gives trusted tables.

The words of a declaration are imported from here, as in `from mini_platform import Dataset, Field, RowModel`. They are listed
in `declare/words.py` and imported when one is first asked for, so that `import mini_platform` costs nothing. No room of the
platform imports from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mini_platform.declare.words import *  # noqa: F403 - a type checker and an editor see them so


def __getattr__(name: str) -> Any:
    """Return a word of the declaration, or `__all__` of them."""
    if name == "__all__" or not name.startswith("_"):
        words = import_module("mini_platform.declare.words")
        if name == "__all__" or name in words.__all__:
            return getattr(words, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
