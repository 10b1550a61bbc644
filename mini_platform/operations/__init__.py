"""Every use case as a function: what a command, a page, an asset or a notebook asks for. No Dagster, no HTTP, no printing."""
