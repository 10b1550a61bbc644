"""Bytes to validated rows, and rows to what people and files read: pure. Not here: the database, the ledger."""
