"""The document says what the routes do: generated requests meet no mistake of ours, and nothing that is not in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mini_platform.platform import Platform
from mini_platform.web.api.openapi import TYPES
from mini_platform.web.api.values import read
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.uploads import form, loading
from mini_platform_tests.support.web import endpoints_of

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    status_code_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
REQUESTS, WRITES = 4, 12
"""Generated for each operation that reads, and that writes, in each mode; the same ones every time."""
PER_MINUTE = 1_000_000
PROBLEM = "application/problem+json"

Operation = APIOperation[Any, Any, Any, Any]


@pytest.fixture(scope="module")
def platform(samples_platform: Platform) -> Platform:
    """One that lets generated requests pass, however many; what they send does not disturb the other tests."""
    samples_platform.settings.api_reads = samples_platform.settings.api_writes = PER_MINUTE
    return samples_platform


@pytest.fixture(scope="module")
def web(platform: Platform, samples_web: str) -> str:
    return samples_web


@pytest.fixture(scope="module")
def operations(web: str) -> list[Operation]:
    """Every operation of the document, over a database with every sample."""
    document = schemathesis.openapi.from_url(f"{web}/openapi.json")
    documented = [operation.ok() for operation in document.get_all_operations()]
    assert {one.label for one in documented} >= {"GET /api/datasets/weather/rows/", "POST /ingest", "GET /metrics"}
    return documented


def test_examples_are_answered_as_documented(
    client: httpx.Client, operations: list[Operation], platform: Platform, pipeline: Pipeline
) -> None:
    """Each operation with what it needs, and with all that it takes; as CSV, and where it is known already."""
    with loading(platform, pipeline, "weather", "signals"):
        for operation in operations:
            raw = operation.definition.raw
            parameters = {(p["in"], p["name"]): example(p) for p in raw.get("parameters", ())}
            path = operation.path.format(
                **{name: value for (place, name), value in parameters.items() if place == "path"}
            )
            query = {
                name: value for (place, name), value in parameters.items() if place == "query" and value is not None
            }
            requests = [body | {"params": params} for body in bodies(raw) for params in ({}, query)]
            if operation.method == "get":
                requests += [{"headers": {"Accept": "text/csv"}}, {"headers": {"If-None-Match": "*"}}]
            for request in requests:
                answer = client.request(operation.method, path, **request)
                assert answer.status_code in (200, 202, 304), (operation.label, request, answer.text)
                operation.validate_response(answer)


@pytest.mark.parametrize("mode", GenerationMode)
def test_generated_requests_are_answered_as_documented(
    web: str, operations: list[Operation], mode: GenerationMode
) -> None:
    """Negative requests have something in them that is not as the document says."""
    for operation in operations:

        @settings(
            max_examples=REQUESTS if operation.method == "get" else WRITES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy(mode))
        def answered(case: Any) -> None:
            wait = case.query.get("wait", 1)
            if any(parameter.name == "wait" for parameter in case.operation.query) and isinstance(wait, int | float):
                case.query["wait"] = min(wait, 0)  # Nobody loads here what was sent.
            case.call_and_validate(base_url=web, checks=CHECKS, timeout=60)

        with suppress(*[Unsatisfiable] if mode.is_negative else []):  # It takes nothing that could be wrong.
            answered()


FORMS = st.one_of(
    st.builds(dict, content=st.binary(max_size=200)),
    st.builds(dict, data=st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=4)),
    st.builds(dict, files=st.fixed_dictionaries({"file": st.tuples(st.text(max_size=9), st.binary(max_size=200))})),
)


def test_generated_forms_meet_no_mistake_of_ours(
    client: httpx.Client, platform: Platform, operations: list[Operation]
) -> None:
    """The pages send them; no document has them."""
    documented = {one.path for one in operations}
    posts = {path for method, path in endpoints_of(create_app(Site(platform)).routes) if method == "POST"} - documented
    assert "/login" in posts

    @settings(
        max_examples=WRITES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @given(form=FORMS, dataset=st.sampled_from(["weather", "none"]), file_id=st.sampled_from(["1", "999999", "x"]))
    def answered(form: dict[str, Any], dataset: str, file_id: str) -> None:
        for path in posts:
            answer = client.post(path.format(dataset=dataset, file_id=file_id), **form)
            assert answer.status_code < 500, (path, form, answer.text)

    answered()


def example(parameter: dict[str, Any]) -> Any:
    """Return an example in the form that a URL has; None for a cursor, which only a page can give."""
    schema = parameter["schema"]
    candidates = [parameter.get("example"), *schema.get("examples", ()), schema.get("default")]
    value = next((one for one in candidates if one is not None), None)
    assert value is not None or parameter["name"] == "cursor", parameter
    return ",".join(value) if isinstance(value, list) else value


def bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the arguments of a request by httpx for each body that has an example."""
    content = operation.get("requestBody", {}).get("content", {"": {"example": b""}})
    for media_type, media in content.items():
        if operation["operationId"] == "token_api_token_auth__post":
            continue  # No key of a document lets anybody in.
        if media_type == "multipart/form-data":
            body, headers = form((b'name="file"; filename="example.csv"', media["example"]["file"].encode()))
            yield {"content": body, "headers": headers}
        elif "example" in media:
            words = json.dumps(media["example"]) if media_type == "application/json" else media["example"]
            yield {"content": words, "headers": {"Content-Type": media_type} if media_type else {}}


def test_every_operation_is_described(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) > 50
    for operation in operations:
        assert operation["summary"]
        assert len(operation["description"]) > 20, operation
        assert all(p["description"] and example(p) != "" for p in operation.get("parameters", ()))
        problems = {status: response for status, response in operation["responses"].items() if status >= "400"}
        assert ({"401", "403", "429", "503"} <= set(problems)) == ("security" in operation), operation["summary"]
        for status, response in problems.items():
            if PROBLEM in response["content"]:
                assert response["content"][PROBLEM]["example"]["status"] == int(status)
            else:
                assert (operation["operationId"], status) == ("health_health_get", "503")


def test_document_has_every_parameter_and_column(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    rows = document["paths"]["/api/datasets/weather/rows/"]["get"]
    names = {parameter["name"] for parameter in rows["parameters"]}
    assert {
        "search",
        "ordering",
        "fields",
        "cursor",
        "limit",
        "date",
        "temp_c__isnull",
        "station_id__contains",
    } <= names
    assert "temp_c__contains" not in names
    page = rows["responses"]["200"]["content"]["application/json"]["schema"]
    columns = page["properties"]["results"]["items"]["properties"]
    assert columns["temp_c"] == {
        "type": ["number", "null"], "format": "double", "description": "Mean air temperature [°C]",
    }  # fmt: skip
    customers = document["paths"]["/api/datasets/customers/rows/"]["get"]
    assert not [p for p in customers["parameters"] if p["name"].startswith("email")]
    assert document["components"]["schemas"]["Problem"]["required"] == ["title", "status", "detail"]


def test_examples_can_be_read() -> None:
    for kind, (_, example) in TYPES.items():
        if kind is not dict:
            read(kind, example)
