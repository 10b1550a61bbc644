"""A model of what must be there after some files arrived: cells cleaned, validated, protected; rows won, rejected, counted.

It shares no code with the platform; what it knows are the sentences of `dataset.py`'s docstrings. Where a sentence leaves
open which of several files a row names, `Expected.files` has all of them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mini_platform_tests.declarations.cells import Record, Written
from mini_platform_tests.declarations.draw import CHECKS, INT64, SHORT, Col, Plan

KEY_ID, SECRET = "k1", "a secret of the machine's own"
BLANK = (
    "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))))
    + "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space."""
FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
JSON_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
LIST = re.compile(rf"\[\s*{JSON_NUMBER}\s*(,\s*{JSON_NUMBER}\s*)*\]")
DAY = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt ]00:00(?::00(?:\.0+)?)?)?")
OFFSET = r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2})?)"
TIMES = (
    re.compile(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,6})0*)?)?" + OFFSET
    ),
    re.compile(
        r"([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]{1,6})0*)?)?)?" + OFFSET
    ),
    re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2})()()()" + OFFSET),
)
"""A time in the extended form, in the basic form, and without minutes."""
KINDS = {
    "int": "integer",
    "float": "number",
    "Decimal": "decimal",
    "dt.date": "date",
    "dt.datetime": "timestamp",
    "bool": "boolean",
    "list[float]": "numbers",
}
"""Type -> the end of the name of its rule."""
INDEXED_BYTES = 2600
"""More bytes than this of texts cannot be indexed together."""

Key = tuple[Any, ...]


def indexed_bytes(plan: Plan, column: Col) -> int | None:
    """Most bytes of a text that are indexed: what its index has room for, parted among its texts; None if there is no limit."""

    def texts(names: Sequence[str]) -> int:
        return sum(c.name in names and c.type == "str" and not c.protection for c in plan.columns)

    indexes = [plan.key, *((name,) for name in plan.indexes), *(a.columns[: a.width] for a in plan.aggregates)]
    bounds = [INDEXED_BYTES // texts(names) for names in indexes if column.name in names and texts(names)]
    length = {} if "str_length" in column.options.get("warn", ()) else column.checks.get("str_length", {})
    if column.type != "str" or column.protection or not bounds:
        return None
    return None if 4 * length.get("max_value", INDEXED_BYTES) <= min(bounds) else min(bounds)


def cleaned(column: Col, cell: str) -> str | None:
    """Blanks, normal form, tokens that mean nothing, case, normal form, tokens again: in this order."""
    tokens = column.tokens
    text = cell.strip(BLANK) if column.options.get("trim", True) else cell
    if column.type == "str":
        text = unicodedata.normalize("NFC", text)
    if text == "" or text in tokens or (column.type == "list[float]" and re.fullmatch(r"\[\s*\]", text)):
        return None
    case = column.options.get("case")
    if case:
        text = unicodedata.normalize("NFC", text.lower() if case == "lower" else text.upper())
    return None if text in tokens else text


def _float(text: str) -> float | None:
    value = float(text) if FLOAT.fullmatch(text) else math.inf
    underflow = value == 0 and any(Decimal(text).as_tuple().digits)
    return None if math.isinf(value) or underflow else value


def _time(text: str) -> dt.datetime | None:
    match = next(filter(None, (form.fullmatch(text) for form in TIMES)), None)
    if not match:
        return None
    *parts, fraction, sign, hours, minutes = match.groups()
    try:
        micro = int((fraction or "0").ljust(6, "0"))
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        there = dt.datetime(year, month, day, hour, minute, second, micro, dt.UTC)
        offset = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        return there - offset if sign == "+" else there + offset
    except (ValueError, OverflowError):
        return None


def parsed(column: Col, text: str) -> Any:  # noqa: PLR0911 - a line a type
    """The value of a cleaned text; None where it is none of its type."""
    match column.type:
        case "str":
            return text
        case "int":
            number = Decimal(text) if FLOAT.fullmatch(text) else None
            is_whole = number is not None and number.adjusted() < 30 and number == number.to_integral_value()
            return int(number) if is_whole and int(number) in INT64 else None
        case "float":
            return _float(text)
        case "Decimal":
            scaled = Decimal(text).scaleb(column.decimals) if FLOAT.fullmatch(text) else None
            fits = scaled is not None and abs(scaled) < 10**18 and scaled == scaled.to_integral_value()
            return Decimal(text) if fits else None
        case "dt.date":
            try:
                return dt.date(*map(int, match.groups())) if (match := DAY.fullmatch(text)) else None
            except ValueError:
                return None
        case "dt.datetime":
            return _time(text)
        case "bool":
            words = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(
                ("false", "f", "no", "n", "0"), False
            )
            return words.get(text.lower())
        case _:
            numbers = [_float(n) for n in re.findall(JSON_NUMBER, text)] if LIST.fullmatch(text) else [None]
            return None if None in numbers else numbers


def protected(column: Col, text: str) -> str:
    """Return what the tables store for a text that is personal."""
    if column.protection == "hash":
        lower = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
        plain = re.sub(f"[{BLANK}]+", " ", lower).strip(" ")
        return f"{KEY_ID}:{hmac.new(SECRET.encode(), plain.encode(), hashlib.sha256).hexdigest()}"
    if column.protection == "last4":
        digits = re.sub(r"\D", "", text)
        return f"***-***-{digits[-4:]}" if len(digits) > 4 else "***-***-****"
    return "[redacted]"


@dataclass
class Row:
    """A record, validated.

    Attributes:
        record: as it was written.
        text: cleaned text of the columns that are read.
        values: typed, of all columns; as they are stored, where they are personal.
        errors: names of the rules that it breaks.
        warned: of those that only warn.
        key: as it is stored; None where the row is rejected.
        extra: unknown columns, as they are kept.
    """

    record: Record
    text: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)
    key: Key | None = None
    extra: dict[str, str] | None = None


