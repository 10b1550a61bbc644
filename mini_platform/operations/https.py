"""HTTPS of the web process: serve the certificate of the settings, and reload it without a restart when it is renewed.

Not here: how the settings are read, the proxies that are trusted to terminate https (`MINI_PLATFORM_API_PROXIES`), the
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
    """Return why https cannot be served with these settings, as a sentence; None if it can, or is not configured."""
    try:
        context(settings)
    except CertificateError as error:
        return str(error)
    return None


def context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context that https is served with; None for http.

    Each handshake checks whether the files have changed, and uses their current content. While certificate and key do not
    match, as in the middle of a renewal, the last valid pair stays in use.

    Raises:
        CertificateError: the certificate or the key cannot be used.
    """
    cert, key = settings.api_tls_cert, settings.api_tls_key
    if cert is None or key is None:
        return None
    first = current = _load_context(cert, key)
    last_state = _state(cert, key)

    def renew(handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current, last_state
        if (state := _state(cert, key)) != last_state:
            last_state = state
            try:
                current = _load_context(cert, key)
                log.info("The certificate was renewed.")
            except CertificateError as error:
                log.warning("The certificate was changed but cannot be used; the previous one stays in use: %s", error)
        handshake.context = current

    first.sni_callback = renew  # Called for clients that send no name, too.
    return first


def _load_context(cert: Path, key: Path) -> ssl.SSLContext:
    for name, path in (("CERT", cert), ("KEY", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise CertificateError(f"MINI_PLATFORM_API_TLS_{name}: {path} cannot be read: {error.strerror}.") from None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        tls.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        message = f"MINI_PLATFORM_API_TLS_KEY: {key} is not the key of {cert}"
        if getattr(error, "reason", "") != "KEY_VALUES_MISMATCH":
            message = (
                f"MINI_PLATFORM_API_TLS_CERT: {cert} and {key} are not a certificate and its key, unencrypted, in PEM"
            )
        raise CertificateError(f"{message}.") from error
    return tls


def _state(*paths: Path) -> list[tuple[int, int] | None]:
    """Return what identifies the content of files: a renewal creates new files, or changes the target of a link."""
    return [(path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None for path in paths]
