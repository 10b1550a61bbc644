"""Everything in which the platform is not what the model says, as sentences: cell by cell.

A sentence begins with what is wrong in few words and a colon; finds are distinguished by that.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select, text

from mini_platform.operations.explain import KeyTextError, explain_row, parse_key
from mini_platform.warehouse import quality
from mini_platform.warehouse.tables import COUNTERS, dataset_tables
from mini_platform_tests.declarations.computed import Drawn, Number
from mini_platform_tests.declarations.draw import Col, Plan
from mini_platform_tests.declarations.model import Expected, Key, World, key_of, parsed, sortable
from mini_platform_tests.support.trial import Trial

LEDGER = """
    SELECT file_id, name, version, status, same_as, rows_read, rows_rejected, rule_counts, error, leased_by,
        rows_inserted, rows_updated, rows_unchanged, rows_superseded, raw_dropped_at
    FROM ops.files ORDER BY file_id
"""


Counted = dict[int, dict[str, int]]
"""Files of which every counter is known, with the counters."""
Lasting = dict[tuple[str, Any], Any]
"""Values given once and for all: when a key was first loaded, and the numbers of an aggregate."""


def differences(trial: Trial, world: World, counted: Counted, lasting: Lasting) -> Iterator[str]:
    """Ledger, production, quarantine, aggregates and views, held against the model.

    Args:
        trial: the dataset on the platform.
        world: what it should be.
        counted: files that were loaded by themselves just now, with their counters.
        lasting: as it was after the last step; brought up to date.
    """
    expected = world.production()
    yield from _ledger(trial, world, counted)
    stored = dict(_production_rows(trial, world.plan))
    yield from _production(world.plan, expected, stored)
    now: Lasting = {}
    for c in world.plan.stored:
        if c.options.get("system") in ("first_loaded", "surrogate"):
            now |= {(c.name, key): row[c.name] for key, row in stored.items()}
    yield from _quarantine(trial, world)
    if world.plan.aggregates:
        rows = [_placed(world.plan, one, stored.get(key)) for key, one in expected.items()]
        yield from _computed(trial, world.plan, rows, now)
    for item in now.keys() & lasting.keys():
        if now[item] != lasting[item]:
            yield f"what is given once and for all has changed: {item}: {lasting[item]}, now {now[item]}"
    lasting.clear()
    lasting.update(now)
    for name, items in trial.differences().items():
        yield f"verify finds differences: {name}: {items[:2]}"


def same(column: Col | None, actual: Any, right: Any) -> bool:
    """Return True if two values are equal, up to the last bits of a float that is computed."""
    if isinstance(right, list) and isinstance(actual, list):
        return len(actual) == len(right) and all(same(column, a, b) for a, b in zip(actual, right, strict=True))
    if isinstance(right, float) and isinstance(actual, float) and (column is None or column.derived):
        return math.isclose(actual, right, rel_tol=1e-12, abs_tol=5e-324)
    if isinstance(actual, bool) != isinstance(right, bool):
        return False
    return bool(actual == right)


def _kind(column: Col) -> str:
    words = ["derived"] if column.derived else []
    words += [f"{n}={v}" for n, v in column.options.items() if n in ("personal", "case", "system")]
    return " ".join([*words, column.type])


def _ledger(trial: Trial, world: World, counted: Counted) -> Iterator[str]:
    with trial.platform.engine.connect() as conn:
        ledger_rows = {row.file_id: row for row in conn.execute(text(LEDGER))}
    if ledger_rows.keys() != {f.file_id for f in world.files}:
        yield f"the ledger has other files: {sorted(ledger_rows)}, not {[f.file_id for f in world.files]}"
        return
    for file in world.files:
        row = ledger_rows[file.file_id]
        status = file.status
        right: dict[str, Any] = {"version": file.version, "status": status, "same_as": file.same_as, "leased_by": None}
        if file.same_as is None and not file.unreadable and not file.erased:
            right |= {"rows_read": len(file.rows), "rows_rejected": len(file.rejected)}
        right |= counted.get(file.file_id, {})
        for name, value in right.items():
            if getattr(row, name) != value:
                why = f" ({row.error})" if row.error else ""
                yield f"ledger, {name} of a {status} file: file {file.file_id}: {getattr(row, name)!r}, not {value!r}{why}"
        if "rows_read" in right:
            rule_counts = {n: c for n, c in (row.rule_counts or {}).items() if not n.endswith("_indexable")}
            mine = {n: c for n, c in file.rule_counts.items() if not n.endswith("_indexable")}
            if rule_counts != mine:
                yield f"ledger, rule_counts: file {file.file_id}: {rule_counts}, not {mine}"
        if row.status == "loaded" and row.rows_read != sum(getattr(row, name) for name in COUNTERS):
            yield f"ledger, rows not accounted for: file {file.file_id}"


def _production_rows(trial: Trial, plan: Plan) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    with trial.platform.engine.connect() as conn:
        for row in conn.execute(select(dataset_tables(trial.dataset).production)).mappings():
            yield key_of(plan, row), dict(row)


def _placed(plan: Plan, right: Expected, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values that a row should have, with what the platform gives by the file that it names."""
    place = right.places.get(stored["_file_id"]) if stored else None
    system_values = {c.name: place.values[c.name] for c in plan.columns if "system" in c.options} if place else {}
    return {**right.values, **system_values}


