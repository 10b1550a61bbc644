"""The secret of the web process, which encrypts cursors with personal data."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING

from mini_platform.config.settings import Settings
from mini_platform.rows.protection import load_or_create_secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


def secret(settings: Settings) -> str:
    """Return the secret: that of the settings, or that of a file, which is created with a random one."""
    configured = settings.web_secret
    return (
        configured.get_secret_value()
        if configured
        else load_or_create_secret(settings.home / "web.secret", secrets.token_hex(32))
    )


def cipher(settings: Settings) -> Fernet:
    """Return the cipher of cursors."""
    from cryptography.fernet import Fernet

    key = hashlib.sha256(f"cursors {secret(settings)}".encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
