"""This checkout against another one, such as that of a change's parent, pair by pair in one run.

    git worktree add --detach ../before COMMIT
    make against ARGS="../before --rounds 5 --only first_1m_inside,small"

Figures are CPU seconds: of the client (the process itself; the web process while it answers) and of the server (Postgres, all
of its processes, for as long as that took), each as the ratio new / before of a pair; the median of the pairs is what counts.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from mini_platform.settings import PROJECT
from mini_platform.warehouse import embedded
from mini_platform_tests.benchmarks.bench import HERE, MILLION, Bench
from mini_platform_tests.benchmarks.web_load import serving

CASES: dict[str, Callable[[Bench], tuple[str, Sequence[Path], bool]]] = {
    "first_1m_inside": lambda bench: ("weather", [bench.part(MILLION, 0, MILLION, 0.01)], False),
    "reload": lambda bench: ("weather", [bench.changed(bench.part(MILLION, 0, MILLION, 0.01))], True),
    "small": lambda bench: ("weather", bench.small_files(1000, 100), False),
    "sales": lambda bench: ("sales", [bench.sales(0.01)], False),
}
"""Name -> dataset, files, and whether they come upon a million rows that are loaded already."""
ASKED = 30
TICK = 0.01
"""Seconds: less is not measured, and may be 0."""
WEB = {
    "web_rows": "/api/datasets/weather/rows/?limit=100&station_id__gte={}",
    "web_series": "/api/metrics/daily/?station_id={}&limit=366",
    "web_page": "/weather?station={}",
    "web_dataset": "/datasets/weather?station_id={}",
    "web_overview": "/?{}",
    "web_files": "/files?search={}",
    "web_quality": "/quality?{}",
}
"""Name -> what is asked for so many stations, over a million rows; both web processes run all the time."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a run, and how long it took by the clock."""

    client: float
    server: float
    wall: float


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


def _prepare(bench: Bench, made: set[str], project: Path, label: str, *, loaded: bool) -> str:
    """Return the name of a database with the tables of that checkout, and a million rows if that is asked for; made once."""
    name = f"{label}_{'loaded' if loaded else 'empty'}"
    if name not in made:
        bench.database(name)
        setup = "from mini_platform.platform import Platform; Platform().engine"
        bench.python(name, "-c", setup, project=project)
        if loaded:
            bench.python(name, "-m", f"{HERE}.inside", bench.part(MILLION, 0, MILLION, 0.01), project=project)
            bench.vacuum(name)  # Else it may be done by the server in one of two databases, and cost a page a third.
        made.add(name)
    return name


def _cost(bench: Bench, project: Path, template: str, dataset: str, files: Sequence[Path]) -> Cost:
    bench.database("measured", template)
    before = _server_seconds(bench)
    run = bench.python("measured", "-m", f"{HERE}.inside", *files, dataset=dataset, project=project)
    return Cost(run.cpu, _server_seconds(bench) - before, run.inside)


def _in_turn(both: Mapping[str, Any], turn: int) -> list[tuple[str, Any]]:
    """Return the checkouts in the order of a round: each comes first in every other one, as the first may pay for the last."""
    return list(both.items()) if turn % 2 else list(both.items())[::-1]


def _load_costs(
    bench: Bench, name: str, made: set[str], checkouts: Mapping[str, Path], rounds: int
) -> Iterator[dict[str, Cost]]:
    """What a case of `CASES` costs each checkout, round by round."""
    dataset, files, loaded = CASES[name](bench)
    templates = {label: _prepare(bench, made, project, label, loaded=loaded) for label, project in checkouts.items()}
    for turn in range(rounds):
        yield {
            label: _cost(bench, project, templates[label], dataset, files)
            for label, project in _in_turn(checkouts, turn)
        }


def _web_costs(
    bench: Bench, name: str, made: set[str], checkouts: Mapping[str, Path], rounds: int
) -> Iterator[dict[str, Cost]]:
    """What a case of `WEB` costs each checkout, round by round."""
    with ExitStack() as stack:
        served = {}
        for label, project in checkouts.items():
            environment = bench.environment(_prepare(bench, made, project, label, loaded=True), project)
            url, process = stack.enter_context(serving(environment, project, subprocess.DEVNULL))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            served[label] = client, psutil.Process(process.pid)
        stations = client.get("/api/stations/").json()["stations"]
        drawn = random.Random(1)  # noqa: S311 - the same ones each time
        for turn in range(rounds):
            # Others each time: the same answer again would be read from a cache.
            paths = [WEB[name].format(station) for station in drawn.choices(stations, k=ASKED)]
            yield {label: _answered(bench, *it, paths) for label, it in _in_turn(served, turn)}


def _answered(bench: Bench, client: httpx.Client, web: psutil.Process, paths: Sequence[str]) -> Cost:
    start, spent, before = time.perf_counter(), web.cpu_times(), _server_seconds(bench)
    for path in paths:
        client.get(path).raise_for_status()
    now = web.cpu_times()
    seconds = now.user + now.system - spent.user - spent.system
    return Cost(seconds, _server_seconds(bench) - before, time.perf_counter() - start)


def main(
    before: Annotated[Path, typer.Argument(help="The other checkout.")],
    rounds: Annotated[int, typer.Option(help="Pairs of each case.")] = 5,
    only: Annotated[str, typer.Option(help="Cases, with commas between them.")] = ",".join((*CASES, *WEB)),
) -> None:
    """Measure each case with both checkouts in turn, and print the medians of the ratios."""
    table = Table("case", "client new / before", "server new / before", "clock new / before", "client s", "server s")
    checkouts = {"new": PROJECT, "before": before.resolve()}
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        bench, made = Bench(Path(folder)), set[str]()
        try:
            for name in only.split(","):
                costs = (_web_costs if name in WEB else _load_costs)(bench, name, made, checkouts, rounds + 1)
                next(costs)  # The first one warms up: what is imported is compiled, files are read from the disk.
                pairs = [(cost["new"], cost["before"]) for cost in costs]
                table.add_row(
                    name, *(_ratios(pairs, figure) for figure in ("client", "server", "wall")), *_seconds(pairs)
                )
        finally:
            bench.admin.dispose()
            embedded.stop(bench.folder / "home")
    Console().print(table)


def _ratios(pairs: Sequence[tuple[Cost, Cost]], figure: str) -> str:
    ratios = sorted(getattr(new, figure) / max(getattr(old, figure), TICK) for new, old in pairs)
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _seconds(pairs: Sequence[tuple[Cost, Cost]]) -> list[str]:
    return [
        " / ".join(f"{statistics.median(getattr(pair[i], figure) for pair in pairs):.2f}" for i in (0, 1))
        for figure in ("client", "server")
    ]


if __name__ == "__main__":
    typer.run(main)
