"""Every figure of the dashboard as a query to the database: the text that each `data-figure` of a page must have.

`FIGURES` has one function per name. It takes the position of a figure (`At`) and returns the expected content: a text, or the
texts of the cells of a table. No select of the dashboard is used here; numbers are formatted by `wording`, which has its own
tests.
"""

# ruff: noqa: S608 - names of tables and columns of the tests' own

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Table, text

from mini_platform import Dataset
from mini_platform.operations.incidents import KINDS, WARNINGS
from mini_platform.rows.protection import DIGIT, LETTER, NOT_IDENTIFYING, SHAPE_CHARACTERS
from mini_platform.rows.wording import duration, exact, money, number, percent, plural, size
from mini_platform.warehouse.tables import dataset_tables

PARTS = ("inserted", "updated", "unchanged", "superseded", "rejected")
NEWEST = """
    SELECT * FROM ops.files f WHERE dataset = :d AND same_as IS NULL AND status IN ('loaded', 'refused', 'failed')
    {} ORDER BY file_id DESC LIMIT {}"""
CORRECTED = """EXISTS (SELECT FROM ops.files l WHERE l.dataset = f.dataset AND l.name = f.name AND l.file_id > f.file_id
    AND l.same_as IS NULL AND l.status = 'loaded')"""
BROKEN = f"""SELECT key, sum(value::bigint) FROM ({NEWEST.format(f"AND NOT {CORRECTED}", 30)}) n, jsonb_each_text(rule_counts)
    GROUP BY key HAVING sum(value::bigint) > 0"""

Params = Sequence[tuple[str, str]]
Read = str | list[list[str]]


@dataclass(frozen=True)
class At:
    """The position of a figure.

    Attributes:
        conn: connection to the database.
        datasets: served datasets by name.
        path: path of the page.
        within: parameters in the path.
        params: query parameters of the page.
        of: subject of the figure, from `data-of`.
        value: value of the subject, from `data-value`.
        headings: headings of the columns, if the figure is a table.
    """

    conn: Connection
    datasets: Mapping[str, Dataset]
    path: str
    within: Mapping[str, str]
    params: Params
    of: str | None
    value: str | None
    headings: Sequence[str]

    def get(self, name: str) -> str | None:
        """Return the last value of a parameter of the page."""
        return dict(self.params).get(name) or None

    @cached_property
    def dataset(self) -> Dataset:
        """Return the dataset of the page, or of the part of it that has the figure."""
        if self.of in self.datasets:
            return self.datasets[str(self.of)]
        if "file_id" in self.within:
            return self.datasets[
                str(self.conn.scalar(text(f"SELECT dataset FROM ops.files WHERE file_id = {self.file}")))
            ]
        first = next(iter(self.datasets)) if self.path == "/quality" else self.path.strip("/")
        return self.datasets[self.within.get("dataset") or self.get("dataset") or first]

    @property
    def file(self) -> int:
        return int(self.within["file_id"])

    @property
    def production(self) -> str:
        return f'production."{self.dataset.table}"'

    def all(self, statement: str, **binds: Any) -> list[Any]:
        """Return the rows of a statement, in which `:d` is the dataset."""
        defaults = {"d": self.dataset.name} if ":d" in statement and "d" not in binds else {}
        return list(self.conn.execute(text(statement), defaults | binds))


# What is listed, and what filters choose of it