def _production(plan: Plan, expected: Mapping[Key, Expected], stored: Mapping[Key, Mapping[str, Any]]) -> Iterator[str]:
    for key in expected.keys() - stored.keys():
        yield f"production lacks a row: {key}: {expected[key].values} of file {expected[key].brought_by}"
    for key, row in stored.items():
        if key not in expected:
            yield f"production has a row too many: {key}: {row}"
            continue
        right = expected[key]
        if row["_file_id"] not in right.places:
            yield f"production names a wrong file: {key}: {row['_file_id']}, not one of {sorted(right.places)}"
        values = _placed(plan, right, row)
        for c in plan.stored:
            if (system := c.options.get("system")) in ("first_loaded", "last_loaded", "surrogate"):
                if not isinstance(row[c.name], int if system == "surrogate" else dt.datetime):
                    yield f"production, {_kind(c)}: {key}: {row[c.name]!r}"
            elif not same(c, row[c.name], values[c.name]):
                yield f"production, {_kind(c)}: {key}, {c.name}: {row[c.name]!r}, not {values[c.name]!r}"
        if plan.unexpected_columns == "keep" and row["_extra"] != right.extra:
            yield f"production, _extra: {key}: {row['_extra']!r}, not {right.extra!r}"


def _quarantine(trial: Trial, world: World) -> Iterator[str]:
    with trial.platform.engine.connect() as conn:
        rows = conn.execute(select(dataset_tables(trial.dataset).quarantine)).mappings().all()
    quarantined = {(row["_file_id"], row["_line"], row["_record"]): row for row in rows}
    right = {
        (f.file_id, row.record.line, row.record.number): row
        for f in world.files
        if f.same_as is None and not f.unreadable
        for row in f.rejected
    }
    for place in right.keys() - quarantined.keys():
        yield f"quarantine lacks a row: {place}: {sorted(right[place].errors)}, {right[place].record.cells}"
    personal = any(c.options.get("personal") for c in world.plan.columns)
    for place, row in quarantined.items():
        if place not in right:
            yield f"quarantine has a row too many: {place}: {row['_rules']}"
            continue
        mine, rules = right[place], set(row["_rules"])
        if len(mine.errors) > 1 or len(rules) > 1:
            rules = {r for r in rules if not r.endswith("_indexable")}
        errors = {r for r in mine.errors if not r.endswith("_indexable")} if len(mine.errors) > 1 else mine.errors
        if rules != errors:
            yield f"quarantine, rules: {place}: {sorted(rules)}, not {sorted(errors)}: {mine.record.cells}"
        if len(row["_reasons"]) != len(row["_rules"]):
            yield f"quarantine, reasons: {place}: {row['_reasons']}"
        for c in () if personal or mine.record.malformed else world.plan.read:
            blamed = any(rule.startswith(f"{c.name}_") for rule in mine.errors)
            cell = mine.record.cells.get(c.name, "")
            allowed = (
                {mine.text[c.name], cell or None}
                if blamed or c.type in ("dt.datetime", "list[float]")
                else {mine.text[c.name]}
            )
            if not blamed and c.type in ("int", "Decimal", "dt.date") and row[c.name] is not None:
                # The text of another form of the value is that of the plain form.
                allowed |= {row[c.name]} if parsed(c, row[c.name]) == mine.values[c.name] else set()
            if row[c.name] not in allowed and (blamed or c.type not in ("dt.datetime", "list[float]")):
                yield f"quarantine, cell of {_kind(c)}: {place}, {c.name}: {row[c.name]!r}, not {allowed}"


