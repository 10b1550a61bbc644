"""Completion of the OpenAPI document: parameters and rows of listings, which FastAPI cannot derive.

Each listing has its parameters, one per column and operator, and its rows with their types. Rows and analytics, which differ by
dataset, have a path per dataset; one route serves them all. Examples are from the site's datasets.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import repeat
from typing import Any, get_args

from fastapi import FastAPI

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.registry import unknown_dataset
from mini_platform.declare.sources import Csv
from mini_platform.warehouse.filters import COMPARISONS
from mini_platform.web.api import relations
from mini_platform.web.api.export import MEDIA_TYPES
from mini_platform.web.api.query import MOST_ROWS, PAGE_ROWS, operators
from mini_platform.web.api.relations import Relation, RelationColumn
from mini_platform.web.problems import Problem, documented
from mini_platform.web.site import Site

BIGINT = {"minimum": -(2**63), "maximum": 2**63 - 1}
TYPES: Mapping[Any, tuple[dict[str, Any], str]] = {
    str: ({"type": "string"}, "Oslo"),
    int: ({"type": "integer", "format": "int64", **BIGINT}, "7"),
    float: ({"type": "number", "format": "double"}, "1.5"),
    Decimal: ({"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}, "12.50"),
    bool: ({"type": "boolean"}, "true"),
    dt.date: ({"type": "string", "format": "date"}, "2024-01-31"),
    dt.datetime: ({"type": "string", "format": "date-time"}, "2024-01-31T12:00:00Z"),
    dict: ({}, ""),
}
"""Type of a column -> its JSON schema, and an example of a parameter."""
MEANINGS: Mapping[str, str] = {
    "eq": "is",
    "ne": "is not; null is not equal to any value",
    "gt": "is above",
    "gte": "is at or above",
    "lt": "is below",
    "lte": "is at or below",
    "in": "is one of these values, separated by commas; if the parameter is repeated, each occurrence is one value",
    "contains": "contains this text, ignoring case",
    "isnull": "is null (true) or is not null (false)",
}
BEFORE_IT = (421,)
BEHIND_THE_GUARD = (401, 403, *BEFORE_IT, 429, 503)
"""Problems of every route, and of every route that may require a key."""
LINK = {"type": ["string", "null"], "format": "uri"}


def describe(app: FastAPI, site: Site) -> None:
    """Make the app return the complete document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        is_complete = app.openapi_schema is not None
        document = plain()
        return document if is_complete else _completed(document, site)

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any], site: Site) -> dict[str, Any]:
    document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    paths: dict[str, Any] = document["paths"]
    for operation in _operations(paths):
        problems = documented(*(BEHIND_THE_GUARD if "security" in operation else BEFORE_IT))
        own = {status: answer for status, answer in operation["responses"].items() if not _is_from_fastapi(answer)}
        responses = {str(status): response for status, response in problems.items()} | own
        operation["responses"] = dict(sorted(responses.items()))
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    if site.datasets:
        _give_examples(document, site)
    _describe_listing(paths, "/api/audit", relations.audit())
    example = next(iter(site.datasets.values()), None)
    for kind, relation_of in (
        ("files", relations.files),
        ("rejects", relations.rejects),
        ("quality", relations.quality),
    ):
        if example is not None:
            _describe_listing(paths, f"/api/datasets/{{dataset}}/{kind}", relation_of(example))
    for kind, endings in (("rows", ("/", ".csv", ".json", ".ndjson")), ("analytics/{analytics}", ("/", ".csv"))):
        for ending in endings:
            operation = paths.pop(f"/api/datasets/{{dataset}}/{kind}{ending}")["get"]
            for path, relation in _own_listings(site):
                if ("analytics" in path) == ("analytics" in kind):
                    paths[path + ending] = {"get": _operation_of(operation, f"{relation.name}{ending}")}
    for path, relation in _own_listings(site):
        _describe_listing(paths, path, relation)
    if example is not None:
        _answers(
            paths["/api/datasets/{dataset}/files/{file_id}/"]["get"], "application/json", _row(relations.files(example))
        )
    return document