def validated(plan: Plan, record: Record, name: str, source: str) -> Row:
    """Hold a record to every rule."""
    row = Row(record)
    if record.malformed:
        row.errors.add(record.malformed)
        return row
    values = row.values
    own = {n: c for n in record.extra if (c := own_column(plan, n))}
    sources = [cleaned(c, record.extra[n]) for n, c in own.items() if c.options.get("system") == "source"]
    system_values = {
        "file": name,
        "line": record.line,
        "record": max(1, record.number),
        "source": next((text for text in sources if text), source),
    }
    for c in plan.columns:
        if c.is_read:
            text = row.text[c.name] = cleaned(c, record.cells.get(c.name, ""))
            values[c.name] = None if text is None else parsed(c, text)
        elif not c.derived:
            values[c.name] = system_values.get(c.options["system"])
    values |= {c.name: c.derived.of(values) for c in plan.columns if c.derived}
    _hold(plan, row)
    for c in plan.columns:
        if c.protection and values[c.name] is not None:
            values[c.name] = protected(c, values[c.name])
    if plan.unexpected_columns == "keep":
        row.extra = {n: v for n, v in record.extra.items() if n not in own} or None
    if not row.errors:
        row.key = key_of(plan, values)
    return row


def own_column(plan: Plan, name: str) -> Col | None:
    """The column of this name that the platform fills in or derives: one of a file is left out."""
    return next((c for c in plan.columns if not c.is_read and c.name.lower() == name.lower()), None)


