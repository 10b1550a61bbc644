"""Reader of the lock file: all locked packages, and those that are needed to run the platform rather than to develop it.

    python mini_platform/operations/lock.py hatchling < requirements.lock    # packages to run, and hatchling

It uses only the standard library: an image is built with it before anything is installed.
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
        version: the exact version.
        marker: environment that needs it; None for all.
        parents: names of the packages that need it; `ROOT` for the platform itself.
        block: the lines of the package, with hashes.
    """

    name: str
    version: str
    marker: str | None
    parents: frozenset[str]
    block: str


def read(lock: str) -> Iterator[Locked]:
    """Yield the packages of a lock file."""
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        if head := HEAD.match(block):
            parents = frozenset(match["name"] for match in PARENT.finditer(block))
            marker = head["marker"].strip() if head["marker"] else None
            yield Locked(head["name"], head["version"], marker, parents, block)


def runtime(lock: str, *also: str) -> list[Locked]:
    """Return the packages that the platform and the packages `also` need, directly or not, without development packages."""
    packages, needed = list(read(lock)), {ROOT, *also}
    while more := {package.name for package in packages if package.parents & needed} - needed:
        needed |= more
    return [package for package in packages if package.name in needed]


if __name__ == "__main__":
    sys.stdout.writelines(package.block for package in runtime(sys.stdin.read(), *sys.argv[1:]))
