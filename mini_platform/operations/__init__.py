"""What an operator does with a platform: back it up, restore it, purge it, ask what ails it. No Dagster here."""
