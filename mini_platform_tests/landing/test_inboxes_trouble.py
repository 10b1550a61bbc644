"""Remote inboxes that fail: each says why, in a sentence, is left alone for a while, and delays nobody else."""

from __future__ import annotations

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from mini_platform.landing import inbox_state, inboxes
from mini_platform.operations.sources import visit_inbox
from mini_platform.storage import remote
from mini_platform_tests.support.inbox_harness import GOOD, InboxHarness
from mini_platform_tests.support.servers import PASSWORD, USER, Proxy, SftpServer, unused_port

HOST = re.compile(r"127\.0\.0\.1:\d+")


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LONGEST_PAUSE", 0.1)


def fails(harness: InboxHarness) -> str:
    """Two visits, both of which fail for the same reason: the reason."""
    first = harness.visit()
    began = harness.row().failing_since
    second = harness.visit()
    row = harness.row()
    assert first.error == second.error == row.last_error
    assert (row.failures, row.failing_since, row.held_by) == (2, began, None)
    assert row.next_at > row.tried_at
    assert second.error is not None
    assert "Traceback" not in second.error
    return HOST.sub("HOST", second.error)


# What is wrong, in a sentence

MISTAKES = {
    "access_key": "s3://bucket/in cannot be used: the server does not know the access key: check {}ACCESS_KEY.",
    "secret_key": "s3://bucket/in cannot be used: the secret key does not match the access key: check {}SECRET_KEY.",
    "url": "s3://other/in cannot be used: there is no bucket other.",
}


@pytest.mark.parametrize("setting", MISTAKES)
def test_s3_settings_that_are_wrong(s3_harness: InboxHarness, setting: str) -> None:
    s3_harness.put("a.csv")
    wrong = "s3://other/in" if setting == "url" else "wrong"
    message = fails(s3_harness.using(**{setting: wrong}))
    assert message == MISTAKES[setting].format("MINI_PLATFORM_INBOX__WEATHER_PARTNER__")
    assert s3_harness.visit().error is None
    row = s3_harness.row()
    assert (row.last_error, row.failing_since, row.failures) == (None, None, 0)


def test_s3_without_credentials(s3_harness: InboxHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    message = fails(s3_harness.using(access_key=None, secret_key=None))
    assert message.startswith(
        "There are no credentials for s3://bucket/in: set MINI_PLATFORM_INBOX__WEATHER_PARTNER__ACC"
    )


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that gives one answer of S3 to everything; rclone knows no credentials that expire."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>said it</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "ExpiredToken", "the credentials have expired: renew {0}ACCESS_KEY, {0}SECRET_KEY and {0}SESSION_TOKEN."),
        (403, "AccessDenied", "the server denies access to {0}ACCESS_KEY."),
        (403, "RequestTimeTooSkewed", "the clocks of the server and of this machine differ by too much."),
        (400, "AuthorizationHeaderMalformed", "the bucket bucket is in another region: check {0}REGION."),
        (400, "SomethingNew", "the server reports SomethingNew, 'said it'."),
    ],
)
def test_what_an_s3_server_says(s3_harness: InboxHarness, status: int, code: str, words: str) -> None:
    with answering(status, code) as endpoint:
        message = fails(s3_harness.using(endpoint=endpoint, session_token="token"))
    names = "MINI_PLATFORM_INBOX__WEATHER_PARTNER__"
    assert message == f"s3://bucket/in cannot be used: {words.format(names)}"


def test_a_busy_s3_server_is_retried(s3_harness: InboxHarness) -> None:
    with answering(503, "SlowDown") as endpoint:
        assert fails(s3_harness.using(endpoint=endpoint)) == "The server is busy: it reports SlowDown."


