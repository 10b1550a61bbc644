"""Draws declarations: a `Plan` in plain words, from which come the Python source of a dataset, and what the model goes by.

What a derived column or a rule says stands here twice, as the polars expression of the source and as Python over values:
`Expr`. The Python says what the words promise: exact where it can be held, empty where not.

Here: columns, options, keys, policies, sources. Aggregates and views are in `computed.py`, files in `cells.py`.
"""

from __future__ import annotations

import datetime as dt
import operator
import random
import re
import sys
import types
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mini_platform import Dataset

TYPES = ("str", "int", "float", "Decimal", "dt.date", "dt.datetime", "bool", "list[float]")
NAMES = ("id", "n", "Name", "size", "order", "select", "a_b", "x1", "user", "Day", "value", "file_name")
NUMBERS = ("int", "float", "Decimal")
INT64 = range(-(2**63), 2**63)
PREAMBLE = """\
from __future__ import annotations

import datetime
import datetime as dt
from decimal import Decimal

import polars as pl
from sqlalchemy import *

from mini_platform import *
"""

NOT_YET: frozenset[str] = frozenset()
"""Words that the gate leaves out, as what they promise is being mended; `make fuzz ARGS=--all` tries them."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Expr:
    """The same twice: as source over `col`, and as Python over a row's values."""

    code: str
    value: Callable[[Values], Any]
    reads: tuple[str, ...]

    def of(self, row: Values) -> Any:
        """Its value; None where one that it reads is empty."""
        return None if any(row.get(name) is None for name in self.reads) else self.value(row)


@dataclass(frozen=True)
class Col:
    """A column: its name, type and the arguments of `Field`."""

    name: str
    type: str
    nullable: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    derived: Expr | None = None

    @property
    def decimals(self) -> int:
        return int(self.options.get("decimals", 2))

    @property
    def is_read(self) -> bool:
        return self.derived is None and "system" not in self.options

    @property
    def is_stored(self) -> bool:
        return bool(self.options.get("stored", True))

    @property
    def tokens(self) -> tuple[str, ...]:
        """Texts that mean nothing."""
        tokens = self.options.get("null_tokens", ())
        return (tokens,) if isinstance(tokens, str) else tokens

    @property
    def is_exact(self) -> bool:
        """Its values are known to the last bit, so that they can tell rows or groups apart."""
        return self.derived is None or self.type != "float"

    @property
    def protection(self) -> str | None:
        personal = self.options.get("personal")
        return None if personal == "mask" else personal

    @property
    def source(self) -> str:
        words = ['"x"', *(f"{name}={value!r}" for name, value in {**self.options, **self.checks}.items())]
        if self.derived:
            words.append(f"derived=lambda col: {self.derived.code}")
        kind = self.type + (" | None" if self.nullable else "")
        return f"    {self.name}: {kind} = Field({', '.join(words)})"


@dataclass(frozen=True)
class RowRule:
    """A rule over columns."""

    name: str
    column: str | None
    severity: str
    holds: Expr

    @property
    def full_name(self) -> str:
        return f"{self.column}_{self.name}" if self.column else self.name

    @property
    def source(self) -> str:
        arguments = f'"does not hold", column={self.column!r}, severity={self.severity!r}'
        return f"    @rule({arguments})\n    def {self.name}(col):\n        return {self.holds.code}"


@dataclass(frozen=True)
class Format:
    """A source: `Csv(...)` or `Json(...)` with its words."""

    kind: str
    suffix: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        words = {"suffixes": (self.suffix,), "name": self.suffix[1:], **self.options}
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in words.items())})"


@dataclass(frozen=True)
class Base:
    """The class that a row model inherits from.

    Attributes:
        columns: so many of them stand in it, the first ones; of the rules all that the row model does not declare anew.
        is_model: it is a row model itself, and no plain class beside it.
        anew: its first column and its first rule say something else in it, and are declared anew.
    """

    columns: int
    is_model: bool
    anew: bool


