"""Writers for the rows of a sample (CSV, JSON lines, JSON list), and ways to malform a record of each format.

A malformed record stays on its own line and does not change its neighbours. No dirt fails `row_fields_bounded`: a million rows
would hold gigabytes of it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args

from mini_platform.declare.columns import Column
from mini_platform.declare.dataset import Dataset, unpacked
from mini_platform.declare.sources import Csv, Json
from mini_platform.operations.sampling.rows import Cells

Form = Literal["csv", "jsonl", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
Spoil = Callable[[random.Random, Cells], Cells | str]
"""Callable that makes an invalid record of a valid row: cells that are still to be written, or the raw line."""

LONG_NAME = "x" * 1001
"""A name with more characters than a reader accepts."""


class Writer(Protocol):
    """A writer of rows as the text of a file, with each record on a line of its own."""

    def start(self) -> str:
        """Return the text before the first record."""

    def records(self, records: Iterable[Cells | str], *, first: bool) -> str:
        """Return rows and raw lines as text; `first` is True at the beginning of the file."""

    def end(self) -> str:
        """Return the text after the last record."""

    def encode(self, text: str) -> bytes:
        """Return the next part of the file as bytes."""

    def malformed(self) -> dict[str, Spoil]:
        """Return ways to malform the record of a row, by rule and way."""


def form_of(dataset: Dataset, name: str) -> Form | None:
    """Return the format of a file by its name; None if the name has no known suffix, or the dataset has no such files."""
    endings: dict[Form, str] = {"csv": r"csv|tsv|txt", "jsonl": "jsonl|ndjson", "json": "json"}
    for form, pattern in endings.items():
        if re.search(rf"(?i)\.({pattern})$", name):
            return form if any(isinstance(source, _kind(form)) for source in dataset.sources) else None
    return None


def suffix_of(dataset: Dataset) -> str:
    """Return the ending of a name for a sample in the format of the dataset's first source.

    Raises:
        ValueError: all of its files are compressed.
    """
    source = dataset.sources[0]
    usual = ".csv" if isinstance(source, Csv) else ".jsonl" if source.rows is None else ".json"
    plain = sorted((suffix for suffix in source.suffixes if unpacked(suffix) == suffix), key=usual.__ne__)
    if not plain:
        raise ValueError(f"dataset {dataset.name}: samples are not compressed, as all of its files are")
    return plain[0]


def writer_of(dataset: Dataset, form: Form | None) -> Writer:
    """Return the writer of a format, as the dataset declares its files.

    Raises:
        ValueError: the dataset has no such files, or they are in another dialect than plain CSV.
    """
    sources = [source for source in dataset.sources if form is None or isinstance(source, _kind(form))]
    if not sources:
        formats = " or ".join(source.name for source in dataset.sources)
        raise ValueError(f"dataset {dataset.name} has no files of the form {form}; it has {formats}")
    source = sources[0]
    if isinstance(source, Csv):
        if len(source.delimiter) > 1 or source != Csv(source.delimiter, source.encoding, source.suffixes, source.name):
            raise ValueError(
                f"dataset {dataset.name}: samples are written as plain CSV, but it declares another dialect"
            )
        return CsvWriter(source, [column.name for column in dataset.read_columns])
    in_envelope = source.rows is not None
    if form == "jsonl" and in_envelope:
        raise ValueError(f"dataset {dataset.name} has its rows in a list within an object: no JSON lines")
    return JsonWriter(dataset.read_columns, lines=form != "json" and not in_envelope)


def _kind(form: Form) -> type[Csv] | type[Json]:
    return Csv if form == "csv" else Json


class CsvWriter:
    """A writer of plain CSV, with the declared delimiter and encoding."""

    def __init__(self, source: Csv, names: Sequence[str]) -> None:
        self._names, self._delimiter = list(names), source.delimiter
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, delimiter=source.delimiter, lineterminator="\n")
        self._encoder = codecs.getincrementalencoder(source.encoding or "utf-8")()

    def start(self) -> str:
        """Return the header."""
        return self.records([self._names], first=True)

    def records(self, records: Iterable[Cells | str], *, first: bool) -> str:
        """Return records as lines."""
        for record in records:
            if isinstance(record, str):
                self._buffer.write(record + "\n")
            else:
                self._writer.writerow(record)
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text

    def end(self) -> str:
        """Return an empty text."""
        return ""

    def encode(self, text: str) -> bytes:
        """Return text in the declared encoding."""
        return self._encoder.encode(text)

    def malformed(self) -> dict[str, Spoil]:
        """Return rows with too few or too many fields, unpaired quotes, NUL, or the header again."""
        names, delimiter = self._names, self._delimiter

        def plain(cells: Cells) -> Cells:
            return [re.sub(rf'["\r\n{re.escape(delimiter)}]', " ", cell) for cell in cells]

        def unclosed(rng: random.Random, cells: Cells) -> str:
            # The text after the quote is never empty or a delimiter: it would close a quote of an earlier such row.
            cells, position = plain(cells), rng.randrange(len(cells))
            cells[position] = '"' + (cells[position].strip() or "x")
            return delimiter.join(cells)

        def after_quote(rng: random.Random, cells: Cells) -> str:
            cells, position = plain(cells), rng.randrange(len(cells))
            cells[position] = f'"{cells[position].strip() or "x"}"x'
            return delimiter.join(cells)

        def nul(rng: random.Random, cells: Cells) -> str:
            line = delimiter.join(plain(cells))
            position = rng.randint(0, len(line))
            return f"{line[:position]}\0{line[position:]}"

        kinds: dict[str, Spoil] = {}
        if len(names) > 1:  # A record of one field without it is an empty line, which is not a record.
            kinds["row_has_header_fields:short"] = lambda _, cells: cells[:-1]
        kinds["row_has_header_fields:long"] = lambda _, cells: [*cells, "surplus"]
        kinds["row_quotes_closed:unclosed"] = unclosed
        kinds["row_quotes_closed:text after"] = after_quote
        kinds["row_without_nul"] = nul
        kinds["row_not_header"] = lambda _, __: names
        return kinds


class JsonWriter:
    """A writer of JSON lines, or of a list with an object on each line.

    A column is written by its first alias, if it has any. Aliases with the same first word are put into an object:
    `user_id` and `user_city` are `{"user": {"id": …, "city": …}}`.
    """

    def __init__(self, columns: Sequence[Column], *, lines: bool) -> None:
        self._columns, self._lines = columns, lines
        aliased = [(column.aliases[0], position) for position, column in enumerate(columns) if column.aliases]
        own = {column.name: position for position, column in enumerate(columns) if not column.aliases}
        self._tree = _nested(aliased) | own

    def start(self) -> str:
        """Return the opening bracket of a list."""
        return "" if self._lines else "["

    def records(self, records: Iterable[Cells | str], *, first: bool) -> str:
        """Return records as objects."""
        texts = [record if isinstance(record, str) else self._object(record) for record in records]
        if self._lines:
            return "".join(f"{text}\n" for text in texts)
        return ("\n" if first else ",\n") + ",\n".join(texts)

    def end(self) -> str:
        """Return the closing bracket of a list."""
        return "" if self._lines else "\n]\n"

    def encode(self, text: str) -> bytes:
        """Return text as UTF-8."""
        return text.encode()

    def _object(self, cells: Cells, replaced: Mapping[int, str] | None = None) -> str:
        values = {
            position: _value(c, cell) for position, (c, cell) in enumerate(zip(self._columns, cells, strict=True))
        }
        return _render(self._tree, values | dict(replaced or {}))

    def malformed(self) -> dict[str, Spoil]:
        """Return rows with invalid JSON, values that are not objects, and names that are repeated or too long."""
        name = json.dumps(next(iter(self._tree)))

        def put(value: str) -> Spoil:
            return lambda rng, cells: self._object(cells, {rng.randrange(len(cells)): value})

        def with_member(name: str) -> Spoil:
            return lambda _, cells: f"{{{name}: null, {self._object(cells)[1:]}"

        kinds: dict[str, Spoil] = {
            "row_is_json:NaN": put("NaN"),
            "row_is_json:half a surrogate pair": put('"\\ud800"'),
            "row_is_object:list": lambda _, __: "[1, 2]",
            "row_is_object:null": lambda _, __: "null",
            "row_is_object:text": lambda _, __: '"text"',
            "row_names_once": with_member(name),
            "row_names_bounded": with_member(json.dumps(LONG_NAME)),
            "row_without_nul": put('"\\u0000"'),
        }
        if self._lines:  # In a list they would break the records that follow.
            kinds["row_is_json:no colon"] = lambda _, cells: self._object(cells).replace(": ", " ", 1)
            kinds["row_is_json:text after"] = lambda _, cells: self._object(cells) + " x"
        return kinds


def _nested(names: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return names with positions as a tree, in which names with the same first word are in one object."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for name, position in names:
        groups.setdefault(name.partition("_")[0], []).append((name, position))
    tree: dict[str, Any] = {}
    for head, members in groups.items():
        rests = [(name[len(head) + 1 :], position) for name, position in members]
        if len(members) > 1 and all(rest for rest, _ in rests):
            tree[head] = _nested(rests)
        else:
            tree.update(members)
    return tree


def _render(tree: Mapping[str, Any], values: Mapping[int, str]) -> str:
    members = (
        f"{json.dumps(name)}: {_render(part, values) if isinstance(part, dict) else values[part]}"
        for name, part in tree.items()
    )
    return f"{{{', '.join(members)}}}"


def _value(column: Column, text: str) -> str:
    """Return a cell as JSON: null if empty, a number, boolean or list if it is one, else a string."""
    if not text:
        return "null"
    plain = {
        float: r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?",
        bool: "true|false",
        list[float]: r"\[.*\]",
    }
    pattern = plain.get(float if column.type in (int, Decimal) else column.type)
    return text if pattern and re.fullmatch(pattern, text) else json.dumps(text, ensure_ascii=False)
