"""Use cases as functions, for commands, pages, assets and notebooks; without Dagster, HTTP or printing."""
