"""Incidents and alerts, the whole way: a real pipeline, the sensor's ticks, a mail server with STARTTLS, a webhook."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import trustme
from sqlalchemy import Engine, func, select, text, update

from mini_platform import Dataset, Field, Json, RejectLimit, RowModel
from mini_platform.config.settings import load_settings
from mini_platform.dagster.alerting import alert_defs
from mini_platform.dagster.build import build_defs
from mini_platform.datasets import all_datasets
from mini_platform.landing import upload
from mini_platform.operations import alerts as module
from mini_platform.operations.alerts import services
from mini_platform.operations.detection import ALONE, update_incidents
from mini_platform.operations.doctor import examine
from mini_platform.operations.incidents import Incident, close, list_incidents, reconcile
from mini_platform.operations.sources import remote_inboxes, visit_inbox
from mini_platform.platform import Platform
from mini_platform.warehouse import ledger
from mini_platform.warehouse.tables import alerts, audit, files, incidents
from mini_platform_tests.support.api_server import Reply, numbered, serving, things
from mini_platform_tests.support.command import cli, here
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.receivers import PASSWORD, Hook, Mailbox, mail_server, text_of, webhook
from mini_platform_tests.support.sample_files import SAMPLE_FILES
from mini_platform_tests.support.trial import Declared

GOOD = "station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\n"
CANARY = "Zacharias Canary"
BAD = "station_id,date,temp_c,precip_mm\n" + f"OSL,2026-01-01,{CANARY},0\n" * 100
Tick = Callable[[], str]


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return ca


@pytest.fixture
def box(home: Path, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """Somebody who is notified by mail; their server is down until a test starts it."""
    assert home.parent == tmp_path
    mailbox = Mailbox(free_port(), tmp_path / "ca.pem")
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", mailbox.url)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return mailbox


@pytest.fixture
def mails(box: Mailbox, authority: trustme.CA) -> Iterator[Mailbox]:
    with mail_server(box, authority.issue_cert("localhost")):
        yield box


@pytest.fixture
def hook() -> Iterator[Hook]:
    with webhook() as receiver:
        yield receiver


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def defs(data: Path) -> dg.Definitions:
    assert data.exists()
    return dg.Definitions.merge(build_defs(all_datasets()), alert_defs(all_datasets()))


@pytest.fixture
def tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> Tick:
    """One evaluation of the sensor, as the daemon makes it."""

    def evaluate() -> str:
        repository = defs.get_repository_def()
        resources = {"platform": (defs.resources or {})["platform"]}
        with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
            data = repository.get_sensor_def("alerts").evaluate_tick(context)
        assert not data.run_requests
        return str(data.skip_message)

    return evaluate


@pytest.fixture
def refused(data: Path, pipeline: Callable[..., Any], tmp_path: Path) -> None:
    """A file that was refused; without Dagster."""
    assert data.exists()
    (tmp_path / "weather__a.csv").write_text(BAD)
    pipeline(all_datasets()["weather"], tmp_path / "weather__a.csv")


def load(defs: dg.Definitions, instance: dg.DagsterInstance, data: Path | None = None, **dropped: str) -> Any:
    """Drop files and run the job that the sensor asks for."""
    dataset = next(iter(dropped), "weather").split("__")[0]
    for name, content in dropped.items():
        path = (data or Path()) / dataset / f"{name}.csv"
        path.write_text(content)
        os.utime(path, (time.time() - 60,) * 2)
    return defs.resolve_job_def(f"load_{dataset}").execute_in_process(
        instance=instance, raise_on_error=False, tags={"mini_platform/dataset": dataset}
    )


def known(engine: Engine) -> list[tuple[str, int, bool]]:
    """Kind, how often it was seen, and whether it is open, of every incident."""
    with engine.connect() as conn:
        rows = conn.execute(select(incidents).order_by(incidents.c.incident_id))
        return [(row.kind, row.times, row.closed_at is None) for row in rows]


def test_a_refused_file_is_reported_once_and_then_its_correction(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    load(defs, instance, data, weather__a=BAD)
    assert [tick() for _ in range(10)] == ["All alerts are delivered."] * 10
    (mail,) = mails.mails
    assert mail["Subject"] == "Mini Platform: File refused: weather"
    body = text_of(mail)
    assert "weather: weather__a.csv, file 1: refused. 100 of 100 rows are rejected: temp_c_is_number (100)." in body
    for words in ("Since 20", " UTC", "mini-platform reprocess weather --file 1", "http://127.0.0.1:8000/files/1"):
        assert words in body
    assert CANARY not in mail.as_string()
    load(defs, instance, data, weather__a=BAD + "OSL,2026-01-02,too,0\n")
    tick()
    assert len(mails.mails) == 1, "the next version is refused, too: the same incident"
    load(defs, instance, data, weather__a=GOOD)
    for _ in range(3):
        tick()
    _, recovery = mails.mails
    assert recovery["Subject"] == "Mini Platform: File refused - recovered: weather"
    assert "RECOVERED  File refused. weather: weather__a.csv, file 2: refused." in text_of(recovery)
    assert known(engine) == [("file_refused", 2, False)]


def test_no_recovery_is_reported_while_a_file_is_validated_again(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, platform: Platform
) -> None:
    load(defs, instance, data, weather__a=BAD)
    tick()
    with platform.engine.begin() as conn:
        assert ledger.reprocess(conn, "weather", 1) == [1]
    tick()
    load(defs, instance)
    tick()
    assert known(platform.engine) == [("file_refused", 2, True)], "by another run"
    assert len(mails.mails) == 1


def test_personal_data_is_in_no_alert(
    mails: Mailbox, tick: Tick, pipeline: Callable[..., Any], tmp_path: Path, engine: Engine
) -> None:
    """Neither rows nor names of files of a dataset that has personal data; nor headers, which may be rows."""
    (tmp_path / "zacharias@example.com.csv").write_text(f"{CANARY},4711\n{CANARY},4712\n")
    (tmp_path / "weather__b.csv").write_text(f"{CANARY},4711,1,2\n{CANARY},4712,1,2\n")
    pipeline(all_datasets()["customers"], tmp_path / "zacharias@example.com.csv")
    pipeline(all_datasets()["weather"], tmp_path / "weather__b.csv")
    tick()
    (mail,) = mails.mails
    body = text_of(mail)
    assert mail["Subject"] == "Mini Platform: 2 new"
    assert "customers: file 1: refused. See its page for the reason." in body
    assert "weather: weather__b.csv, file 2: refused." in body
    with engine.connect() as conn:
        rows = str(conn.execute(select(incidents)).all())
    for words in ("anary", "acharias", "4711"):
        assert words not in body
        assert words not in rows


def test_a_mail_server_that_is_down_is_tried_again_and_notified_once(
    box: Mailbox,
    hook: Hook,
    authority: trustme.CA,
    tick: Tick,
    refused: None,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recipients that can be reached are notified meanwhile, and not again."""
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"{box.url}, json://{hook.url}/in/T0kenOfTheHook")
    message = tick()
    assert "mailtos localhost" in message
    assert "next attempt in" in message
    assert PASSWORD not in message
    assert "refused" in message, "the reason of the connection"
    tick()
    (body,) = hook.bodies
    assert body["title"] == "Mini Platform: File refused: weather"
    with mail_server(box, authority.issue_cert("localhost")):
        assert tick() == "All alerts are delivered."
        tick()
    assert len(box.mails) == 1
    assert len(hook.bodies) == 1
    with engine.connect() as conn:
        rows = conn.execute(select(alerts).order_by(alerts.c.service)).all()
        assert [row.service.split()[:2] for row in rows] == [["json", "127.0.0.1"], ["mailtos", "localhost"]]
        assert [row.attempts for row in rows] == [0, 2]
        stored = str(rows)
    assert PASSWORD not in stored
    assert "T0ken" not in stored


