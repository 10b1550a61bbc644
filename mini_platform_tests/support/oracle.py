"""The expected content of the platform after weather files arrived, computed in plain Python: csv, Decimal, float and dicts.

It shares no code with the platform, and is slow and short, so that it can be checked by reading. Tests land the same bytes
in the same order in both and ask `differences`, which compares row for row by plain SQL.

    oracle = Oracle()
    oracle.arrive("a.csv", data)          # and the same bytes into the platform, then stage, load, refresh
    assert differences(conn, oracle) == []

What counts: the arrivals in the order of the ledger; of a file, the last valid row of each key; of a key, the last arrival
whose file was not refused. Which file a production row names depends on the batches: a file that says what is there
already writes nothing. `Expected.files` holds every right answer, `Expected.brought_by` the one without batches.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

COLUMNS = ("station_id", "date", "temp_c", "precip_mm")
COUNTERS = ("rows_inserted", "rows_updated", "rows_unchanged", "rows_superseded")

WHITE_SPACE = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)))) + (
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters of Unicode's White_Space; str.strip() would take the separators U+001C to U+001F too."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DAY = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt ]00:00(?::00(?:\.0+)?)?)?")


class Key(NamedTuple):
    """The key of a measurement."""

    station_id: str
    date: dt.date


class Values(NamedTuple):
    """The measured values."""

    temp_c: float | None
    precip_mm: float | None


@dataclass(frozen=True)
class Rules:
    """The limits of the weather dataset, which tests of reprocessing change."""

    temp_c: tuple[float, float] = (-90, 60)
    precip_mm: tuple[float, float] = (0, 2000)
    refuse_share: float = 0.5
    refuse_rows: int | None = None
    min_rows: int = 100

    def refuses(self, rejected: int, read: int) -> bool:
        """Return True if a file with this many rejected rows is refused."""
        over_share = read >= self.min_rows and rejected > self.refuse_share * read
        return over_share or (self.refuse_rows is not None and rejected > self.refuse_rows)


@dataclass(frozen=True)
class Expected:
    """A row of production.

    Attributes:
        values: of the last arrival of its key.
        files: ids of the files that the row may name: those that say the same.
        brought_by: the one that it names if each file is loaded by itself and in the order of arrival.
    """

    values: Values
    files: frozenset[int]
    brought_by: int


@dataclass
class File:
    """An arrival: a version of a name, or its current bytes again.

    Attributes:
        file_id: in the ledger.
        name: as it arrived.
        data: its bytes.
        version: of the name.
        same_as: id of the version that these bytes are already; None for a new version.
        unreadable: why it has no rows at all.
        rows_read: records, good or bad.
        rejected: line -> names of the broken rules.
        valid: line -> key and values, in the order of the file.
    """

    file_id: int
    name: str
    data: bytes
    version: int
    same_as: int | None = None
    unreadable: str | None = None
    rows_read: int = 0
    rejected: dict[int, frozenset[str]] = field(default_factory=dict)
    valid: dict[int, tuple[Key, Values]] = field(default_factory=dict)

    @property
    def rule_counts(self) -> Counter[str]:
        """Return the number of rows by broken rule."""
        return Counter(rule for rules in self.rejected.values() for rule in rules)

    @property
    def winners(self) -> dict[Key, Values]:
        """Return the values of each key: those of its last row in the file."""
        return dict(self.valid.values())


class Oracle:
    """The state after some arrivals, validated by some rules."""

    def __init__(self, rules: Rules | None = None, today: dt.date | None = None) -> None:
        self.rules = rules or Rules()
        self.tomorrow = (today or dt.datetime.now(dt.UTC).date()) + dt.timedelta(days=1)
        self.files: list[File] = []

    def arrive(self, name: str, data: bytes, file_id: int | None = None) -> File:
        """Record that a file arrives; its id in the ledger is its number, unless another one is passed."""
        number = file_id or len(self.files) + 1
        current = next((f for f in reversed(self.files) if f.name == name and f.same_as is None), None)
        if current is not None and current.data == data:
            arrived = File(number, name, data, current.version, same_as=current.file_id)
        else:
            arrived = File(number, name, data, current.version + 1 if current else 1)
            self._read(arrived)
        self.files.append(arrived)
        return arrived

    def trusted_by(self, rules: Rules) -> Oracle:
        """Return an oracle of the same arrivals under other rules, as after everything is reprocessed."""
        other = Oracle(rules, self.tomorrow - dt.timedelta(days=1))
        for file in self.files:
            other.arrive(file.name, file.data, file.file_id)
        return other

    def status(self, file: File) -> str:
        """Return the status of a file."""
        if file.same_as is not None:
            return "unchanged"
        refused = file.unreadable or (file.rejected and self.rules.refuses(len(file.rejected), file.rows_read))
        return "refused" if refused else "loaded"

    @property
    def loaded(self) -> list[File]:
        """Return the files whose rows count, in the order of arrival."""
        return [file for file in self.files if self.status(file) == "loaded"]

    def production(self) -> dict[Key, Expected]:
        """Return the table `production.measurements`."""
        histories: dict[Key, list[tuple[int, Values]]] = {}
        for file in self.loaded:
            for key, values in file.winners.items():
                histories.setdefault(key, []).append((file.file_id, values))
        rows = {}
        for key, history in histories.items():
            last = history[-1][1]
            others = [i for i, (_, values) in enumerate(history) if values != last]
            brought_by = history[others[-1] + 1 if others else 0][0]
            rows[key] = Expected(last, frozenset(f for f, values in history if values == last), brought_by)
        return rows

    def quarantine(self) -> dict[tuple[int, int], frozenset[str]]:
        """Return the table `quarantine.measurements`: names of the broken rules by file id and line."""
        return {
            (file.file_id, line): rules
            for file in self.files
            if file.same_as is None and not file.unreadable
            for line, rules in file.rejected.items()
        }

    def counters(self) -> dict[int, dict[str, int]]:
        """Return the counters of rows by file id, if each file is loaded separately and in the order of arrival."""
        held: dict[Key, Values] = {}
        result = {}
        for file in self.loaded:
            inserted = sum(key not in held for key in file.winners)
            unchanged = sum(held.get(key) == values for key, values in file.winners.items())
            counts = (inserted, len(file.winners) - inserted - unchanged, unchanged)
            result[file.file_id] = dict(
                zip(COUNTERS, (*counts, len(file.valid) - len(file.winners)), strict=True),
            )
            held |= file.winners
        return result

    def daily_metrics(self) -> dict[dt.date, tuple[Any, ...]]:
        """Return the table `analytics.daily_metrics` by day, with its columns in order."""
        groups: dict[dt.date, list[Values]] = {}
        for key, row in self.production().items():
            groups.setdefault(key.date, []).append(row.values)
        result = {}
        for date, rows in groups.items():
            temps, rains = _columns(rows)
            rain = (_total(rains), max(rains, default=None), len(rains))
            result[date] = (len(rows), len(rows), *_spread(temps), *rain)
        return result

    def summary(self) -> dict[str, tuple[Any, ...]]:
        """Return the table `analytics.summary` by station, with its columns in order."""
        groups: dict[str, dict[dt.date, Values]] = {}
        for key, row in self.production().items():
            groups.setdefault(key.station_id, {})[key.date] = row.values
        result = {}
        for station, rows in groups.items():
            temps, rains = _columns(rows.values())
            first, last = min(rows), max(rows)
            missing = (last - first).days + 1 - len(rows)
            wet = sum(rain >= 1 for rain in rains)
            result[station] = (len(rows), first, last, missing, *_spread(temps), _total(rains), wet)
        return result

    # How a file is read and validated

    def _read(self, file: File) -> None:
        content = file.data.decode("utf-8-sig")
        lines = re.findall(r"([^\r\n]*)(\r\n|\r|\n|\Z)", content)[: -1 if content.endswith(("\r", "\n")) else None]
        at = next((i for i, (line, _) in enumerate(lines) if line.strip()), None)
        if at is None:
            file.unreadable = "The file is empty"
            return
        used, header = record(lines, at, width=0)
        names = [_normalized(name) for name in header or []]
        if missing := [name for name in COLUMNS if name not in names]:
            file.unreadable = f"The header lacks {', '.join(missing)}"
            return
        if len(set(names)) < len(names):
            file.unreadable = "The header names a column twice"
            return
        at += used
        while at < len(lines):
            if not lines[at][0]:  # a blank line is no record
                at += 1
                continue
            used, fields = record(lines, at, len(names))
            self._validate(file, at + 1, "".join(map("".join, lines[at : at + used])), fields, names)
            at += used

    def _validate(self, file: File, line: int, raw: str, fields: Sequence[str] | None, names: Sequence[str]) -> None:
        file.rows_read += 1
        if "\0" in raw:
            file.rejected[line] = frozenset({"row_without_nul"})
        elif fields is None:
            file.rejected[line] = frozenset({"row_quotes_closed"})
        elif len(fields) != len(names):
            file.rejected[line] = frozenset({"row_has_header_fields"})
        elif sorted(map(_normalized, fields)) == sorted(names):
            file.rejected[line] = frozenset({"row_not_header"})
        else:
            cells = dict(zip(names, fields, strict=True))
            broken, key, values = self.validate_cells({name: cells[name] for name in COLUMNS})
            if broken:
                file.rejected[line] = broken
            else:
                assert key is not None
                file.valid[line] = (key, values)

    def validate_cells(self, cells: Mapping[str, str]) -> tuple[frozenset[str], Key | None, Values]:
        """Return the broken rules of cells, and the typed row; its key is None if it has none."""
        broken = set()
        texts = {name: cells[name].strip(WHITE_SPACE) for name in COLUMNS}
        station = unicodedata.normalize("NFC", texts["station_id"])
        if not station:
            broken.add("station_id_required")
        elif len(station) > 64:
            broken.add("station_id_str_length")
        date = _day(texts["date"])
        unread = bool(texts["date"]) and date is None
        if not texts["date"]:
            broken.add("date_required")
        elif unread:
            broken.add("date_is_date")
        numbers: dict[str, float | None] = {}
        for name, (low, high) in (("temp_c", self.rules.temp_c), ("precip_mm", self.rules.precip_mm)):
            numbers[name] = value = _number(texts[name])
            if texts[name] and value is None:
                unread = True
                broken.add(f"{name}_is_number")
            elif value is not None and not low <= value <= high:
                broken.add(f"{name}_in_range")
        # Rules written over columns are not asked where one of them could not be read.
        if not unread and date is not None and date > self.tomorrow:
            broken.add("date_not_after_tomorrow")
        if not unread and numbers["temp_c"] is None and numbers["precip_mm"] is None:
            broken.add("has_a_measurement")
        return frozenset(broken), Key(station, date) if station and date else None, Values(**numbers)


def record(lines: Sequence[tuple[str, str]], at: int, width: int) -> tuple[int, list[str] | None]:
    """Return the number of lines and the fields of the record that begins at a line; no fields if its quotes are not valid.

    Such a record is only its first line. So is one whose number of fields is wrong while one of its later lines is a
    whole row by itself: then the quote that held them together is a stray one.
    """
    content = ""
    for count, (line, end) in enumerate(lines[at:], start=1):
        content += line
        try:
            (fields,) = csv.reader(io.StringIO(content, newline=""), strict=True)
        except csv.Error as error:
            if "unexpected end of data" not in str(error):
                break
            content += end
            continue
        if len(fields) != width and any(_whole_row(one, width) for one, _ in lines[at + 1 : at + count]):
            break
        return count, fields
    return 1, None


def _whole_row(line: str, width: int) -> bool:
    """Return True if a line by itself is a row, with quotes only around whole fields."""
    bare, quoted = re.subn(r'(?:(?<=^)|(?<=,))"(?:[^"]|"")*"(?=,|$)', "", line)
    return bool(bare or quoted) and '"' not in bare and bare.count(",") + 1 == width


def _normalized(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).strip().casefold())


def _day(content: str) -> dt.date | None:
    try:
        return dt.date(*map(int, match.groups())) if (match := DAY.fullmatch(content)) else None
    except ValueError:
        return None


def _number(content: str) -> float | None:
    """Return a finite number, else None; a number so small that it is 0.0 as a float is not one."""
    if not NUMBER.fullmatch(content):
        return None
    value = float(content)
    if math.isinf(value) or (value == 0 and any(Decimal(content).as_tuple().digits)):
        return None
    return value


def _columns(rows: Iterable[Values]) -> tuple[list[float], list[float]]:
    measurements = list(rows)
    temps = [row.temp_c for row in measurements if row.temp_c is not None]
    return temps, [row.precip_mm for row in measurements if row.precip_mm is not None]


def _spread(numbers: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    if not numbers:
        return None, None, None
    return math.fsum(numbers) / len(numbers), min(numbers), max(numbers)


def _total(numbers: Sequence[float]) -> float | None:
    return math.fsum(numbers) if numbers else None


# Comparison with the database

LEDGER = """
    SELECT file_id, name, version, status, same_as, rows_read, rows_rejected, rule_counts, error,
        rows_inserted, rows_updated, rows_unchanged, rows_superseded
    FROM ops.files WHERE dataset = 'weather' ORDER BY file_id
