"""Keys from the command line."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from mini_platform.cli import app
from mini_platform.platform import Platform
from mini_platform.web.auth import keys, sessions


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["key", *arguments], catch_exceptions=False)


def test_a_key_is_made_listed_and_revoked(engine: Engine, home: Path) -> None:
    result = cli("create", "reports", "--scope", "read", "--scope", "read:customers", "--expires", "2999-01-31")
    assert result.exit_code == 0, result.output
    key = result.stdout.strip()
    assert keys.FORM.fullmatch(key)
    assert "until 2999-02-01 00:00 UTC" in result.stderr
    with engine.begin() as conn:
        assert keys.verify(conn, key).scopes == ("read", "read:customers")

    (listed,) = (json.loads(line) for line in cli("list", "--json").stdout.splitlines())
    assert (listed["prefix"], listed["name"], listed["state"]) == (key[:11], "reports", "valid")
    assert listed["last_used_at"]
    table = cli("list").stdout
    assert key[:11] in table
    assert key not in table

    assert cli("revoke", key[:11]).exit_code == 0
    with engine.begin() as conn, pytest.raises(keys.KeyRefusedError, match="revoked"):
        keys.verify(conn, key)
    first = json.loads(cli("list", "--json").stdout)["revoked_at"]
    assert cli("revoke", key).exit_code == 0, "the whole key names it, too"
    assert json.loads(cli("list", "--json").stdout)["revoked_at"] == first


def test_sessions_are_listed_with_their_keys_and_ended(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        for name in ("one", "other"):
            key = keys.verify(conn, keys.create(conn, name, ["read"]))
            for _ in range(2):
                sessions.begin(conn, platform.settings, key, secure=False)

    def listed() -> dict[str, tuple[str, int]]:
        rows = map(json.loads, cli("list", "--json").stdout.splitlines())
        return {row["name"]: (row["prefix"], len(row["sessions"])) for row in rows}

    (one, count), (other, _) = listed().values()
    assert count == 2
    assert cli("list").stdout.count(one) == 3
    assert "2 sessions of the key" in cli("log-out", one).stderr
    assert "0 sessions of the key" in cli("log-out", one).stderr
    assert listed() == {"one": (one, 0), "other": (other, 2)}
    assert cli("revoke", other).exit_code == 0
    assert listed() == {"one": (one, 0), "other": (other, 0)}


def test_a_key_is_made_for_a_script(engine: Engine, home: Path) -> None:
    created = json.loads(cli("create", "ci", "--scope", "write:weather", "--expires", "2999-01-31", "--json").stdout)
    assert (created["name"], created["scopes"], created["expires_at"]) == (
        "ci",
        ["write:weather"],
        "2999-02-01T00:00:00Z",
    )
    assert created["prefix"] == created["key"][:11]
    with engine.begin() as conn:
        assert keys.verify(conn, created["key"]).scopes == ("write:weather",)


def test_expiry_in_days_or_never(engine: Engine, home: Path) -> None:
    for expires in ("3d", "never"):
        assert cli("create", expires, "--scope", "admin", "--expires", expires).exit_code == 0
    assert cli("create", "by default", "--scope", "admin").exit_code == 0
    with engine.connect() as conn:
        three, never, default = keys.listed(conn)
    assert three.expires_at
    assert default.expires_at
    assert round((three.expires_at - three.created_at) / dt.timedelta(days=1), 2) == 3
    assert never.expires_at is None
    assert round((default.expires_at - default.created_at) / dt.timedelta(days=1), 2) == 90


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["create", "x", "--scope", "reed"], "There is no scope 'reed'"),
        (["create", "x", "--scope", "admin:customers"], "There is no scope 'admin:customers'"),
        (["create", "x", "--scope", "read:nowhere"], "there is no dataset 'nowhere'. The datasets are: customers"),
        (["create", "x", "--scope", "read:"], "there is no dataset ''"),
        (["create", "x", "--scope", "read", "--expires", "soon"], "use days such as 90d"),
        (["create", "x", "--scope", "read", "--expires", "2001-01-31"], "that is in the past"),
        (["create", "x", "--scope", "read", "--expires", "0d"], "that is in the past"),
        (["create", "x", "--scope", "read", "--expires", "9999999d"], "use days such as"),
        (["create", "x", "--scope", "read", "--expires", "9999-12-31"], "use days such as"),
        (["create", " ", "--scope", "read"], "needs a name"),
        (["create", "x"], "Missing option '--scope'"),
        (["log-out", "mp_nothere"], "There is no key 'mp_nothere'. See: mini-platform key list"),
        (["revoke", "mp_nothere"], "There is no key 'mp_nothere'. See: mini-platform key list"),
    ],
)
def test_mistakes_are_reported(engine: Engine, home: Path, arguments: list[str], expected: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    with engine.connect() as conn:
        assert not conn.scalar(text("SELECT count(*) FROM ops.api_keys"))


def test_no_keys(home: Path) -> None:
    assert "There are no keys" in cli("list").output


def test_refusal_asks_for_a_valid_key(platform: Platform) -> None:
    settings = platform.settings
    with platform.engine.begin() as conn:
        assert keys.refusal(conn, settings) is None, "on loopback"
        settings.host = "0.0.0.0"  # noqa: S104 - told, not bound
        assert "mini-platform key create" in str(keys.refusal(conn, settings))
        key = keys.create(conn, "over", ["admin"], dt.datetime(2001, 1, 1, tzinfo=dt.UTC))
        assert keys.refusal(conn, settings)
        key = keys.create(conn, "good", ["read"])
        assert keys.refusal(conn, settings) is None
        keys.revoke(conn, key[:11])
        assert keys.refusal(conn, settings)