@dataclass(frozen=True)
class Plan:
    """A declaration in plain words."""

    name: str
    columns: tuple[Col, ...]
    rules: tuple[RowRule, ...]
    key: tuple[str, ...]
    duplicates: str
    unexpected_columns: str
    share: str | None
    most_rows: int | None
    formats: tuple[Format, ...]
    indexes: tuple[str, ...] = ()
    warn_share: str = "0"
    min_rows: int = 0
    base: Base | None = None
    aggregates: tuple[Any, ...] = ()
    views: tuple[Any, ...] = ()

    @property
    def read(self) -> tuple[Col, ...]:
        return tuple(c for c in self.columns if c.is_read)

    @property
    def stored(self) -> tuple[Col, ...]:
        return tuple(c for c in self.columns if c.is_stored)

    def column(self, name: str) -> Col:
        return next(c for c in self.columns if c.name == name)

    @property
    def is_known_by_line(self) -> bool:
        """Nothing but its line tells a row apart, which is not enough where several stand on one."""
        system_columns = {self.column(name).options.get("system") for name in self.key}
        return (
            "line" in system_columns
            and system_columns <= {"file", "line", "source"}
            and any(f.kind == "Json" for f in self.formats)
        )

    @property
    def highest(self) -> str | None:
        return self.duplicates.partition(":")[2] or None

    @property
    def model(self) -> str:
        """The row model as Python source."""
        rules = [r.source for r in self.rules]
        columns = [c.source for c in self.columns]
        if not (base := self.base):
            return _class("Rows(RowModel)", [*columns, *rules])
        first, rest = columns[: base.columns], columns[base.columns :]
        if base.anew:
            rest.append(first[0])
            first[0] = f'    {self.columns[0].name}: str | None = Field("another", null_tokens=("b",), aliases=("c",))'
        again = [rules[0]] if base.anew and rules else []
        if again:
            rules[0] = f'    @rule("another")\n    def {self.rules[0].name}(col):\n        return pl.lit(False)'
        above = _class("Parent(RowModel)" if base.is_model else "Parent", [*first, *rules])
        below = _class("Rows(Parent)" if base.is_model else "Rows(Parent, RowModel)", [*rest, *again])
        return f"{above}\n{below}"

    @property
    def source(self) -> str:
        """The declaration as Python source; each of its aggregates has a name of its own in it."""
        duplicates = f"KeepHighest({self.highest!r})" if self.highest else repr(self.duplicates)
        words = {
            "name": repr(self.name),
            "table": repr(self.name),
            "description": "'x'",
            "rows": "Rows",
            "key": repr(self.key),
            "sources": f"({', '.join(one.source for one in self.formats)},)",
            "unexpected_columns": repr(self.unexpected_columns),
            "duplicates": duplicates,
            "warn_limit": f"RejectLimit(share={self.warn_share}, min_rows={self.min_rows})",
            "reject_limit": f"RejectLimit(share={self.share}, rows={self.most_rows}, min_rows={self.min_rows})",
        }
        if self.indexes:
            words["indexes"] = repr(self.indexes)
        if self.aggregates:
            words["aggregates"] = f"({', '.join(a.name.upper() for a in self.aggregates)},)"
        if self.views:
            words["views"] = f"({', '.join(v.declared for v in self.views)},)"
        parts = [PREAMBLE, self.model, *(computed.source for computed in (*self.aggregates, *self.views))]
        parts += [f"{a.name.upper()} = {a.declared}" for a in self.aggregates]
        parts += ["dataset = Dataset(", *(f"    {name}={value}," for name, value in words.items()), ")"]
        return "\n".join(parts) + "\n"

    @property
    def words(self) -> Counter[str]:
        """Return how often each word was drawn, to see that none is never drawn."""
        counts: Counter[str] = Counter(
            [f"duplicates={self.duplicates.partition(':')[0]}", f"unexpected_columns={self.unexpected_columns}"]
        )
        counts.update(f"type={c.type}{' | None' if c.nullable else ''}" for c in self.columns)
        counts.update(f"key of {self.column(name).type}" for name in self.key)
        counts[f"key of {len(self.key)}{' (all)' if len(self.key) == len(self.columns) else ''}"] += 1
        for c in self.columns:
            counts.update(f"{n}={v}" if n in ("personal", "case", "system") else n for n, v in c.options.items())
            counts.update(f"check {name} of {c.type}" for name in c.checks)
            counts[f"derived {c.type}"] += c.derived is not None
        counts.update(f"rule {'over a row' if r.column is None else 'of a column'}, {r.severity}" for r in self.rules)
        counts.update(f"{f.kind} {' '.join(f.options)}".strip() for f in self.formats)
        counts.update(f"aggregate {a.kind}" for a in self.aggregates)
        counts.update(f"aggregate group of {a.group}" for a in self.aggregates)
        counts["derived arithmetic"] += any(
            c.derived is not None and c.type not in ("str", "bool") for c in self.columns
        )
        counts["no column is read"] += not self.read
        if self.base:
            counts[f"inherits from a {'row model' if self.base.is_model else 'plain class'}"] += 1
            counts["inherits and declares anew"] += self.base.anew
        counts.update(f"view {v.kind}" for v in self.views)
        counts.update({"indexes": len(self.indexes), "reject_limit rows": self.most_rows is not None})
        counts[f"reject_limit min_rows={self.min_rows}"] += 1
        return +counts


