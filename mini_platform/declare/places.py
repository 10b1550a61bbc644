"""Places: the file and the line of a declaration, for the message about what is wrong with it.

Classes and functions know their file; the line of a column is looked up in the source, and only for a message. Of everything
else that is declared (`Dataset(…)`, `Page(…)`), the line of the call is stored.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from types import FrameType
from typing import Any, NamedTuple

OWN_MODULES = (f"{__package__}.", f"{dataclasses.__name__}.")
"""Beginnings of names of modules that declare nothing themselves: those of this room, and `dataclasses.replace`."""


class Place(NamedTuple):
    """A file, and a line of it if it is known."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        """Return the place as a message begins."""
        return f"{self.file}, line {self.line}" if self.line else self.file


def place_of_caller(depth: int = 1) -> Place | None:
    """Return the line of the call of a function; None if this room calls it, whose callers know a better place.

    Args:
        depth: number of calls between that function and this one.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None and frame.f_globals.get("__name__") == dataclasses.__name__:
        frame = frame.f_back
    if frame is None or f"{frame.f_globals.get('__name__')}.".startswith(OWN_MODULES):
        return None
    return Place(frame.f_code.co_filename, frame.f_lineno)


def place_of(declared: Any, name: str | None = None) -> Place | None:
    """Return the place of a class, a function or another declaration; None if it has no source.

    Args:
        declared: the declaration.
        name: name that the class or one of its bases declares in its body; the place is the line of this name.
    """
    if inspect.isfunction(declared):
        return Place(declared.__code__.co_filename, declared.__code__.co_firstlineno)
    if not inspect.isclass(declared):
        return getattr(declared, "place", None)
    for kind in declared.__mro__:
        if name is None or name in vars(kind) or name in inspect.get_annotations(kind):
            return _place_in_class(kind, name)
    return _place_in_class(declared, None)


def _place_in_class(kind: type, name: str | None) -> Place | None:
    try:
        file = inspect.getsourcefile(kind)
        lines, first = inspect.getsourcelines(kind)
        (body,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # It was made by `type(…)`, or its source is gone.
        return None
    statements = [node for node in getattr(body, "body", ()) if name in _names(node)]
    return Place(str(file), first + statements[-1].lineno - 1 if statements else first)


def _names(node: ast.stmt) -> set[str]:
    """Return the names that a statement of a class declares."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}
