"""Names: turn headers of any kind into unique identifiers that Python, Postgres and Dagster accept."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Sequence

from mini_platform.declare import reserved
from mini_platform.declare.columns import normalized

LONGEST = 40
"""Maximum length of a name: with the name of a rule appended, it still fits the 63 bytes of a Postgres identifier."""
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
"""Letters that Unicode does not decompose into a plain letter and an accent."""
RESERVED = {
    *keyword.kwlist,
    *("bool", "dt", "float", "int", "list", "pl", "str"),  # used by annotations that follow in the same class
    *("day", "number", "rule"),  # used by functions that follow in the same class
    "l",  # linters take it for a 1
    *reserved.SYSTEM_COLUMNS,
    *reserved.PARAMETERS,
}
UNIT = re.compile(r"(.*\S)\s*[(\[]([^()\[\]]{1,12})[)\]]\s*")


def snake(text: str) -> str:
    """Return a text in snake case: `Meter Id`, `meterId` and `Meter-ID` are meter_id; empty if no letter remains."""
    plain = unicodedata.normalize("NFKD", text.translate(LETTERS)).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:LONGEST].strip("_")


def identifiers(headers: Sequence[str]) -> list[str]:
    """Return a name for each header.

    No name equals the normalized form (`readers.header.normalized`) of another header, so that each column is found by its own.
    """
    keys = [normalized(header) for header in headers]
    used_names: set[str] = set()
    names = []
    for position, header in enumerate(headers, start=1):
        name = _avoid_reserved(snake(header) or f"column_{position}")
        own = keys[position - 1]
        others = {key for key in keys if key != own}
        names.append(unused(name, used_names | others))
        used_names.add(names[-1])
    return names


def unused(requested: str, used_names: set[str]) -> str:
    """Return the requested name, with a number appended if it is taken."""
    name, number = requested, 2
    while name in used_names:
        name = f"{requested}_{number}"
        number += 1
    return name


def _avoid_reserved(name: str) -> str:
    name = f"n_{name}" if name[0].isdigit() else name
    return f"{name}_" if name in RESERVED else name


def without_unit(header: str) -> tuple[str, str | None]:
    """Return a header without a trailing unit in brackets, and the unit or None."""
    match = UNIT.fullmatch(header)
    return (match[1], match[2]) if match else (header, None)