def _class(head: str, body: Sequence[str]) -> str:
    return "\n".join([f"class {head}:", '    """x"""', *body])


def executed(source: str, module: str) -> types.ModuleType:
    """The module that a source makes."""
    loaded = types.ModuleType(module)
    sys.modules[module] = loaded  # Where the types of its columns are looked up.
    exec(compile(source, module, "exec"), loaded.__dict__)  # noqa: S102 - drawn here
    return loaded


def declare(source: str, module: str = "drawn_declaration") -> Dataset:
    """The dataset that a source declares."""
    dataset: Dataset = executed(source, module).dataset
    _ = dataset.columns, dataset.rules
    return dataset


def draw(rng: random.Random, name: str) -> Plan:
    """A declaration; it may be one that is refused."""
    from mini_platform_tests.declarations import computed

    names = rng.sample(NAMES, rng.randint(1, 6))
    columns = [_column(rng, one, first=i == 0) for i, one in enumerate(names)]
    reads = list(columns)
    others = rng.sample([n for n in NAMES if n not in names], rng.choice((0, 1, 1, 2)))
    columns += [column for one in others if (column := _derived(rng, one, reads))]
    numbers, times = ("line", "record", "surrogate"), ("first_loaded", "last_loaded")
    for system in rng.sample(("file", "source", *numbers, *times), rng.choice((0, 0, 0, 1, 3))):
        kind = "int" if system in numbers else "dt.datetime" if system in times else "str"
        columns.append(Col(f"g_{system}", kind, options={"system": system}))
    telling = [c for c in columns if c.is_exact and c.type != "list[float]" and c.options.get("personal") != "redact"]
    candidates = [c.name for c in telling if not c.nullable and not c.name.endswith(("_loaded", "_surrogate"))]
    if rng.random() < 0.03:
        candidates = [c.name for c in columns]
    most = len(candidates) if rng.random() < 0.15 else min(rng.choice((1, 2)), len(candidates))
    key = tuple(rng.sample(candidates, rng.randint(1, most))) if candidates else ()
    formats = _formats(rng)
    protected = any(c.protection for c in columns)
    plan = Plan(
        name=name,
        columns=tuple(columns),
        rules=tuple(_rules(rng, columns)),
        key=key,
        duplicates=rng.choice(("last", "last", "first", "reject", "highest")),
        unexpected_columns=rng.choice(("refuse", "ignore") if protected else ("keep", "keep", "refuse", "ignore")),
        share=rng.choice(("0.5", "0.5", "0.9", "0.07", "0.29", "1", "None")),
        most_rows=rng.choice((None, None, None, 3)),
        min_rows=rng.choice((0, 0, 4, 100)),
        formats=formats,
        indexes=tuple(n for n in rng.sample(names, 1) if rng.random() < 0.15),
        base=Base(rng.randint(1, len(columns)), rng.random() < 0.7, rng.random() < 0.4)
        if rng.random() < 0.25
        else None,
    )
    if plan.duplicates == "highest":
        read = [c for c in plan.read if not c.protection and c.type != "list[float]"]
        plan = replace(plan, duplicates=f"highest:{rng.choice(read).name}" if read else "last")
    return computed.draw(rng, plan)