def _hold(plan: Plan, row: Row) -> None:
    """Find the rules that a row breaks; a rule over columns is not applied to a row with a cell that cannot be read."""
    values = row.values
    unread = any(row.text[c.name] is not None and values[c.name] is None for c in plan.read)
    lacking = any(row.text[c.name] is None and not c.nullable for c in plan.read)
    for c in plan.columns:
        if "system" in c.options:
            continue
        value, text = values[c.name], row.text.get(c.name)
        if value is None and not c.nullable and (not (unread or lacking) if c.derived else text is None):
            row.errors.add(f"{c.name}_required")
        if value is None and text is not None:
            row.errors.add(f"{c.name}_is_{KINDS[c.type]}")
        failed = {
            check
            for check, a in c.checks.items()
            if value is not None and not CHECKS[SHORT.get(check, check)](value, a)
        }
        warned = failed.intersection(c.options.get("warn", ()))
        row.warned |= {f"{c.name}_{check}" for check in warned}
        row.errors |= {f"{c.name}_{check}" for check in failed - warned}
        most = indexed_bytes(plan, c)
        if most and isinstance(value, str) and len(value.encode()) > most:
            row.errors.add(f"{c.name}_indexable")
    if plan.is_known_by_line and row.record.number > 1:
        row.errors.add("line_once")
    for rule in plan.rules:
        if not unread and rule.holds.of(values) is False:
            (row.errors if rule.severity == "error" else row.warned).add(rule.full_name)


def key_of(plan: Plan, values: Mapping[str, Any]) -> Key:
    """Return the values that tell a row apart; lists are no members of dicts."""
    return tuple(tuple(v) if isinstance(v := values[name], list) else v for name in plan.key)


@dataclass
class File:
    """An arrival, and what became of it."""

    file_id: int
    plan: Plan
    written: Written
    version: int
    same_as: int | None = None
    rows: list[Row] = field(default_factory=list)
    unreadable: bool = False
    raw_is_there: bool = True
    erased: int = 0
    status: str = "unchanged"
    """The verdict of the last validation: a refused file that lost rows to forget is validated again when it is requested."""

    @property
    def rejected(self) -> list[Row]:
        return [row for row in self.rows if row.errors]

    @property
    def rule_counts(self) -> Counter[str]:
        return Counter(rule for row in self.rows for rule in (row.errors | row.warned))

    def settle(self) -> None:
        """Say whether it is loaded, by its limit."""
        plan = self.plan
        rejected = len(self.rejected)
        read = len(self.rows) + self.erased
        over = plan.share != "None" and read >= plan.min_rows and rejected > Fraction(plan.share) * read
        over |= plan.most_rows is not None and rejected > plan.most_rows
        self.status = "refused" if self.unreadable or over else "loaded"

    def winners(self) -> dict[Key, Row]:
        """Return the row that counts of each key."""
        rows_by_key: dict[Key, list[Row]] = {}
        for row in self.rows:
            if row.key is not None:
                rows_by_key.setdefault(row.key, []).append(row)
        return {key: _counts(self.plan, rows) for key, rows in rows_by_key.items()}


def _counts(plan: Plan, rows: Sequence[Row]) -> Row:
    if plan.duplicates == "first":
        return rows[0]
    if name := plan.highest:
        known = [row for row in rows if row.values[name] is not None]
        if known:
            best = max(sortable(row.values[name]) for row in known)
            return [row for row in known if sortable(row.values[name]) == best][-1]
    return rows[-1]


def sortable(value: Any) -> Any:
    """Texts are sorted by their bytes."""
    return value.encode() if isinstance(value, str) else value


@dataclass
class Expected:
    """A row of production: its values, and the files (by id) and places that it may name."""

    values: dict[str, Any]
    extra: dict[str, str] | None
    places: dict[int, Row]
    brought_by: int


