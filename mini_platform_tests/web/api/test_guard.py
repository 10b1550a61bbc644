"""Access to the API: every way to present a key, on routes of a small app behind the guard of the real one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from sqlalchemy import Connection, text

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys, sessions
from mini_platform.web.auth.guard import Guard, allowed, log_in, log_out, may
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import open_platform
from mini_platform_tests.support.web import endpoints_of, serving

Endpoints = list[tuple[str, str]]
EVER = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)

router = APIRouter()


@router.get("/read/{dataset}", dependencies=[Depends(allowed("read"))])
def _read(request: Request, dataset: str) -> dict[str, object]:
    customers = request.app.state.site.dataset("customers")
    return {"id": request.state.request_id, "customers": may(request, "read", customers)}


@router.post("/write/{dataset}", dependencies=[Depends(allowed("write"))])
def _write(dataset: str) -> str:
    return dataset


@router.get("/customers", dependencies=[Depends(allowed("read", "customers"))])
def _customers() -> str:
    return "customers"


@router.post("/admin", dependencies=[Depends(allowed("admin"))])
def _admin() -> str:
    return "admin"


@router.post("/enter")
def _enter(request: Request, response: Response, key: str) -> None:
    response.set_cookie(**log_in(request, key))


@router.post("/leave")
def _leave(request: Request, response: Response) -> None:
    response.set_cookie(**log_out(request))


@router.get("/mistake")
def _mistake() -> None:
    raise RuntimeError("a secret")


@pytest.fixture(scope="module")
def platform(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for all tests: each makes keys of its own, and an app."""
    with open_platform(server, template, tmp_path_factory.mktemp("guard")) as shared_platform:
        yield shared_platform


@contextmanager
def _served(platform: Platform, **settings: object) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(platform.settings, name, value)
        site = Site(platform)
        app: FastAPI = create_app(site)
        app.include_router(router)
        with serving(app) as url, httpx.Client(base_url=url) as client:
            yield client
        site.close()


@pytest.fixture
def open_site(platform: Platform) -> Iterator[httpx.Client]:
    with _served(platform) as client:
        yield client


@pytest.fixture
def closed(platform: Platform) -> Iterator[httpx.Client]:
    """Client of an app that is bound to an address that others reach."""
    with _served(platform, host="0.0.0.0") as client:  # noqa: S104 - a setting, not bound
        yield client


@pytest.fixture
def make(platform: Platform) -> Callable[..., str]:
    def make(*scopes: str, expires_at: dt.datetime | None = EVER) -> str:
        with platform.engine.begin() as conn:
            return keys.create(conn, "test", scopes, expires_at)

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Keys


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization: token {}", "X-API-Key: {}"])
def test_every_way_to_present_a_key(closed: httpx.Client, make: Callable[..., str], header: str) -> None:
    name, _, value = header.format(make("read")).partition(": ")
    assert closed.get("/read/weather", headers={name: value}).status_code == 200


def test_no_key(closed: httpx.Client) -> None:
    answer = closed.get("/read/weather")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="Mini Platform"'
    assert "mini-platform key create" in answer.json()["detail"]


@pytest.mark.parametrize("key", ["", "x", "mp_", "mp_aaaaaaaa_" + "a" * 43, "ä", "Bearer", "'--", "a" * 5000])
def test_bad_key(closed: httpx.Client, key: str) -> None:
    answer = closed.get("/read/weather", headers={b"X-API-Key": key.encode()})
    assert answer.status_code == 401


def test_right_prefix_with_another_secret(closed: httpx.Client, make: Callable[..., str]) -> None:
    key = make("admin")
    forged = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert closed.get("/read/weather", headers=bearer(forged)).json()["detail"].startswith("This key is unknown.")


def test_expired_key(closed: httpx.Client, make: Callable[..., str]) -> None:
    answer = closed.get("/read/weather", headers=bearer(make("read", expires_at=PAST)))
    assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)