def _column(rng: random.Random, name: str, *, first: bool) -> Col:
    kind = rng.choice(("str", "Decimal", *TYPES)) if not first else rng.choice(("str", "int", "str", *TYPES[:7]))
    nullable = not first and rng.random() < 0.5
    options: dict[str, Any] = {}
    if kind == "Decimal":
        options["decimals"] = rng.choice((0, 1, 2, 2, 4, 9, 18))
    if rng.random() < 0.2:
        options["null_tokens"] = rng.choice((("NA",), ("NA", "-"), ("n/a", "0"), "null"))
    if kind == "str":
        if rng.random() < 0.15:
            options["trim"] = False
        if rng.random() < 0.25:
            options["case"] = rng.choice(("lower", "upper"))
        if rng.random() < 0.15:
            options["personal"] = rng.choice(("mask", "hash", "hash", "last4", "redact"))
    if rng.random() < 0.15:
        options["aliases"] = (f"{name} alias",)
    if nullable and rng.random() < 0.2:
        options["optional"] = True
    if not first and rng.random() < 0.08:
        options["stored"] = False
    checks = _checks(rng, kind) if rng.random() < 0.35 else {}
    if checks and rng.random() < 0.3:
        options["warn"] = tuple(checks)[:1]
    return Col(name, kind, nullable, options, checks)


PATTERNS = ("^[A-Za-z]", "^[A-Za-z]", "^[a-z]+$", "^(cat|a|b)", "^.b", "^[^0-9]*$")


def _checks(rng: random.Random, kind: str) -> dict[str, Any]:
    low, high = rng.choice(((-5, 7), (0, 1000), (-(2**62), 2**62) if kind == "int" else (0, 7)))
    match kind:
        case "int" | "float" | "Decimal":
            options: Sequence[dict[str, Any]] = (
                {"in_range": {"min_value": low, "max_value": high}},
                {"between": {"min_value": low, "max_value": high, "include_min": False, "include_max": False}},
                {"ge": low},
                {"gt": low, "lt": high},
                {"le": high, "ne": 1},
                {"less_than_or_equal_to": high},
                {"isin": [0, 1, 2, 3, 4]},
                {"notin": [0, 7]},
                {"in_range": {"min_value": -1000, "max_value": 1000}},
            )
        case "str":
            options = (
                {"str_length": {"min_value": 1, "max_value": rng.choice((2, 20, 600))}},
                {"isin": ["a", "b", "Ab", "ab", "é"]},
                {"str_matches": rng.choice(PATTERNS)},
                {"str_matches": rng.choice(PATTERNS), "str_length": {"max_value": 3}},
                {"str_contains": rng.choice(("a", "[bt]$", "b|é"))},
                {"str_startswith": "a"},
                {"str_endswith": "b"},
                {"notin": ["b"]},
            )
        case "dt.date":
            options = ({"ge": dt.date(1970, 1, 1)}, {"lt": dt.date(2100, 1, 1)})
        case "dt.datetime":
            moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
            options = (
                {"ge": moment},
                {"lt": moment},
                {"in_range": {"min_value": moment, "max_value": dt.datetime.max.replace(tzinfo=dt.UTC)}},
            )
        case "bool":
            options = ({"eq": True}, {"isin": [False]}, {})
        case _:
            options = ({},)
    return dict(rng.choice(options))


def _is_between(value: Any, a: Mapping[str, Any]) -> bool:
    above = value > a["min_value"] or (a.get("include_min", True) and value == a["min_value"])
    return above and (value < a["max_value"] or (a.get("include_max", True) and value == a["max_value"]))


CHECKS: Mapping[str, Callable[[Any, Any], bool]] = {
    "in_range": _is_between,
    "greater_than_or_equal_to": lambda value, a: value >= a,
    "greater_than": lambda value, a: value > a,
    "less_than_or_equal_to": lambda value, a: value <= a,
    "less_than": lambda value, a: value < a,
    "equal_to": lambda value, a: value == a,
    "not_equal_to": lambda value, a: value != a,
    "isin": lambda value, a: value in a,
    "notin": lambda value, a: value not in a,
    "str_length": lambda value, a: a.get("min_value", 0) <= len(value) <= a.get("max_value", len(value)),
    "str_matches": lambda value, a: bool(re.match(a, value)),
    "str_contains": lambda value, a: bool(re.search(a, value)),
    "str_startswith": lambda value, a: value.startswith(a),
    "str_endswith": lambda value, a: value.endswith(a),
}
"""The predicate of each check that is drawn, over a value."""
SHORT = {
    "ge": "greater_than_or_equal_to",
    "gt": "greater_than",
    "le": "less_than_or_equal_to",
    "lt": "less_than",
    "eq": "equal_to",
    "ne": "not_equal_to",
    "between": "in_range",
}
"""Other names of them."""


