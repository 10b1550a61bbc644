"""A walk over every page and operation, found by following links: what is shown is what SQL says, and nothing is markup.

What is served: datasets that are drawn anew each day, the ones with pages of their own, and one that is made of hostile texts
wherever a text can stand. Each `data-figure` is asked of the database (`figures.py`); each listing of the API is one answer as
JSON, as CSV and as SQL has it; each form is filled with hostile texts. Whatever route is never reached fails.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

import pytest
from sqlalchemy import Connection, text

from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.pages import rendering, svg
from mini_platform.web.pages.listing import ROWS
from mini_platform_tests.support import drawn
from mini_platform_tests.support.figures import FIGURES, LEDGER, OF_FILES, At, Params, Read, chosen, masked, rejects
from mini_platform_tests.support.pages import Page, keeps_to_itself
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.tree import Node, Tree, difference, download_links, read, squeezed, squeezed_all
from mini_platform_tests.support.world import EVIL, HOSTILE, World, served

QUALITY = "analytics.quality_report"
PAGED = ("table", "ledger", "rejects", "rejected")
"""Figures that are listings: a page of them is shown."""
ALIKE, TOGETHER, OF_A_PLACE = 1, 2, 6
"""Pages that are looked at: of those that differ by the values of their parameters alone; parameters; pages of a path."""


def vocabulary() -> tuple[set[str], set[str]]:
    """Elements and attributes that our own templates have: no page has others."""
    folder = PROJECT / "mini_platform" / "web" / "pages"
    ours = [*(folder / "templates").glob("*.html"), Path(str(rendering.__file__)), Path(str(svg.__file__))]
    html = "\n".join(path.read_text() for path in ours)
    attributes = set(re.findall(r"""[\s"}]([a-z][a-z-]*)(?==)""", html.lower()))
    without_value = {"defer", "disabled", "required", "multiple", "selected", "autofocus", "data-live", "data-submit"}
    return set(re.findall(r"<([a-z][a-z0-9]*)", html)), attributes | without_value


TAGS, ATTRIBUTES = vocabulary()


def holds_no_markup(page: Page) -> None:
    """No element, attribute or address comes from a value."""
    keeps_to_itself(page)
    for tag, attrs in page.tags:
        assert tag in TAGS, tag
        assert attrs.keys() <= ATTRIBUTES, attrs.keys() - ATTRIBUTES
        href = str(attrs.get("href") or "")
        ours = href.startswith(("/", "#", "http://127.0.0.1:1")) or not href
        assert ours or (href.startswith(("http://", "https://")) and "nofollow" in str(attrs.get("rel"))), href
        assert not href.startswith(("//", "/\\")), href
    for script in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.html, re.DOTALL):
        assert not re.search("[<>&]", script)
        for value in texts(json.loads(script)):
            assert not re.search("[<>]", value.replace("%{customdata[0]}<br>%{customdata[1]}", "")), value


def texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list | dict):
        for item in part.values() if isinstance(part, dict) else part:
            yield from texts(item)


