"""Run history: queries of Dagster's tables, so that the API and the dashboard need not import Dagster.

Dagster creates its tables at its first start; readers must expect that they do not exist yet. The read-only role
(`roles.py`) does not see them: the bodies of runs have more than their results.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

DATASET_TAG = "mini_platform/dataset"
"""Tag of every run with the dataset that it loads. `dagster.yaml` allows one run for each value at a time."""

ALERTS_SENSOR, PURGE_SCHEDULE = "alerts", "purge_nightly"
"""Names of the sensor and the schedule that are of no single dataset."""

TABLES_EXIST = text("SELECT to_regclass('dagster.runs') IS NOT NULL AND to_regclass('dagster.run_tags') IS NOT NULL")
SUMMARY = text(
    """
    SELECT t.value AS dataset, count(*) AS runs,
           count(*) FILTER (WHERE r.status = 'SUCCESS') AS succeeded,
           count(*) FILTER (WHERE r.status IN ('FAILURE', 'CANCELED')) AS failed,
           count(*) FILTER (WHERE r.status IN ('STARTING', 'STARTED', 'CANCELING')) AS running,
           coalesce(sum(r.end_time - r.start_time), 0) AS seconds,
           to_timestamp(max(r.start_time)) AS last_started,
           to_timestamp(max(r.end_time) FILTER (WHERE r.status = 'SUCCESS')) AS last_succeeded,
           to_timestamp(max(r.end_time) FILTER (WHERE r.status IN ('FAILURE', 'CANCELED'))) AS last_failed,
           (array_agg(r.run_id ORDER BY r.end_time DESC NULLS LAST)
               FILTER (WHERE r.status IN ('FAILURE', 'CANCELED')))[1] AS last_failed_run,
           (array_agg(r.end_time - r.start_time ORDER BY r.end_time DESC)
               FILTER (WHERE r.status = 'SUCCESS'))[1] AS last_seconds
    FROM dagster.runs r JOIN dagster.run_tags t ON t.run_id = r.run_id AND t.key = :tag
    GROUP BY t.value
    """
)
ENDED_LAST_DAY = text(
    """
    SELECT coalesce(t.value, r.pipeline_name) AS what, count(*) FILTER (WHERE r.status = 'SUCCESS') AS succeeded,
           count(*) FILTER (WHERE r.status = 'FAILURE') AS failed
    FROM dagster.runs r LEFT JOIN dagster.run_tags t ON t.run_id = r.run_id AND t.key = :tag
    WHERE r.status IN ('SUCCESS', 'FAILURE') AND to_timestamp(r.end_time) >= now() - interval '1 day'
    GROUP BY 1 ORDER BY 1
    """
)

DAEMONS_EXIST = text("SELECT to_regclass('dagster.daemon_heartbeats') IS NOT NULL")
AUTOMATION_EXISTS = text("SELECT to_regclass('dagster.instigators') IS NOT NULL")
HEARTBEAT = text(
    """
    SELECT to_timestamp(min((body::jsonb ->> 'timestamp')::float8)) FROM dagster.daemon_heartbeats
    WHERE daemon_type IN ('SENSOR', 'SCHEDULER', 'QUEUED_RUN_COORDINATOR')
    """
)
AUTOMATION = text(
    """
    SELECT body #>> '{origin,job_name}' AS name, instigator_type = 'SENSOR' AS is_sensor, status = 'STOPPED' AS is_stopped,
           update_timestamp::timestamptz AS changed_at,
           to_timestamp(greatest((data ->> 'last_tick_start_timestamp')::float8, (data ->> 'last_tick_timestamp')::float8,
                                 (data ->> 'last_sensor_start_timestamp')::float8)) AS last_tick,
           (SELECT t.status = 'FAILURE' FROM dagster.job_ticks t WHERE t.selector_id = i.selector_id AND t.status <> 'STARTED'
            ORDER BY t.timestamp DESC LIMIT 1) AS is_failing,
           (SELECT t.timestamp::timestamptz FROM dagster.job_ticks t WHERE t.selector_id = i.selector_id
            AND t.status IN ('SUCCESS', 'SKIPPED') AND t.timestamp > now() - interval '1 day'
            ORDER BY t.timestamp DESC LIMIT 1) AS last_success
    FROM dagster.instigators i, LATERAL (SELECT instigator_body::jsonb AS body) AS parsed,
         LATERAL (SELECT body -> 'job_specific_data' AS data) AS of_type
    ORDER BY name
    """
)

QUEUE = text(
    """
    SELECT count(*) FILTER (WHERE status = 'QUEUED') AS queued,
           count(*) FILTER (WHERE status IN ('STARTING', 'STARTED', 'CANCELING')) AS running,
           greatest(min(create_timestamp) FILTER (WHERE status = 'QUEUED'),
                    max(update_timestamp) FILTER (WHERE status NOT IN ('QUEUED', 'NOT_STARTED')))::timestamptz AS moved_at
    FROM dagster.runs
    """
)


def summary(conn: Connection) -> dict[str, Row[Any]]:
    """Return the numbers, results, durations in seconds and times of the runs of each dataset that had any."""
    if not conn.scalar(TABLES_EXIST):
        return {}
    return {row.dataset: row for row in conn.execute(SUMMARY, {"tag": DATASET_TAG})}


def last_day(conn: Connection) -> Sequence[Row[Any]]:
    """Return how many runs of each dataset, or of each job without one, `succeeded` and `failed` within the last 24 hours."""
    if not conn.scalar(TABLES_EXIST):
        return []
    return conn.execute(ENDED_LAST_DAY, {"tag": DATASET_TAG}).all()


def last_heartbeat(conn: Connection) -> dt.datetime | None:
    """Return when Dagster's daemon last showed that all that it runs lives; None if it never ran."""
    heartbeat: dt.datetime | None = conn.scalar(HEARTBEAT) if conn.scalar(DAEMONS_EXIST) else None
    return heartbeat


def automation(conn: Connection) -> Sequence[Row[Any]]:
    """Return each sensor and schedule that ever ran or was stopped, also removed ones.

    `last_tick` is known of sensors; `is_failing` is True if the last one failed, and `last_success` looks back a day.
    """
    return conn.execute(AUTOMATION).all() if conn.scalar(AUTOMATION_EXISTS) else []


def queue(conn: Connection) -> Row[Any] | None:
    """Return how many runs are `queued` and `running`, and when the queue `moved_at` last; None if no run is queued."""
    state = conn.execute(QUEUE).one() if conn.scalar(TABLES_EXIST) else None
    return state if state and state.queued else None


WAKE = text(
    """
    UPDATE dagster.instigators
    SET instigator_body = CAST(jsonb_set(jsonb_set(instigator_body::jsonb,
            '{job_specific_data,last_tick_timestamp}', to_jsonb(CAST(:moment AS float8))),
            '{job_specific_data,last_tick_start_timestamp}', to_jsonb(CAST(:moment AS float8))) AS text)
    WHERE instigator_type = 'SENSOR'
    AND (instigator_body::jsonb #>> '{job_specific_data,last_tick_start_timestamp}')::float8 > :moment
    """
)


def wake_sensors(conn: Connection) -> None:
    """Let sensors tick whose last tick lies in the future, as after a clock was set back: Dagster would wait for it."""
    if conn.scalar(AUTOMATION_EXISTS):
        conn.execute(WAKE, {"moment": int(time.time()) - 0.5})  # Dagster reads no integer.
