"""The page of a dataset that nobody knew, declared in a few lines: what each word of it promises, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Double, Integer, Numeric, Text, func, select

from mini_platform import (
    Aggregate,
    Dataset,
    DeclarationError,
    Field,
    Frequency,
    Measure,
    OverTime,
    Page,
    Ranked,
    Recurring,
    RowModel,
)
from mini_platform.warehouse.page_rows import PageRows
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support import examples
from mini_platform_tests.support.pages import ListQuery, Opened, words
from mini_platform_tests.support.pages import Page as Html
from mini_platform_tests.support.trial import Declared


class Visit(RowModel):
    k: int = Field("Number")
    at: dt.datetime = Field("When it began")
    day: dt.date = Field("Day")
    guest: str = Field("Who came")
    park: str = Field("Where")
    spent: Decimal = Field("What was paid", unit="$")
    hours: float | None = Field("How long it took", unit="h")


def visits(page: Page | None, **arguments: Any) -> Dataset:
    return Dataset(
        **({"name": "visits", "table": "visits", "rows": Visit, "key": ("k",), "description": "x"} | arguments),
        page=page,
    )


ROWS = """k,at,day,guest,park,spent,hours
1,2024-01-01T08:00:00Z,2024-01-01,ann,north,10.00,1
2,2024-01-01T09:00:00Z,2024-01-01,ann,south,20.00,2
3,2024-01-02T08:30:00Z,2024-01-02,bob,north,5.00,
4,2024-01-03T08:00:00Z,2024-01-03,ann,north,1.00,3
5,2024-01-03T08:10:00Z,2024-01-03,eve,south,4.00,2
"""
FEW = Page(
    measures={"visits": "count()", "hours": "avg(hours)"},
    figures=("visits", "hours"),
    charts={
        "over-time": OverTime(lines=("hours",), bars=("visits",)),
        "parks": Ranked("park", bars=("visits",)),
        "daytime": Recurring("hour", bars=("visits",)),
        "guests": Frequency("guest", value="guest", row="visit"),
    },
)


def total(v: Any) -> Any:
    return func.sum(v.c.spent, type_=Numeric)


EVERY = Page(
    time="day",
    compare="park",
    filters=("guest",),
    measures={
        "visits": Measure("count()", note="{guests:guest}, {coverage}"),
        "guests": "distinct(guest)",
        "spent": Measure("sum(spent)", "Paid", note="{north:%} in the north"),
        "north": Measure(lambda v: total(v).filter(v.c.park == "north") / total(v)),
        "stay": Measure("avg(hours)", digits=2, note=("of this park", "of every park")),
        "shortest": "min(hours)",
        "longest": Measure(lambda v: func.max(v.c.hours), unit="h"),
        "per_guest": Measure("sum(spent) / distinct(guest)", unit="$"),
        "best": Measure("max(hours)", each="guest"),
    },
    figures=("visits", "spent", "stay", "per_guest", "best"),
    charts={
        "over-time": OverTime(
            lines=("stay",), band=("shortest", "longest"), dotted=("longest",), bars=("visits",), table=("stay", "visits"),
            title="Stays", caption="mean stay and visits",
        ),
        "paid": OverTime(lines=("spent",)),
        "best-parks": Ranked("park", ("visits",), table=("visits", "spent"), order="spent", most=1, title="Best",
                             caption="{first}: {share}."),
        "people": Ranked(("guest", "park"), table=("spent",), most=2, label="Who"),
        "weekdays": Recurring("weekday", ("visits",), table=("spent",), title="Days", caption="As ever."),
        "guests": Frequency("guest", "guest", "visit", most=2, title="Who comes back", caption="{values}, {again} again."),
    },
    empty="Nobody came.",
)  # fmt: skip


@pytest.fixture
def ask(declared: Declared, opened: Opened) -> ListQuery:
    """The page with every word."""
    declared(visits(EVERY)).load("a.csv", ROWS)
    return opened(visits(EVERY))


def drawn(ask: ListQuery, name: str, query: str = "") -> dict[str, Any]:
    match = re.search(rf'id="{name}-figure">(.*?)</script>', ask(f"/visits{query}").text, re.DOTALL)
    assert match
    return dict(json.loads(match[1]))


def test_a_few_lines_are_a_page(declared: Declared, opened: Opened) -> None:
    declared(visits(FEW)).load("a.csv", ROWS)
    ask = opened(visits(FEW))
    page = Html(ask("/visits").text)
    assert "/visits" in Html(ask("/").text).links, "it is linked wherever the dataset is named"
    assert page.read("figures") == "Visits 5 Hours 2 h"
    assert "Hours and visits In steps of 15 min; lighter bars" in page.read("over-time")
    assert "By park north has 60% of the visits." in page.read("parks")
    assert "By hour of the day Most visits from 08:00: 4." in page.read("daytime")
    assert "33% of 3 guests have more than one visit." in page.read("guests")
    assert "/api/datasets/visits/rows.csv" in page.links
    before = Html(ask("/visits?from=2024-01-02T00:00").text)
    assert before.read("figures") == "Visits 3 Hours 2.50 h"
    assert "/api/datasets/visits/rows.csv?at__gte=2024-01-02T00%3A00%3A00%2B00%3A00" in before.links


def test_figures_say_what_their_measures_are(ask: ListQuery) -> None:
    page = Html(ask("/visits?to=2024-01-05").text)
    assert page.read("figures") == (
        "Visits 5 3 guests, 3 days with data, 2 missing Paid $40.00 40% in the north Stay 2.00 h of every park "
        "Per guest $13.33 Best 2.50 h"
    )
    assert "of this park" in words(ask("/visits?park=south"))


def test_rows_are_chosen_and_compared(ask: ListQuery) -> None:
    page = Html(ask("/visits?guest=ann").text)
    assert "Visits 3 1 guest," in page.read("figures")
    assert "/api/datasets/visits/rows.csv?day__gte=2024-01-01&day__lte=2024-01-03&guest=ann" in page.links
    side_by_side = Html(ask("/visits?park=north&park=south").text)
    assert "north 3 $16.00 2.00 " in side_by_side.read("figures")
    assert "Day north h north Visits south h south Visits" in side_by_side.read("over-time")
    rows = ask("/visits?park=north&park=sou&_twin=parks.json").json()["results"]
    assert [(row["park"], row["visits"], row["days"]) for row in rows] == [("north", 3, 3), ("south", 2, 2)], (
        "and one near"
    )
    assert "There is no park x." in words(ask("/visits?park=x"))
    assert "Nobody came. Show everything" in words(ask("/visits?from=2023-01-01&to=2023-01-02"))
    assert "Nobody came." in words(ask("/visits?guest=nobody"))


def by_day(v: Any) -> Any:
    """Visits of a day."""
    return select(
        v.c.day,
        func.count().label("visits"),
        func.count(v.c.hours).label("timed"),
        func.count().filter(v.c.hours >= 2).label("long"),
        func.sum(v.c.hours).filter(v.c.hours >= 2).label("long_hours"),
        func.avg(v.c.hours, type_=Double).label("stay"),
        func.max(v.c.spent).label("most"),
        (func.coalesce(func.min(v.c.hours), 0, type_=Double) + 1).label("more"),
        func.array_length(func.array_agg(v.c.guest), 1, type_=Integer).label("guests"),
    ).group_by(v.c.day)


@pytest.mark.parametrize("functions", ["of one value", "of many"])
def test_a_group_that_is_a_row_need_not_be_grouped(declared: Declared, functions: str) -> None:
    names = ["day", "visits", "timed", "long", "long_hours", "stay", "most", "more", "guests"]
    names = names[:-1] if functions == "of one value" else names

    def daily(v: Any) -> Any:
        """Visits of a day."""
        rows = by_day(v)
        return rows.with_only_columns(*(rows.selected_columns[name] for name in names))

    aggregate = Aggregate(daily, key=("day",), columns=dict.fromkeys(names, ("x",)), chart=("day", "visits"))
    page = Page(
        of="daily", compare="park", measures={"visits": "sum(visits)", "stay": "avg(stay)"}, figures=("visits", "stay")
    )
    dataset = visits(page, key=("park", "day"), aggregates=(aggregate,))
    trial = declared(dataset)
    more = [f"{k},2024-02-0{k}T08:00:00Z,2024-02-0{k},ann,north,1,{h}" for k, h in ((6, "1e308"), (7, "1e308"), (8, 2))]
    trial.load("a.csv", ROWS + "\n".join(more))
    tables = dataset_tables(dataset)
    pinned = PageRows(dataset, page, tables).rows({"park": ["north"]})
    of_park = select(tables.production).where(tables.production.c.park == "north").subquery()
    with trial.platform.engine.connect() as conn:
        shown = conn.execute(select(pinned).order_by("day")).all()
        assert shown == conn.execute(daily(of_park).order_by("day")).all()
        assert len(shown) == 6
        sql = str(pinned.compile(conn))
        assert ("GROUP BY" in sql) == (functions == "of many"), sql
        mean = conn.scalar(select(*PageRows(dataset, page, tables).measures(pinned, ["stay"])))
    assert mean == pytest.approx(1e308 / 5 * 2), "a sum of these is no float"


def test_charts_show_what_they_name(ask: ListQuery) -> None:
    page = Html(ask("/visits").text)
    over_time = page.read("over-time")
    assert (
        "Stays All parks, 1 Jan 2024 to 3 Jan 2024, by day; mean stay and visits; the band is the shortest to the"
        in over_time
    )
    assert "Day h Visits 1 Jan 2024 1.50 2 2 Jan 2024 – 1 3 Jan 2024 2.50 2" in over_time
    low, high, *rest, line, dotted, bars = drawn(ask, "over-time")["data"]
    assert (low["y"], high["y"], line["y"], bars["y"]) == ([1], [2], [1.5, None, 2.5], [2, 1, 2])
    assert len(rest) == 2, "the band has a piece for each stretch"
    assert (dotted["line"]["dash"], bars["type"], bars["yaxis"]) == ("dot", "bar", "y2")
    assert "Paid All parks, 1 Jan 2024 to 3 Jan 2024, by day. Most in the day from 1 Jan 2024: $30.00." in page.read(
        "paid"
    )
    assert page.read("best-parks").startswith("Best south: 60%. The first 1 value.")
    assert "Park Visits Paid south 2 $24.00" in page.read("best-parks")
    assert page.read("people").startswith("By who By who Who Paid ann south $20.00 ann north $11.00 Download")
    assert page.read("weekdays").startswith("Days As ever.")
    assert "Day Paid Monday $30.00 Tuesday $5.00 Wednesday $5.00" in page.read("weekdays")
    assert page.read("guests").startswith("Who comes back 3 guests, 33% again.")
    assert "Visits Guests 1 2 2 or more 1" in page.read("guests")


def test_a_part_of_a_step_is_no_slump(ask: ListQuery) -> None:
    page = Html(ask("/visits?by=week&from=2024-01-01&to=2024-01-09").text)
    assert "lighter bars: incomplete weeks" in page.read("over-time")
    assert drawn(ask, "over-time", "?by=week")["data"][-1]["marker"]["opacity"] == [0.4]


def by_park(v: Any) -> Any:
    """Select the visits of each park and day."""
    return select(v.c.park, v.c.day, func.count().label("visits")).group_by(v.c.park, v.c.day)


def reading(v: Any, by_park: Any) -> Any:
    """Reads another."""
    return select(by_park.c.park, func.max(by_park.c.park, type_=Text).label("last")).group_by(by_park.c.park)


COMPUTED: dict[str, Any] = {
    "aggregates": (
        Aggregate(
            by_park, ("park", "day"), {"park": ("P",), "day": ("D",), "visits": ("V", "visits")}, ("day", "visits")
        ),
        Aggregate(reading, ("park",), {"park": ("P",), "last": ("L",)}),
    ),
}
ONE: dict[str, Any] = {"measures": {"n": "count()"}, "figures": ("n",)}


def of(**chart: Any) -> dict[str, Any]:
    return ONE | {"charts": chart}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"of": "by_parc", **ONE}, r"visits: page: of names by_parc, which is not an aggregate or view; did you mean by_park\?"),
    ({"time": "dya", **ONE}, r"page: time names dya, which is not a column of it; did you mean day\?"),
    ({"time": "park", **ONE}, "page: time names park, which is neither a date nor a timestamp"),
    ({"compare": "parc", **ONE}, r"page: compare names parc, which is not a column of it; did you mean park\?"),
    ({"filters": ("spent",), **ONE}, "page: spent cannot be a filter"),
    ({"filters": ("park", "gust"), **ONE}, r"filters names gust, which is not a column of it; did you mean guest\?"),
    ({"of": "reading", "filters": ("guest",), **ONE}, "filters names guest, which is not a column of it"),
    ({"of": "by_park", "filters": ("reading.last",), **ONE}, "reading.last is a column of another table, to which by_park"),
    ({"filters": "park", **ONE}, "Page: filters is 'park'; it takes a tuple of texts"),
    ({"compare": "park", "filters": ("park",), **ONE}, "Page: two choices would have the parameter park"),
    ({"measures": {"n": "total(k)"}}, r"Page: measure n: its value is 'total\(k\)'; it takes count\(\), or one of"),
    ({"measures": {"n": "sum()"}}, r"Page: measure n: sum\(\) lacks its column"),
    ({"measures": {"n": 1}}, "Page: measures is {'n': 1}; it takes names"),
    ({"measures": {"n": Measure("count()", digits=-1)}}, "Page: measure n: digits is -1"),
    ({"measures": {"n": Measure("count()", note="{m}")}}, "Page: the note of n names m, which is not a measure"),
    ({"measures": {"n": "sum(parc)"}, "figures": ("n",)}, "measure n names parc, which is not a column of it"),
    ({"measures": {"n": "sum(park)"}, "figures": ("n",)}, r"measure n: sum\(park\) is not possible, as park is not a number"),
    ({"measures": {"n": lambda v: v.c.parc}}, "Page: measures is"),
    ({"measures": {"n": Measure(lambda v: v.c.parc)}, "figures": ("n",)}, "its function names parc, which visits lacks"),
    ({"measures": {"n": Measure(lambda v: func.foo(v.c.k))}, "figures": ("n",)}, "must return a typed SQL expression"),
    ({"measures": {"n": Measure("count()", each="parc")}, "figures": ("n",)}, "each of the measure n names parc"),
    ({"measures": {"n": Measure("count()", note="{coverage}")}, "figures": ("n",)}, "{coverage} is only for pages over days"),
    ({"measures": {"n": "count()"}, "figures": ("m",)}, "Page: figures names m, which is not a measure of the page"),
    (of(a=OverTime(lines=("m",))), "Page: chart a names m, which is not a measure of the page"),
    (of(a=OverTime()), "Page: chart a shows no measure"),
    (of(a=OverTime(bars=("n",), band="n")), "Page: chart a: band is .'n',.; it takes one measure or two, around a line"),
    (of(a=Ranked("parc", bars=("n",))), r"page: chart a names parc, which is not a column of it; did you mean park\?"),
    (of(a=Ranked("park", bars=("n",), most=0)), "Page: chart a: most is 0"),
    (of(a=Ranked("park", bars=("n",), caption="{last}")), "chart a: its caption has {last}; it can have {first} and {share}"),
    (of(a=Recurring("year", bars=("n",))), "chart a: part is 'year'; it can be hour or weekday or month"),
    ({"time": "day", **of(a=Recurring("hour", bars=("n",)))}, "chart a is by hour, but"),
    ({"of": "reading", **of(a=OverTime(lines=("n",)))}, "chart a is over time, but reading has neither a date nor a timestamp"),
    (of(a=Frequency("parc", "guest", "visit")), "chart a names parc, which is not a column of it"),
    (of(choice=OverTime(lines=("n",))), "Page: chart choice: this cannot be its name"),
    (of(A=OverTime(lines=("n",))), "Page: chart A: this cannot be its name"),
    (
        {"measures": {"n": "count()", "m": Measure("count()", each="park")}, "charts": {"a": OverTime(lines=("m",))}},
        "Page: chart a shows m, which is computed for each park: that is a figure",
    ),
    (
        {"measures": {"n": "sum(spent)", "m": "sum(hours)"}, "charts": {"a": OverTime(lines=("n", "m"))}},
        r"chart a draws \$ and h on one axis",
    ),
    ({"measures": {"n": "max(park)"}, "charts": {"a": OverTime(lines=("n",))}}, "chart a draws n, which is not a number"),
    ({"compare": "park"}, "Page: without figures and charts it lists the rows of production"),
]  # fmt: skip
"""Words of a page -> the sentence that refuses them."""


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_a_page_that_cannot_be_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        dataset_tables(visits(Page(**arguments), **COMPUTED))


def test_a_page_stands_at_an_address_that_is_free() -> None:
    with pytest.raises(DeclarationError, match="dataset files: name cannot be files, which is a name of the platform"):
        visits(FEW, name="files")
    with pytest.raises(DeclarationError, match="dataset visits: page is 'x'; it takes Page"):
        visits("x")  # type: ignore[arg-type]


class Person(RowModel):
    k: int = Field("Number")
    name: str = Field("Name", personal="mask")


@pytest.mark.parametrize(
    "arguments",
    [
        {"compare": "name", **ONE},
        {"measures": {"n": "max(name)"}, "figures": ("n",)},
        {"charts": {"names": Frequency("name", "name", "row")}},
    ],
)
def test_no_page_shows_personal_data(arguments: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="name has personal data, which pages do not show"):
        dataset_tables(visits(Page(**arguments), rows=Person))


def test_the_page_of_any_dataset_has_rows_first_and_charts_that_say_something(
    declared: Declared, opened: Opened
) -> None:
    sales = examples.sales
    assert sales.realistic
    orders = [dict(sales.realistic(random.Random(n), n, dt.date(2024, 12, 31))) for n in range(20)]  # noqa: S311
    lines = [",".join(f'"{str(v).replace(chr(34), chr(34) * 2)}"' for v in order.values()) for order in orders]
    declared(sales).load("a.csv", "\n".join([",".join(orders[0]), *lines, ""]))
    page = Html(opened(sales)("/datasets/sales").text)
    charts = [str(attrs["id"]) for tag, attrs in page.tags if tag == "figure"]
    assert charts == [
        "chart-dim_customer", "chart-fact_sales", "chart-revenue_by_category", "chart-monthly_revenue", "chart-top_products",
        "chart-customer_purchases",
    ], "neither the numbers of products nor the weeks of days"  # fmt: skip
    assert page.html.index('id="rows"') < page.html.index('id="chart-fact_sales"')
