"""A remote inbox that is dead shows in `/health`, in `/metrics`, on the overview and to the doctor; so does one that lives."""

from __future__ import annotations

import datetime as dt

import httpx
import pytest
from sqlalchemy import func, update

from mini_platform.landing import inbox_state
from mini_platform.operations.doctor import examine
from mini_platform.operations.sources import remote_inboxes, visit_inbox
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import inboxes
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.inbox_harness import INBOX, InboxHarness
from mini_platform_tests.support.servers import ACCESS_KEY


@pytest.fixture
def visited(set_up: InboxHarness) -> InboxHarness:
    """Both inboxes were visited."""
    for inbox in remote_inboxes(set_up.platform, weather):
        visit_inbox(set_up.platform, weather, inbox)
    return set_up


@pytest.mark.parametrize(("ahead", "is_due"), [(60, False), (3600, True)])
def test_a_visit_that_was_planned_before_the_clock_was_set_back(
    visited: InboxHarness, ahead: int, is_due: bool
) -> None:
    with visited.platform.engine.begin() as conn:
        conn.execute(update(inboxes).values(next_at=func.now() + dt.timedelta(seconds=ahead)))
        due = inbox_state.due(conn, remote_inboxes(visited.platform, weather))
    assert len(due) == (2 if is_due else 0)


def metrics(client: httpx.Client, name: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    return {labels.partition("{")[2]: float(value) for labels, _, value in lines if labels.startswith(f"{name}{{")}


def test_health_says_which(visited: InboxHarness, client: httpx.Client) -> None:
    assert visited.row().last_error is None
    response = client.get("/health")
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["inboxes_failing"]) == ("degraded", ["weather/sftp"])


def test_health_of_those_that_live(set_up: InboxHarness, client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "ok", "nobody asked yet"
    assert set_up.visit().error is None
    health = client.get("/health").json()
    assert (health["status"], "inboxes_failing" in health) == ("ok", False)


def test_metrics_say_which_and_when_it_was_listed(visited: InboxHarness, client: httpx.Client) -> None:
    up = {'dataset="weather",inbox="partner"}': 1, 'dataset="weather",inbox="sftp"}': 0}
    assert metrics(client, "mini_platform_inbox_up") == up
    looked = metrics(client, "mini_platform_inbox_last_look_timestamp_seconds")
    assert looked == {'dataset="weather",inbox="partner"}': visited.row().looked_at.timestamp()}


def test_the_overview_says_why(visited: InboxHarness, client: httpx.Client) -> None:
    assert visited.row().last_error is None
    page = client.get("/").text
    assert "The inbox sftp fails: 127.0.0.1:" in page
    assert "cannot be reached" in page
    assert "partner fails" not in page


def test_an_inbox_that_is_not_set_any_more_is_no_matter(
    visited: InboxHarness, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{INBOX}__URL")
    monkeypatch.delenv(f"{INBOX}__PASSWORD")
    del visited.platform.settings
    assert client.get("/health").json()["status"] == "ok"


def test_the_doctor_tries_them(set_up: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set_up.folder.exists()
    monkeypatch.setenv("MINI_PLATFORM_INBOX__WETHER__URL", "s3://bucket/in")
    findings = [item for item in examine() if item.check == "inboxes"]
    messages = {
        item.level: item.message for item in findings if "s3://bucket/in of weather can be listed" not in item.message
    }
    assert "127.0.0.1:" in messages["problem"]
    assert "cannot be reached" in messages["problem"]
    assert (
        messages["warning"] == "MINI_PLATFORM_INBOX__WETHER does not begin with the name of a dataset, and is ignored"
    )
    assert len(findings) == 4


def test_the_doctor_tries_the_raw_store(platform: Platform, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform.settings.raw_url is None
    monkeypatch.setenv("MINI_PLATFORM_RAW_STORE", "s3://bucket/raw")
    for name, value in (("ENDPOINT", endpoint), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", "wrong-secret")):
        monkeypatch.setenv(f"MINI_PLATFORM_RAW_S3__{name}", value)
    (finding,) = (item for item in examine() if item.check == "raw store")
    assert finding.level == "problem"
    assert "MINI_PLATFORM_RAW_S3__SECRET_KEY" in finding.message
    assert "wrong-secret" not in finding.message + finding.advice
