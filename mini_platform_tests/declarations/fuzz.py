"""`make fuzz`: the machine for as long as one likes, in two processes; it goes on after a find, and tells them apart.

python -m mini_platform_tests.declarations.fuzz --minutes 10 --seed 1 --processes 2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from mini_platform.warehouse import embedded
from mini_platform_tests.declarations.draw import NOT_YET
from mini_platform_tests.declarations.machine import Find, counted, ground, run
from mini_platform_tests.support.databases import FAST, WATCH
from mini_platform_tests.support.repository import PROJECT


@dataclass
class Summary:
    """The results of some seeds."""

    seconds: float = 0.0
    steps: int = 0
    declared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    finds: dict[str, Find] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, other: Summary) -> None:
        """Add up what another process came to."""
        self.steps += other.steps
        self.declared += other.declared
        self.refused += other.refused
        self.counts += other.counts
        self.words += other.words
        self.finds = other.finds | self.finds

    def __str__(self) -> str:
        """Return the summary as lines."""
        refused = sum(self.refused.values())
        share = refused / max(1, self.declared + refused)
        rate = self.steps / max(self.seconds, 1e-9)
        return (
            f"{self.steps} steps on {self.declared} declarations in {self.seconds:.0f} s ({rate:.1f} a second); "
            f"{share:.0%} of those drawn were refused; {sum(self.counts.values())} finds of {len(self.counts)} kinds"
        )


def work(server: str, number: int, arguments: argparse.Namespace) -> Summary:
    """Every so many-th seed, as there are processes, until the time is over."""
    seed = arguments.seed + number
    seconds, left_out = arguments.minutes * 60, frozenset() if arguments.all else NOT_YET
    summary, end = Summary(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, ground(server, Path(folder), left_out) as environment:
        while time.monotonic() < end:
            outcome = run(environment, seed, end=end)
            seed += arguments.processes
            summary.steps += outcome.steps
            summary.words += outcome.words
            if outcome.refused:
                summary.refused[outcome.refused.partition(": ")[2][:60]] += 1
                continue
            summary.declared += 1
            if outcome.find:
                kind = outcome.find.kind
                if kind not in summary.counts:
                    after = f"{seconds - end + time.monotonic():.0f} s, {summary.steps} steps"
                    print(f"after {after}: seed {outcome.find.seed}: {kind}", flush=True)  # noqa: T201
                summary.counts[kind] += 1
                if kind not in summary.finds or len(outcome.find.test) < len(summary.finds[kind].test):
                    summary.finds[kind] = outcome.find
            if summary.finds and arguments.first:
                break
        for kind, find in summary.finds.items():
            if arguments.shrink:
                summary.finds[kind] = run(environment, find.seed, shrink_seconds=arguments.shrink).find or find
    summary.seconds = seconds
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shrink", type=float, default=20, help="seconds to make a find of each kind smaller")
    parser.add_argument("--all", action="store_true", help="also words that the gate leaves out")
    parser.add_argument("--first", action="store_true", help="stop at the first find")
    parser.add_argument("--words", action="store_true", help="say how often each word was drawn")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)  # noqa: T201
    total = Summary()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = embedded.ensure_running(home, FAST)
        watch = subprocess.Popen(
            [sys.executable, "-c", WATCH, folder], stdin=subprocess.PIPE, cwd=PROJECT, start_new_session=True
        )
        with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(work, server, number, arguments) for number in range(arguments.processes)]
            for job in jobs:
                total.add(job.result())
        watch.communicate(timeout=60)
    total.seconds = arguments.minutes * 60
    for kind, find in total.finds.items():
        print(f"\n=== {total.counts[kind]} x {kind} (seed {find.seed})\n{find.test}")  # noqa: T201
    if arguments.words:
        print(f"\nDrawn:\n{counted(total.words)}\n\nRefused:\n{counted(total.refused)}")  # noqa: T201
    print(f"\n{total}")  # noqa: T201
    sys.exit(bool(total.finds))


if __name__ == "__main__":
    main()