def test_revoked_key_is_of_no_use_at_once(closed: httpx.Client, platform: Platform, make: Callable[..., str]) -> None:
    key = make("read")
    assert closed.get("/read/weather", headers=bearer(key)).status_code == 200
    with platform.engine.begin() as conn:
        assert keys.revoke(conn, key[:11])
    answer = closed.get("/read/weather", headers=bearer(key))
    assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("scopes", "method", "path", "missing"),
    [
        (["read"], "GET", "/read/weather", None),
        (["read"], "GET", "/read/nonsense", None),
        (["read:weather"], "GET", "/read/weather", None),
        (["read:weather"], "GET", "/read/signals", "read"),
        (["write"], "GET", "/read/weather", "read"),
        (["read"], "POST", "/write/weather", "write"),
        (["write"], "POST", "/write/weather", None),
        (["read"], "GET", "/read/customers", "read:customers"),
        (["read"], "GET", "/read/sales", "read:sales"),
        (["read"], "GET", "/customers", "read:customers"),
        (["read", "read:sales"], "GET", "/read/customers", "read:customers"),
        (["read:customers"], "GET", "/read/customers", None),
        (["read:customers"], "GET", "/customers", None),
        (["read:customers"], "GET", "/read/weather", "read"),
        (["write", "read:sales"], "POST", "/write/sales", "write:sales"),
        (["write:sales"], "POST", "/write/sales", None),
        (["read", "write"], "POST", "/admin", "admin"),
        (["admin"], "POST", "/admin", None),
        (["admin"], "GET", "/read/customers", None),
        (["admin"], "POST", "/write/sales", None),
    ],
)
def test_scopes(
    closed: httpx.Client, make: Callable[..., str], scopes: list[str], method: str, path: str, missing: str | None
) -> None:
    answer = closed.request(method, path, headers=bearer(make(*scopes)))
    if missing is None:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 403
        assert f"the scope {missing}," in answer.json()["detail"]
        assert f'scope="{missing}"' in answer.headers["www-authenticate"]


def test_routes_that_show_several_datasets_ask_for_each(closed: httpx.Client, make: Callable[..., str]) -> None:
    for scopes, shown in ((["read"], False), (["read", "read:customers"], True), (["admin"], True)):
        assert closed.get("/read/weather", headers=bearer(make(*scopes))).json()["customers"] is shown


def test_only_the_hash_is_kept_and_use_is_noted_to_the_minute(
    closed: httpx.Client, platform: Platform, make: Callable[..., str]
) -> None:
    key = make("read")
    for _ in range(3):
        closed.get("/read/weather", headers=bearer(key))
    with platform.engine.connect() as conn:
        newest = "SELECT k::text AS all, last_used_at, xmin::text FROM ops.api_keys k ORDER BY key_id DESC LIMIT 1"
        row = conn.execute(text(newest)).one()
        closed.get("/read/weather", headers=bearer(key))
        again = max(keys.listed(conn), key=lambda row: row.key_id)
    assert key not in row.all
    assert key[12:] not in row.all
    assert row.last_used_at.second == row.last_used_at.microsecond == 0
    assert again.last_used_at == row.last_used_at


def test_loopback_takes_no_key_unless_the_settings_require_one(platform: Platform) -> None:
    with _served(platform) as client:
        assert client.get("/read/customers").json()["customers"] is True
        assert client.post("/admin").status_code == 200
    with _served(platform, api_auth="always") as client:
        assert client.get("/read/customers").status_code == 401


# Sessions


