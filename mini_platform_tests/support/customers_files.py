"""Files of the replaced customers system: exports of 12 columns, JSON, and the file that its own pipeline writes.

The rows of `SAMPLE` are the first ones of the public file customers-100.csv, whose people are invented.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, str]

SAMPLE = """\
Index,Customer Id,First Name,Last Name,Company,City,Country,Phone 1,Phone 2,Email,Subscription Date,Website
1,DD37Cf93aecA6Dc,Sheryl,Baxter,Rasmussen Group,East Leonard,Chile,229.077.5154,397.884.0519x718,zunigavanessa@smith.info,2020-08-24,http://www.stephenson.com/
2,1Ef7b82A4CAAD10,Preston,Lozano,Vega-Gentry,East Jimmychester,Djibouti,5153435776,686-620-1820x944,vmata@colon.com,2021-04-23,http://www.hobbs.com/
3,6F94879bDAfE5a6,Roy,Berry,Murillo-Perry,Isabelborough,Antigua and Barbuda,+1-539-402-0259,(496)978-3969x58947,beckycarr@hogan.com,2020-03-25,http://www.lawrence.com/
4,5Cef8BFA16c5e3c,Linda,Olsen,"Dominguez, Mcmillan and Donovan",Bensonview,Dominican Republic,001-808-617-6467x12895,+1-813-324-8756,stanleyblackwell@benson.org,2020-06-02,http://www.good-lyons.com/
5,053d585Ab6b3159,Joanna,Bender,"Martin, Lang and Andrade",West Priscilla,Slovakia (Slovak Republic),001-234-203-0635x76146,001-199-446-3860x3486,colinalvarado@miles.net,2021-04-17,https://goodwin-ingram.com/
"""
HEADINGS = SAMPLE.partition("\n")[0].split(",")
COLUMNS = [heading.lower().replace(" ", "_") for heading in HEADINGS]
PLACES = (("Lake Ōsaka", "Japan"), ("Port Josée", "Côte d'Ivoire"), ("North Ada", "Korea"), ("Québec", "Canada"))
DIRT: Sequence[tuple[str, Callable[[dict[str, str]], object]]] = (
    ("customer_id_required", lambda row: row.update({"Customer Id": " "})),
    ("email_email", lambda row: row.update({"Email": "no-mail"})),
    ("subscription_date_is_date", lambda row: row.update({"Subscription Date": "24/08/2020"})),
    ("country_required", lambda row: row.update({"Country": ""})),
)
"""Rules, each with a change after which a row breaks it."""


def sample() -> list[dict[str, str]]:
    """Return the rows of `SAMPLE` by heading."""
    return list(csv.DictReader(io.StringIO(SAMPLE)))


def drawn(rows: int, *, dirty: float = 0.0, seed: int = 42) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Return rows as the system's exports have them, with blanks around cells, and how many break each rule."""
    rng = random.Random(seed)  # noqa: S311 - the same rows every time
    records: list[dict[str, str]] = []
    broken: dict[str, int] = {}
    for number in range(1, rows + 1):
        first, last = rng.choice(("Ada", "José", "Søren", "Zoë")), rng.choice(("O'Neil", "Berg", "Núñez", "de la Cruz"))
        city, country = rng.choice(PLACES)
        cells = (
            *(str(number), f"{rng.getrandbits(60):015X}", first, last, f"{last}, Kim and {first}", city, country),
            rng.choice((f"{rng.randrange(200, 999)}.555.{number:04}", f"(496)555-{number:04}x58947", "")),
            rng.choice((f"001-808-555-{number:04}x{rng.randrange(999)}", "")),
            f" {first[0].lower()}{number}@example.org",
            (dt.date(2020, 1, 1) + dt.timedelta(days=rng.randrange(900))).isoformat(),
            rng.choice(("http://www.example.com/", "")),
        )
        row = dict(zip(HEADINGS, cells, strict=True))
        if rng.random() < dirty:
            rule, spoil = DIRT[number % len(DIRT)]
            spoil(row)
            broken[rule] = broken.get(rule, 0) + 1
        records.append(row)
    return records, broken


def as_csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_json_list(rows: Sequence[Row]) -> str:
    """Return a list of flat objects: numbers as numbers, null for an empty cell."""
    return json.dumps([{n: int(v) if n == "Index" else v or None for n, v in row.items()} for row in rows])


def as_nested_json(rows: Sequence[Row]) -> str:
    """Return a list of objects with nested ones, whose names the system joins by `_`: `user_address_city`."""
    return json.dumps([{"user": _nested(dict(zip(COLUMNS, row.values(), strict=True)))} for row in rows])


def _nested(row: Row) -> dict[str, Any]:
    return {
        "index": int(row["index"]),
        "id": row["customer_id"],
        "name": {"first": row["first_name"], "last": row["last_name"]},
        "company": {"name": row["company"]},
        "address": {"city": row["city"], "country": row["country"]},
        "contact": {
            "phone": {"1": row["phone_1"] or None, "2": row["phone_2"] or None},
            "email": row["email"],
            "website": row["website"] or None,
        },
        "subscription_date": row["subscription_date"],
    }


def transformed(rows: Sequence[Row]) -> str:
    """Return the file that the system's own pipeline writes: flat names, dates as times, and two columns of its own."""
    days = "subscription_date"
    return as_csv(
        [
            {n: f"{v}T00:00:00.000000" if n == days else v for n, v in zip(COLUMNS, row.values(), strict=True)}
            | {"source_file": "raw/customers-100.csv", "ingested_at": f"2025-11-29T10:11:12.{123_456_789 + number:09}"}
            for number, row in enumerate(rows)
        ]
    )
