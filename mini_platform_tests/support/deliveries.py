"""A source and an inbox that know what they delivered, and the rows that the tables should have.

Both go wrong in every way they can, by a seed: the source pages by numbers, links or cursors, answers 304, 401, 429, 500, half
a page, an error in a 200, redirects, equal pages, its cursors run out, and its rows move while it is asked for them; files in
the inbox change, vanish, come again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mini_platform import (
    ApiSource,
    Csv,
    CursorPaginator,
    Dataset,
    Field,
    HeaderLinkPaginator,
    Json,
    PageNumberPaginator,
    RejectLimit,
    RowModel,
)
from mini_platform_tests.support.api_server import Reply, Request


class Thing(RowModel):
    """A thing; without a number it is rejected."""

    id: str = Field("Id")
    n: int = Field("Number")


PAGINGS = {"numbers": PageNumberPaginator(), "links": HeaderLinkPaginator(limit="limit"), "cursors": CursorPaginator()}


def things(paging: str = "numbers") -> Dataset:
    """Return the dataset of these rows, with a source that has this paging and is requested without pauses."""
    source = ApiSource(
        name="api", paging=PAGINGS[paging], rate=1e6, tries=2, backoff=0.001, longest_wait=0.01, page_size=3
    )
    return Dataset(
        name="things",
        table="things",
        description="Things.",
        rows=Thing,
        key=("id",),
        sources=(Csv(), Json(rows="items")),
        api_sources=(source,),
        reject_limit=RejectLimit(share=1),
    )


@dataclass
class Source:
    """Rows that change, and the pages of them that were delivered in full.

    Attributes:
        paging: how its pages lead to each other.
        rng: draws what goes wrong.
        rows: what it has now; a number that is None is rejected.
        wrong: how often an answer goes wrong.
        valid: the credential that it takes, where it asks for one.
        generation: of its cursors; those of an earlier one are not known any more.
        delivered: rows of whole answers, in their order.
    """

    paging: str
    rng: random.Random
    rows: list[tuple[str, int | None]]
    wrong: float = 0.0
    valid: str = "0"
    generation: int = 0
    delivered: list[tuple[str, int | None]] = field(default_factory=list)
    count: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def change(self) -> None:
        """Add rows at the end, up to a full page; or change all: rows are added anywhere, changed and removed."""
        if self.rng.random() < 0.6:
            for _ in range(3 - len(self.rows) % 3):
                self._come(len(self.rows))
            return
        for _ in range(self.rng.randint(0, 4)):
            self._come(self.rng.choice([0, len(self.rows), self.rng.randint(0, len(self.rows))]))
        for place in self.rng.sample(range(len(self.rows)), 2):
            self.rows[place] = (self.rows[place][0], next(self.count))
        if len(self.rows) > 4 and self.rng.random() < 0.5:
            del self.rows[self.rng.randrange(len(self.rows))]

    def _shift(self) -> None:
        """Add or remove rows before the next page: this sync gets some rows twice, or not at all."""
        gone = next((place for place, (_, number) in enumerate(self.rows) if number is not None), 0)
        if len(self.rows) > 4 and self.rng.random() < 0.5:
            del self.rows[gone]
        else:
            self._come(0)

    def _come(self, place: int) -> None:
        number = next(self.count)
        self.rows.insert(place, (f"r{number}", number if self.rng.random() < 0.9 else None))

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization", self.valid) != self.valid:
            return Reply({"error": "expired"}, status=401)
        if request.path == "/elsewhere":
            return self._page(request)
        if self.rng.random() < self.wrong / 2:
            self._shift()
        if self.rng.random() < self.wrong:
            return self._gone_wrong(request)
        return self._page(request)

    def _gone_wrong(self, request: Request) -> Reply:
        whole = self._page(request, delivers=False)
        query = "&".join(f"{name}={value}" for name, value in request.query.items())
        ways: list[Callable[[], Reply]] = [
            lambda: Reply(status=500),
            lambda: Reply(status=429, headers={"Retry-After": self.rng.choice(["0", "Tue, 01 Jul 2025 12:00:00 GMT"])}),
            lambda: Reply(json.dumps(whole.body).encode(), cut=7, headers=whole.headers),
            lambda: Reply(json.dumps(whole.body).encode()[:-1], headers=whole.headers),
            lambda: Reply({"error": "try later"}),
            lambda: Reply(drop=True),
            lambda: Reply(status=404),
            lambda: Reply(status=302, headers={"Location": f"/elsewhere?{query}"}),
        ]
        if self.rng.random() < 0.2:
            self.valid = str(int(self.valid) + 1)  # From here on the credential is another one.
            return Reply({"error": "expired"}, status=401)
        if self.rng.random() < 0.1:
            self.generation += 1
        return self.rng.choice(ways)()

    def _page(self, request: Request, *, delivers: bool = True) -> Reply:
        size = int(request.query.get("limit", 3))
        at = request.query.get({"numbers": "page", "links": "at", "cursors": "cursor"}[self.paging])
        generation, _, at = at.rpartition(".") if at and self.paging == "cursors" else ("", "", at)
        if generation not in ("", f"{self.generation}"):
            return Reply({"error": "no such cursor"}, status=400)
        start = 0 if at is None else (int(at) - 1) * size if self.paging == "numbers" else int(at)
        # A page in the middle may be empty, or the one before it again; but for numbers, whose first empty page is the end.
        step = 0 if self.paging != "numbers" and start and self.rng.random() < 0.1 else size
        part = (
            self.rows[start : start + step]
            if step or self.rng.random() < 0.5
            else self.rows[max(0, start - size) : start]
        )
        more = start + step < len(self.rows)
        # Where nothing was passed, what is asked for next is written otherwise, as a source does that filters its rows.
        following = f"{start + step}" if step else f"0{at}"
        body: dict[str, Any] = {"items": [{"id": name, "n": number} for name, number in part]}
        headers = {}
        if self.paging == "cursors":
            body["next"] = f"{self.generation}.{following}" if more else None
        if self.paging == "links" and more:
            headers["Link"] = f'<?at={following}&limit={size}>; rel="next"'
        text = json.dumps(body)
        headers["ETag"] = f'"{hashlib.sha256(text.encode()).hexdigest()[:12]}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            answer_headers = headers if self.rng.random() < 0.5 else {"ETag": headers["ETag"]}
            return Reply(status=304, headers=answer_headers)
        if delivers:
            self.delivered += part
        return Reply(body, headers=headers)


NAMES = ("a", "b#1", "c d", "é", "日本", "%23", "x..", "=1+1", "quo'te", "a?b", "A", "semi;colon", "back\\slash")


@dataclass
class Files:
    """Files of an inbox, and the rows that they should have brought: only files that were unchanged for two looks.

    Attributes:
        rng: draws what happens to them.
        standing: bytes by name.
        delivered: contents in the order of their arrival, each with its name; the same content again is no arrival.
    """

    rng: random.Random
    standing: dict[str, bytes] = field(default_factory=dict)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    old: dict[str, list[bytes]] = field(default_factory=dict)
    count: itertools.count[int] = field(default_factory=itertools.count)

    def change(self, *, may_vanish: bool = True) -> None:
        """Change some files: add, change, remove, or restore an earlier content."""
        for _ in range(self.rng.randint(1, 4)):
            name = self.rng.choice(NAMES) + ".csv"
            known = self.old.setdefault(name, [])
            draw = self.rng.random()
            if draw < 0.25 and may_vanish:
                self.standing.pop(name, None)
            elif draw < 0.5 and known:
                self.standing[name] = self.rng.choice(known)
            else:
                known.append(self._content(name))
                self.standing[name] = known[-1]

    def _content(self, name: str) -> bytes:
        number = next(self.count)
        rows = [f'"{name}/{place}",{number}' for place in range(self.rng.randint(0, 3))]
        return "\n".join(["id,n", *rows, f'"{name}/bad",x{number}', ""]).encode()

    def record_fetched(self) -> None:
        """Record the files that are fetched now: those that differ from the last content under their name."""
        last = dict(self.delivered)
        new = [(name, data) for name, data in sorted(self.standing.items()) if last.get(name) != data]
        self.delivered += new

    def production(self) -> dict[str, int]:
        """Return the expected rows: the last that arrived of each key."""
        rows = {}
        for _, data in self.delivered:
            for line in data.decode().splitlines()[1:-1]:
                name, _, number = line.rpartition(",")
                rows[name.strip('"')] = int(number)
        return rows
