"""Static files and live state: small, packed, kept by browsers as long as they are the same."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import plotly

from mini_platform.dagster.build import build_defs
from mini_platform.datasets import all_datasets
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.pages import Get

MOST_BYTES = 2_000_000


def test_plotly_is_that_of_the_wheel_packed_and_kept(client: httpx.Client, get: Get, samples: None) -> None:
    (url,) = re.findall(r'src="(/static/plotly[^"]+)"', get("/weather").html)
    answer = client.get(url)
    wheel = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    assert answer.content == wheel.read_bytes()
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    plain = client.get(url, headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "immutable" not in client.get("/static/plotly.min.js?v=other").headers["cache-control"]
    assert "plotly" not in get("/").html


def test_first_load_is_small(client: httpx.Client, samples: None) -> None:
    for path in ("/", "/weather", "/sales"):
        page = client.get(path, headers={"Accept": "text/html"})
        urls = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
        sizes = [int(client.get(url).headers["content-length"]) for url in urls]
        assert page.headers["content-encoding"] == "gzip"
        assert sum(sizes) + page.num_bytes_downloaded < MOST_BYTES


def test_nothing_else_is_served(client: httpx.Client) -> None:
    for name in ("nothing.js", "..%2Fpages.py", "%2e%2e/rendering.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_state_changes_with_the_ledger_only(client: httpx.Client, get: Get, pipeline: Pipeline, tmp_path: Path) -> None:
    def state() -> str:
        return str(client.get("/state").json()["state"])

    before = state()
    assert state() == before
    assert f'data-state="{before}"' in get("/").html
    path = tmp_path / "a.csv"
    path.write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1.5,0\n")
    pipeline(weather, path)
    assert state() != before


def test_assets_in_dagster_lead_here(home: Path) -> None:
    specs = build_defs(all_datasets()).resolve_all_asset_specs()
    for spec in specs:
        assert spec.metadata["dashboard"].value == f"http://127.0.0.1:8000/datasets/{spec.key.path[0]}"
    assert len({spec.key.path[0] for spec in specs}) == len(all_datasets())
