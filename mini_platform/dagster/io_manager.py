"""PostgresIOManager: a DataFrame or a select in, an idempotent upsert out; a table in, a DataFrame out.

Here: the choice of the use case that writes the output of an asset. Not here: the use cases (`operations/processing.py`,
`operations/frames.py`), their metadata (`metadata.py`).

https://docs.dagster.io/guides/build/io-managers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import CompoundSelect, Connection, Select, select

from mini_platform.dagster.metadata import (
    frame_metadata,
    loaded_metadata,
    refreshed_metadata,
    reported_metadata,
    view_metadata,
)
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.frames import store_frame
from mini_platform.operations.processing import load, refresh, save_report
from mini_platform.platform import Platform
from mini_platform.warehouse.arrow import UnreadableError, read_arrow, to_pandas, to_polars
from mini_platform.warehouse.frame_columns import FrameError, is_frame
from mini_platform.warehouse.frames import read_frame
from mini_platform.warehouse.tables import dataset_tables, quality_report

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

IO_MANAGER = "postgres_io_manager"
"""Key of the IO manager of datasets. The default one, `io_manager`, may be another one of the project."""
KEY = "mini_platform/key"
"""Metadata of an asset: name or names of the columns that identify a row of its DataFrame."""


@dataclass(frozen=True)
class StagedFiles:
    """The output of a production table's asset: an instruction to load the staged files.

    Attributes:
        only: ids of the files to load; None means all.
    """

    only: Sequence[int] | None


class PostgresIOManager(dg.IOManager):
    """Stores assets as Postgres tables; the last part of an asset's key names the table.

    Outputs: a DataFrame of pandas or polars that an asset of the project returns is stored in the schema `analytics`: by upsert
    if its metadata has `mini_platform/key`, the names of the columns that identify a row; else the table is made equal to the
    frame. Assets of datasets return `StagedFiles`, which are loaded into production, a SQLAlchemy select, which is computed
    into the aggregate or view of that name, or a quality report. Of None, nothing is written.

    Inputs: a downstream asset gets the table as a DataFrame of pandas, or of polars if it is annotated so.
    """

    def __init__(self, platform: Platform, datasets: Mapping[str, Dataset]) -> None:
        """Create the IO manager for the assets of these datasets, and for a project's own assets."""
        self._platform = platform
        self._datasets = datasets

    def _declared(self, key: dg.AssetKey) -> tuple[Dataset, Aggregate | View | None] | None:
        """Return the dataset of an asset, and the aggregate or view that it is, if any; None for an asset of the project."""
        dataset = self._datasets.get(key.path[0])
        computed = {one.name: one for one in dataset.computed} if dataset else {}
        if dataset is None or key.path[1:] not in [[name] for name in (dataset.table, quality_report.name, *computed)]:
            return None
        return dataset, computed.get(key.path[-1])

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the output of an asset, and add metadata about what was written."""
        if obj is None:
            return
        try:
            if (declared := self._declared(context.asset_key)) is None:
                self._store_frame(context, obj)
            else:
                self._write(context, *declared, obj)
        except DeclarationError as error:
            raise _failure(context.asset_key, error) from error

    def _write(self, context: dg.OutputContext, dataset: Dataset, declared: Aggregate | View | None, obj: Any) -> None:
        platform = self._platform
        platform.require(dataset)
        if isinstance(obj, StagedFiles):
            self._show(context, loaded_metadata, dataset, load(platform, dataset, context.run_id, obj.only))
        elif isinstance(obj, Select | CompoundSelect) and isinstance(declared, Aggregate):
            self._show(context, refreshed_metadata, dataset, declared, refresh(platform, dataset, declared, obj))
        elif isinstance(obj, Select | CompoundSelect) and isinstance(declared, View):
            self._show(context, view_metadata, dataset, declared)
        elif context.asset_key.path[-1] == quality_report.name:
            self._show(context, reported_metadata, dataset, save_report(platform, obj))
        else:
            raise DeclarationError(
                f"it returns a {type(obj).__name__}; an aggregate or a view is a SQLAlchemy select, and rows of production "
                "come from files"
            )

    def _store_frame(self, context: dg.OutputContext, obj: Any) -> None:
        key = _key_columns(context.definition_metadata.get(KEY))
        if not is_frame(obj):
            raise FrameError(
                f"it returns a {type(obj).__name__}, and only a DataFrame of pandas or polars can be stored: return one, or "
                "None, or give the asset an io_manager_key of its own"
            )
        if context.has_asset_partitions and not key:
            raise FrameError(
                f"it is partitioned, and the frame of one partition would replace those of the others: name the columns that "
                f'identify a row, as metadata={{"{KEY}": …}}'
            )
        self._show(context, frame_metadata, store_frame(self._platform, context.asset_key.to_user_string(), obj, key))

    def _show(self, context: dg.OutputContext, describe: Callable[..., dict[str, Any]], *written: Any) -> None:
        with self._platform.engine.connect() as conn:
            context.add_output_metadata(describe(conn, *written))

    def load_input(self, context: dg.InputContext) -> pd.DataFrame | pl.DataFrame:
        """Return the whole table of an upstream asset."""
        with self._platform.engine.connect() as conn:
            try:
                table = self._read(conn, context.asset_key)
            except (DeclarationError, UnreadableError) as error:
                raise _failure(context.asset_key, error) from error
        annotation = context.dagster_type.typing_type
        return to_polars(table) if getattr(annotation, "__module__", "").startswith("polars") else to_pandas(table)

    def _read(self, conn: Connection, asset_key: dg.AssetKey) -> Any:
        if (known := self._declared(asset_key)) is None:
            return read_frame(conn, asset_key.to_user_string())
        dataset, declared = known
        tables = dataset_tables(dataset)
        rows = select((tables.aggregates | tables.views)[declared.name] if declared else tables.production)
        if asset_key.path[-1] == quality_report.name:
            rows = select(quality_report).where(quality_report.c.dataset == dataset.name)
        return read_arrow(conn, rows)


def _failure(key: dg.AssetKey, error: ValueError) -> dg.Failure:
    return dg.Failure(f"{key.to_user_string()}: {str(error).removesuffix('.')}.", allow_retries=False)


def _key_columns(value: Any) -> tuple[str, ...]:
    """Return the names in the metadata of an asset: one name, or a list of names."""
    names = getattr(value, "value", value)  # Dagster wraps lists and texts.
    names = [names] if isinstance(names, str) else [] if names is None else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise FrameError(f"{KEY} should be the name of a column, or a list of names")
    return tuple(names)