def _computed(trial: Trial, plan: Plan, rows: list[dict[str, Any]], numbers: Lasting) -> Iterator[str]:
    for one in (*plan.aggregates, *plan.views):
        columns = (*one.columns, one.surrogate) if one.surrogate else one.columns
        groups: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for row in trial.table(f'analytics."{one.name}"', *columns):
            key = row[: one.width]
            if one.surrogate:
                numbers[one.name, _hashable(key)] = row[-1]
            groups[_hashable(key)] = row[one.width : len(one.columns)]
        yield from _group_differences(one, groups, {_hashable(k): v for k, v in one.compute(rows).items()}, numbers)


def _hashable(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in key)


def _group_differences(
    one: Drawn, stored: Mapping[Any, Any], right: Mapping[Any, Any], numbers: Mapping[tuple[str, Any], Any]
) -> Iterator[str]:
    what = f"{'view' if one.is_view else 'aggregate'} {one.kind}"
    for key in right.keys() - stored.keys():
        yield f"{what} lacks a group: {one.name}: {key}: {right[key]}"
    for key, values in stored.items():
        if key not in right:
            yield f"{what} has a group too many: {one.name}: {key}: {values}"
            continue
        mine = [numbers.get((v.table, v.key), v) if isinstance(v, Number) else v for v in right[key]]
        if not all(same(None, a, b) for a, b in zip(values, mine, strict=True)):
            yield f"{what} has wrong values: {one.name}: {key}: {values}, not {mine}"


def explained(trial: Trial, world: World, key: Key, right: Expected) -> Iterator[str]:
    """Yield what `explain` gets wrong about a key, looked up by the texts of the row that counts."""
    plan = world.plan
    row = next(iter(right.places.values()))
    system_values = {c.name: str(row.values[c.name]) for c in plan.columns if "system" in c.options}
    texts = [row.record.cells.get(name, system_values.get(name)) for name in plan.key]
    if any(t is None for t in texts):
        return
    raw = trial.platform.raw_files(trial.dataset)
    try:
        with trial.platform.engine.connect() as conn:
            explanation = explain_row(conn, trial.dataset, parse_key(trial.dataset, [str(t) for t in texts]), raw)
    except (KeyTextError, TypeError) as error:
        yield f"explain does not take a key: {texts}: {error}"
        return
    if explanation.row is None:
        yield f"explain does not find a row: {texts}"
        return
    current = [o for o in explanation.occurrences if o.verdict == "current"]
    files = {f.file_id: f for f in world.files}
    if explanation.file_id not in right.places:
        yield f"explain names a wrong file: {texts}: {explanation.file_id}"
    elif files[explanation.file_id].raw_is_there and [o.line for o in current] != [
        right.places[explanation.file_id].record.line
    ]:
        yield f"explain, current: {texts}: {[(o.file_id, o.line, o.verdict) for o in explanation.occurrences]}"
    valid = sum(r.key == key for f in world.loaded if f.raw_is_there for r in f.rows)
    counts = Counter(o.verdict in ("current", "unchanged", "superseded") for o in explanation.occurrences)
    if counts[True] != valid:
        yield f"explain, occurrences: {texts}: {[(o.file_id, o.line, o.verdict) for o in explanation.occurrences]}, not {valid}"


def measured(trial: Trial, world: World) -> Iterator[str]:
    """Figures of production in the quality report."""
    rows = [one.values for one in world.production().values()]
    with trial.platform.engine.connect() as conn:
        frame = quality.measure(conn, trial.dataset, "machine")
    table = f"production.{world.plan.name}"
    figures = {r["column_name"]: r for r in frame.to_dict("records") if r["table_name"] == table}
    for c in world.plan.stored:
        if "system" in c.options:
            continue
        values = [row[c.name] for row in rows if row[c.name] is not None]
        distinct = len({tuple(v) if isinstance(v, list) else v for v in values})
        right = {"total_rows": len(rows), "nulls": len(rows) - len(values), "distinct_values": distinct}
        if c.type in ("int", "dt.date") and not c.options.get("personal") and values:
            right |= {"minimum": str(min(values)), "maximum": str(max(values))}
        elif c.type == "str" and not c.options.get("personal") and values:
            right |= {"minimum": min(values, key=sortable), "maximum": max(values, key=sortable)}
        reported = {name: figures[c.name][name] for name in right}
        if reported != right and not (c.derived and c.type == "float"):
            yield f"quality of {_kind(c)}: {c.name}: {reported}, not {right}"