def test_session_reads_and_writes_from_its_own_pages_and_ends_with_its_key(
    closed: httpx.Client, platform: Platform, make: Callable[..., str]
) -> None:
    key = make("read", "write")
    entered = closed.post("/enter", params={"key": f" {key}\n"})
    assert re.search(r"; HttpOnly; Max-Age=\d+; Path=/; SameSite=lax$", entered.headers["set-cookie"])
    assert key not in entered.headers["set-cookie"]
    assert key[12:] not in entered.headers["set-cookie"]
    assert closed.get("/read/weather").status_code == 200
    own = {"Origin": str(closed.base_url)}
    assert closed.post("/write/weather", headers=own).status_code == 200
    assert closed.post("/write/weather", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert closed.post("/write/weather").status_code == 403, "nothing says that it comes from a page of ours"
    assert closed.post("/admin", headers=own).status_code == 403
    with platform.engine.begin() as conn:
        keys.revoke(conn, key[:11])
    assert closed.get("/read/weather").status_code == 401


def test_session_opened_over_https_is_sent_over_https_only(platform: Platform, make: Callable[..., str]) -> None:
    for proxies, secure in (("127.0.0.1", True), ("127.0.0.2", False), ("", False)):
        with _served(platform, api_auth="always", api_proxies=proxies) as client:
            entered = client.post("/enter", params={"key": make("read")}, headers={"X-Forwarded-Proto": "https"})
            assert entered.headers["set-cookie"].endswith("; Secure") is secure


def test_log_out_ends_the_session_not_only_its_cookie(
    closed: httpx.Client, platform: Platform, make: Callable[..., str]
) -> None:
    key = make("read")
    for _ in range(3):
        closed.post("/enter", params={"key": key})
        copied = {"Cookie": closed.post("/enter", params={"key": key}).headers["set-cookie"].partition(";")[0]}
        left = closed.post("/leave")
        assert "Max-Age=0" in left.headers["set-cookie"]
        assert not closed.cookies
        assert closed.get("/read/weather", headers=copied).status_code == 401
        assert closed.post("/leave", headers=copied).status_code == 200, "again"
    with platform.engine.connect() as conn:
        assert key[:11] not in {row.prefix for row in keys.listed(conn) if row.key_id in _open_sessions(conn)}
        trail = text("SELECT actor, action, count(*) FROM ops.audit WHERE subject = :key GROUP BY 1, 2 ORDER BY 2")
        assert [tuple(row) for row in conn.execute(trail, {"key": key[:11]})][1:] == [
            (f"key {key[:11]}", "ended a session", 6),
            (f"key {key[:11]}", "opened a session", 6),
        ], "one that is opened in a browser replaces the one before"


def _open_sessions(conn: Connection) -> list[int]:
    return [session.key_id for session in sessions.listed(conn)]


def test_a_session_is_a_hash_and_ends_by_itself(
    closed: httpx.Client, platform: Platform, make: Callable[..., str]
) -> None:
    key = make("read")
    closed.post("/enter", params={"key": key})
    (cookie,) = closed.cookies.jar
    newest = "SELECT s::text AS all, last_used_at, xmin::text FROM ops.sessions s ORDER BY session_id DESC LIMIT 1"
    with platform.engine.begin() as conn:
        assert conn.execute(text(newest)).one().last_used_at is None
        assert closed.get("/read/weather").status_code == 200
    with platform.engine.begin() as conn:
        row = conn.execute(text(newest)).one()
        assert str(cookie.value) not in row.all
        assert row.last_used_at.second == row.last_used_at.microsecond == 0
        conn.execute(text("UPDATE ops.sessions SET expires_at = now()"))
        assert not sessions.listed(conn)
    assert closed.get("/read/weather").status_code == 401


@pytest.mark.parametrize("value", ["", "x", "eA.x.y", "ä", "a" * 5000, "'--"])
def test_session_made_up_by_somebody_else(closed: httpx.Client, platform: Platform, value: str) -> None:
    cookie = f"{sessions.COOKIE}_{platform.settings.api_port}={value}"
    assert closed.get("/read/weather", headers={b"Cookie": cookie.encode()}).status_code == 401


def test_wrong_key_opens_no_session(closed: httpx.Client) -> None:
    answer = closed.post("/enter", params={"key": "nonsense"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


# Browsers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:8000"])
def test_names_of_this_machine(open_site: httpx.Client, host: str) -> None:
    assert open_site.get("/read/weather", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "localhost:x", "127.0.0.2"]
)
def test_dns_rebinding(open_site: httpx.Client, host: str) -> None:
    answer = open_site.get("/read/weather", headers={"Host": host})
    assert answer.status_code == 421
    assert "MINI_PLATFORM_API_HOSTS" in answer.json()["detail"]


def test_names_of_the_settings(platform: Platform) -> None:
    with _served(platform, api_hosts="mini.local, other") as client:
        assert client.get("/read/weather", headers={"Host": "mini.local:8000"}).status_code == 200
        assert client.get("/read/weather", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://["},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_cross_site_requests_change_nothing(open_site: httpx.Client, headers: dict[str, str]) -> None:
    assert open_site.post("/write/weather", headers=headers).status_code == 403
    assert open_site.get("/read/weather", headers=headers).status_code == 200, "which its page cannot read"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_pages_and_programs_may(open_site: httpx.Client, site: str) -> None:
    assert open_site.post("/write/weather", headers={"Sec-Fetch-Site": site}).status_code == 200
    assert open_site.post("/write/weather", headers={"Origin": str(open_site.base_url)}).status_code == 200
    assert open_site.post("/write/weather").status_code == 200


def test_other_sites_read_only_if_the_settings_name_them(platform: Platform) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with _served(platform) as client:
        assert "access-control-allow-origin" not in client.get("/read/weather", headers=headers).headers
        assert client.options("/write/weather", headers=headers).status_code == 405
    with _served(platform, api_origins="https://app.example") as client:
        assert client.get("/read/weather", headers=headers).headers["access-control-allow-origin"] == headers["Origin"]
        preflight = client.options("/write/weather", headers=headers)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, headers["Origin"])
        assert "access-control-allow-credentials" not in preflight.headers
        assert client.post("/write/weather", headers=headers).status_code == 200
        others = {**headers, "Origin": "https://evil.example"}
        assert "access-control-allow-origin" not in client.get("/read/weather", headers=others).headers
        assert client.post("/write/weather", headers=others).status_code == 403


# How often


def test_too_many_requests(platform: Platform) -> None:
    with _served(platform, api_reads=3, api_writes=2) as client:
        assert [client.get("/read/weather").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert [client.post("/write/weather").status_code for _ in range(3)] == [200, 200, 429]
        answer = client.get("/read/weather")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "3 a minute" in answer.json()["detail"]


def test_by_default_ten_thousand_payloads_pass_one_after_another(platform: Platform) -> None:
    guard = Guard(platform.settings)
    sent = Request({"type": "http", "method": "POST", "path": "/ingest", "headers": [], "client": ("127.0.0.1", 1)})
    for _ in range(10_000):
        guard.count(sent, None)


def test_each_key_has_its_own_share(platform: Platform, make: Callable[..., str]) -> None:
    one, other = bearer(make("read")), bearer(make("read"))
    with _served(platform, api_auth="always", api_reads=2) as client:
        assert [client.get("/read/weather", headers=one).status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/read/weather", headers=other).status_code == 200


def test_keys_that_let_nobody_in_are_few_and_stop_no_good_one(platform: Platform, make: Callable[..., str]) -> None:
    with _served(platform, api_auth="always", api_failed_keys=2) as client:
        assert [client.get("/read/weather", headers=bearer("x")).status_code for _ in range(3)] == [401, 401, 429]
        assert client.post("/enter", params={"key": "y"}).status_code == 429
        assert client.get("/read/weather", headers=bearer(make("read"))).status_code == 200


# What every response carries


@pytest.mark.parametrize(
    ("path", "status"),
    [("/read/weather", 200), ("/nowhere", 404), ("/mistake", 500), ("/read/weather?host=evil", 421)],
)
def test_every_response_carries_its_headers(open_site: httpx.Client, path: str, status: int) -> None:
    answer = open_site.get(path, headers={"Host": "evil"} if "evil" in path else {})
    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "a secret" not in answer.text


def test_request_id_is_taken_over_if_it_is_one(open_site: httpx.Client) -> None:
    answer = open_site.get("/read/weather", headers={"X-Request-ID": "run-7.a_B"})
    assert answer.headers["x-request-id"] == answer.json()["id"] == "run-7.a_B"
    for nonsense in ("", "a b", "x" * 65, '{"log": "forged"}', "<script>"):
        assert re.fullmatch(
            r"[0-9a-f]{32}", open_site.get("/mistake", headers={"X-Request-ID": nonsense}).headers["x-request-id"]
        )


# Every route of the app

PUBLIC = {"/api/health/", "/health", "/login", "/logout", "/api/token-auth/"}
"""Routes that take no key."""
MASKING = {"/api/customers/"}
"""Routes that mask personal data for keys without its scope."""
FOLDERS = ("/static/", "/api/swagger/", "/help/")
"""Of files that come with the platform."""


def _url(path: str, dataset: str) -> str:
    """A path of this template."""
    named = path.replace("{dataset}", dataset)
    return re.sub(r"{[^}]*}", "1", named)


@pytest.fixture
def endpoints(platform: Platform) -> Endpoints:
    guarded_routes = [
        e
        for e in endpoints_of(create_app(Site(platform)).routes)
        if e[1] not in PUBLIC and not e[1].startswith(FOLDERS)
    ]
    assert ("GET", "/metrics") in guarded_routes
    return guarded_routes


def test_every_route_takes_a_key(closed: httpx.Client, endpoints: Endpoints) -> None:
    for method, path in endpoints:
        assert closed.request(method, _url(path, "weather")).status_code == 401, (method, path)


def test_every_route_takes_a_scope(closed: httpx.Client, endpoints: Endpoints, make: Callable[..., str]) -> None:
    key = bearer(make("read:no_such_dataset"))
    for method, path in endpoints:
        assert closed.request(method, _url(path, "weather"), headers=key).status_code == 403, (method, path)


def test_every_route_with_personal_data_takes_its_scope(
    closed: httpx.Client, endpoints: Endpoints, make: Callable[..., str]
) -> None:
    key = bearer(make("read", "write"))
    for name in ("customers", "sales"):
        personal_routes = [e for e in endpoints if ("{dataset}" in e[1] or name in e[1]) and e[1] not in MASKING]
        for method, path in personal_routes:
            assert closed.request(method, _url(path, name), headers=key).status_code == 403, (method, path)
