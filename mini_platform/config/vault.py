"""Settings from a HashiCorp Vault, or an OpenBao: one secret of its KV engine, version 2, by a token or an AppRole.

It takes two documented calls, with the HTTP client that the platform already uses: hvac, Vault's client for Python, would add a
second one (requests) with its own errors.

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

from mini_platform.config.setting_sources import ResolvedSetting, SourceError, local

if TYPE_CHECKING:
    import httpx

TRIES = 3
"""Maximum number of requests for a call that gets no response, or one of `RETRIED_STATUSES`."""
RETRIED_STATUSES = {412, 429, 500, 502, 503, 504}
"""Statuses after which a call is retried; 503 is a sealed Vault, also one that is just being unsealed."""


class VaultError(SourceError):
    """The settings cannot be read from Vault; the message says what to do."""


class VaultSettings(BaseSettings):
    """The connection to Vault: variables with the names that its own tools use, from all sources of settings but Vault."""

    model_config = SettingsConfigDict(env_prefix="VAULT_", extra="ignore", frozen=True, hide_input_in_errors=True)

    addr: str = ""
    """URL of Vault, such as `https://vault.example.com:8200`; without one Vault is not used."""
    token: SecretStr | None = None
    role_id: SecretStr | None = None
    """Role id of an AppRole, with `secret_id`, instead of a token. Every process logs in: the secret id must be reusable."""
    secret_id: SecretStr | None = None
    namespace: str = ""
    cacert: Path | None = None
    """PEM file with the certificates to trust for Vault; by default those of this machine."""
    mount: str = "secret"
    """Mount path of the KV engine."""
    path: str = "mini-platform"
    """Path of the secret, whose keys are names of settings."""
    client_timeout: float = Field(5.0, gt=0)
    """Timeout of one call, in seconds."""

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
        """Return the value without the unit of `60s`, the form that Vault's own tools use."""
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
        """Return the sources on this machine, without Vault."""
        return init_settings, *local(settings_cls)


def settings_in_vault() -> dict[str, ResolvedSetting]:
    """Return the settings in Vault, by names in lower case; empty without VAULT_ADDR. A process reads them once.

    Raises:
        VaultError: the secret cannot be read.
        SourceError: the settings of Vault itself cannot be read.
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
        ssl_context = ssl.create_default_context(cafile=settings.cacert)
    except OSError as error:  # also ssl.SSLError, for a file without certificates
        raise VaultError(
            f"VAULT_CACERT names {settings.cacert}, which cannot be read: {error.strerror or error}."
        ) from None
    # The environment is ignored: a proxy that it names would receive the token.
    with httpx.Client(headers=headers, timeout=settings.client_timeout, verify=ssl_context, trust_env=False) as client:
        client.headers["X-Vault-Token"] = _token(client, settings)
        secret_path = f"{settings.mount.strip('/')}/data/{settings.path.strip('/')}"
        response = _request(client, settings, "GET", secret_path)
    if response.status_code == 404:
        raise VaultError(
            f"Vault has nothing at {secret_path}, or its version is deleted: check VAULT_MOUNT (a KV engine of version 2) and "
            "VAULT_PATH, or write it with `vault kv put`."
        )
    if response.status_code == 403:
        raise VaultError(
            f"Vault denies reading {secret_path}: check that VAULT_TOKEN is valid, or the policies of the AppRole, "
            "VAULT_NAMESPACE and VAULT_MOUNT."
        )
    secret = _part(response, "data")
    if not isinstance(secret.get("data"), dict) or "metadata" not in secret:
        raise VaultError(
            f"What Vault has at {secret_path} is not of a KV engine of version 2: check VAULT_MOUNT and VAULT_ADDR."
        )
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in secret["data"].items()}


def _token(client: httpx.Client, settings: VaultSettings) -> str:
    if settings.token:
        return settings.token.get_secret_value()
    if not settings.role_id or not settings.secret_id:
        raise VaultError("VAULT_ADDR is set, but neither VAULT_TOKEN nor VAULT_ROLE_ID with VAULT_SECRET_ID: set them.")
    login = {"role_id": settings.role_id.get_secret_value(), "secret_id": settings.secret_id.get_secret_value()}
    response = _request(client, settings, "POST", "auth/approle/login", login)
    if response.status_code in (400, 403, 404):
        raise VaultError(
            "Vault refuses the login by AppRole: check VAULT_ROLE_ID and VAULT_SECRET_ID (which may be used up or expired), "
            "VAULT_NAMESPACE, and that `approle` is enabled."
        )
    token = _part(response, "auth").get("client_token")
    if not isinstance(token, str):
        raise VaultError(f"The server at VAULT_ADDR ({settings.addr}) is not Vault: its login returns no token.")
    return token


def _part(response: httpx.Response, name: str) -> dict[str, Any]:
    """Return an object in the response; an empty one if the response is not one of Vault."""
    try:
        body = response.json()
    except ValueError:
        return {}
    part = body.get(name) if isinstance(body, dict) else None
    return part if isinstance(part, dict) else {}


def _request(
    client: httpx.Client, settings: VaultSettings, method: str, path: str, body: dict[str, str] | None = None
) -> httpx.Response:
    """Make a call, with retries, and return its response.

    Raises:
        VaultError: Vault cannot be reached, is sealed, or returns an unexpected status.
    """
    import httpx
    from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.5, max=3),
        retry=retry_if_exception_type(httpx.TransportError)
        | retry_if_result(lambda r: r.status_code in RETRIED_STATUSES),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    try:
        response: httpx.Response = retrying(
            client.request, method, f"{settings.addr.rstrip('/')}/v1/{path.strip('/')}", json=body
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
        raise VaultError(
            f"Vault cannot be reached at {settings.addr}: {reason}. Check VAULT_ADDR and VAULT_CACERT."
        ) from None
    if response.status_code == 503:
        raise VaultError(f"Vault at {settings.addr} is sealed, or not ready: unseal it (`vault operator unseal`).")
    if response.status_code not in (200, 400, 403, 404):
        raise VaultError(
            f"Vault at {settings.addr} answers HTTP {response.status_code}: see its log, and check VAULT_ADDR."
        )
    return response
