"""The API's rows of a drawn dataset: filters, sorting, pages and exports, held against the model."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import httpx

from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.declarations.draw import Col
from mini_platform_tests.declarations.model import World
from mini_platform_tests.support.trial import Trial
from mini_platform_tests.support.web import serving

PAGE = 3


@contextmanager
def client(trial: Trial) -> Iterator[httpx.Client]:
    """A client of the web process's app, which serves the dataset alone."""
    site = Site(trial.platform, {trial.dataset.name: trial.dataset})
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as api_client:
        yield api_client
    site.close()


def differences(api: httpx.Client, world: World, rng: random.Random) -> Iterator[str]:
    """Yield what the API gives that the model does not have."""
    plan = world.plan
    rows = [one.values for one in world.production().values()]
    columns = [c for c in plan.stored if "system" not in c.options]
    right = sorted(repr([_shown(c, row[c.name]) for c in columns]) for row in rows)
    path = f"/api/datasets/{plan.name}/rows"

    def texts_of(results: list[Mapping[str, Any]]) -> list[str]:
        return sorted(repr([_read(c, row[c.name]) for c in columns]) for row in results)

    sorts = [c for c in columns if c.options.get("personal") not in ("mask", "hash")]
    ordering = {"ordering": rng.choice(("", "-")) + rng.choice(sorts).name} if sorts else {}
    page = api.get(f"{path}/", params={"limit": PAGE, **ordering}).raise_for_status().json()
    walked = list(page["results"])
    while page["next"] and len(walked) <= len(rows):
        page = api.get(page["next"]).raise_for_status().json()
        walked += page["results"]
    if texts_of(walked) != right:
        yield f"api, pages: {ordering}: {texts_of(walked)}, not {right}"
    columns, withheld = sorts, {c.name for c in columns if c not in sorts}
    right = sorted(repr([_shown(c, row[c.name]) for c in columns]) for row in rows)
    exported = list(csv.DictReader(io.StringIO(api.get(f"{path}.csv").raise_for_status().text, newline="")))
    if withheld and any(not withheld <= set(row["_withheld"].split()) for row in exported):
        yield f"api, export: withheld is {exported[0]['_withheld']}, not {withheld}"
    if (results := texts_of([{c.name: _from_csv(c, row[c.name]) for c in columns} for row in exported])) != right:
        yield f"api, export: {results}, not {right}"
    filters = [c for c in sorts if c.type in ("str", "int", "Decimal", "dt.date", "dt.datetime", "bool")]
    if rows and filters:
        column = rng.choice(filters)
        value = rng.choice(rows)[column.name]
        parameters = {f"{column.name}__isnull": "true"} if value is None else {f"{column.name}__eq": _parameter(value)}
        results = api.get(f"{path}/", params={**parameters, "limit": 1000}).raise_for_status().json()["results"]
        mine = sorted(repr([_shown(c, r[c.name]) for c in columns]) for r in rows if r[column.name] == value)
        if texts_of(results) != mine:
            yield f"api, filter by {column.type}: {parameters}: {texts_of(results)}, not {mine}"


def _parameter(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _shown(column: Col, value: Any) -> Any:
    """A value as the API may show it; a computed float without its last digits."""
    if value is not None and column.options.get("personal") in ("mask", "hash"):
        return "***"
    if isinstance(value, Decimal):
        return f"{value:.{column.decimals}f}".removeprefix("-") if not value else f"{value:.{column.decimals}f}"
    if isinstance(value, float):
        return f"{value + 0.0:.9g}"
    if isinstance(value, list):
        return [_shown(column, item) for item in value]
    return value


def _from_csv(column: Col, text: str) -> Any:
    """A cell of an export as the API has the value: text that spreadsheet programs would run has an apostrophe before it."""
    text = re.sub(r"^'('*[=+\-@\t\r])", r"\1", text)
    if text == "":
        return None
    return json.loads(text) if column.type in ("int", "bool", "list[float]") else text


def _read(column: Col, value: Any) -> Any:
    """A value of the API as it is in Python."""
    if value is None or value == "***":
        return value
    match column.type:
        case "Decimal":
            return _shown(column, Decimal(value))
        case "float":
            return _shown(column, float(value))
        case "list[float]":
            return _shown(column, [float(item) for item in value])
        case "dt.date":
            return dt.date.fromisoformat(value)
        case "dt.datetime":
            return dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value
