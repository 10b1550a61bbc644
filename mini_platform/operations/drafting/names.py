"""Names: headers of any kind -> identifiers that Python, Postgres and Dagster take, each once."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Sequence

from mini_platform.declare.columns import normalized
from mini_platform.declare.dataset import SYSTEM_COLUMNS

LONGEST = 40
"""Characters of a name: with the name of a rule behind it, it still fits the 63 bytes of an identifier of Postgres."""
LETTERS = str.maketrans(
    {
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "ł": "l",
        "Ł": "L",
        "đ": "d",
        "ı": "i",
        "µ": "u",
        "μ": "u",
    }
)
"""Letters that do not come apart into a plain one and an accent."""
RESERVED = {
    *keyword.kwlist,
    *("bool", "dt", "float", "int", "list", "str"),  # of the annotations that follow in the same class
    *("day", "number", "rule"),  # of the functions that follow in the same class
    *SYSTEM_COLUMNS,
}
UNIT = re.compile(r"(.*\S)\s*[(\[]([^()\[\]]{1,12})[)\]]\s*")


def snake(text: str) -> str:
    """A text in snake case: `Meter Id`, `meterId` and `Meter-ID` are meter_id; empty where no letter is left."""
    plain = unicodedata.normalize("NFKD", text.translate(LETTERS)).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:LONGEST].strip("_")


def identifiers(headers: Sequence[str]) -> list[str]:
    """A name for each header.

    No name is what a header reads another header as (`readers.header.normalized`), so that each column is found by its own.
    """
    keys = [normalized(header) for header in headers]
    taken: set[str] = set()
    names = []
    for position, header in enumerate(headers, start=1):
        wanted = _allowed(snake(header) or f"column_{position}")
        own = keys[position - 1]
        others = {key for key in keys if key != own}
        names.append(unused(wanted, taken | others))
        taken.add(names[-1])
    return names


def unused(wanted: str, taken: set[str]) -> str:
    """The wanted name, or with a number behind it."""
    name, number = wanted, 2
    while name in taken:
        name = f"{wanted}_{number}"
        number += 1
    return name


def _allowed(name: str) -> str:
    name = f"n_{name}" if name[0].isdigit() else name
    return f"{name}_" if name in RESERVED else name


def without_unit(header: str) -> tuple[str, str | None]:
    """A header without the unit that stands behind it in brackets, and the unit."""
    found = UNIT.fullmatch(header)
    return (found[1], found[2]) if found else (header, None)
