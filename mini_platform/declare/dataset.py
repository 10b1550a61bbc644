"""Dataset: the declaration from which everything else is derived.

Here: the options of a dataset, and what follows from them alone (columns, rules, names).
Not here: Dagster, the database, polars and Pandera (their import is slow; `rows/validation.py` builds the Pandera schema
from the declaration when the first row is checked).
"""

from __future__ import annotations

import datetime as dt
import inspect
import itertools
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from mini_platform.declare import reserved
from mini_platform.declare.columns import (
    PLAIN_NAME,
    Column,
    CustomRule,
    DeclarationError,
    RowModel,
    Rule,
    Severity,
    nearest,
    normalized,
    placed,
    report_bad_arguments,
    text_tuple,
)
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.declared_checks import check_sentence
from mini_platform.declare.pages import Page
from mini_platform.declare.pandera_models import PanderaModel, translate_model
from mini_platform.declare.places import Place, place_of
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.row_models import columns_of, custom_rules_of
from mini_platform.declare.rules import KEY_ONCE, LINE_ONCE, STRUCTURE_RULES
from mini_platform.declare.sources import AdoptedTable, ApiSource, Csv, Json

if typing.TYPE_CHECKING:
    import random


INDEX_ENTRY, INDEX_BYTES = 2704, 2600
"""Most bytes of an index entry in Postgres, with its header; and most bytes of its texts if it has few other values."""
INDEX_COLUMNS = 32
"""Most columns of an index in Postgres."""
ENTRY_HEADER, TEXT_HEADER, OTHER_VALUE = 16, 8, 24
"""Most bytes of the other parts of an index entry: its header, the header of a text, and a value that is not a text."""
UTF8_BYTES = 4
"""Most bytes of a character."""
DATASET_NAME = r"[a-z](?:_?[a-z0-9])*"
"""Pattern of names of datasets; they are also names of folders, and parts of names of settings, whose separator is `__`."""
OWNER = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+"
"""Pattern of owners that Dagster accepts."""


def _describe_rule(rule: Rule) -> str:
    return f"“{rule.message}” of {rule.column or 'the row'}"


def unpacked(suffix: str) -> str:
    """Return the ending of a file's name without that of its compression."""
    return suffix.removesuffix(".gz").removesuffix(".zip") or suffix


