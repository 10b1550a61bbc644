"""Every setting of the platform, in one place: environment variables first, then `.env` in the project's folder.

Nothing is read at import; call `load_settings()` where a setting is needed.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent
"""The project's folder: where workspace.yaml, dagster.yaml, `data/` and `.state/` are."""


class Settings(BaseSettings):
    """What can be set. Sizes are bytes, times are seconds unless a name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="MINI_PLATFORM_", env_file=PROJECT / ".env", extra="ignore")

    database_url: str | None = Field(None, validation_alias="DATABASE_URL")
    """Where Postgres is; None means the embedded server under `home`."""
    home: Path = Path(".state")
    """State that users never edit: raw files, the embedded database, Dagster's local artifacts, pid files."""
    data: Path = Path("data")
    """The watched folder; each dataset has its own drop folder in it."""
    host: str = "127.0.0.1"
    """Address that the web servers listen on. Nothing asks for a password: another one only inside a container."""
    api_port: int = 8000
    dagster_port: int = 3000

    pii_keys: SecretStr | None = None
    """Keys for the hashes of personal data: `id:secret,id:secret`, the one in use first. Without it a random one is made and
    kept in `home`."""

    lease_seconds: float = Field(30.0, gt=0)
    """How long a claim on a file outlives the last sign of life of the process that holds it."""
    max_attempts: int = Field(5, ge=1)
    """A file whose processing died this many times is marked failed and waits for a redrive."""
    batch_files: int = Field(1000, ge=1)
    """Files taken in one batch (one COPY, one load transaction)."""
    run_files: int = Field(5000, ge=1)
    """Files one run takes before it leaves the rest to the next run."""
    max_file_bytes: int = Field(20 * 2**30, gt=0)
    """A file that is larger than this, once unpacked, is refused."""
    max_ratio: int = Field(200, gt=1)
    """A compressed file that unpacks to more than this many times its own size is refused as a bomb."""
    max_field_bytes: int = Field(2**20, gt=0)
    """A row with a longer field is rejected."""
    max_record_bytes: int = Field(8 * 2**20, gt=0)
    """A longer row is rejected; nothing longer is ever held in memory."""

    @field_validator("home", "data", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """Relative folders are relative to the project, whatever the working directory is."""
        return value if value.is_absolute() else PROJECT / value

    @field_validator("database_url", mode="after")
    @classmethod
    def _psycopg2(cls, value: str | None) -> str | None:
        """Name the driver: a bare `postgresql://` resolves to another one in later versions of SQLAlchemy."""
        if not value:
            return None
        for scheme in ("postgres://", "postgresql://"):
            if value.startswith(scheme):
                return "postgresql+psycopg2://" + value.removeprefix(scheme)
        return value

    @property
    def raw_store(self) -> Path:
        """The folder of raw files, each named by its SHA-256."""
        return self.home / "raw"


def load_settings() -> Settings:
    """Read the settings now.

    Raises:
        pydantic.ValidationError: a variable holds a value that its setting does not allow.
    """
    return Settings()