def chosen(base: str, columns: Sequence[str], search: Sequence[str], params: Params) -> tuple[str, dict[str, str]]:
    """Return a statement for the rows of another one that the parameters of a listing select, and its bind values."""
    conditions, binds = [], {}

    def bind(value: str) -> str:
        binds[f"p{len(binds)}"] = value
        return f":p{len(binds) - 1}"

    def has(column: str, value: str) -> str:
        return f'strpos(lower("{column}" COLLATE "default"), lower({bind(value)} COLLATE "default")) > 0'

    names = [name for name, _ in params]
    for name, value in params:
        if name == "search" or (name in ("ordering", "cursor", "limit", "fields", "personal")):
            words = value.split() if name == "search" else []
            conditions += [" OR ".join(has(column, word) for column in search) for word in words]
            continue
        column, _, by = (name, "", "eq") if name in columns else name.rpartition("__")
        assert column in columns, name
        if by == "isnull":
            conditions.append(f'("{column}" IS NULL) = {bind(value)}')
        elif by == "contains":
            conditions.append(has(column, value))
        elif by == "in":
            several = [v for n, v in params if n == name] if names.count(name) > 1 else value.split(",")
            conditions.append(f'"{column}" IN ({", ".join(map(bind, several))})')
        else:
            sign = {"eq": "=", "ne": "IS DISTINCT FROM", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[by]
            conditions.append(f'"{column}" {sign} {bind(value)}')
    where = " AND ".join(f"({condition})" for condition in conditions)
    return f"SELECT * FROM ({base}) t" + (f" WHERE {where}" if where else ""), binds


def masked(table: Table, *, clear: bool = False) -> str:
    """Return a select of all rows of a table, with masked personal data."""
    shown = [
        f"""CASE WHEN "{c.name}" IS NOT NULL THEN '***' END AS "{c.name}\""""
        if c.info.get("personal") and not clear
        else f'"{c.name}"'
        for c in table.columns
    ]
    return f'SELECT {", ".join(shown)} FROM {table.schema}."{table.name}"'


def rejects(dataset: Dataset) -> str:
    """Return a select of the rejected rows of a dataset, one row for each rule that they break."""
    table = dataset_tables(dataset).quarantine

    def cell(name: str) -> str:
        column = table.c[name]
        value = f'q."{name}"'
        if column.info.get("shaped"):
            signs = f"left({value}, {SHAPE_CHARACTERS})"
            for pattern, sign in ((LETTER, "a"), (DIGIT, "9")):
                signs = f"regexp_replace({signs}, '{pattern}', '{sign}', 'g')"
            return f"CASE WHEN {value} ~ '^(?:{NOT_IDENTIFYING})$' THEN {value} ELSE {signs} END"
        return f"CASE WHEN {value} IS NOT NULL THEN '***' END" if column.info.get("personal") else value

    of = {rule.name: rule.column for rule in dataset.rules if rule.column}
    columns = " ".join(["WHEN '' THEN ''", *(f"WHEN '{rule}' THEN '{column}'" for rule, column in of.items())])
    values = " ".join(["WHEN '' THEN ''", *(f"WHEN '{rule}' THEN {cell(column)}" for rule, column in of.items())])
    row = f"array_to_string(ARRAY[{', '.join(cell(c.name) for c in dataset.read_columns)}]::text[], ',', '')"
    return f"""SELECT f.file_id, f.name AS file, q._line AS line, q._record AS record,
        CASE u.rule {columns} END AS "column",
        CASE u.rule {values} ELSE coalesce(nullif({cell("_raw")}, ''), {row}) END AS value,
        u.rule, u.sentence FROM quarantine."{dataset.table}" q JOIN ops.files f ON f.file_id = q._file_id
        CROSS JOIN LATERAL unnest(q._rules, q._reasons) AS u(rule, sentence)"""


# How values are read on a page


def shown(value: Any) -> str:
    """Return a value as the text of a cell; a `<time>` is read as its timestamp."""
    match value:
        case None:
            return "empty"
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return moment(value)
        case dt.date():
            return f"{value.day} {value:%b} {value.year:04}"
        case int() | float() | Decimal():
            return exact(value)
    return str(value)


def moment(value: dt.datetime | None) -> str:
    return f"{value.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}" if value else "–"


def became(row: Any) -> str:
    """Return how many rows were read, and how many had each result; empty if there are none."""
    parts = [(getattr(row, f"rows_{part}") or 0, part) for part in PARTS]
    if not any(count for count, _ in parts):
        return ""
    return f"{row.rows_read:,} rows read: " + ", ".join(f"{count:,} {part}" for count, part in parts if count)


def status(file: Any) -> str:
    """Return the status of a file as it is shown."""
    if file.status == "loaded" and file.rows_rejected:
        return "Loaded with rejects"
    return "Pending" if file.status in ("landed", "staged") else file.status.capitalize()


# The figures

Ask = Callable[[At], Read]
FIGURES: dict[str, Ask] = {}


def figure(name: str) -> Callable[[Ask], Ask]:
    def known(ask: Ask) -> Ask:
        FIGURES[name] = ask
        return ask

    return known


@figure("rows")
def _rows(at: At) -> Read:
    return f"{at.all(f'SELECT count(*) FROM {at.production}')[0][0]:,}"


@figure("arrived")
def _arrived(at: At) -> Read:
    return plural(at.all("SELECT count(*) FROM ops.files WHERE same_as IS NULL")[0][0], "file")


@figure("last-load")
def _last_load(at: At) -> Read:
    of = "AND dataset = :o" if at.of else ""
    return moment(at.all(f"SELECT max(loaded_at) FROM ops.files WHERE status = 'loaded' {of}", o=at.of)[0][0])


@figure("failing")
def _failing(at: At) -> Read:
    broken = {name for name, _ in at.all(BROKEN)}
    return str(sum(rule.name in broken for rule in at.dataset.rules))


@figure("rejected-share")
def _rejected_share(at: At) -> Read:
    of = f"SELECT sum(rows_rejected), sum(rows_read) FROM ({NEWEST.format('', 30)}) n WHERE rows_read > 0"
    rejected, read = at.all(of)[0]
    return percent(rejected / read)


@figure("last-three")
def _last_three(at: At) -> Read:
    return [[f.name, status(f), number(f.rows_read)] for f in at.all(NEWEST.format("", 3))]


@figure("last-files")
def _last_files(at: At) -> Read:
    return [
        [f.name, status(f), number(f.rows_read), number(f.rows_rejected), moment(f.arrived_at)]
        for f in at.all(NEWEST.format("", 5))
    ]


@figure("concerns")
def _incidents(at: At) -> Read:
    incidents = []
    for name in at.datasets:
        validated = """EXISTS (SELECT FROM ops.files l WHERE l.dataset = f.dataset AND l.name = f.name AND l.same_as IS NULL
            AND l.version > f.version AND l.status IN ('loaded', 'refused', 'failed'))"""
        stopped = f"""SELECT * FROM ops.files f WHERE dataset = :d AND same_as IS NULL AND status IN ('refused', 'failed')
            AND NOT {validated} ORDER BY file_id DESC"""
        files = at.all(stopped, d=name)
        for stopped_as, what, do in (
            ("failed", "failed", "Read the log of its run, then"),
            ("refused", "was refused", "Correct it and drop it again under its name, or"),
        ):
            if these := [f for f in files if f.status == stopped_as]:
                more = f" And {plural(len(these) - 1, 'file')} more." if these[1:] else ""
                point = "" if these[0].error.endswith((".", "!", "?")) else "."
                words = f"{these[0].name} {what}: {these[0].error}{point}{more}"
                command = f"mini-platform reprocess {name} --file {these[0].file_id}."
                incidents.append(("file_refused", name, f"{words} {do} {command}"))
        recent = f"""SELECT * FROM ops.files f WHERE dataset = :d AND same_as IS NULL AND NOT {CORRECTED}
            AND arrived_at > now() - interval '30 days' ORDER BY file_id DESC"""
        files = at.all(recent, d=name)
        warned = at.datasets[name].warn_limit
        affected = [
            f
            for f in files
            if f.status == "loaded"
            and f.rows_rejected
            and warned.exceeded(f.rows_rejected, f.rows_read + (f.rows_erased or 0))
        ]
        if affected:
            worst = max(affected, key=lambda f: f.rows_rejected / f.rows_read)
            share = percent(worst.rows_rejected / worst.rows_read)
            more = f" And {plural(len(affected) - 1, 'file')} more." if affected[1:] else ""
            of = f"{worst.rows_rejected:,} of {plural(worst.rows_read, 'row')} ({share}) rejected.{more}"
            incidents.append(("rows_rejected", name, f"{worst.name}: {of} Correct these rows and load the file again."))
    waiting = """SELECT dataset, count(*), now() - min(arrived_at) FROM ops.files f WHERE status IN ('landed', 'staged')
        AND same_as IS NULL GROUP BY 1 HAVING now() - greatest(min(arrived_at), max(queued_at), max(staged_at),
        max(leased_until), (SELECT max(loaded_at) FROM ops.files l WHERE l.dataset = f.dataset)) > interval '5 minutes'"""
    for name, count, since in at.all(waiting):
        do = "Start Dagster with mini-platform up, or see in its UI why no run starts."
        incidents.append(
            ("files_waiting", name, f"{plural(count, 'file waits', 'files wait')} since {duration(since)}. {do}")
        )
    late = "SELECT dataset, now() - max(loaded_at) FROM ops.files WHERE status = 'loaded' GROUP BY 1"
    for name, since in at.all(late):
        usual = at.datasets[name].freshness
        if usual and since > usual:
            words = f"No file loaded within {duration(usual)}: {duration(since - usual)} late."
            do = "Check whether files still arrive and whether the Dagster daemon runs."
            incidents.append(("freshness_missed", name, f"{words} {do}"))
    return [
        [f"{'Warning' if kind in WARNINGS else 'Problem'}: {name} {words}"]
        for kind, name, words in sorted(incidents, key=lambda one: (KINDS.index(one[0]), one[1]))
    ]


LEDGER = "SELECT * FROM ops.files"
OF_FILES = ("name", "error", "sha256", "run_id")


def _files(at: At, *without: str) -> list[Any]:
    params = [(n, v) for n, v in at.params if n not in without]
    columns = [row[0] for row in at.all("SELECT attname FROM pg_attribute WHERE attrelid = 'ops.files'::regclass")]
    statement, binds = chosen(LEDGER, columns, OF_FILES, params)
    return at.all(f"{statement} ORDER BY file_id DESC", **binds)


@figure("files")
def _counts(at: At) -> Read:
    return f"{sum(f.status == at.value for f in _files(at, 'status')):,}"


@figure("ledger")
def _ledger(at: At) -> Read:
    return [
        [
            f"{f.name} {f'version {f.version}' if f.version > 1 else ''} {f.error or ''}",
            *([f.dataset] if not at.get("dataset") else []),
            status(f), number(f.rows_read), became(f), number(f.rows_rejected),
            size(f.bytes), moment(f.arrived_at), f.channel,
        ]
        for f in _files(at)
    ]  # fmt: skip


def _file(at: At) -> Any:
    return at.all("SELECT * FROM ops.files WHERE file_id = :f", f=at.file)[0]


@figure("outcome")
def _outcome(at: At) -> Read:
    f = _file(at)
    notes = (
        "",
        "new keys",
        "existing keys, new values",
        "same values as before",
        "key repeated later in the file",
        "with reasons below",
    )
    counts = [("Rows read", f.rows_read), *((part.capitalize(), getattr(f, f"rows_{part}")) for part in PARTS)]
    return [[name, number(n), *([note] if note else [])] for (name, n), note in zip(counts, notes, strict=True)]


@figure("facts")
def _facts(at: At) -> Read:
    f = _file(at)
    loaded = "Loaded" if f.status in ("loaded", "landed", "staged") else "Previously loaded"
    rows = [
        ("File", f.file_id), ("Version", f.version), ("Source", f.channel), ("Size", size(f.bytes)),
        ("Arrived", moment(f.arrived_at)), (loaded, moment(f.loaded_at)),
        ("Duration", duration(f.loaded_at - f.arrived_at) if f.loaded_at else "–"),
        ("Unexpected columns", ", ".join(f.unexpected_columns or []) or "none"),
        ("Missing columns", ", ".join(f.missing_columns or []) or "none"), ("SHA-256", f.sha256),
    ]  # fmt: skip
    return [[name, str(value)] for name, value in rows] + ([["Run", f"{f.run_id[:8]} in Dagster"]] if f.run_id else [])


@figure("broken")
def _broken(at: At) -> Read:
    counts = at.all(
        "SELECT key, value::bigint FROM ops.files, jsonb_each_text(rule_counts) WHERE file_id = :f", f=at.file
    )
    rules = {rule.name: rule for rule in at.dataset.rules}
    order = {name: place for place, name in enumerate(_file(at).rule_counts)}
    return [
        [name, rules[name].message, "Warning" if rules[name].severity == "warn" else "Error", f"{count:,}"]
        for name, count in sorted(counts, key=lambda one: (-one[1], order[one[0]])) if count
    ]  # fmt: skip


def _rejects(at: At, order: str, *filters: tuple[str, str]) -> list[Any]:
    columns = ("file_id", "file", "line", "record", "column", "value", "rule", "sentence")
    params = [(n, v) for n, v in at.params if n not in ("dataset", "column", "ordering")]
    search = ("file", "column", "value", "rule", "sentence")
    statement, binds = chosen(rejects(at.dataset), columns, search, [*params, *filters])
    return at.all(f"{statement} ORDER BY {order}", **binds)


def _line(row: Any) -> str:
    return f"{row.line:,}" + (f", element {row.record:,}" if row.record > (row.line != 1) else "")


def _cut(value: str | None, most: int) -> str:
    """Return text that is cut at a word, as Jinja's `truncate` does; it does not cut if only a few characters are too many."""
    if not value:
        return "empty"
    return value if len(value) <= most + 5 else value[: most - 3].rsplit(" ", 1)[0] + "..."


@figure("rejects")
def _rejects_of_file(at: At) -> Read:
    f = _file(at)
    return [
        [_line(r), r.column or "whole row", _cut(r.value, 300), r.sentence, r.rule]
        for r in _rejects(at, 'line, record, rule COLLATE "C"', ("file_id", str(f.same_as or f.file_id)))
    ]


@figure("rejected")
def _rejects_of_dataset(at: At) -> Read:
    column = at.get("column")
    filters = [("column", column)] if column else []
    return [
        [r.file, _line(r), _cut(r.value, 200), r.sentence]
        for r in _rejects(at, 'file_id DESC, line, record, rule COLLATE "C"', *filters)
    ]


@figure("facet")
def _facet(at: At) -> Read:
    # Not by its own value: choosing another one takes its place.
    column = str(at.of)
    rows = _production(at, [(n, v) for n, v in at.params if n not in (column, f"{column}__eq")])
    return f"{sum(getattr(row, column) == at.value for row in rows):,}"


def _production(at: At, params: Params, order: str = "") -> list[Any]:
    table = dataset_tables(at.dataset).production
    base = masked(table, clear=("personal", "true") in params)
    statement, binds = chosen(base, [c.name for c in table.columns], at.dataset.searched, params)
    return at.all(statement + order, **binds)


@figure("table")
def _table(at: At) -> Read:
    table = dataset_tables(at.dataset).production
    stored = [c.name for c in at.dataset.stored_columns]
    names = [*stored, *(c.name for c in table.columns if c.name not in (*stored, "_file_id", "_extra"))]

    def cell_text(name: str, value: Any) -> str:
        return str(value) if type(value) is int and name.endswith("id") else shown(value)

    key = [name for name in at.dataset.key if not table.c[name].info.get("personal")]
    order = f" ORDER BY {', '.join(chr(34) + k + chr(34) for k in key)}" if key else ""
    return [[cell_text(name, row._mapping[name]) for name in names] for row in _production(at, at.params, order)]


@figure("computed")
def _computed(at: At) -> Read:
    description = """SELECT obj_description(format('analytics.%I', CAST(:n AS text))::regclass)"""
    return [[item.name, at.all(description, n=item.name)[0][0], "CSV JSON"] for item in at.dataset.computed]


def measured(at: At, column: Any) -> Any:
    """Return statistics of a column in production; None if it is not stored there, or was not measured."""
    has_report = at.all("SELECT FROM analytics.quality_report WHERE dataset = :d AND table_name LIKE 'production.%'")
    if not column.stored or not has_report:
        return None
    c = f'"{column.name}"'
    ends = "NULL, NULL" if column.personal or column.type == list[float] else f"min({c})::text, max({c})::text"
    if column.type is bool and not column.personal:
        ends = f"min({c}::text), max({c}::text)"
    is_number = column.type in (int, float, Decimal) and not column.personal
    mean = f"avg({c}::numeric)::float8" if is_number else "NULL"
    figures = f"coalesce(avg(({c} IS NULL)::int), 0)::float8, count(DISTINCT {c}), {ends}, {mean}"
    return at.all(f"SELECT {figures} FROM {at.production}")[0]


@figure("columns")
def _columns(at: At) -> Read:
    rows = []
    for column in at.dataset.columns:
        statistics = measured(at, column)
        rules = [r for r in at.dataset.rules if r.column == column.name]
        kind = column.type.__name__ if column.type != list[float] else "list of numbers"
        rows.append([
            f"{column.name} {'key' if column.name in at.dataset.key else ''}",
            f"{kind} {column.unit or ''}",
            f"{column.description} {f'personal: {column.personal}' if column.personal else ''}",
            " ".join(f"{'warns if it' if r.severity == 'warn' else 'rejected if it'} {r.sentence}" for r in rules),
            percent(statistics[0] if statistics else None), number(statistics[1] if statistics else None),
        ])  # fmt: skip
    return rows


@figure("quality")
def _quality(at: At) -> Read:
    broken = {name for name, _ in at.all(BROKEN)}
    rows = []
    for column in at.dataset.columns:
        rules = [r for r in at.dataset.rules if r.column == column.name]
        count = sum(r.name in broken for r in rules)
        state = f"{count} of {len(rules)} failing" if count else "Passing" if rules else "none"
        row = [f"{column.name} {column.unit or ''}", state]
        if statistics := measured(at, column):
            share, different, least, most, mean = statistics
            history = """SELECT null_rate FROM analytics.quality_report WHERE dataset = :d AND column_name = :c
                AND table_name = :t ORDER BY measured_at"""
            table = dataset_tables(at.dataset).production.fullname
            moved = [rate for (rate,) in at.all(history, c=column.name, t=table)]
            trend = f"Null % of {column.name}, from {percent(moved[0])} to {percent(moved[-1])}"
            ends = [_end(value, column.type) for value in (least, most)]
            row += [
                percent(share),
                trend if len(set(moved)) > 1 else "constant",
                number(different),
                *ends,
                number(mean),
            ]
        else:
            row.append("not measured yet" if column.stored else "not stored")
        rows.append(row)
    return rows


def _end(value: str | None, kind: Any) -> str:
    if value is None:
        return "–"
    if kind is dt.datetime:
        return value[: value.index(":") + 3]  # To the minute.
    return value if len(value) <= 28 else f"{value[:28]}…"


@figure("rules")
def _rules(at: At) -> Read:
    counts = dict(tuple(row) for row in at.all(BROKEN))
    rows = []
    for rule in at.dataset.rules:
        if at.get("column") in (None, rule.column):
            count = counts.get(rule.name, 0)
            state = "Passing" if not count else "Warning" if rule.severity == "warn" else "Failing"
            rows.append([rule.name, rule.message, state, number(count)])
    return rows


RUN_STATUSES = ("loaded", "loaded with rejects", "refused", "failed")


@figure("runs")
def _runs(at: At) -> Read:
    of = "AND a.dataset = :o" if at.get("dataset") else ""
    sums = ", ".join(f"sum(f.rows_{part})::bigint AS rows_{part}" for part in ("read", *PARTS))
    runs = f"""SELECT substr(actor, 5) AS run, a.dataset, count(DISTINCT f.file_id) AS files, {sums},
        min(f.arrived_at) AS since,
        max(a.at) - min(f.arrived_at) AS took, array_agg(DISTINCT CASE WHEN f.rows_rejected > 0 AND a.action = 'loaded'
        THEN 'loaded with rejects' ELSE a.action END) AS statuses FROM ops.audit a
        JOIN ops.files f ON f.file_id = CAST(a.subject AS bigint) WHERE actor LIKE 'run %'
        AND action IN ('loaded', 'refused', 'failed') {of} GROUP BY 1, 2 ORDER BY max(a.at) DESC"""
    return [
        [
            r.run[:8], r.dataset, " ".join(s.capitalize() for s in RUN_STATUSES if s in r.statuses),
            number(r.files), number(r.rows_read), became(r), moment(r.since), duration(r.took),
        ]
        for r in at.all(runs, o=at.get("dataset"))
    ]  # fmt: skip


# Charts


@figure("chart")
def _drawn(at: At) -> Read:
    """Return the data of an aggregate's or a view's declared chart."""
    name = str(at.of).removeprefix("chart-")
    item = next(one for one in at.dataset.computed if one.name == name)
    x, y = (f'"{column}"' for column in item.chart)
    points = f"""SELECT {x}, CASE WHEN count(*) = 1 THEN min({y}) END, avg(CAST({y} AS numeric)), count(*)
        FROM analytics."{name}" GROUP BY {x} ORDER BY {x}"""
    is_float = at.all(f'SELECT pg_typeof({y}) FROM analytics."{name}" LIMIT 1')[0][0] == "double precision"
    rows = []
    for at_x, one, mean, count in at.all(points)[:300]:
        if at_x is None and is_time(at, name, x):
            continue
        value = (float(mean) if is_float else mean) if count > 1 and mean is not None else one
        value_text = "–" if value is None else exact(value) if count == 1 else number(value)
        rows.append([str(at_x) if isinstance(at_x, str) else shown(at_x), value_text])
    return rows


def is_time(at: At, name: str, column: str) -> bool:
    kind = at.all(f'SELECT DISTINCT pg_typeof({column})::text FROM analytics."{name}"')
    return kind[0][0] in ("date", "timestamp with time zone")


@figure("chart rejected-share")
def _shares(at: At) -> Read:
    loads = at.all(f"SELECT * FROM ({NEWEST.format('', 30)}) n WHERE rows_read > 0 ORDER BY file_id")
    return [
        [
            moment(f.arrived_at),
            f.name,
            number(f.rows_read),
            number(f.rows_rejected),
            percent(f.rows_rejected / f.rows_read),
        ]
        for f in loads
    ]


@figure("chart column-chart")
def _of_column(at: At) -> Read:
    rules = [r.name for r in at.dataset.rules if r.column == at.get("column")]
    history = """SELECT DISTINCT ON (measured_at) * FROM analytics.quality_report WHERE dataset = :d AND column_name = :c
        AND table_name LIKE 'staging.%' ORDER BY measured_at"""
    return [
        [
            moment(m.measured_at),
            number(m.total_rows),
            percent(m.null_rate),
            *(number(m.out_of_range.get(r, 0)) for r in rules),
        ]
        for m in at.all(history, c=at.get("column"))
    ]


# Weather


STATIONS = """SELECT station_id, date, temp_c, precip_mm FROM production.measurements
    WHERE date >= coalesce(CAST(:f AS date), (SELECT min(date) FROM production.measurements m WHERE {0}))
    AND date <= coalesce(CAST(:t AS date), (SELECT max(date) FROM production.measurements m WHERE {0}))"""
OF_DAYS = f"""SELECT date, avg(temp_c) AS temp, min(temp_c) AS low, max(temp_c) AS high, avg(precip_mm) AS rain,
    count(*) AS rows
    FROM ({STATIONS}) s WHERE CAST(:s AS text) IS NULL OR station_id = :s GROUP BY date"""
AMOUNTS = """SELECT avg(temp) AS mean, min(low) AS lowest, max(high) AS highest, sum(rain) AS rain,
    count(*) FILTER (WHERE rain >= 1) AS wet, sum(rows) AS rows, count(*) AS days FROM ({}) d"""


def _stations(at: At) -> list[str | None]:
    requested = list(dict.fromkeys(value for name, value in at.params if name == "station"))
    known = {row[0] for row in at.all("SELECT DISTINCT station_id FROM production.measurements")}
    return [station for station in requested if station in known][:5] or [None]


def _weather(at: At, statement: str, station: str | None) -> list[Any]:
    stations = [one for one in _stations(at) if one is not None]
    binds = {f"k{i}": one for i, one in enumerate(stations)}
    condition = f"station_id IN ({', '.join(':' + name for name in binds)})" if binds else "true"
    query = statement.format(OF_DAYS.format(condition))
    return at.all(query, f=at.get("from"), t=at.get("to"), s=station, **binds)


def _missing(at: At, station: str | None) -> int:
    days = _weather(at, "SELECT min(date), max(date) FROM ({}) d", station)[0]
    ends = [dt.date.fromisoformat(str(at.get(name))) if at.get(name) else None for name in ("from", "to")]
    return ((ends[1] or days[1]) - (ends[0] or days[0])).days + 1


@figure("weather")
def _cards_of_weather(at: At) -> Read:
    (station,) = _stations(at)
    totals = _weather(at, AMOUNTS, station)[0]
    missing = _missing(at, station) - totals.days
    coverage = f"{plural(totals.days, 'day')} with data" + (f", {missing:,} missing" if missing else "")
    return [
        ["Mean temperature", f"{number(totals.mean, 1)} °C"], ["Lowest", f"{number(totals.lowest, 1)} °C"],
        ["Highest", f"{number(totals.highest, 1)} °C"],
        ["Precipitation", f"{number(totals.rain, 0)} mm", "over all days" if station else "mean over stations, summed"],
        ["Wet days", number(totals.wet), "at least 1 mm"],
        ["Measurements", number(totals.rows), coverage],
    ]  # fmt: skip


@figure("stations")
def _compared(at: At) -> Read:
    rows = []
    for station in _stations(at):
        f = _weather(at, AMOUNTS, station)[0]
        means = [number(f.mean, 1), number(f.lowest, 1), number(f.highest, 1), number(f.rain, 0)]
        rows.append([str(station), *means, number(f.wet), number(f.days)])
    return rows


@figure("station")
def _station(at: At) -> Read:
    return plural(at.all("SELECT count(*) FROM production.measurements WHERE station_id = :s", s=at.value)[0][0], "row")


@figure("chart weather-chart")
def _drawn_weather(at: At) -> Read:
    step = at.headings[0].lower()
    sums = f"""SELECT CAST(date_trunc('{step}', date) AS date) AS start, avg(temp) AS temp, sum(rain) AS rain FROM ({{}}) d
        GROUP BY 1 ORDER BY 1"""
    rows: dict[dt.date, list[str]] = {}
    stations = _stations(at)
    for place, station in enumerate(stations):
        for start, temp, rain in _weather(at, sums, station):
            cells = rows.setdefault(start, ["–"] * 2 * len(stations))
            cells[2 * place : 2 * place + 2] = number(temp, 1), number(rain, 1)
    return [[shown(start), *rows[start]] for start in sorted(rows)]


# Sales


ORDERS = """SELECT o.*, discounted_price * quantity AS revenue, total_profit AS profit FROM production.orders o
    WHERE order_date >= coalesce(CAST(:f AS date), '0001-01-01') AND order_date <= coalesce(CAST(:t AS date), '9999-12-31')
    AND (CAST(:k AS text) IS NULL OR product_category = :k)"""
SUMS = "sum(revenue) AS revenue, sum(profit) AS profit, count(*) AS orders, sum(quantity) AS quantity"


def _orders(at: At, statement: str) -> list[Any]:
    return at.all(statement.format(ORDERS), f=at.get("from"), t=at.get("to"), k=at.get("product_category"))


@figure("sales")
def _cards_of_sales(at: At) -> Read:
    total = _orders(at, f"SELECT {SUMS}, count(DISTINCT customer_email) AS customers FROM ({{}}) o")[0]
    gaps = """SELECT avg(CAST(days AS float8) / (orders - 1)) FROM (
        SELECT max(order_date) - min(order_date) AS days, count(*) AS orders
        FROM ({}) o GROUP BY customer_email) c WHERE orders > 1"""
    gap = _orders(at, gaps)[0][0]
    return [
        ["Revenue", money(total.revenue)],
        ["Profit", money(total.profit), f"{percent(total.profit / total.revenue)} of the revenue"],
        ["Orders", number(total.orders), plural(total.quantity, "piece")],
        ["Per order", money(total.revenue / total.orders)],
        ["Customers", number(total.customers)],
        ["Between orders", f"{number(gap, 0)} days" if gap is not None else "–", "of customers who order again"],
    ]


@figure("products")
def _products(at: At) -> Read:
    by = f"""SELECT product_title, product_category, {SUMS} FROM ({{}}) o GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 10"""
    return [
        [f"{p.product_title} {p.product_category}", number(p.quantity), money(p.revenue), money(p.profit)]
        for p in _orders(at, by)
    ]


@figure("chart over-time")
def _over_time(at: At) -> Read:
    step = at.headings[0].lower()
    by = f"SELECT CAST(date_trunc('{step}', order_date) AS date) AS start, {SUMS} FROM ({{}}) o GROUP BY 1 ORDER BY 1"
    return [[shown(s.start), number(s.orders), money(s.revenue), money(s.profit)] for s in _orders(at, by)]


@figure("chart by-category")
def _by_category(at: At) -> Read:
    by = f"SELECT product_category, {SUMS} FROM ({{}}) o GROUP BY 1 ORDER BY revenue DESC"
    return [
        [s.product_category, number(s.orders), number(s.quantity), money(s.revenue), money(s.profit)]
        for s in _orders(at, by)
    ]


@figure("chart weekdays")
def _weekdays(at: At) -> Read:
    day = "extract(isodow FROM order_date), to_char(min(order_date), 'FMDay') AS day"
    by = f"SELECT {day}, {SUMS} FROM ({{}}) o GROUP BY 1 ORDER BY 1"
    return [[s.day, number(s.orders), money(s.revenue)] for s in _orders(at, by)]


@figure("chart loyalty")
def _loyalty(at: At) -> Read:
    by = """SELECT least(orders, 8), count(*) FROM (SELECT count(*) AS orders FROM ({}) o GROUP BY customer_email) c
        GROUP BY 1 ORDER BY 1"""
    return [[f"{orders}{' or more' if orders == 8 else ''}", number(count)] for orders, count in _orders(at, by)]


# Signals


SERIES = """SELECT *, mean AS m FROM production.signal_stats
    WHERE timestamp_utc >= coalesce(CAST(:f AS timestamptz), '-infinity')
    AND timestamp_utc <= coalesce(CAST(:t AS timestamptz), 'infinity')"""
POOLED = """count(*) AS series, sum(n) AS n, min(min) AS min, max(max) AS max,
    CAST(sum(CAST(mean AS numeric) * n) / sum(n) AS float8) AS mean,
    CAST(sqrt(greatest(sum((CAST(std_dev AS numeric) ^ 2 + CAST(mean AS numeric) ^ 2) * n) / sum(n)
    - (sum(CAST(mean AS numeric) * n) / sum(n)) ^ 2, 0)) AS float8) AS std_dev"""


@figure("signals")
def _cards_of_signals(at: At) -> Read:
    s = at.all(f"SELECT {POOLED} FROM ({SERIES}) s", f=at.get("from"), t=at.get("to"))[0]
    rest = ("Mean", s.mean), ("Standard deviation", s.std_dev), ("Lowest", s.min), ("Highest", s.max)
    return [["Series", number(s.series)], ["Numbers", number(s.n)], *([name, number(v, 3)] for name, v in rest)]


@figure("chart signals-chart")
def _drawn_signals(at: At) -> Read:
    """Return one step per series: those of the walk are at midnight."""
    by = f"SELECT timestamp_utc, {POOLED} FROM ({SERIES}) s GROUP BY 1 ORDER BY 1"
    return [
        [moment(s.timestamp_utc), number(s.series), *(number(v, 3) for v in (s.mean, s.std_dev, s.min, s.max))]
        for s in at.all(by, f=at.get("from"), t=at.get("to"))
    ]


# The page of hostile texts


EVILS = """SELECT * FROM production.hostile WHERE day >= coalesce(CAST(:f AS date), '0001-01-01')
    AND day <= coalesce(CAST(:t AS date), '9999-12-31') AND (CAST(:k AS text) IS NULL OR kind = :k)"""
EVIL_SUMS = "count(*) AS rows, max(n) AS most, sum(price) AS total"


def _evils(at: At, statement: str) -> list[Any]:
    return at.all(statement.format(EVILS), f=at.get("from"), t=at.get("to"), k=at.get("kind"))


@figure("hostile")
def _cards_of_hostile(at: At) -> Read:
    sums, evil, unit = (
        _evils(at, f"SELECT {EVIL_SUMS} FROM ({{}}) h")[0],
        at.dataset.page.label("rows"),
        "</script><x-evil>",
    )
    note = [f"{evil} {number(sums.most)} {unit}".replace("{{", "{").replace("}}", "}")] if sums.most is not None else []
    most = f"{number(sums.most)} {unit}" if sums.most is not None else "–"
    return [[evil, number(sums.rows), *note], ["<b>most</b>", most], ["Total", money(sums.total)]]


@figure("chart evil-time")
def _evil_time(at: At) -> Read:
    step = at.headings[0].lower()
    by = f"SELECT CAST(date_trunc('{step}', day) AS date) AS start, {EVIL_SUMS} FROM ({{}}) h GROUP BY 1 ORDER BY 1"
    return [[shown(s.start), number(s.most), money(s.total)] for s in _evils(at, by)]


@figure("evil-kinds")
def _evil_kinds(at: At) -> Read:
    by = f"SELECT kind, note, {EVIL_SUMS} FROM ({{}}) h GROUP BY 1, 2 ORDER BY rows DESC, 1, 2 LIMIT 10"
    return [[f"{s.kind} {shown(s.note)}", number(s.rows), number(s.most)] for s in _evils(at, by)]


@figure("chart evil-bars")
def _evil_bars(at: At) -> Read:
    by = f"SELECT kind, {EVIL_SUMS} FROM ({{}}) h GROUP BY 1 ORDER BY rows DESC, 1 LIMIT 20"
    return [[s.kind, number(s.rows)] for s in _evils(at, by)]
