"""Rings of tests: `make test-fast` leaves out what is slow, so that it is done within two minutes on two cores.

A module is slow if its tests take more than 10 seconds of one core: they start processes, servers or a browser, wait for
clocks, or read many files. The list follows `make test ARGS=--durations=0`.
"""

from __future__ import annotations

import pytest

SLOW = {
    "browser": {"test_dagster", "test_pages"},
    "cli": {"test_cli", "test_supervisor"},
    "config": {"test_setting_sources"},
    "dagster": {"test_definitions", "test_pauses", "test_sync_runs"},
    "datasets": {"test_sales", "test_sixth_dataset"},
    "declarations": {"test_aggregates", "test_keys", "test_machine", "test_together", "test_unknown_columns"},
    "declare": {"test_columns"},
    "landing": {
        "test_deliveries", "test_inboxes_health", "test_inboxes_landing", "test_inboxes_runs", "test_inboxes_trouble",
        "test_raw_bucket", "test_sync",
    },
    "nasty": {"test_cases", "test_every_dataset", "test_names", "test_polluted", "test_random"},
    "operations": {
        "test_alerts", "test_backup", "test_deployment", "test_doctor", "test_drafting", "test_forget",
        "test_pipeline", "test_purge",
    },
    "roles": {"test_metabase", "test_platform"},
    "rows": {"test_against_reference", "test_csv_cases", "test_csv_dialects", "test_json", "test_shifted_rows"},
    "warehouse": {
        "test_anomalies", "test_embedded", "test_figures", "test_ledger", "test_quality", "test_schema", "test_staging",
        "test_upsert",
    },
    "web": {
        "test_datasets", "test_declared_page", "test_gate", "test_guard", "test_health", "test_https", "test_login",
        "test_naughty_strings", "test_openapi", "test_pages", "test_query", "test_replaced", "test_scopes", "test_serving",
        "test_shown", "test_site", "test_uploads", "test_walk",
    },
}  # fmt: skip
"""Slow modules by their room."""


def mark(item: pytest.Item) -> None:
    """Mark a test of a slow module."""
    names = item.path.relative_to(item.config.rootpath / "mini_platform_tests").with_suffix("").parts
    if names[-1] in SLOW.get(names[0], ()):
        item.add_marker(pytest.mark.slow)
