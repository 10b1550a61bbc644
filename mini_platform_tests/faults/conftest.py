"""Fixtures of the fault tests, and the table of what survived at the end of a session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mini_platform_tests.support.crash_harness import LEASE_SECONDS, CrashHarness
from mini_platform_tests.support.survivors import FAULT, Survives


@pytest.fixture
def fault(record_property: Callable[[str, object], None]) -> Survives:
    """Called with a sentence that names the fault; the summary counts how often it was survived."""
    return lambda sentence: record_property(FAULT, sentence)


@pytest.fixture
def harness(engine: Engine, database_url: str, home: Path, data: Path) -> Iterator[CrashHarness]:
    settings = {
        "DATABASE_URL": database_url,
        "MINI_PLATFORM_HOME": str(home),
        "MINI_PLATFORM_DATA": str(data),
        "MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS),
        "MINI_PLATFORM_BATCH_FILES": "2",
    }
    crash_harness = CrashHarness(engine, home, data, settings)
    crash_harness.watch()
    yield crash_harness
    crash_harness.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print each fault and how often it was survived."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    skipped = []
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, sentence in getattr(report, "user_properties", []):
                if name != FAULT:
                    continue
                if outcome == "skipped":
                    skipped.append(sentence)
                    continue
                counts[sentence][0] += outcome == "passed"
                counts[sentence][1] += 1
    if not counts and not skipped:
        return
    terminalreporter.section("faults and what survived them")
    width = max(map(len, [*counts, *skipped]))
    for sentence, (survived, times) in sorted(counts.items()):
        verdict = "survived" if survived == times else "NOT SURVIVED"
        terminalreporter.write_line(f"{sentence:<{width}}  {survived:>3} of {times:<3}  {verdict}")
    for sentence in sorted(set(skipped)):
        terminalreporter.write_line(f"{sentence:<{width}}  skipped")
    total = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0]
    terminalreporter.write_line(f"{'in all':<{width}}  {total[0]:>3} of {total[1]}")
