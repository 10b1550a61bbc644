"""The dagster-pandas type of the quality report: its description in the UI, and the checks of each DataFrame.

https://docs.dagster.io/integrations/libraries/pandas
"""

import warnings
from typing import Any

import dagster as dg


def _check(context: dg.TypeCheckContext, value: Any) -> dg.TypeCheck | bool:
    """Check a report. The type is created here and not at import, because pandas is slow to import."""
    from dagster_pandas import PandasColumn, create_dagster_pandas_dataframe_type

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # All of dagster-pandas is marked as beta.
        frame_type = create_dagster_pandas_dataframe_type(
            name="QualityFrame",
            columns=[
                PandasColumn.string_column("table_name", non_nullable=True),
                PandasColumn.string_column("column_name", non_nullable=True),
                PandasColumn.integer_column("total_rows", non_nullable=True, min_value=0),
                PandasColumn.integer_column("nulls", non_nullable=True, min_value=0),
                PandasColumn.float_column("null_rate", non_nullable=True, min_value=0.0, max_value=1.0),
                PandasColumn.integer_column("distinct_values", non_nullable=True, min_value=0),
                PandasColumn.integer_column("duplicates", non_nullable=True, min_value=0),
            ],
        )
    return frame_type.type_check(context, value)


QUALITY_TYPE = dg.DagsterType(
    _check, name="QualityReport", description="One row per table and column; see the table's schema."
)
