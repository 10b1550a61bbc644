"""The connection to an inbox, by the scheme of its address; what a protocol needs is imported with it."""

from __future__ import annotations

from mini_platform.storage.remote import Inbox, Remote


def connect(inbox: Inbox) -> Remote:
    """A connection to an inbox, made when it is first needed.

    Raises:
        InboxError: a setting does not allow it.
    """
    if inbox.scheme == "s3":
        from mini_platform.storage.remote_s3 import S3  # Brings botocore and aiohttp.

        return S3(inbox)
    if inbox.scheme == "file":
        from mini_platform.storage.remote_folder import Folder

        return Folder(inbox)
    from mini_platform.storage.remote_sftp import Sftp  # Brings asyncssh.

    return Sftp(inbox)
