"""The settings by topic. `settings.py` combines them into one class, as the names of variables are flat.

Sizes are bytes, times are seconds unless stated otherwise.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from mini_platform.config.project import project
from mini_platform.config.setting_sources import SECRETS

CRON_FIELDS = 5
INTERVAL_SECONDS = (60, 86_400)
"""Shortest and longest interval: schedules have a resolution of a minute; longer than a day takes a cron expression."""


def split_address(url: str) -> SplitResult:
    """Split the URL of an inbox: it has neither query nor fragment, and `?` and `#` are characters of its path."""
    return urlsplit(re.sub("[?#]", lambda mark: quote(mark[0]), url))


class ApiSourceSettings(BaseModel):
    """The settings of an API source: `MINI_PLATFORM_API_SOURCE__<DATASET>_<SOURCE>__URL` and so on."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    url: str | None = None
    """URL of the first page. If it is neither set here nor in the declaration, the source is not synced."""
    header: SecretStr | None = None
    """A header with credentials, such as `Authorization: Bearer …`; it is only sent to the URL's own host."""

    @field_validator("url")
    @classmethod
    def _without_fragment(cls, value: str | None) -> str | None:
        if value and "#" in value:
            raise ValueError("the part after a # is never sent to a server: write %23 for a # in the address")
        return value

    @field_validator("header")
    @classmethod
    def _is_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            name, _, content = value.get_secret_value().partition(":")
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\x20-\x7e]+", content):
                raise ValueError("it should look like `Name: value`")
        return value


