"""Sources: the formats of a dataset's files, and the APIs from which it is synced.

Here: the options of formats and API sources, and the refusal of invalid ones. Not here: reading files (`rows/readers/`),
calling APIs (`landing/sync.py`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mini_platform.declare.columns import DeclarationError, report_bad_arguments


def _refuse_format(kind: str, name: str, suffixes: tuple[str, ...]) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise DeclarationError(
            f"{kind}: {name!r} is not a name: use lower case letters, digits and underscores, 40 at most"
        )
    if not isinstance(suffixes, tuple | list) or not suffixes:
        raise DeclarationError(f'{kind}: suffixes is {suffixes!r}; it takes endings of names, as in (".csv", ".txt")')
    for suffix in suffixes:
        if not isinstance(suffix, str) or not re.fullmatch(r"\.[^/\\\0]*[^/\\\0.]", suffix) or suffix != suffix.lower():
            raise DeclarationError(
                f"{kind}: {suffix!r} is not an ending of a file's name: use a dot and lower case letters"
            )


def _refuse_path(label: str, path: str) -> None:
    if not isinstance(path, str) or not all(path.split(".")):
        raise DeclarationError(f"{label} is {path!r}; it takes names joined by dots, such as data.items")


def _refuse_parameters(label: str, *parameters: str | None) -> None:
    names = [parameter for parameter in parameters if parameter is not None]
    if not all(isinstance(parameter, str) and parameter for parameter in names) or len(set(names)) < len(names):
        raise DeclarationError(f"{label}: parameters {', '.join(map(repr, names))} are not different names")


@report_bad_arguments
@dataclass(frozen=True)
class Csv:
    """The format of CSV files: UTF-8 (or UTF-16 with a byte order mark) unless an encoding is declared; columns by header name.

    Nothing of a dialect is guessed: declare what differs from the defaults. CR, LF and CRLF end a line in every dialect.

    Attributes:
        delimiter: separator between two fields, one or more ASCII characters, such as `;` or `||`.
        encoding: encoding of files without a byte order mark, by its name in Python; None means UTF-8.
        suffixes: endings of the names of such files, in lower case; a file's name may have them in any case.
        name: name of the format: the asset of raw files is called `raw_<name>`, and a column with `system="source"` has it.
        quote: character around a field that contains delimiters or line ends; two of them stand for one within the field.
            None means that no field is quoted, and a quote is a character like any other.
        escape: character that makes the next one an ordinary character, within quotes and outside, such as a backslash.
        header: True if the first line is the header; "find" if it is the first line that contains all declared columns,
            whatever precedes it; False if there is none and the columns come in their declared order.
        skip_lines: number of lines to skip before the header, or before the first row if there is no header.
        skip_initial_space: True removes spaces in front of a field, so that a quote after them is recognized.
        trailing_delimiter: True allows a delimiter at the end of a line, which does not begin another field.
        comment: text at the beginning of lines that are not rows.
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
        """Refuse options that are invalid, or with which a file could be read in two ways.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        _refuse_format("Csv", self.name, self.suffixes)
        self._refuse_marks()
        if self.skip_initial_space and self.delimiter.startswith(" "):
            raise DeclarationError(f"Csv: skip_initial_space would skip the delimiter {self.delimiter!r}")
        if self.header not in (True, False, "find"):
            raise DeclarationError(f"Csv: header is {self.header!r}; it can be True, False or 'find'")
        if type(self.skip_lines) is not int or self.skip_lines < 0:
            raise DeclarationError(f"Csv: skip_lines is {self.skip_lines!r}; it takes a whole number from 0 on")
        for word in ("skip_initial_space", "trailing_delimiter"):
            if not isinstance(value := getattr(self, word), bool):
                raise DeclarationError(f"Csv: {word} is {value!r}; it can be True or False")
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, TypeError) as error:
            raise DeclarationError(f"Csv: the encoding {self.encoding!r} is not known") from error

    def _refuse_marks(self) -> None:
        """Refuse a delimiter, quote, escape and comment that cannot be distinguished."""
        marks = {"quote": self.quote, "escape": self.escape}
        for name, text in {"delimiter": self.delimiter, **marks, "comment": self.comment}.items():
            if text is not None and (
                not isinstance(text, str) or not text or not text.isascii() or set(text) & set("\r\n\0")
            ):
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
                f"Csv: the comment {self.comment!r} cannot be distinguished from the delimiter {self.delimiter!r}"
            )


@report_bad_arguments
@dataclass(frozen=True)
class Json:
    """The format of JSON files: a list of objects, JSON lines, or one object, which is recognized by the content of the file.

    An object within an object is flattened, its names joined by `_`: `{"user": {"email": …}}` is a column `user_email`.

    Attributes:
        rows: path of the list of rows if it is within an object: names joined by dots, such as `data.items`.
        suffixes: endings of the names of such files, in lower case; a file's name may have them in any case.
        name: name of the format: the asset of raw files is called `raw_<name>`, and a column with `system="source"` has it.
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

    def __post_init__(self) -> None:
        """Refuse invalid options.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        _refuse_format("Json", self.name, self.suffixes)
        if self.rows is not None:
            _refuse_path("Json: rows", self.rows)


ADOPT_CHANNEL = "adopt"
"""Channel of the rows of adopted tables in the ledger."""


@report_bad_arguments
@dataclass(frozen=True)
class AdoptedTable:
    """A table of a replaced system, whose rows `mini-platform adopt` takes over with the values of their system columns.

    It has a column for every column that is read from files, and for the system columns "source", "first_loaded", "last_loaded"
    and "surrogate". Rows become raw files of the channel `adopt`: only there a file has values for these columns.

    Attributes:
        name: name of the table, with its schema if that is not the database's default.
        columns: names of its columns by those of the dataset, where they differ.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that are not texts.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        if not isinstance(self.name, str) or not self.name:
            raise DeclarationError(f"AdoptedTable: {self.name!r} is not the name of a table")
        if not isinstance(self.columns, Mapping) or not all(
            isinstance(name, str) and name for item in self.columns.items() for name in item
        ):
            raise DeclarationError(
                f'AdoptedTable: columns is {self.columns!r}; it takes names, as in {{"here": "there"}}'
            )


