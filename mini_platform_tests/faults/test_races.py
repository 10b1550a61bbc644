"""Several workers on one dataset at once, and one that is frozen until its lease has run out."""

from __future__ import annotations

import random
import signal
import time

import pytest

from mini_platform.warehouse import locks
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import LEASE_SECONDS, PATIENT, CrashHarness
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

LEASED = {
    "claim.after_commit": "LeaseLostError",
    "stage.block_sent": "LeaseLostError",
    "stage.before_commit": "OperationalError",
    "load.started": None,
    "load.rows_written": "OperationalError",
}
"""Points at which a frozen worker holds leases -> the error with which it ends. Where it holds locks too, the server ends its
transaction; where nothing was written yet, it finds nothing left to do."""
UNLEASED = (
    "land.raw_file_kept",
    "land.before_commit",
    "land.after_commit",
    "load.after_commit",
    "aggregate.before_commit",
)
LATE_SECONDS = locks.FROZEN_SECONDS + 15


@pytest.mark.parametrize("seed", range(8))
def test_two_workers_at_once(seed: int, harness: CrashHarness, fault: Survives) -> None:
    """The same files, overlapping keys; each is held up at random, for less than its lease lasts."""
    fault("two workers on the same files and keys at once")
    rng = random.Random(seed)  # noqa: S311
    for wave in (waves.first(f"race {seed}", big=seed == 0), waves.second(f"race {seed}")):
        harness.drop(wave)
        workers = [harness.start(**PATIENT), harness.start(**PATIENT)]
        while any(worker.alive for worker in workers):
            victim = rng.choice(workers)
            victim.send(signal.SIGSTOP)
            time.sleep(rng.uniform(0, LEASE_SECONDS / 20))
            victim.send(signal.SIGCONT)
            time.sleep(rng.uniform(0, LEASE_SECONDS / 5))
        assert [worker.wait() for worker in workers] == [0, 0], "\n".join(worker.output for worker in workers)
    assert harness.wrong() == []


@pytest.mark.parametrize("point", LEASED)
def test_frozen_past_its_lease(point: str, harness: CrashHarness, fault: Survives) -> None:
    """Another worker takes its files over; when it goes on, what it did is rolled back."""
    fault(f"worker frozen past its lease at {point}")
    harness.drop(waves.first("frozen"))
    harness.finish()
    harness.drop(waves.second("frozen"))
    frozen = harness.start(f"{point}:1:stop")
    frozen.wait_until_frozen()
    harness.let_leases_run_out()
    other = harness.start(**PATIENT)
    other.process.join(LATE_SECONDS)
    took_over = not other.alive
    frozen.send(signal.SIGCONT)
    expected = LEASED[point]
    assert frozen.wait() == (1 if expected else 0), frozen.output
    assert (expected or "") in frozen.output
    assert other.wait() == 0, other.output
    harness.finish()
    assert harness.wrong() == []
    assert took_over, "the frozen worker held up the other one"


@pytest.mark.parametrize("point", UNLEASED)
def test_frozen_without_a_lease(point: str, harness: CrashHarness, fault: Survives) -> None:
    """It goes on after another worker has done everything, and does nothing twice."""
    fault(f"worker frozen at {point} while another one works")
    harness.drop(waves.first("frozen"))
    frozen = harness.start(f"{point}:1:stop")
    frozen.wait_until_frozen()
    other = harness.start(**PATIENT)
    other.process.join(LATE_SECONDS)
    took_over = not other.alive
    harness.drop(waves.second("frozen"))
    frozen.send(signal.SIGCONT)
    assert frozen.wait() in (0, 1), frozen.output
    assert other.wait() == 0, other.output
    harness.finish()
    assert harness.wrong() == []
    assert took_over, "the frozen worker held up the other one"


@pytest.mark.parametrize("point", ["stage.block_sent", "claim.after_commit"])
def test_taken_over_and_not_done_yet(point: str, harness: CrashHarness, fault: Survives) -> None:
    """Both are at work on the same file: the one whose lease was taken over rolls back, the other one goes on."""
    fault(f"worker frozen past its lease at {point}, its heir still at work")
    harness.drop({"a.csv": waves.file("heir")})
    frozen = harness.start(f"{point}:1:stop")
    frozen.wait_until_frozen()
    harness.let_leases_run_out()
    heir = harness.start("stage.block_sent:1:stop", **PATIENT)
    heir.wait_until_frozen()
    frozen.send(signal.SIGCONT)
    assert frozen.wait() == 1, frozen.output
    assert "LeaseLostError" in frozen.output
    heir.send(signal.SIGCONT)
    assert heir.wait() == 0, heir.output
    assert harness.wrong() == []
