"""What a place may say instead of bytes."""

from __future__ import annotations


class NoRoomError(OSError):
    """The disk that raw files are kept on is full, or a quota is used up."""


class RawStoreAwayError(Exception):
    """The bucket that raw files are kept in cannot be used now; the message is a sentence. No file is at fault."""


class InboxError(Exception):
    """The inbox as a whole cannot be used now; the message is a sentence."""


class ShakyError(InboxError):
    """It may work when asked again: a dropped connection, a server that is busy."""


class ObjectError(Exception):
    """One file cannot be had or tidied; the message says why, in the form `it …`. Others may."""


class ChangedError(ObjectError):
    """It is not the file any more that was listed."""


class GoneError(ObjectError):
    """It is not there any more."""
