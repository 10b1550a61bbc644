"""All settings of the platform.

If a setting has several values, the first of these sources counts: a variable of the environment; a file that one names, as
`DATABASE_URL_FILE`; Docker's secrets; Vault; `.env` in the project's folder; for ports, those that the running platform uses.

Nothing is read at import; call `load_settings()` where a setting is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mini_platform.config import setting_sources
from mini_platform.config.project import project
from mini_platform.config.running import running
from mini_platform.config.sections import Ingestion, Limits, Locations, Notifications, RetentionSettings, Web
from mini_platform.config.setting_sources import ResolvedSetting, Sources, Variables
from mini_platform.config.vault import VaultSettings, settings_in_vault

PREFIX = "MINI_PLATFORM_"
"""Beginning of the names of variables of settings."""
HOME, DEFAULT_HOME = f"{PREFIX}HOME".lower(), str(Locations.model_fields["home"].default)


class Settings(Ingestion, Limits, RetentionSettings, Notifications, Web, Locations, BaseSettings):
    """The settings of the platform."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="ignore",
        hide_input_in_errors=True,  # it may be a password
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in the order of precedence."""
        return init_settings, *sources(settings_cls)

    @property
    def raw_store(self) -> Path:
        """Return the folder of raw files, each named by its SHA-256; with a bucket, of copies that are removed later."""
        return self.home / ("raw-copies" if self.raw_url else "raw")


def sources(settings_cls: type[BaseSettings] = Settings) -> Sources:
    """Return every source with its values.

    Raises:
        SourceError: a source cannot be read.
    """
    chosen = setting_sources.local(settings_cls)._replace(vault=Variables(settings_cls, settings_in_vault()))
    home = next((str(source.resolved[HOME].value) for source in chosen if HOME in source.resolved), DEFAULT_HOME)
    return chosen._replace(running=Variables(settings_cls, _ports(project().folder / home)))


def is_set(name: str) -> bool:
    """Return True if somebody has set a setting, in whatever source; the ports of a running platform do not count.

    Raises:
        SourceError: a source cannot be read.
    """
    *set_by_user, _ = sources()
    return any(f"{PREFIX}{name}".lower() in source.resolved for source in set_by_user)


def _ports(home: Path) -> dict[str, ResolvedSetting]:
    """Return the ports of the running platform."""
    platform = running(home)
    place = f"the platform that runs (process {platform.pid})" if platform else ""
    return {name.lower(): ResolvedSetting(port, place) for name, port in (platform.ports if platform else {}).items()}


def invalid(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the variables whose values are not allowed, each with the reason; never a value, which may be a password."""
    prefix = "VAULT_" if error.title == VaultSettings.__name__ else PREFIX
    whole = {str(info.validation_alias) for info in Settings.model_fields.values()}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        name = "__".join(map(str, item["loc"])).upper()
        yield name if name in whole or name.startswith(prefix) else prefix + name, item["msg"]


def load_settings() -> Settings:
    """Read and return the settings.

    Raises:
        pydantic.ValidationError: a variable has a value that its setting does not allow.
        SourceError: a source of settings cannot be read, such as a file that is missing, or a sealed Vault.
    """
    return Settings()
