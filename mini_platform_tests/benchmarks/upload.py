"""A gigabyte sent to the web process, as multipart and raw: what it costs that process in memory.

    python -m mini_platform_tests.benchmarks.upload

Prints, as its last line, the most memory that the process had meanwhile above what it had when idle, in MB; and on stderr both
figures and the seconds of each upload.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from mini_platform_tests.benchmarks.web_load import web_process

PIECES = 1024
HEADER = b"station_id,date,temp_c,precip_mm\n"
ROW = b"OSL,2026-01-01,-4.5,0.3\n"
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


def rows(name: str, pieces: int) -> Iterator[bytes]:
    """The bytes of a file, a MiB at a time; each name has bytes of its own."""
    yield HEADER
    yield from (ROW * (2**20 // len(ROW)) for _ in range(pieces))
    yield f"{name},2026-01-01,0,0\n".encode()


def form(name: str, pieces: int) -> Iterator[bytes]:
    """The same as the only part of a multipart body."""
    yield b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="%s.csv"\r\n\r\n' % name.encode()
    yield from rows(name, pieces)
    yield b"\r\n--xyz--\r\n"


def megabytes(process: psutil.Process, what: str) -> float:
    """Memory of a process by the kernel's books: `VmRSS` now, `VmHWM` the most since that was last forgotten."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(rf"{what}:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


def main() -> None:
    """Measure it and print the figure."""
    with web_process() as url, httpx.Client(base_url=url, timeout=600) as client:
        (process,) = psutil.Process().children()

        def send(name: str, pieces: int) -> None:
            target = "/api/datasets/weather/files/"
            started = time.perf_counter()
            for kind, content in (("multipart", form), ("raw", rows)):
                params = {} if content is form else {"name": f"{name}.csv"}
                headers = FORM if content is form else {}
                answer = client.post(target, params=params, headers=headers, content=content(name + kind, pieces))
                answer.raise_for_status()
                sys.stderr.write(f"{kind}: {answer.json()['bytes']:,} bytes by {time.perf_counter() - started:.1f} s\n")

        send("first", 1)
        idle = megabytes(process, "VmRSS")
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # Forgets VmHWM.
        send("large", PIECES)
        highest = megabytes(process, "VmHWM")
    sys.stderr.write(f"idle {idle:.1f} MB, highest {highest:.1f} MB\n")
    print(highest - idle)  # noqa: T201 - for the bench


if __name__ == "__main__":
    main()