class S3Settings(BaseModel):
    """Address and credentials of an S3 server. Without keys, those of the environment are used, as by other tools of AWS."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    endpoint: str | None = None
    """URL of the server; by default AWS."""
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    """Session token of temporary credentials."""


class InboxSettings(S3Settings):
    """The settings of a remote inbox: `MINI_PLATFORM_INBOX__<DATASET>__URL` or `…__<DATASET>_<NAME>__URL` and so on."""

    url: str | None = None
    """`s3://bucket/prefix`, `sftp://user@host/path` or `file:///folder`; `#` and `?` are characters of the path."""
    password: SecretStr | None = None
    """Password of the SFTP user."""
    key_file: Path | None = None
    """Private key of the SFTP user."""
    key_passphrase: SecretStr | None = None
    known_hosts: Path = Path("~/.ssh/known_hosts")
    """File with the host keys of SFTP servers; there is no connection to a server that is not in it."""
    after: Literal["keep", "archive", "delete"] = "keep"
    """Treatment of files after they are loaded or refused: "keep" leaves them; "archive" moves them to `processed/` or, with
    their rejects beside them, to `quarantine/`; "delete" removes them."""
    every: float = Field(10.0, ge=1)
    """Seconds between two scans of the inbox."""

    @field_validator("url")
    @classmethod
    def _is_inbox_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = split_address(value)
            parts.port  # noqa: B018 - raises if it is not a number
        except ValueError:
            raise ValueError("it is not a URL") from None
        location = parts.path.strip("/") and not parts.netloc if parts.scheme == "file" else parts.netloc
        if parts.scheme not in ("s3", "sftp", "file") or not location:
            raise ValueError("it should look like s3://bucket/prefix, sftp://user@host/path or file:///folder")
        if not value.isprintable():
            raise ValueError("it has characters that are not printable: write them as %09 and the like")
        if parts.password is not None or (parts.scheme == "s3" and "@" in parts.netloc):
            raise ValueError("it contains credentials: use the settings for them instead")
        if parts.scheme == "sftp" and not parts.username:
            raise ValueError("it should name the user: sftp://user@host/path")
        return value


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def between_commas(value: str) -> list[str]:
    """Return the values of a setting that takes several, separated by commas."""
    return [word.strip() for word in value.split(",") if word.strip()]


def absolute(value: Path | None) -> Path | None:
    """Return a path as absolute; relative ones are relative to the project, not to the working directory."""
    return value if value is None or value.is_absolute() else project().folder / value


class Locations(BaseModel):
    """Locations: state, dropped files, declarations, the database."""

    secrets_dir: Path = SECRETS
    """Folder of Docker's secrets: files with the names of the variables, in any case."""
    database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    """URL of Postgres; None means the embedded server under `home`."""
    reader_url: SecretStr | None = None
    """URL by which the API and the dashboard read the database: a login that is a member of `mini_platform_reader` only. By
    default the platform creates one, if its database user may create roles."""
    personal_url: SecretStr | None = None
    """The same for reads of personal data: a login that is a member of `mini_platform_personal` only."""
    home: Path = Path(".state")
    """Folder of state that users never edit: raw files, the embedded database, Dagster's local artifacts, pid files."""
    data: Path = Path("data")
    """The watched folder, with a drop folder for each dataset."""
    datasets: str = Field(default_factory=lambda: project().datasets)
    """Location of the declarations of datasets: name of a package, or path of a folder, which has a / in it; by default the
    package `datasets` in that of the project."""

    _absolute_folders = field_validator("home", "data", mode="after")(absolute)

    @field_validator("datasets", mode="after")
    @classmethod
    def _package_or_folder(cls, value: str) -> str:
        """Return the path of a folder as absolute; the name of a package as it is."""
        if "/" in value:
            return str((project().folder / Path(value).expanduser()).resolve())
        if not all(part.isidentifier() for part in value.split(".")):
            raise ValueError("it should be the name of a package, or the path of a folder with a / in it")
        return value

    @field_validator("database_url", "reader_url", "personal_url", mode="after")
    @classmethod
    def _psycopg2(cls, value: SecretStr | None) -> SecretStr | None:
        """Return the URL with the driver: a bare `postgresql://` selects another one in later versions of SQLAlchemy.

        Raises:
            ValueError: the URL cannot be parsed. Otherwise errors could show a part of the password as another part of the URL.
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
    """The web servers: their addresses, access, and rate limits."""

    host: str = "127.0.0.1"
    """Address that the web servers, the API's and Dagster's, listen on; another than loopback makes both require keys."""
    api_port: int = 8000
    """Port of the API and the dashboard."""
    api_auth: Literal["auto", "always"] = "auto"
    """When the API, the dashboard and Dagster's UI require a key: "auto" unless they listen on loopback, or "always"."""
    api_hosts: str = ""
    """Host names under which they can be called, separated by commas, besides those of loopback. If it is empty and they do not
    listen on loopback, any name is accepted."""
    api_origins: str = ""
    """Other sites whose pages may use the API, separated by commas, such as `https://example.com`."""
    api_proxies: str = ""
    """Addresses and networks of proxies whose headers X-Forwarded-For and X-Forwarded-Proto are trusted, separated by commas;
    these headers of anyone else are ignored."""
    public_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    """Public URL of the dashboard, for links in alerts and in Dagster, such as `https://data.example.com`; by default its
    address on this machine."""
    api_tls_cert: Path | None = None
    """PEM file with the certificate of both web servers and its chain; with it they only accept https."""
    api_tls_key: Path | None = Field(None, validate_default=True)
    """PEM file with the key of the certificate, not encrypted."""
    api_reads: int = Field(6000, ge=1)
    """Maximum number of reading requests per minute of one key from one address."""
    api_writes: int = Field(30_000, ge=1)
    """Maximum number of writing requests per minute of one key from one address. The default is twice the measured throughput
    (233 payloads a second, each on disk before the response): it stops a runaway client, but not one with 10,000 payloads."""
    api_failed_keys: int = Field(10, ge=1)
    """Maximum number of refused keys per minute from one address; further keys get the status 429."""
    api_connections: int = Field(200, ge=1)
    """Maximum number of connections that are open from one address (of IPv6: from one /64 network) to each web server. Those of
    the proxies in `api_proxies` are not counted."""
    web_secret: SecretStr | None = None
    """Secret that encrypts cursors with personal data, and by which Dagster's web server recognizes the platform's own
    processes. By default a random one is generated and stored in `home`, which they share."""
    read_seconds: float = Field(10.0, gt=0)
    """Timeout of a read of the API or the dashboard."""
    dagster_port: int = 3000
    code_server_host: str = "127.0.0.1"
    """Address of the code server, for Dagster's other processes in containers of their own."""
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
        """Return True if both web servers require a key; also on loopback if others can reach it by a proxy."""
        return self.api_auth == "always" or not is_loopback(self.host) or bool(self.api_proxies)

    @property
    def in_clear(self) -> str | None:
        """Return a warning if keys and data are sent to other machines unencrypted; None if not.

        It is not an error: something unknown here may encrypt, such as a proxy before the published port of a container.
        """
        if is_loopback(self.host) or self.api_tls_cert or self.api_proxies:
            return None
        return (
            f"Keys and data of the API are sent unencrypted on MINI_PLATFORM_HOST={self.host}. Set MINI_PLATFORM_API_TLS_CERT "
            "and MINI_PLATFORM_API_TLS_KEY, or put an https proxy in front of it and name that in "
            "MINI_PLATFORM_API_PROXIES."
        )

    @property
    def api_url(self) -> str:
        """Return the URL of the API and the dashboard on this machine."""
        return self._url(self.api_port)

    @property
    def links_url(self) -> str:
        """Return the URL for links that are sent to people."""
        return self.public_url.rstrip("/") if self.public_url else self.api_url

    @property
    def dagster_url(self) -> str:
        """Return the URL of Dagster's web server on this machine."""
        return self._url(self.dagster_port)

    def _url(self, port: int) -> str:
        scheme = "https" if self.api_tls_cert else "http"
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound
        return f"{scheme}://{host}:{port}"


