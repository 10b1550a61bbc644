"""Dataset: the declaration from which everything else is derived.

Here: what a user may say about a dataset, and what follows from the words alone (columns, rules, names).
Not here: Dagster, the database, polars and Pandera (their import is slow; `validation.py` builds the Pandera schema from
the declaration when the first row is checked).
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal

from mini_platform.columns import (
    DECIMAL_DIGITS,
    TYPE_RULES,
    Case,
    Column,
    CustomRule,
    DeclarationError,
    Field,
    FieldSpec,
    Given,
    Personal,
    RowModel,
    Rule,
    Severity,
    check_sentence,
    columns_of,
    rule,
)

# fmt: off
__all__ = [
    "DECIMAL_DIGITS", "INDEX_BYTES", "KEY_ONCE", "NAME_BYTES", "PULL_DOOR", "STRUCTURE_RULES", "SYSTEM_COLUMNS", "TYPE_RULES",
    "UTF8_BYTES", "Above", "Aggregate", "Case", "Column", "Computed", "Csv", "Cursor", "CustomRule", "Dataset",
    "DeclarationError", "Drift", "Field", "FieldSpec", "Given", "Highest", "Json", "Linked", "Numbered", "Personal", "Pull",
    "RowModel", "Rule", "Severity", "View", "rule",
]
# fmt: on
"""All words of a declaration, those of its columns too: a dataset's module imports them from here."""

if typing.TYPE_CHECKING:
    import random

    from sqlalchemy import Select


Drift = Literal["rescue", "refuse", "ignore"]
"""What becomes of columns that are not declared: kept as JSON in `_extra`, a reason to refuse the file, or dropped."""

STRUCTURE_RULES: Mapping[str, Rule] = {
    structural.name: structural
    for structural in (
        Rule("row_has_header_fields", None, "the row has more or fewer fields than the header"),
        Rule("row_quotes_closed", None, "a quote is opened and never closed, or text follows a closing quote"),
        Rule("row_without_nul", None, "the row contains a NUL byte"),
        Rule("row_not_header", None, "the row repeats the header"),
        Rule("row_fields_bounded", None, "a field of the row is too long"),
        Rule("row_is_json", None, "the row is not strict JSON"),
        Rule("row_is_object", None, "the row is not a JSON object"),
        Rule("row_names_once", None, "the row names a column twice"),
        Rule("row_names_bounded", None, "the row has too many unknown names, or too long ones"),
    )
}
"""Rules about the form of a record: a row that breaks one has no columns, only its raw text. Each format has some of them."""

LINE_ONCE = "line_once"
"""Name of the rule of datasets whose key is a line, where a format may have several records on one."""
KEY_ONCE = "key_once"
"""Name of the rule of datasets that reject rows of one file with the same key."""
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


