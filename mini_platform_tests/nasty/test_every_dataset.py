"""Every dataset: dirt of every rule, and nasty files of its forms, through the real pipeline.

A nasty file is read by the same code whichever dataset it is of, so each comes with one dataset, another one each day.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from mini_platform import Dataset, RejectLimit
from mini_platform.datasets import all_datasets
from mini_platform.warehouse import ledger
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform_tests.support import drawn
from mini_platform_tests.support.bench import Bench, Outcome, explained
from mini_platform_tests.support.pollution import BEFORE, POLLUTION, ROWS, Pollution
from mini_platform_tests.support.samples import EVERY, Sample, encoding, production, sample

FORMS = [pytest.param(name, form, id=f"{name} {form}") for name, form in EVERY]
SMALL = [(name, form) for name, form in EVERY if encoding(all_datasets()[name], form) == "utf-8"]


def chosen() -> dict[str, list[Pollution]]:
    """Return the cases by dataset, each with one that has its form, drawn by the seed of the day; with NASTY=all, with all."""
    rng, cases = random.Random(drawn.seed()), dict[str, list[Pollution]]()  # noqa: S311 - a choice of tests
    for case in POLLUTION:
        names = [name for name, form in SMALL if form == case.form]
        for name in names if os.environ.get("NASTY") == "all" else rng.sample(names, 1):
            cases.setdefault(name, []).append(case)
    return cases


def lenient(name: str) -> Dataset:
    """The dataset, without a limit on rejects: here they are counted, one by one."""
    return replace(all_datasets()[name], reject_limit=RejectLimit(rows=10**9))


@pytest.fixture
def everybody(bench: Bench) -> Bench:
    bench.known = list(all_datasets().values())
    bench.clear()
    return bench


def counted(got: Outcome) -> dict[str, int]:
    return {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", got.summary)}


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}


def held(bench: Bench, dataset: Dataset, file: str | None = None) -> Counter[tuple[Any, ...]]:
    with bench.engine.connect() as conn:
        return production(conn, dataset, file)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_clean(everybody: Bench, name: str, form: str) -> None:
    """Every row arrives with the values that the file has, and once more changes nothing."""
    expected = sample(lenient(name), form, 300)  # type: ignore[arg-type]
    everybody.drop((f"clean.{form}", expected.data))
    (got,) = everybody.run(expected.dataset)
    assert counted(got) == {"read": 300, "inserted": 300}
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.run(expected.dataset) == [], "it was looked at, and is not new any more"
    everybody.drop((f"again.{form}", expected.data))
    (again,) = everybody.run(expected.dataset)
    assert counted(again) == {"read": 300, "unchanged": 300}
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.wrong(expected.dataset) == []


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_dirt_of_every_rule(everybody: Bench, name: str, form: str) -> None:
    """Each spoiled line is rejected by the rule that it breaks, every other one is loaded; again and reprocessed, too."""
    expected = sample(lenient(name), form, 400, dirty=0.5, seed=1)  # type: ignore[arg-type]
    everybody.drop((f"dirty.{form}", expected.data))
    (got,) = everybody.run(expected.dataset)
    check(expected, got)
    assert counted(got) == {"read": 400, "inserted": 200, "rejected": 200}
    assert held(everybody, expected.dataset) == expected.valid
    with everybody.engine.begin() as conn:
        ledger.return_to_landed(conn, name, files.c.status == "loaded")
    everybody.work(expected.dataset)
    with everybody.engine.connect() as conn:
        row = conn.execute(select(files)).mappings().one()
    assert [row[counter] for counter in COUNTERS] == [0, 0, 200, 0, 200], "reprocessed: all unchanged"
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.wrong(expected.dataset) == []


def check(expected: Sample, got: Outcome) -> None:
    """Fail unless just the spoiled lines are rejected, each by its rule."""
    rejected: dict[int, set[str]] = {}
    for reject in got.rejects:
        line, rule, _ = reject.split(" ", 2)
        rejected.setdefault(int(line), set()).add(rule)
    wrong = [
        f"line {line}: {kind} expected, {rejected.get(line)} got: {expected.lines[line - 1][:200]}"
        for line, kind in expected.broken.items()
        if kind.partition(":")[0] not in rejected.get(line, ())
    ]
    wrong += [
        f"line {line}: rejected by {rules}, but valid: {expected.lines[line - 1][:200]}"
        for line, rules in rejected.items()
        if line not in expected.broken
    ]
    if wrong:
        pytest.fail("\n".join(wrong[:20]), pytrace=False)


@pytest.mark.parametrize(("name", "cases"), [pytest.param(*one, id=one[0]) for one in chosen().items()])
def test_nasty_files(everybody: Bench, name: str, cases: list[Pollution]) -> None:
    """In one load each file has the fate that it has alone, as no two have a row of one key."""
    dataset = lenient(name)
    # Files that replace rows of their own are no case for a dataset that rejects rows with the same key; it has tests of that.
    cases = [case for case in cases if not (case.superseded and dataset.duplicates == "reject")]
    clean = {form: sample(dataset, form, ROWS * len(cases)) for form in ("csv", "jsonl") if (name, form) in SMALL}
    parts = [part(clean["csv" if case.form == "csv" else "jsonl"], number) for number, case in enumerate(cases)]
    dropped = [
        (f"{number:03}.{case.form}{case.file}", case.make(lines))
        for number, (case, (lines, _)) in enumerate(zip(cases, parts, strict=True))
    ]
    everybody.drop(*dropped)
    wrong = ""
    for case, (_, rows), got in zip(cases, parts, everybody.run(dataset), strict=True):
        if differs := difference(dataset, case, rows, got, held(everybody, dataset, got.name)):
            wrong += f"\n{name}, {case.name}{differs}"
    if wrong:
        pytest.fail(wrong, pytrace=False)
    assert everybody.wrong(dataset) == []


def part(clean: Sample, number: int) -> tuple[list[str], Counter[tuple[Any, ...]]]:
    """Return the lines of one file of those that a sample is divided into, and the rows of production from it."""
    first = number * ROWS + (clean.form == "csv")
    header = clean.lines[:1] if clean.form == "csv" else []
    rows = Counter(clean.rows[line] for line in range(first + 1, first + 1 + ROWS))
    return header + clean.lines[first : first + ROWS], rows


def difference(
    dataset: Dataset,
    case: Pollution,
    rows: Counter[tuple[Any, ...]],
    got: Outcome,
    production: Counter[tuple[Any, ...]],
) -> str:
    """Return the differences between a case and its outcome; empty if there are none."""
    why = case.refused
    if case.extra and dataset.unexpected_columns == "refuse":
        why = "columns that the dataset does not declare"
    counts = (case.rows, case.superseded, len(case.rejects))
    expected = dict(zip(("inserted", "superseded", "rejected", "read"), (*counts, sum(counts)), strict=True))
    rejects = [reject.split(" ")[:2] for reject in got.rejects]
    return explained(
        [
            ("status", "loaded" if why is None else "refused", got.summary.split(":")[0]),
            ("sentence", True, ((why or "") in got.error and bool(got.error) == (why is not None)) or got.error),
            ("accounting", {} if why else nonzero(expected), {} if why else nonzero(counted(got))),
            ("rejects", [] if why else [[str(line_of(case)), rule] for rule in case.rejects], rejects),
            ("production", rows if case.rows and why is None else Counter(), production),
        ]
    )


def line_of(case: Pollution) -> int:
    """The line of the bad record: a header or an opening bracket stands before the good ones."""
    return BEFORE + 1 + (case.form in ("csv", "json"))


def test_the_table() -> None:
    assert len(POLLUTION) >= 80
    assert len({(case.form, case.name) for case in POLLUTION}) == len(POLLUTION)
