"""The definitions that Dagster loads: every dataset, and assets of your own, which may read and write the same database."""

import dagster as dg

from mini_platform import load_defs

mine: list[dg.AssetsDefinition] = []

defs = dg.Definitions.merge(load_defs(), dg.Definitions(assets=mine))
