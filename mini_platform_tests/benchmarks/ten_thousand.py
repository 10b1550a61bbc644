"""Ten thousand files at once, live: the platform as `mini-platform up` starts it, 10,000 small files dropped in a second.

    make ten-thousand                               # a few minutes
    make ten-thousand ARGS="--files 1000 --no-poison"

Two poison files stand first in the queue: one that is refused, and a small gzip that unpacks to two million lines, each of
them rejected. While the platform works, the UI is asked twice a second, and one more file is dropped. What counts: every
file gets its final status, the first good one within a minute of the drop, and all of them before the costly one; every
tick of the sensor takes less than 10 s (for 4 s of which it watches by design); the UI answers 95 of 100 requests within
2 s. The exit code is 1 if one of these promises is missed.

What this cannot show: that other datasets are not starved, as there is only one. `dagster.yaml` allows one run of a dataset
at a time (`tag_concurrency_limits`) and two runs in all (`max_concurrent_runs`), so that the second slot is always another
dataset's; and a run takes `run_files` files at most, so that no run holds the first slot for long.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from mini_platform.cli.supervisor.child import end, marked
from mini_platform.datasets.weather import dataset as weather
from mini_platform.operations.sampling import write_sample
from mini_platform.warehouse import connection, embedded
from mini_platform_tests.support.repository import PROJECT

CONSOLE = Console(stderr=True)
GIVE_UP_SECONDS = 1800.0
TICK_SECONDS, UI_SECONDS = 10.0, 2.0
"""The promised seconds of the longest tick, and of 95 of 100 answers of the UI."""
FIRST, FIRST_SECONDS = "a good file is loaded", 60.0
"""The seconds that the poison files may keep the good ones behind them waiting; without them it took 30 s on two busy cores."""
COSTLY = "! costly.csv"
RUNS_QUERY = "{ runsOrError(limit: 10) { ... on Runs { results { runId status } } } }"

COUNTS = "SELECT status, count(*) FROM ops.files WHERE dataset = 'weather' GROUP BY status"
STATUS = "SELECT status, loaded_at FROM ops.files WHERE name = :name ORDER BY file_id DESC LIMIT 1"
RUNS = """
    SELECT r.run_id, r.status, r.start_time, r.end_time,
        (SELECT count(*) FROM ops.files f WHERE f.run_id = r.run_id) AS files
    FROM dagster.runs r ORDER BY r.id
