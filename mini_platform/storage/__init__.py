"""Where bytes lie, here or far: raw store, bucket, inboxes. Not here: which dataset they are of, what was taken from where."""
