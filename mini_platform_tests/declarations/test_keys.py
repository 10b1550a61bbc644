"""Keys: what tells the rows of a declared dataset apart."""

from __future__ import annotations

from mini_platform.dataset import Dataset, Field, RowModel
from mini_platform_tests.declarations.conftest import Declared


class Member(RowModel):
    team: str = Field("Team")
    person: str = Field("Person")
    n: int | None = Field("N")


def test_a_key_of_two_texts(declared: Declared) -> None:
    trial = declared(Dataset(name="mem", table="mem", description="x", rows=Member, key=("team", "person")))
    assert trial.load("a.csv", "team,person,n\na,ann,1\na,bob,2\n").rows_inserted == 2
    assert trial.load("b.csv", "team,person,n\na,ann,1\na,bob,3\n").rows_updated == 1
    assert trial.rows("team", "person", "n") == [("a", "ann", 1), ("a", "bob", 3)]