def test_pauses_between_the_tries(
    box: Mailbox, tick: Tick, refused: None, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 30.0)
    waits = []
    for _ in range(3):
        tick()
        assert tick() == "All alerts are delivered.", "not again at once"
        with engine.begin() as conn:
            waits.append(conn.execute(select(alerts.c.next_at - func.now())).scalar_one().total_seconds())
            conn.execute(update(alerts).values(next_at=func.now()))
    assert [round(seconds / 30) for seconds in waits] == [1, 2, 4]


def test_a_certificate_of_somebody_else(box: Mailbox, tick: Tick, refused: None) -> None:
    with mail_server(box, trustme.CA().issue_cert("localhost")):
        assert "CERTIFICATE_VERIFY_FAILED" in tick()
    assert box.mails == []


def test_a_run_that_fails(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, home: Path,
    engine: Engine,
) -> None:  # fmt: skip
    """However often it is tried again."""
    home.mkdir(exist_ok=True)
    (home / "raw").write_text("")
    for _ in range(3):
        assert not load(defs, instance, data, weather__a=GOOD).success
        tick()
    (mail,) = mails.mails
    (run, *_) = instance.get_run_records(ascending=True)
    assert mail["Subject"] == "Mini Platform: Run failed: weather"
    assert f"weather: run {run.dagster_run.run_id[:8]} failed in weather__raw_csv (" in text_of(mail)
    assert f"http://127.0.0.1:1/runs/{run.dagster_run.run_id}" in text_of(mail)
    assert known(engine) == [("run_failed", 3, True)]
    (home / "raw").unlink()
    assert load(defs, instance).success
    tick()
    assert known(engine) == [("run_failed", 3, False)]
    assert "RECOVERED" in text_of(mails.mails[1])


