"""The settings by what they are about. `settings.py` puts them together: their names are flat, as variables are.

Sizes are bytes, times are seconds unless a name says otherwise.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from mini_platform.config.setting_sources import PROJECT, SECRETS

CRON_FIELDS = 5
INTERVAL_SECONDS = (60, 86_400)
"""A schedule has the grain of a minute; for less often than once a day a cron expression says the time of the day."""


def split_address(url: str) -> SplitResult:
    """Take the URL of an inbox apart: it has neither query nor fragment, and `?` and `#` are letters of its path."""
    return urlsplit(re.sub("[?#]", lambda mark: quote(mark[0]), url))


class ApiSourceSettings(BaseModel):
    """Where a source is: `MINI_PLATFORM_API_SOURCE__<DATASET>_<SOURCE>__URL` and so on."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    url: str | None = None
    """Of the first page. Without one, neither here nor in the declaration, the source is not synced."""
    header: SecretStr | None = None
    """A header with credentials, such as `Authorization: Bearer …`; only the URL's own host is sent it."""

    @field_validator("url")
    @classmethod
    def _asked_whole(cls, value: str | None) -> str | None:
        if value and "#" in value:
            raise ValueError("what follows a # is never sent to a server: write %23 where it belongs to the address")
        return value

    @field_validator("header")
    @classmethod
    def _named(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            name, _, content = value.get_secret_value().partition(":")
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\x20-\x7e]+", content):
                raise ValueError("it should look like `Name: value`")
        return value


class S3Settings(BaseModel):
    """Where an S3 server is and how to get in. Without keys, those that the environment gives as for other tools of AWS."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    endpoint: str | None = None
    """URL of the server; without it AWS."""
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    """Of credentials that expire."""


class InboxSettings(S3Settings):
    """A remote inbox: `MINI_PLATFORM_INBOX__<DATASET>__URL` and so on, of further ones `…__<DATASET>_<NAME>__URL`."""

    url: str | None = None
    """`s3://bucket/prefix`, `sftp://user@host/path` or `file:///folder`; `#` and `?` are letters as any other."""
    password: SecretStr | None = None
    """Of the SFTP user."""
    key_file: Path | None = None
    """Private key of the SFTP user."""
    key_passphrase: SecretStr | None = None
    known_hosts: Path = Path("~/.ssh/known_hosts")
    """Host keys of SFTP servers; a server that is not in it is not talked to."""
    after: Literal["keep", "archive", "delete"] = "keep"
    """What becomes of a file once the ledger says that it is loaded or refused: it stays; it is moved to `processed/` or, with
    its rejects beside it, to `quarantine/`; it is removed."""
    every: float = Field(10.0, ge=1)
    """Seconds between two looks at it."""

    @field_validator("url")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = split_address(value)
            parts.port  # noqa: B018 - raises where it is no number
        except ValueError:
            raise ValueError("it is no URL") from None
        where = parts.path.strip("/") and not parts.netloc if parts.scheme == "file" else parts.netloc
        if parts.scheme not in ("s3", "sftp", "file") or not where:
            raise ValueError("it should look like s3://bucket/prefix, sftp://user@host/path or file:///folder")
        if not value.isprintable():
            raise ValueError("it has characters that cannot be seen: write them as %09 and the like")
        if parts.password is not None or (parts.scheme == "s3" and "@" in parts.netloc):
            raise ValueError("it has credentials in it: give them by the settings beside it")
        if parts.scheme == "sftp" and not parts.username:
            raise ValueError("it should name the user: sftp://user@host/path")
        return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def between_commas(value: str) -> list[str]:
    """The words of a setting that takes several."""
    return [word.strip() for word in value.split(",") if word.strip()]


def absolute(value: Path | None) -> Path | None:
    """Take relative paths from the project, whatever the working directory is."""
    return value if value is None or value.is_absolute() else PROJECT / value


class Places(BaseModel):
    """Where things are: state, dropped files, declarations, the database."""

    secrets_dir: Path = SECRETS
    """Docker's secrets: files by the names of the variables, in any case."""
    database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    """Where Postgres is; None means the embedded server under `home`."""
    home: Path = Path(".state")
    """State that users never edit: raw files, the embedded database, Dagster's local artifacts, pid files."""
    data: Path = Path("data")
    """The watched folder; each dataset has its own drop folder in it."""
    datasets: str = "mini_platform.datasets"
    """Where datasets are declared: a package by its name, or a folder by its path, which has a / in it."""

    _absolute_folders = field_validator("home", "data", mode="after")(absolute)

    @field_validator("datasets", mode="after")
    @classmethod
    def _place(cls, value: str) -> str:
        """Bring the path of a folder into one form; the name of a package stays as it is."""
        if "/" in value:
            return str((PROJECT / Path(value).expanduser()).resolve())
        if not all(part.isidentifier() for part in value.split(".")):
            raise ValueError("it should be the name of a package, or the path of a folder with a / in it")
        return value

    @field_validator("database_url", mode="after")
    @classmethod
    def _psycopg2(cls, value: SecretStr | None) -> SecretStr | None:
        """Name the driver: a bare `postgresql://` resolves to another one in later versions of SQLAlchemy.

        Raises:
            ValueError: it cannot be taken apart. A part of the password would be taken for something that errors show.
        """
        if not value:
            return None
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        url = re.sub("^postgres(ql)?://", "postgresql+psycopg2://", value.get_secret_value())
        try:
            make_url(url)
        except (ArgumentError, ValueError):
            raise ValueError("it should look like postgresql://user:password@host/database") from None
        if url.partition("?")[0].count("@") > 1:
            raise ValueError("in its password, write @ as %40, / as %2F and % as %25")
        return SecretStr(url)


