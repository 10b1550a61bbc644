"""Weather: each of its rules rejects the row that fails it, and takes its limits themselves."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from mini_platform import RejectLimit
from mini_platform.platform import Platform
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import weather

AHEAD = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=3)
ROWS = {
    "OSL,2026-01-01,-90,0": None,
    "OSL,2026-01-02,60,2000": None,
    "OSL,2026-01-03,,0.3": None,
    "OSL,2026-01-04,-90.1,0": "temp_c_in_range",
    "OSL,2026-01-05,60.1,0": "temp_c_in_range",
    "OSL,2026-01-06,warm,0": "temp_c_is_number",
    "OSL,2026-01-07,1,-0.1": "precip_mm_in_range",
    "OSL,2026-01-08,1,2000.1": "precip_mm_in_range",
    "OSL,2026-01-09,,": "has_a_measurement",
    "OSL,2026-02-30,1,0": "date_is_date",
    f"OSL,{AHEAD},1,0": "date_not_after_tomorrow",
    ",2026-01-10,1,0": "station_id_required",
}
"""Rows of a file -> the rule that rejects them; None: they are loaded."""


def test_each_rule_rejects_what_fails_it(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "weather.csv"
    file.write_text("\n".join(["station_id,date,temp_c,precip_mm", *ROWS, ""]))
    pipeline(replace(weather, reject_limit=RejectLimit()), file)
    with platform.engine.connect() as conn:
        rejected = dict(conn.execute(text("SELECT _line, _rules[1] FROM quarantine.measurements")).tuples().all())
        loaded = conn.scalar(text("SELECT count(*) FROM production.measurements"))
    assert rejected == {line: rule for line, rule in enumerate(ROWS.values(), start=2) if rule}
    assert loaded == sum(rule is None for rule in ROWS.values())
