"""Parameters that a route does not declare: an error on our paths, ignored and logged on those of replaced systems."""

from __future__ import annotations

import httpx
import pytest

from mini_platform.declare import reserved
from mini_platform.web.api import audit, datasets, health, metrics, reference, uploads
from mini_platform.web.pages.routes import ROUTERS

UNKNOWN = {"shoe_size": "43"}
OURS = ("/api/datasets/", "/api/audit")


def test_our_paths_refuse_an_unknown_parameter_and_others_ignore_it(
    client: httpx.Client, samples: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mini_platform.web.api.replaced")
    paths = client.get("/openapi.json").json()["paths"]
    answers = {
        (method, path): client.request(method, path.format(dataset="weather", file_id=1), params=UNKNOWN)
        for path, operations in paths.items()
        for method in operations
    }
    ours = {key: answer for key, answer in answers.items() if key[1].startswith(OURS)}
    assert ("post", "/api/datasets/{dataset}/files/") in ours
    for key, answer in ours.items():
        assert (answer.status_code, answer.json()["parameter"]) == (400, "shoe_size"), key
        assert "There is no parameter 'shoe_size'" in answer.json()["detail"]
    others = {key: answer for key, answer in answers.items() if key not in ours}
    assert all("parameter" not in answer.text for answer in others.values())
    records = [record.__dict__ for record in caplog.records if record.name == "mini_platform.web.api.replaced"]
    logged = {record["path"] for record in records if record["parameters"] == ["shoe_size"]}
    assert {path for _, path in others} - logged == {"/metrics"}, "which Prometheus asks"


def test_error_names_the_parameters_of_the_path(client: httpx.Client) -> None:
    body = client.post("/api/datasets/weather/files/?wai=1", content=b"x").json()
    assert body["detail"] == "There is no parameter 'wai'. The parameters are: name, wait."
    assert body["allowed"] == ["name", "wait"]
    assert client.get("/api/datasets/?page=2").json()["detail"] == (
        "There is no parameter 'page'. This path has no parameters."
    )


def test_no_dataset_or_column_can_have_a_name_that_the_platform_serves() -> None:
    """`declare/reserved.py` has the addresses and parameters of every route."""
    rooms = (audit, datasets, health, metrics, reference, uploads)
    routes = [route for router in (*ROUTERS, *(room.router for room in rooms)) for route in router.routes]
    first = {str(getattr(route, "path", "")).split("/")[1].partition(".")[0] for route in routes}
    assert first - {""} <= reserved.PLATFORM_PATHS
    lists = [route for route in routes if "/{dataset}/rows" in str(getattr(route, "path", ""))]
    parameters = {field.alias for route in lists for field in getattr(route, "dependant").query_params}  # noqa: B009
    assert parameters
    assert parameters <= reserved.PARAMETERS
