"""Local and remote storage of bytes: raw store, bucket, inboxes. Not here: the datasets, and the ledger of what was taken."""
