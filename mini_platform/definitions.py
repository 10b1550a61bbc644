"""The definitions that Dagster loads: assets, checks, sensors and schedules of every dataset, the nightly purge, alerts."""

from mini_platform.dagster.build import build_defs
from mini_platform.dagster.loading import load_defs

__all__ = ["build_defs", "defs"]

defs = load_defs()
