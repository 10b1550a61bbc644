"""Every nasty file of the table in batches, and some of them alone, through the real pipeline."""

from __future__ import annotations

import os
import random

import pytest

from mini_platform_tests.support import drawn
from mini_platform_tests.support.bench import Bench, Outcome, explained
from mini_platform_tests.support.cases import CASES, GOOD_ROW, Case

DRAWN = 12
"""Number of cases that are also loaded alone."""


def difference(case: Case, got: Outcome) -> str:
    """Return the differences between a case and its outcome; empty if there are none."""
    error = got.error if bool(case.error) == bool(got.error) and case.error in got.error else f"not in: {got.error!r}"
    return explained(
        [
            ("outcome", case.summary, got.summary),
            ("sentence", case.error, case.error if error == got.error else error),
            ("rejects", case.rejects, got.rejects),
            ("production", tuple(sorted(case.rows)), got.rows),
            ("extra columns", case.extra, got.extra),
        ]
    )


def alone() -> list[Case]:
    """Return the cases with files before them, and some others, drawn by the seed of the day; with NASTY=all, all cases."""
    if os.environ.get("NASTY") == "all":
        return CASES
    drawn_names = {case.name for case in random.Random(drawn.seed()).sample(CASES, DRAWN)}  # noqa: S311 - a choice of tests
    return [case for case in CASES if case.before or case.name in drawn_names]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in alone()])
def test_alone(bench: Bench, case: Case) -> None:
    for number, before in enumerate(case.before):
        bench.drop((f"before {number}.csv", before))
        bench.run()
    bench.drop((case.file, case.data))
    (outcome,) = bench.run()
    assert outcome.name == case.file
    if wrong := difference(case, outcome):
        pytest.fail(f"{case.name}{wrong}", pytrace=False)
    assert bench.wrong() == []


def key_of(row: str) -> str:
    return "|".join(row.split("|")[:2])


def batches() -> list[list[Case]]:
    """Return all cases without files before them in batches, in which no two have a row of one key but the good row."""
    divided: list[tuple[list[Case], set[str]]] = []
    for case in CASES:
        if case.before:
            continue
        keys = {key_of(row) for row in case.rows} - {key_of(GOOD_ROW)}
        for cases, used_names in divided:
            if not keys & used_names:
                cases.append(case)
                used_names.update(keys)
                break
        else:
            divided.append(([case], keys))
    return [cases for cases, _ in divided]


def test_together(bench: Bench) -> None:
    """In a batch each file has the fate that it has alone, but for the good row, which is of the last file that has it."""
    wrong = ""
    for cases in batches():
        bench.clear()
        bench.drop(*((f"{number:03} {case.file}", case.data) for number, case in enumerate(cases)))
        wrong += differences(cases, bench.run())
        assert bench.wrong() == []
    if wrong:
        pytest.fail(wrong, pytrace=False)


def differences(cases: list[Case], outcomes: list[Outcome]) -> str:
    """Return the differences between the cases of a batch and their outcomes, by the names of the cases."""
    later: set[str] = set()
    wrong = ""
    for case, got in reversed(list(zip(cases, outcomes, strict=True))):
        keys = {row: key_of(row) for row in case.rows}
        remaining = tuple(sorted(row for row, key in keys.items() if key not in later))
        lost = len(case.rows) - len(remaining)
        later |= set(keys.values())
        counts = _counts(case.summary)
        counts["inserted"] = counts.get("inserted", 0) - lost
        counts["superseded"] = counts.get("superseded", 0) + lost
        expected = Outcome(
            got.name, "", got.error if case.error in got.error else case.error, case.rejects, remaining, case.extra
        )
        differences = explained(
            [
                ("status", case.summary.split(":")[0], got.summary.split(":")[0]),
                ("accounting", {k: v for k, v in counts.items() if v or k == "read"}, _counts(got.summary)),
                *(
                    (name, getattr(expected, name), getattr(got, name))
                    for name in ("error", "rejects", "rows", "extra")
                ),
            ]
        )
        wrong += f"\n{case.name}{differences}" if differences else ""
    return wrong


def _counts(summary: str) -> dict[str, int]:
    pairs = (part.split() for part in summary.split(": ")[1].split(", "))
    return {name: int(number) for number, name in pairs}


def test_the_table() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
