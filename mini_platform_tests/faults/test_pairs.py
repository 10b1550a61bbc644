"""Every pair of operations at once on one dataset, the first one killed or frozen at each fault point that it comes by.

It ends as if one had run after the other, in either order, once who was killed or thrown out has tried again. Each pair at each
point, killed and frozen, takes half an hour; so a share is drawn (`drawn.py`): as many as DRAWN, or all with FAULTS_PAIRS=all.
"""

from __future__ import annotations

import datetime as dt
import itertools
import multiprocessing
import os
import pprint
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, make_url, select, text

from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, connection
from mini_platform_tests.support import drawn, pairs
from mini_platform_tests.support.crash_harness import LEASE_SECONDS, PATIENT, Worker
from mini_platform_tests.support.look import everything
from mini_platform_tests.support.survivors import Survives

pytestmark = pytest.mark.faults

DRAWN = 12
TOGETHER_SECONDS = 2.0
"""How long the second one may wait for the first, which is frozen, before that goes on."""
ALL = [
    (first, point, second, action)
    for first, points in pairs.REACHED.items()
    for point, second, action in itertools.product(points, pairs.OPERATIONS, ("kill", "stop"))
]


def chosen() -> list[tuple[str, str, str, str]]:
    if os.environ.get("FAULTS_PAIRS") == "all":
        return ALL
    return random.Random(drawn.seed()).sample(ALL, DRAWN)  # noqa: S311 - a choice of tests


@dataclass
class Place:
    """A platform of a test's own that has the state in which all begin."""

    platform: Platform
    environment: dict[str, str]
    begun: dt.datetime

    def start(self, operation: str, fault: str | None = None, **settings: str) -> Worker:
        environment = self.environment | settings | ({"MINI_PLATFORM_FAULT": fault} if fault else {})
        log = self.platform.settings.home.with_name(f"{operation}-{random.randrange(10**9)}.log")  # noqa: S311
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([pairs.__name__])
        process = context.Process(target=pairs.main, args=(environment, log, operation), daemon=True)
        process.start()
        return Worker(process, log)


OpenPlace = Callable[[], Any]


