"""What a migration is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """A change of the tables that belong to no dataset, made once; once released, it is never changed.

    Attributes:
        number: its place among the others.
        name: a few words, recorded with the number.
        statements: SQL that turns the tables of the number before into its own. It speaks of no declaration, as that goes on
            changing. Comments and grants are not its business: they are made as declared after the last migration.
    """

    number: int
    name: str
    statements: str
