"""Declarations of datasets, and how they are found. Not here: reading files, SQL, Dagster, HTTP."""
