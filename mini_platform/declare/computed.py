"""Aggregates and views: tables that are computed from production, and from each other.

Here: their declaration. Not here: the dependencies of their selects, and their tables (`warehouse/`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import PLAIN_NAME, DeclarationError, report_bad_arguments, text_tuple

if TYPE_CHECKING:
    from sqlalchemy import Select


class Computed:
    """The base of aggregates and views: a select, and a name and a description, which are those of its function."""

    select: Callable[..., Select[Any]]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str] | None

    def __post_init__(self) -> None:
        """Refuse options that no table can have; the selected columns are checked in `warehouse/tables/`.

        Raises:
            DeclarationError: an option is invalid; the sentence names the aggregate or view and the option.
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
        for column, texts in self.columns.items():
            if (
                not isinstance(texts, tuple | list)
                or len(texts) not in (1, 2)
                or not all(isinstance(w, str) for w in texts)
            ):
                raise DeclarationError(
                    f'{kind} {name}: columns describes {column} by {texts!r}; it takes ("what it holds",) or '
                    '("what it holds", "unit")'
                )
        if self.chart is not None and (not isinstance(self.chart, tuple | list) or len(self.chart) != 2):
            raise DeclarationError(f"{kind} {name}: chart is {self.chart!r}; it takes the names of two columns")

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Return the columns of its table besides the selected ones."""
        return ()

    @property
    def name(self) -> str:
        """Return the name of the asset and of the table or view in schema `analytics`."""
        return self.select.__name__

    @property
    def description(self) -> str:
        """Return the first paragraph of the select's docstring."""
        return (inspect.getdoc(self.select) or self.name).split("\n\n")[0]

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Return the names of the aggregates and views that the select reads: its parameters after production."""
        return tuple(inspect.signature(self.select).parameters)[1:]


@report_bad_arguments
@dataclass(frozen=True)
class Aggregate(Computed):
    """A table computed by a SQLAlchemy select, one row per group: a summary, a dimension, a table of facts.

    After every load it equals the result of its select over production. If the select shows that a group depends on the
    group's own rows alone, only dirty groups are computed again. Otherwise the whole table is, as with: a window, a limit,
    DISTINCT ON, a union, a subquery, production read twice, SQL as text, an unknown function, values of other aggregates
    (except their keys and surrogates), a join to one by a part of its key or to one that leaves out rows. A column that is the
    surrogate of another aggregate, or its key, is a foreign key.

    Attributes:
        select: a function of the production table, and of the tables of the aggregates that its further parameters name;
            returns the select, or a union of selects. Its name is the table's, its docstring the description. Every selected
            column has a SQLAlchemy type.
        key: the selected columns that identify a row. None of them may be empty (`where(x.is_not(None))`, or
            `func.coalesce(x, …)`), a list or an object. To have only dirty groups computed, select plain columns of
            production, under any name.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of a small chart in the Dagster UI and on the page of the table; y is a number. None: no chart.
        surrogate: name of an additional column with a number for each key, which never changes.
    """

    select: Callable[..., Select[Any]]
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str] | None = None
    surrogate: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that no table can have."""
        super().__post_init__()
        object.__setattr__(self, "key", text_tuple(f"Aggregate {self.name}: key", self.key))
        if not self.key:
            raise DeclarationError(f"Aggregate {self.name}: it needs a key, the columns that tell its rows apart")
        if self.surrogate is not None and (not isinstance(self.surrogate, str) or self.surrogate in self.columns):
            raise DeclarationError(
                f"Aggregate {self.name}: surrogate is {self.surrogate!r}; it takes a name that no selected column has"
            )

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Return the surrogate, if it has one."""
        return (self.surrogate,) if self.surrogate else ()


@report_bad_arguments
@dataclass(frozen=True)
class View(Computed):
    """A select that is computed whenever it is queried: a view in schema `analytics`.

    Attributes:
        select: a function as that of an `Aggregate`, whose further parameters may name views, too.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of a small chart in the Dagster UI and on the page of the table; y is a number. None: no chart.
    """

    select: Callable[..., Select[Any]]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str] | None = None