class Notifications(BaseModel):
    """Logs, Sentry and alerts."""

    logs: Literal["json", "console"] = "json"
    """Format of the logs of the API and of runs."""
    log_bytes: int = Field(10 * 2**20, gt=0)
    """Size at which a log of `mini-platform up` or its processes is renamed, as `api.log` to `api.log.1`, and begins anew."""
    log_files: int = Field(5, ge=1)
    """Number of renamed logs of each process that are kept."""
    sentry_dsn: SecretStr | None = Field(None, validation_alias="SENTRY_DSN")
    """DSN of Sentry, which receives errors of runs and of the API, never a value of a row."""
    alerts: SecretStr | None = None
    """Receivers of alerts: Apprise URLs, separated by commas or spaces. Secret, as most contain a password or a token."""
    alerts_digest: int | None = Field(None, ge=0, le=23)
    """Hour of the day, in UTC, at which they also receive a digest of the day before; by default never."""
    heartbeat_url: SecretStr | None = None
    """URL that the watchdog requests each time it has looked, for a service that notices when that stops. Secret, as whoever
    knows it can request it, too."""

    @field_validator("heartbeat_url", mode="after")
    @classmethod
    def _http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        try:
            parts = urlsplit(value.get_secret_value())
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it should look like https://hc-ping.com/8d6c…")
        return value


class RetentionSettings(BaseModel):
    """Storage and retention, and the keys that hash personal data."""

    pii_keys: SecretStr | None = None
    """Keys for the hashes of personal data: `id:secret,id:secret`, the one in use first. By default a random one is
    generated and stored in `home`."""
    raw_url: str | None = Field(None, validation_alias="MINI_PLATFORM_RAW_STORE")
    """Location of raw files: `s3://bucket/prefix`; None means under `home`."""
    raw_s3: S3Settings = S3Settings()
    """Server of that bucket: `MINI_PLATFORM_RAW_S3__ENDPOINT` and so on."""
    raw_retention: dict[str, float | None] = {}
    """Days for which raw files are kept, by name of the dataset; null means for ever. By default the declaration counts."""
    quarantine_retention: float = Field(0, ge=0)
    """Days for which rejected rows are kept; 0 means for ever."""
    quality_retention: float = Field(365, ge=0)
    """Days for which quality reports are kept, besides the latest of each table; 0 means for ever."""
    run_retention: float = Field(90, ge=0)
    """Days for which Dagster's runs, their events and logs are kept, besides the last of each asset; 0 means for ever."""

    @field_validator("raw_url", mode="after")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "s3://none")
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
            raise ValueError("it should look like s3://bucket/prefix, without credentials")
        return value or None