def fits_int(value: int) -> int | None:
    return value if value in INT64 else None


def rounded(value: Fraction, decimals: int) -> Decimal | None:
    """An exact value with so many decimals, halves away from zero; None where that has more than 18 digits."""
    scaled = abs(value) * 10**decimals
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    if whole >= 10**18:
        return None
    return Decimal(-whole if value < 0 else whole).scaleb(-decimals)


def _written(value: float) -> Fraction:
    """A float as it is written in the fewest digits, which is what is meant by it."""
    return Fraction(repr(value))


def finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def later(moment: Any, step: dt.timedelta) -> Any:
    try:
        return moment + step
    except OverflowError:
        return None


def _quotient(kind: str, decimals: int, p: Any, q: Any) -> Any:
    """An exact quotient, as the one or the other type."""
    if q == 0:
        return None
    exact = Fraction(p) / Fraction(q)
    if kind == "Decimal":
        return rounded(exact, decimals)
    try:
        return finite(float(exact))
    except OverflowError:
        return None


Derivations = Iterator[tuple[str, Expr]]
"""Types of derived columns, and what they are derived by."""


def _of_numbers(a: Col, b: Col, decimals: int, op: str) -> Derivations:
    n, m = a.name, b.name
    x, y, z = f'col("{n}")', f'col("{m}")', f'col("{m}")'
    if n == m:  # What is made of a number and itself tells little.
        y, z = "3" if a.type == "int" else "0.5", "4"
    both, apply = (n, m), {"+": operator.add, "-": operator.sub, "*": operator.mul}[op]

    def other(row: Values) -> Any:
        return row[m] if n != m else float(y) if a.type == "float" else Fraction(y)

    def quotient(kind: str) -> Callable[[Values], Any]:
        return lambda r: _quotient(kind, decimals, r[n], r[m] if n != m else 4)

    def of_floats(row: Values) -> Decimal | None:
        value = finite(apply(row[n], other(row)))
        return None if value is None else rounded(_written(value), decimals)

    if a.type == "int":
        yield "int", Expr(f"{x} {op} {y}", lambda r: fits_int(int(apply(r[n], other(r)))), both)
        yield "bool", Expr(f"{x} > 3", lambda r: r[n] > 3, (n,))
    if a.type in ("int", "Decimal"):
        yield "float", Expr(f"{x} / {z}", quotient("float"), both)
        yield "Decimal", Expr(f"{x} / {z}", quotient("Decimal"), both)
    if a.type == "Decimal":
        exact = lambda r: rounded(apply(Fraction(r[n]), Fraction(other(r))), decimals)  # noqa: E731
        yield "Decimal", Expr(f"{x} {op} {y}", exact, both)
    if a.type == "float":
        yield "float", Expr(f"{x} {op} {y}", lambda r: finite(apply(r[n], other(r))), both)
        yield "Decimal", Expr(x, lambda r: rounded(_written(r[n]), decimals), (n,))
        yield "Decimal", Expr(f"{x} {op} {y}", of_floats, both)
        yield "bool", Expr(f"{x} <= {y}", lambda r: r[n] <= other(r), both)


