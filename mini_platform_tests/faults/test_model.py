"""Any sequence of drops, reverts, appends, runs, kills and redrives, as Hypothesis finds them, against the oracle."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import make_url, text

from mini_platform.config.faultpoints import POINTS
from mini_platform.platform import Platform
from mini_platform.warehouse import connection, ledger
from mini_platform.warehouse.tables import files
from mini_platform_tests.support import waves, worker
from mini_platform_tests.support.crash_harness import LEASE_SECONDS, PATIENT, CrashHarness
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

NAMES = ("a.csv", "b.csv", "c.csv")
SEEDS = st.integers(0, 5)
"""Few different files, so that the same bytes come again."""
REPROCESSED = files.c.status.in_(("loaded", "refused", "failed"))

OpenHarness = Callable[[], Any]


class Life(RuleBasedStateMachine):
    """One platform, from its empty tables on."""

    def __init__(self, open_harness: OpenHarness, deaths: list[str]) -> None:
        super().__init__()
        self.deaths = deaths
        self._opened = open_harness()
        self.harness, self.platform = self._opened.__enter__()
        self.history: dict[str, list[bytes]] = {}

    def _put(self, name: str, data: bytes) -> None:
        self.harness.drop({name: data})
        self.history.setdefault(name, []).append(data)

    @rule(name=st.sampled_from(NAMES), seed=SEEDS, dirt=st.sampled_from((0.0, 0.1, 0.9)))
    def drop_or_replace(self, name: str, seed: int, dirt: float) -> None:
        self._put(name, waves.file(seed, rows=120 if dirt > 0.5 else 15, dirt=dirt))

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def revert_to_earlier_bytes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.history)))
        self._put(name, data.draw(st.sampled_from(self.history[name])))

    @precondition(lambda self: self.history)
    @rule(data=st.data(), seed=SEEDS)
    def append_rows(self, data: st.DataObject, seed: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.history)))
        self._put(name, self.history[name][-1] + waves.file(f"more {seed}", rows=4).split(b"\n", 1)[1])

    @rule()
    def run(self) -> None:
        worker.work(self.platform)
        assert self.harness.wrong() == []

    @rule(point=st.sampled_from(POINTS), hit=st.integers(1, 2))
    def run_and_be_killed(self, point: str, hit: int) -> None:
        code = self.harness.start(f"{point}:{hit}").wait()
        assert code in (0, -signal.SIGKILL), self.harness.workers[-1].output
        self.deaths += [point] * (code != 0)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def redrive_one(self, data: st.DataObject) -> None:
        with self.platform.engine.begin() as conn:
            ids = list(conn.execute(text("SELECT file_id FROM ops.files WHERE same_as IS NULL ORDER BY 1")).scalars())
            if ids:
                one = files.c.file_id == data.draw(st.sampled_from(ids))
                ledger.return_to_landed(conn, "weather", one, REPROCESSED)

    @rule()
    def redrive_all(self) -> None:
        with self.platform.engine.begin() as conn:
            ledger.return_to_landed(conn, "weather", REPROCESSED)

    def teardown(self) -> None:
        try:
            self.run()
        finally:
            self._opened.__exit__(None, None, None)


@pytest.fixture
def open_harness(server: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenHarness:
    """Makes a harness with a database of its own, as often as it is called."""
    number = itertools.count(1)
    admin = connection.engine(server).execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def opened() -> Iterator[tuple[CrashHarness, Platform]]:
        name = f"life_{tmp_path.name}_{next(number)}".lower()
        folder = tmp_path / name
        with admin.connect() as conn:
            conn.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        values = {
            "DATABASE_URL": make_url(server).set(database=name).render_as_string(hide_password=False),
            "MINI_PLATFORM_HOME": str(folder / "home"),
            "MINI_PLATFORM_DATA": str(folder / "data"),
            "MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS),
            "MINI_PLATFORM_BATCH_FILES": "2",
            "MINI_PLATFORM_MAX_ATTEMPTS": "50",  # More kills than a life has steps: none is given up.
        }
        for variable, value in (values | PATIENT).items():
            monkeypatch.setenv(variable, value)
        (folder / "data" / "weather").mkdir(parents=True)
        platform = Platform()
        harness = CrashHarness(platform.engine, folder / "home", folder / "data", values)
        harness.watch()
        try:
            yield harness, platform
        finally:
            harness.close()
            platform.engine.dispose()
            with admin.connect() as conn:
                conn.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))

    return opened


@pytest.mark.timeout(600)
def test_any_life(open_harness: OpenHarness, fault: Survives) -> None:
    fault("any sequence of drops, reverts, appends, kills and redrives")
    bounds = settings(
        max_examples=40, stateful_step_count=14, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
    )
    deaths: list[str] = []
    run_state_machine_as_test(lambda: Life(open_harness, deaths), settings=bounds)
    # How many depends on the lives that hypothesis makes up; every point has its turn in test_kills.py.
    assert deaths, "no worker was ever killed"
