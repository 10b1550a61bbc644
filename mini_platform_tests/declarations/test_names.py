"""Names that are odd and allowed come out right everywhere; what a model inherits is loaded and validated."""

from __future__ import annotations

from typing import Any

import polars as pl
from sqlalchemy import BigInteger, FromClause, Select, Text, func, select, text

from mini_platform import Aggregate, Dataset, Field, RejectLimit, RowModel, View, rule
from mini_platform.dagster.build import build_defs
from mini_platform_tests.support.trial import Declared

WORDS = (
    "select",
    "table",
    "Order",
    "user",
    "group",
    "json",
    "excluded",
    "position",
    "value",
    "index",
    "name",
    "n2__x",
)
"""Words of SQL and of Python's frames, upper case, two underscores."""
LABELS = ("max %", 'a "b"', "it's", "x:y", "Ärger", "select", "%(n)s", "a.b", "{c}")


def rows() -> type[RowModel]:
    hints: dict[str, Any] = {"User": "str", "select_": "int", **dict.fromkeys(WORDS[:-1], "str | None")}
    fields: dict[str, Any] = {name: Field(f"It's 100 % {name}", unit="%", ge="a") for name in WORDS[:-1]}
    fields |= {"User": Field("Key"), "select_": Field("Numbers", aliases=("Anzahl %", "größe", 'a "b"'), ge=0)}
    fields["n2__x"], hints["n2__x"] = Field("Last"), "int | None"
    del fields["user"], hints["user"]
    return type("R", (RowModel,), {"__annotations__": hints, **fields})


def Totals(t: FromClause) -> Select[Any]:  # noqa: N802
    """100 % of the totals."""
    return select(t.c.User, *(func.sum(t.c.select_, type_=BigInteger).label(label) for label in LABELS)).group_by(
        t.c.User
    )


def Numbers(t: FromClause) -> Select[Any]:  # noqa: N802
    """Numbers of users."""
    return select(t.c.User.label("who?"), func.max(t.c.Order, type_=Text).label("Order")).group_by(t.c.User)


def totals_of_users(t: FromClause, Totals: FromClause) -> Select[Any]:  # noqa: N803
    """Return the totals by user."""
    return select(Totals.c["max %"].label("100%"), Totals.c.User)


ODD = Dataset(
    name="odd_2024",
    table="Group",
    description='It\'s 100 % odd: "names".',
    rows=rows(),
    key=("User",),
    indexes=("Order", "select", "n2__x"),
    reject_limit=RejectLimit(share=1),
    aggregates=(
        Aggregate(Totals, ("User",), {"User": ("Who",), **dict.fromkeys(LABELS, ("Sum", "%"))}, ("User", "max %")),
        Aggregate(Numbers, ("who?",), {"who?": ("Who",), "Order": ("Last",)}, ("who?", "No."), surrogate="No."),
    ),
    views=(View(totals_of_users, {"100%": ("All", "%"), "User": ("Who",)}, ("User", "100%")),),
)


def test_names_that_are_odd_and_allowed(declared: Declared) -> None:
    trial = declared(ODD)
    quoted = [label.replace('"', '""') for label in LABELS]
    header = "User,Anzahl %,select,table,ORDER,group,json,excluded,position,value,index,name,N2--X,Un known %\n"
    file = trial.load(
        "a.csv", f"{header}u1,5,x,x,b,x,x,x,x,x,x,x,7,1\nu2,6,x,x,b,x,x,x,x,x,x,x,,2\nu3,-1,A,x,b,x,x,x,x,x,x,x,,3\n"
    )
    assert (file.status, file.error, file.rows_inserted, file.rows_rejected) == ("loaded", None, 2, 1)
    assert trial.rows("User", "select_", "Order", "n2__x") == [("u1", 5, "b", 7), ("u2", 6, "b", None)]
    assert trial.table('analytics."Totals"', "User", *quoted) == [
        ("u1", *[5] * len(LABELS)),
        ("u2", *[6] * len(LABELS)),
    ]
    assert trial.table('analytics."Numbers"', "No.", "who?", "Order") == [(1, "u1", "b"), (2, "u2", "b")]
    assert trial.table("analytics.totals_of_users", "User", "100%") == [("u1", 5), ("u2", 6)]
    assert {(reject["column"], reject["rule"]) for reject in trial.rejects()} == {
        ("select_", "select__ge"),
        ("select", "select_ge"),
    }
    file = trial.load("b.csv", header.replace("Anzahl %", "größe") + "u1,9,x,x,c,x,x,x,x,x,x,x,8,1\n")
    assert (file.rows_updated, trial.differences()) == (1, {})
    assert trial.table('analytics."Totals"', "max %") == [(6,), (9,)]
    assert trial.table('analytics."Numbers"', "No.", "Order") == [(1, "c"), (2, "b")]
    defs = build_defs({ODD.name: ODD})
    assert defs.resolve_job_def("load_odd_2024")


def test_the_longest_names(declared: Declared) -> None:
    long = {"table": "t" * 63, "key": "k" * 63}
    model = type("R", (RowModel,), {"__annotations__": {long["key"]: "str"}, long["key"]: Field("Key")})

    def totals(t: FromClause) -> Select[Any]:
        """By key."""
        return select(t.c[long["key"]], func.count().label("n" * 63)).group_by(t.c[long["key"]])

    totals.__name__ = "a" * 52
    described = {long["key"]: ("Key",), "n" * 63: ("N",)}
    aggregate = Aggregate(totals, (long["key"],), described, (long["key"], "n" * 63), surrogate="s" * 63)
    trial = declared(Dataset("d" * 63, long["table"], model, (long["key"],), "x", aggregates=(aggregate,)))
    assert trial.load("a.csv", f"{long['key']}\nx\n").rows_inserted == 1
    assert trial.table(f"analytics.{totals.__name__}", "s" * 63, long["key"], "n" * 63) == [(1, "x", 1)]
    with trial.platform.engine.connect() as conn:
        relation_name = conn.scalar(
            text("SELECT relname FROM pg_class WHERE relname LIKE 'surrogates_a%' AND relkind = 'r'")
        )
        assert relation_name == f"surrogates_{totals.__name__}"


class Base(RowModel):
    id: str = Field("Id")
    n: int = Field("N", ge=0)

    @rule("is odd", column="n")
    def even(col: Any) -> pl.Expr:
        return col("n") % 2 == 0


class Child(Base):
    more: str | None = Field("More", str_matches="cat|dog")


def test_what_a_model_inherits_is_loaded_and_validated(declared: Declared) -> None:
    dataset = Dataset("child", "child", Child, ("id",), "x", reject_limit=RejectLimit(share=1))
    trial = declared(dataset)
    trial.load("a.csv", "id,n,more\n1,2,cat\n2,3,dog\n3,-2,\n4,4,hotdog\n")
    assert trial.rows("id", "n", "more") == [("1", 2, "cat")]
    assert {(r["line"], r["rule"]) for r in trial.rejects()} == {(3, "n_even"), (4, "n_ge"), (5, "more_str_matches")}
