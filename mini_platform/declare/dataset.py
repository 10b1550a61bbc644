"""Dataset: the declaration from which everything else is derived.

Here: what a user may say about a dataset, and what follows from the words alone (columns, rules, names).
Not here: Dagster, the database, polars and Pandera (their import is slow; `rows/validation.py` builds the Pandera schema
from the declaration when the first row is checked).
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

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
    spelled,
    texts_of,
)
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.declared_checks import check_sentence
from mini_platform.declare.pages import PLATFORM_PATHS, Page
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.row_models import columns_of, custom_rules_of
from mini_platform.declare.rules import KEY_ONCE, LINE_ONCE, STRUCTURE_RULES
from mini_platform.declare.sources import ApiSource, Csv, Json

if typing.TYPE_CHECKING:
    import random


INDEX_ENTRY, INDEX_BYTES = 2704, 2600
"""Bytes that Postgres takes for an entry of an index, with its header; and of its texts, where few other values are beside."""
INDEX_COLUMNS = 32
"""Columns that Postgres takes in an index."""
ENTRY_HEADER, TEXT_HEADER, OTHER_VALUE = 16, 8, 24
"""Bytes at most of what else is in an entry: in front of it, in front of a text, and of a value that is no text."""
UTF8_BYTES = 4
"""Of a character at most."""
SYSTEM_COLUMNS = frozenset(("cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"))
"""Columns that every table of Postgres has: https://www.postgresql.org/docs/current/ddl-system-columns.html"""
NAME_BYTES = 63
"""Postgres cuts longer names off."""
DATASET_NAME = r"[a-z](?:_?[a-z0-9])*"
"""A dataset's is also a folder's, and part of the names of settings, where two underscores part the words."""
FILTERS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "contains", "isnull")
"""What follows the name of a column, after `__`, in the API's parameters."""
RESERVED_DATASETS = frozenset(("ops",))
"""By this name the platform's own tables are known where datasets are, in `ops.fingerprints`."""
CHECK_NAMES = frozenset(("columns_as_declared", "files_accepted", "files_not_empty"))
"""Checks of every staging asset, beside its rules."""
OWNER = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+"
"""What Dagster takes for an owner."""


def _whose(rule: Rule) -> str:
    return f"“{rule.message}” of {rule.column or 'the row'}"


def unpacked(suffix: str) -> str:
    """Return the ending of a file's name without that of its packing."""
    return suffix.removesuffix(".gz").removesuffix(".zip") or suffix