class Web(BaseModel):
    """The web servers: where they listen, who is let in, and how much may be asked."""

    host: str = "127.0.0.1"
    """Address that the web servers listen on. Dagster asks for no password: another one only inside a container."""
    api_port: int = 8000
    """Of the API and the dashboard."""
    api_auth: Literal["auto", "always"] = "auto"
    """When the API and the dashboard ask for a key: off loopback, or always."""
    api_hosts: str = ""
    """Names that they may be asked by, between commas, besides those of loopback; off loopback, without it, any name."""
    api_origins: str = ""
    """Other sites whose pages may use the API, between commas, such as `https://example.com`."""
    api_proxies: str = ""
    """Addresses and networks of proxies that are believed whom they ask for (X-Forwarded-For, X-Forwarded-Proto), between
    commas; of nobody else are these headers believed."""
    public_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    """Where people find the dashboard, for links in alerts and in Dagster, such as `https://data.example.com`; by default its
    address on this machine."""
    api_tls_cert: Path | None = None
    """Certificate of the API and the dashboard with the chain that signed it, PEM: they speak https then, and only that."""
    api_tls_key: Path | None = Field(None, validate_default=True)
    """Its key, PEM, not encrypted."""
    api_reads: int = Field(6000, ge=1)
    """Requests that read, a minute, of one key from one address."""
    api_writes: int = Field(30_000, ge=1)
    """Requests that write, likewise: twice as many as were measured to fit into a minute (233 payloads a second, each on disk
    before it is answered), so that it stops a client that runs wild and never one that has 10,000 payloads to send."""
    api_failed_keys: int = Field(10, ge=1)
    """Keys that are refused, a minute, from one address; further ones are answered 429."""
    web_secret: SecretStr | None = None
    """Signs the sessions of the dashboard. Without it a random one is made and kept in `home`."""
    read_seconds: float = Field(10.0, gt=0)
    """A read of the API or the dashboard that takes longer is ended."""
    dagster_port: int = 3000
    code_server_host: str = "127.0.0.1"
    """Where the code server is, for Dagster's other processes in containers of their own."""
    code_server_port: int = 4000

    @field_validator("api_tls_cert", "api_tls_key", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return value or None

    _absolute_files = field_validator("api_tls_cert", "api_tls_key", mode="after")(absolute)

    @field_validator("api_tls_key", mode="after")
    @classmethod
    def _both_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) is not (info.data.get("api_tls_cert") is None):
            raise ValueError("https takes both MINI_PLATFORM_API_TLS_CERT and MINI_PLATFORM_API_TLS_KEY")
        return value

    @field_validator("api_proxies", mode="after")
    @classmethod
    def _proxies_are_networks(cls, value: str) -> str:
        for name in between_commas(value):
            ip_network(name)
        return value

    @property
    def needs_keys(self) -> bool:
        """Whether the API and the dashboard let nobody in without a key. Others come through proxies, also to loopback."""
        return self.api_auth == "always" or not is_loopback(self.host) or bool(self.api_proxies)

    @property
    def in_clear(self) -> str | None:
        """That keys and data can be read on their way to other machines, as a sentence; None if they cannot.

        It is said and not refused: what encrypts may stand before it unseen, such as a published port of a container.
        """
        if is_loopback(self.host) or self.api_tls_cert or self.api_proxies:
            return None
        return (
            f"Keys and data of the API travel in clear on MINI_PLATFORM_HOST={self.host}. Set MINI_PLATFORM_API_TLS_CERT "
            "and MINI_PLATFORM_API_TLS_KEY, or put a proxy that speaks https before it and name that in "
            "MINI_PLATFORM_API_PROXIES."
        )

    @property
    def api_url(self) -> str:
        """Where the API and the dashboard answer, asked from this machine."""
        return self._url(self.api_port, "https" if self.api_tls_cert else "http")

    @property
    def links_url(self) -> str:
        """Where links lead that are sent to people."""
        return self.public_url.rstrip("/") if self.public_url else self.api_url

    @property
    def dagster_url(self) -> str:
        """Where Dagster's web server answers, asked from this machine."""
        return self._url(self.dagster_port)

    def _url(self, port: int, scheme: str = "http") -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound
        return f"{scheme}://{host}:{port}"


