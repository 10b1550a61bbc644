"""The connection to an inbox, by the scheme of its address; the libraries of a protocol are imported with it."""

from __future__ import annotations

from mini_platform.config.extras import require
from mini_platform.storage.errors import InboxError
from mini_platform.storage.remote import Inbox, Remote


def connect(inbox: Inbox) -> Remote:
    """Return a connection to an inbox, opened on first use.

    Raises:
        InboxError: a setting is not valid, or needs an extra that is not installed.
    """
    if inbox.scheme == "file":
        from mini_platform.storage.remote_folder import Folder

        return Folder(inbox)
    require(inbox.scheme, inbox.setting("url"), InboxError)
    if inbox.scheme == "s3":
        from mini_platform.storage.remote_s3 import S3  # Imports botocore and aiohttp.

        return S3(inbox)
    from mini_platform.storage.remote_sftp import Sftp  # Imports asyncssh.

    return Sftp(inbox)
