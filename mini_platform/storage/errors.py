"""Errors of the raw store and of inboxes."""

from __future__ import annotations


class NoRoomError(OSError):
    """The disk of the raw store is full, or a quota is used up."""


class RawStoreAwayError(Exception):
    """The bucket of the raw store cannot be used now; the message is a sentence. No file is at fault."""


class InboxError(Exception):
    """The inbox as a whole cannot be used now; the message is a sentence."""


class TransientInboxError(InboxError):
    """A temporary failure that is worth a retry: a dropped connection, a busy server."""


class ObjectError(Exception):
    """One file cannot be read, moved or removed; the message gives the reason as `it …`. Other files may still work."""


class ChangedError(ObjectError):
    """The file changed since it was listed."""


class GoneError(ObjectError):
    """The file no longer exists."""
