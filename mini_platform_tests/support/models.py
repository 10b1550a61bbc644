"""A row model of any columns, and an aggregate over it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, func, select

from mini_platform import RowModel


def model(**columns: tuple[Any, Any]) -> type[RowModel]:
    """Return a row model of these columns, each with its type and Field."""
    hints = {name: kind for name, (kind, _) in columns.items()}
    return type("R", (RowModel,), {"__annotations__": hints} | {name: field for name, (_, field) in columns.items()})


def daily(t: Any) -> Any:
    """By key."""
    return select(t.c.k, func.sum(t.c.n, type_=BigInteger).label("s")).group_by(t.c.k)


DAILY: dict[str, Any] = {"key": ("k",), "columns": {"k": ("K",), "s": ("S",)}, "chart": ("k", "s")}
