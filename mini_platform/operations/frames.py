"""DataFrames of users' own assets: storing one as a table of the schema `analytics`.

Not here: reading tables (`warehouse/frames.py`, `reading.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mini_platform.warehouse import frames
from mini_platform.warehouse.frame_columns import FrameError, frame_columns
from mini_platform.warehouse.tables import quality_report

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from mini_platform.platform import Platform


def store_frame(
    platform: Platform, asset: str, frame: pd.DataFrame | pl.DataFrame, key: Sequence[str] = ()
) -> frames.StoredFrame:
    """Store a DataFrame as the table named by the last part of its asset's key: by upsert if it has a key, else as a whole.

    Raises:
        FrameError: the frame cannot be stored, or the table belongs to something else.
    """
    name = asset.rpartition("/")[2]
    for dataset in platform.datasets.values():
        if name in [computed.name for computed in dataset.computed]:
            raise FrameError(
                f"{frames.SCHEMA}.{name} is computed by the dataset {dataset.name}: give the asset {asset} another name"
            )
    if name == quality_report.name:
        raise FrameError(
            f"{quality_report.fullname} is the quality report of the platform: give the asset {asset} another name"
        )
    columns = frame_columns(frame)
    with platform.engine.begin() as conn:
        return frames.store_frame(conn, asset, columns, key)
