"""The web process under load, from outside: requests at a steady rate, and a page as a browser loads it.

    python -m mini_platform_tests.benchmarks.web_load rows|series|page

Prints, as its last line, the 95th percentile in seconds of `RATE` requests a second over `SECONDS`; of the page, the seconds
until it is loaded, and says on stderr how much it transferred.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT

RATE, SECONDS = 50, 20
CLIENTS = 32
MEGABYTE = 2**20


@contextmanager
def web_process() -> Iterator[str]:
    """The web process on the database that the environment names; yields its URL."""
    with serving(os.environ, PROJECT) as (url, _):
        yield url


@contextmanager
def serving(
    environment: Mapping[str, str], project: Path, errors: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The web process of a checkout, and its URL; `errors` is where its log goes."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mini_platform.web"],
        env={**environment, "MINI_PLATFORM_API_PORT": str(port)},
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                httpx.get(f"{url}/api/datasets/", timeout=30)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


def steadily(url: str, path: Callable[[], str]) -> float:
    """The 95th percentile of the seconds from when a request was due to its last byte: a queue counts as waiting."""
    with httpx.Client(base_url=url, timeout=30, limits=httpx.Limits(max_connections=CLIENTS)) as client:

        def ask(due: float) -> float:
            time.sleep(max(0.0, due - time.perf_counter()))
            client.get(path()).raise_for_status()
            return time.perf_counter() - due

        for _ in range(20):
            client.get(path()).raise_for_status()
        start = time.perf_counter() + 0.5
        with ThreadPoolExecutor(CLIENTS) as pool:
            latencies = list(pool.map(ask, (start + i / RATE for i in range(RATE * SECONDS))))
    return statistics.quantiles(latencies, n=20)[-1]


def page(url: str) -> float:
    """Seconds until the first page is loaded, in a browser that has never seen it."""
    from mini_platform_tests.support.chromium import launched

    with launched() as browser:
        shown = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
        network = shown.context.new_cdp_session(shown)
        network.send("Network.enable")
        sizes: list[float] = []
        network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        start = time.perf_counter()
        shown.goto(f"{url}/weather", wait_until="load")
        shown.wait_for_selector(".js-plotly-plot")
        seconds = time.perf_counter() - start
    sys.stderr.write(f"{sum(sizes) / MEGABYTE:.2f} MB in {len(sizes)} requests\n")
    return seconds


def main(what: str) -> None:
    """Measure it and print the figure."""
    with web_process() as url:
        if what == "page":
            print(page(url))  # noqa: T201 - for the bench
            return
        stations = httpx.get(f"{url}/api/stations/", timeout=30).json()["stations"]
        # Random stations and pages: the same one again and again would be read from a cache.
        paths = {
            "rows": lambda: f"/api/datasets/weather/rows/?limit=100&station_id__gte={random.choice(stations)}",  # noqa: S311
            "series": lambda: f"/api/metrics/daily/?station_id={random.choice(stations)}&limit=366",  # noqa: S311
        }
        print(steadily(url, paths[what]))  # noqa: T201 - for the bench


if __name__ == "__main__":
    main(sys.argv[1])
