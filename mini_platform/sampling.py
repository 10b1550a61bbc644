"""Sample files for any dataset: as many valid rows as wanted, and an exact number of rows that break a rule.

Here: the generator behind `mini-platform sample`. What can be wrong with a row is derived from the declaration, so a
new dataset gets its dirt without a line of code. Not here: judging rows (`validation.py`), reading files (`readers`).
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import io
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mini_platform.dataset import TYPE_RULES, Column, Csv, CustomRule, Dataset

CHUNK_ROWS = 10_000
"""Rows made, encoded and written at a time: under 1 MB for weather, and larger chunks are no faster."""

NOT_A_NUMBER = ("nan", "inf", "1e309", "1,5", "12°", "NA", "abc")
MISTYPED: Mapping[type, tuple[str, ...]] = {
    float: NOT_A_NUMBER,
    int: (*NOT_A_NUMBER, "1.5"),
    dt.date: ("2024-02-30", "31/12/2024", "20240101", "now", "infinity"),
    bool: ("maybe", "2", "NA"),
}
"""Texts that lenient parsers (Python, pandas, Postgres) take for a value of the type, and that are none here."""

FAR_DATES = ("2999-12-31", "0001-01-01")
"""Tried against custom rules about dates. Fixed, not counted from today, so that a seed gives one file for ever."""

FIRST_DAY, LAST_DAY = dt.date(1970, 1, 1), dt.date(2019, 12, 31)
"""Between them lie drawn dates without declared bounds: safely in the past, for rules that forbid the future."""

LOWER = {"ge": False, "greater_than_or_equal_to": False, "gt": True, "greater_than": True}
UPPER = {"le": False, "less_than_or_equal_to": False, "lt": True, "less_than": True}
"""Pandera's one-sided checks -> whether the bound itself is excluded."""

DRAWABLE = {"in_range", "isin", "str_length", *LOWER, *UPPER}
"""Checks under which values can be drawn."""

SPECIMENS = 64
"""Rows on which a way to break a custom rule must work, each of them, before it is used."""

REDRAWS = 1000
"""How often a drawn row that breaks a custom rule is drawn again before the dataset is said to need `realistic`."""

PARSERS: Mapping[type, Callable[[str], Any]] = {
    str: str,
    float: float,
    int: int,
    dt.date: dt.date.fromisoformat,
    bool: lambda text: text == "true",
}
"""Type of a column -> how the text of a valid cell, as written here, is read back for the custom rules."""

Cells = list[str]
Spoil = Callable[[random.Random, Cells], Cells | str]
"""Makes a bad record of a good row: cells that are still to be quoted, or the raw line."""


@dataclass(frozen=True)
class SampleSummary:
    """What a sample holds.

    Attributes:
        rows: data rows written, the dirty ones among them.
        dirty: rows per kind of dirt. A kind is the name of the rule that is broken and, where there are several ways
            to break it, a colon and the way: `date_required`, `temp_c_in_range:above`, `row_quotes_closed:unclosed`.
    """

    rows: int
    dirty: dict[str, int]


def write_sample(
    dataset: Dataset,
    out: Path | IO[bytes],
    rows: int,
    dirty: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SampleSummary:
    """Write a CSV file of valid rows, some of them spoiled; the same arguments give the same bytes.

    Exactly `round(rows * dirty)` rows are spoiled, at random places, by each kind of dirt in turn. The other rows do
    not depend on `dirty`. Memory stays flat whatever the number of rows.

    Args:
        dataset: whose rows; valid ones come from `dataset.realistic`, else from the declared types and checks.
        out: a path, which appears under its name only once it is complete, or an open binary file.
        rows: data rows to write, without the header.
        dirty: share of spoiled rows, 0 to 1.
        seed: of all randomness.
        progress: called after each chunk with the number of rows written so far.

    Raises:
        ValueError: a number is out of its range, or valid rows of this dataset cannot be drawn without `realistic`, or
            its files are no plain CSV.
    """
    if rows < 0 or not 0 <= dirty <= 1:
        raise ValueError(f"rows must be 0 or more and dirty between 0 and 1, not {rows} and {dirty}")
    source = dataset.sources[0]
    if len(source.delimiter) > 1 or source != Csv(source.delimiter, source.encoding, source.suffixes, source.name):
        raise ValueError(f"dataset {dataset.name}: samples are written as plain CSV, and it declares another dialect")
    clean_rows = _clean_rows(dataset, _generator(seed, "rows"))
    dirt = _Dirt(dataset, rows, round(rows * dirty), seed)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=dataset.sources[0].delimiter, lineterminator="\n")
    encoder = codecs.getincrementalencoder(dataset.sources[0].encoding or "utf-8")()
    writer.writerow(column.name for column in dataset.columns)
    with _opened(out) as file:
        for start in range(0, rows, CHUNK_ROWS):
            chunk = range(start, min(start + CHUNK_ROWS, rows))
            for row, cells in zip(chunk, clean_rows(chunk), strict=True):
                record = dirt.applied(row, cells)
                if isinstance(record, str):
                    buffer.write(record + "\n")
                else:
                    writer.writerow(record)
            _flush(buffer, encoder, file)
            if progress:
                progress(chunk.stop)
        _flush(buffer, encoder, file)
    return SampleSummary(rows, {kind: count for kind, count in dirt.counts.items() if count})


