"""The platform as its users have it: the wheel in a virtual environment of its own, which nothing can write to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from mini_platform.operations import lock
from mini_platform_tests.support.processes import AS_A_USER
from mini_platform_tests.support.repository import PROJECT

SETTINGS_OF_EXTRAS = {
    "MINI_PLATFORM_INBOX__WEATHER__URL": ("s3", "s3://bucket/prefix"),
    "MINI_PLATFORM_INBOX__WEATHER_PARTNER__URL": ("sftp", "sftp://user@sftp.example.com/outgoing"),
    "MINI_PLATFORM_ALERTS": ("alerts", "json://127.0.0.1"),
    "SENTRY_DSN": ("sentry", "https://key@sentry.example.com/1"),
}
"""Settings that need an extra -> the extra, and a value."""
RAW_STORE = "MINI_PLATFORM_RAW_STORE"


def to_install(setting: str, extra: str) -> str:
    """Return the sentence about a setting whose extra is not installed."""
    return f"{setting} needs packages that are not installed: pip install 'mini-platform[{extra}]'"


def built_wheel(folder: Path) -> Path:
    """Build the wheel of this repository in a folder; the documentation is in it if `make docs` was run before."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(PROJECT)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which commands run as a user who may not write to it."""

    folder: Path
    as_a_user: tuple[str, ...]

    @property
    def site_packages(self) -> Path:
        """The folder of its packages."""
        (folder,) = self.folder.glob("lib/python*/site-packages")
        return folder

    def run(
        self, command: str, *arguments: str | Path, cwd: Path, timeout: float = 120, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment with no other variables than these settings; it has no traceback."""
        binaries = self.folder / "bin"
        result = subprocess.run(
            [*self.as_a_user, str(shutil.which(command, path=f"{binaries}:/usr/bin:/bin")), *map(str, arguments)],
            cwd=cwd,
            env={"PATH": f"{binaries}:/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8"} | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def packages(self) -> dict[str, Distribution]:
        """Return what is installed besides pip and setuptools, which came with the environment, by normalized name."""
        installed = {canonicalize_name(each.name): each for each in distributions(path=[str(self.site_packages)])}
        return {name: each for name, each in installed.items() if name not in ("pip", "setuptools")}

    def megabytes(self) -> float:
        """Return the size of these packages, with their bytecode."""
        paths = (path.locate() for each in self.packages().values() for path in each.files or ())
        return sum(os.stat(path).st_size for path in paths if os.path.exists(path)) / 1e6  # noqa: PTH110, PTH116

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of every file in the folder of packages."""
        states = ((path, path.lstat()) for path in self.site_packages.rglob("*"))
        return {str(path): (state.st_size, state.st_mtime_ns) for path, state in states}


@contextmanager
def installed(folder: Path, wheel: Path) -> Iterator[Environment]:
    """Install a wheel without extras, in the locked versions, into a new environment, and make that read-only."""
    constraints = folder.with_suffix(".txt")
    packages = lock.read((PROJECT / "requirements.lock").read_text())
    lines = (f"{each.name}=={each.version}{f' ; {each.marker}' if each.marker else ''}\n" for each in packages)
    constraints.write_text("".join(lines))
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--constraint", str(constraints)]
    # By the path of the wheel, never by its name: on the index somebody else may have it.
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", *options, wheel], check=True, timeout=600)
    subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    try:
        with ordinary_user() as words:
            environment = Environment(folder, words)
            before = environment.files()
            yield environment
            assert environment.files() == before, "something was written into site-packages"
    finally:
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)


@contextmanager
def ordinary_user() -> Iterator[tuple[str, ...]]:
    """Yield what to put before commands, so that they may not write to what is read-only, as root may.

    All of them are in one namespace: from another one they could not see each other's processes.
    """
    if not AS_A_USER:
        yield ()
        return
    with subprocess.Popen([*AS_A_USER, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        os.write(holder.stdin.fileno(), b"\n")
        os.read(holder.stdout.fileno(), 1)  # Now it is in its namespace.
        yield ("nsenter", "--user", f"--target={holder.pid}", "--preserve-credentials")
