"""The lock file, read: what is locked, and what of it is needed to run the platform rather than to work on it.

    python mini_platform/operations/lock.py hatchling < requirements.lock    # what runs, and this one

Only the standard library here: an image is built with it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

HEAD = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?: ; (?P<marker>[^\\\n]+))?")
PARENT = re.compile(r"^    # (?:via |  )(?P<name>\S.*)$", re.MULTILINE)
ROOT = "mini-platform (pyproject.toml)"


@dataclass(frozen=True)
class Locked:
    """A package of the lock.

    Attributes:
        name: of the package.
        version: exactly.
        marker: where it is needed; None for everywhere.
        parents: names of those that need it; `ROOT` for the platform itself.
        block: its lines, with hashes.
    """

    name: str
    version: str
    marker: str | None
    parents: frozenset[str]
    block: str


def read(lock: str) -> Iterator[Locked]:
    """The packages of a lock."""
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        if head := HEAD.match(block):
            parents = frozenset(match["name"] for match in PARENT.finditer(block))
            marker = head["marker"].strip() if head["marker"] else None
            yield Locked(head["name"], head["version"], marker, parents, block)


def runtime(lock: str, *also: str) -> list[Locked]:
    """The packages that the platform and some others need, directly or not, and none that only its developers need."""
    packages, needed = list(read(lock)), {ROOT, *also}
    while more := {package.name for package in packages if package.parents & needed} - needed:
        needed |= more
    return [package for package in packages if package.name in needed]


if __name__ == "__main__":
    sys.stdout.writelines(package.block for package in runtime(sys.stdin.read(), *sys.argv[1:]))
