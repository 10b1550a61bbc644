"""The sensor sees what a dead run leaves behind, whatever it is: nobody has to start anything by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mini_platform.dagster.automation import _evaluate
from mini_platform.platform import Platform
from mini_platform_tests.support import waves
from mini_platform_tests.support.crash_harness import CrashHarness
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

LEFT_BEHIND = (
    "land.raw_file_kept",  # a file that only stands in the folder
    "claim.after_commit",  # leases
    "stage.after_commit",  # staged files
    "aggregate.before_commit",  # nothing but marks on groups
    "aggregate.after_commit",  # nothing but marks on groups of another aggregate
)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as dagster_instance:
        yield dagster_instance


@pytest.mark.parametrize("point", LEFT_BEHIND)
def test_sensor_asks_for_a_run(
    point: str, harness: CrashHarness, platform: Platform, instance: dg.DagsterInstance, fault: Survives
) -> None:
    fault(f"kill -9 of the worker at {point}: the sensor asks for a run")
    harness.drop(waves.first("sensor"))
    harness.kill_at(point)
    harness.let_leases_run_out()
    with dg.build_sensor_context(instance=instance) as context:
        run_request = _evaluate(context, harness.dataset, platform)
    assert isinstance(run_request, dg.RunRequest), run_request
    harness.finish()
    with dg.build_sensor_context(instance=instance) as context:
        assert isinstance(_evaluate(context, harness.dataset, platform), dg.SkipReason)