@dataclass(frozen=True)
class Csv:
    """CSV files: UTF-8 (or UTF-16 with a byte order mark) unless an encoding is declared; columns by header name.

    Nothing of a dialect is guessed: what differs from the defaults is said here. CR, LF and CRLF end a line in every dialect.

    Attributes:
        delimiter: one or more ASCII characters, such as `;` or `||`.
        encoding: of files without a byte order mark, by the name that Python knows it by.
        quote: what stands around a field that holds delimiters or line ends, doubled where it stands for itself. None: no
            field is quoted, and a quote is a character as any other.
        escape: what makes the next character an ordinary one, within quotes and without, such as a backslash.
        header: True for the first line; "find" for the first line that holds all declared columns, whatever stands before
            it; False if there is none and the columns come in their declared order.
        skip_lines: lines before the header, or before the first row where there is none.
        skip_initial_space: spaces in front of a field do not belong to it, so that a quote after them is one.
        trailing_delimiter: a delimiter at the end of a line begins no further field.
        comment: lines that begin with it are no rows.
        suffixes: endings of the names of such files.
        name: of the format.
    """

    structure_rules: ClassVar[tuple[str, ...]] = (
        "row_has_header_fields",
        "row_quotes_closed",
        "row_without_nul",
        "row_not_header",
        "row_fields_bounded",
    )

    delimiter: str = ","
    encoding: str | None = None
    suffixes: tuple[str, ...] = (".csv", ".csv.gz", ".csv.zip", ".txt", ".tsv")
    name: str = "csv"
    quote: str | None = '"'
    escape: str | None = None
    header: bool | Literal["find"] = True
    skip_lines: int = 0
    skip_initial_space: bool = False
    trailing_delimiter: bool = False
    comment: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can be written in, or what could be read in two ways.

        Raises:
            DeclarationError: with a sentence that names the option.
        """
        self._refuse_marks()
        if self.skip_initial_space and self.delimiter.startswith(" "):
            raise DeclarationError(f"Csv: skip_initial_space would skip the delimiter {self.delimiter!r}")
        if self.header not in (True, False, "find"):
            raise DeclarationError(f"Csv: header is {self.header!r}; it can be True, False or 'find'")
        if self.skip_lines < 0:
            raise DeclarationError(f"Csv: skip_lines is {self.skip_lines}, which is below 0")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError as error:
            raise DeclarationError(f"Csv: the encoding {self.encoding!r} is not known") from error

    def _refuse_marks(self) -> None:
        """Refuse delimiter, quote, escape and comment that cannot be told from each other."""
        marks = {"quote": self.quote, "escape": self.escape}
        for name, text in {"delimiter": self.delimiter, **marks, "comment": self.comment}.items():
            if text is not None and (not text or not text.isascii() or set(text) & set("\r\n\0")):
                raise DeclarationError(f"Csv: the {name} {text!r} is not ASCII text without line ends and NUL")
        for name, mark in marks.items():
            if mark is None:
                continue
            if len(mark) != 1 or mark == " ":
                raise DeclarationError(f"Csv: the {name} {mark!r} is not one character other than the space")
            if mark in self.delimiter:
                raise DeclarationError(f"Csv: the {name} {mark!r} is also in the delimiter {self.delimiter!r}")
            if self.comment and self.comment.startswith(mark):
                raise DeclarationError(f"Csv: the comment {self.comment!r} begins with the {name}")
        if self.quote is not None and self.quote == self.escape:
            raise DeclarationError(f"Csv: {self.quote!r} is quote and escape; a doubled quote needs no escape")
        if self.comment and (self.comment.startswith(self.delimiter) or self.delimiter.startswith(self.comment)):
            raise DeclarationError(
                f"Csv: the comment {self.comment!r} cannot be told from the delimiter {self.delimiter!r}"
            )


@dataclass(frozen=True)
class Json:
    """JSON files: a list of objects, JSON lines, or one object; told apart by what stands in the file.

    An object within an object is flattened, its names joined by `_`: `{"user": {"email": …}}` is a column `user_email`.

    Attributes:
        rows: where the list stands that has the rows, if it is within an object: names joined by dots, such as `data.items`.
        suffixes: endings of the names of such files.
        name: of the format.
    """

    structure_rules: ClassVar[tuple[str, ...]] = (
        "row_without_nul",
        "row_fields_bounded",
        "row_is_json",
        "row_is_object",
        "row_names_once",
        "row_names_bounded",
    )

    rows: str | None = None
    suffixes: tuple[str, ...] = tuple(
        suffix + packing for suffix in (".json", ".jsonl", ".ndjson") for packing in ("", ".gz", ".zip")
    )
    name: str = "json"


PULL_DOOR = "pull:"
"""How the doors of pulled pages begin in the ledger; the name of the source follows."""


@dataclass(frozen=True)
class Numbered:
    """Paging by number: `?page=1&limit=100`, then `page=2`; the first page without rows is the end.

    Attributes:
        page: name of the parameter.
        first: number of the first page.
        limit: name of the parameter for the rows of a page; None if the API has none.
    """

    page: str = "page"
    first: int = 1
    limit: str | None = "limit"


@dataclass(frozen=True)
class Linked:
    """Paging by the header `Link: <…>; rel="next"` (RFC 8288); a page without one is the last.

    Attributes:
        limit: name of the parameter for the rows of a page; None if the API has none.
    """

    limit: str | None = None


@dataclass(frozen=True)
class Cursor:
    """Paging by a cursor in the body of each page; one without a cursor, or with an empty one, is the last.

    Attributes:
        path: where the cursor stands: names joined by dots, such as `meta.next`.
        parameter: name of the parameter that asks for the page after it.
        limit: name of the parameter for the rows of a page; None if the API has none.
    """

    path: str = "next"
    parameter: str = "cursor"
    limit: str | None = "limit"


@dataclass(frozen=True, kw_only=True)
class Pull:
    """An HTTP API that is asked for its rows, page by page; each page becomes a raw file, as if it had been dropped.

    The pages are read as the dataset's JSON files are. Where the API is, and credentials, are settings:
    `MINI_PLATFORM_PULL__<DATASET>_<NAME>__URL` and `…__HEADER`. Times are seconds.

    Attributes:
        name: of the source: lower case letters, digits and `_`. A column with `given="source"` has it.
        url: of the first page, where no setting says otherwise; None: the source is not pulled until it is set.
        paging: how one page leads to the next.
        page_size: rows that are asked for.
        since: name of the parameter that takes an ISO 8601 time and limits the answer to what changed after it; None if
            the API has none.
        overlap: how much earlier than the last crawl it asks, as clocks differ.
        whole_every: so often at least everything is asked for, without `since` and `If-None-Match`: rows that moved from
            page to page while a crawl was under way are found then.
        rate: requests a second at most.
        tries: of one page, before the crawl is given up for now.
        backoff: first pause before another try; it doubles, and the true one is drawn at random below it.
        longest_wait: no pause is longer. A source that asks for a longer one is left alone for that time.
        connect_seconds, read_seconds, answer_seconds: how long a connection, a silence and a whole answer may take.
        crawl_seconds: a crawl that takes longer pauses, and the next run goes on with it.
        max_pages: of one crawl; more are taken for an endless loop.
        schedule: when it is pulled, as a cron expression; None: by the setting ETL_INTERVAL.
        suffix: how the names of the pages end; it chooses among several JSON formats of the dataset.
    """

    name: str
    url: str | None = None
    paging: Numbered | Linked | Cursor = Numbered()
    page_size: int = 100
    since: str | None = None
    overlap: dt.timedelta = dt.timedelta(minutes=5)
    whole_every: dt.timedelta = dt.timedelta(days=1)
    rate: float = 5.0
    tries: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    answer_seconds: float = 120.0
    crawl_seconds: float = 600.0
    max_pages: int = 100_000
    schedule: str | None = None
    suffix: str = ".json"

    def __post_init__(self) -> None:
        """Refuse what no source can be.

        Raises:
            DeclarationError: with a sentence that names the option.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or "__" in self.name:
            raise DeclarationError(f"Pull: {self.name!r} is no name: lower case letters, digits and single underscores")
        if "#" in (self.url or ""):
            raise DeclarationError(f"Pull {self.name}: what follows # in its url is never sent: write %23 for it")
        if self.rate <= 0 or self.tries < 1 or self.page_size < 1:
            raise DeclarationError(f"Pull {self.name}: rate, tries and page_size are above 0")

    @property
    def door(self) -> str:
        """By which its pages come in, as the ledger has it."""
        return PULL_DOOR + self.name

    @property
    def asset(self) -> str:
        """Name of its asset."""
        return f"pull_{self.name}"

    @property
    def check(self) -> str:
        """Name of the check of its asset."""
        return f"{self.name}_reachable"


