"""Randomly drawn parts of the suite: the share of them that runs, and the seed. Both are printed at the start of a run.

A slow machine runs a smaller share of the drawn tests (`faults`, `drawn`), and reports it: nothing is skipped silently.

    TEST_SEED    an integer; without it the day's number, so that each day draws anew and a day's runs can be compared
    TEST_SHARE   above 0 and up to 1; 1 without it
"""

from __future__ import annotations

import datetime as dt
import os
import random
from typing import Any

SEED, SHARE = "TEST_SEED", "TEST_SHARE"
MARKERS = ("faults", "drawn")
REPORT = "said"
"""Name of the test property with a summary of what the test covered; it is printed at the end of a run."""


def seed() -> int:
    """Return the seed of this run; processes that it starts inherit it."""
    return int(os.environ.setdefault(SEED, str(dt.datetime.now(dt.UTC).date().toordinal())))


def share() -> float:
    """Return the share of the drawn parts that this run has time for."""
    return float(os.environ.get(SHARE, "1"))


def header() -> str:
    """Return the line of the report's head."""
    return f"drawn parts: {share():.0%} by seed {seed()} ({SHARE}, {SEED})"


def deselect(config: Any, items: list[Any]) -> None:
    """Deselect all but the share of the drawn tests; pytest counts them as deselected."""
    if share() >= 1:
        return
    drawn = sorted((item for item in items if any(map(item.get_closest_marker, MARKERS))), key=lambda item: item.nodeid)
    rng = random.Random(seed())  # noqa: S311 - a choice of tests, not a secret
    left_out = {item.nodeid for item in drawn if rng.random() >= share()}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]
