"""The machine in the gate, in the ring of the faults: a minute of it, by the seed of the run.

More: `make fuzz ARGS="--minutes 60 --seed 7"`. A find is reported as a test that can be pasted.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mini_platform_tests.declarations.draw import NOT_YET
from mini_platform_tests.declarations.machine import ground, run
from mini_platform_tests.support import drawn

SECONDS = 60
SEEDS = 1_000_000
"""So many declarations may be drawn by the seed of a run."""


@pytest.mark.faults
@pytest.mark.timeout(SECONDS + 200)
def test_what_is_drawn_comes_out_as_it_should(
    server: str, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    seconds, first = SECONDS * drawn.share(), drawn.seed() * SEEDS
    end, steps, declarations, refused = time.monotonic() + seconds, 0, 0, 0
    with ground(server, tmp_path, NOT_YET) as environment:
        for seed in range(first, first + SEEDS):
            if time.monotonic() > end:
                break
            outcome = run(environment, seed, shrink_seconds=60, end=end)
            if outcome.find:
                pytest.fail(f"seed {seed}: {outcome.find.wrong[0]}\n{outcome.find.test}", pytrace=False)
            steps += outcome.steps
            declarations += not outcome.refused
            refused += bool(outcome.refused)
    summary = (
        f"{steps} steps on {declarations} declarations in {seconds:.0f} s by seed {first}, {refused} more were refused"
    )
    record_property(drawn.REPORT, f"the machine: {summary}")
    assert steps
