"""The channels: how files come in and become raw files with a row in the ledger. No channel has a pipeline of its own."""
