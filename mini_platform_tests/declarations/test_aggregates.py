"""Aggregates: each shape of select is right after every change, by touched group or as a whole; what cannot be is refused."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    Select,
    Text,
    and_,
    case,
    exists,
    extract,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from mini_platform import Aggregate, Dataset, DeclarationError, Field, RowModel, View
from mini_platform.datasets import all_datasets
from mini_platform.warehouse.aggregates import refresh
from mini_platform.warehouse.dirty_groups import is_stale
from mini_platform.warehouse.load import withdraw_rows
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.trial import Declared, Trial

LENGTH = {"min_value": 1, "max_value": 40}


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


class Row(RowModel):
    id: str = Field("Identifier", str_length=LENGTH)
    cat: str = Field("Category", str_length=LENGTH)
    day: dt.date = Field("Day")
    qty: int = Field("Pieces")
    price: Decimal = Field("Price", decimals=10)
    weight: float = Field("Weight")
    at: dt.datetime = Field("Moment")
    good: bool = Field("Good or not")
    last_seen: dt.datetime | None = Field("Last seen, if ever")
    tags: list[float] | None = Field("Numbers")
    note: str | None = Field("Of any length")
    long: str | None = Field("Of some", str_length={"min_value": 0, "max_value": 400})


def aggregate(rows: Callable[..., Any], *key: str, surrogate: str | None = None) -> Aggregate:
    """An aggregate of a select whose columns are described by their names; those of others that it reads are given."""
    sample = Dataset(name="sample", table="sample", description="x", rows=Row, key=("id",))
    production = dataset_tables(sample).production
    names = COLUMNS.get(rows.__name__) or [column.name for column in rows(production).selected_columns]
    return Aggregate(rows, key, {name: (name,) for name in names}, surrogate=surrogate)


def dataset(*aggregates: Aggregate, name: str = "sh", **more: Any) -> Dataset:
    return Dataset(name=name, table=name, description="x", rows=Row, key=("id",), aggregates=aggregates, **more)


def total(o: Any) -> Any:
    return func.sum(o.c.qty, type_=BigInteger)


# By touched group


def per_cat(o: Any) -> Select[Any]:
    return select(o.c.cat, func.count().label("n"), total(o).label("s"), func.max(o.c.at).label("at")).group_by(o.c.cat)


def dear(o: Any) -> Select[Any]:
    return select(o.c.cat, total(o).label("s")).where(o.c.qty > 4).group_by(o.c.cat).having(func.count() > 1)


def fine(o: Any) -> Select[Any]:
    return select(o.c.id, (o.c.price * 2).label("double"), case((o.c.good, "y"), else_="n").label("good"))


def cats(o: Any) -> Select[Any]:
    return select(o.c.cat, o.c.day).distinct()


def dim(o: Any) -> Select[Any]:
    return select(o.c.cat, o.c.day, func.count().label("n")).group_by(o.c.cat, o.c.day)


def fact(o: Any, dim: Any) -> Select[Any]:
    return select(o.c.id, dim.c.nr).join_from(o, dim, (o.c.cat == dim.c.cat) & (dim.c.day == o.c.day))


def beside(o: Any, dim: Any) -> Select[Any]:
    on = (o.c.cat == dim.c.cat) & (dim.c.day == o.c.day) & (o.c.qty > 4)
    return select(o.c.id, dim.c.nr).select_from(o.outerjoin(dim, on))


def chain(o: Any, fact: Any, dim: Any) -> Select[Any]:
    on = (o.c.cat == dim.c.cat) & (dim.c.day == o.c.day)
    return (
        select(o.c.cat, o.c.day, func.count(fact.c.id).label("n"), func.max(dim.c.nr, type_=BigInteger).label("nr"))
        .select_from(o.join(fact, o.c.id == fact.c.id).join(dim, on))
        .group_by(o.c.cat, o.c.day)
    )


# As a whole


def place(o: Any) -> Select[Any]:
    return select(o.c.id, func.rank(type_=BigInteger).over(order_by=o.c.qty.desc()).label("rk"))


def share(o: Any) -> Select[Any]:
    every = select(func.sum(o.c.qty)).scalar_subquery()
    return select(o.c.cat, func.round(100 * total(o) / func.nullif(every, 0), type_=Integer).label("pct")).group_by(
        o.c.cat
    )


def hidden_share(o: Any) -> Select[Any]:
    part = literal_column("100 * sum(qty) / nullif(sum(sum(qty)) OVER (), 0)", Numeric)
    return select(o.c.cat, func.round(part, type_=Integer).label("pct")).group_by(o.c.cat)


def top(o: Any) -> Select[Any]:
    return select(o.c.cat, total(o).label("s")).group_by(o.c.cat).order_by(total(o).desc(), o.c.cat).limit(1)


def before(o: Any) -> Select[Any]:
    p = o.alias("p")
    on = (p.c.cat == o.c.cat) & (p.c.day < o.c.day)
    return (
        select(o.c.id, func.max(p.c.day, type_=Date).label("prev")).join_from(o, p, on, isouter=True).group_by(o.c.id)
    )


def first_of(o: Any) -> Select[Any]:
    return select(o.c.id, o.c.cat).distinct(o.c.cat).order_by(o.c.cat, o.c.day, o.c.id)


def above_mean(o: Any) -> Select[Any]:
    return select(o.c.id, o.c.qty).where(o.c.qty >= select(func.avg(o.c.qty)).scalar_subquery())


def alone(o: Any) -> Select[Any]:
    p = o.alias("p")
    return select(o.c.id, o.c.cat).where(~exists().where(p.c.cat == o.c.cat, p.c.id != o.c.id))


def by_text(o: Any) -> Select[Any]:
    return select(o.c.id, o.c.cat).where(text("qty = (SELECT max(qty) FROM production.sh)"))


def best(o: Any) -> Select[Any]:
    rank = func.row_number().over(partition_by=o.c.cat, order_by=(o.c.qty.desc(), o.c.id)).label("rank")
    ranked = select(o.c.id, o.c.cat, rank).subquery()
    return select(ranked.c.cat, ranked.c.id).where(ranked.c.rank == 1)


def with_cte(o: Any) -> Select[Any]:
    sums = select(o.c.cat, total(o).label("s")).group_by(o.c.cat).cte("sums")
    return select(o.c.id, (o.c.qty - sums.c.s).label("rest")).join_from(o, sums, o.c.cat == sums.c.cat)


def both(o: Any) -> Any:
    every = select(literal("all", Text).label("cat"), total(o).label("s"))
    return union_all(select(o.c.cat, total(o).label("s")).group_by(o.c.cat), every)


def once(o: Any) -> Any:
    return union(select(o.c.cat.label("word")), select(o.c.id.label("word")))


def whole(o: Any) -> Select[Any]:
    return select(literal(1).label("one"), func.count().label("n"), total(o).label("s"))


def by_day_of(o: Any) -> Select[Any]:
    d = func.date(func.timezone("UTC", o.c.at), type_=Date).label("d")
    return select(d, func.count().label("n")).group_by(d)


def by_day_seen(o: Any) -> Select[Any]:
    d = func.date(o.c.last_seen, type_=Date).label("d")
    return select(d, func.count().label("n")).where(o.c.last_seen.is_not(None)).group_by("d")


def by_day_or_none(o: Any) -> Select[Any]:
    d = func.coalesce(func.date(o.c.last_seen), dt.date(1970, 1, 1), type_=Date).label("d")
    return select(d, func.count().label("n")).group_by(d)


def many(o: Any) -> Select[Any]:
    return select(o.c.cat, func.count().label("n")).group_by(o.c.cat).having(func.count() > 1)


def fact_many(o: Any, many: Any) -> Select[Any]:
    return select(o.c.id, many.c.cat).join_from(o, many, o.c.cat == many.c.cat)


def part_of(o: Any, dim: Any) -> Select[Any]:
    nr = func.max(dim.c.nr, type_=BigInteger).label("nr")
    return select(o.c.id, nr).join_from(o, dim, o.c.cat == dim.c.cat).group_by(o.c.id)


def other_way(o: Any, dim: Any) -> Select[Any]:
    return select(dim.c.nr, func.count(o.c.id).label("n")).select_from(
        dim.outerjoin(o, (dim.c.cat == o.c.cat) & (dim.c.day == o.c.day) & o.c.good)
    ).group_by(dim.c.nr)  # fmt: skip


def crossed(o: Any, per_cat: Any) -> Select[Any]:
    return select(o.c.id, func.count(per_cat.c.cat).label("n")).join_from(o, per_cat, true()).group_by(o.c.id)


def by_value(o: Any, per_cat: Any) -> Select[Any]:
    return select(o.c.id, per_cat.c.n).join_from(o, per_cat, o.c.cat == per_cat.c.cat)


def one_of(o: Any, cats_of: Any) -> Select[Any]:
    """Joined by a whole key, but of another column than that which it was made of."""
    return select(o.c.id, cats_of.c.word).select_from(o.outerjoin(cats_of, o.c.cat == cats_of.c.word))


def cats_of(o: Any) -> Select[Any]:
    return select(o.c.id.label("word"), func.count().label("n")).group_by(o.c.id)


COLUMNS = {
    "fact": ("id", "nr"),
    "beside": ("id", "nr"),
    "chain": ("cat", "day", "n", "nr"),
    "fact_many": ("id", "cat"),
    "part_of": ("id", "nr"),
    "other_way": ("nr", "n"),
    "crossed": ("id", "n"),
    "by_value": ("id", "n"),
    "one_of": ("id", "word"),
}
BY_GROUP = (
    *(aggregate(per_cat, "cat"), aggregate(dear, "cat"), aggregate(fine, "id"), aggregate(cats, "cat", "day")),
    *(aggregate(dim, "cat", "day", surrogate="nr"), aggregate(fact, "id"), aggregate(beside, "id")),
    *(aggregate(chain, "cat", "day"), aggregate(cats_of, "word")),
)
AS_A_WHOLE = (
    *(aggregate(place, "id"), aggregate(share, "cat"), aggregate(hidden_share, "cat"), aggregate(top, "cat")),
    *(aggregate(before, "id"), aggregate(first_of, "id"), aggregate(above_mean, "id"), aggregate(alone, "id")),
    *(aggregate(by_text, "id"), aggregate(best, "cat"), aggregate(with_cte, "id"), aggregate(both, "cat")),
    *(aggregate(once, "word"), aggregate(whole, "one"), aggregate(by_day_of, "d"), aggregate(by_day_seen, "d")),
    *(aggregate(by_day_or_none, "d"), aggregate(many, "cat"), aggregate(fact_many, "id"), aggregate(part_of, "id")),
    *(aggregate(other_way, "nr"), aggregate(crossed, "id"), aggregate(by_value, "id"), aggregate(one_of, "id")),
)
HEADER = "id,cat,day,qty,price,weight,at,good,last_seen,tags,note,long\n"


def line(name: str, cat: str = "a", day: int = 1, qty: int = 1, /, **more: Any) -> str:
    values = {
        "id": name,
        "cat": cat,
        "day": f"2026-01-{day:02}",
        "qty": qty,
        "price": "9.49",
        "weight": "0.1",
        "at": f"2026-01-{day:02}T23:30:00.000001Z",
        "good": "true",
        "last_seen": "",
        "tags": "",
        "note": "",
        "long": "",
        **more,
    }
    return ",".join('"{}"'.format(str(value).replace('"', '""')) for value in values.values()) + "\n"


def computed_anew(trial: Trial, chosen: Aggregate) -> Counter[tuple[Any, ...]]:
    rows = dataset_tables(trial.dataset).rows(chosen)
    with trial.platform.engine.connect() as conn:
        return Counter(tuple(row) for row in conn.execute(rows))


def stored(trial: Trial, chosen: Aggregate) -> Counter[tuple[Any, ...]]:
    return Counter(trial.table(f"analytics.{chosen.name}", *chosen.columns))


def right(trial: Trial, when: str) -> None:
    assert {row[0] for row in trial.table("ops.files", "status")} <= {"loaded"}, when
    assert trial.rejects() == []
    for chosen in trial.dataset.aggregates:
        assert stored(trial, chosen) == computed_anew(trial, chosen), f"{chosen.name} {when}"
    assert trial.differences() == {}, when


def test_which_are_computed_by_touched_group() -> None:
    by_group = dataset_tables(dataset(*BY_GROUP, *AS_A_WHOLE)).groups
    assert set(by_group) == {chosen.name for chosen in BY_GROUP} | {"many"}


def test_ours_are_all_computed_by_touched_group() -> None:
    """Or a small file costs as much as all that there is."""
    computed = [(d, chosen) for d in all_datasets().values() for chosen in d.aggregates]
    assert [chosen.name for d, chosen in computed if chosen.name not in dataset_tables(d).groups] == []
    assert [chosen.name for d, chosen in computed if not dataset_tables(d).examined[chosen.name].unique] == []


def test_every_shape_is_right_after_every_change(declared: Declared) -> None:
    trial = declared(dataset(*BY_GROUP, *AS_A_WHOLE))
    trial.run()
    right(trial, "of an empty table")
    first = trial.land("one.csv", HEADER + line("1", "a", 2, 5) + line("2", "b", 3, 9) + line("3", "a", 2, 7))
    trial.run()
    right(trial, "after the first file")
    trial.load("two.csv", HEADER + line("4", "a", 1, 100) + line("5", "c", 3, 5, last_seen="2026-01-09T00:00:00Z"))
    right(trial, "after rows of other groups")
    trial.load("three.csv", HEADER + line("2", "c", 1, 4) + line("6", "d", 9, 0))
    right(trial, "after a row moved to another group, and a group ended")
    for name in ("dim", "per_cat", "many"):  # Each by itself, as somebody does in the UI.
        (alone,) = (chosen for chosen in trial.dataset.aggregates if chosen.name == name)
        with trial.platform.engine.begin() as conn:
            refresh(conn, trial.dataset, alone, dataset_tables(trial.dataset).rows(alone))
    trial.load("four.csv", HEADER + line("1", "c", 1, 4) + line("4", "e", 4, 4))
    right(trial, "after groups ended that others refer to")
    with trial.platform.engine.begin() as conn:
        withdraw_rows(conn, trial.dataset, [first])
    trial.run()
    assert [row[0] for row in trial.rows("id")] == ["1", "2", "4", "5", "6"]
    right(trial, "after rows went")


# Keys


KINDS: dict[str, tuple[str, ...]] = {
    "price": ("9.49", "9.4900000001", "-0.0000000001", "99999999.9999999999"),
    "weight": ("0.1", "0.30000000000000004", "1e308", "-1e-308", "-0.0", "0"),
    "day": ("2026-01-01", "0001-01-01", "9999-12-31"),
    "at": ("2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000002Z", "1900-01-01T00:00:00+05:30"),
    "good": ("true", "false"),
    "qty": ("0", "9223372036854775807", "-9223372036854775808"),
    "cat": ("a", "A", "q\"u\\o,te's", "{[null]}", "ü€🚲", " inner  space", "%s %(x)s :y"),
}


def keyed(*names: str) -> tuple[Aggregate, Aggregate]:
    """Rows by these columns, with numbers of their own; and who refers to them."""

    def by_key(o: Any) -> Select[Any]:
        return select(*(o.c[name] for name in names), func.count().label("n")).group_by(*(o.c[name] for name in names))

    def referring(o: Any, by_key: Any) -> Select[Any]:
        on = [o.c[name] == by_key.c[name] for name in names]
        return select(o.c.id, *(by_key.c[name] for name in names), by_key.c.nr).join_from(o, by_key, and_(*on))

    columns = ("id", *names, "nr")
    return (
        aggregate(by_key, *names, surrogate="nr"),
        Aggregate(referring, ("id",), {name: (name,) for name in columns}, ("id", "nr")),
    )


@pytest.mark.parametrize("names", [*((name,) for name in KINDS), ("price", "weight", "at"), tuple(KINDS)])
def test_keys_of_every_type_are_kept_to_the_last_digit(declared: Declared, names: tuple[str, ...]) -> None:
    trial = declared(dataset(*keyed(*names), name="by_" + names[0][:3] + str(len(names))))
    values = list(itertools.islice(zip(*(itertools.cycle(KINDS[name]) for name in names)), 12))  # noqa: B905 - endless
    for turn in range(2):  # By filling, and by touched group.
        rows = (line(f"{turn}-{n}", **dict(zip(names, v, strict=True))) for n, v in enumerate(values))
        trial.load(f"{turn}.csv", HEADER + "".join(rows))
        right(trial, f"in turn {turn}")
    by_key = Counter(row[:-1] for row in trial.table("analytics.by_key", *names, "n"))
    assert by_key == Counter(set(trial.rows(*names)))
    numbers = [row[-1] for row in trial.table("ops.surrogates_by_key", *names, "nr")]
    assert len(set(numbers)) == len(by_key)
    with trial.platform.engine.connect() as conn:
        assert not conn.scalars(text("SELECT column_default FROM information_schema.columns WHERE table_schema = "
                                     "'analytics' AND column_default IS NOT NULL")).all()  # fmt: skip


# What is refused


def by_seen(o: Any) -> Select[Any]:
    return select(o.c.last_seen, func.count().label("n")).group_by(o.c.last_seen)


def by_day_may_lack(o: Any) -> Select[Any]:
    d = func.date(func.timezone("UTC", o.c.last_seen), type_=Date).label("d")
    return select(d, func.count().label("n")).group_by(d)


def by_either(o: Any) -> Select[Any]:
    return select(case((o.c.good, o.c.cat)).label("c"), func.count().label("n")).group_by("c")


def by_unknown(o: Any) -> Select[Any]:
    return select(func.my_own(o.c.cat, type_=Text).label("c"), func.count().label("n")).group_by("c")


def by_nullif(o: Any) -> Select[Any]:
    return select(func.nullif(o.c.cat, "a", type_=Text).label("c"), func.count().label("n")).group_by("c")


def by_optional(o: Any, dim: Any) -> Select[Any]:
    return select(dim.c.nr, func.count().label("n")).select_from(o.outerjoin(dim, o.c.cat == dim.c.cat)).group_by("nr")


def by_rollup(o: Any) -> Select[Any]:
    return select(o.c.cat, func.count().label("n")).group_by(func.rollup(o.c.cat))


def by_union(o: Any) -> Any:
    return union_all(select(o.c.day, o.c.qty), select(func.date(o.c.last_seen, type_=Date), o.c.qty))


def by_highest(o: Any) -> Select[Any]:
    return select(func.max(o.c.cat).label("c"), func.count().label("n"))


def by_tags(o: Any) -> Select[Any]:
    return select(func.coalesce(o.c.tags, [], type_=ARRAY(Double)).label("t"), func.count().label("n")).group_by("t")


def too_fine(o: Any) -> Select[Any]:
    return select(o.c.cat, func.count().label("n")).group_by(o.c.cat, o.c.day)


def not_grouped(o: Any) -> Select[Any]:
    return select(o.c.cat, o.c.day)


def not_by_its_whole_key(o: Any) -> Select[Any]:
    return select(o.c.cat, o.c.day).distinct()


def by_note(o: Any) -> Any:
    word = func.lower(o.c.note, type_=Text).label("word")
    return union(select(o.c.cat.label("word")), select(word).where(o.c.note.is_not(None)))


def by_both(o: Any) -> Select[Any]:
    word = func.concat(o.c.long, o.c.cat, func.upper(o.c.long), type_=Text).label("word")
    return select(word, func.count().label("n")).group_by(word)


def mixed(o: Any) -> Any:
    return union_all(select(o.c.id, o.c.qty), select(o.c.id, o.c.weight))


def no_select(o: Any) -> Any:
    return text("SELECT id FROM production.sh").columns(id=Text)


COLUMNS |= {"by_optional": ("nr", "n"), "no_select": ("id",), "mixed": ("id", "qty")}


@pytest.mark.parametrize(
    ("rows", "key", "words"),
    [
        *((rows, key, rf"refused\.{rows.__name__}: {key} is in its key.*may be.*coalesce") for rows, key in (
            (by_seen, "last_seen"), (by_day_may_lack, "d"), (by_either, "c"), (by_unknown, "c"), (by_nullif, "c"),
            (by_optional, "nr"), (by_rollup, "cat"), (by_union, "day"), (by_highest, "c"),
        )),
        (by_tags, "t", "t is in its key, and a list"),
        (by_note, "word", r"refused\.by_note: its key word is made of note; give note a str_length"),
        (by_both, "word", r"refused\.by_both: the texts that its key is made of may have 3,360 bytes"),
        *((rows, "cat", rf"refused\.{rows.__name__}: several rows of its select may have one key \(cat\)") for rows in (
            too_fine, not_grouped, not_by_its_whole_key
        )),
        (mixed, "id", "different types for qty, BIGINT and DOUBLE PRECISION"),
        (no_select, "id", "returns TextualSelect instead of a SQLAlchemy select"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_one_is_refused_when_it_is_declared(rows: Any, key: str, words: str) -> None:
    chosen = aggregate(rows, key)
    before = [a for a in BY_GROUP if a.name in chosen.reads]
    with pytest.raises(DeclarationError, match=words):
        dataset_tables(dataset(*before, chosen, name="refused"))


@pytest.mark.parametrize("shown", [
    lambda o: func.lower(o.c.cat, type_=Text),
    lambda o: func.date_trunc("month", o.c.at, type_=DateTime(timezone=True)),
    lambda o: extract("year", o.c.day).cast(Integer),
    lambda o: func.round(o.c.price, 2, type_=Numeric),
    lambda o: (o.c.qty / 10 * 10).cast(BigInteger),
    lambda o: o.c.cat + "/" + o.c.id,
    lambda o: func.concat(o.c.cat, o.c.last_seen, type_=Text),
    lambda o: func.coalesce(o.c.last_seen, o.c.at),
    lambda o: case((o.c.last_seen.is_(None), "never"), else_="once"),
    lambda o: o.c.last_seen.is_(None),
    lambda o: o.c.cat.in_(["a", "b"]),
    lambda o: func.greatest(o.c.last_seen, o.c.at, type_=DateTime(timezone=True)),
    lambda o: func.to_char(o.c.at, "YYYY-MM", type_=Text),
])  # fmt: skip
def test_expressions_that_are_never_null_may_be_a_key(shown: Callable[[Any], Any]) -> None:
    def rows(o: Any) -> Select[Any]:
        return select(shown(o).label("k"), func.count().label("n")).group_by("k")

    assert dataset_tables(dataset(aggregate(rows, "k"), name="allowed")).aggregates["rows"].c.k.primary_key


def test_keys_that_turn_out_not_to_be_unique_are_reported_in_a_sentence(declared: Declared) -> None:
    def doubled(o: Any) -> Any:
        return union_all(select(o.c.cat, o.c.qty), select(o.c.id, o.c.qty))

    trial = declared(dataset(aggregate(doubled, "cat"), name="twice"))
    trial.load("a.csv", HEADER + line("1", "a") + line("2", "b"))
    right(trial, "while they are unique")
    with pytest.raises(DeclarationError, match=r"twice\.doubled: several rows of its select have one key \(cat\)"):
        trial.load("b.csv", HEADER + line("3", "1"))


def test_a_key_that_is_cut_when_stored_is_reported_in_a_sentence(declared: Declared) -> None:
    def hourly(o: Any) -> Any:
        return select(func.date_trunc("hour", o.c.at, type_=Date).label("hour"), func.count().label("n")).group_by(
            "hour"
        )

    trial = declared(dataset(aggregate(hourly, "hour"), name="hours"))
    with pytest.raises(DeclarationError, match=r"hours\.hourly: several rows of its select have one key \(hour\)"):
        trial.load("a.csv", HEADER + line("1") + line("2", at="2026-01-01T01:00:00Z"))


def test_a_computed_number_keeps_every_digit(declared: Declared) -> None:
    """SQLAlchemy gives an expression the type of one of its parts: it is not that of the table."""

    class Sold(RowModel):
        id: str = Field("Identifier", str_length=LENGTH)
        price: Decimal = Field("Price", decimals=2)
        weight: Decimal = Field("Weight", decimals=3)
        qty: int = Field("Pieces")

    def figures(o: Any) -> Select[Any]:
        some = case((o.c.qty > 0, o.c.price), else_=o.c.weight)
        within = union_all(select(o.c.price.label("x")), select(o.c.weight)).subquery()
        return select(
            o.c.id,
            (o.c.price * o.c.weight).label("product"),
            func.sum(some + Decimal("0.0001")).label("added"),
            func.coalesce(o.c.qty, o.c.weight).label("either"),
            (o.c.price / 3).label("third"),
            (o.c.price * o.c.qty).label("whole"),
            select(func.min(within.c.x)).scalar_subquery().label("least"),
        ).group_by(o.c.id)

    def per_number(o: Any) -> Select[Any]:
        number = union_all(select(o.c.price.label("x")), select(o.c.weight)).subquery()
        return select(number.c.x, func.count().label("n")).group_by(number.c.x)

    names = ("id", "product", "added", "either", "third", "whole", "least")
    trial = declared(
        Dataset(
            name="digits",
            table="digits",
            description="x",
            rows=Sold,
            key=("id",),
            aggregates=(
                Aggregate(figures, ("id",), {name: (name,) for name in names}, ("id", "whole")),
                Aggregate(per_number, ("x",), {"x": ("x",), "n": ("n",)}, ("x", "n")),
            ),
        )
    )
    trial.load("a.csv", "id,price,weight,qty\na,0.05,0.051,0\n")
    ((_, *figures_of, third),) = trial.table("analytics.figures", *(name for name in names if name != "third"), "third")
    assert figures_of == [Decimal(x) for x in ("0.00255", "0.0511", "0", "0", "0.05")]
    assert str(third).startswith("0.016666666")
    assert trial.table("analytics.per_number", "x", "n") == [(Decimal("0.05"), 1), (Decimal("0.051"), 1)]
    right(trial, "with all digits")


def test_what_postgres_does_not_take_is_refused_when_it_is_declared(declared: Declared) -> None:
    def mistyped(o: Any) -> Select[Any]:
        return select(o.c.cat, func.sum(o.c.day, type_=Numeric).label("s")).group_by(o.c.cat)

    with pytest.raises(DeclarationError, match=r"typed\.mistyped: Postgres rejects its select: function sum\(date\)"):
        declared(dataset(aggregate(mistyped, "cat"), name="typed"))


class Noted(Row):
    note: str | None = Field("Of a person", personal="mask")


@pytest.mark.parametrize(
    ("rows", "value", "cells", "words"),
    [
        (Row, lambda o: func.sum(100 / o.c.qty), {"qty": 0}, r"division by zero; divide by func\.nullif\(…, 0\)"),
        (Row, lambda o: func.sum(o.c.qty, type_=Integer), {"qty": 2**40}, "integer out of range; give it a wider type"),
        (Row, lambda o: func.max(o.c.note.cast(Integer)), {"note": "x"}, "syntax for type integer; compute it only for rows"),
        (Noted, lambda o: func.max(o.c.note.cast(Integer)), {"note": "x"}, "rows: invalid input syntax for type integer;"),
        (Row, lambda o: func.max(select(func.generate_series(1, o.c.qty, type_=BigInteger)).scalar_subquery()), {"qty": 2},
         "more than one row returned by a subquery used as an expression; take one of them"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_for_the_rows_is_reported_in_a_sentence(
    declared: Declared, rows: type[RowModel], value: Any, cells: dict[str, Any], words: str
) -> None:
    def failing(o: Any) -> Select[Any]:
        return select(o.c.cat, value(o).label("value")).group_by(o.c.cat)

    fine = {"qty": 1, "note": 1}
    trial = declared(replace(dataset(aggregate(failing, "cat")), rows=rows))
    with pytest.raises(DeclarationError, match=rf"^sh\.failing: Postgres cannot compute its select .*{words}"):
        trial.load("a.csv", HEADER + line("1", **(fine | cells)))
    assert trial.rows("id") == [("1",)]
    trial.load("b.csv", HEADER + line("1", **fine))
    right(trial, "with a row that can be computed")


# Names


def named(name: str, *columns: str, surrogate: str | None = None, is_view: bool = False) -> Any:
    """An aggregate, or a view, of this name: categories, called as the first column, and counts."""

    def rows(o: Any) -> Select[Any]:
        return select(o.c.cat.label(columns[0]), func.count().label("n")).group_by(o.c.cat)

    rows.__name__ = name
    descriptions = {column: (column,) for column in (columns[0], "n")}
    chart = (columns[0], "n")
    return (
        View(rows, descriptions, chart) if is_view else Aggregate(rows, (columns[0],), descriptions, chart, surrogate)
    )


def refers(name: str, to: Aggregate, column: str) -> Aggregate:
    def rows(o: Any, other: Any) -> Select[Any]:
        return select(o.c.id, other.c.nr.label(column)).join_from(o, other, o.c.cat == other.c.c)

    names: dict[str, Any] = {}
    exec(f"def {name}(o, {to.name}): return rows(o, {to.name})", {"rows": rows}, names)  # noqa: S102 - parameters are names
    return Aggregate(names[name], ("id",), {"id": ("i",), column: ("n",)}, ("id", column))


@pytest.mark.parametrize(
    ("computed", "views", "words"),
    [
        ([named("twice", "c"), named("twice", "d")], [], "two aggregates or views have the name twice"),
        ([named("twice", "c")], [named("twice", "c", is_view=True)], "two aggregates or views have the name twice"),
        ([named("quality_report", "c")], [], "the aggregate quality_report and the quality report both have the asset"),
        ([], [named("quality_report", "c", is_view=True)], "the view quality_report and the quality report both have"),
        ([d := named("d", "c", surrogate="nr"), refers("a", d, "b_c"), refers("a_b", d, "c")], [],
         r"refused\.a_b: analytics\.a_b_c would be made for it, and for refused\.a"),
        ([named("d", "c", surrogate="nr"), named("d_key", "c")], [], r"analytics\.d_key would be made"),
        ([named("d", "c", surrogate="nr"), refers("a" * 40, named("d", "c"), "b" * 40)], [], "made for one of its columns"),
    ],
)  # fmt: skip
def test_names_that_collide_are_refused(computed: Any, views: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        dataset_tables(dataset(*computed, views=tuple(views), name="refused"))


def test_no_dataset_drops_what_is_computed_for_another(declared: Declared) -> None:
    first = declared(dataset(named("daily", "c"), name="one"))
    first.load("a.csv", HEADER + line("1", "a"))
    second = dataset(named("daily", "c"), name="two")
    with pytest.raises(
        DeclarationError, match=r"two\.daily: analytics\.daily would be made for it, and for one\.daily"
    ):
        raise create_all(first.platform.engine, [first.dataset, second])["two"]
    assert first.table("analytics.daily", "c", "n") == [("a", 1)]
    # It moves from one to the other, which has rows already; then it becomes a view.
    moved = declared(dataset(name="two"))
    moved.load("b.csv", HEADER + line("2", "b"))
    create_all(first.platform.engine, [dataset(name="one"), second])
    moved.dataset = second
    moved.run()
    assert moved.table("analytics.daily", "c", "n") == [("b", 1)]
    with first.platform.engine.connect() as conn:
        assert not is_stale(conn, first.dataset)
    create_all(first.platform.engine, [dataset(views=(named("daily", "c", is_view=True),), name="two")])
    assert moved.table("analytics.daily", "c", "n") == [("b", 1)]


# Locks


def test_who_computes_an_aggregate_has_the_locks_of_all_that_it_reads(declared: Declared) -> None:
    """The locks are taken in one order, before the marks, even if there is nothing to do."""
    trial = declared(dataset(*BY_GROUP, name="locked"))
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    for name, locks in (("dim", 1), ("fact", 2), ("chain", 3)):
        (chosen,) = (chosen for chosen in trial.dataset.aggregates if chosen.name == name)
        with trial.platform.engine.begin() as conn:
            refresh(conn, trial.dataset, chosen, dataset_tables(trial.dataset).rows(chosen))
            assert conn.scalar(held) == locks, name


# What `verify` finds


def figures(o: Any) -> Select[Any]:
    w, mean = o.c.weight, func.avg(o.c.weight, type_=Double)
    return select(
        o.c.cat,
        func.sum(w, type_=Double).label("s"),
        mean.label("mean"),
        func.sum(w).filter(o.c.good).label("good"),
        (func.sum(w, type_=Double) / func.count() - func.min(w)).label("rest"),
        func.round(mean.cast(Numeric), 2, type_=Numeric).label("rounded"),
        func.var_pop(w, type_=Double).label("spread"),
        func.stddev(w, type_=Double).label("deviation"),
        func.sum(func.sum(w)).over(partition_by=o.c.cat).label("all"),
        func.max(w).label("most"),
        func.sum(o.c.price, type_=Numeric).label("paid"),
    ).group_by(o.c.cat)


def test_verify_knows_how_exact_a_sum_of_floats_is(declared: Declared) -> None:
    trial = declared(dataset(aggregate(figures, "cat"), name="of_figures"))
    weights = {
        "cancels": ("1e16", "1", "-1e16", "0.1"),
        "huge": ("1e150", "-1e150", "0.3", "2.5e149"),
        "even": ("0.1", "0.2", "0.3", "0.7"),
        "same": ("1e9", "1e9", "1e9", "1e9"),
    }
    rows = [line(f"{cat}{n}", cat, weight=w) for cat, values in weights.items() for n, w in enumerate(values)]
    trial.load("a.csv", HEADER + "".join(rows))
    turns = ("id DESC", "weight", "weight DESC", "abs(weight)", "md5(id)", "md5(id || 'x')")
    for order in turns:  # The rows are added up as they lie in the table.
        with trial.platform.engine.begin() as conn:
            conn.execute(
                text(f"CREATE TEMP TABLE o ON COMMIT DROP AS SELECT * FROM production.of_figures ORDER BY {order}")  # noqa: S608
            )
            conn.execute(text("TRUNCATE production.of_figures"))
            conn.execute(text("INSERT INTO production.of_figures SELECT * FROM o"))
        assert trial.differences() == {}, order


@pytest.mark.parametrize(
    ("column", "by"),
    [("s", "1e-12"), ("mean", "1e-12"), ("rounded", "0.01"), ("spread", "1e-12"), ("deviation", "1e-12"),
     ("most", "1e-16"), ("paid", "0.0000000001"), ("rest", "1e-12"), ("all", "1e-12")],
)  # fmt: skip
def test_verify_misses_no_difference(declared: Declared, column: str, by: str) -> None:
    trial = declared(dataset(aggregate(figures, "cat"), name="of_figures"))
    trial.load("a.csv", HEADER + "".join(line(str(n), "a", weight=f"0.{n}") for n in range(1, 5)))
    assert trial.differences() == {}
    with trial.platform.engine.begin() as conn:
        conn.execute(text(f'UPDATE analytics.figures SET "{column}" = "{column}" + {by}'))  # noqa: S608 - of ours
    (difference,) = trial.differences()["figures"]
    assert difference["stored"][column] != difference["computed"][column]


def test_what_is_read_out_of_sight_is_masked_where_rows_are_personal() -> None:
    class Person(RowModel):
        mail: str = Field("Address", personal="mask", str_length=LENGTH)
        n: int = Field("N")

    def looked_up(p: Any) -> Any:
        plain, hidden = select(p.c.n, literal("x", Text).label("who")), select(p.c.n, literal_column("mail", Text))
        return union_all(plain, select(p.c.n + 1, p.c.mail), hidden.order_by(None))

    chosen = Aggregate(looked_up, ("n",), {"n": ("n",), "who": ("w",)}, ("n", "n"))
    declaration = Dataset(
        name="who",
        table="who",
        description="x",
        rows=Person,
        key=("mail",),
        unexpected_columns="refuse",
        aggregates=(chosen,),
    )
    table = dataset_tables(declaration).aggregates["looked_up"]
    assert [bool(table.c[name].info.get("personal")) for name in ("n", "who")] == [False, True]
