"""All of Dagster, a module for each of its concepts. Not here: work. An asset is some lines around `operations/`."""