def _is_from_fastapi(response: dict[str, Any]) -> bool:
    """Return True if this is the response 422 that FastAPI adds to routes that document no 422; no route answers so."""
    return bool(re.search("/HTTPValidationError\\b", json.dumps(response.get("content", {}))))


def _give_examples(document: dict[str, Any], site: Site) -> None:
    """Use the site's datasets in examples."""
    paths = document["paths"]
    dataset = _plainest(site.datasets.values())
    file_name = f"oslo{dataset.suffixes[0]}"
    details = _problem_details(site.datasets, dataset)
    for operation in _operations(paths):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and parameter["name"] == "dataset":
                parameter["schema"] |= {"enum": list(site.datasets), "examples": [dataset.name]}
        for status in details.keys() & operation["responses"].keys():
            for content in operation["responses"][status].get("content", {}).values():
                if "detail" in content.get("example", {}):
                    content["example"]["detail"] = details[status]
    send = paths["/api/datasets/{dataset}/files/"]["post"]
    body, example = send["requestBody"]["content"], _example_file(dataset)
    body["multipart/form-data"]["example"] = {"file": example}
    if isinstance(dataset.sources[0], Csv):
        body["text/csv"]["example"] = example
    else:
        body["application/json"]["example"] = json.loads(example)
    for parameter in send["parameters"]:
        if parameter["name"] == "name":
            parameter["schema"]["examples"] = [file_name]
    landed = document["components"]["schemas"]["LandedFile"]["example"]
    landed |= {"dataset": dataset.name, "name": file_name, "url": f"/api/datasets/{dataset.name}/files/12/"}


def _plainest(datasets: Iterable[Dataset]) -> Dataset:
    """Return a dataset for examples: if possible one without personal data and with CSV only."""
    return min(datasets, key=lambda d: (d.is_personal, not isinstance(d.sources[0], Csv), len(d.sources)))


def _problem_details(datasets: Mapping[str, Dataset], example: Dataset) -> dict[str, str]:
    """Return what problems say that name datasets, by status."""
    personal = next((dataset for dataset in datasets.values() if dataset.is_personal), example)
    misspelt = f"{example.name[:2]}{example.name[3:]}"
    return {
        "403": f"This key lacks the scope read:{personal.name}, which is required here.",
        "404": unknown_dataset(misspelt, datasets),
        "415": f"Files of {example.name} have names that end in {', '.join(example.suffixes[:2])}.",
    }


def _example_file(dataset: Dataset) -> str:
    """Return a file of one row, of the first format that the dataset has."""
    source = dataset.sources[0]
    texts = {column.name: TYPES[column.type][1] if column.type in TYPES else "[1.5]" for column in dataset.read_columns}
    if isinstance(source, Csv):
        return f"{source.delimiter.join(texts)}\n{source.delimiter.join(texts.values())}\n"
    return json.dumps(texts)


def _operations(paths: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for item in paths.values() for operation in item.values())


def _own_listings(site: Site) -> Iterator[tuple[str, Relation]]:
    """Yield the listings whose columns differ by dataset, with their paths without an ending."""
    for dataset in site.datasets.values():
        yield f"/api/datasets/{dataset.name}/rows", relations.rows(dataset)
        for item in dataset.computed:
            yield (
                f"/api/datasets/{dataset.name}/analytics/{item.name}",
                relations.computed(dataset, item.name),
            )


