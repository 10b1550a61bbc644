"""The secret of the web servers: it encrypts cursors with personal data, and identifies the platform's own processes.

All of them read it from the settings or from the home, which containers share.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mini_platform.config.settings import Settings
from mini_platform.rows.protection import load_or_create_secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

OWN = "x-mini-platform-process"


def secret(settings: Settings) -> str:
    """Return the secret: that of the settings, or that of a file, which is created with a random one."""
    configured = settings.web_secret
    return (
        configured.get_secret_value()
        if configured
        else load_or_create_secret(settings.home / "web.secret", secrets.token_hex(32))
    )


def own_headers(settings: Settings) -> Mapping[str, str]:
    """Return the headers by which Dagster's web server recognizes requests of the platform's own processes."""
    return {OWN: hmac.digest(secret(settings).encode(), b"own process", "sha256").hex()}


def is_own(settings: Settings, headers: Mapping[str, str]) -> bool:
    """Return True if the headers of a request are `own_headers`."""
    return OWN in headers and hmac.compare_digest(headers[OWN].encode(), own_headers(settings)[OWN].encode())


def cipher(settings: Settings) -> Fernet:
    """Return the cipher of cursors."""
    from cryptography.fernet import Fernet

    key = hashlib.sha256(f"cursors {secret(settings)}".encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