def _of_times(a: Col, b: Col, decimals: int, op: str) -> Derivations:
    x, n = f'col("{a.name}")', a.name
    days = (1, 30, -1, 400_000)[decimals // 2]
    yield a.type, Expr(f"{x} + pl.duration(days={days})", lambda r: later(r[n], dt.timedelta(days=days)), (n,))
    yield "int", Expr(f"{x}.dt.year()", lambda r: r[n].year, (n,))
    if a.type == "dt.datetime":
        yield "dt.date", Expr(f"{x}.dt.date()", lambda r: r[n].date(), (n,))


def _of_texts(a: Col, b: Col, decimals: int, op: str) -> Derivations:
    x, y, n, m = f'col("{a.name}")', f'col("{b.name}")', a.name, b.name
    nfc = lambda text: unicodedata.normalize("NFC", text)  # noqa: E731
    yield "str", Expr(f"{x}.str.to_uppercase()", lambda r: nfc(r[n].upper()), (n,))
    yield "str", Expr(f"{x}.str.to_lowercase()", lambda r: nfc(r[n].lower()), (n,))
    yield "str", Expr(f'{x} + "-" + {y}', lambda r: nfc(r[n] + "-" + r[m]), (n, m))
    yield "int", Expr(f"{x}.str.len_chars()", lambda r: len(r[n]), (n,))
    yield "bool", Expr(f'{x} == "a"', lambda r: r[n] == "a", (n,))


def _of_lists(a: Col, b: Col, decimals: int, op: str) -> Derivations:
    x, n = f'col("{a.name}")', a.name

    def twice(row: Values) -> list[float] | None:
        items = [2 * item for item in row[n]]
        return None if None in map(finite, items) else items

    yield "list[float]", Expr(f"{x}.list.eval(pl.element() * 2)", twice, (n,))
    yield "int", Expr(f"{x}.list.len()", lambda r: len(r[n]), (n,))


DERIVATIONS = {
    **dict.fromkeys(NUMBERS, _of_numbers),
    **dict.fromkeys(("dt.date", "dt.datetime"), _of_times),
    "str": _of_texts,
    "list[float]": _of_lists,
}


def _derived(rng: random.Random, name: str, reads: Sequence[Col]) -> Col | None:
    """A column derived from those that are read; None where they give nothing to derive from."""
    exact = [c for c in reads if c.type == "Decimal"] or [c for c in reads if c.type == "int"]
    a = rng.choice(exact if exact and rng.random() < 0.8 else reads)  # Where most can go wrong.
    others = {a.type, "int"} if a.type == "Decimal" else {a.type}
    b = rng.choice([c for c in reads if c.type in others])
    if a.type not in DERIVATIONS:
        return None
    decimals = rng.choice((0, 2, 4, 6))
    if a.type == "Decimal" and rng.random() < 0.5:  # One less than is written: values may end in a half.
        decimals = max(0, a.decimals - 1)
    kind, expr = rng.choice(list(DERIVATIONS[a.type](a, b, decimals, rng.choice("+-*"))))
    options: dict[str, Any] = {"decimals": decimals} if kind == "Decimal" else {}
    if a.options.get("personal") or b.options.get("personal"):
        if kind != "str":
            return None
        options["personal"] = "hash"
    if kind == "str":
        options["trim"] = False  # What it is derived from may begin with a blank.
    checks = {"ge": -1000} if kind == "int" and rng.random() < 0.2 else {}
    return Col(name, kind, rng.random() < 0.7, options, checks, expr)


def _rules(rng: random.Random, columns: Sequence[Col]) -> list[RowRule]:
    rules = []
    for number in range(rng.choice((0, 0, 1, 2))):
        a = rng.choice([c for c in columns if c.type != "list[float]" and "system" not in c.options])
        b = rng.choice([c for c in columns if c.type == a.type and "system" not in c.options])
        x, y = f'col("{a.name}")', f'col("{b.name}")'
        both = tuple(dict.fromkeys((a.name, b.name)))
        if a.type in ("str", "bool"):
            holds = Expr(f"{x} == {y}", lambda r, a=a.name, b=b.name: r[a] == r[b], both)
        elif a.type == "Decimal" and rng.random() < 0.5:
            holds = Expr(
                f"{x} * {y} >= {x}",
                lambda r, a=a.name, b=b.name: Fraction(r[a]) * Fraction(r[b]) >= Fraction(r[a]),
                both,
            )
        else:
            holds = Expr(f"{x} <= {y}", lambda r, a=a.name, b=b.name: r[a] <= r[b], both)
        column = rng.choice((None, a.name))
        rules.append(RowRule(f"rule_{number}", column, rng.choice(("error", "warn")), holds))
    return rules


def _formats(rng: random.Random) -> tuple[Format, ...]:
    dialects: Sequence[dict[str, Any]] = (
        {},
        {},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"delimiter": "||"},
        {"quote": "'"},
        {"escape": "\\"},
        {"header": False},
        {"skip_lines": 2},
        {"header": "find"},
        {"comment": "#"},
        {"encoding": "utf-16-le"},
        {"trailing_delimiter": True},
    )
    formats = [
        Format("Csv", ".csv", rng.choice(dialects)),
        Format("Json", ".json"),
        Format("Csv", ".txt", {"delimiter": "|"}),
    ]
    return tuple(formats[: rng.choice((1, 1, 2, 2, 3))])