class Telling(BaseModel):
    """Who is told what: logs, Sentry, alerts."""

    logs: Literal["json", "console"] = "json"
    """Form of the logs of the API and of runs."""
    sentry_dsn: SecretStr | None = Field(None, validation_alias="SENTRY_DSN")
    """Where Sentry is, which is told what failed in runs and in the API; never a value of a row."""
    alerts: SecretStr | None = None
    """Who is told of incidents: Apprise URLs, between commas or spaces. Secrets, as most have a password or a token in them."""
    alerts_digest: int | None = Field(None, ge=0, le=23)
    """Hour of the day, in UTC, at which they are also told what the day before brought; by default never."""


class Keeping(BaseModel):
    """What is kept, how long, and by which keys personal data is hashed."""

    pii_keys: SecretStr | None = None
    """Keys for the hashes of personal data: `id:secret,id:secret`, the one in use first. Without it a random one is made and
    kept in `home`."""
    raw_url: str | None = Field(None, validation_alias="MINI_PLATFORM_RAW_STORE")
    """Where raw files are kept: `s3://bucket/prefix`; None means under `home`."""
    raw_s3: S3Settings = S3Settings()
    """The server of that bucket: `MINI_PLATFORM_RAW_S3__ENDPOINT` and so on."""
    raw_retention: dict[str, float | None] = {}
    """Days that the raw files of a dataset are kept, by its name; null for ever. A dataset that is not named here is kept as
    its declaration says."""
    quarantine_retention: float = Field(0, ge=0)
    """Days that rejected rows are kept; 0 for ever."""
    quality_retention: float = Field(365, ge=0)
    """Days that quality reports are kept, beside the latest of each table; 0 for ever."""
    run_retention: float = Field(90, ge=0)
    """Days that Dagster's runs, their events and logs are kept, beside the last of each asset; 0 for ever."""

    @field_validator("raw_url", mode="after")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "s3://none")
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
            raise ValueError("it should look like s3://bucket/prefix, without credentials")
        return value or None


class Limits(BaseModel):
    """How much a run takes, and what is too large."""

    lease_seconds: float = Field(30.0, gt=0)
    """How long a claim on a file outlives the last sign of life of the process that holds it."""
    max_attempts: int = Field(5, ge=1)
    """A file whose processing died this many times is marked failed and waits for a reprocess."""
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
    max_upload_bytes: int = Field(2 * 2**30, gt=0)
    """A file that is sent to the API may not be larger."""
    max_page_bytes: int = Field(64 * 2**20, gt=0)
    """A page that is larger is not taken; it is held in memory."""


class Arrivals(BaseModel):
    """Where files come from besides the drop folders and uploads: remote inboxes, and APIs that are synced."""

    inbox: dict[str, InboxSettings] = {}
    """Remote inboxes, beside the drop folders, by `<dataset>` or `<dataset>_<name>`."""
    api_source: dict[str, ApiSourceSettings] = {}
    """Where the sources are that are synced, by `<dataset>_<source>`."""
    etl_interval: str = Field("900", validation_alias=AliasChoices("MINI_PLATFORM_ETL_INTERVAL", "ETL_INTERVAL"))
    """How often sources are synced: seconds, or a cron expression."""
    api_source_hosts: str = ""
    """Hosts that may be asked, between commas; empty: of each source only the host of its own URL."""
    api_source_networks: str = ""
    """Private networks that may be asked, between commas, such as `10.0.0.0/8`. Without it, addresses that are private,
    loopback, link-local or reserved are not connected to, whatever name leads there."""

    @field_validator("etl_interval", mode="after")
    @classmethod
    def _as_cron(cls, value: str) -> str:
        """Bring an interval into the form of a cron expression.

        Raises:
            ValueError: it is neither seconds that divide an hour or a day evenly, nor a cron expression.
        """
        if len(value.split()) == CRON_FIELDS:
            return value
        least, most = INTERVAL_SECONDS
        if not value.isdecimal() or not least <= int(value) <= most or int(value) % 60:
            raise ValueError(f"it should be whole minutes in seconds, {least} to {most}, or a cron expression")
        minutes = int(value) // 60
        if minutes < 60 and 60 % minutes == 0:
            return f"*/{minutes} * * * *"
        if minutes % 60 == 0 and 24 % (minutes // 60) == 0:
            return f"0 */{minutes // 60} * * *" if minutes < 24 * 60 else "0 0 * * *"
        raise ValueError(
            "seconds should divide an hour or a day evenly, such as 300, 900 or 3600; else give a cron expression"
        )

    @field_validator("api_source_networks", mode="after")
    @classmethod
    def _private_are_networks(cls, value: str) -> str:
        for name in between_commas(value):
            ip_network(name)
        return value

    @field_validator("inbox", mode="after")
    @classmethod
    def _elsewhere(cls, value: dict[str, InboxSettings], info: ValidationInfo) -> dict[str, InboxSettings]:
        urls = [inbox.url for inbox in value.values() if inbox.url]
        for url in (url for url in urls if split_address(url).scheme == "file"):
            folder = Path(unquote(split_address(url).path)).resolve()
            for name in ("data", "home"):
                if name in info.data and folder.is_relative_to(info.data[name].resolve()):
                    raise ValueError(f"{url} lies within {info.data[name]}, which is taken care of already")
        return value