@dataclass
class Walk:
    """Goes from page to page.

    Attributes:
        world: in which.
        conn: where SQL is run.
        rng: which of several links is followed.
        wrong: messages on what is wrong.
        figures: names of those that were compared, and how often.
        api: addresses of the API that pages lead to.
        forms: that were sent.
    """

    world: World
    conn: Connection
    rng: random.Random
    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    api: dict[str, None] = field(default_factory=dict)
    forms: set[Any] = field(default_factory=set)
    alike: Counter[Any] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    pages: int = 0

    def go(self) -> None:
        """Follow every link from the first page on."""
        waiting = deque([("/", True)])
        while waiting:
            address, is_link = waiting.popleft()
            links = list(self.visit(address, is_link=is_link))
            self.rng.shuffle(links)
            waiting += links

    def wants(self, address: str) -> bool:
        """Return True for an address that is not known, unless enough are that are like it."""
        if address in self.known:
            return False
        self.known.add(address)
        parts = urlsplit(address)
        params = parse_qsl(parts.query, keep_blank_values=True)
        of = dict(params).get("dataset")
        place = re.sub(r"^/files/\d+", "/files/N", parts.path), of
        names = frozenset(name for name, _ in params) - {"dataset"}
        self.alike[place, names] += 1
        self.alike[place] += 1
        return len(names) <= TOGETHER and self.alike[place, names] <= ALIKE and self.alike[place] <= OF_A_PLACE

    def visit(self, address: str, *, is_link: bool) -> Iterator[tuple[str, bool]]:
        """Look at a page; yield the addresses to which it leads."""
        answer = self.world.ask.get(address, headers={"Accept": "text/html"})
        while answer.status_code == 303:
            answer = self.world.ask.get(answer.headers["location"], headers={"Accept": "text/html"})
        if answer.status_code >= 500 or (is_link and answer.status_code != 200):
            self.wrong.append(
                f"{address}: {answer.status_code} {answer.text[:300] if answer.status_code < 500 else ''}"
            )
            return
        if not answer.headers["content-type"].startswith("text/html"):
            return
        tree = Tree(answer.text).root
        for node in tree.all("link", "script"):
            asset = urljoin(address, node.attrs.get("href") or node.attrs.get("src") or address)
            if self.wants(asset):
                yield asset, True
        if address.startswith("/api/"):  # The reference, a page of its own.
            return
        self.pages += 1
        address = str(answer.request.url.raw_path.decode())
        try:
            page = Page(answer.text)
            holds_no_markup(page)
        except AssertionError as error:
            self.wrong.append(f"{address}: markup: {str(error)[:300]}")
            return
        if answer.status_code == 200:
            self.compare(address, tree)
        yield from self.leads(address, page, tree)

    def leads(self, address: str, page: Page, tree: Node) -> Iterator[tuple[str, bool]]:
        """Yield the links of a page, and its forms, filled; addresses of tables as data are noted."""
        for link in page.links:
            there = link.partition("#")[0]
            if not there.startswith("/") or there.startswith("/help/") or not self.wants(there):
                continue
            if there.startswith("/api/datasets/") or "_twin=" in there:
                self.api[there] = None
            else:
                yield there, True
        lists = {
            node.attrs["id"]: [str(one.attrs["value"]) for one in node.all("option")] for node in tree.all("datalist")
        }
        for form in tree.all("form"):
            if form.attrs.get("method") == "get":
                yield from ((filled, False) for filled in self.filled(address, form, lists))

    def filled(self, address: str, form: Node, lists: Mapping[str | None, list[str]]) -> Iterator[str]:
        """Addresses of a form: as it stands with something of its lists, and twice with hostile texts in it."""
        named = [node for node in form.all("input", "select") if node.attrs.get("name")]
        hidden = [(n.attrs["name"], n.attrs["value"]) for n in named if n.attrs.get("type") == "hidden"]
        fields = [(str(n.attrs["name"]), n) for n in named if n.attrs.get("type") != "hidden"]
        path = urlsplit(address).path
        adds = any(name in dict(hidden) for name, _ in fields)  # One more value beside those that are chosen.
        if (
            (hidden and not adds)
            or len(hidden) > 1
            or (key := (path, adds, *(name for name, _ in fields))) in self.forms
        ):
            return
        self.forms.add(key)
        for words in ("", *self.rng.sample(HOSTILE, 2)):
            params = list(hidden)
            for name, node in fields:
                options = [option.attrs.get("value", option.words) for option in node.all("option")]
                known = [one for one in lists.get(node.attrs.get("list"), ()) if (name, one) not in params]
                chosen_here = self.rng.choice(options or known) if options or (known and not words) else words
                params.append((name, chosen_here or node.attrs.get("value") or ""))
            yield f"{path}?{urlencode(params)}"

    def compare(self, address: str, tree: Node) -> None:
        """Ask the database for each figure of a page."""
        parts = urlsplit(address)
        params = [(n, v) for n, v in parse_qsl(parts.query) if n != "_twin"]
        within = re.match(r"/datasets/(?P<dataset>[^/]+)|/files/(?P<file_id>\d+)", parts.path)
        path_parameters = {n: v for n, v in (within.groupdict() if within else {}).items() if v}
        for node in tree:
            name = node.attrs.get("data-figure")
            if name is None:
                is_number = node.tag == "td" and "number" in str(node.attrs.get("class")).split()
                if is_number and node.figure is None:
                    self.wrong.append(f"{address}: a number that is no figure: {node.words}")
                continue
            if f"{name} {node.attrs.get('data-of')}" in FIGURES:
                name = f"{name} {node.attrs['data-of']}"
            headings = [squeezed(cell.words) for head in node.all("thead") for cell in head.all("th")]
            at = At(self.conn, self.world.site.datasets, unquote(parts.path), path_parameters, params,
                    node.attrs.get("data-of"), node.attrs.get("data-value"), headings)  # fmt: skip
            if name not in FIGURES:
                self.wrong.append(f"{address}: no question is known for the figure {name}")
                continue
            self.figures[name] += 1
            shown, right = read(node), squeezed_all(FIGURES[name](at))
            if isinstance(right, list):
                for link in download_links(node):
                    self.first[link] = [str(row[0]) for row in shown]
                    self.counts[link] = sum(not headings or len(row) == len(headings) for row in right)
            hidden_key = (
                any(column.personal for column in at.dataset.columns if column.name in at.dataset.key)
                if name == "table"
                else False
            )
            if name in PAGED:
                right = self.page_of(shown, right, params, is_sorted="ordering" in dict(params) or hidden_key)
            if name == "chart":
                self.drawn(address, tree, str(at.of), shown)
            if shown != right:
                self.wrong.append(f"{address}: {name} of {at.of} {at.value}: {difference(shown, right)}")

    def page_of(self, shown: Read, right: Read, params: Params, *, is_sorted: bool) -> Read:
        """Return the rows that should stand on a page: where another order was requested, that many of all rows."""
        if "cursor" not in dict(params) and not is_sorted:
            return right[:ROWS]
        if is_sorted:
            enough = "cursor" in dict(params) or len(shown) == min(ROWS, len(right))
            return shown if enough and not Counter(map(tuple, shown)) - Counter(map(tuple, right)) else right
        starts = [i for i, row in enumerate(right) if shown and row == shown[0]]
        return next((shown for i in starts if right[i : i + len(shown)] == shown), right)

    def drawn(self, address: str, tree: Node, of: str, shown: Read) -> None:
        """Compare what is drawn with what its table says."""
        (script,) = (node for node in tree.all("script") if node.attrs.get("id") == f"{of}-figure")
        values = json.loads("".join(map(str, script.parts)))["data"][0]["y"]
        right = [cell.replace(",", "").replace("−", "-") for _, cell in shown if cell != "–"]
        if [value for value in values if value is not None] != pytest.approx([float(cell) for cell in right], rel=5e-3):
            self.wrong.append(f"{address}: {of} draws {values}, and says {right}")

    # The API

    def answers(self) -> None:
        """Each listing that a page leads to: as JSON, as CSV and as the database has it."""
        for as_json, as_csv in dict.fromkeys(map(endings, self.api)):
            rows, exported = self.results(as_json), self.world.ask.get(as_csv)
            for address in (as_json, as_csv):
                if len(rows) != self.counts.get(address, len(rows)):
                    self.wrong.append(f"{address}: {len(rows)} rows, where its table has {self.counts[address]}")
            names = [squeezed(next(iter(row.values())))[:8] for row in rows]
            if "_twin=" in as_json and not all(map(str.startswith, self.first.get(as_json, names), names)):
                self.wrong.append(f"{as_json}: {names}, where its table has {self.first[as_json]}")
            csv_rows = [list(row.items()) for row in csv.DictReader(io.StringIO(exported.text, newline=""))]
            withheld = dict(csv_rows[0]).get("_withheld", "").split() if csv_rows else []
            csv_rows = [
                [compact(cell) if cell[:1] in "[{" else cell for name, cell in row if name != "_withheld"]
                for row in csv_rows
            ]
            right = [[in_csv(value) for name, value in row.items() if name not in withheld] for row in rows]
            if shown := {row[name] for row in rows for name in withheld} - {"***", None}:
                self.wrong.append(f"{as_csv}: {withheld} are withheld, and {shown} are shown")
            if exported.status_code != 200 or csv_rows != right:
                self.wrong.append(f"{as_csv}: CSV against JSON: {exported.status_code} {difference(csv_rows, right)}")
            if match := re.fullmatch(r"/api/datasets/(\w+)/(\w+)(?:/(\w+))?/", urlsplit(as_json).path):
                self.listing(as_json, *match.groups(), rows)

    def results(self, address: str) -> list[dict[str, Any]]:
        """All rows of a listing, page after page."""
        rows, following = [], address
        while following:
            answer = self.world.ask.get(following)
            if answer.status_code != 200:
                self.wrong.append(f"{following}: {answer.status_code} {answer.text[:300]}")
                break
            rows += answer.json()["results"]
            following = answer.json().get("next")
        return rows

    def listing(
        self, address: str, dataset: str, kind: str, computed: str | None, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """A listing of the API is what the database has."""
        params = parse_qsl(urlsplit(address).query)
        of = self.world.site.datasets[dataset]
        tables = dataset_tables(of)
        if kind == "rejects":
            base, search = rejects(of), ("file", "column", "value", "rule", "sentence")
        elif kind == "files":
            base, search = f"{LEDGER} WHERE dataset = '{dataset}'", OF_FILES
        elif kind == "quality":
            base, search = f"SELECT * FROM {QUALITY} WHERE dataset = '{dataset}'", ("table_name", "column_name")  # noqa: S608
        else:
            table = tables.production if kind == "rows" else (tables.aggregates | tables.views)[str(computed)]
            base = masked(table, clear=("personal", "true") in params)
            search = of.searched if kind == "rows" else ()
        columns = [*self.conn.execute(text(f"SELECT * FROM ({base}) t LIMIT 0")).keys()]  # noqa: S608
        statement, binds = chosen(base, columns, search, params)
        right = [row._mapping for row in self.conn.execute(text(statement), binds)]
        names = [name for name in (rows[0] if rows else ()) if name in columns]
        reported, expected = (sorted([[plain(row[name]) for name in names] for row in some]) for some in (rows, right))
        if reported != expected or len(rows) != len(right):
            self.wrong.append(f"{address}: API against SQL: {difference(reported, expected)}")

    def operations(self) -> None:
        """Each operation of the document: plain, by its examples, and with a hostile text wherever a text can be."""
        for address in ("/docs", "/redoc", "/api/redoc/", "/api/schema/"):  # They lead to it, and are not in it.
            assert self.world.ask.get(address).is_redirect
        paths = self.world.ask.get("/openapi.json").json()["paths"]
        for path, item in paths.items():
            for method, operation in item.items():
                examples = {(p["in"], p["name"]): sample(p) for p in operation.get("parameters", ())}
                within = {name: value for (place, name), value in examples.items() if place == "path"}
                query = {name: value for (place, name), value in examples.items() if place == "query"}
                words, wait = self.rng.choice(HOSTILE)[:60], {"wait": "0"} if "wait" in query else {}
                query, hostile = query | wait, dict.fromkeys(query, words) | wait
                for place, params in (
                    (within, wait),
                    (within, query),
                    (within, hostile),
                    (dict.fromkeys(within, words), wait),
                ):
                    address = path
                    for name, value in place.items():
                        address = address.replace(
                            f"{{{name}}}", re.sub("[^A-Za-z0-9_]", lambda c: "%" + c[0].encode().hex(), str(value)[:9])
                        )
                    body = {"json": [{words: words}]} if method == "post" else {}
                    answer = self.world.ask.request(method, address, params=params, **body)
                    if answer.status_code >= 500:
                        self.wrong.append(f"{method} {address} {params}: {answer.status_code}")

    def changes(self) -> None:
        """Post each form by which pages can change something, at last."""
        ask = self.world.ask
        state = Tree(ask.get("/", headers={"Accept": "text/html"}).text).root.all("body")[0].attrs["data-state"]
        assert ask.get("/state").json()["state"] == state
        sent = ask.post(
            "/datasets/hostile/files", files={"file": ('<x-evil>".json', json.dumps([{"<x-evil>": EVIL}]).encode())}
        )
        assert sent.status_code == 303, sent.text
        assert ask.post("/files/1/reprocess").status_code == 303
        assert ask.post("/datasets/weather/bad-rows").status_code == 303
        wrong = ask.post("/login", data={"key": EVIL, "then": EVIL}, headers={"Accept": "text/html"})
        assert wrong.status_code == 401
        assert ask.post("/logout").status_code == 303
        assert ask.get(f"/dagster/{EVIL}").status_code == 303
        for page in (
            wrong.text,
            *(
                ask.get(one, headers={"Accept": "text/html"}).text
                for one in (sent.headers["location"], "/files/1", "/login?then=" + EVIL)
            ),
        ):
            holds_no_markup(Page(page))


def endings(address: str) -> tuple[str, str]:
    """The address of a listing as JSON, and as CSV."""
    if "_twin=" in address:
        return address.replace(".csv", ".json"), address.replace(".json", ".csv")
    path, mark, query = address.partition("?")
    path = path.removesuffix("/").removesuffix(".csv")
    return f"{path}/{mark}{query}", f"{path}.csv{mark}{query}"


def plain(value: Any) -> str:
    """A value of the API or of the database, written alike."""
    match value:
        case Decimal():
            return f"{value:f}"
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case dt.date():
            return value.isoformat()
        case dict():
            return json.dumps(value, sort_keys=True)
        case list():
            return f"[{', '.join(map(plain, value))}]"
        case float():
            return repr(value + 0.0)
    return str(value)


def in_csv(value: Any) -> str:
    """A value of JSON as CSV has it."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(escape_formula(value)) if isinstance(value, str) else repr(value)


def compact(cell: str) -> str:
    try:
        return json.dumps(json.loads(cell), sort_keys=True)
    except ValueError:
        return cell


def sample(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    candidates = [
        parameter.get("example"),
        *schema.get("enum", ()),
        *schema.get("examples", ()),
        schema.get("default"),
        "1",
    ]
    value = next(one for one in candidates if one is not None)
    return ",".join(value) if isinstance(value, list) else str(value)


@pytest.mark.timeout(600)  # 30 s of work, on a machine that may have other things to do.
def test_every_page_says_what_the_database_says(
    server: str, template: str, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    with served(server, template, tmp_path) as world, world.site.platform.engine.connect() as conn:
        walk = Walk(world, conn, random.Random(drawn.seed()))  # noqa: S311
        walk.go()
        walk.answers()
        conn.rollback()
        walk.operations()
        walk.changes()
    summary = (
        f"{walk.pages} pages, {sum(walk.figures.values())} figures, {len(walk.api)} listings by seed {drawn.seed()}"
    )
    record_property(drawn.REPORT, f"the walk: {summary}")
    assert not walk.wrong, f"{len(walk.wrong)} of {summary}:\n" + "\n".join(walk.wrong[:200])
    assert sorted(FIGURES.keys() - walk.figures.keys()) == [], "figures that no page has"
    assert sorted(world.routes - world.reached.keys()) == [], "routes that were never reached"
