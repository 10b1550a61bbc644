"""The Dagster integration, one module per concept. Not here: the work itself. An asset is a few lines around `operations/`."""