@dataclass(frozen=True)
class Highest:
    """Of several rows of one file with the same key, the one with the highest value of this column wins."""

    column: str


@dataclass(frozen=True)
class Above:
    """A limit on the rejected rows of one file, as a share of its rows, as a count, or as both: either one is enough."""

    share: float | None = None
    rows: int | None = None

    def exceeded(self, rejected: int, read: int) -> bool:
        """True if so many rejected rows of so many read are above it; 29 of 100 are not above a share of 0.29."""
        over_share = self.share is not None and rejected > Fraction(str(self.share)) * read
        return over_share or (self.rows is not None and rejected > self.rows)

    def __str__(self) -> str:
        """As words: `50% or 1,000 rows`."""
        share = [] if self.share is None else [f"{float(100 * Fraction(str(self.share))):.15g}%"]
        rows = [] if self.rows is None else [f"{self.rows:,} rows"]
        return " or ".join(share + rows) or "no limit"


class Computed:
    """What aggregates and views have in common: a select, a name and a description, both taken from its function."""

    select: Callable[..., Select[Any]]
    columns: Mapping[str, tuple[str, ...]]

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


@dataclass(frozen=True)
class Aggregate(Computed):
    """A table computed by a SQLAlchemy select, one row per group: a summary, a dimension, a table of facts.

    It always holds what its select gives for the rows of production. Where the select proves that a group depends on its own
    rows alone, only touched groups are computed again; else all of it is: with a window, a limit, DISTINCT ON, a union, a
    subquery, a second look at production, SQL as text, a function that is not known, values of other aggregates (beside their
    keys and surrogates), a join to one by a part of its key or to one that leaves out rows. A column that is the surrogate of
    another aggregate, or its key, is a foreign key.

    Attributes:
        select: takes the production table, and the tables of the aggregates that its further parameters name; returns
            the select, or a union of selects. Its function's name is the table's, its docstring the description. Every selected
            column has a SQLAlchemy type.
        key: the selected columns that tell the rows apart. None of them may be empty (`where(x.is_not(None))`, or
            `func.coalesce(x, …)`), a list or an object. They are plain columns of production, by whatever name, if only
            touched groups are to be computed.
        columns: description of each selected column; the unit may follow as a second item.
        chart: (x, y) columns of the small chart shown in the Dagster UI.
        surrogate: name of a column with a number that each key is given once and for all.
    """

    select: Callable[..., Select[Any]]
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    chart: tuple[str, str]
    surrogate: str | None = None


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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the platform needs to know to turn arriving files into trusted tables.

    Attributes:
        name: of the dataset: its drop folder, its asset group, the first part of its asset keys.
        table: name of its table in the schemas staging, production and quarantine.
        rows: the row model.
        key: columns that identify a row; the last arrival of a key wins.
        description: what a row is about, for the UI and the docs.
        owners: e-mail addresses or `team:name`, shown in the UI.
        indexes: columns with an index of their own in production (the key has one already).
        search: text columns that a search looks in; None means all stored ones whose text is not replaced.
        sources: how its files are read: one format, or several told apart by the ending of a file's name.
        pulls: APIs that are asked for rows.
        drift: what becomes of columns that are not declared, see `Drift`.
        duplicates: which of several rows of one file with the same key counts: the last, the first, the one with the
            `Highest` value of a column, or none of them.
        freshness: how old the newest load may be before the dataset is late; None means any age.
        warn_above: rejected rows of a file above which its checks warn.
        refuse_above: rejected rows of a file above which nothing of it is published.
        aggregates: tables that are computed from production, each after those that it reads.
        views: selects over production, aggregates and earlier views.
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
    pulls: tuple[Pull, ...] = ()
    drift: Drift = "rescue"
    duplicates: Literal["last", "first", "reject"] | Highest = "last"
    freshness: dt.timedelta | None = None
    warn_above: Above = Above(share=0)
    refuse_above: Above = Above(share=0.5)
    aggregates: tuple[Aggregate, ...] = ()
    views: tuple[View, ...] = ()
    raw_retention: dt.timedelta | None = None
    realistic: Callable[[random.Random, int], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself, where it stands, and not when the first file arrives."""
        names = {column.name for column in self.columns}
        highest = (self.duplicates.column,) if isinstance(self.duplicates, Highest) else ()
        search = self.search or ()
        for what, used in (("key", self.key), ("indexes", self.indexes), ("duplicates", highest), ("search", search)):
            if unknown := set(used) - names:
                raise DeclarationError(
                    f"dataset {self.name}: {what} names {sorted(unknown)}, which {self.rows.__name__} lacks"
                )
        if not self.key:
            raise DeclarationError(f"dataset {self.name}: it needs a key, the columns that tell its rows apart")
        if optional := [c.name for c in self.columns if c.name in self.key and c.nullable]:
            raise DeclarationError(f"dataset {self.name}: key columns {optional} may not be empty")
        if lost := [c.name for c in self.columns if c.name in (*self.key, *self.indexes) and not c.stored]:
            raise DeclarationError(f"dataset {self.name}: columns {lost} are not stored, but are in the key or indexed")
        self._check_key()
        if other := [name for name in search if name not in self._searchable]:
            raise DeclarationError(
                f"dataset {self.name}: search names {other}, which are not stored text as it arrived"
            )
        if self.is_protected and self.drift == "rescue":
            raise DeclarationError(
                f"dataset {self.name}: with protected columns, unknown ones cannot be rescued in clear"
            )
        self._check_names()
        known: set[str] = set()
        for computed in self.computed:
            if unknown := set(computed.reads) - known:
                raise DeclarationError(
                    f"dataset {self.name}: {computed.name} reads {sorted(unknown)}, which are not declared before it"
                )
            if computed.name in known:
                raise DeclarationError(f"dataset {self.name}: two aggregates or views have the name {computed.name}")
            known.add(computed.name)
        self._check_pulls()

    def _check_key(self) -> None:
        """Refuse columns that cannot tell rows apart, or not where it is asked of them."""
        if len(self.key) > INDEX_COLUMNS:
            raise DeclarationError(
                f"dataset {self.name}: the key has {len(self.key)} columns, and Postgres takes {INDEX_COLUMNS} in an index: "
                "derive one column from several"
            )
        key_given = {column.given for column in self.columns if column.name in self.key}
        for column in self.columns:
            used = [what for what in ("key", "indexes") if column.name in getattr(self, what)]
            if isinstance(self.duplicates, Highest) and column.name == self.duplicates.column:
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
            if "key" in used and column.given == "record" and "line" not in key_given:
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} in the key is the number of a record on its line, so the key needs "
                    'a column with given="line", too'
                )
            if "key" in used and column.personal == "redact":
                raise DeclarationError(
                    f"dataset {self.name}: {column.name} is in the key and redacted, so that all rows would have one key: "
                    'protect it by personal="hash"'
                )

    @property
    def computed(self) -> tuple[Aggregate | View, ...]:
        """Everything that is computed, each after what it reads."""
        return (*self.aggregates, *self.views)

    def _check_names(self) -> None:
        columns = [*(column.name for column in self.columns), *(name for c in self.computed for name in c.columns)]
        if reserved := sorted(name for name in columns if name.startswith("_")):
            raise DeclarationError(
                f"dataset {self.name}: names with a leading underscore are the platform's: {reserved}"
            )
        if reserved := sorted(SYSTEM_COLUMNS.intersection(columns)):
            raise DeclarationError(
                f"dataset {self.name}: every table of Postgres has columns called {reserved} of its own"
            )
        names = (self.name, self.table, *(computed.name for computed in self.computed), *columns)
        if long := sorted(name for name in names if len(name.encode()) > NAME_BYTES):
            raise DeclarationError(
                f"dataset {self.name}: Postgres takes names of up to {NAME_BYTES} bytes: {long} are longer"
            )

    def _check_pulls(self) -> None:
        origins = [*(source.name for source in self.sources), *(pull.name for pull in self.pulls)]
        if doubled := {name for name in origins if origins.count(name) > 1}:
            raise DeclarationError(f"dataset {self.name}: two formats or pulls have the name {min(doubled)}")
        for pull in self.pulls:
            if self.page_format(pull) is None:
                raise DeclarationError(
                    f"dataset {self.name}: the pages of {pull.name} end in {pull.suffix}, and no JSON format of it does"
                )

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The declared columns, in order."""
        return columns_of(self.rows)

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
        return frozenset(c.name for c in self.staged_columns if not c.given and not c.is_protected)

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
        return tuple(value for value in vars(self.rows).values() if isinstance(value, CustomRule))

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule a row is held to, in the order of the bits of a verdict: structure, columns, whole rows."""
        of_formats = {name for source in self.sources for name in source.structure_rules}
        rules = [structural for name, structural in STRUCTURE_RULES.items() if name in of_formats]
        for column in self.columns:
            if not column.nullable and column.given is None:
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
            sentence = 'another record starts on its line before it, and the key has no column with given="record"'
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
        given = {column.given for column in self.columns if column.name in self.key}
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

    def page_format(self, pull: Pull) -> Json | None:
        """The format of the pages of a source; None where none fits."""
        formats = (source for source in self.sources if isinstance(source, Json))
        return next((source for source in formats if pull.suffix in source.suffixes), None)

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
        """Name of the staging asset, such as `staging_measurements`."""
        return f"staging_{self.table}"