def test_an_unknown_host_shows_its_fingerprint(sftp_harness: InboxHarness, sftp: SftpServer, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    for known in (None, b"", sftp.known_hosts(port=1).encode()):
        if known is not None:
            path.write_bytes(known)
        message = str(sftp_harness.using(known_hosts=path).visit().error)
        assert f"127.0.0.1 is not in {path}: it shows the host key ssh-ed25519, SHA256:" in message
        assert sftp.host_key.get_fingerprint() in message
        assert path.exists() is (known is not None), "nothing is added by itself"


def test_another_host_key_is_not_talked_to(sftp_harness: InboxHarness, sftp: SftpServer) -> None:
    sftp_harness.put("a.csv")
    assert sftp_harness.visit().error is None
    sftp.stop()
    sftp.start(asyncssh.generate_private_key("ssh-ed25519"))
    sftp_harness.age()
    message = fails(sftp_harness)
    assert f"127.0.0.1 shows another host key (ssh-ed25519, {sftp.host_key.get_fingerprint()}) than " in message
    assert sftp_harness.ledger() == []


def test_a_host_key_of_another_kind_is_not_talked_to(sftp_harness: InboxHarness, sftp: SftpServer) -> None:
    other = sftp.known_hosts(asyncssh.generate_private_key("ecdsa-sha2-nistp256"))
    sftp_harness.settings["known_hosts"].write_text(other)
    assert "HOST offers no host key of a type that" in fails(sftp_harness)


def test_sftp_settings_that_are_wrong(sftp_harness: InboxHarness, tmp_path: Path) -> None:
    names = "MINI_PLATFORM_INBOX__WEATHER_PARTNER__"
    refused = f"HOST rejects the login of {USER}: check the URL and {names}KEY_FILE or {names}PASSWORD."
    assert fails(sftp_harness.using(password="wrong")) == refused
    url = sftp_harness.settings["url"]
    message = fails(sftp_harness.using(url=f"{url}/nowhere", password=PASSWORD))
    assert message == HOST.sub("HOST", f"{url}/nowhere cannot be used: there is no such folder.")
    message = fails(sftp_harness.using(key_file=tmp_path / "none"))
    assert f"the key {tmp_path}/none cannot be read: No such file or directory: check {names}KEY_FILE." in message


def test_a_key_instead_of_a_password(sftp_harness: InboxHarness, sftp: SftpServer, tmp_path: Path) -> None:
    path = tmp_path / "id"
    sftp.client_key.write_private_key(path, passphrase="words", rounds=50)
    sftp_harness.put("a.csv")
    harness = sftp_harness.using(password=None, key_file=path, key_passphrase="words")
    assert len(harness.visits().file_ids) == 1
    assert "cannot be read: " in fails(harness.using(key_passphrase="others"))


def test_secrets_are_shown_nowhere(s3_harness: InboxHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness = s3_harness.using(secret_key="very-secret", session_token="very-secret-too")
    caplog.set_level("DEBUG")
    assert "very-secret" not in fails(harness) + repr(harness.inbox) + str(harness.inbox.settings) + caplog.text


def test_a_folder_that_is_away(file_harness: InboxHarness) -> None:
    file_harness.put("a.csv")
    file_harness.visits()
    away = file_harness.folder.with_name("away")
    file_harness.folder.rename(away)
    assert fails(file_harness) == f"file://{file_harness.folder} cannot be listed: No such file or directory."
    away.rename(file_harness.folder)
    assert file_harness.visits().error is None
    assert file_harness.ledger() == [("partner/a.csv", 1, "landed")], "what was known is known"


def test_links_are_not_followed(file_harness: InboxHarness, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(GOOD)
    (file_harness.folder / "a.csv").symlink_to(tmp_path / "secret.csv")
    file_harness.visits()
    assert file_harness.known() == {b"a.csv": "it is a link"}
    assert file_harness.ledger() == []


# Connections


def through(harness: InboxHarness, proxy: Proxy) -> InboxHarness:
    """The same inbox behind a proxy."""
    name = "endpoint" if "endpoint" in harness.settings else "url"
    if name == "url":
        path = harness.settings["known_hosts"]
        path.write_text(re.sub(r":\d+ ", f":{proxy.port} ", path.read_text()))
    return harness.using(**{name: HOST.sub(f"127.0.0.1:{proxy.port}", harness.settings[name])})


def port(harness: InboxHarness) -> int:
    match = HOST.search(harness.settings.get("endpoint") or harness.settings["url"])
    assert match
    return int(match[0].rpartition(":")[2])


def test_a_download_goes_on_after_its_connection_was_cut(served: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    data = GOOD + b"".join(b"S%06d,2026-01-01,1.5,0\n" % n for n in range(40_000))
    served.put("a.csv", data)
    proxy = Proxy(port(served), 60_000, 150_000, 250_000, 350_000)
    try:
        result = through(served, proxy).visits()
        assert (result.error, len(result.file_ids)) == (None, 1)
        assert served.raw() == [data]
        assert proxy.connections >= 4
        assert proxy.sent < len(data) + 4 * 100_000 + 200_000, "only the blocks that were cut are sent again"
    finally:
        proxy.close()


def test_a_connection_that_is_always_cut(served: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIES", 2)
    proxy = Proxy(port(served), *[10] * 1000)
    try:
        message = fails(through(served, proxy))
        assert "The connection to" in message
        assert "broke" in message
    finally:
        proxy.close()
    assert served.raw() == []


def test_nobody_listens(served: InboxHarness) -> None:
    name = "endpoint" if "endpoint" in served.settings else "url"
    elsewhere = HOST.sub(f"127.0.0.1:{unused_port()}", served.settings[name])
    assert "cannot be reached" in fails(served.using(**{name: elsewhere}))


def test_a_server_that_says_nothing(served: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("remote_s3", "remote_sftp"):
        monkeypatch.setattr(f"mini_platform.storage.{module}.SILENT_SECONDS", 0.5)
    monkeypatch.setattr(remote, "TRIES", 2)
    name = "endpoint" if "endpoint" in served.settings else "url"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = HOST.sub(f"127.0.0.1:{silent.getsockname()[1]}", served.settings[name])
        message = fails(served.using(**{name: elsewhere}))
    assert re.search("does not answer|nothing came|broke|cannot be reached", message)


@pytest.mark.parametrize(("failures", "most"), [(0, 10), (1, 20), (5, 320), (6, 600), (1000, 600)])
def test_pauses_grow_and_differ(failures: int, most: float) -> None:
    pauses = {inbox_state.pause_after(failures, 10) for _ in range(100)}
    assert len(pauses) > 1
    assert most * 0.5 <= min(pauses) <= max(pauses) <= most * 1.5


def test_an_inbox_that_fails_is_left_alone(served: InboxHarness) -> None:
    name = "endpoint" if "endpoint" in served.settings else "url"
    dead = served.using(every=1000, **{name: HOST.sub(f"127.0.0.1:{unused_port()}", served.settings[name])})
    assert dead.visit().error
    assert visit_inbox(dead.platform, dead.dataset, dead.inbox) is None


def test_a_dead_inbox_delays_no_other(
    s3_harness: InboxHarness, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"sftp://{USER}@127.0.0.1:{silent.getsockname()[1]}/in"
    dead = InboxHarness(s3_harness.platform, s3_harness.folder, {"url": url, "password": PASSWORD}, name="dead")
    monkeypatch.setattr("mini_platform.storage.remote_sftp.SILENT_SECONDS", 120.0)
    monkeypatch.setattr(remote, "TRIES", 1)
    s3_harness.put("a.csv")

    def living() -> Any:
        outcome = s3_harness.visit()
        silent.close()  # Only now the dead one gets an answer.
        return outcome

    outcome = inboxes.visit_all([dead.visit, living])
    assert {item.inbox: item.error is None for item in outcome} == {"partner": True, "dead": False}
    assert s3_harness.ledger() == [("partner/a.csv", 1, "landed")]


def test_a_file_that_may_not_be_read_does_not_hold_up_the_others(sftp_harness: InboxHarness) -> None:
    sftp_harness.put("a.csv")
    sftp_harness.put("b.csv").chmod(0)
    result = sftp_harness.visits()
    if result.deferred:  # Not so where the tests run as root.
        assert sftp_harness.known()[b"b.csv"] == "the server denies the platform access to it"
    assert ("partner/a.csv", 1, "landed") in sftp_harness.ledger()


def test_no_room_for_raw_files(harness: InboxHarness) -> None:
    harness.put("a.csv")
    store = harness.platform.store.folder
    store.parent.mkdir(exist_ok=True)
    store.write_text("in the way")
    began = time.monotonic()
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        harness.visits()
    assert time.monotonic() - began < 60
    row = harness.row()
    assert row.held_by is None
    assert row.last_error.startswith("The visit was aborted: ")