def _generator(seed: int, purpose: str) -> random.Random:
    """One stream of random numbers per purpose, so that more dirt does not change the clean rows."""
    return random.Random(f"{seed}/{purpose}")  # noqa: S311 - sample data, not secrets


def _flush(buffer: io.StringIO, encoder: codecs.IncrementalEncoder, file: IO[bytes]) -> None:
    file.write(encoder.encode(buffer.getvalue()))
    buffer.seek(0)
    buffer.truncate()


@contextmanager
def _opened(out: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """Open for writing; a file is renamed into place when complete, as a sensor may watch its folder."""
    if not isinstance(out, Path):
        yield out
    elif out.is_symlink() or (out.exists() and not out.is_file()):
        with out.open("wb") as file:  # /dev/stdout, a pipe: not to be replaced by a file
            yield file
    else:
        part = out.with_name(f".{out.name}.part")
        try:
            with part.open("wb") as file:
                yield file
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)


# Valid rows


def _clean_rows(dataset: Dataset, rng: random.Random) -> Callable[[range], list[Cells]]:
    """Return what makes the valid rows of a range of row numbers, cells in the order of the declared columns."""
    if (realistic := dataset.realistic) is not None:
        names = [column.name for column in dataset.columns]

        def described(numbers: range) -> list[Cells]:
            return [[cells[name] for name in names] for cells in (realistic(rng, number) for number in numbers)]

        return described

    for column in dataset.columns:
        if undrawable := set(column.checks) - DRAWABLE:
            raise ValueError(
                f"dataset {dataset.name}: no value of {column.name} can be drawn under {sorted(undrawable)};"
                " declare `realistic`"
            )
    rules = [custom for custom in dataset.custom_rules if custom.rule.severity == "error"]
    keys = sorted((c for c in dataset.columns if c.name in dataset.key), key=_capacity)
    capacity = math.prod(map(_capacity, keys))

    def drawn(numbers: range) -> list[Cells]:
        if numbers.stop > capacity:
            raise ValueError(f"dataset {dataset.name}: its key has only {capacity} different values to draw")
        rows = {number: _draw(dataset.columns, keys, rng, number) for number in numbers}
        unsettled = list(numbers) if rules else []
        for _ in range(REDRAWS):
            holding = _hold(dataset, rules, [rows[number] for number in unsettled])
            unsettled = [number for number, holds in zip(unsettled, holding, strict=True) if not holds]
            if not unsettled:
                return list(rows.values())
            rows.update((number, _draw(dataset.columns, keys, rng, number)) for number in unsettled)
        names = [custom.rule.name for custom in rules]
        raise ValueError(f"dataset {dataset.name}: rows drawn at random do not satisfy {names}; declare `realistic`")

    return drawn


def _draw(columns: Sequence[Column], keys: Sequence[Column], rng: random.Random, number: int) -> Cells:
    """Draw a row: the key from the row number, written in the mixed radix of the key columns, the rest at random."""
    texts = {}
    for column in keys:
        number, index = divmod(number, _capacity(column))
        texts[column.name] = _nth(column, index)
    return [texts[c.name] if c.name in texts else _at_random(rng, c) for c in columns]


def _at_random(rng: random.Random, column: Column) -> str:
    if column.nullable and rng.random() < 0.05:  # as often as values are missing in tidy data
        return ""
    if "isin" in column.checks or column.type is bool:
        return rng.choice(_options(column))
    if column.type is str:
        low, high = _lengths(column)
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(low, min(high, low + 12))))
    lowest, highest = _bounds(column, 1000)
    if column.type is float:
        value = rng.uniform(lowest, highest)
        return repr(round(value, 2) if lowest <= round(value, 2) <= highest else value)
    return _number_text(column, rng.randint(math.ceil(lowest), math.floor(highest)))


