"""HTTPS of the web process: the certificate of the settings, also after it was renewed on disk, without a restart.

Not here: how the settings are read, who is believed to speak https for others (`MINI_PLATFORM_API_PROXIES`), the
connection to Postgres (`warehouse/tls.py`).
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from mini_platform.config.settings import Settings

log = logging.getLogger(__name__)


class CertificateError(ValueError):
    """The certificate or its key cannot be used; the message is a sentence that names the setting."""


def refusal(settings: Settings) -> str | None:
    """Why https cannot be served with these settings, as a sentence; None if it can, or is not asked for."""
    try:
        context(settings)
    except CertificateError as error:
        return str(error)
    return None


def context(settings: Settings) -> ssl.SSLContext | None:
    """What https is served with; None for http.

    Each handshake looks whether the files were changed, and is made with what they hold now. While they do not fit together,
    as in the midst of a renewal, the last that did is kept.

    Raises:
        CertificateError: they cannot be used from the start.
    """
    cert, key = settings.api_tls_cert, settings.api_tls_key
    if cert is None or key is None:
        return None
    first = current = _loaded(cert, key)
    seen = _state(cert, key)

    def renew(handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current, seen
        if (now := _state(cert, key)) != seen:
            seen = now
            try:
                current = _loaded(cert, key)
                log.info("The certificate was renewed.")
            except CertificateError as error:
                log.warning("The certificate was changed, and the one before is still used: %s", error)
        handshake.context = current

    first.sni_callback = renew  # called for clients that send no name, too
    return first


def _loaded(cert: Path, key: Path) -> ssl.SSLContext:
    for name, path in (("CERT", cert), ("KEY", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise CertificateError(f"MINI_PLATFORM_API_TLS_{name}: {path} cannot be read: {error.strerror}.") from None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        said = f"MINI_PLATFORM_API_TLS_KEY: {key} is not the key of {cert}"
        if getattr(error, "reason", "") != "KEY_VALUES_MISMATCH":
            said = (
                f"MINI_PLATFORM_API_TLS_CERT: {cert} and {key} are not a certificate and its key, unencrypted, in PEM"
            )
        raise CertificateError(f"{said}.") from error
    return made


def _state(*paths: Path) -> list[tuple[int, int] | None]:
    """What changes with a file: renewed ones are new ones, or other targets of a link."""
    return [(path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None for path in paths]