CRON = r"@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)|(?:[0-9A-Za-z*/,#?-]+ +){4,5}[0-9A-Za-z*/,#?-]+"
"""Pattern of a cron expression; Dagster parses it."""
API_CHANNEL = "api:"
"""Prefix of the channels of synced pages in the ledger; the name of the source follows."""


@report_bad_arguments
@dataclass(frozen=True)
class PageNumberPaginator:
    """Paging by number: `?page=1&limit=100`, then `page=2`; the first page without rows ends the sync.

    A source that ignores page and limit, and sends all of its rows whatever they are, ends it too: its next page has the same
    rows, and so has one with the limit 1. One that ignores the page alone fails: there may be more rows.

    Attributes:
        page: name of the parameter for the number of the page.
        first: number of the first page.
        limit: name of the parameter for `page_size`; None if the API has none.
    """

    page: str = "page"
    first: int = 1
    limit: str | None = "limit"

    def __post_init__(self) -> None:
        """Refuse invalid names of parameters."""
        _refuse_parameters("PageNumberPaginator", self.page, self.limit)
        if type(self.first) is not int:
            raise DeclarationError(f"PageNumberPaginator: first is {self.first!r}; it takes a whole number")


@report_bad_arguments
@dataclass(frozen=True)
class HeaderLinkPaginator:
    """Paging by the header `Link: <…>; rel="next"` (RFC 8288); a page without one is the last.

    Attributes:
        limit: name of the parameter for `page_size`; None if the API has none.
    """

    limit: str | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid name of the parameter."""
        _refuse_parameters("HeaderLinkPaginator", self.limit)


@report_bad_arguments
@dataclass(frozen=True)
class CursorPaginator:
    """Paging by a cursor in the body of each page; a page without a cursor, or with an empty one, is the last.

    Attributes:
        path: path of the cursor in the page: names joined by dots, such as `meta.next`.
        parameter: name of the parameter for the cursor of the next page.
        limit: name of the parameter for `page_size`; None if the API has none.
    """

    path: str = "next"
    parameter: str = "cursor"
    limit: str | None = "limit"

    def __post_init__(self) -> None:
        """Refuse invalid names of parameters, and an invalid path."""
        _refuse_parameters("CursorPaginator", self.parameter, self.limit)
        _refuse_path("CursorPaginator: path", self.path)


@report_bad_arguments
@dataclass(frozen=True, kw_only=True)
class ApiSource:
    """An HTTP API that is synced page by page; each page becomes a raw file, as if it had been dropped.

    The pages are read as the dataset's files with this ending are. The address of the API and its credentials are settings:
    `MINI_PLATFORM_API_SOURCE__<DATASET>_<NAME>__URL` and `…__HEADER`. Numbers of times are seconds.

    Attributes:
        name: name of the source: lower case letters, digits and single underscores; a column with `system="source"` has it.
            It may be the name of the format of its pages, whose files then have the same value there.
        url: URL of the first page, unless a setting overrides it; None means that the source is not synced until it is set.
        paging: how the next page is requested: a `PageNumberPaginator`, `HeaderLinkPaginator` or `CursorPaginator`; None if
            one response has all rows, as a CSV file at a URL.
        page_size: number of rows to request per page.
        since: name of the parameter that takes an ISO 8601 time and limits the response to rows changed after it; None if
            the API has none.
        overlap: how much `since` is earlier than the last sync, to allow for clocks that differ.
        whole_every: maximum time between two full syncs, without `since` and `If-None-Match`; a full sync finds rows that
            moved from page to page during an earlier one.
        rate: maximum number of requests per second.
        tries: maximum number of requests for one page, after which the sync is given up until the next run.
        backoff: upper limit of the first pause before a retry; it doubles with each retry, and pauses are random below it.
        longest_wait: maximum pause before a retry. A source that requests a longer one is not called for that time.
        connect_seconds: timeout for establishing a connection.
        read_seconds: timeout for each wait for data within a response.
        answer_seconds: timeout for a whole response.
        sync_seconds: maximum duration of a sync in one run; a longer one is continued by the next run.
        max_pages: maximum number of pages of one sync; more are considered an endless loop.
        schedule: cron expression for the sync; None means the setting ETL_INTERVAL.
        suffix: ending of the names of the pages; it selects one of the formats of the dataset: one for JSON, or, without
            paging, one for CSV.
    """

    name: str
    url: str | None = None
    paging: PageNumberPaginator | HeaderLinkPaginator | CursorPaginator | None = PageNumberPaginator()
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
    sync_seconds: float = 600.0
    max_pages: int = 100_000
    schedule: str | None = None
    suffix: str = ".json"

    def __post_init__(self) -> None:
        """Refuse invalid options.

        Raises:
            DeclarationError: an option is invalid; the sentence names it.
        """
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z](?:_?[a-z0-9])*", self.name):
            raise DeclarationError(
                f"ApiSource: {self.name!r} is not a name: use lower case letters, digits and single underscores"
            )
        if not isinstance(self.paging, PageNumberPaginator | HeaderLinkPaginator | CursorPaginator | None):
            raise DeclarationError(
                f"ApiSource {self.name}: paging is {self.paging!r}; it takes PageNumberPaginator, "
                "HeaderLinkPaginator, CursorPaginator or None"
            )
        self._refuse_numbers()
        _refuse_parameters(f"ApiSource {self.name}", self.since, self.paging.limit if self.paging else None)
        if self.url is not None and not re.match(r"https?://[^/]", str(self.url)):
            raise DeclarationError(f"ApiSource {self.name}: url is {self.url!r}; it begins with https:// or http://")
        if "#" in (self.url or ""):
            raise DeclarationError(
                f"ApiSource {self.name}: the part of its url after # is never sent: write %23 for a #"
            )
        if self.schedule is not None and not re.fullmatch(CRON, str(self.schedule)):
            raise DeclarationError(
                f"ApiSource {self.name}: schedule is {self.schedule!r}, which is not a cron expression"
            )
        _refuse_format(f"ApiSource {self.name}", "page", (self.suffix,))

    def _refuse_numbers(self) -> None:
        if self.rate <= 0 or self.tries < 1 or self.page_size < 1:
            raise DeclarationError(f"ApiSource {self.name}: rate, tries and page_size must be above 0")
        for word in ("tries", "page_size", "max_pages"):
            if type(value := getattr(self, word)) is not int or value < 1:
                raise DeclarationError(f"ApiSource {self.name}: {word} is {value!r}; it takes a whole number above 0")
        for word in ("connect_seconds", "read_seconds", "answer_seconds", "sync_seconds", "backoff", "longest_wait"):
            if not (value := getattr(self, word)) > 0:
                raise DeclarationError(f"ApiSource {self.name}: {word} is {value!r}; it takes seconds above 0")
        if self.overlap < dt.timedelta(0) or self.whole_every <= dt.timedelta(0):
            raise DeclarationError(f"ApiSource {self.name}: overlap is not below 0, and whole_every is above 0")

    @property
    def channel(self) -> str:
        """Return the channel of its pages in the ledger."""
        return API_CHANNEL + self.name

    @property
    def asset(self) -> str:
        """Return the name of its asset."""
        return f"{self.name}_pages"

    @property
    def check(self) -> str:
        """Return the name of the check of its asset."""
        return f"{self.name}_reachable"
