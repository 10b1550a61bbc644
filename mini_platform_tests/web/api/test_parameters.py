"""Parameters that a route does not declare: an error on our paths, ignored and logged on those of replaced systems."""

from __future__ import annotations

import httpx
import pytest

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
    logged = {record.__dict__["path"] for record in caplog.records if record.__dict__["parameters"] == ["shoe_size"]}
    assert {path for _, path in others} - logged == {"/metrics"}, "which Prometheus asks"


def test_error_names_the_parameters_of_the_path(client: httpx.Client) -> None:
    body = client.post("/api/datasets/weather/files/?wai=1", content=b"x").json()
    assert body["detail"] == "There is no parameter 'wai'. The parameters are: name, wait."
    assert body["allowed"] == ["name", "wait"]
    assert client.get("/api/datasets/?page=2").json()["detail"] == (
        "There is no parameter 'page'. This path has no parameters."
    )
