"""All names that are used from Dagster's private modules (`dagster._…`), each with its reason. No other file imports them.

They may change with any release: test a new version of Dagster against this file first. A name is imported when it is first
used, so that code that only starts a module (the supervisor, services) does not load Dagster.
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
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin as RegisteredCodeLocationOrigin
    from dagster._core.remote_origin import RemoteRepositoryOrigin as RemoteRepositoryOrigin
    from dagster._core.scheduler.instigation import InstigatorState as InstigatorState
    from dagster._core.scheduler.instigation import InstigatorStatus as InstigatorStatus
    from dagster._core.scheduler.instigation import InstigatorType as InstigatorType
    from dagster._core.scheduler.instigation import ScheduleInstigatorData as ScheduleInstigatorData
    from dagster._core.scheduler.instigation import SensorInstigatorData as SensorInstigatorData
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecord as AssetCheckExecutionRecord,
    )
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecordStatus as AssetCheckExecutionRecordStatus,
    )
    from dagster._core.storage.dagster_run import FINISHED_STATUSES as FINISHED_STATUSES
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager as LocalComputeLogManager
    from dagster._core.storage.root import LocalArtifactStorage as LocalArtifactStorage
    from dagster._core.workspace.context import WorkspaceProcessContext as WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget as WorkspaceFileTarget
    from dagster._daemon.types import DaemonHeartbeat as DaemonHeartbeat
    from dagster._grpc.types import ExecuteRunArgs as ExecuteRunArgs
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData
    from dagster.components.core.decl import (
        build_filesystem_component_decl_from_context as build_filesystem_component_decl_from_context,
    )
    from dagster.components.core.defs_module import ComponentPath as ComponentPath

DAEMON = "dagster._daemon"
"""Module that is run by this same Python; the script `dagster-daemon` may belong to another environment."""
COMMAND = "dagster._cli.api"
"""Module that is imported by the process from which runs are forked: this import takes most of the start of a run."""

REVISIONS = "_core/storage/alembic/versions"
"""Folder of the migrations of Dagster's tables, each a file: their names are compared with the one in the database."""

MODULES = {
    # A part of a component tree, if another part of it cannot be loaded.
    "build_filesystem_component_decl_from_context": "dagster.components.core.decl",
    "ComponentPath": "dagster.components.core.defs_module",
    # The return type of `define_asset_job` has no public name.
    "UnresolvedAssetJobDefinition": "dagster._core.definitions.unresolved_asset_job_definition",
    # The command that executes a run, called in a forked process: a new Python takes 3 s more.
    "cli": "dagster._cli",
    "ExecuteRunArgs": "dagster._grpc.types",
    # Arguments and results of a run launcher; its base class is public, these are not.
    "CheckRunHealthResult": "dagster._core.launcher",
    "LaunchRunContext": "dagster._core.launcher",
    "WorkerStatus": "dagster._core.launcher",
    # The only way to store the process id of a run where `process_is_gone` finds it after a crash.
    "EngineEventData": "dagster._core.events",
    # Storage in dagster.yaml: the base classes, and the argument of their constructors.
    "LocalArtifactStorage": "dagster._core.storage.root",
    "LocalComputeLogManager": "dagster._core.storage.local_compute_log_manager",
    "ConfigurableClassData": "dagster._serdes",
    # Latest results of all checks in one query; the public API needs one query per check.
    "AssetCheckExecutionRecord": "dagster._core.storage.asset_check_execution_record",
    "AssetCheckExecutionRecordStatus": "dagster._core.storage.asset_check_execution_record",
    # Statuses of finished runs: a list of our own would miss a status that is added.
    "FINISHED_STATUSES": "dagster._core.storage.dagster_run",
    # What the command `dagster-webserver` makes its app from; the command itself has no place for a guard.
    "WorkspaceProcessContext": "dagster._core.workspace.context",
    "WorkspaceFileTarget": "dagster._core.workspace.load_target",
    # What Dagster writes about daemons, sensors and schedules, which the watchdog reads by SQL; only its test needs them.
    "DaemonHeartbeat": "dagster._daemon.types",
    "InstigatorState": "dagster._core.scheduler.instigation",
    "InstigatorStatus": "dagster._core.scheduler.instigation",
    "InstigatorType": "dagster._core.scheduler.instigation",
    "ScheduleInstigatorData": "dagster._core.scheduler.instigation",
    "SensorInstigatorData": "dagster._core.scheduler.instigation",
    "RegisteredCodeLocationOrigin": "dagster._core.remote_origin",
    "RemoteRepositoryOrigin": "dagster._core.remote_origin",
}
"""Name -> module that defines it."""


def __getattr__(name: str) -> Any:
    """Return the object with this name from its private module of Dagster."""
    if name not in MODULES:
        raise AttributeError(name)
    return getattr(import_module(MODULES[name]), name)
