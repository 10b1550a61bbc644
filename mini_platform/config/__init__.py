"""Settings and where they come from, the log, Sentry, fail points. Not here: what opens a file of data or a connection."""
