"""Dataset -> Dagster assets and checks. Wiring only: what is done is in landing, warehouse and validation."""
