"""What a user may say of a dataset, and how declarations are found. Not here: reading, SQL, Dagster, HTTP."""
