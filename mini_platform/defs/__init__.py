"""Datasets declared in YAML, `<name>/defs.yaml` each, and whatever else Dagster's component loader is to find."""
