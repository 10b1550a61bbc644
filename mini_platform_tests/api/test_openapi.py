"""The document says what the routes do: generated requests meet no mistake of ours, and nothing that is not in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mini_platform.api.openapi import TYPES
from mini_platform.api.values import read
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.sampling import write_sample

CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance, response_schema_conformance]
EXAMPLES = 10
PER_MINUTE = 1_000_000


@pytest.fixture
def platform(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """One that lets generated requests pass, however many."""
    monkeypatch.setattr(platform.settings, "api_reads", PER_MINUTE)
    return platform


@pytest.mark.parametrize("name", sorted(all_datasets()))
def test_generated_requests_are_answered_as_documented(
    web: str, pipeline: Callable[..., list[int]], tmp_path: Path, name: str
) -> None:
    dataset = all_datasets()[name]
    path = tmp_path / f"sample{dataset.sources[0].suffixes[0]}"
    write_sample(dataset, path, 60, dirty=0.1, seed=3)
    pipeline(dataset, path)
    document = schemathesis.openapi.from_url(f"{web}/openapi.json")
    paths = [f"/api/datasets/{name}/"] + (["/api/datasets/", "/api/datasets/{dataset}/"] if name == "weather" else [])
    operations = [found.ok() for found in document.get_all_operations()]
    chosen = [one for one in operations if one.method == "get" and _is_within(one.path, paths)]
    assert len(chosen) == 2 + 2 * len(dataset.computed) + (9 if name == "weather" else 0)
    for operation in chosen:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def answered(case: Any) -> None:
            case.call_and_validate(base_url=web, checks=CHECKS)

        answered()


def _is_within(path: str, places: list[str]) -> bool:
    return path in places or path.startswith(tuple(place for place in places if place != "/api/datasets/"))


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
    for path, item in document["paths"].items():
        if path.startswith("/api/datasets"):
            assert set(item["get"]["responses"]) >= {"200", "400", "401", "403", "404", "422", "429", "503"}, path


def test_examples_can_be_read() -> None:
    for kind, (_, example) in TYPES.items():
        if kind is not dict:
            read(kind, example)
