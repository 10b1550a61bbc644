"""Sources: in which form the rows of a dataset come, and which APIs are asked for them.

Here: the words about files and synced APIs, and what of them cannot be right. Not here: reading files (`rows/readers/`), asking
APIs (`landing/sync.py`).
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from mini_platform.declare.columns import DeclarationError, spelled


def _refuse_format(kind: str, name: str, suffixes: tuple[str, ...]) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise DeclarationError(f"{kind}: {name!r} is no name: lower case letters, digits and underscores, 40 at most")
    if not isinstance(suffixes, tuple | list) or not suffixes:
        raise DeclarationError(f'{kind}: suffixes is {suffixes!r}; it takes endings of names, as in (".csv", ".txt")')
    for suffix in suffixes:
        if not isinstance(suffix, str) or not re.fullmatch(r"\.[^/\\\0]*[^/\\\0.]", suffix) or suffix != suffix.lower():
            raise DeclarationError(f"{kind}: {suffix!r} is no ending of a file's name: a dot and lower case letters")


def _refuse_path(what: str, path: str) -> None:
    if not isinstance(path, str) or not all(path.split(".")):
        raise DeclarationError(f"{what} is {path!r}; it takes names joined by dots, such as data.items")


def _refuse_parameters(what: str, *parameters: str | None) -> None:
    said = [parameter for parameter in parameters if parameter is not None]
    if not all(isinstance(parameter, str) and parameter for parameter in said) or len(set(said)) < len(said):
        raise DeclarationError(f"{what}: parameters {', '.join(map(repr, said))} are not names that differ")


@spelled
@dataclass(frozen=True)
class Csv:
    """CSV files: UTF-8 (or UTF-16 with a byte order mark) unless an encoding is declared; columns by header name.

    Nothing of a dialect is guessed: what differs from the defaults is said here. CR, LF and CRLF end a line in every dialect.

    Attributes:
        delimiter: what stands between two fields, one or more ASCII characters, such as `;` or `||`.
        encoding: how files without a byte order mark are encoded, by the name that Python knows it by; None: UTF-8.
        suffixes: endings of the names of such files, in lower case; a file's name may have them in any.
        name: of the format, told apart by it: the asset of raw files is called `raw_<name>`, and `system="source"` has it.
        quote: what stands around a field that holds delimiters or line ends, doubled where it stands for itself. None: no
            field is quoted, and a quote is a character as any other.
        escape: what makes the next character an ordinary one, within quotes and without, such as a backslash.
        header: True for the first line; "find" for the first line that holds all declared columns, whatever stands before
            it; False if there is none and the columns come in their declared order.
        skip_lines: so many lines are passed over before the header, or before the first row where there is none.
        skip_initial_space: True takes spaces in front of a field off, so that a quote after them is one.
        trailing_delimiter: True lets a line end with a delimiter, which begins no further field.
        comment: lines that begin with it are no rows.
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
        _refuse_format("Csv", self.name, self.suffixes)
        self._refuse_marks()
        if self.skip_initial_space and self.delimiter.startswith(" "):
            raise DeclarationError(f"Csv: skip_initial_space would skip the delimiter {self.delimiter!r}")
        if self.header not in (True, False, "find"):
            raise DeclarationError(f"Csv: header is {self.header!r}; it can be True, False or 'find'")
        if type(self.skip_lines) is not int or self.skip_lines < 0:
            raise DeclarationError(f"Csv: skip_lines is {self.skip_lines!r}; it is a whole number from 0 on")
        for word in ("skip_initial_space", "trailing_delimiter"):
            if not isinstance(value := getattr(self, word), bool):
                raise DeclarationError(f"Csv: {word} is {value!r}; it can be True or False")
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, TypeError) as error:
            raise DeclarationError(f"Csv: the encoding {self.encoding!r} is not known") from error

    def _refuse_marks(self) -> None:
        """Refuse delimiter, quote, escape and comment that cannot be told from each other."""
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
                f"Csv: the comment {self.comment!r} cannot be told from the delimiter {self.delimiter!r}"
            )


