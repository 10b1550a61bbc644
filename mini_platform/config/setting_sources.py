"""Where settings come from: the environment, files that it names, Docker's secrets, `.env`.

Everywhere they have the names of environment variables, so each place is pydantic-settings' own source of such variables over
another mapping. Not here: which settings there are, and their order (`settings.py`); Vault (`vault.py`).

https://docs.pydantic.dev/latest/concepts/pydantic_settings/#customise-settings-sources
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

PROJECT = Path(__file__).resolve().parent.parent.parent
"""The project's folder: where workspace.yaml, dagster.yaml, `data/` and `.state/` are."""
SUFFIX = "_file"
"""A variable so named says in which file the value of the setting is."""
SECRETS = Path("/run/secrets")
"""Where Docker, Podman and Kubernetes' usual manifests put secrets, each as a file."""
MOST_BYTES = 64 * 2**10
"""A file that is longer holds no setting."""


class SourceError(RuntimeError):
    """A setting cannot be had from where it should come from; the message is a sentence, and never holds a secret."""


@dataclass(frozen=True)
class ResolvedSetting:
    """A setting's text, and the place that it comes from, in words."""

    value: str = field(repr=False)
    place: str


class Variables(EnvSettingsSource):
    """Settings by the names of environment variables, whatever their case, from anywhere."""

    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, ResolvedSetting]) -> None:
        """Take what is given, by names in lower case."""
        super().__init__(settings_cls)
        self.given = given
        self.env_vars = {name: item.value for name, item in given.items()}

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """As the class above, but the error names the variable, and does not carry its value.

        Raises:
            SourceError: it should be JSON.
        """
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError:
            variable = self._extract_field_info(field, field_name)[0][1].upper()
            raise SourceError(f"{variable} is not valid: it should be JSON; .env.example shows how it looks.") from None

    def setting(self, variable: str) -> FieldInfo | None:
        """The setting, or the part of one, that is set by a variable of this name."""
        head, *keys = variable.lower().split(self.env_nested_delimiter or "\0")
        for name, info in self.settings_cls.model_fields.items():
            if any(head == known for _, known, _ in self._extract_field_info(info, name)):
                found: FieldInfo | None = info
                for key in keys:
                    found = self.next_field(found, key, self.case_sensitive)
                return found if isinstance(found, FieldInfo) else None
        return None


class Sources(NamedTuple):
    """Every source by itself, in the order in which they count."""

    environment: Variables
    files: Variables
    secrets: Variables
    vault: Variables
    dotenv: Variables
    dotenv_files: Variables


def local(settings_cls: type[BaseSettings]) -> Sources:
    """Read what this machine says, now; of Vault nothing.

    Raises:
        SourceError: a file that a variable names, or a secret, cannot be read.
    """
    probe = Variables(settings_cls, {})
    environment, files = _told_apart(probe, EnvSettingsSource(settings_cls).env_vars, "the environment")
    dotenv, dotenv_files = _told_apart(probe, DotEnvSettingsSource(settings_cls).env_vars, ".env")
    folder = environment.get("mini_platform_secrets_dir") or dotenv.get("mini_platform_secrets_dir")
    secrets = _secrets(probe, PROJECT / folder.value if folder else SECRETS)
    return Sources(
        *(Variables(settings_cls, given) for given in (environment, files, secrets, {}, dotenv, dotenv_files))
    )


def _told_apart(
    probe: Variables, variables: Mapping[str, str | None], place: str
) -> tuple[dict[str, ResolvedSetting], dict[str, ResolvedSetting]]:
    """Variables that hold a value, and those that name a file that does; the latter with the file's content."""
    values, files = {}, {}
    for name, value in variables.items():
        setting = name.removesuffix(SUFFIX)
        if value is None:
            continue
        if setting != name and probe.setting(name) is None and probe.setting(setting):
            if value:  # as compose passes on what is not set
                path = PROJECT / Path(value).expanduser()
                files[setting] = ResolvedSetting(
                    content(path, f"{name.upper()} names it"), f"{path}, by {name.upper()} in {place}"
                )
        else:
            values[name] = ResolvedSetting(value, place)
    return values, files


def _secrets(probe: Variables, folder: Path) -> dict[str, ResolvedSetting]:
    """The files of a folder that have the name of a setting; those of other programs are left alone."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SourceError(f"The folder of secrets {folder} cannot be read: {error.strerror}.") from None
    found = {path.name.lower(): path for path in paths if probe.setting(path.name)}
    return {name: ResolvedSetting(content(path, "it is a secret"), str(path)) for name, path in found.items()}


def content(path: Path, why: str) -> str:
    """A file's text, without space around it.

    Raises:
        SourceError: it is missing, unreadable, empty, too long or no text.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode().strip()
    except OSError as error:
        raise SourceError(f"The file {path} cannot be read ({why}): {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SourceError(f"The file {path} is no text in UTF-8 ({why}).") from None
    if not text:
        raise SourceError(f"The file {path} is empty ({why}).")
    if len(text.encode()) > MOST_BYTES:
        raise SourceError(f"The file {path} is too long for a setting ({why}).")
    return text