@spelled
@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the platform needs to know to turn arriving files into trusted tables.

    Attributes:
        name: of the dataset, its drop folder and its asset group: lower case letters, digits and single underscores.
        table: name of its table in the schemas staging, production and quarantine, which no other dataset has.
        rows: the row model: columns, their checks, and rules.
        key: columns that identify a row; the last arrival of a key wins.
        description: what a row is about, for the UI and the docs.
        owners: e-mail addresses or `team:name`, shown in the UI.
        indexes: columns with an index of their own in production (the key has one already).
        search: text columns that a search looks in; None means all stored ones whose text is not replaced, () means none.
        sources: how its files are read: one format, or several told apart by the ending of a file's name.
        api_sources: APIs that are asked for rows; their pages are read as its JSON files are.
        unexpected_columns: what becomes of columns that are not declared, see `UnexpectedColumns`.
        duplicates: which of several rows of one file with the same key counts: the "last", the "first", the one with the
            `KeepHighest` value of a column, or none of them, as "reject" rejects them all.
        freshness: how old the newest load may be before the dataset is late; None means any age.
        warn_limit: rejected rows above which it is warned: of a run that break one rule by the check of the rule, of a file by
            the pages.
        reject_limit: rejected rows of a file above which nothing of it is published.
        aggregates: tables that are computed from production, each after those that it reads.
        views: selects over production, aggregates and earlier views.
        page: what the dashboard shows of it at `/<name>`; without one it has the page that every dataset has.
        raw_retention: how long its raw files are kept; None means for ever. A setting may say otherwise.
        realistic: makes one valid row from a random generator and a row number, for `mini-platform sample`; without
            it values are drawn from the declared types and ranges.
    """

    name: str
    table: str
    rows: type[RowModel]
    key: tuple[str, ...]
    description: str
    owners: Sequence[str] = ()
    indexes: tuple[str, ...] = ()
    search: tuple[str, ...] | None = None
    sources: tuple[Csv | Json, ...] = (Csv(),)
    api_sources: tuple[ApiSource, ...] = ()
    unexpected_columns: UnexpectedColumns = "keep"
    duplicates: Literal["last", "first", "reject"] | KeepHighest = "last"
    freshness: dt.timedelta | None = None
    warn_limit: RejectLimit = RejectLimit(share=0)
    reject_limit: RejectLimit = RejectLimit(share=0.5)
    aggregates: tuple[Aggregate, ...] = ()
    views: tuple[View, ...] = ()
    page: Page | None = None
    raw_retention: dt.timedelta | None = None
    realistic: Callable[[random.Random, int], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself, where it stands, and not when the first file arrives.

        Raises:
            DeclarationError: with a sentence that names the dataset and what is wrong.
        """
        self._refuse_words()
        self._refuse_computed()
        self._refuse_names()
        self._refuse_columns()
        self._refuse_rules()
        self._refuse_sources()
        if self.page is not None:
            self._refuse_page(self.page)

    @property
    def computed(self) -> tuple[Aggregate | View, ...]:
        """Everything that is computed, each after what it reads."""
        return (*self.aggregates, *self.views)

    def _refuse_words(self) -> None:
        """Refuse words with values of another kind than they take."""
        if (
            not isinstance(self.name, str)
            or not re.fullmatch(DATASET_NAME, self.name)
            or self.name in RESERVED_DATASETS
        ):
            raise DeclarationError(
                f"dataset {self.name!r}: this cannot be a dataset's name, as it is a folder's and a part of other names, too; "
                "lower case letters, digits and single underscores can, such as orders_2024"
            )
        where = f"dataset {self.name}"
        if not isinstance(self.table, str):
            raise DeclarationError(f"{where}: table is {self.table!r}; it takes the name of its table")
        if not isinstance(self.description, str) or not self.description.strip():
            raise DeclarationError(f"{where}: its description is {self.description!r}; say what a row is about")
        for word in ("key", "owners", "indexes", "search"):
            if (said := getattr(self, word)) is not None:
                object.__setattr__(self, word, texts_of(f"{where}: {word}", said))
        if wrong := [owner for owner in self.owners if not re.fullmatch(OWNER, owner)]:
            raise DeclarationError(f"{where}: owners names {wrong[0]!r}; it takes e-mail addresses and team:name")
        self._refuse_kinds(where)
        if self.unexpected_columns not in (choices := typing.get_args(UnexpectedColumns)):
            raise DeclarationError(
                f"{where}: unexpected_columns is {self.unexpected_columns!r}; it can be {' or '.join(choices)}"
            )
        if self.duplicates not in ("last", "first", "reject") and not isinstance(self.duplicates, KeepHighest):
            raise DeclarationError(
                f"{where}: duplicates is {self.duplicates!r}; it can be last, first, reject or KeepHighest(…)"
            )

    def _refuse_kinds(self, where: str) -> None:
        kinds: tuple[tuple[str, Any], ...] = (
            ("sources", Csv | Json),
            ("api_sources", ApiSource),
            ("aggregates", Aggregate),
            ("views", View),
        )
        for word, kind in kinds:
            if not isinstance(said := getattr(self, word), tuple | list) or not all(
                isinstance(one, kind) for one in said
            ):
                raise DeclarationError(f"{where}: {word} is {said!r}; it takes a tuple, as in {word}=(…,)")
            object.__setattr__(self, word, tuple(said))
        for word in ("warn_limit", "reject_limit"):
            if not isinstance(said := getattr(self, word), RejectLimit):
                raise DeclarationError(
                    f"{where}: {word} is {said!r}; it takes RejectLimit(share=…) or RejectLimit(rows=…)"
                )
        if self.page is not None and not isinstance(self.page, Page):
            raise DeclarationError(f"{where}: page is {self.page!r}; it takes Page(…)")
        for word in ("freshness", "raw_retention"):
            said = getattr(self, word)
            if said is not None and not (isinstance(said, dt.timedelta) and said > dt.timedelta(0)):
                raise DeclarationError(f"{where}: {word} is {said!r}; it takes a dt.timedelta above 0, or None")

    def _refuse_columns(self) -> None:
        """Refuse a key, indexes and the like over columns that cannot be that."""
        names = {column.name: column for column in self.columns}
        highest = (self.duplicates.column,) if isinstance(self.duplicates, KeepHighest) else ()
        search = self.search or ()
        for what, used in (("key", self.key), ("indexes", self.indexes), ("duplicates", highest), ("search", search)):
            if unknown := set(used) - set(names):
                raise DeclarationError(
                    f"dataset {self.name}: {what} names {sorted(unknown)}, which {self.rows.__name__} lacks"
                    f"{nearest(min(unknown), names)}"
                )
        if not self.key:
            raise DeclarationError(f"dataset {self.name}: it needs a key, the columns that tell its rows apart")
        if optional := [c.name for c in self.columns if c.name in self.key and c.nullable]:
            raise DeclarationError(f"dataset {self.name}: key columns {optional} may not be empty")
        if lost := [c.name for c in self.columns if c.name in (*self.key, *self.indexes) and not c.stored]:
            raise DeclarationError(f"dataset {self.name}: columns {lost} are not stored, but are in the key or indexed")
        self._refuse_key()
        if other := [name for name in search if name not in self._searchable]:
            raise DeclarationError(
                f"dataset {self.name}: search names {other}, which are not stored text as it arrived"
            )
        if not self.read_columns:
            raise DeclarationError(f"dataset {self.name}: no column of {self.rows.__name__} is read from files")
        if self.is_protected and self.unexpected_columns == "keep":
            raise DeclarationError(
                f"dataset {self.name}: with protected columns, unexpected ones cannot be kept, as they would be in clear"
            )

    def _refuse_key(self) -> None:
        """Refuse columns that cannot tell rows apart, or not where it is asked of them."""
        if len(self.key) > INDEX_COLUMNS:
            raise DeclarationError(
                f"dataset {self.name}: the key has {len(self.key)} columns, and Postgres takes {INDEX_COLUMNS} in an index: "
                "derive one column from several"
            )
        key_systems = {column.system for column in self.columns if column.name in self.key}
        for column in self.columns:
            used = [what for what in ("key", "indexes") if column.name in getattr(self, what)]
            if isinstance(self.duplicates, KeepHighest) and column.name == self.duplicates.column:
                used.append("duplicates")
            if used and column.type == list[float]:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is a list, which cannot be in {' and '.join(used)}: "
                    "declare a column of a single value"
                )
            if {"key", "duplicates"}.intersection(used) and not column.is_staged:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is only known once its row is written, so it cannot be in "
                    f"{used[0]}: declare a column that is read, derived or given by the file"
                )
            if "key" in used and column.system == "record" and "line" not in key_systems:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} in the key is the number of a record on its line, so the key needs "
                    'a column with system="line", too'
                )
            if "key" in used and column.personal == "redact":
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is in the key and redacted, so that all rows would have one key: "
                    'protect it by personal="hash"'
                )

    def _refuse_names(self) -> None:
        """Refuse names that somebody else has, that are cut, or that do not come out right everywhere."""
        where = f"dataset {self.name}"
        computed = [name for c in self.computed for name in (*c.columns, *c.made)]
        columns = [*(column.name for column in self.columns), *computed]
        if reserved := sorted(name for name in columns if name.startswith("_")):
            raise DeclarationError(f"{where}: names with a leading underscore are the platform's: {reserved}")
        if reserved := sorted(SYSTEM_COLUMNS.intersection(columns)):
            raise DeclarationError(f"{where}: every table of Postgres has columns called {reserved} of its own")
        derived = [f"{self.table}_{name}" for name in self.indexes]
        derived += [f"surrogates_{a.name}" for a in self.aggregates if a.surrogate]
        names = (self.name, self.table, *(c.name for c in self.computed), *columns, *derived)
        if long := sorted(name for name in names if len(name.encode()) > NAME_BYTES):
            raise DeclarationError(f"{where}: Postgres takes names of up to {NAME_BYTES} bytes: {long} are longer")
        plain = {self.table: "table", **{column.name: "column" for column in self.columns}}
        if (odd := next((name for name in plain if not re.fullmatch(PLAIN_NAME, name)), None)) is not None:
            also = "; a file may call it so, as an alias says" if plain[odd] == "column" else ""
            raise DeclarationError(
                f"{where}: {odd!r} cannot be the name of a {plain[odd]}, as it is a part of names of Dagster: ASCII letters, "
                f"digits and underscores can{also}"
            )
        if (odd := next((name for name in computed if not name or not name.isprintable()), None)) is not None:
            raise DeclarationError(f"{where}: {odd!r} cannot be the name of a column: it cannot be printed")
        # An alias may be the name of a column that is not read: of the number that is derived from a text, for example.
        self._refuse_filters()
        self._refuse_alike([(column.name, column) for column in self.columns])
        self._refuse_alike([(text, column) for column in self.read_columns for text in (column.name, *column.aliases)])
        self._refuse_assets()

    def _refuse_filters(self) -> None:
        """Refuse columns that are called as what others are filtered by."""
        for names in ([c.name for c in self.columns], *([*c.columns, *c.made] for c in self.computed)):
            for name in names:
                other, _, word = name.rpartition("__")
                if other in names and word in FILTERS:
                    raise DeclarationError(
                        f"dataset {self.name}: the API filters {other} by {name}, which is a column, too: give one another name"
                    )

    def _refuse_alike(self, texts: Sequence[tuple[str, Column]]) -> None:
        known: dict[str, str] = {}
        for text, column in texts:
            if (other := known.setdefault(normalized(text), column.name)) != column.name:
                raise DeclarationError(
                    f"dataset {self.name}: the columns {other} and {column.name} cannot be told apart in a file by {text!r}: "
                    "upper case, space, - and _ make no difference there"
                )

    def _refuse_assets(self) -> None:
        assets = [
            *((source.asset, f"the API source {source.name}") for source in self.api_sources),
            (self.raw_asset, "the raw files"),
            (self.staging_asset, "the staging table"),
            (self.table, f"the table {self.table}"),
            *((c.name, f"the {type(c).__name__.lower()} {c.name}") for c in self.computed),
            ("quality_report", "the quality report"),
            (f"{self.table}_every_row_accounted_for", f"the check of the table {self.table}"),
        ]
        known: dict[str, str] = {}
        for name, whose in assets:
            if (other := known.setdefault(name, whose)) is not whose:
                raise DeclarationError(
                    f"dataset {self.name}: {other} and {whose} both have the asset {name}; give one of them another name"
                )

    def _refuse_rules(self) -> None:
        """Refuse two rules of one name: the later would take the place of the other wherever rules are looked up."""
        known: dict[str, Rule] = {}
        for one in self.rules:
            if not re.fullmatch(PLAIN_NAME, one.name) or one.name in CHECK_NAMES:
                raise DeclarationError(
                    f"dataset {self.name}: {one.name!r} ({one.message}) cannot be the name of a rule; ASCII letters, digits "
                    f"and underscores can, but not {', '.join(sorted(CHECK_NAMES))}"
                )
            if other := known.get(one.name):
                raise DeclarationError(
                    f"dataset {self.name}: two rules have the name {one.name}: {_whose(other)} and {_whose(one)}; give the "
                    "function of the @rule, or a column, another name"
                )
            known[one.name] = one

    def _refuse_computed(self) -> None:
        known: set[str] = set()
        for computed in self.computed:
            if unknown := set(computed.reads) - known:
                raise DeclarationError(
                    f"dataset {self.name}: {computed.name} reads {sorted(unknown)}, which are not declared before it"
                )
            if computed.name in known:
                raise DeclarationError(f"dataset {self.name}: two aggregates or views have the name {computed.name}")
            known.add(computed.name)

    def _refuse_sources(self) -> None:
        """Refuse formats and api_sources that cannot be told apart."""
        where = f"dataset {self.name}"
        if not self.sources:
            raise DeclarationError(f"{where}: sources is empty; it takes Csv(), Json() or both")
        origins = [*(source.name for source in self.sources), *(source.name for source in self.api_sources)]
        if doubled := {name for name in origins if origins.count(name) > 1}:
            raise DeclarationError(f"{where}: two formats or api_sources have the name {min(doubled)}")
        for one, other in itertools.permutations(self.sources, 2):
            for suffix in one.suffixes:
                if unpacked(suffix).endswith(tuple(map(unpacked, other.suffixes))):
                    raise DeclarationError(f"{where}: files that end in {suffix} could be {one.name} or {other.name}")
        for source in self.api_sources:
            if self.page_format(source) is None:
                raise DeclarationError(
                    f"{where}: the pages of {source.name} end in {source.suffix}, and no JSON format of it does"
                )

    def _refuse_page(self, page: Page) -> None:
        """Refuse a page that stands where another does, or names what is not there."""
        where = f"dataset {self.name}: page"
        if self.name in PLATFORM_PATHS:
            raise DeclarationError(f"{where}: it would stand at /{self.name}, which is an address of the platform")
        computed = {one.name: one for one in self.computed}
        if page.of is not None and page.of not in computed:
            hint = nearest(page.of, computed)
            raise DeclarationError(f"{where}: of names {page.of}, which is no aggregate or view{hint}")
        production = {column.name for column in self.stored_columns}
        own = {*computed[page.of].columns, *computed[page.of].made} if page.of else production
        referred = {f"{one.name}.{column}" for one in self.aggregates for column in (*one.columns, *one.made)}
        is_computed_anew = any(one.name == page.of and not one.reads for one in self.aggregates)
        page.refuse_columns(where, own, referred, production if is_computed_anew else set())

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The declared columns, in order."""
        return columns_of(self.rows, f"dataset {self.name}: ")

    @cached_property
    def read_columns(self) -> tuple[Column, ...]:
        """Those whose text comes from the file."""
        return tuple(column for column in self.columns if column.is_read)

    @cached_property
    def staged_columns(self) -> tuple[Column, ...]:
        """Those that staging and quarantine have, as text."""
        return tuple(column for column in self.columns if column.is_staged)

    @cached_property
    def stored_columns(self) -> tuple[Column, ...]:
        """Those that production has."""
        return tuple(column for column in self.columns if column.stored)

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """Names of the columns that a search looks in."""
        return self._searchable if self.search is None else self.search

    @property
    def _searchable(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.stored_columns if c.type is str and not c.is_protected)

    @cached_property
    def masked_columns(self) -> frozenset[str]:
        """Names of the columns whose values are hidden wherever rows are shown, and with them what holds whole records."""
        personal = {column.name for column in self.columns if column.personal == "mask"}
        return frozenset(personal | {"_raw", "_extra"} if personal else ())

    @cached_property
    def shaped_columns(self) -> frozenset[str]:
        """Names of the columns of which a rejected row shows only the shape: where it is shifted, anybody stands in them."""
        if not self.is_personal:
            return frozenset()
        return frozenset(c.name for c in self.staged_columns if not c.system and not c.is_protected)

    @cached_property
    def is_protected(self) -> bool:
        """Whether it has personal data that no table may hold: then nothing that stood in a file is shown as it stood."""
        return any(column.is_protected for column in self.columns)

    @cached_property
    def is_personal(self) -> bool:
        """Whether any column has personal data: then no sentence about a file quotes what stands in it."""
        return any(column.personal for column in self.columns)

    @cached_property
    def custom_rules(self) -> tuple[CustomRule, ...]:
        """The rules written as methods of the row model."""
        return custom_rules_of(self.rows, f"dataset {self.name}: ")

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule a row is held to, in the order of the bits of a verdict: structure, columns, whole rows."""
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
            if most := self.index_bounds.get(column.name):
                sentence = f"is longer than the {most:,} bytes that can be indexed"
                rules.append(Rule(f"{column.name}_indexable", column.name, sentence))
        rules += [custom.rule for custom in self.custom_rules]
        if self._is_known_by_line and self.may_share_lines:
            sentence = 'another record starts on its line before it, and the key has no column with system="record"'
            rules.append(Rule(LINE_ONCE, None, sentence))
        if self.duplicates == "reject":
            rules.append(Rule(KEY_ONCE, None, f"the key ({', '.join(self.key)}) stands on several rows of the file"))
        return tuple(rules)

    @property
    def may_share_lines(self) -> bool:
        """Whether several records of a file may start on one line."""
        return any(isinstance(source, Json) for source in self.sources)

    @property
    def _is_known_by_line(self) -> bool:
        """Whether nothing but the place of a row tells it apart, to the line: of several on one, all but one would be lost."""
        given = {column.system for column in self.columns if column.name in self.key}
        return "line" in given and given <= {"file", "line", "source"}

    @cached_property
    def index_bounds(self) -> Mapping[str, int]:
        """Indexed text columns with their most bytes: one longer value would make every load of its batch fail.

        It is the text as it is stored that counts, in its case, derived or given too. Left out are those whose own
        `str_length` keeps them below it.
        """
        limits: dict[str, int] = {}
        for names in (self.key, *((name,) for name in self.indexes), *(a.key for a in self.aggregates)):
            # What takes the place of protected text is short.
            texts = [c for c in self.columns if c.name in names and c.type is str and not c.is_protected]
            for column in texts:
                length = column.checks.get("str_length") if "str_length" not in column.warn else None
                longest = length.get("max_value") if isinstance(length, Mapping) else None
                others = OTHER_VALUE * (len(names) - len(texts))
                room = INDEX_ENTRY - ENTRY_HEADER - TEXT_HEADER * len(texts) - others
                most = min(INDEX_BYTES, room) // len(texts)
                if longest is None or UTF8_BYTES * longest > most:
                    limits[column.name] = min(most, limits.get(column.name, most))
        return limits

    def page_format(self, source: ApiSource) -> Json | None:
        """The format of the pages of a source; None where none fits."""
        formats = (form for form in self.sources if isinstance(form, Json))
        return next((form for form in formats if source.suffix in form.suffixes), None)

    @property
    def raw_asset(self) -> str:
        """Name of the asset of raw files, such as `raw_csv`; `raw_files` where they have several formats."""
        return f"raw_{self.sources[0].name}" if len(self.sources) == 1 else "raw_files"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the names of its files."""
        return tuple(suffix for source in self.sources for suffix in source.suffixes)

    @property
    def staging_asset(self) -> str:
        """Name of the staging asset, such as `staging_stations`."""
        return f"staging_{self.table}"
