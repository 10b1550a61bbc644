"""PostgresIOManager: a DataFrame or a select in, an idempotent upsert out; a table in, a DataFrame out.

Here: the choice of the use case that writes the output of an asset. Not here: the use cases (`operations/processing.py`), their
metadata (`metadata.py`).

https://docs.dagster.io/guides/build/io-managers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import CompoundSelect, Select, select

from mini_platform.dagster.metadata import loaded_metadata, refreshed_metadata, reported_metadata, view_metadata
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.processing import load, refresh, save_report
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import dataset_tables, quality_report

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StagedFiles:
    """The output of a production table's asset: an instruction to load the staged files.

    Attributes:
        only: ids of the files to load; None means all.
    """

    only: Sequence[int] | None


class PostgresIOManager(dg.IOManager):
    """Materializes the assets of datasets as Postgres tables; the last part of the asset's key names the table.

    Outputs: `StagedFiles` are loaded into production, a SQLAlchemy select is computed into the aggregate or view of that name,
    the DataFrame of a quality report is upserted into `analytics.quality_report`; of None, nothing is written. Any other output
    is an error, as only what is declared has a table. Inputs: a downstream asset gets the table as a DataFrame.
    """

    def __init__(self, platform: Platform, datasets: Mapping[str, Dataset]) -> None:
        """Create the IO manager for the assets of these datasets."""
        self._platform = platform
        self._datasets = datasets

    def _declared(self, key: dg.AssetKey) -> tuple[Dataset, Aggregate | View | None]:
        """Return the dataset of an asset, and the aggregate or view that it is, if any.

        Raises:
            DeclarationError: no dataset has a table for the asset.
        """
        dataset = self._datasets.get(key.path[0])
        computed = {one.name: one for one in dataset.computed} if dataset else {}
        if dataset is None or key.path[1:] not in [[name] for name in (dataset.table, quality_report.name, *computed)]:
            raise DeclarationError(
                f"The asset {key.to_user_string()} is no table of a dataset: declare an Aggregate or a View called "
                f"{key.path[-1]}, or give the asset an io_manager_key of its own."
            )
        return dataset, computed.get(key.path[-1])

    def handle_output(
        self, context: dg.OutputContext, obj: StagedFiles | Select[Any] | CompoundSelect[Any] | pd.DataFrame
    ) -> None:
        """Write the output of an asset, and add metadata about what was written."""
        if obj is None:
            return
        platform, (dataset, declared) = self._platform, self._declared(context.asset_key)
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
                f"The asset {context.asset_key.to_user_string()} returns a {type(obj).__name__}; an aggregate or a view is a "
                "SQLAlchemy select, and rows of production come from files."
            )

    def _show(self, context: dg.OutputContext, describe: Callable[..., dict[str, Any]], *written: Any) -> None:
        with self._platform.engine.connect() as conn:
            context.add_output_metadata(describe(conn, *written))

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the whole table of an upstream asset."""
        import pandas as pd

        dataset, declared = self._declared(context.asset_key)
        tables = dataset_tables(dataset)
        rows = select((tables.aggregates | tables.views)[declared.name] if declared else tables.production)
        if context.asset_key.path[-1] == quality_report.name:
            rows = select(quality_report).where(quality_report.c.dataset == dataset.name)
        with self._platform.engine.connect() as conn:
            return pd.read_sql(rows, conn)
