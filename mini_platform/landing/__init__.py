"""The channels: how files arrive and become raw files with a row in the ledger. No channel has a pipeline of its own."""
