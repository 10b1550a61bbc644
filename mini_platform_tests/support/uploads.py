"""Uploads, and their results in the ledger and in the tables."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from sqlalchemy import select

from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.databases import Pipeline

URL = "/api/datasets/weather/files/"


HEADER = b"station_id,date,temp_c,precip_mm\n"


GOOD = HEADER + b"OSL,2026-01-01,-4.5,0.3\nOSL,2026-01-02,1,0\n"


BOUNDARY = "xyz"


def form(*parts: tuple[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body and its headers; parts are a Content-Disposition and bytes."""
    body = b"".join(
        b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (disposition, data)
        for disposition, data in parts
    )
    return body + b"--xyz--\r\n", {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def ledger(platform: Platform) -> list[Any]:
    with platform.engine.connect() as conn:
        return list(conn.execute(select(files).order_by(files.c.file_id)))


def stored(platform: Platform) -> list[str]:
    """Return the names of all files in the raw store, including unfinished ones."""
    return sorted(path.name for path in platform.store.folder.rglob("*") if path.is_file())


def problem(answer: httpx.Response, status: int, pattern: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.search(pattern, answer.json()["detail"]), answer.text


@contextlib.contextmanager
def loading(platform: Platform, pipeline: Pipeline, *datasets: str) -> Iterator[None]:
    """Load landed files in a thread during the block, as Dagster's runs do; by default those of weather."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            if any(row.status == "landed" for row in ledger(platform)):
                for name in datasets or ("weather",):
                    pipeline(all_datasets()[name])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