@report_bad_arguments
@dataclass(frozen=True, eq=False)
class Dataset:
    """The declaration of a dataset: everything the platform needs to turn arriving files into validated tables.

    Attributes:
        name: name of the dataset, its drop folder and its asset group: lower case letters, digits and single underscores.
        table: name of its table in the schemas staging, production and quarantine, which no other dataset has.
        rows: the row model: columns, their checks, and rules. A Pandera model (polars or pandas) is translated to one.
        key: columns that identify a row; the row that arrives last replaces earlier ones with the same key.
        description: what a row represents, shown in the UI and the docs.
        owners: e-mail addresses or `team:name`, shown in the UI.
        indexes: columns with an index of their own in production (the key has one already).
        search: text columns that the search covers; None means all stored ones whose text is not replaced, () means none.
        sources: formats of its files; several formats are distinguished by the ending of a file's name.
        api_sources: APIs from which rows are synced; their pages are read as its files are.
        unexpected_columns: what happens to columns that are not declared, see `UnexpectedColumns`; by default what a Pandera
            model says by `strict`, else "keep".
        duplicates: which of several rows of one file with the same key is loaded: the "last", the "first", or the one with the
            `KeepHighest` value of a column; "reject" rejects all of them. The default is "last", and "reject" if a Pandera
            model says that the key is unique.
        freshness: maximum age of the newest load, after which the dataset is late; None means any age.
        warn_limit: limit on rejected rows above which a warning is shown: by the check of a rule, for the rows of a run that
            break this rule; by the pages, for the rows of a file.
        reject_limit: limit on the rejected rows of a file above which the file is refused and nothing of it is published.
        aggregates: tables that are computed from production, each declared after those that it reads.
        views: selects over production, aggregates and earlier views.
        page: page of the dataset in the dashboard, at `/<name>`; without it the dataset has the default page.
        raw_retention: how long its raw files are kept; None means for ever. A setting can override it.
        adopts: table of a replaced system that `mini-platform adopt` takes over.
        realistic: function that returns one valid row as texts, for samples, from a random generator, a row number, which is
            the part of the key that differs, and the last day of the sample, from which its dates count back; without it values
            are drawn from the declared types and ranges.
    """

    name: str
    table: str
    rows: type[RowModel] | type[PanderaModel]
    key: tuple[str, ...]
    description: str
    owners: Sequence[str] = ()
    indexes: tuple[str, ...] = ()
    search: tuple[str, ...] | None = None
    sources: tuple[Csv | Json, ...] = (Csv(),)
    api_sources: tuple[ApiSource, ...] = ()
    unexpected_columns: UnexpectedColumns | None = None
    duplicates: Literal["last", "first", "reject"] | KeepHighest | None = None
    freshness: dt.timedelta | None = None
    warn_limit: RejectLimit = RejectLimit(rows=0)
    reject_limit: RejectLimit = RejectLimit(share=0.5)
    aggregates: tuple[Aggregate, ...] = ()
    views: tuple[View, ...] = ()
    page: Page | None = None
    raw_retention: dt.timedelta | None = None
    adopts: AdoptedTable | None = None
    realistic: Callable[[random.Random, int, dt.date], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid declaration at its place in the code, and not when the first file arrives.

        Raises:
            DeclarationError: the declaration is invalid; the sentence names the dataset and what is wrong.
        """
        self._refuse_values()
        self._take_model()
        self._refuse_computed()
        self._refuse_names()
        self._refuse_columns()
        self._refuse_rules()
        self._refuse_sources()
        if self.page is not None:
            with placed(self.page):
                self._refuse_page(self.page)

    @property
    def computed(self) -> tuple[Aggregate | View, ...]:
        """Return the aggregates and views, each after those that it reads."""
        return (*self.aggregates, *self.views)

    def _refuse_values(self) -> None:
        """Refuse options with values that they do not take."""
        if not isinstance(self.name, str) or not re.fullmatch(DATASET_NAME, self.name):
            raise DeclarationError(
                f"dataset {self.name!r}: name cannot be {self.name!r}, as folders and other names are derived from it; use "
                "lower case letters, digits and single underscores, such as orders_2024"
            )
        if self.name in reserved.DATASETS:
            raise DeclarationError(
                f"dataset {self.name}: name cannot be {self.name}, which is a name of the platform's own; use another, such as "
                f"{self.name}_data"
            )
        where = f"dataset {self.name}"
        if not isinstance(self.table, str):
            raise DeclarationError(f"{where}: table is {self.table!r}; it takes the name of its table")
        if not isinstance(self.description, str) or not self.description.strip():
            raise DeclarationError(f"{where}: its description is {self.description!r}; say what a row is about")
        for option in ("key", "owners", "indexes", "search"):
            if (value := getattr(self, option)) is not None:
                object.__setattr__(self, option, text_tuple(f"{where}: {option}", value))
        if invalid := [owner for owner in self.owners if not re.fullmatch(OWNER, owner)]:
            raise DeclarationError(f"{where}: owners names {invalid[0]!r}; it takes e-mail addresses and team:name")
        self._refuse_kinds(where)
        if self.unexpected_columns not in (None, *(choices := typing.get_args(UnexpectedColumns))):
            raise DeclarationError(
                f"{where}: unexpected_columns is {self.unexpected_columns!r}; it can be {' or '.join(choices)}"
            )
        if self.duplicates not in (None, "last", "first", "reject") and not isinstance(self.duplicates, KeepHighest):
            raise DeclarationError(
                f"{where}: duplicates is {self.duplicates!r}; it can be last, first, reject or KeepHighest(…)"
            )

    def _take_model(self) -> None:
        """Translate a Pandera model, and take what it says about the dataset where the dataset says nothing."""
        try:
            model = translate_model(self.rows)
        except DeclarationError as error:
            raise DeclarationError(f"dataset {self.name}: rows: {error.sentence}", error.place) from error
        for columns in model.unique:
            if columns != set(self.key):
                raise DeclarationError(
                    f"dataset {self.name}: key is {', '.join(self.key)}, and {self.rows.__name__} declares "
                    f"{', '.join(sorted(columns))} unique; only the key can be"
                )
        values = {
            "rows": model.rows,
            "unexpected_columns": self.unexpected_columns or model.unexpected_columns or "keep",
            # Pandera rejects all rows with the same value in a unique column.
            "duplicates": self.duplicates or ("reject" if model.unique else "last"),
        }
        for option, value in values.items():
            object.__setattr__(self, option, value)

    def _refuse_kinds(self, where: str) -> None:
        kinds: tuple[tuple[str, Any], ...] = (
            ("sources", Csv | Json),
            ("api_sources", ApiSource),
            ("aggregates", Aggregate),
            ("views", View),
        )
        for option, kind in kinds:
            if not isinstance(value := getattr(self, option), tuple | list) or not all(
                isinstance(item, kind) for item in value
            ):
                raise DeclarationError(f"{where}: {option} is {value!r}; it takes a tuple, as in {option}=(…,)")
            object.__setattr__(self, option, tuple(value))
        for option in ("warn_limit", "reject_limit"):
            if not isinstance(value := getattr(self, option), RejectLimit):
                raise DeclarationError(
                    f"{where}: {option} is {value!r}; it takes RejectLimit(share=…) or RejectLimit(rows=…)"
                )
        if self.realistic is not None:
            try:
                inspect.signature(self.realistic).bind(None, 0, None)
            except (TypeError, ValueError):
                raise DeclarationError(
                    f"{where}: realistic is {self.realistic!r}; it takes a function of a random generator, a row number and "
                    "the last day of the sample"
                ) from None
        if self.page is not None and not isinstance(self.page, Page):
            raise DeclarationError(f"{where}: page is {self.page!r}; it takes Page(…)")
        if self.adopts is not None and not isinstance(self.adopts, AdoptedTable):
            raise DeclarationError(f"{where}: adopts is {self.adopts!r}; it takes AdoptedTable(…)")
        for option in ("freshness", "raw_retention"):
            value = getattr(self, option)
            if value is not None and not (isinstance(value, dt.timedelta) and value > dt.timedelta(0)):
                raise DeclarationError(f"{where}: {option} is {value!r}; it takes a dt.timedelta above 0, or None")

    def _refuse_columns(self) -> None:
        """Refuse a key, indexes and the like over columns that are unknown or unsuitable."""
        names = {column.name: column for column in self.columns}
        highest_column = (self.duplicates.column,) if isinstance(self.duplicates, KeepHighest) else ()
        search = self.search or ()
        for option, columns in (
            ("key", self.key),
            ("indexes", self.indexes),
            ("duplicates", highest_column),
            ("search", search),
        ):
            if unknown := set(columns) - set(names):
                raise DeclarationError(
                    f"dataset {self.name}: {option} names {sorted(unknown)}, which {self.rows.__name__} lacks"
                    f"{nearest(min(unknown), names)}"
                )
        if not self.key:
            raise DeclarationError(f"dataset {self.name}: it needs a key, the columns that tell its rows apart")
        if nullable := [c.name for c in self.columns if c.name in self.key and c.nullable]:
            raise DeclarationError(f"dataset {self.name}: key columns {nullable} may not be empty")
        if unstored := [c.name for c in self.columns if c.name in (*self.key, *self.indexes) and not c.stored]:
            raise DeclarationError(
                f"dataset {self.name}: columns {unstored} are not stored, but are in the key or indexed"
            )
        self._refuse_key()
        if len(self.surrogates) > 1:
            raise DeclarationError(
                f"dataset {self.name}: {' and '.join(self.surrogates)} would be the same number: declare one"
            )
        if self.adopts and not self.surrogates:
            raise DeclarationError(
                f'dataset {self.name}: adopts needs a column with system="surrogate", whose numbers order the adopted rows'
            )
        if self.adopts and (unknown := set(self.adopts.columns) - set(names)):
            raise DeclarationError(
                f"dataset {self.name}: adopts names {sorted(unknown)}, which {self.rows.__name__} lacks"
                f"{nearest(min(unknown), names)}"
            )
        if unsearchable := [name for name in search if name not in self._searchable]:
            raise DeclarationError(
                f"dataset {self.name}: search names {unsearchable}, which are not stored text columns, or are protected"
            )
        if not self.read_columns:
            raise DeclarationError(f"dataset {self.name}: no column of {self.rows.__name__} is read from files")
        if self.is_protected and self.unexpected_columns == "keep":
            raise DeclarationError(
                f"dataset {self.name}: with protected columns, unexpected ones cannot be kept: they would be stored unprotected"
            )

    def _refuse_key(self) -> None:
        """Refuse columns that cannot be in the key, in an index, or decide between duplicates."""
        if len(self.key) > INDEX_COLUMNS:
            raise DeclarationError(
                f"dataset {self.name}: the key has {len(self.key)} columns, and Postgres takes {INDEX_COLUMNS} in an index: "
                "derive one column from several"
            )
        key_systems = {column.system for column in self.columns if column.name in self.key}
        for column in self.columns:
            options = [option for option in ("key", "indexes") if column.name in getattr(self, option)]
            if isinstance(self.duplicates, KeepHighest) and column.name == self.duplicates.column:
                options.append("duplicates")
            if options and column.type == list[float]:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is a list, which cannot be in {' and '.join(options)}: "
                    "declare a column of a single value"
                )
            if {"key", "duplicates"}.intersection(options) and not column.is_staged:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is only known once its row is written, so it cannot be in "
                    f"{options[0]}: declare a column that is read, derived or known from the file"
                )
            if "key" in options and column.system == "record" and "line" not in key_systems:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} in the key is the number of a record on its line, so the key needs "
                    'a column with system="line", too'
                )
            if "key" in options and column.personal == "redact":
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is in the key and redacted, so that all rows would have one key: "
                    'protect it by personal="hash"'
                )

    def _refuse_names(self) -> None:
        """Refuse names that are taken, that Postgres would truncate, or that are not valid everywhere they are used."""
        where = f"dataset {self.name}"
        if not re.fullmatch(PLAIN_NAME, self.table) or self.table.startswith(reserved.SYSTEM_TABLES):
            raise DeclarationError(
                f"{where}: table cannot be {self.table!r}, as Dagster's names contain it; use ASCII letters, digits and "
                f"underscores, but not {reserved.SYSTEM_TABLES} in front, as Postgres's own tables have it"
            )
        for column in self.columns:
            with placed(self.rows, column.name):
                self._refuse_column_name(where, column.name)
                if not re.fullmatch(PLAIN_NAME, column.name):
                    raise DeclarationError(
                        f"{where}: {column.name!r} cannot be the name of a column, as Dagster's names contain it: use ASCII "
                        "letters, digits and underscores; a file can use this name if it is declared as an alias"
                    )
        for computed in self.computed:
            with placed(computed):
                for name in (*computed.columns, *computed.extra_columns):
                    self._refuse_column_name(f"{where}: {computed.name}", name)
        derived = [f"{self.table}_{name}" for name in (*self.indexes, *self.surrogates)]
        derived += [f"surrogates_{a.name}" for a in self.aggregates if a.surrogate]
        names = (self.name, self.table, *(c.name for c in self.computed), *derived)
        for name in names:
            self._refuse_long(where, name)
        # An alias may be the name of a column that is not read: of the number that is derived from a text, for example.
        self._refuse_filters()
        self._refuse_alike([(column.name, column) for column in self.columns])
        self._refuse_alike([(text, column) for column in self.read_columns for text in (column.name, *column.aliases)])
        self._refuse_assets()

    @staticmethod
    def _refuse_column_name(where: str, name: str) -> None:
        """Refuse a name that no column of any table can have."""
        if not name or not name.isprintable():
            raise DeclarationError(f"{where}: {name!r} cannot be the name of a column: it cannot be printed")
        if name.startswith("_"):
            raise DeclarationError(f"{where}: names with a leading underscore are reserved for the platform: {name}")
        if name in reserved.SYSTEM_COLUMNS:
            raise DeclarationError(f"{where}: every table of Postgres has a column called {name} of its own")
        if name in reserved.PARAMETERS:
            raise DeclarationError(
                f"{where}: {name} cannot be the name of a column, as lists of the API have a parameter {name}; use another, "
                f"such as {name}_, and declare {name} as its alias"
            )
        Dataset._refuse_long(where, name)

    @staticmethod
    def _refuse_long(where: str, name: str) -> None:
        if len(name.encode()) > reserved.NAME_BYTES:
            raise DeclarationError(
                f"{where}: Postgres takes names of up to {reserved.NAME_BYTES} bytes: {name} is longer"
            )

    def _refuse_filters(self) -> None:
        """Refuse columns with the name of a filter on another column."""
        tables: list[tuple[Any, Sequence[str]]] = [(self.rows, [column.name for column in self.columns])]
        tables += [(c, (*c.columns, *c.extra_columns)) for c in self.computed]
        for declared, names in tables:
            for name in names:
                other, _, word = name.rpartition("__")
                if other in names and word in reserved.FILTERS:
                    with placed(declared, name):
                        raise DeclarationError(
                            f"dataset {self.name}: the API filters {other} by {name}, which is a column, too: rename one of "
                            "them"
                        )

    def _refuse_alike(self, texts: Sequence[tuple[str, Column]]) -> None:
        known: dict[str, str] = {}
        for text, column in texts:
            if (other := known.setdefault(normalized(text), column.name)) != column.name:
                with placed(self.rows, column.name):
                    raise DeclarationError(
                        f"dataset {self.name}: the columns {other} and {column.name} cannot be told apart in a file by "
                        f"{text!r}: upper case, space, - and _ make no difference there"
                    )

    def _refuse_assets(self) -> None:
        owners = [
            *((source.asset, f"the API source {source.name}") for source in self.api_sources),
            (self.raw_asset, "the raw files"),
            (self.staging_asset, "the staging table"),
            (self.table, f"the table {self.table}"),
            *((c.name, f"the {type(c).__name__.lower()} {c.name}") for c in self.computed),
            ("quality_report", "the quality report"),
            (f"{self.table}_every_row_accounted_for", f"the check of the table {self.table}"),
        ]
        known: dict[str, str] = {}
        for name, owner in owners:
            if (other := known.setdefault(name, owner)) is not owner:
                raise DeclarationError(
                    f"dataset {self.name}: {other} and {owner} both have the asset {name}; give one of them another name"
                )

    def _refuse_rules(self) -> None:
        """Refuse two rules of one name: the later would replace the other wherever rules are looked up."""
        rules: dict[str, Rule] = {}
        for rule in self.rules:
            if not re.fullmatch(PLAIN_NAME, rule.name) or rule.name in reserved.CHECK_NAMES:
                raise DeclarationError(
                    f"dataset {self.name}: {rule.name!r} ({rule.message}) cannot be the name of a rule; use ASCII letters, "
                    f"digits and underscores, but not {', '.join(sorted(reserved.CHECK_NAMES))}",
                    self._place_of_rule(rule),
                )
            if other := rules.get(rule.name):
                raise DeclarationError(
                    f"dataset {self.name}: two rules have the name {rule.name}: {_describe_rule(other)} and "
                    f"{_describe_rule(rule)}; give the function of the @rule, or a column, another name",
                    self._place_of_rule(rule),
                )
            rules[rule.name] = rule

    def _place_of_rule(self, rule: Rule) -> Place | None:
        """Return where the function of a rule is written, else its column."""
        functions = {custom.rule: custom.holds for custom in self.custom_rules}
        return place_of(functions[rule]) if rule in functions else place_of(self.rows, rule.column)

    def _refuse_computed(self) -> None:
        known: set[str] = set()
        for computed in self.computed:
            if unknown := set(computed.reads) - known:
                raise DeclarationError(
                    f"dataset {self.name}: {computed.name} reads {sorted(unknown)}, which are not declared before it",
                    place_of(computed),
                )
            if computed.name in known:
                raise DeclarationError(
                    f"dataset {self.name}: two aggregates or views have the name {computed.name}", place_of(computed)
                )
            known.add(computed.name)

    def _refuse_sources(self) -> None:
        """Refuse formats and API sources that cannot be distinguished, and sources whose pages no format reads."""
        where = f"dataset {self.name}"
        if not self.sources:
            raise DeclarationError(f"{where}: sources is empty; it takes Csv(), Json() or both")
        formats = {source: self.page_format(source) for source in self.api_sources}
        api_names = [source.name for source in self.api_sources]
        # A source with the name of the format that reads it brings the same rows as files of this format do.
        others = [source.name for source, form in formats.items() if form is None or form.name != source.name]
        names = [*(source.name for source in self.sources), *others]
        if repeated := {name for listed in (names, api_names) for name in listed if listed.count(name) > 1}:
            raise DeclarationError(f"{where}: two formats or API sources have the name {min(repeated)}")
        for one, other in itertools.permutations(self.sources, 2):
            for suffix in one.suffixes:
                if unpacked(suffix).endswith(tuple(map(unpacked, other.suffixes))):
                    raise DeclarationError(f"{where}: files that end in {suffix} could be {one.name} or {other.name}")
        for source, form in formats.items():
            if form is None:
                raise DeclarationError(
                    f"{where}: the pages of {source.name} end in {source.suffix}, and no format has this ending"
                )
            if source.paging is not None and not isinstance(form, Json):
                raise DeclarationError(
                    f"{where}: the pages of {source.name} are {form.name}, which is read without paging: declare paging=None"
                )

    def _refuse_page(self, page: Page) -> None:
        """Refuse a page whose address is taken, or that names columns or tables that do not exist."""
        where = f"dataset {self.name}: page"
        computed = {item.name: item for item in self.computed}
        if page.of is not None and page.of not in computed:
            hint = nearest(page.of, computed)
            raise DeclarationError(f"{where}: of names {page.of}, which is not an aggregate or view{hint}")
        production = {column.name for column in self.stored_columns}
        own_columns = {*computed[page.of].columns, *computed[page.of].extra_columns} if page.of else production
        referenced_columns = {
            f"{item.name}.{column}" for item in self.aggregates for column in (*item.columns, *item.extra_columns)
        }
        is_computed_anew = any(item.name == page.of and not item.reads for item in self.aggregates)
        page.refuse_columns(where, own_columns, referenced_columns, production if is_computed_anew else set())

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Return the declared columns, in order."""
        return columns_of(self.rows, f"dataset {self.name}: ")

    @cached_property
    def read_columns(self) -> tuple[Column, ...]:
        """Return the columns whose text comes from the file."""
        return tuple(column for column in self.columns if column.is_read)

    @cached_property
    def staged_columns(self) -> tuple[Column, ...]:
        """Return the columns that staging and quarantine have, as text."""
        return tuple(column for column in self.columns if column.is_staged)

    @cached_property
    def adopted_columns(self) -> tuple[Column, ...]:
        """Return the columns known once a row is written whose values an adopted table has: staging has them, too, as text."""
        return tuple(column for column in self.columns if not column.is_staged) if self.adopts else ()

    @cached_property
    def surrogates(self) -> tuple[str, ...]:
        """Return the name of the column with the number of the key, if it has one."""
        return tuple(column.name for column in self.columns if column.system == "surrogate")

    @cached_property
    def stored_columns(self) -> tuple[Column, ...]:
        """Return the columns that production has."""
        return tuple(column for column in self.columns if column.stored)

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """Return the names of the columns that the search covers."""
        return self._searchable if self.search is None else self.search

    @property
    def _searchable(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.stored_columns if c.type is str and not c.is_protected)

    @cached_property
    def masked_columns(self) -> frozenset[str]:
        """Return the names of the columns whose values are hidden where rows are shown, with those of whole records."""
        personal = {column.name for column in self.columns if column.personal == "mask"}
        return frozenset(personal | {"_raw", "_extra"} if personal else ())

    @cached_property
    def shaped_columns(self) -> frozenset[str]:
        """Return the names of the columns of which only the shape is shown for rejected rows.

        If the cells of a row are shifted, personal data may be in any of them.
        """
        if not self.is_personal:
            return frozenset()
        return frozenset(c.name for c in self.staged_columns if not c.system and not c.is_protected)

    @cached_property
    def is_protected(self) -> bool:
        """Return True if it has personal data that no table may contain: then no text of a file is shown as it arrived."""
        return any(column.is_protected for column in self.columns)

    @cached_property
    def is_personal(self) -> bool:
        """Return True if any column has personal data: then no message about a file quotes its content."""
        return any(column.personal for column in self.columns)

    @cached_property
    def custom_rules(self) -> tuple[CustomRule, ...]:
        """Return the rules written as methods of the row model."""
        return custom_rules_of(self.rows, f"dataset {self.name}: ")

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Return every rule of a row, in the order of the bits of a verdict: structure, columns, whole rows."""
        of_formats = {name for source in self.sources for name in source.structure_rules}
        rules = [structural for name, structural in STRUCTURE_RULES.items() if name in of_formats]
        for column in self.columns:
            if not column.nullable and column.system is None:
                sentence = "cannot be computed" if column.derived else "is empty"
                rules.append(Rule(f"{column.name}_required", column.name, sentence))
            if column.type_rule:
                rules.append(column.type_rule)
            for check, argument in column.checks.items():
                sentence = check_sentence(check, argument, column.unit)
                severity: Severity = "warn" if check in column.warn else "error"
                rules.append(Rule(f"{column.name}_{check}", column.name, sentence, severity))
            if max_bytes := self.index_bounds.get(column.name):
                sentence = f"is longer than the {max_bytes:,} bytes that can be indexed"
                rules.append(Rule(f"{column.name}_indexable", column.name, sentence))
        rules += [custom.rule for custom in self.custom_rules]
        if self._is_identified_by_line and self.may_share_lines:
            sentence = 'another record starts on its line before it, and the key has no column with system="record"'
            rules.append(Rule(LINE_ONCE, None, sentence))
        if self.duplicates == "reject":
            rules.append(Rule(KEY_ONCE, None, f"the key ({', '.join(self.key)}) appears in several rows of the file"))
        return tuple(rules)

    @property
    def may_share_lines(self) -> bool:
        """Return True if several records of a file may start on one line."""
        return any(isinstance(source, Json) for source in self.sources)

    @property
    def _is_identified_by_line(self) -> bool:
        """Return True if only its file and line identify a row: of several rows on one line, all but one would be lost."""
        system_columns = {column.system for column in self.columns if column.name in self.key}
        return "line" in system_columns and system_columns <= {"file", "line", "source"}

    @cached_property
    def index_bounds(self) -> Mapping[str, int]:
        """Return the indexed text columns, each with its maximum number of bytes.

        One longer value would make every load of its batch fail. The text counts as it is stored: in its case, derived or
        filled in, too. Columns whose own `str_length` keeps them below the maximum are omitted.
        """
        # Postgres limits the size of a whole index entry. What the headers and the other values of an index need is deducted,
        # and the text columns share the rest equally. A column in several indexes gets the smallest of its shares.
        limits: dict[str, int] = {}
        for names in (self.key, *((name,) for name in self.indexes), *(a.key for a in self.aggregates)):
            # Protected text is replaced by a short one.
            texts = [c for c in self.columns if c.name in names and c.type is str and not c.is_protected]
            for column in texts:
                length = column.checks.get("str_length") if "str_length" not in column.warn else None
                max_length = length.get("max_value") if isinstance(length, Mapping) else None
                other_values = OTHER_VALUE * (len(names) - len(texts))
                available = INDEX_ENTRY - ENTRY_HEADER - TEXT_HEADER * len(texts) - other_values
                max_bytes = min(INDEX_BYTES, available) // len(texts)
                if max_length is None or UTF8_BYTES * max_length > max_bytes:
                    limits[column.name] = min(max_bytes, limits.get(column.name, max_bytes))
        return limits

    def page_format(self, source: ApiSource) -> Csv | Json | None:
        """Return the format that reads the pages of a source; None if there is none."""
        return next((form for form in self.sources if source.suffix in form.suffixes), None)

    @property
    def raw_asset(self) -> str:
        """Return the name of the asset of raw files, such as `raw_csv`; `raw_files` if there are several formats."""
        return f"raw_{self.sources[0].name}" if len(self.sources) == 1 else "raw_files"

    @property
    def files_sensor(self) -> str:
        """Return the name of its sensor, such as `stations_files`."""
        return f"{self.name}_files"

    def sync_schedule(self, source: ApiSource) -> str:
        """Return the name of the schedule of one of its API sources, such as `stations_sync_api`."""
        return f"{self.name}_sync_{source.name}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Return the endings of the names of its files."""
        return tuple(suffix for source in self.sources for suffix in source.suffixes)

    @property
    def staging_asset(self) -> str:
        """Return the name of the staging asset, such as `staging_stations`."""
        return f"staging_{self.table}"