def _capacity(column: Column) -> int:
    """How many different keys `_nth` can give for a column."""
    if "isin" in column.checks or column.type is bool:
        return len(_options(column))
    if column.type is str:
        return int(10 ** (_lengths(column)[1] - len(_prefix(column))))
    lowest, highest = _bounds(column, 10**12)
    return math.floor(highest) - math.ceil(lowest) + 1


def _nth(column: Column, index: int) -> str:
    """The index-th different valid value of a key column."""
    if "isin" in column.checks or column.type is bool:
        return _options(column)[index]
    if column.type is str:
        low, high = _lengths(column)
        prefix = _prefix(column)
        width = max(low, min(high, 6)) - len(prefix)
        return f"{prefix}{index:0{width}d}"
    return _number_text(column, math.ceil(_bounds(column, 10**12)[0]) + index)


def _prefix(column: Column) -> str:
    return column.name[0].upper() if _lengths(column)[1] > 1 else ""


def _options(column: Column) -> list[str]:
    values = column.checks.get("isin", (False, True))
    return [str(value).lower() if column.type is bool else str(value) for value in values]


def _lengths(column: Column) -> tuple[int, int]:
    limits = column.checks.get("str_length") or {}
    low = max(limits.get("min_value") or 0, 1)
    return low, limits.get("max_value") or low + 40


def _bounds(column: Column, span: int) -> tuple[float, float]:
    """Lowest and highest valid value (dates as day numbers); `span` apart where only one or none is declared."""
    lows, highs = [], []
    for check, argument in column.checks.items():
        if check == "in_range":
            lows.append(_bound(column, argument["min_value"], not argument.get("include_min", True), math.inf))
            highs.append(_bound(column, argument["max_value"], not argument.get("include_max", True), -math.inf))
        elif check in LOWER:
            lows.append(_bound(column, argument, LOWER[check], math.inf))
        elif check in UPPER:
            highs.append(_bound(column, argument, UPPER[check], -math.inf))
    if column.type is dt.date:
        if not lows and not highs:
            return FIRST_DAY.toordinal(), LAST_DAY.toordinal()
        span = min(span, 1000)
    low = max(lows) if lows else min(highs) - span if highs else 0
    return low, min(highs, default=low + span)


def _bound(column: Column, limit: Any, excluded: bool, inwards: float) -> float:
    if column.type is dt.date:
        day: int = limit.toordinal()
        return day + int(math.copysign(excluded, inwards))
    return math.nextafter(limit, inwards) if excluded else limit


def _number_text(column: Column, number: int) -> str:
    return dt.date.fromordinal(number).isoformat() if column.type is dt.date else str(number)


# Dirt


class _Dirt:
    """Spoils exactly so many of the rows, at random places, by each kind of dirt in turn."""

    def __init__(self, dataset: Dataset, rows: int, to_spoil: int, seed: int) -> None:
        specimens = range(min(rows, SPECIMENS)) if to_spoil else range(0)
        self._kinds = _kinds(dataset, _clean_rows(dataset, _generator(seed, "specimens"))(specimens))
        self.counts = dict.fromkeys(self._kinds, 0)
        self._rng = _generator(seed, "dirt")
        self._turns = self._rng.sample(list(self._kinds), len(self._kinds))
        self._rows, self._to_spoil, self._spoiled = rows, to_spoil, 0

    def applied(self, row: int, cells: Cells) -> Cells | str:
        """Return the record of a row: its cells as they are, or spoiled."""
        # Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S): exactly so many of the rows, without a list of them.
        missing = self._to_spoil - self._spoiled
        if not missing or self._rng.random() * (self._rows - row) >= missing:
            return cells
        kind = self._turns[self._spoiled % len(self._turns)]
        self._spoiled += 1
        self.counts[kind] += 1
        return self._kinds[kind](self._rng, cells)


def _kinds(dataset: Dataset, specimens: list[Cells]) -> dict[str, Spoil]:
    """Every kind of dirt that the declaration makes possible, by name, in the order of the dataset's rules."""
    kinds = _structure_kinds(dataset)
    for position, column in enumerate(dataset.columns):
        if not column.nullable:
            kinds[f"{column.name}_required"] = _put({position: ""})
        for text in MISTYPED.get(column.type, ()):
            kinds[f"{column.name}_{TYPE_RULES[column.type][0]}:{text}"] = _put({position: text})
        for check, argument in column.checks.items():
            for side, text in _outside(column, check, argument).items():
                kinds[f"{column.name}_{check}:{side}"] = _put({position: text})
    for custom in dataset.custom_rules if specimens else ():
        if custom.rule.severity == "error" and (spoil := _custom_spoil(dataset, custom, specimens)):
            kinds[custom.rule.name] = spoil
    return kinds


