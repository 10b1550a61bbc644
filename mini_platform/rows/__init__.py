"""From bytes to validated rows, and from rows to what people and files read. Pure. Not here: the database, the ledger."""
