"""The site that the walk visits: drawn datasets, those with their own pages, and one with hostile texts everywhere."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from mini_platform import (
    Aggregate,
    Dataset,
    DeclarationError,
    Field,
    Json,
    Measure,
    OverTime,
    Page,
    Ranked,
    RejectLimit,
    RowModel,
    View,
    rule,
)
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.declarations import cells, draw
from mini_platform_tests.declarations.model import KEY_ID, SECRET
from mini_platform_tests.support import drawn
from mini_platform_tests.support.databases import copied, set_environment
from mini_platform_tests.support.pages import measure
from mini_platform_tests.support.strings import NAUGHTY
from mini_platform_tests.support.trial import Trial

DRAWN = 3
"""Number of drawn datasets."""
EVIL = "<x-evil>&amp;{{ 7 * 7 }}%s"
HOSTILE = (
    *dict.fromkeys(NAUGHTY),
    EVIL,
    "</td></tr></table></main><x-evil>",
    "2026-01-01 10:00:00 <x-evil>",
    "https://example.org/\"x-evil='1'><x-evil>",
    "l" * 500,
)
"""Texts that have another meaning where they are not escaped."""


class Hostile(RowModel):
    k: int = Field(f"{EVIL} number", unit="<b>")
    kind: str = Field('"><x-evil> kind', unit='"&quot;')
    note: str | None = Field("' x-evil='1 note")
    n: float | None = Field("{{ evil }} number", unit="</script><x-evil>")
    price: Decimal = Field("=1+1", unit="$", decimals=4)
    day: dt.date = Field("&lt;x-evil&gt;")
    at: dt.datetime | None = Field("\u202eat\u202c")
    flag: bool = Field("%s %(x)s")
    stamp: str = Field("A text that begins as a moment does")
    items: list[float] | None = Field("\\N")

    @rule(f"is {EVIL}", column="n", severity="warn")
    def is_evil(col: Callable[[str], Any]) -> Any:
        return col("n") != 3

    @rule(f"'\"><x-evil> {EVIL}")
    def all_evil(col: Callable[[str], Any]) -> Any:
        return col("k") != 5


def evil_kinds(h: Any) -> Any:
    """<x-evil> kinds &amp; "their" 'numbers' {{ 7 * 7 }}."""
    total = func.sum(h.c.price).label("total")
    return select(h.c.kind, h.c.flag, func.count().label("rows"), total).group_by(h.c.kind, h.c.flag)


def evil_days(h: Any) -> Any:
    """<x-evil> days."""
    return select(h.c.day, func.max(h.c.n).label("most")).group_by(h.c.day)


def evil_rows(h: Any) -> Any:
    """<x-evil> rows."""
    return select(h.c.note, h.c.n)


HOSTILE_DATASET = Dataset(
    name="hostile", table="hostile", description=f"{EVIL} </p><x-evil>", owners=["team:evil"], rows=Hostile, key=("k",),
    sources=(Json(),), reject_limit=RejectLimit(share=0.9, min_rows=0),
    aggregates=(
        Aggregate(evil_kinds, key=("kind", "flag"), chart=("kind", "total"), columns={
            "kind": (f"{EVIL} kind",), "flag": ("Flag",), "rows": ("Rows",), "total": (f"{EVIL} total", "</script><b>"),
        }),
        Aggregate(evil_days, key=("day",), chart=("day", "most"), columns={"day": ("Day",), "most": (EVIL, "<b>")}),
    ),
    views=(View(evil_rows, chart=("note", "n"), columns={"note": ("Note",), "n": ("N", "{{ b }}")}),),
    page=Page(
        time="day", filters=("kind",),
        measures={
            "rows": Measure("count()", EVIL, note=f"{EVIL} {{most}}"), "most": Measure("max(n)", "<b>most</b>"),
            "total": "sum(price)",
        },
        figures=("rows", "most", "total"),
        charts={
            "evil-time": OverTime(lines=("most",), bars=("total",), title=EVIL, caption=EVIL),
            "evil-kinds": Ranked(("kind", "note"), table=("rows", "most"), most=10, title=EVIL),
            "evil-bars": Ranked("kind", bars=("rows",)),
        },
        empty=f"{EVIL} none.",
    ),
)  # fmt: skip


def hostile_rows() -> Iterator[dict[str, Any]]:
    for k in range(3 * len(HOSTILE)):
        words = HOSTILE[k % len(HOSTILE)]
        yield {
            "k": k, "kind": words, "note": words if k % 4 else None, "n": k / 7 if k % 5 else None, "flag": k % 3 == 0,
            "stamp": "2026-01-01 10:00:00 <x-evil>",
            "price": f"{k}.{k % 10000:04}", "day": f"2026-01-{k % 28 + 1:02}", "items": [k / 2, 1e-7] if k % 2 else None,
            "at": f"2026-02-{k % 28 + 1:02}T0{k % 10}:00:00.5Z" if k % 3 else None,
        }  # fmt: skip


def fill_hostile(trial: Trial) -> None:
    """Load files of every status, with hostile names, headers and cells."""
    rows = list(hostile_rows())
    trial.load(
        f"{EVIL}.json",
        json.dumps([*rows[:100], *({**row, "n": row["kind"], "x-evil>": "<x-evil>"} for row in rows[:60])]),
    )
    measure(trial)
    trial.load(
        "' onmouseover='evil()' x='.json", json.dumps([{**row, "note": "<x-evil>", "<x-evil>": 1} for row in rows[50:]])
    )
    trial.load(
        "' onmouseover='evil()' x='.json", json.dumps([{**row, "note": "<x-evil>", "<x-evil>": 1} for row in rows[50:]])
    )
    trial.load("refused <x-evil>.json", json.dumps([{"<x-evil>": "<x-evil>", '"': 1}]))
    failed = trial.load("failed.json", json.dumps([{**rows[0], "day": "<x-evil>"}]))
    waiting = trial.land("{{ waiting }}.json", json.dumps(rows[:1]) + "\n")
    with trial.platform.engine.begin() as conn:
        say = "UPDATE ops.files SET status = 'failed', error = :e WHERE file_id = :f"
        conn.execute(text(say), {"e": f"{EVIL} </div>", "f": failed.file_id})
        conn.execute(
            text("UPDATE ops.files SET arrived_at = now() - interval '3 days 5.5 h' WHERE file_id = :f"), {"f": waiting}
        )


def fill_own(trials: Mapping[str, Trial]) -> None:
    """Load a few rows with hostile texts into the datasets with their own pages."""
    days = [dt.date(2026, 1, 1) + dt.timedelta(days=3 * n) for n in range(40)]
    stations = ["A", *(words[:60] for words in HOSTILE[::6])]
    lines = [
        (s, d, (n + m) / 7 - 2 if n % 5 else "", m % 7 / 3)
        for n, s in enumerate(stations)
        for m, d in enumerate(days[: 40 - n])
    ]
    trials["weather"].load(
        '"<x-evil>.csv', as_csv(("station_id", "date", "temp_c", "precip_mm"), [*lines, ("B", "<x-evil>", 1, 2)])
    )
    rng = random.Random(1)  # noqa: S311
    orders = [dict(all_datasets()["sales"].realistic(rng, n, dt.date(2024, 12, 31))) for n in range(90)]  # type: ignore[misc]
    for n, order in enumerate(orders):
        order |= {"product_title": HOSTILE[n % 30][:400], "product_category": HOSTILE[n % 5][:90]}
    orders.append({**orders[0], "order_id": "short", "quantity": "=1+1"})
    trials["sales"].load("<x-evil>.csv", as_csv(list(orders[0]), [list(order.values()) for order in orders]))
    person = {"first_name": EVIL, "last_name": EVIL, "email": "a@example.org", "subscription_date": "2024-01-01"}
    people = [{**person, "customer_id": f"C{n}", "company": words, "city": words, "website": words,
               "country": HOSTILE[n % 20][:100]}
              for n, words in enumerate(HOSTILE)]  # fmt: skip
    trials["customers"].load("<x-evil>.json", json.dumps([*people, {**people[0], "subscription_date": "<x-evil>"}]))
    things = [
        {"id": str(n), "title": words, "value": n / 3 if n % 3 else None, "body": words}
        for n, words in enumerate(HOSTILE)
    ]
    trials["records"].load("<x-evil>.json", json.dumps(things))
    series = [{"time_stamp": f"2026-01-0{n}T00:00:00Z", "data": [n, n / 3, -1.5e3]} for n in range(1, 7)]
    trials["signals"].load(
        "<x-evil>.jsonl", "".join(f"{json.dumps(one)}\n" for one in [*series, {"time_stamp": "<x-evil>"}])
    )


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    return buffer.getvalue()


def draw_some(rng: random.Random) -> dict[str, tuple[draw.Plan, Dataset]]:
    """Return drawn datasets whose names do not collide."""
    drawn_datasets: dict[str, tuple[draw.Plan, Dataset]] = {}
    used_names: set[str] = set()
    while len(drawn_datasets) < DRAWN:
        name = f"drawn_{len(drawn_datasets)}"
        plan = draw.draw(rng, name)
        computed = {one.name for one in (*plan.aggregates, *plan.views)}
        if not computed or computed & used_names:
            continue
        try:
            dataset = draw.declare(plan.source, f"walk_{name}")
            dataset_tables(dataset)
        except (DeclarationError, ValueError, TypeError):
            continue
        drawn_datasets[name] = plan, dataset
        used_names |= computed
    return drawn_datasets


@dataclass
class World:
    """The site that the walk visits."""

    site: Site
    ask: TestClient
    reached: Counter[tuple[str, str]]
    routes: set[tuple[str, str]]


@contextmanager
def served(server: str, template: str, folder: Path) -> Iterator[World]:
    """Load all of it, and serve it."""
    rng = random.Random(drawn.seed())  # noqa: S311
    plans = draw_some(rng)
    datasets = {**all_datasets(), "hostile": HOSTILE_DATASET, **{name: dataset for name, (_, dataset) in plans.items()}}
    with pytest.MonkeyPatch.context() as patch, copied(server, template) as url:
        set_environment(patch, url, folder)
        patch.setenv("MINI_PLATFORM_PII_KEYS", f"{KEY_ID}:{SECRET}")
        (folder / "home").mkdir()
        for name in datasets:
            (folder / "data" / name).mkdir(parents=True)
        platform = Platform(datasets)
        platform.settings.api_reads = platform.settings.api_writes = 1_000_000
        for refused in create_all(platform.engine, datasets.values()).values():
            raise refused
        trials = {name: Trial(platform, dataset) for name, dataset in datasets.items()}
        fill_own(trials)
        fill_hostile(trials["hostile"])
        for name, (plan, _) in plans.items():
            for number in range(4):
                file = cells.write(rng, plan, f"file {number}")
                trials[name].load(file.name, file.data)
        for trial in trials.values():
            measure(trial)
        with platform.engine.begin() as conn:
            conn.execute(text("UPDATE ops.files SET loaded_at = now() - interval '3 days 2 h' WHERE dataset = 'sales'"))
        site = Site(platform, datasets)
        app = create_app(site)
        reached: Counter[tuple[str, str]] = Counter()

        async def recording(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if route := scope.get("route"):
                reached[scope["method"], route.path] += 1

        with TestClient(recording, base_url="http://127.0.0.1:8000", follow_redirects=False) as client:
            yield World(site, client, reached, set(routes(app.routes)))
        site.close()
        platform.engine.dispose()


def routes(items: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield method and path template of each route, including those of included routers."""
    for route in items:
        yield from ((method, route.path) for method in getattr(route, "methods", None) or () if method != "HEAD")
        if within := getattr(route, "original_router", None):
            yield from routes(within.routes)
