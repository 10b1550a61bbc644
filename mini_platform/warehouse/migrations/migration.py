"""The class of a migration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """A change of the tables that belong to no dataset, applied once; after its release it is never changed.

    Attributes:
        number: position among the migrations.
        name: a few words, recorded with the number.
        statements: SQL that changes the tables of the previous number. It does not use the declaration, which changes later.
            Comments and grants are not part of it: they are set as declared after the last migration.
    """

    number: int
    name: str
    statements: str