"""


def differences(conn: Connection, oracle: Oracle, *, sequential: bool = False) -> list[str]:
    """Return all differences of ledger, production, quarantine and analytics to the oracle, as sentences.

    Args:
        conn: to the database of the platform; nothing is written.
        oracle: to which the same bytes arrived, under the ids that the ledger gave them.
        sequential: whether each file was loaded by itself in the order of arrival: then its counters are known too, and
            which file each row names.
    """
    return [
        *_ledger(conn, oracle, sequential=sequential),
        *_production(conn, oracle, sequential=sequential),
        *_quarantine(conn, oracle),
        *_analytics(conn, "daily_metrics", oracle.daily_metrics()),
        *_analytics(conn, "summary", oracle.summary()),
    ]


def _ledger(conn: Connection, oracle: Oracle, *, sequential: bool) -> list[str]:
    actual = {row.file_id: row for row in conn.execute(text(LEDGER))}
    wrong = []
    if actual.keys() != {file.file_id for file in oracle.files}:
        wrong.append(f"the ledger has the files {sorted(actual)}, not {[file.file_id for file in oracle.files]}")
    counters = oracle.counters()
    for file in oracle.files:
        row = actual.get(file.file_id)
        if row is None:
            continue
        expected: dict[str, Any] = {
            "name": file.name,
            "version": file.version,
            "status": oracle.status(file),
            "same_as": file.same_as,
        }
        if file.same_as is None and not file.unreadable:
            expected |= {
                "rows_read": file.rows_read,
                "rows_rejected": len(file.rejected),
                "rule_counts": dict(file.rule_counts),
            }
        if sequential:
            expected |= counters.get(file.file_id, {})
        wrong += [
            f"ledger, file {file.file_id}: {name} is {getattr(row, name)!r}, not {value!r}"
            for name, value in expected.items()
            if getattr(row, name) != value
        ]
        if row.status in ("refused", "failed") and not row.error:
            wrong.append(f"ledger, file {file.file_id}: {row.status} without a reason")
    return wrong


def _production(conn: Connection, oracle: Oracle, *, sequential: bool) -> list[str]:
    result = conn.execute(text("SELECT station_id, date, temp_c, precip_mm, _file_id FROM production.measurements"))
    rows = {Key(r.station_id, r.date): (Values(r.temp_c, r.precip_mm), r._file_id) for r in result}
    expected = oracle.production()
    wrong = [f"production lacks {tuple(key)}: {expected[key]}" for key in expected.keys() - rows.keys()]
    for key, (values, file_id) in rows.items():
        right = expected.get(key)
        if right is None:
            wrong.append(f"production has {tuple(key)}: {tuple(values)} of file {file_id}, which it must not have")
        elif values != right.values or file_id not in ({right.brought_by} if sequential else right.files):
            wrong.append(f"production has {tuple(key)}: {tuple(values)} of file {file_id}, not {right}")
    return wrong


def _quarantine(conn: Connection, oracle: Oracle) -> list[str]:
    result = conn.execute(text("SELECT _file_id, _line, _rules, _reasons FROM quarantine.measurements"))
    rows = {(r._file_id, r._line): (frozenset(r._rules), r._reasons) for r in result}
    expected = oracle.quarantine()
    wrong = [f"quarantine lacks {place}: {sorted(expected[place])}" for place in expected.keys() - rows.keys()]
    for place, (rules, reasons) in rows.items():
        if rules != expected.get(place):
            wrong.append(f"quarantine has {place}: {sorted(rules)}, not {sorted(expected.get(place, ()))}")
        if len(reasons) != len(rules) or not all(reasons):
            wrong.append(f"quarantine has {place}: {len(rules)} rules and the reasons {reasons}")
    return wrong


def _analytics(conn: Connection, table: str, expected: Mapping[Any, Sequence[Any]]) -> list[str]:
    query = {"daily_metrics": "TABLE analytics.daily_metrics", "summary": "TABLE analytics.summary"}[table]
    rows = {key: values for key, *values in conn.execute(text(query))}
    wrong = [f"{table} lacks {key}" for key in expected.keys() - rows.keys()]
    wrong += [f"{table} has {key}, which it must not have" for key in rows.keys() - expected.keys()]
    for key in rows.keys() & expected.keys():
        if not all(map(_close, rows[key], expected[key])):
            wrong.append(f"{table} has {key}: {rows[key]}, not {list(expected[key])}")
    return wrong


def _close(actual: Any, expected: Any) -> bool:
    """Return True if values are equal, except for the last bits of a float, which depend on the order of a sum."""
    if isinstance(actual, float) and isinstance(expected, float):
        return math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-9)
    return bool(actual == expected)
