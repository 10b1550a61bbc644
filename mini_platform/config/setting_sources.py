"""Sources of settings: the environment, files that it names, Docker's secrets, `.env`.

In all of them settings have the names of environment variables, so each is pydantic-settings' own source of such variables over
another mapping. Not here: the settings, and the order of their sources (`settings.py`); Vault (`vault.py`).

https://docs.pydantic.dev/latest/concepts/pydantic_settings/#customise-settings-sources
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from mini_platform.config.project import project

SUFFIX = "_file"
"""Suffix of variables that name the file with the value of a setting."""
SECRETS = Path("/run/secrets")
"""Folder in which Docker, Podman and Kubernetes' usual manifests put secrets, each as a file."""
MAX_BYTES = 64 * 2**10
"""Maximum size of a file with a setting."""


class SourceError(RuntimeError):
    """A setting cannot be read from its source; the message is a sentence, and never contains a secret."""


@dataclass(frozen=True)
class ResolvedSetting:
    """The text of a setting, and a description of the place that it comes from."""

    value: str = field(repr=False)
    place: str


class Variables(EnvSettingsSource):
    """A source of settings by the names of environment variables, in any case, over a mapping."""

    def __init__(self, settings_cls: type[BaseSettings], resolved: Mapping[str, ResolvedSetting]) -> None:
        """Use these settings, by names in lower case."""
        super().__init__(settings_cls)
        self.resolved = resolved
        self.env_vars = {name: item.value for name, item in resolved.items()}

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """Return the value as the base class does; the error names the variable without its value.

        Raises:
            SourceError: the value should be JSON, and is not.
        """
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError:
            variable = self._extract_field_info(field, field_name)[0][1].upper()
            raise SourceError(f"{variable} is not valid: it should be JSON; .env.example shows its form.") from None

    def setting(self, variable: str) -> FieldInfo | None:
        """Return the setting, or the part of one, that a variable of this name sets; None if there is none."""
        head, *keys = variable.lower().split(self.env_nested_delimiter or "\0")
        for name, info in self.settings_cls.model_fields.items():
            if any(head == known for _, known, _ in self._extract_field_info(info, name)):
                part: FieldInfo | None = info
                for key in keys:
                    part = self.next_field(part, key, self.case_sensitive)
                return part if isinstance(part, FieldInfo) else None
        return None


class Sources(NamedTuple):
    """Every source, in the order of precedence."""

    environment: Variables
    files: Variables
    secrets: Variables
    vault: Variables
    dotenv: Variables
    dotenv_files: Variables
    running: Variables


def local(settings_cls: type[BaseSettings]) -> Sources:
    """Read the sources on this machine now; those of Vault and of the running platform are empty.

    Raises:
        SourceError: a file that a variable names, or a secret, cannot be read.
    """
    probe = Variables(settings_cls, {})
    environment, files = _split_files(probe, EnvSettingsSource(settings_cls).env_vars, "the environment")
    dotenv, dotenv_files = _split_files(probe, dotenv_variables(settings_cls), ".env")
    folder = environment.get("mini_platform_secrets_dir") or dotenv.get("mini_platform_secrets_dir")
    secrets = _secrets(probe, project().folder / folder.value if folder else SECRETS)
    return Sources(
        *(Variables(settings_cls, values) for values in (environment, files, secrets, {}, dotenv, dotenv_files, {}))
    )


def dotenv_variables(settings_cls: type[BaseSettings]) -> Mapping[str, str | None]:
    """Return the variables of the project's `.env`, by names in lower case."""
    return DotEnvSettingsSource(settings_cls, env_file=project().folder / ".env").env_vars


def _split_files(
    probe: Variables, variables: Mapping[str, str | None], place: str
) -> tuple[dict[str, ResolvedSetting], dict[str, ResolvedSetting]]:
    """Return the variables that contain a value, and those that name a file, these with the file's content."""
    values, files = {}, {}
    for name, value in variables.items():
        setting = name.removesuffix(SUFFIX)
        if value is None:
            continue
        if setting != name and probe.setting(name) is None and probe.setting(setting):
            if value:  # Compose passes variables that are not set as empty ones.
                path = project().folder / Path(value).expanduser()
                files[setting] = ResolvedSetting(
                    content(path, f"{name.upper()} names it"), f"{path}, by {name.upper()} in {place}"
                )
        else:
            values[name] = ResolvedSetting(value, place)
    return values, files


def _secrets(probe: Variables, folder: Path) -> dict[str, ResolvedSetting]:
    """Return the files of a folder that have the name of a setting; those of other programs are ignored."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SourceError(f"The folder of secrets {folder} cannot be read: {error.strerror}.") from None
    settings = {path.name.lower(): path for path in paths if probe.setting(path.name)}
    return {name: ResolvedSetting(content(path, "it is a secret"), str(path)) for name, path in settings.items()}


def content(path: Path, reason: str) -> str:
    """Return a file's text, without white space around it.

    Raises:
        SourceError: the file is missing, unreadable, empty, too long or not text.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode().strip()
    except OSError as error:
        raise SourceError(f"The file {path} cannot be read ({reason}): {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SourceError(f"The file {path} is not UTF-8 text ({reason}).") from None
    if not text:
        raise SourceError(f"The file {path} is empty ({reason}).")
    if len(text.encode()) > MAX_BYTES:
        raise SourceError(f"The file {path} is too long for a setting ({reason}).")
    return text