def _operation_of(operation: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the operation of one dataset, made from the generic one."""
    own: dict[str, Any] = copy.deepcopy(operation)
    own["operationId"] = f"list_{name.strip('/').replace('.', '_')}"
    own["summary"] = f"{own['summary']}: {re.sub(r'(/|[.](csv|json|ndjson))$', '', name).replace('.', ' ')}"
    own["parameters"] = [p for p in own.get("parameters", ()) if p["in"] != "path"]
    return own


def _describe_listing(paths: dict[str, Any], path: str, relation: Relation) -> None:
    """Write parameters and responses of a listing into its operations."""
    as_json, *exports = (
        paths[f"{path}{end}"]["get"] for end in ("/", ".csv", ".json", ".ndjson") if f"{path}{end}" in paths
    )
    for operation, export, media_type in (
        (as_json, False, "text/csv"), *zip(exports, repeat(True), MEDIA_TYPES.values(), strict=False)
    ):  # fmt: skip
        operation["parameters"] = [*operation.get("parameters", ()), *_parameters(relation, export=export)]
        operation["responses"]["200"]["content"] = {media_type: {"schema": {"type": "string"}}}
    rows = {"type": "array", "items": _row(relation)}
    for operation in exports[1:2]:
        _answers(operation, "application/json", {"type": "array", "items": _row(relation)})
    page = {"type": "object", "properties": {"next": LINK, "previous": LINK, "results": rows}}
    _answers(as_json, "application/json", page | {"required": ["next", "previous", "results"]})


def _answers(operation: dict[str, Any], media_type: str, schema: dict[str, Any]) -> None:
    content = operation["responses"]["200"].setdefault("content", {})
    content[media_type] = {"schema": schema}


def _row(relation: Relation) -> dict[str, Any]:
    return {"type": "object", "properties": {c.name: _property(c) for c in relation.columns.values()}}


def _property(column: RelationColumn) -> dict[str, Any]:
    items = get_args(column.type)
    schema: dict[str, Any] = {"type": "array", "items": TYPES[items[0]][0]} if items else dict(TYPES[column.type][0])
    schema = {name: value for name, value in schema.items() if name not in BIGINT}
    if "type" in schema and (column.nullable or column.type is float):
        schema["type"] = [schema["type"], "null"]
    return schema | {"description": _about(column)} | ({"examples": ["***"]} if column.masked else {})


def _about(column: RelationColumn) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    return f"{column.description}{unit}"


def _parameters(relation: Relation, *, export: bool) -> Iterator[dict[str, Any]]:
    sortable = [name for name, column in relation.columns.items() if column.can_sort]
    orders = [sign + name for name in sortable for sign in ("", "-")]
    if relation.search:
        text = f"Words that must all occur in {', '.join(relation.search)}, ignoring case"
        yield _parameter("search", text, {"type": "string"}, "north")
    about = f"Columns to sort by, with `-` for descending order; default: {', '.join(relation.order)}"
    style = {"style": "form", "explode": False}
    array = {"type": "array", "minItems": 1, "uniqueItems": True}
    yield _parameter("ordering", about, array | {"items": {"enum": orders}}, orders[:1]) | style
    names = list(relation.columns)
    yield _parameter("fields", "Columns to return", array | {"items": {"enum": names}}, names[:2]) | style
    if export:
        yield _parameter("limit", "Maximum number of rows; default: all", {"type": "integer", "minimum": 1}, 1000)
    else:
        yield _parameter(
            "cursor", "Start of the page: the cursor in `next` or `previous` of another page", {"type": "string"}
        )
        limit = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": PAGE_ROWS}
        yield _parameter("limit", "Rows per page", limit, PAGE_ROWS)
    for column in relation.columns.values():
        for operator in operators(column):
            yield _filter(column, operator)


def _filter(column: RelationColumn, operator: str) -> dict[str, Any]:
    if operator == "isnull":
        schema, example = TYPES[bool]
    elif operator in COMPARISONS:
        schema, example = TYPES[column.type]
    else:
        schema, example = {"type": "string"}, TYPES[column.type][1]
    name = column.name if operator == "eq" else f"{column.name}__{operator}"
    return _parameter(name, f"{_about(column)}: {MEANINGS[operator]}", schema, example)


def _parameter(name: str, description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
    return parameter if example is None else parameter | {"example": example}
