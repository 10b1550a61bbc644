"""Aggregates and views of every kind for a drawn declaration: each as the source of a select, and as Python over rows.

Every kind takes a group column `g` (never empty), a value column `v` (a number that may be empty) and the key of the dataset.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mini_platform_tests.declarations.draw import NUMBERS, Col, Plan
from mini_platform_tests.declarations.model import sortable

Rows = Sequence[Mapping[str, Any]]
Computed = dict[tuple[Any, ...], tuple[Any, ...]]
"""Key -> the other columns."""


@dataclass(frozen=True)
class Drawn:
    """An aggregate or a view.

    Attributes:
        kind: what is special about it.
        name: of its table.
        columns: that it selects, its key first.
        width: columns of its key.
        source: its function.
        compute: the same over rows of production; None for a view or where `check` reads other tables.
        surrogate: name of its number, if it has one.
        reads: aggregates that it reads.
        group: types of what it is grouped by.
    """

    kind: str
    name: str
    columns: tuple[str, ...]
    width: int
    source: str
    compute: Callable[[Rows], Computed]
    surrogate: str | None = None
    is_view: bool = False
    reads: tuple[str, ...] = ()
    group: str = ""

    @property
    def declared(self) -> str:
        columns = dict.fromkeys(self.columns, ("x",))
        if self.is_view:
            return f"View({self.name}, columns={columns!r})"
        more = f", surrogate={self.surrogate!r}" if self.surrogate else ""
        return f"Aggregate({self.name}, key={self.columns[: self.width]!r}, columns={columns!r}{more})"


def draw(rng: random.Random, plan: Plan) -> Plan:
    """The declaration with some aggregates and views."""
    groups = [
        c for c in plan.stored if c.is_exact and not c.nullable and c.type != "list[float]" and "_loaded" not in c.name
    ]
    numbers = [c for c in plan.stored if c.type in ("int", "Decimal") and c.is_read]
    if not groups or not plan.key or any("system" in plan.column(k).options for k in plan.key):
        return plan
    groups = [c for c in groups if "system" not in c.options] or groups
    computed: list[Drawn] = []
    for number in range(rng.choice((0, 2, 3, 4))):
        many = [c for c in groups if c.name not in plan.key]  # Of which a group may have several rows.
        g, v = rng.choice(many if many and rng.random() < 0.7 else groups), rng.choice(numbers) if numbers else None
        kind = rng.choice(KINDS)
        by = {v.type} if v and kind is empty_key else {g.type, *(plan.column(k).type for k in plan.key)}
        computed += (
            replace(one, group=" ".join(sorted(by & {"float", "Decimal"})) or "others")
            for one in kind(f"a{number}_{kind.__name__}", plan, g, v)
        )
    aggregates = tuple(a for a in computed if not a.is_view)
    views = [a for a in computed if a.is_view]
    return replace(plan, aggregates=aggregates, views=tuple(views))


def _function(name: str, body: str, reads: Sequence[str] = ()) -> str:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    parameters = ", ".join(("t", *reads))
    return f'def {name}({parameters}):\n    """x"""\n{lines}'


def _c(column: str) -> str:
    return f't.c["{column}"]'


def order(*values: Any) -> tuple[Any, ...]:
    """Sorts as the database does: texts by their bytes, what is empty last."""
    return tuple((value is None, sortable(value) if value is not None else 0) for value in values)


def _grouped(rows: Rows, name: str) -> dict[Any, list[Mapping[str, Any]]]:
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    return groups


def _key(plan: Plan, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in plan.key)


def by_group(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """Counts and sums by a plain column."""
    figures = f", func.sum({_c(v.name)}, type_=Numeric).label('s'), func.max({_c(v.name)}).label('hi')" if v else ""
    body = f"return select({_c(g.name)}.label('g'), func.count().label('c'){figures}).group_by({_c(g.name)})"

    def compute(rows: Rows) -> Computed:
        groups: Computed = {}
        for group, members in _grouped(rows, g.name).items():
            values = [m[v.name] for m in members if m[v.name] is not None] if v else []
            groups[(group,)] = (
                len(members),
                *((sum(values) if values else None, max(values, default=None)) if v else ()),
            )
        return groups

    return [Drawn("by group", name, ("g", "c", *(("s", "hi") if v else ())), 1, _function(name, body), compute)]


def by_expression(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """By an expression over a column that may be empty."""
    if v is None:
        return []
    case = f"case(({_c(v.name)} > 2, 'hi'), else_='lo')"
    body = f"k = {case}\nreturn select(k.label('k'), func.count().label('c')).group_by(k)"

    def compute(rows: Rows) -> Computed:
        counted = Counter("hi" if (x := row[v.name]) is not None and x > 2 else "lo" for row in rows)
        return {(k,): (c,) for k, c in counted.items()}

    return [Drawn("by expression", name, ("k", "c"), 1, _function(name, body), compute)]


def ranked(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """A window over all rows."""
    by = f"{_c(v.name)}.desc().nulls_last()" if v else _c(g.name)
    keys = ", ".join(f"{_c(k)}.label('k{i}')" for i, k in enumerate(plan.key))
    body = f"return select({keys}, func.rank(type_=BigInteger).over(order_by={by}).label('r'))"

    def place(row: Mapping[str, Any]) -> Any:
        if v is None:
            return order(row[g.name])
        value = row[v.name]
        return (value is None, -value if value is not None else 0)

    def compute(rows: Rows) -> Computed:
        places = sorted(map(place, rows))
        return {_key(plan, row): (places.index(place(row)) + 1,) for row in rows}

    names = tuple(f"k{i}" for i in range(len(plan.key)))
    return [Drawn("window", name, (*names, "r"), len(names), _function(name, body), compute)]


def top(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """The first n groups."""
    body = (
        f"return (select({_c(g.name)}.label('g'), func.count().label('c')).group_by({_c(g.name)})\n"
        f"        .order_by(func.count().desc(), {_c(g.name)}).limit(2))"
    )

    def compute(rows: Rows) -> Computed:
        counted = [(g, len(members)) for g, members in _grouped(rows, g_name).items()]
        counted.sort(key=lambda item: (-item[1], order(item[0])))
        return {(group,): (count,) for group, count in counted[:2]}

    g_name = g.name
    return [Drawn("limit", name, ("g", "c"), 1, _function(name, body), compute)]


def share(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """Beside a figure of the whole, by a scalar subquery."""
    body = (
        "whole = select(func.count()).select_from(t.alias('whole')).scalar_subquery()\n"
        f"return select({_c(g.name)}.label('g'), (func.count() * 1000 + whole).label('p')).group_by({_c(g.name)})"
    )

    def compute(rows: Rows) -> Computed:
        return {(group,): (len(members) * 1000 + len(rows),) for group, members in _grouped(rows, g.name).items()}

    return [Drawn("share of all", name, ("g", "p"), 1, _function(name, body), compute)]


def first_of(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """DISTINCT ON."""
    keys = [k for k in plan.key if k != g.name]
    picked = "".join(f", {_c(k)}.label('k{i}')" for i, k in enumerate(keys))
    by = ", ".join(_c(k) for k in (g.name, *keys))
    selected = f"{_c(g.name)}.label('g'), literal(1, Integer).label('one'){picked}"
    body = f"return select({selected}).distinct({_c(g.name)}).order_by({by})"

    def compute(rows: Rows) -> Computed:
        groups: Computed = {}
        for group, members in _grouped(rows, g.name).items():
            best = min(members, key=lambda row: order(*(row[k] for k in keys)))
            groups[(group,)] = (1, *(best[k] for k in keys))
        return groups

    columns = ("g", "one", *(f"k{i}" for i in range(len(keys))))
    return [Drawn("distinct on", name, columns, 1, _function(name, body), compute)]


def self_join(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """A row beside the others of its group."""
    keys = ", ".join(f"{_c(k)}.label('k{i}')" for i, k in enumerate(plan.key))
    body = (
        "o = t.alias('o')\n"
        f'return (select({keys}, func.count().label("c")).select_from(t.join(o, o.c["{g.name}"] == {_c(g.name)}))\n'
        f"        .group_by({', '.join(_c(k) for k in plan.key)}))"
    )

    def compute(rows: Rows) -> Computed:
        sizes = {group: len(members) for group, members in _grouped(rows, g.name).items()}
        return {_key(plan, row): (sizes[row[g.name]],) for row in rows}

    names = tuple(f"k{i}" for i in range(len(plan.key)))
    return [Drawn("self join", name, (*names, "c"), len(names), _function(name, body), compute)]


def star(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """A dimension with a surrogate, and facts that refer to it."""
    dim, fact = f"{name}_dim", f"{name}_fact"
    one = f"return select({_c(g.name)}.label('g'), func.count().label('c')).group_by({_c(g.name)})"
    two = (
        f"return (select({dim}.c.g.label('g'), {dim}.c.sk, func.count().label('c'))\n"
        f"        .join_from(t, {dim}, {dim}.c.g == {_c(g.name)}).group_by({dim}.c.g, {dim}.c.sk))"
    )
    group = by_group(dim, plan, g, None)[0].compute
    return [
        Drawn("dimension", dim, ("g", "c"), 1, _function(dim, one), group, surrogate="sk"),
        Drawn(
            "fact", fact, ("g", "sk", "c"), 1, _function(fact, two, [dim]), _with_surrogate(group, dim), reads=(dim,)
        ),
    ]


def _with_surrogate(group: Callable[[Rows], Computed], dim: str) -> Callable[[Rows], Computed]:
    return lambda rows: {key: (Number(dim, key), *values) for key, values in group(rows).items()}


@dataclass(frozen=True)
class Number:
    """The number that a dimension has given to a key, whatever it is."""

    table: str
    key: tuple[Any, ...]


def filtered_star(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """Facts over a dimension that has only some groups: those of several rows."""
    dim, fact = f"{name}_dim", f"{name}_fact"
    one = (
        f"return select({_c(g.name)}.label('g'), func.count().label('c')).group_by({_c(g.name)})"
        ".having(func.count() > 1)"
    )
    keys = ", ".join(f"{_c(k)}.label('k{i}')" for i, k in enumerate(plan.key))
    two = f"return select({keys}, {dim}.c.sk).join_from(t, {dim}, {dim}.c.g == {_c(g.name)})"

    def groups(rows: Rows) -> Computed:
        return {(group,): (len(m),) for group, m in _grouped(rows, g.name).items() if len(m) > 1}

    def facts(rows: Rows) -> Computed:
        there = groups(rows)
        return {_key(plan, r): (Number(dim, (r[g.name],)),) for r in rows if (r[g.name],) in there}

    names = tuple(f"k{i}" for i in range(len(plan.key)))
    return [
        Drawn("filtered dimension", dim, ("g", "c"), 1, _function(dim, one), groups, surrogate="sk"),
        Drawn("fact of filtered", fact, (*names, "sk"), len(names), _function(fact, two, [dim]), facts, reads=(dim,)),
    ]


def united(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """A union of two columns of one type, counted."""
    others = [
        c for c in plan.stored if c.type == g.type and not c.nullable and c.name != g.name and "system" not in c.options
    ]
    other = others[0] if others else g
    body = (
        f"u = union_all(select({_c(g.name)}.label('k')), select({_c(other.name)}.label('k'))).subquery()\n"
        "return select(u.c.k, func.count().label('c')).group_by(u.c.k)"
    )

    def compute(rows: Rows) -> Computed:
        counted = Counter(row[n] for row in rows for n in (g.name, other.name))
        return {(k,): (c,) for k, c in counted.items()}

    return [Drawn("union", name, ("k", "c"), 1, _function(name, body), compute)]


def copied(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """Every column of every row."""
    rest = [c.name for c in plan.stored if c.name not in plan.key and "system" not in c.options]
    names = (*plan.key, *rest)
    body = f"return select({', '.join(_c(n) for n in names)}, literal(1, Integer).label('one'))"

    def compute(rows: Rows) -> Computed:
        return {_key(plan, row): (*(row[n] for n in rest), 1) for row in rows}

    return [Drawn("copy", name, (*names, "one"), len(plan.key), _function(name, body), compute)]


def empty_key(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """By a column that may be empty, taken for something where it is."""
    if v is None:
        return []
    value = f"func.coalesce({_c(v.name)}, 0)"
    body = f"k = {value}\nreturn select(k.label('k'), func.count().label('c')).group_by(k)"

    def compute(rows: Rows) -> Computed:
        counted = Counter(row[v.name] if row[v.name] is not None else 0 for row in rows)
        return {(k,): (c,) for k, c in counted.items()}

    return [Drawn("by coalesce", name, ("k", "c"), 1, _function(name, body), compute)]


def view_of(name: str, plan: Plan, g: Col, v: Col | None) -> list[Drawn]:
    """A view, and one over an aggregate."""
    base = by_group(f"{name}_base", plan, g, v)[0]
    body = f"return select({base.name}.c.g, {base.name}.c.c).where({base.name}.c.c > 1)"

    def compute(rows: Rows) -> Computed:
        return {key: values[:1] for key, values in base.compute(rows).items() if values[0] > 1}

    return [
        base,
        Drawn("over aggregate", name, ("g", "c"), 1, _function(name, body, [base.name]), compute, is_view=True),
    ]


KINDS = (
    by_group,
    by_expression,
    ranked,
    top,
    share,
    first_of,
    self_join,
    star,
    filtered_star,
    filtered_star,
    united,
    copied,
    empty_key,
    view_of,
)
assert set(NUMBERS) >= {"int", "Decimal"}