@pytest.fixture(scope="module")
def open_place(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPlace]:
    """Makes copies of the state in which all begin."""
    root = tmp_path_factory.mktemp("pairs")
    admin = connection.engine(server).execution_options(isolation_level="AUTOCOMMIT")
    number = itertools.count(1)
    moments: list[dt.datetime] = []

    @contextmanager
    def opened(name: str, like: str, folder: Path | None) -> Iterator[Place]:
        where = root / name
        if folder is not None:
            shutil.copytree(folder, where)
        where.mkdir(exist_ok=True)
        with admin.connect() as conn:
            conn.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{like}"'))
        values = {
            "DATABASE_URL": make_url(server).set(database=name).render_as_string(hide_password=False),
            "MINI_PLATFORM_HOME": str(where / "home"),
            "MINI_PLATFORM_DATA": str(where / "data"),
            "MINI_PLATFORM_LEASE_SECONDS": str(LEASE_SECONDS),
            "MINI_PLATFORM_MAX_ATTEMPTS": "50",
            "MINI_PLATFORM_BATCH_FILES": "1",  # so that there is a moment between two files
        }
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in (values | PATIENT).items():
                patch.setenv(variable, value)
            platform = Platform({"mem": pairs.DATASET})
            platform.settings  # noqa: B018 - read while the environment says so
            yield Place(platform, values, moments[0] if moments else dt.datetime.now(dt.UTC))
        platform.engine.dispose()

    first = f"pairs_{root.name}".lower()
    with opened(first, template, None) as place:
        pairs.prepare(place.platform)
        with place.platform.engine.connect() as conn:
            moments.append(conn.execute(select(func.clock_timestamp())).scalar_one())

    @contextmanager
    def copy() -> Iterator[Place]:
        name = f"{first}_{next(number)}"
        with opened(name, first, root / first) as place:
            pairs.know_again(place.platform)
            yield place
        with admin.connect() as conn:
            conn.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        shutil.rmtree(root / name)

    yield copy
    with admin.connect() as conn:
        conn.execute(text(f'DROP DATABASE "{first}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture(scope="module")
def in_order() -> dict[tuple[str, str], dict[str, Any]]:
    """Outcomes where one operation runs after another, each of them computed once."""
    return {}


def after_each_other(open_place: OpenPlace, known: dict[Any, Any], *operations: str) -> dict[str, Any]:
    if operations not in known:
        with open_place() as place:
            for operation in operations:
                pairs.OPERATIONS[operation](place.platform)
            pairs.finish(place.platform, operations)
            known[operations] = outcome(place, operations)
    return dict(known[operations])


def outcome(place: Place, operations: tuple[str, ...]) -> dict[str, Any]:
    state = pairs.state(place.platform, place.begun)
    if "forget" in operations:
        # Whether a row was erased from a file before it was landed, before it was loaded or later is what these two show.
        state["files"] = [(*row[:5], row[8]) for row in state["files"]]
    return state


@pytest.mark.parametrize(("first", "point", "second", "action"), chosen())
def test_a_pair(
    first: str, point: str, second: str, action: str, open_place: OpenPlace, in_order: dict[Any, Any], fault: Survives
) -> None:
    fault(f"{first} {'killed' if action == 'kill' else 'frozen'}, and another operation beside it")
    orders = [after_each_other(open_place, in_order, *order) for order in ((first, second), (second, first))]
    with open_place() as place:
        broken = place.start(first, point if action == "kill" else f"{point}:1:stop")
        if action == "kill":
            assert broken.wait() == -signal.SIGKILL, f"{point} was not reached: {broken.output}"
        else:
            broken.wait_until_frozen()
        other = place.start(second, **PATIENT)
        try:
            other.process.join(TOGETHER_SECONDS if action == "stop" else None)
            broken.send(signal.SIGCONT)
            again = [(name, worker.wait(), worker.output) for name, worker in ((first, broken), (second, other))]
        finally:
            for worker in (broken, other):
                worker.send(signal.SIGKILL) if worker.alive else None
        for name, code, output in again:
            assert code in (0, 1, -signal.SIGKILL), output
            if code:  # It was killed, or lost its lease or lock.
                pairs.OPERATIONS[name](place.platform)
        pairs.finish(place.platform, (first, second))
        state = outcome(place, (first, second))
        assert state in orders, pprint.pformat([differing(state, order) for order in orders], width=160)
        assert wrong(place, forgotten="forget" in (first, second)) == []


def differing(state: dict[str, list[Any]], order: dict[str, list[Any]]) -> dict[str, Any]:
    """Return what is and should not be, and what should be and is not."""
    return {
        key: [[row for row in a if row not in b] for a, b in ((state[key], order[key]), (order[key], state[key]))]
        for key in order
        if state[key] != order[key]
    }


def wrong(place: Place, *, forgotten: bool) -> list[str]:
    """Whatever is not as it must be once all work is done."""
    platform = place.platform
    with platform.engine.connect() as conn:
        problems = [
            f"{sentence}: {dict(row)}"
            for sentence, query in INVARIANTS.items()
            for row in conn.execute(text(query)).mappings()
        ]
        for aggregate in pairs.DATASET.aggregates:
            problems += map(str, aggregates.differences(conn, pairs.DATASET, aggregate))
        named = set(conn.execute(text("SELECT sha256 FROM ops.files WHERE raw_dropped_at IS NULL")).scalars())
    stored = {path.name for path in platform.store.folder.glob("??/*")}
    problems += [f"raw files that nobody names, or that are missing: {stored ^ named}"] if stored != named else []
    if forgotten:
        marks = [mark.encode() for mark in (pairs.ANN, *platform.keyring.digests(pairs.ANN))]
        problems += [
            f"something of the forgotten is left in {where}"
            for where, content in everything(platform, pairs.DATASET)
            if any(mark in content for mark in marks)
        ]
    return problems


INVARIANTS = {
    "rows are not accounted for": """
        SELECT file_id FROM ops.files WHERE status = 'loaded' AND rows_read IS DISTINCT FROM
            rows_inserted + rows_updated + rows_unchanged + rows_superseded + rows_rejected""",
    "a file is not done": "SELECT file_id, status FROM ops.files WHERE status NOT IN ('loaded', 'unchanged')",
    "a lease is left": "SELECT file_id, leased_by FROM ops.files WHERE leased_by IS NOT NULL",
    "groups wait to be computed again": "SELECT consumer FROM ops.dirty_groups",
    "a deleted row is remembered": "SELECT nr FROM ops.gone_mem",
    "raw files wait to be removed": "SELECT sha256 FROM ops.pending_deletes",
}
