"""List of places outside the database that may hold rows of a dataset: a further kind of files is one entry here.

Forget, purge and backup process all of them, as they process the tables (`warehouse/places.py`), and so do the tests that
search for data that must not exist. Exports are not a place: they belong to whoever downloaded them. Neither are files that the
platform may not change: remote inboxes, and existing backups.
"""

from __future__ import annotations

from mini_platform.operations.dropped_files import DROPPED_FILES
from mini_platform.operations.raw_files import RAW_FILES

FILES = [RAW_FILES, DROPPED_FILES]
"""Every kind of files."""
