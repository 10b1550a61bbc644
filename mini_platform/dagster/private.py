"""What we use of Dagster's private modules (`dagster._…`), each with its reason. Nowhere else is one of them named.

They may change with any release: a new version of Dagster is tried against this file first. A name is imported when it is
first asked for, so that who only starts a module (the supervisor, services) does not load Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster._cli import cli as cli
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJobDefinition,
    )
    from dagster._core.events import EngineEventData as EngineEventData
    from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher import LaunchRunContext as LaunchRunContext
    from dagster._core.launcher import WorkerStatus as WorkerStatus
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecord as AssetCheckExecutionRecord,
    )
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecordStatus as AssetCheckExecutionRecordStatus,
    )
    from dagster._core.storage.dagster_run import FINISHED_STATUSES as FINISHED_STATUSES
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager as LocalComputeLogManager
    from dagster._core.storage.root import LocalArtifactStorage as LocalArtifactStorage
    from dagster._grpc.types import ExecuteRunArgs as ExecuteRunArgs
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData

DAEMON = "dagster._daemon"
"""Run as a module by this very Python; the script `dagster-daemon` may be another environment's."""
COMMAND = "dagster._cli.api"
"""Imported by the process from which runs are forked: most of a run's start is this import."""

PLACES = {
    # What `define_asset_job` returns has no public name.
    "UnresolvedAssetJobDefinition": "dagster._core.definitions.unresolved_asset_job_definition",
    # The command that executes a run, called in a process that is there already: a fresh one takes 3 s more.
    "cli": "dagster._cli",
    "ExecuteRunArgs": "dagster._grpc.types",
    # What a run launcher is given and returns; the class to derive from is public, its arguments are not.
    "CheckRunHealthResult": "dagster._core.launcher",
    "LaunchRunContext": "dagster._core.launcher",
    "WorkerStatus": "dagster._core.launcher",
    # The only way to write down which process a run has, where `process_is_gone` finds it after a crash.
    "EngineEventData": "dagster._core.events",
    # Storage that dagster.yaml names: the classes to derive from, and the argument of their constructors.
    "LocalArtifactStorage": "dagster._core.storage.root",
    "LocalComputeLogManager": "dagster._core.storage.local_compute_log_manager",
    "ConfigurableClassData": "dagster._serdes",
    # Latest results of all checks by one query; the public way is one query a check.
    "AssetCheckExecutionRecord": "dagster._core.storage.asset_check_execution_record",
    "AssetCheckExecutionRecordStatus": "dagster._core.storage.asset_check_execution_record",
    # Which runs are over: a list of our own would miss a status that is added.
    "FINISHED_STATUSES": "dagster._core.storage.dagster_run",
}
"""Name -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Return what a private module of Dagster has by this name."""
    if name not in PLACES:
        raise AttributeError(name)
    return getattr(import_module(PLACES[name]), name)
