"""`kill -9` of the worker: at every fault point, and at random moments. The next worker finishes by itself."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from mini_platform.config.faultpoints import POINTS
from mini_platform.storage.store import LEFT_OVER_SECONDS
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import CrashHarness
from mini_platform_tests.support.survivors import Survives
from mini_platform_tests.support.waves import ONLY_INTO_EMPTY_TABLES

pytestmark = pytest.mark.faults

ONCE_IN_A_PASS = ("land.before_commit", "land.after_commit")
MOMENTS = 50


@pytest.mark.parametrize("point", POINTS)
def test_first_load(point: str, harness: CrashHarness, fault: Survives) -> None:
    fault(f"kill -9 of the worker at {point}")
    harness.drop(waves.first("first", big=point.startswith("load.")))
    harness.kill_at(point)
    harness.finish()
    assert harness.wrong() == []


@pytest.mark.parametrize("point", [point for point in POINTS if point != ONLY_INTO_EMPTY_TABLES])
def test_later_load_later_hit(point: str, harness: CrashHarness, fault: Survives) -> None:
    """Into full tables: some files were replaced, and the point is reached for the second time."""
    fault(f"kill -9 of the worker at {point}")
    harness.drop(waves.first("later"))
    harness.finish()
    harness.drop(waves.second("later"))
    harness.kill_at(point if point in ONCE_IN_A_PASS else f"{point}:2")
    harness.finish()
    assert harness.wrong() == []


@pytest.mark.parametrize("point", POINTS)
def test_killed_again_while_it_recovers(point: str, harness: CrashHarness, fault: Survives) -> None:
    """The second worker dies at the same point, if it comes by there again; in between, a file is replaced."""
    fault(f"kill -9 of the worker at {point}")
    harness.drop(waves.first("again", big=point == ONLY_INTO_EMPTY_TABLES))
    harness.kill_at(point)
    harness.drop(waves.second("again"))
    assert harness.start(point).wait() in (-signal.SIGKILL, 0)
    harness.finish()
    assert harness.wrong() == []


def test_unfinished_copies_are_swept_away(harness: CrashHarness, fault: Survives) -> None:
    fault("unfinished copy left in the raw store")
    harness.drop(waves.first("swept"))
    harness.kill_at("land.copying")
    left = list(harness.store.folder.glob(".arriving-*"))
    assert left
    harness.finish()
    assert [copy for copy in left if copy.exists()] == left, "another process might be writing it"
    for copy in left:
        os.utime(copy, (time.time() - LEFT_OVER_SECONDS - 1,) * 2)
    harness.drop(waves.second("swept"))
    harness.finish()
    assert not list(harness.store.folder.glob(".arriving-*"))
    assert harness.wrong() == []


@pytest.fixture(scope="session")
def pass_seconds() -> list[float]:
    """Seconds that undisturbed passes took in this session, to choose moments within one."""
    return []


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_random_moment(seed: int, harness: CrashHarness, fault: Survives, pass_seconds: list[float]) -> None:
    fault("kill -9 of the worker at a random moment")
    rng = random.Random(seed)  # noqa: S311
    if not pass_seconds:
        for again in ("", " again"):  # The first one waits for the fork server.
            harness.drop(waves.first(f"random {seed}{again}"))
            begin = time.monotonic()
            harness.finish()
            pass_seconds[:] = [time.monotonic() - begin]
    harness.drop(waves.first(f"random {seed}"))
    killed = 0
    for attempt in range(12):
        harness.drop(waves.second(f"random {seed} {attempt}"))
        victim = harness.start()
        time.sleep(rng.uniform(0, pass_seconds[0] / (1 + attempt / 3)))
        victim.send(signal.SIGKILL)
        killed += victim.wait() == -signal.SIGKILL
        if killed > seed % 3:
            break
    assert killed, "no worker was still at work when it was to be killed"
    harness.finish()
    assert harness.wrong() == []
