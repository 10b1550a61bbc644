"""Settings from every source, in order; and the messages where one cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_platform.config.setting_sources import SourceError
from mini_platform.config.settings import Settings, load_settings, sources
from mini_platform.config.vault import VaultError
from mini_platform.dagster.storage import dagster_url
from mini_platform.operations.doctor import examine
from mini_platform_tests.support.command import cli, here
from mini_platform_tests.support.vault_server import Vault, serving_vault

SECRET = "mini-platform"
PLACES = ["environment", "files", "secrets", "vault", "dotenv", "dotenv_files"]


@pytest.fixture(autouse=True)
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, and .env is one of the test's own."""
    for name in list(os.environ):
        if name.startswith(("MINI_PLATFORM_", "VAULT_", "DATABASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MINI_PLATFORM_SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.mini_platform]")
    monkeypatch.setenv("MINI_PLATFORM_PROJECT", str(tmp_path))


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A Vault that this process asks, with a token."""
    with serving_vault(Vault(secrets={f"secret/{SECRET}": {}})) as served:
        monkeypatch.setenv("VAULT_ADDR", served.url)
        monkeypatch.setenv("VAULT_TOKEN", served.token)
        yield served


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def secret_of(settings: Settings) -> str:
    assert settings.web_secret
    return settings.web_secret.get_secret_value()


@pytest.mark.parametrize("first", range(len(PLACES)), ids=PLACES)
@pytest.mark.parametrize("variable", ["MINI_PLATFORM_WEB_SECRET", "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER"])
def test_the_first_source_counts(
    first: int, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vault: Vault
) -> None:
    def value(place: str) -> str:
        return f"Name: {place}"

    if first <= 0:
        monkeypatch.setenv(variable, value("environment"))
    if first <= 1:
        monkeypatch.setenv(f"{variable}_FILE", written(tmp_path / "file", value("files") + "\n"))
    if first <= 2:
        written(tmp_path / "secrets" / variable.lower(), value("secrets") + "\n")
    if first <= 3:
        vault.secrets[f"secret/{SECRET}"] = {variable: value("vault")}
    lines = [f"{variable}_FILE={written(tmp_path / 'other', value('dotenv_files'))}"]
    lines += [f'{variable}="{value("dotenv")}"'] if first <= 4 else []
    written(tmp_path / ".env", "\n".join(lines))
    settings = load_settings()
    secret = settings.web_secret or settings.api_source["records_api"].header
    assert secret
    assert secret.get_secret_value() == value(PLACES[first])
    holding = [name for name, source in sources()._asdict().items() if variable.lower() in source.resolved]
    assert holding == PLACES[first:]
    messages = [finding.message for finding in examine() if finding.check == "settings" and variable in finding.message]
    assert len(messages) == 1
    assert messages[0].startswith("from ")
    assert value(PLACES[first]) not in messages[0]


def test_parts_of_one_setting_come_from_several_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_API_SOURCE__RECORDS_API__URL", "https://example.com/")
    written(tmp_path / "secrets" / "MINI_PLATFORM_API_SOURCE__RECORDS_API__HEADER", "Authorization: Bearer abc")
    written(tmp_path / "secrets" / "grafana", "of another program")
    source = load_settings().api_source["records_api"]
    assert (source.url, bool(source.header)) == ("https://example.com/", True)


def test_every_setting_can_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_API_PORT_FILE", written(tmp_path / "port", "8123\n"))
    monkeypatch.setenv("MINI_PLATFORM_RAW_RETENTION_FILE", written(tmp_path / "days", '{"sales": 30}'))
    monkeypatch.setenv("MINI_PLATFORM_API_SOURCE_HOSTS_FILE", "")  # as compose passes on what is not set
    settings = load_settings()
    assert (settings.api_port, settings.raw_retention, settings.api_source_hosts) == (8123, {"sales": 30}, "")


def test_dagster_gets_the_database_from_where_everything_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", written(tmp_path / "url", "postgresql://me:pw@db.invalid/platform\n"))
    assert dagster_url().startswith("postgresql+psycopg2://me:pw@db.invalid/platform?")


def no_access(path: Path) -> None:
    path.symlink_to(path)  # a loop: unreadable for root, too


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "Is a directory"),
        (no_access, "Too many levels of symbolic links"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
        (lambda path: path.write_text("x" * 70_000), "is too long"),
        (lambda path: path.write_bytes(b"x" * 65_535 + "é".encode()), "is too long"),
    ],
)
def test_a_file_that_cannot_be_had_is_a_sentence(
    make: object, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    make(path)  # type: ignore[operator]
    monkeypatch.setenv("DATABASE_URL_FILE", str(path))
    with pytest.raises(SourceError, match=sentence) as caught:
        load_settings()
    assert str(path) in str(caught.value)
    assert "DATABASE_URL_FILE" in str(caught.value)
    assert [finding.level for finding in examine() if sentence in finding.message] == ["problem"]


def test_the_command_line_says_it_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/no/such/file")
    completed = here("url")
    sentence = "The file /no/such/file cannot be read (DATABASE_URL_FILE names it): No such file or directory.\n"
    assert (completed.exit_code, completed.stderr) == (2, sentence)
    completed = cli("url", DATABASE_URL_FILE="", VAULT_ADDR="http://127.0.0.1:1", VAULT_TOKEN="hunter2")
    assert (completed.returncode, "Vault cannot be reached at http://127.0.0.1:1" in completed.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DATABSE_URL_FILE", "DATABASE_URL_FILE"),
        ("MINI_PLATFORM_PII_KEY_FILE", "MINI_PLATFORM_PII_KEYS_FILE"),
        ("VAULT_SECRETID_FILE", "VAULT_SECRET_ID_FILE"),
        ("VAULT_ROLEID", "VAULT_ROLE_ID"),
    ],
)
def test_the_doctor_points_out_what_is_misspelt(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    advice = [finding.advice for finding in examine() if finding.level == "warning" and name in finding.message]
    assert advice == [f"Did you mean {expected}?"]


def test_the_doctor_leaves_the_variables_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_SKIP_VERIFY", "SSL_CERT_FILE", "TEST_DATABASE_URL", "MY_VAULT_TOKEN_FILE", "VAULT_FORMAT"):
        monkeypatch.setenv(name, "x")
    warned = [finding.message for finding in examine() if finding.check == "settings" and finding.level == "warning"]
    assert warned == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hun@ter2/x@host/db",
        "postgresql://me:hunter2/db",
        "hunter2",
        "postgresql://me:x@host:hunter2/db",
    ],
)
def test_a_database_url_that_is_none_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    completed = here("url")
    assert completed.exit_code == 2
    assert "DATABASE_URL is not valid" in completed.stderr
    assert "hun" not in completed.stderr
    assert "ter2" not in completed.stderr


# Vault


def test_vault_by_approle_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vault: Vault) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    vault.namespace = "team"
    vault.secrets = {"kv/a/b": {"database_url": "postgresql://me:pw@db.invalid/x", "MINI_PLATFORM_API_PORT": 8123}}
    for name, value in (("ROLE_ID", vault.login[0]), ("SECRET_ID", vault.login[1])):
        monkeypatch.setenv(f"VAULT_{name}_FILE", written(tmp_path / name, value + "\n"))
    for name, value in (("NAMESPACE", "team"), ("MOUNT", "kv"), ("PATH", "/a/b/")):
        monkeypatch.setenv(f"VAULT_{name}", value)
    settings = load_settings()
    assert settings.database_url
    assert settings.database_url.get_secret_value() == "postgresql+psycopg2://me:pw@db.invalid/x"
    assert settings.api_port == 8123
    load_settings()
    assert vault.requests == ["POST /v1/auth/approle/login", "GET /v1/kv/data/a/b"], "a process asks once"


def test_vault_is_retried_where_that_helps(vault: Vault) -> None:
    vault.secrets[f"secret/{SECRET}"] = {"MINI_PLATFORM_WEB_SECRET": "found"}
    vault.failing = [503, 500]
    assert secret_of(load_settings()) == "found"
    assert len(vault.requests) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"failing": [503] * 3}, "is sealed, or not ready: unseal it"),
        ({"failing": [500] * 3}, "answers HTTP 500"),
        ({"failing": [307]}, "answers HTTP 307"),
        ({"token": "hvs.other"}, "denies reading secret/data/mini-platform: check that VAULT_TOKEN"),
        ({"namespace": "elsewhere"}, "VAULT_NAMESPACE"),
        ({"secrets": {}}, "nothing at secret/data/mini-platform.*VAULT_PATH"),
        ({"secrets": {f"secret/{SECRET}": None}}, "or its version is deleted"),
        (
            {"old": {"secret"}, "secrets": {f"secret/data/{SECRET}": {"data": "canary-value"}}},
            "not of a KV engine of version 2: check VAULT_MOUNT",
        ),
        ({"pause": 1.0}, "cannot be reached at http://127.0.0.1:[0-9]+: no answer in time"),
    ],
)
def test_what_vault_refuses_is_a_sentence(
    change: dict[str, object], sentence: str, monkeypatch: pytest.MonkeyPatch, vault: Vault
) -> None:
    monkeypatch.setenv("VAULT_CLIENT_TIMEOUT", "0.3s" if vault and "pause" in change else "60s")
    token = vault.token
    for name, value in change.items():
        setattr(vault, name, value)
    with pytest.raises(VaultError, match=sentence) as caught:
        load_settings()
    assert token not in str(caught.value)
    assert "canary-value" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"VAULT_ROLE_ID": "a-role", "VAULT_SECRET_ID": "hunter2"},
            "refuses the login by AppRole: check VAULT_ROLE_ID",
        ),
        ({"VAULT_ROLE_ID": "a-role"}, "neither VAULT_TOKEN nor VAULT_ROLE_ID with VAULT_SECRET_ID"),
        ({"VAULT_TOKEN": "hvs.right", "VAULT_ADDR": "http://127.0.0.1:1"}, "cannot be reached at http://127.0.0.1:1"),
        ({"VAULT_TOKEN": "hunter2", "VAULT_CACERT": "/no/such.pem"}, "VAULT_CACERT names /no/such.pem, which cannot"),
        ({"VAULT_TOKEN": "hunter2", "VAULT_CACERT": __file__}, "VAULT_CACERT names .*, which cannot be read"),
    ],
)
def test_how_vault_is_reached_wrongly_is_a_sentence(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, vault: Vault
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VaultError, match=sentence) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VAULT_ADDR", "vault:8200"),
        ("VAULT_ADDR", "https://me:hunter2@vault"),
        ("VAULT_TOKEN", "hun\nter2"),
        ("VAULT_TOKEN", "hünter2"),
    ],
)
def test_what_is_no_address_or_token_is_named(
    name: str, value: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    completed = here("url")
    assert (completed.exit_code, f"{name} is not valid" in completed.stderr, "ter2" in completed.stderr) == (
        2,
        True,
        False,
    )


def test_no_section_takes_a_check_of_another() -> None:
    """One of two validators of a name would be lost where sections are put together."""
    names = [
        name for section in Settings.__bases__ for name in vars(section).get("__pydantic_decorators__").field_validators
    ]
    assert len(names) == len(set(names))
    assert set(names) == set(Settings.__pydantic_decorators__.field_validators)