"""
TICKS = "SELECT tick_body FROM dagster.job_ticks WHERE type = 'SENSOR' AND status <> 'STARTED'"


@dataclass
class Live:
    """A running platform of its own."""

    home: Path
    data: Path
    port: int
    engine: Engine

    def counts(self) -> dict[str, int]:
        """Status -> files."""
        with self.engine.connect() as conn:
            return dict(conn.execute(text(COUNTS)).tuples().all())

    def status(self, name: str) -> str | None:
        """Return the status of the last arrival under a name."""
        with self.engine.connect() as conn:
            return conn.scalar(text(STATUS), {"name": name})

    def rows(self, query: str) -> list[Any]:
        with self.engine.connect() as conn:
            return list(conn.execute(text(query)))

    def drop(self, *paths: Path) -> None:
        """Rename finished files into the drop folder, as a careful sender does."""
        for path in paths:
            path.rename(self.data / "weather" / path.name)


@contextmanager
def live(folder: Path) -> Iterator[Live]:
    """Start the platform; stop everything that belongs to its home at the end."""
    home, data = folder / "home", folder / "data"
    (data / "weather").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("MINI_PLATFORM_", "DAGSTER", "DATABASE_"))}
    environment = inherited | {
        "MINI_PLATFORM_HOME": str(home),
        "MINI_PLATFORM_DATA": str(data),
        "MINI_PLATFORM_DAGSTER_PORT": str(port),
    }

    def command(*words: str) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "mini_platform.cli", *words],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if result.returncode:
            raise RuntimeError(f"mini-platform {' '.join(words)}: {result.stdout}{result.stderr}")

    engine = None
    try:
        command("up", "--detach")
        engine = connection.engine(embedded.ensure_running(home))
        yield Live(home, data, port, engine)
    finally:
        if engine is not None:
            engine.dispose()
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            command("down")
        end(marked(home))
        embedded.stop(home)


@dataclass
class Ui:
    """Asks the UI twice a second, in a thread of its own."""

    port: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"/server_info": [], "GraphQL, ten runs": []})
    failures: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.stopped.wait(0.5):
            self._ask("/server_info", lambda: self._get("/server_info", None))
            self._ask("GraphQL, ten runs", lambda: self._get("/graphql", json.dumps({"query": RUNS_QUERY}).encode()))

    def _ask(self, name: str, question: Callable[[], bytes]) -> None:
        start = time.perf_counter()
        try:
            question()
        except OSError:
            self.failures += 1
        self.seconds[name].append(time.perf_counter() - start)

    def _get(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http
            return bytes(answer.read())


@contextmanager
def watched_ui(port: int) -> Iterator[Ui]:
    """The UI, which is requested as long as the body runs."""
    ui = Ui(port)
    thread = threading.Thread(target=ui.watch, daemon=True)
    thread.start()
    yield ui
    ui.stopped.set()
    thread.join()


def prepared(folder: Path, count: int, rows: int) -> list[Path]:
    """Small files of different rows, one in a hundred of which is dirty."""
    folder.mkdir()
    whole = folder / "whole"
    write_sample(weather, whole, count * rows, 0.01, seed=1)
    paths = []
    with whole.open("rb") as source:
        header = source.readline()
        for number in range(count):
            path = folder / f"{number:05}.csv"
            path.write_bytes(header + b"".join(source.readline() for _ in range(rows)))
            paths.append(path)
    whole.unlink()
    return paths


def poison(folder: Path) -> list[Path]:
    """Two files that sort first: one is refused at its header, the other costs a lot and is refused in the end."""
    refused, costly = folder / "!! refused.csv", folder / COSTLY
    refused.write_bytes(b"station_id;date;temp_c;precip_mm\nA;2024-01-01;1;0\n")
    rng = bytes((i * 7919) % 251 % 10 + 48 for i in range(997))  # so that it packs less than a bomb
    lines = b"".join(b'A,2024-01-01,"%b,%d\n' % (rng[i % 900 : i % 900 + 9], i % 7) for i in range(2_000_000))
    costly.write_bytes(gzip.compress(b"station_id,date,temp_c,precip_mm\n" + lines))
    return [refused, costly]


@dataclass
class Figures:
    """Seconds since the drop until things had happened.

    Attributes:
        until: by what had happened.
        seconds_of_later: from the drop of a further file until it was loaded.
        counts: files by status, at last.
        waiting: files that were not loaded yet when the costly one was done.
    """

    until: dict[str, float] = field(default_factory=dict)
    seconds_of_later: float | None = None
    waiting: int | None = None
    counts: dict[str, int] = field(default_factory=dict)


def watch(platform: Live, expected: int, later: Path) -> Figures:
    """Wait until every file has its final status; drop a file more when a third have."""
    figures, start = Figures(), time.perf_counter()
    dropped = 0.0
    while (now := time.perf_counter() - start) < GIVE_UP_SECONDS:
        costly_done = platform.status(COSTLY) == "refused"
        counts = platform.counts()
        final = sum(counts.get(status, 0) for status in ("loaded", "refused", "failed"))
        if counts.get("loaded"):
            figures.until.setdefault(FIRST, now)
        for name, share in (("any final", 0), ("half final", 0.5), ("all final", 1)):
            if final > 0 and final >= share * expected:
                figures.until.setdefault(name, now)
        if not dropped and final >= expected / 3:
            platform.drop(later)
            dropped, expected = now, expected + 1
        if dropped and figures.seconds_of_later is None and platform.status(later.name) == "loaded":
            figures.seconds_of_later = now - dropped
        if figures.waiting is None and costly_done:
            figures.waiting = counts.get("landed", 0) + counts.get("staged", 0)
        if counts != figures.counts:
            CONSOLE.log(f"{now:6.1f} s {counts}")
        figures.counts = counts
        if dropped and final >= expected and not (counts.get("landed") or counts.get("staged")):
            break
        time.sleep(0.5)
    return figures


def ticks(platform: Live) -> list[float]:
    """Seconds of each tick of the sensor."""
    bodies = [json.loads(row.tick_body) for row in platform.rows(TICKS)]
    return [body["end_timestamp"] - body["timestamp"] for body in bodies if body.get("end_timestamp")]


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else max(seconds, default=0.0)


def report(platform: Live, figures: Figures, ui: Ui, expected: int, poisons: int) -> bool:
    """Print what was measured; return True if every promise was kept."""
    table = Table("what", "figure", "promise", "")
    all_met = True

    def line(what: str, figure: str, promise: str = "", *, met: bool = True) -> None:
        nonlocal all_met
        all_met = all_met and met
        table.add_row(what, figure, promise, ("met" if met else "missed") if promise else "")

    loaded, refused = figures.counts.get("loaded", 0), figures.counts.get("refused", 0)
    everything = loaded == expected + 1 and refused == poisons and sum(figures.counts.values()) == loaded + refused
    line("files", f"{loaded} loaded, {refused} refused", f"{expected + 1} and {poisons}", met=everything)
    for name, seconds in figures.until.items():
        promise, met = (f"< {FIRST_SECONDS:g}", seconds < FIRST_SECONDS) if name == FIRST else ("", True)
        line(f"seconds until {name}", f"{seconds:.1f}", promise, met=met)
    if figures.seconds_of_later is not None:
        line("seconds until a file dropped meanwhile was loaded", f"{figures.seconds_of_later:.1f}")
    if figures.waiting is not None:
        line("files that waited for the costly one", str(figures.waiting), "0", met=figures.waiting == 0)
    runs = platform.rows(RUNS)
    line("runs that took files: files of each", ", ".join(str(run.files) for run in runs if run.files))
    line("runs in all: seconds of each", ", ".join(f"{(r.end_time or 0) - (r.start_time or 0):.0f}" for r in runs))
    line("runs that did not succeed", str(sum(run.status != "SUCCESS" for run in runs)), "0", met=all(
        run.status in ("SUCCESS", "STARTED", "QUEUED") for run in runs
    ))  # fmt: skip
    tick_seconds = ticks(platform)
    words = f"{statistics.median(tick_seconds):.2f}, {p95(tick_seconds):.2f}, {max(tick_seconds):.2f}"
    line(
        f"seconds of {len(tick_seconds)} ticks: median, p95, longest",
        words,
        f"< {TICK_SECONDS:g}",
        met=max(tick_seconds) < TICK_SECONDS,
    )
    for name, seconds in ui.seconds.items():
        words = f"{statistics.median(seconds):.3f}, {p95(seconds):.3f}, {max(seconds):.3f}"
        met = p95(seconds) < UI_SECONDS
        line(
            f"seconds of {len(seconds)} answers of {name}: median, p95, longest",
            words,
            f"p95 < {UI_SECONDS:g}",
            met=met,
        )
    line("requests that the UI failed", str(ui.failures), "0", met=not ui.failures)
    Console(width=150).print(table)
    return all_met


def main(
    files: Annotated[int, typer.Option(help="How many.")] = 10_000,
    rows: Annotated[int, typer.Option(help="In each.")] = 100,
    poisoned: Annotated[bool, typer.Option("--poison/--no-poison", help="Two poison files first.")] = True,
) -> None:
    """Drop the files, watch, and print a table; exit 1 if a promise is missed."""
    folder = Path(tempfile.mkdtemp(prefix="ten-thousand-"))
    try:
        paths = prepared(folder / "prepared", files + 1, rows)
        *paths, later = [*(poison(folder / "prepared") if poisoned else []), *paths]
        poisons = 2 if poisoned else 0
        with live(folder) as platform:
            CONSOLE.log(f"the platform is up; {len(paths)} files are dropped")
            with watched_ui(platform.port) as ui:
                platform.drop(*paths)
                figures = watch(platform, len(paths), later)
            time.sleep(6)  # the last run's end, and a tick after it
            all_met = report(platform, figures, ui, files, poisons)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(0 if all_met else 1)


if __name__ == "__main__":
    typer.run(main)