class Limits(BaseModel):
    """Limits on runs and sizes."""

    lease_seconds: float = Field(30.0, gt=0)
    """Time after which a claim on a file expires if the process that holds it does not renew it."""
    max_attempts: int = Field(5, ge=1)
    """A file whose processing died this many times is marked failed and waits for a reprocess."""
    batch_files: int = Field(1000, ge=1)
    """Maximum number of files per batch (one COPY, one load transaction)."""
    run_files: int = Field(5000, ge=1)
    """Maximum number of files per run; the next run takes the rest."""
    max_file_bytes: int = Field(20 * 2**30, gt=0)
    """A file that is larger than this, once unpacked, is refused."""
    max_ratio: int = Field(200, gt=1)
    """A compressed file that unpacks to more than this many times its own size is refused as a decompression bomb."""
    max_field_bytes: int = Field(2**20, gt=0)
    """A row with a longer field is rejected."""
    max_record_bytes: int = Field(8 * 2**20, gt=0)
    """A longer row is rejected, and never held in memory as a whole."""
    max_upload_bytes: int = Field(2 * 2**30, gt=0)
    """Maximum size of a file that is sent to the API."""
    max_page_bytes: int = Field(64 * 2**20, gt=0)
    """Maximum size of a synced page, which is held in memory; a larger one is not accepted."""


class Ingestion(BaseModel):
    """Sources of files besides the drop folders and uploads: remote inboxes, and APIs that are synced."""

    inbox: dict[str, InboxSettings] = {}
    """Remote inboxes by `<dataset>` or `<dataset>_<name>`."""
    api_source: dict[str, ApiSourceSettings] = {}
    """API sources by `<dataset>_<source>`."""
    etl_interval: str = Field("900", validation_alias=AliasChoices("MINI_PLATFORM_ETL_INTERVAL", "ETL_INTERVAL"))
    """Schedule of the syncs: seconds, or a cron expression."""
    api_source_hosts: str = ""
    """Hosts that may be called, separated by commas; if empty, each source only its own URL's host."""
    api_source_networks: str = ""
    """Private networks that may be called, separated by commas, such as `10.0.0.0/8`. By default there is no connection to
    addresses that are private, loopback, link-local or reserved, whatever host name resolves to them."""

    @field_validator("etl_interval", mode="after")
    @classmethod
    def _as_cron(cls, value: str) -> str:
        """Return an interval as a cron expression.

        Raises:
            ValueError: the value is neither seconds that divide an hour or a day evenly, nor a cron expression.
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
            "seconds should divide an hour or a day evenly, such as 300, 900 or 3600; otherwise use a cron expression"
        )

    @field_validator("api_source_networks", mode="after")
    @classmethod
    def _private_are_networks(cls, value: str) -> str:
        for name in between_commas(value):
            ip_network(name)
        return value

    @field_validator("inbox", mode="after")
    @classmethod
    def _outside_own_folders(cls, value: dict[str, InboxSettings], info: ValidationInfo) -> dict[str, InboxSettings]:
        urls = [inbox.url for inbox in value.values() if inbox.url]
        for url in (url for url in urls if split_address(url).scheme == "file"):
            folder = Path(unquote(split_address(url).path)).resolve()
            for name in ("data", "home"):
                if name in info.data and folder.is_relative_to(info.data[name].resolve()):
                    raise ValueError(f"{url} lies within {info.data[name]}, which the platform already uses")
        return value
