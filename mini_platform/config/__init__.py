"""Settings and their sources, logging, Sentry, fail points. Not here: anything that opens a file of data or a connection."""
