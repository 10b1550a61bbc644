"""This checkout against another commit, pair by pair in one run: `make bench ARGS="--against COMMIT --pairs 7"`.

Figures are CPU seconds, of the client (the process itself; the web process while it answers) and of the server (Postgres, all
of its processes, for as long as that took), the clock's, and bytes of WAL: each as the ratio new / before of a pair; the median
of the pairs is what counts. What they are of: `CASES`, `WEB`, `COMMANDS`.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from mini_platform.warehouse import embedded
from mini_platform_tests.benchmarks.bench import HERE, MILLION, Bench
from mini_platform_tests.benchmarks.web_load import serving
from mini_platform_tests.support.repository import PROJECT

CASES: dict[str, Callable[[Bench], tuple[str, Sequence[Path], bool]]] = {
    "first_1m_inside": lambda bench: ("weather", [bench.part(MILLION, 0, MILLION, 0.01)], False),
    "reload": lambda bench: ("weather", [bench.changed(bench.part(MILLION, 0, MILLION, 0.01))], True),
    "small": lambda bench: ("weather", bench.small_files(1000, 100), False),
    "sales": lambda bench: ("sales", [bench.sales(0.01)], False),
}
"""Name -> dataset, files, and whether they come upon a million rows that are loaded already."""
REQUESTS = 30
FIGURES = ("client", "server", "wall", "wal")
TICK = 0.01
"""Seconds: less is not measured, and may be 0."""
LEAST = {"wal": 2**20}
"""Figures that are no seconds -> less is noise."""
WEB = {
    "web_rows": "/api/datasets/weather/rows/?limit=100&station_id__gte={}",
    "web_series": "/api/metrics/daily/?station_id={}&limit=366",
    "web_page": "/weather?station={}",
    "web_dataset": "/datasets/weather?station_id={}",
    "web_overview": "/?{}",
    "web_files": "/files?search={}",
    "web_quality": "/quality?{}",
    "web_sales": "/sales?from={}",
}
"""Name -> path that is requested over a million rows, for so many stations, or days; both web processes run all the time."""
DRAWN = {
    "weather": "SELECT DISTINCT station_id FROM production.measurements ORDER BY 1",
    "sales": "SELECT DISTINCT order_date FROM production.orders ORDER BY 1",
}
"""Dataset -> query of the values in the paths."""


COMMANDS = {"import": ("-c", "import mini_platform.definitions")}
"""Name -> arguments of Python; no database."""


@dataclass(frozen=True)
class Cost:
    """The cost of a run: CPU seconds, seconds by the clock, bytes of WAL."""

    client: float
    server: float
    wall: float
    wal: float


def _server_seconds(bench: Bench) -> float:
    """Return the CPU seconds of the server so far: of its processes, and of those that have ended."""
    pid = embedded.pid(bench.folder / "home")
    assert pid is not None
    server = psutil.Process(pid)
    ended = server.cpu_times()
    seconds = ended.user + ended.system + ended.children_user + ended.children_system
    for process in server.children():
        times = process.cpu_times()
        seconds += times.user + times.system
    return seconds


def _wal(bench: Bench) -> float:
    """Return the bytes of WAL that the server has written so far."""
    with bench.admin.connect() as conn:
        return float(conn.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")) or 0)


def _prepare(bench: Bench, prepared: set[str], project: Path, label: str, loaded: str | None) -> str:
    """Return the name of a database, prepared once, with the tables of a checkout and a million rows of a dataset, if one."""
    name = f"{label}_{loaded or 'empty'}"
    if name not in prepared:
        bench.database(name)
        setup = "from mini_platform.platform import Platform; Platform().engine"
        bench.python(name, "-c", setup, project=project)
        if loaded:
            file = bench.sales(0.01) if loaded == "sales" else bench.part(MILLION, 0, MILLION, 0.01)
            bench.python(name, "-m", f"{HERE}.inside", file, dataset=loaded, project=project)
            bench.vacuum(name)  # Else it may be done by the server in one of two databases, and cost a page a third.
        prepared.add(name)
    return name


def _cost(bench: Bench, project: Path, template: str, dataset: str, files: Sequence[Path]) -> Cost:
    bench.database("measured", template)
    wal, before = _wal(bench), _server_seconds(bench)
    run = bench.python("measured", "-m", f"{HERE}.inside", *files, dataset=dataset, project=project)
    return Cost(run.cpu, _server_seconds(bench) - before, run.inside, _wal(bench) - wal)


def _in_turn(both: Mapping[str, Any], turn: int) -> list[tuple[str, Any]]:
    """Return the checkouts in the order of a round: each comes first in every other one, as the first may pay for the last."""
    return list(both.items()) if turn % 2 else list(both.items())[::-1]


def _load_costs(
    bench: Bench, name: str, prepared: set[str], checkouts: Mapping[str, Path], rounds: int
) -> Iterator[dict[str, Cost]]:
    """Yield the cost of a case of `CASES` by checkout, round by round."""
    dataset, files, loaded = CASES[name](bench)
    rows = dataset if loaded else None
    templates = {label: _prepare(bench, prepared, project, label, rows) for label, project in checkouts.items()}
    for turn in range(rounds):
        yield {
            label: _cost(bench, project, templates[label], dataset, files)
            for label, project in _in_turn(checkouts, turn)
        }


def _web_costs(
    bench: Bench, name: str, prepared: set[str], checkouts: Mapping[str, Path], rounds: int
) -> Iterator[dict[str, Cost]]:
    """Yield the cost of a case of `WEB` by checkout, round by round."""
    dataset = "sales" if name == "web_sales" else "weather"
    with ExitStack() as stack:
        served = {}
        for label, project in checkouts.items():
            database = _prepare(bench, prepared, project, label, dataset)
            environment = bench.environment(database, project)
            url, process = stack.enter_context(serving(environment, project, subprocess.DEVNULL))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            served[label] = client, psutil.Process(process.pid)
        values = bench.values(database, DRAWN[dataset])
        drawn = random.Random(1)  # noqa: S311 - the same ones each time
        for turn in range(rounds):
            # Others each time: the same answer again would be read from a cache.
            paths = [WEB[name].format(value) for value in drawn.choices(values, k=REQUESTS)]
            yield {label: _answered(bench, *it, paths) for label, it in _in_turn(served, turn)}


def _answered(bench: Bench, client: httpx.Client, web: psutil.Process, paths: Sequence[str]) -> Cost:
    wal, start, spent, before = _wal(bench), time.perf_counter(), web.cpu_times(), _server_seconds(bench)
    for path in paths:
        client.get(path).raise_for_status()
    now = web.cpu_times()
    seconds = now.user + now.system - spent.user - spent.system
    return Cost(seconds, _server_seconds(bench) - before, time.perf_counter() - start, _wal(bench) - wal)


def _command_costs(
    bench: Bench, name: str, _: set[str], checkouts: Mapping[str, Path], rounds: int
) -> Iterator[dict[str, Cost]]:
    """Yield the cost of a case of `COMMANDS` by checkout, round by round."""
    for turn in range(rounds):
        runs = {
            label: bench.python("postgres", *COMMANDS[name], project=project)
            for label, project in _in_turn(checkouts, turn)
        }
        yield {label: Cost(run.cpu, 0, run.wall, 0) for label, run in runs.items()}


def compare(commit: str, pairs: int, only: str) -> None:
    """Measure each case with both checkouts in turn, and print the medians of the ratios.

    Args:
        commit: the other one, of which a checkout is made for as long as this takes.
        pairs: of each case; one more warms up.
        only: names of cases, with commas between them; empty: all.
    """
    table = Table("case", *(f"{figure} new / before" for figure in FIGURES), *(f"{figure} s" for figure in FIGURES[:2]))
    with tempfile.TemporaryDirectory(prefix="against-") as folder, _checkout(commit, Path(folder) / "before") as before:
        checkouts = {"new": PROJECT, "before": before}
        bench, prepared = Bench(Path(folder)), set[str]()
        try:
            for name in only.split(",") if only else (*CASES, *WEB, *COMMANDS):
                costs = _costs_of(name)(bench, name, prepared, checkouts, pairs + 1)
                next(costs)  # The first one warms up: what is imported is compiled, files are read from the disk.
                measured = [(cost["new"], cost["before"]) for cost in costs]
                ratios = [_ratios(measured, figure) for figure in FIGURES]
                table.add_row(name, *ratios, *_seconds(measured))
        finally:
            bench.admin.dispose()
            embedded.stop(bench.folder / "home")
    Console(width=150).print(table)


def _costs_of(name: str) -> Callable[..., Iterator[dict[str, Cost]]]:
    for cases, costs in ((CASES, _load_costs), (WEB, _web_costs), (COMMANDS, _command_costs)):
        if name in cases:
            return costs
    raise typer.BadParameter(f"there is no case {name}; there are {', '.join((*CASES, *WEB, *COMMANDS))}")


@contextmanager
def _checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Yield a checkout of a commit, which is gone afterwards."""
    git = ("git", "-C", str(PROJECT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _ratios(pairs: Sequence[tuple[Cost, Cost]], figure: str) -> str:
    least = LEAST.get(figure, TICK)
    if all(getattr(cost, figure) < least for pair in pairs for cost in pair):
        return ""
    ratios = sorted(max(getattr(new, figure), least) / max(getattr(old, figure), least) for new, old in pairs)
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _seconds(pairs: Sequence[tuple[Cost, Cost]]) -> list[str]:
    return [
        " / ".join(f"{statistics.median(getattr(pair[i], figure) for pair in pairs):.2f}" for i in (0, 1))
        for figure in FIGURES[:2]
    ]
