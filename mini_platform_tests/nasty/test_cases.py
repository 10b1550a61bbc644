"""Every nasty file of the table, alone and all together, through the real pipeline."""

from __future__ import annotations

import pytest

from mini_platform_tests.support.bench import Bench, Outcome, explained
from mini_platform_tests.support.cases import CASES, Case


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


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_alone(bench: Bench, case: Case) -> None:
    for number, before in enumerate(case.before):
        bench.drop((f"before {number}.csv", before))
        bench.run()
    bench.drop((case.file, case.data))
    (got,) = bench.run()
    assert got.name == case.file
    if wrong := difference(case, got):
        pytest.fail(f"{case.name}{wrong}", pytrace=False)
    assert bench.wrong() == []


def test_together(bench: Bench) -> None:
    """In one batch each file has the fate that it has alone, but for the keys that a later file of the batch has too."""
    cases = [case for case in CASES if not case.before]
    bench.drop(*((f"{number:03} {case.file}", case.data) for number, case in enumerate(cases)))
    outcomes = bench.run()
    later: set[str] = set()
    wrong = ""
    for case, got in reversed(list(zip(cases, outcomes, strict=True))):
        keys = {row: "|".join(row.split("|")[:2]) for row in case.rows}
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
    if wrong:
        pytest.fail(wrong, pytrace=False)
    assert bench.wrong() == []


def _counts(summary: str) -> dict[str, int]:
    pairs = (part.split() for part in summary.split(": ")[1].split(", "))
    return {name: int(number) for number, name in pairs}


def test_the_table() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
