"""Settings from a HashiCorp Vault, or an OpenBao: one secret of its KV engine, version 2, by a token or an AppRole.

Two documented calls, by the HTTP client that is here anyway: hvac, Vault's client for Python, would bring a second one
(requests) and its own errors for them.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version
https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle
"""

from __future__ import annotations

import json
import re
import ssl
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mini_platform.config.setting_sources import PROJECT, ResolvedSetting, SourceError, local

if TYPE_CHECKING:
    import httpx

TRIES = 3
"""Of a call that is not answered, or by a server that cannot answer now."""
PASSING = {412, 429, 500, 502, 503, 504}
"""Answers after which it is asked again; 503 is a sealed Vault, also one that is just being unsealed."""


class VaultError(SourceError):
    """Vault does not give the settings; the message is a sentence that says what to do."""


class VaultSettings(BaseSettings):
    """How Vault is reached, by the names that its own tools use; from everywhere that other settings come from but Vault."""

    model_config = SettingsConfigDict(
        env_prefix="VAULT_", env_file=PROJECT / ".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    addr: str = ""
    """Its URL, such as `https://vault.example.com:8200`; without one it is not asked."""
    token: SecretStr | None = None
    role_id: SecretStr | None = None
    """Of an AppRole, with `secret_id`, instead of a token. Every process logs in: the id must be good for many uses."""
    secret_id: SecretStr | None = None
    namespace: str = ""
    cacert: Path | None = None
    """Certificates, as a PEM file, by which Vault's is trusted; without it those of this machine."""
    mount: str = "secret"
    """Where the KV engine is mounted."""
    path: str = "mini-platform"
    """Of the secret, whose keys are names of settings."""
    client_timeout: float = Field(5.0, gt=0)
    """Seconds that one call may take."""

    @field_validator("addr")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not re.fullmatch(r"(https?://[^@\s]+)?", value):
            raise ValueError("it should look like https://vault.example.com:8200")
        return value

    @field_validator("token", "namespace")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value() if isinstance(value, SecretStr) else value or ""):
            raise ValueError("it should be printable ASCII without spaces")
        return value

    @field_validator("client_timeout", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        """Vault's own tools write `60s`."""
        return value.removesuffix("s") if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """From this machine only."""
        return init_settings, *local(settings_cls)


def settings_in_vault() -> dict[str, ResolvedSetting]:
    """What Vault holds, by names in lower case; nothing without VAULT_ADDR. A process asks once.

    Raises:
        VaultError: it cannot be had.
        SourceError: how Vault is reached cannot be read.
    """
    settings = VaultSettings()
    if not settings.addr:
        return {}
    place = f"Vault, {settings.mount}/{settings.path} at {settings.addr}"
    return {name.lower(): ResolvedSetting(value, place) for name, value in _secret(settings).items()}


@cache
def _secret(settings: VaultSettings) -> dict[str, str]:
    import httpx

    headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": settings.namespace} if settings.namespace else {})
    try:
        trusted_by = ssl.create_default_context(cafile=settings.cacert)
    except OSError as error:  # also ssl.SSLError, of a file without certificates
        raise VaultError(
            f"VAULT_CACERT names {settings.cacert}, which cannot be read: {error.strerror or error}."
        ) from None
    # Nothing of the environment: a proxy would be given the token.
    with httpx.Client(headers=headers, timeout=settings.client_timeout, verify=trusted_by, trust_env=False) as client:
        client.headers["X-Vault-Token"] = _token(client, settings)
        where = f"{settings.mount.strip('/')}/data/{settings.path.strip('/')}"
        answer = _request(client, settings, "GET", where)
    if answer.status_code == 404:
        raise VaultError(
            f"Vault has nothing at {where}, or its version is deleted: check VAULT_MOUNT (a KV engine of version 2) and "
            "VAULT_PATH, or write it with `vault kv put`."
        )
    if answer.status_code == 403:
        raise VaultError(
            f"Vault denies reading {where}: check that VAULT_TOKEN is valid, or the policies of the AppRole, VAULT_NAMESPACE "
            "and VAULT_MOUNT."
        )
    found = _part(answer, "data")
    if not isinstance(found.get("data"), dict) or "metadata" not in found:
        raise VaultError(
            f"What Vault has at {where} is not of a KV engine of version 2: check VAULT_MOUNT and VAULT_ADDR."
        )
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found["data"].items()}


def _token(client: httpx.Client, settings: VaultSettings) -> str:
    if settings.token:
        return settings.token.get_secret_value()
    if not settings.role_id or not settings.secret_id:
        raise VaultError("VAULT_ADDR is set, but neither VAULT_TOKEN nor VAULT_ROLE_ID with VAULT_SECRET_ID: set them.")
    login = {"role_id": settings.role_id.get_secret_value(), "secret_id": settings.secret_id.get_secret_value()}
    answer = _request(client, settings, "POST", "auth/approle/login", login)
    if answer.status_code in (400, 403, 404):
        raise VaultError(
            "Vault refuses the login by AppRole: check VAULT_ROLE_ID and VAULT_SECRET_ID (which may be used up or expired), "
            "VAULT_NAMESPACE, and that `approle` is enabled."
        )
    token = _part(answer, "auth").get("client_token")
    if not isinstance(token, str):
        raise VaultError(f"What answers at VAULT_ADDR ({settings.addr}) is no Vault: its login gives no token.")
    return token


def _part(answer: httpx.Response, name: str) -> dict[str, Any]:
    """An object in the answer; an empty one, where something else answers than Vault."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _request(
    client: httpx.Client, settings: VaultSettings, method: str, path: str, body: dict[str, str] | None = None
) -> httpx.Response:
    """A call's answer; the last one, where it cannot be answered now."""
    import httpx
    from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_attempt, wait_random_exponential

    trying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.5, max=3),
        retry=retry_if_exception_type(httpx.TransportError) | retry_if_result(lambda a: a.status_code in PASSING),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    try:
        answer: httpx.Response = trying(
            client.request, method, f"{settings.addr.rstrip('/')}/v1/{path.strip('/')}", json=body
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
        raise VaultError(
            f"Vault cannot be reached at {settings.addr}: {reason}. Check VAULT_ADDR and VAULT_CACERT."
        ) from None
    if answer.status_code == 503:
        raise VaultError(f"Vault at {settings.addr} is sealed, or not ready: unseal it (`vault operator unseal`).")
    if answer.status_code not in (200, 400, 403, 404):
        raise VaultError(
            f"Vault at {settings.addr} answers HTTP {answer.status_code}: see its log, and check VAULT_ADDR."
        )
    return answer
