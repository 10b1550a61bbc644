"""The doors: how files come in and become raw files with a row in the ledger. No door has a pipeline of its own."""
