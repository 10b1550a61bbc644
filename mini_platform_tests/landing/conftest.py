"""Remote inboxes on real servers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_platform.platform import Platform
from mini_platform_tests.support.inbox_harness import CHANGED, INBOX, InboxHarness
from mini_platform_tests.support.servers import (
    ACCESS_KEY,
    PASSWORD,
    SECRET_KEY,
    USER,
    S3Server,
    SftpServer,
    s3_server,
    unused_port,
)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The folder that is the prefix `in` of a bucket, and the folder `in` of the SFTP server."""
    folder = tmp_path / "served" / "bucket" / "in"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def s3(bucket: Path) -> Iterator[S3Server]:
    with s3_server(bucket.parent.parent) as server:
        yield server


@pytest.fixture
def endpoint(s3: S3Server) -> str:
    return s3.url


@pytest.fixture
def sftp(bucket: Path) -> Iterator[SftpServer]:
    server = SftpServer(bucket.parent)
    yield server
    server.end()


@pytest.fixture
def s3_harness(platform: Platform, bucket: Path, s3: S3Server) -> InboxHarness:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return InboxHarness(platform, bucket, {"url": "s3://bucket/in", "endpoint": s3.url, **keys}, refresh=s3.refresh)


@pytest.fixture
def sftp_harness(platform: Platform, bucket: Path, sftp: SftpServer, tmp_path: Path) -> InboxHarness:
    hosts = tmp_path / "known_hosts"
    hosts.write_text(sftp.known_hosts())
    url = f"sftp://{USER}@127.0.0.1:{sftp.port}/in"
    return InboxHarness(platform, bucket, {"url": url, "password": PASSWORD, "known_hosts": hosts})


@pytest.fixture
def file_harness(platform: Platform, bucket: Path) -> InboxHarness:
    return InboxHarness(platform, bucket, {"url": f"file://{bucket}"})


@pytest.fixture(params=["s3", "sftp", "file"])
def harness(request: pytest.FixtureRequest) -> InboxHarness:
    """The same inbox of each kind."""
    inbox_harness: InboxHarness = request.getfixturevalue(f"{request.param}_harness")
    return inbox_harness


@pytest.fixture(params=["s3", "sftp"])
def served(request: pytest.FixtureRequest) -> InboxHarness:
    """The same inbox on either kind of server."""
    inbox_harness: InboxHarness = request.getfixturevalue(f"{request.param}_harness")
    return inbox_harness


@pytest.fixture
def set_up(s3_harness: InboxHarness, data: Path, monkeypatch: pytest.MonkeyPatch) -> InboxHarness:
    """A living inbox, a dead one, and the drop folder, by the environment."""
    for name, value in s3_harness.settings.items():
        monkeypatch.setenv(f"{INBOX}_PARTNER__{name}".upper(), value)
    monkeypatch.setenv(f"{INBOX}_PARTNER__AFTER", "archive")
    monkeypatch.setenv(f"{INBOX}__URL", f"sftp://{USER}@127.0.0.1:{unused_port()}/in")
    monkeypatch.setenv(f"{INBOX}__PASSWORD", PASSWORD)
    (data / "weather" / "dropped.csv").write_bytes(CHANGED)
    old = time.time() - 60
    os.utime(data / "weather" / "dropped.csv", (old, old))
    s3_harness.put("a.csv")
    s3_harness.platform.__dict__.pop("settings", None)
    return s3_harness
