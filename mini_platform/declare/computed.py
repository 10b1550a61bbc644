"""Aggregates and views: what is computed from production, and from each other.

Here: what a user may say of them. Not here: what their selects depend on, and their tables (`warehouse/`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import PLAIN_NAME, DeclarationError, spelled, texts_of

if TYPE_CHECKING:
    from sqlalchemy import Select


class Computed:
    """What aggregates and views have in common: a select, a name and a description, both taken from its function."""

    select: Callable[..., Select[Any]]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str]

    def __post_init__(self) -> None:
        """Refuse a shape that no table can have; what is selected is seen in `warehouse/tables/`.

        Raises:
            DeclarationError: with a sentence that names the aggregate or view and the word.
        """
        kind = type(self).__name__
        name = getattr(self.select, "__name__", None)
        if not inspect.isfunction(self.select) or not re.fullmatch(PLAIN_NAME, str(name)):
            raise DeclarationError(
                f"{kind}: select is {name or self.select!r}; it takes a function, whose name is the table's: ASCII letters, "
                "digits and underscores"
            )
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise DeclarationError(f"{kind} {name}: columns describes no column")
        for column, words in self.columns.items():
            if (
                not isinstance(words, tuple | list)
                or len(words) not in (1, 2)
                or not all(isinstance(w, str) for w in words)
            ):
                raise DeclarationError(
                    f'{kind} {name}: columns describes {column} by {words!r}; it takes ("what it holds",) or '
                    '("what it holds", "unit")'
                )
        if not isinstance(self.chart, tuple | list) or len(self.chart) != 2:
            raise DeclarationError(f"{kind} {name}: chart is {self.chart!r}; it takes the names of two columns")

    @property
    def made(self) -> tuple[str, ...]:
        """Columns of its table besides those that are selected."""
        return ()

    @property
    def name(self) -> str:
        """Name of the asset and of the table or view in schema `analytics`."""
        return self.select.__name__

    @property
    def description(self) -> str:
        """First paragraph of the select's docstring."""
        return (inspect.getdoc(self.select) or self.name).split("\n\n")[0]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the aggregates and views that the select reads besides production: its further parameters."""
        return tuple(inspect.signature(self.select).parameters)[1:]


@spelled
@dataclass(frozen=True)
class Aggregate(Computed):
    """A table computed by a SQLAlchemy select, one row per group: a summary, a dimension, a table of facts.

    It always holds what its select gives for the rows of production. Where the select proves that a group depends on its own
    rows alone, only dirty groups are computed again; else all of it is: with a window, a limit, DISTINCT ON, a union, a
    subquery, a second look at production, SQL as text, a function that is not known, values of other aggregates (beside their
    keys and surrogates), a join to one by a part of its key or to one that leaves out rows. A column that is the surrogate of
    another aggregate, or its key, is a foreign key.

    Attributes:
        select: takes the production table, and the tables of the aggregates that its further parameters name; returns
            the select, or a union of selects. Its function's name is the table's, its docstring the description. Every selected
            column has a SQLAlchemy type.
        key: the selected columns that tell the rows apart. None of them may be empty (`where(x.is_not(None))`, or
            `func.coalesce(x, …)`), a list or an object. They are plain columns of production, by whatever name, if only
            dirty groups are to be computed.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of the small chart shown in the Dagster UI.
        surrogate: name of a column with a number that each key is given once and for all.
    """

    select: Callable[..., Select[Any]]
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str]
    surrogate: str | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that no table can have."""
        super().__post_init__()
        object.__setattr__(self, "key", texts_of(f"Aggregate {self.name}: key", self.key))
        if not self.key:
            raise DeclarationError(f"Aggregate {self.name}: it needs a key, the columns that tell its rows apart")
        if self.surrogate is not None and (not isinstance(self.surrogate, str) or self.surrogate in self.columns):
            raise DeclarationError(
                f"Aggregate {self.name}: surrogate is {self.surrogate!r}; it takes a name that no selected column has"
            )

    @property
    def made(self) -> tuple[str, ...]:
        """The surrogate, if it has one."""
        return (self.surrogate,) if self.surrogate else ()


@spelled
@dataclass(frozen=True)
class View(Computed):
    """A select that is computed when it is asked: a view in schema `analytics`.

    Attributes:
        select: as an aggregate's; it may read views too.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of the small chart shown in the Dagster UI.
    """

    select: Callable[..., Select[Any]]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str]