class World:
    """All that arrived at one dataset."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.files: list[File] = []

    def arrive(self, file_id: int, written: Written) -> File:
        """A file arrives."""
        current = next((f for f in reversed(self.files) if f.written.name == written.name and f.same_as is None), None)
        same = current is not None and current.written.data == written.data
        version = (current.version if current else 0) + (not same)
        file = File(file_id, self.plan, written, version, current.file_id if current and same else None)
        if file.same_as is None:
            self.validate(file)
        self.files.append(file)
        return file

    def validate(self, file: File) -> None:
        """Judge a file by what is declared now."""
        plan, written = self.plan, file.written
        file.plan = plan
        required = {c.name for c in plan.read if not c.options.get("optional")}
        lacks = written.format.kind == "Csv" and bool(required - {c.name for c in written.shown})
        file.unreadable = (
            written.refused
            or lacks
            or (plan.unexpected_columns == "refuse" and any(not own_column(plan, n) for n in written.unknown))
        )
        kind = next(f for f in plan.formats if written.name.endswith(f.suffix))
        file.rows = (
            [validated(plan, r, written.name, kind.suffix[1:]) for r in written.records] if not file.unreadable else []
        )
        if plan.duplicates == "reject":
            counted = Counter(row.key for row in file.rows if row.key is not None)
            for row in file.rows:
                if counted[row.key] > 1:
                    row.errors, row.key = {"key_once"}, None
        file.settle()

    def declare(self, plan: Plan) -> None:
        """Another declaration, by which everything is validated again."""
        self.plan = plan
        for file in self.files:
            if file.same_as is None and file.raw_is_there:
                self.validate(file)

    def forget(self, person: str, dropped: set[int]) -> None:
        """Every row of a person goes; of files that cannot be written without them, the raw file.

        Args:
            person: as a cell of a hashed column.
            dropped: ids of files whose raw file is gone.
        """
        hashed = [c for c in self.plan.read if c.protection == "hash"]

        def is_theirs(record: Record) -> bool:
            texts = [cleaned(c, record.cells.get(c.name, "")) for c in hashed]
            return any(
                text is not None and protected(c, text) == protected(c, person)
                for c, text in zip(hashed, texts, strict=True)
            )

        for file in self.files:
            file.raw_is_there &= file.file_id not in dropped
            records = [r for r in file.written.records if not is_theirs(r)]
            if file.same_as is None and len(records) < len(file.written.records):
                file.erased += len(file.written.records) - len(records)
                file.written = replace(file.written, remaining_records=records)
                has_doubled = any(row.errors == {"key_once"} for row in file.rows)
                file.rows = [row for row in file.rows if row.record in records]
                if has_doubled and file.status == "loaded" and file.raw_is_there:
                    self.validate(file)

    @property
    def loaded(self) -> list[File]:
        return [file for file in self.files if file.status == "loaded"]

    def compared_values(self, row: Row) -> tuple[Any, ...]:
        """Return the values that make a row differ from another one of its key."""
        names = [c.name for c in self.plan.stored if "system" not in c.options]
        return (*(row.values[n] for n in names), json.dumps(row.extra, sort_keys=True))

    def production(self) -> dict[Key, Expected]:
        """The rows of production."""
        history: dict[Key, list[tuple[int, Row]]] = {}
        for file in self.loaded:
            for key, row in file.winners().items():
                history.setdefault(key, []).append((file.file_id, row))
        expected = {}
        for key, rows in history.items():
            last = rows[-1][1]
            alike = [self.compared_values(row) == self.compared_values(last) for _, row in rows]
            first = len(alike) - (alike[::-1].index(False) if False in alike else len(alike))
            places = {file_id: row for (file_id, row), same in zip(rows, alike, strict=True) if same}
            expected[key] = Expected(last.values, last.extra, places, rows[first][0])
        return expected

    def counters(self, file: File, before: Mapping[Key, Expected]) -> dict[str, int]:
        """Return how the rows of the last file are counted, if it is loaded by itself upon these rows."""
        if file.status != "loaded":
            return {}
        loaded = {key: self.compared_values(row) for key, row in file.winners().items()}
        held = {key: self.compared_values(next(iter(row.places.values()))) for key, row in before.items()}
        inserted = len(loaded.keys() - held.keys())
        unchanged = sum(key in held and held[key] == row for key, row in loaded.items())
        return {
            "rows_inserted": inserted,
            "rows_updated": len(loaded) - inserted - unchanged,
            "rows_unchanged": unchanged,
            "rows_superseded": len(file.rows) - len(file.rejected) - len(loaded),
        }