@spelled
@dataclass(frozen=True)
class Json:
    """JSON files: a list of objects, JSON lines, or one object; told apart by what stands in the file.

    An object within an object is flattened, its names joined by `_`: `{"user": {"email": …}}` is a column `user_email`.

    Attributes:
        rows: where the list stands that has the rows, if it is within an object: names joined by dots, such as `data.items`.
        suffixes: endings of the names of such files, in lower case; a file's name may have them in any.
        name: of the format, told apart by it: the asset of raw files is called `raw_<name>`, and `system="source"` has it.
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
        """Refuse what no file can be.

        Raises:
            DeclarationError: with a sentence that names the option.
        """
        _refuse_format("Json", self.name, self.suffixes)
        if self.rows is not None:
            _refuse_path("Json: rows", self.rows)


CRON = r"@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)|(?:[0-9A-Za-z*/,#?-]+ +){4,5}[0-9A-Za-z*/,#?-]+"
"""How a cron expression looks; Dagster reads it."""
API_CHANNEL = "api:"
"""How the channels of synced pages begin in the ledger; the name of the source follows."""


@spelled
@dataclass(frozen=True)
class PageNumberPaginator:
    """Paging by number: `?page=1&limit=100`, then `page=2`; the first page without rows is the end.

    Attributes:
        page: name of the parameter that asks for a page by its number.
        first: number of the first page.
        limit: name of the parameter that asks for `page_size` rows; None if the API has none.
    """

    page: str = "page"
    first: int = 1
    limit: str | None = "limit"

    def __post_init__(self) -> None:
        """Refuse parameters that an address cannot have."""
        _refuse_parameters("PageNumberPaginator", self.page, self.limit)
        if type(self.first) is not int:
            raise DeclarationError(f"PageNumberPaginator: first is {self.first!r}; it takes a whole number")


@spelled
@dataclass(frozen=True)
class HeaderLinkPaginator:
    """Paging by the header `Link: <…>; rel="next"` (RFC 8288); a page without one is the last.

    Attributes:
        limit: name of the parameter that asks for `page_size` rows; None if the API has none.
    """

    limit: str | None = None

    def __post_init__(self) -> None:
        """Refuse a parameter that an address cannot have."""
        _refuse_parameters("HeaderLinkPaginator", self.limit)


@spelled
@dataclass(frozen=True)
class CursorPaginator:
    """Paging by a cursor in the body of each page; one without a cursor, or with an empty one, is the last.

    Attributes:
        path: where the cursor stands: names joined by dots, such as `meta.next`.
        parameter: name of the parameter that asks for the page after it.
        limit: name of the parameter that asks for `page_size` rows; None if the API has none.
    """

    path: str = "next"
    parameter: str = "cursor"
    limit: str | None = "limit"

    def __post_init__(self) -> None:
        """Refuse parameters that an address cannot have, and a path that leads nowhere."""
        _refuse_parameters("CursorPaginator", self.parameter, self.limit)
        _refuse_path("CursorPaginator: path", self.path)


@spelled
@dataclass(frozen=True, kw_only=True)
class ApiSource:
    """An HTTP API that is asked for its rows, page by page; each page becomes a raw file, as if it had been dropped.

    The pages are read as the dataset's JSON files are. Where the API is, and credentials, are settings:
    `MINI_PLATFORM_API_SOURCE__<DATASET>_<NAME>__URL` and `…__HEADER`. Times are seconds.

    Attributes:
        name: of the source: lower case letters, digits and single underscores. A column with `system="source"` has it.
        url: of the first page, where no setting says otherwise; None: the source is not synced until it is set.
        paging: how one page leads to the next: `PageNumberPaginator`, `HeaderLinkPaginator` or `CursorPaginator`.
        page_size: rows of a page that are asked for.
        since: name of the parameter that takes an ISO 8601 time and limits the answer to what changed after it; None if
            the API has none.
        overlap: how much earlier than the last sync `since` asks, as clocks differ.
        whole_every: so often at least everything is asked for, without `since` and `If-None-Match`: rows that moved from
            page to page while a sync was under way are found then.
        rate: requests a second at most.
        tries: of one page, before the sync is given up for now.
        backoff: first pause before another try; it doubles, and the true one is drawn at random below it.
        longest_wait: no pause is longer. A source that asks for a longer one is left alone for that time.
        connect_seconds: how long a connection may take to be made.
        read_seconds: how long the source may be silent within an answer.
        answer_seconds: how long a whole answer may take.
        sync_seconds: a sync that takes longer pauses, and the next run goes on with it.
        max_pages: of one sync; more are taken for an endless loop.
        schedule: when it is synced, as a cron expression; None: by the setting ETL_INTERVAL.
        suffix: how the names of the pages end; it chooses among several JSON formats of the dataset.
    """

    name: str
    url: str | None = None
    paging: PageNumberPaginator | HeaderLinkPaginator | CursorPaginator = PageNumberPaginator()
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
        """Refuse what no source can be.

        Raises:
            DeclarationError: with a sentence that names the option.
        """
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z](?:_?[a-z0-9])*", self.name):
            raise DeclarationError(
                f"ApiSource: {self.name!r} is no name: lower case letters, digits and single underscores"
            )
        if not isinstance(self.paging, PageNumberPaginator | HeaderLinkPaginator | CursorPaginator):
            raise DeclarationError(
                f"ApiSource {self.name}: paging is {self.paging!r}; it takes PageNumberPaginator, "
                "HeaderLinkPaginator or CursorPaginator"
            )
        self._refuse_numbers()
        _refuse_parameters(f"ApiSource {self.name}", self.since, self.paging.limit)
        if self.url is not None and not re.match(r"https?://[^/]", str(self.url)):
            raise DeclarationError(f"ApiSource {self.name}: url is {self.url!r}; it begins with https:// or http://")
        if "#" in (self.url or ""):
            raise DeclarationError(f"ApiSource {self.name}: what follows # in its url is never sent: write %23 for it")
        if self.schedule is not None and not re.fullmatch(CRON, str(self.schedule)):
            raise DeclarationError(f"ApiSource {self.name}: schedule is {self.schedule!r}, which is no cron expression")
        _refuse_format(f"ApiSource {self.name}", "page", (self.suffix,))

    def _refuse_numbers(self) -> None:
        if self.rate <= 0 or self.tries < 1 or self.page_size < 1:
            raise DeclarationError(f"ApiSource {self.name}: rate, tries and page_size are above 0")
        for word in ("tries", "page_size", "max_pages"):
            if type(value := getattr(self, word)) is not int or value < 1:
                raise DeclarationError(f"ApiSource {self.name}: {word} is {value!r}; it takes a whole number above 0")
        for word in ("connect_seconds", "read_seconds", "answer_seconds", "sync_seconds", "backoff", "longest_wait"):
            if not (value := getattr(self, word)) > 0:
                raise DeclarationError(f"ApiSource {self.name}: {word} is {value!r}; it takes seconds above 0")
        if self.overlap < dt.timedelta(0) or self.whole_every <= dt.timedelta(0):
            raise DeclarationError(f"ApiSource {self.name}: overlap is not below 0, and whole_every is above it")

    @property
    def channel(self) -> str:
        """By which its pages come in, as the ledger has it."""
        return API_CHANNEL + self.name

    @property
    def asset(self) -> str:
        """Name of its asset."""
        return f"{self.name}_pages"

    @property
    def check(self) -> str:
        """Name of the check of its asset."""
        return f"{self.name}_reachable"