def _put(texts: Mapping[int, str]) -> Spoil:
    return lambda _, cells: [texts.get(position, cell) for position, cell in enumerate(cells)]


def _structure_kinds(dataset: Dataset) -> dict[str, Spoil]:
    """Bad records. Each stays on its own line, and its neighbours are what they would be without it.

    No dirt breaks `row_fields_bounded`: a million rows would hold gigabytes of it.
    """
    names = [column.name for column in dataset.columns]
    delimiter = dataset.sources[0].delimiter

    def plain(cells: Cells) -> Cells:
        return [re.sub(rf'["\r\n{re.escape(delimiter)}]', " ", cell) for cell in cells]

    def unclosed(rng: random.Random, cells: Cells) -> str:
        # The text after the quote is never empty or a delimiter: a quote of an earlier such row would close on it.
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
    if len(names) > 1:  # a record of one field without it is an empty line, which is no record
        kinds["row_has_header_fields:short"] = lambda _, cells: cells[:-1]
    kinds["row_has_header_fields:long"] = lambda _, cells: [*cells, "surplus"]
    kinds["row_quotes_closed:unclosed"] = unclosed
    kinds["row_quotes_closed:text after"] = after_quote
    kinds["row_without_nul"] = nul
    kinds["row_not_header"] = lambda _, __: names
    return kinds


def _outside(column: Column, check: str, argument: Any) -> dict[str, str]:
    """Texts that parse and fail one of Pandera's built-in checks, by side; none where it cannot be derived."""
    match check:
        case "in_range":
            return {
                "below": _past(argument["min_value"], -1),
                "above": _past(argument["max_value"], 1),
            }
        case _ if check in LOWER:
            return {"below": _past(argument, -1)}
        case _ if check in UPPER:
            return {"above": _past(argument, 1)}
        case "isin" if column.type is str:
            return {"other": "~" + max(map(str, argument), key=len)}
        case "isin" if column.type is not bool:
            return {"other": _past(max(argument), 1)}
        case "str_length":
            low, high = argument.get("min_value") or 0, argument.get("max_value")
            short = {"short": "x" * (low - 1)} if low > 1 else {}
            return short | ({"long": "x" * (high + 1)} if high else {})
        case "str_matches" if not re.match(argument, "?!"):
            return {"other": "?!"}
        case _:
            return {}


def _past(limit: Any, direction: int) -> str:
    """Text of a value past a limit: by a tenth of it, at least by 1, or by a day."""
    if isinstance(limit, dt.date):
        return (limit + dt.timedelta(days=direction)).isoformat()
    return str(limit + direction * max(1, abs(limit) // 10))


def _custom_spoil(dataset: Dataset, custom: CustomRule, specimens: list[Cells]) -> Spoil | None:
    """A change that breaks a custom rule on every specimen: empty what may be empty, or a date far away."""
    nullable = [position for position, column in enumerate(dataset.columns) if column.nullable]
    dates = [position for position, column in enumerate(dataset.columns) if column.type is dt.date]
    changes = [dict.fromkeys(nullable, "")]
    changes += [{position: ""} for position in nullable]
    changes += [{position: date} for date in FAR_DATES for position in dates]
    for change in changes:
        spoiled = [[change.get(position, cell) for position, cell in enumerate(cells)] for cells in specimens]
        if not any(_hold(dataset, [custom], spoiled)):
            return _put(change)
    return None


def _hold(dataset: Dataset, rules: Sequence[CustomRule], rows: list[Cells]) -> list[bool]:
    """For each valid row of texts, whether all the rules hold; null counts as holding."""
    import polars as pl

    if not rows:
        return []
    frame = pl.DataFrame(
        {
            column.name: [PARSERS[column.type](text) if text else None for text in texts]
            for column, texts in zip(dataset.columns, zip(*rows, strict=True), strict=True)
        },
        schema={column.name: column.type for column in dataset.columns},
    )
    holds = pl.all_horizontal([custom.holds(pl.col).fill_null(value=True) for custom in rules])
    return frame.with_columns(_holds=holds)["_holds"].to_list()