def test_a_check_of_severity_error_that_fails(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, data: Path, engine: Engine
) -> None:
    load(defs, instance, data, weather__a=GOOD)
    with engine.begin() as conn:
        constraint = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'every_row_accounted_for'"
        definition = conn.scalar(text(constraint))
        conn.execute(text("ALTER TABLE ops.files DROP CONSTRAINT every_row_accounted_for"))
        conn.execute(update(files).values(rows_read=files.c.rows_read + 1))
    assert load(defs, instance).success
    tick()
    (mail,) = mails.mails
    assert "weather/measurements: the check every_row_accounted_for failed." in text_of(mail)
    with engine.begin() as conn:
        conn.execute(update(files).values(rows_read=files.c.rows_read - 1))
        conn.execute(text(f"ALTER TABLE ops.files ADD CONSTRAINT every_row_accounted_for {definition}"))
    load(defs, instance)
    tick()
    assert known(engine) == [("check_failed", 1, False)]
    assert len(mails.mails) == 2


def test_a_dataset_that_is_late(
    mails: Mailbox, tick: Tick, data: Path, engine: Engine, pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    sales = all_datasets()["sales"]
    assert sales.freshness
    pipeline(sales, SAMPLE_FILES / "sales" / "shop.csv")
    tick()
    assert known(engine) == []
    with engine.begin() as conn:
        conn.execute(update(files).values(loaded_at=func.now() - sales.freshness - dt.timedelta(hours=1)))
    for _ in range(2):
        tick()
    (mail,) = mails.mails
    assert mail["Subject"] == "Mini Platform: Freshness missed: sales"
    (tmp_path / "again.csv").write_text((SAMPLE_FILES / "sales" / "shop.csv").read_text() + "\n")
    pipeline(sales, tmp_path / "again.csv")
    tick()
    assert known(engine) == [("freshness_missed", 1, False)]
    assert len(mails.mails) == 2


def test_a_source_that_is_down(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with serving(numbered([things(1)])) as api:
        monkeypatch.setenv("MINI_PLATFORM_API_SOURCE__RECORDS_API__URL", f"{api.url}?key=T0kenOfTheSource")
        monkeypatch.setenv("MINI_PLATFORM_API_SOURCE_NETWORKS", "127.0.0.0/8, ::1/128")
        well, api.answer = api.answer, lambda _: Reply(status=404)
        job = defs.resolve_job_def("sync_records_api")
        for _ in range(2):
            assert job.execute_in_process(instance=instance, tags={"mini_platform/dataset": "records"}).success
            tick()
        (mail,) = mails.mails
        assert "records: the source api cannot be synced." in text_of(mail)
        assert "404" in text_of(mail)
        assert "T0ken" not in mail.as_string()
        api.answer = well
        job.execute_in_process(instance=instance, tags={"mini_platform/dataset": "records"})
        tick()
    assert known(engine) == [("source_down", 2, False)]
    assert len(mails.mails) == 2


def test_an_inbox_that_is_down(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"
    monkeypatch.setenv("MINI_PLATFORM_INBOX__WEATHER__URL", f"file://{share}")
    weather, platform = all_datasets()["weather"], (defs.resources or {})["platform"]
    (inbox,) = remote_inboxes(platform, weather)
    for _ in range(2):
        assert visit_inbox(platform, weather, inbox, at_once=True).error
        tick()
    (mail,) = mails.mails
    assert f"weather: the inbox {inbox.name} cannot be used. file://{share} cannot be listed" in text_of(mail)
    share.mkdir()
    assert visit_inbox(platform, weather, inbox, at_once=True).error is None
    tick()
    assert known(engine) == [("source_down", 1, False)]
    assert len(mails.mails) == 2


def test_an_inbox_that_is_down_is_one_incident_and_fails_the_raw_assets_check_until_it_is_closed(
    mails: Mailbox, tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, engine: Engine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MINI_PLATFORM_INBOX__WEATHER__URL", f"file://{tmp_path / 'share'}")

    def passed() -> bool:
        checks = load(defs, instance).get_asset_check_evaluations()
        (inbox_check,) = [check for check in checks if check.check_name == "files_taken"]
        tick()
        return bool(inbox_check.passed)

    assert not passed()
    assert known(engine) == [("source_down", 1, True)]
    with engine.begin() as conn:
        assert close(conn, conn.execute(select(incidents.c.incident_id)).scalar_one(), "me")
    assert passed()
    assert known(engine) == [("source_down", 1, False)]
    assert len(mails.mails) == 1


@pytest.mark.parametrize("how", ["corrected", "acknowledged"])
def test_a_file_that_was_refused_long_ago_is_shown_by_all(
    refused: None, engine: Engine, client: httpx.Client, pipeline: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    """It is shown even if the sensor of the alerts is not running."""

    def shown() -> list[bool]:
        doctor = [
            finding.message for finding in examine() if (finding.check, finding.level) == ("incidents", "problem")
        ]
        return ["weather__a.csv" in words for words in (client.get("/").text.partition("datasets-title")[0],
                here("alerts", "list").stdout, " ".join(doctor))]  # fmt: skip

    with engine.begin() as conn:
        conn.execute(update(files).values(arrived_at=func.now() - dt.timedelta(days=31)))
    assert shown() == [True] * 3
    if how == "corrected":
        (tmp_path / "weather__a.csv").write_text(GOOD)
        pipeline(all_datasets()["weather"], tmp_path / "weather__a.csv")
    else:
        with engine.begin() as conn:
            assert close(conn, conn.execute(select(incidents.c.incident_id)).scalar_one(), "me")
    assert shown() == [False] * 3


def test_nobody_is_notified_of_what_only_warns_and_of_files_that_wait_only_after_a_while(
    mails: Mailbox, tick: Tick, pipeline: Callable[..., Any], tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "weather__a.csv").write_text(GOOD + "OSL,2026-01-02,warm,0\n")
    pipeline(all_datasets()["weather"], tmp_path / "weather__a.csv")
    with engine.begin() as conn:
        row = "INSERT INTO ops.files (dataset, name, version, sha256, bytes, channel, status, arrived_at)"
        conn.execute(text(f"{row} VALUES ('weather', 'b.csv', 1, 'b', 1, 'test', 'landed', now() - interval '1 h')"))
        conn.execute(update(files).values(loaded_at=files.c.loaded_at - dt.timedelta(minutes=10)))
    tick()
    assert sorted(known(engine)) == [("files_waiting", 1, True), ("rows_rejected", 1, True)]
    with engine.connect() as conn:
        message = conn.scalars(select(incidents.c.message).where(incidents.c.kind == "rows_rejected")).one()
    assert message == "weather: weather__a.csv, file 1: 1 of 2 rows (50%) rejected."
    assert mails.mails == []
    with engine.begin() as conn:
        conn.execute(update(incidents).values(opened_at=func.now() - dt.timedelta(minutes=11)))
    tick()
    assert [mail["Subject"] for mail in mails.mails] == ["Mini Platform: Files waiting: weather"]


def test_a_later_recipient_is_notified_of_what_is_open(
    tick: Tick, hook: Hook, refused: None, pipeline: Callable[..., Any], tmp_path: Path, platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "weather__b.csv").write_text(BAD)
    pipeline(all_datasets()["weather"], tmp_path / "weather__b.csv")
    assert tick() == "All alerts are delivered."
    (tmp_path / "weather__a.csv").write_text(GOOD)
    pipeline(all_datasets()["weather"], tmp_path / "weather__a.csv")
    tick()
    assert [is_open for _, _, is_open in known(platform.engine)] == [False, True]
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"json://{hook.url}/")
    recipients = services(load_settings())
    assert module.deliver(platform.engine, recipients) == []
    assert [body["title"] for body in hook.bodies] == ["Mini Platform: File refused: weather"]


def test_links_lead_where_people_find_the_dashboard(
    refused: None, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_platform.operations.detection import detect_in_ledger

    monkeypatch.setenv("MINI_PLATFORM_PUBLIC_URL", "https://data.example.com/platform/")
    with platform.engine.connect() as conn:
        (problem,), _ = detect_in_ledger(conn, all_datasets(), load_settings())
    assert problem.link == "https://data.example.com/platform/files/1"


def test_a_flood_is_one_message(hook: Hook, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime.now(dt.UTC)
    problems = [
        Incident("file_refused", str(n), "weather", str(n), f"weather: file {n}", "", "", now) for n in range(3000)
    ]
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"json://{hook.url}/")
    recipients = services(load_settings())
    for current in (problems, problems[:1000], problems[:1000], problems):
        with platform.engine.begin() as conn:
            reconcile(conn, current)
        assert module.deliver(platform.engine, recipients) == []
    assert [body["title"] for body in hook.bodies] == ["Mini Platform: 3000 new", "Mini Platform: 2000 recovered"]
    assert "... and 2,980 more" in hook.bodies[0]["message"]


def test_the_digest(
    hook: Hook, platform: Platform, pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline(all_datasets()["sales"], SAMPLE_FILES / "sales" / "shop.csv")
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"json://{hook.url}/")
    monkeypatch.setenv("MINI_PLATFORM_ALERTS_DIGEST", "0")
    settings = load_settings()
    recipients = services(settings)
    with platform.engine.begin() as conn:
        wrong = "sales: it is wrong."
        reconcile(conn, [Incident("rows_rejected", "sales", "sales", "", wrong, "", "", dt.datetime.now(dt.UTC))])
    for _ in range(2):
        module.digest(platform.engine, settings, recipients)
        module.deliver(platform.engine, recipients)
    (body,) = hook.bodies
    assert "sales: 1 files loaded, 500 rows read, 0 rejected\n\nOpen incidents\nsales: it is wrong." in body["message"]


def test_the_command_tests_every_url(mails: Mailbox, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = free_port()
    urls = f"{mails.url} json://{hook.url}/T0kenOfTheHook json://user:T0kenOfTheOther@127.0.0.1:{closed}/T0kenInThePath"
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", urls)
    result = cli("alerts", "test")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["sent", "sent"]
    assert lines[2].startswith("json 127.0.0.1 ")
    assert "refused" in lines[2], "why"
    for secret in (PASSWORD, "T0ken"):
        assert secret not in result.stdout + result.stderr
    assert mails.mails[0]["Subject"] == hook.bodies[0]["title"] == "Mini Platform: test"
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"{mails.url} nosuch://T0ken")
    result = here("alerts", "test")
    assert (result.exit_code, "T0ken" in result.stderr) == (2, False)
    assert "URL 2 of MINI_PLATFORM_ALERTS is not one that Apprise understands" in result.stderr
    monkeypatch.delenv("MINI_PLATFORM_ALERTS")
    assert here("alerts", "test").stderr == "MINI_PLATFORM_ALERTS is not set: no alerts are sent.\n"


def test_payloads_that_are_refused_for_one_reason_are_one_incident(declared: Declared) -> None:
    class Rows(RowModel):
        k: int = Field("Key")
        v: int | None = Field("Value")

    limit = RejectLimit(rows=0)
    one = Dataset("posted", "posted", Rows, ("k",), "Posted rows", sources=(Json(),), reject_limit=limit)
    trial = declared(one)
    platform = trial.platform

    def post(*payloads: str) -> list[Any]:
        for payload in payloads:
            with platform.store.receive() as arriving:
                arriving.write(payload.encode())
                upload.land(platform.engine, one, f"payload-{uuid.uuid4().hex}.json", arriving, upload.PAYLOADS)
        with platform.engine.begin() as conn:
            update_incidents(conn, platform, {"posted": one})
        trial.run()
        with platform.engine.begin() as conn:
            update_incidents(conn, platform, {"posted": one})
            return [(row.message, row.times, row.closed_at) for row in list_incidents(conn, closed=True)]

    refused = "posted: {} payload{} refused: {}. See file {}."
    bad_value = refused.format(5, "s", "v_is_integer", "5, 4, 3 and 2 more")
    assert post(*(f'{{"k": {k}, "v": "x"}}' for k in range(5))) == [(bad_value, 1, None)]
    assert post('{"k": 6, "v": "y"}', '{"k": "x"}', "3", '{"k": 1}') == [
        (refused.format(6, "s", "v_is_integer", "6, 5, 4 and 3 more"), 2, None),
        (refused.format(1, "", "k_is_integer", "7"), 1, None),
        (refused.format(1, "", "row_is_object", "8"), 1, None),
    ]
    with platform.engine.begin() as conn:
        ledger.reprocess(conn, "posted")
        update_incidents(conn, platform, {"posted": one})
    trial.run()
    with platform.engine.begin() as conn:
        update_incidents(conn, platform, {"posted": one})
        assert [(row.times, row.closed_at) for row in list_incidents(conn, closed=True)] == [
            (2, None),
            (1, None),
            (1, None),
        ]


@pytest.mark.parametrize(("channel", "number"), [(upload.PAYLOADS, 1), ("test", ALONE + 1)])
def test_a_storm_of_bad_files_is_none_of_incidents_alerts_and_logs(
    declared: Declared, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, channel: str,
    number: int,
) -> None:  # fmt: skip
    class Rows(RowModel):
        k: int = Field("Key")

    one = Dataset("posted", "posted", Rows, ("k",), "Posted rows", sources=(Json(),), reject_limit=RejectLimit(rows=0))
    trial = declared(one)
    platform = trial.platform
    monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"json://{hook.url}/")
    recipients = services(load_settings())
    caplog.set_level("INFO", logger="mini_platform")
    for turn in (1, 2, 3):
        raw = platform.store.put(io.BytesIO(f'{{"k": "x{turn}"}}'.encode()))
        arrivals = [ledger.Arrival(f"{turn}-{n}.json", *raw) for n in range(200)]
        with platform.engine.begin() as conn:
            ledger.register(conn, "posted", arrivals, channel)
        trial.run()
        with platform.engine.begin() as conn:
            update_incidents(conn, platform, {"posted": one})
        assert module.deliver(platform.engine, recipients) == []
        with platform.engine.connect() as conn:
            shown = list_incidents(conn, closed=True)
        assert (len(shown), len(hook.bodies)) == (number, 1)
    ids = ", ".join(str(600 - n) for n in range(3))
    crowd = "600 payloads" if channel == upload.PAYLOADS else f"{600 - ALONE} more files"
    more = 600 - 3 - (number - 1)
    messages = [row.message for row in shown if row.subject.startswith("posted/")]
    assert messages == [f"posted: {crowd} refused: k_is_integer. See file {ids} and {more} more."]
    lines = [record for record in caplog.records if record.name.startswith("mini_platform")]
    assert [(line.levelname, line.getMessage()) for line in lines] == [("INFO", "files refused")] * 3


def test_an_incident_that_is_closed_by_hand_stays_closed(
    mails: Mailbox, tick: Tick, refused: None, engine: Engine, pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    """A file may have been corrected under another name."""
    tick()
    (row,) = map(json.loads, here("alerts", "list", "--json").stdout.splitlines())
    assert (row["kind"], row["closed_at"]) == ("file_refused", None)
    assert row["notified"] == [f"{services(load_settings())[0].name} opened"]
    assert here("alerts", "close", str(row["incident_id"])).exit_code == 0
    tick()
    assert known(engine) == [("file_refused", 1, False)]
    assert here("alerts", "list", "--json").stdout == ""
    assert "no open incident" in here("alerts", "close", "99").stderr
    assert len(mails.mails) == 1
    with engine.connect() as conn:
        assert conn.execute(select(audit.c.actor).where(audit.c.action == "closed an incident")).scalar_one()
    (tmp_path / "weather__a.csv").write_text(BAD + "OSL,2026-01-02,too,0\n")
    pipeline(all_datasets()["weather"], tmp_path / "weather__a.csv")
    tick()
    assert [is_open for _, _, is_open in known(engine)] == [False, True], "it went wrong anew"
    assert len(mails.mails) == 2
