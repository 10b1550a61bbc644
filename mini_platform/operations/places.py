"""Places outside of the database where a row of a dataset may stand: a further kind of files is one entry here.

Forget, purge and backup walk them, as they walk the tables (`warehouse/places.py`), and so do the tests that look for what must
not be there. Answers are no place: an export that somebody took is theirs. Nor is what is not ours to change: the folders of
others that are visited, and backups that were made.
"""

from __future__ import annotations

from mini_platform.operations.dropped_files import DROPPED_FILES
from mini_platform.operations.raw_files import RAW_FILES

FILES = [RAW_FILES, DROPPED_FILES]
"""Every kind of files."""
