"""Weather files for the fault tests: many files over few keys, so that nearly every row meets another one."""

from __future__ import annotations

import datetime as dt
import io
import random
from functools import cache

from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import write_sample

HEADER = "station_id,date,temp_c,precip_mm\n"
DIRT = (
    "S1,2024-02-30,1,1",
    "S1,2024-01-05,abc,1",
    "S2,2024-01-06,99,1",
    ",2024-01-05,1,1",
    "S3,2024-01-07",
    "S3,now,1,1",
)
BULK_ROWS = 20_500
"""More valid rows than fill an empty table without indexes (`load.BULK_ROWS`)."""


def file(seed: int | str, rows: int = 40, dirt: float = 0.05) -> bytes:
    """Return rows over 4 stations and 25 days, with repeated keys and a share of dirty rows."""
    rng = random.Random(f"weather {seed}")  # noqa: S311
    lines = []
    for _ in range(rows):
        date = dt.date(2024, 1, 1) + dt.timedelta(days=rng.randrange(25))
        temp, rain = f"{rng.gauss(10, 8):.1f}", f"{rng.expovariate(0.3):.1f}"
        if rng.random() < 0.1:
            temp = ""
        good = f"S{rng.randrange(4)},{date},{temp},{rain}"
        lines.append(rng.choice(DIRT) if rng.random() < dirt else good)
    return (HEADER + "\n".join(lines) + "\n").encode()


@cache
def bulk() -> bytes:
    """Return a file that is large enough for the load into an empty table."""
    written = io.BytesIO()
    write_sample(all_datasets()["weather"], written, BULK_ROWS + 500, 0.01, seed=7)
    return written.getvalue()


def first(seed: int | str, *, big: bool = False) -> dict[str, bytes]:
    """Return the first files: overlapping ones, a refused one, one without rows, and a copy of another one."""
    small = {f"{name}.csv": file(f"{seed} {name}") for name in "bcde"}
    odd = {"copy.csv": small["b.csv"], "empty.csv": HEADER.encode(), "refused.csv": file(f"{seed} refused", 120, 0.9)}
    return ({"a.csv": bulk()} if big else {}) | small | odd


def second(seed: int | str) -> dict[str, bytes]:
    """Return the later files: a replaced one, one with more rows at its end, a new one, and a corrected one."""
    return {
        "b.csv": file(f"{seed} b again"),
        "c.csv": file(f"{seed} c") + file(f"{seed} more").split(b"\n", 1)[1],
        "f.csv": file(f"{seed} f"),
        "g.csv": file(f"{seed} g"),
        "refused.csv": file(f"{seed} mended"),
    }


@cache
def padded(seed: int | str, megabytes: int = 24, rows: int = 400) -> bytes:
    """Return a large file with few rows: its fields are padded with blanks, which are trimmed."""
    header, *lines = file(seed, rows, dirt=0).decode().splitlines()
    wide = megabytes * 2**20 // rows
    return "\n".join([header, *(f"{' ' * (wide - len(line))}{line}" for line in lines), ""]).encode()


ONLY_INTO_EMPTY_TABLES = "load.indexes_built"
