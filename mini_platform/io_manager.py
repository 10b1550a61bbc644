"""PostgresIOManager: a DataFrame or a select in, an idempotent upsert out; a table in, a DataFrame out.

https://docs.dagster.io/guides/build/io-managers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from sqlalchemy import CompoundSelect, Connection, Select, func, select

from mini_platform.assets.metadata import files_chart, given, line_chart, preview, records
from mini_platform.dataset import Aggregate, Dataset, View
from mini_platform.faultpoints import reach
from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.load import load
from mini_platform.warehouse.tables import COUNTERS, dataset_tables, files, quality_report
from mini_platform.warehouse.upsert import upsert_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StagedFiles:
    """What the asset of a production table returns: load the files that are staged.

    Attributes:
        only: file ids to choose from; None means all.
        limit: files to take at most.
    """

    only: Sequence[int] | None
    limit: int


class PostgresIOManager(dg.IOManager):
    """Materializes assets as Postgres tables; the last part of the asset's key names the table.

    Takes what an asset returns: `StagedFiles` are loaded into production, a SQLAlchemy select is the aggregate or view of
    that name, a pandas DataFrame is upserted as it is. A downstream asset gets the table as a DataFrame.
    """

    def __init__(self, platform: Platform, datasets: Mapping[str, Dataset]) -> None:
        """Serve the assets of these datasets."""
        self._platform = platform
        self._datasets = datasets

    def _declared(self, key: dg.AssetKey) -> tuple[Dataset, Aggregate | View | None]:
        dataset = self._datasets[key.path[0]]
        return dataset, next((computed for computed in dataset.computed if computed.name == key.path[-1]), None)

    def handle_output(
        self, context: dg.OutputContext, obj: StagedFiles | Select[Any] | CompoundSelect[Any] | pd.DataFrame
    ) -> None:
        """Write what an asset returned, and say what was written."""
        dataset, declared = self._declared(context.asset_key)
        if isinstance(obj, StagedFiles):
            context.add_output_metadata(self._load(context.run_id, dataset, obj))
        elif isinstance(obj, Select | CompoundSelect) and isinstance(declared, Aggregate):
            context.add_output_metadata(self._refresh(dataset, declared, obj))
        elif isinstance(obj, Select | CompoundSelect) and isinstance(declared, View):
            context.add_output_metadata(self._look(dataset, declared))
        elif obj is not None:
            context.add_output_metadata(self._upsert(dataset, obj))

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """The whole table of an upstream asset."""
        import pandas as pd

        dataset, declared = self._declared(context.asset_key)
        tables = dataset_tables(dataset)
        table = (tables.aggregates | tables.views)[declared.name] if declared else tables.production
        with self._platform.engine.connect() as conn:
            return pd.read_sql(select(table), conn)

    def _load(self, run_id: str, dataset: Dataset, staged: StagedFiles) -> dict[str, Any]:
        worker = self._platform.worker(run_id)
        with ledger.lease(worker):
            loaded = load(worker, dataset, limit=staged.limit, only=staged.only)
        production = dataset_tables(dataset).production
        with worker.engine.connect() as conn:
            rows = conn.execute(
                select(files).where(files.c.file_id == func.any(loaded)).order_by(files.c.file_id)
            ).all()
            return given(
                {
                    **preview(conn, production, [production.c[k].desc() for k in dataset.key]),
                    **{name: sum(getattr(row, name) for row in rows) for name in ("rows_read", *COUNTERS)},
                    "files_loaded": len(rows),
                    "accounting": records(ledger.accounting(row) for row in rows[-50:]),
                    "chart": files_chart(conn, dataset, COUNTERS),
                }
            )

    def _refresh(self, dataset: Dataset, aggregate: Aggregate, rows: Any) -> dict[str, Any]:
        table = dataset_tables(dataset).aggregates[aggregate.name]
        with self._platform.engine.begin() as conn:
            done = aggregates.refresh(conn, dataset, aggregate, rows)
            reach("aggregate.before_commit")
        reach("aggregate.after_commit")
        with self._platform.engine.connect() as conn:
            return given(
                {
                    **preview(conn, table, [table.c[k].desc() for k in aggregate.key]),
                    "rows_written": done.written,
                    "rows_deleted": done.deleted,
                    "groups_computed": "all" if done.groups is None else done.groups,
                    "chart": line_chart(conn, table, *aggregate.chart),
                }
            )

    def _look(self, dataset: Dataset, view: View) -> dict[str, Any]:
        """A view is there since its dataset was declared: what it shows now."""
        table = dataset_tables(dataset).views[view.name]
        with self._platform.engine.connect() as conn, aggregates.in_words(dataset, view):
            return given({**preview(conn, table), "chart": line_chart(conn, table, *view.chart)})

    def _upsert(self, dataset: Dataset, frame: pd.DataFrame) -> dict[str, Any]:
        with self._platform.engine.begin() as conn:
            written = upsert_frame(conn, quality_report, frame)
            return {"rows_written": written, **_kept(conn, dataset)}


def _kept(conn: Connection, dataset: Dataset) -> dict[str, Any]:
    mine = select(func.count()).select_from(quality_report).where(quality_report.c.dataset == dataset.name)
    return {"dagster/row_count": conn.scalar(mine) or 0}
