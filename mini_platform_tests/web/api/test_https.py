"""HTTPS by the certificate of the settings, and behind proxies: whose word is taken, and whose is not."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from mini_platform.config.settings import Settings
from mini_platform.operations import https
from mini_platform.operations.answering import api_answers
from mini_platform.operations.doctor import examine
from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support.processes import process
from mini_platform_tests.support.web import serving

PATIENCE = 60
"""Seconds; a busy machine is no failure."""


class Certificates:
    """A CA, and files that it renews."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.renew()

    def renew(self) -> str:
        """Write a new certificate and its key; return the certificate, PEM."""
        leaf = self.ca.issue_cert("localhost", "127.0.0.1")
        for path, content in (
            (self.cert, b"".join(pem.bytes() for pem in leaf.cert_chain_pems)),
            (self.key, leaf.private_key_pem.bytes()),
        ):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)
        return leaf.cert_chain_pems[0].bytes().decode()

    @property
    def trusting(self) -> ssl.SSLContext:
        """TLS context of a client that trusts the CA, and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@contextmanager
def served(platform: Platform, **settings: object) -> Iterator[str]:
    for name, value in settings.items():
        setattr(platform.settings, name, value)
    site = Site(platform)
    with serving(create_app(site)) as url:
        yield url
    site.close()


@pytest.fixture
def url(platform: Platform, certificates: Certificates) -> Iterator[str]:
    with served(platform, api_tls_cert=certificates.cert, api_tls_key=certificates.key) as url:
        yield url


@pytest.fixture
def key(platform: Platform) -> str:
    with platform.engine.begin() as conn:
        return keys.create(conn, "test", ["read"])


# HTTPS


def test_it_is_served_to_who_trusts_its_ca(url: str, platform: Platform, certificates: Certificates) -> None:
    assert url.startswith("https://")
    with httpx.Client(timeout=PATIENCE, verify=certificates.trusting) as client:
        assert client.get(f"{url}/api/health/").status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/api/health/", timeout=PATIENCE)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url.replace('https', 'http')}/api/health/", timeout=PATIENCE)
    platform.settings.api_port = urlsplit(url).port or 0
    assert platform.settings.api_url == url
    assert api_answers(platform.settings)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_below_tls_1_2(url: str, platform: Platform) -> None:
    context = https.context(platform.settings)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2, "whatever the system's OpenSSL would take"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    for version, refused in ((ssl.TLSVersion.TLSv1_1, True), (ssl.TLSVersion.TLSv1_2, False)):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, version
        if refused:
            with pytest.raises(httpx.ConnectError, match=r"EOF|PROTOCOL_VERSION"):
                httpx.get(url, verify=old, timeout=PATIENCE)
        else:
            assert httpx.get(url, verify=old, timeout=PATIENCE).status_code == 200


def test_sessions_and_browsers_stay_on_https(
    url: str, certificates: Certificates, key: str, platform: Platform
) -> None:
    with httpx.Client(timeout=PATIENCE, verify=certificates.trusting, headers={"Accept": "text/html"}) as client:
        entered = client.post(f"{url}/login", data={"key": key, "then": "/"})
        assert entered.headers["set-cookie"].endswith("; Secure")
        assert entered.headers["strict-transport-security"] == "max-age=31536000"
        local = client.get(url.replace("127.0.0.1", "localhost"))
        assert "strict-transport-security" not in local.headers, "Dagster is on a port of localhost, by http"
    with served(platform, api_tls_cert=None, api_tls_key=None) as plain:
        entered = httpx.post(f"{plain}/login", data={"key": key, "then": "/"}, timeout=PATIENCE)
        assert "Secure" not in entered.headers["set-cookie"]
        assert "strict-transport-security" not in entered.headers


def test_a_renewed_certificate_is_taken_up_and_half_a_one_is_not(
    url: str, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    address = ("127.0.0.1", urlsplit(url).port or 0)
    first = ssl.get_server_certificate(address)
    renewed = certificates.renew()
    assert ssl.get_server_certificate(address) == renewed != first
    old_key = certificates.key.read_bytes()
    certificates.renew()
    certificates.key.write_bytes(old_key)
    assert ssl.get_server_certificate(address) == renewed
    assert "is not the key of" in caplog.text
    last = certificates.renew()
    assert ssl.get_server_certificate(address) == last
    with httpx.Client(timeout=PATIENCE, verify=certificates.trusting) as client:
        assert client.get(url.replace("127.0.0.1", "localhost")).status_code == 200


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("cert", None, "MINI_PLATFORM_API_TLS_CERT: {} cannot be read: No such file"),
        ("key", None, "MINI_PLATFORM_API_TLS_KEY: {} cannot be read: No such file"),
        ("cert", "folder", "MINI_PLATFORM_API_TLS_CERT: {} cannot be read: Is a directory"),
        ("cert", b"nonsense", "{} and"),
        ("key", b"", "are not a certificate and its key, unencrypted, in PEM"),
        ("key", "another", "MINI_PLATFORM_API_TLS_KEY: {} is not the key of"),
        ("key", "encrypted", "are not a certificate and its key, unencrypted, in PEM"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    name: str,
    content: bytes | str | None,
    expected: str,
) -> None:
    path: Path = getattr(certificates, name)
    if content == "another":
        path.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    elif content == "encrypted":
        secret = serialization.load_pem_private_key(path.read_bytes(), None)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        path.write_bytes(secret.private_bytes(*form, serialization.BestAvailableEncryption(b"word")))
    else:
        path.unlink()
        if content == "folder":
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
    monkeypatch.setenv("MINI_PLATFORM_API_TLS_CERT", str(certificates.cert))
    monkeypatch.setenv("MINI_PLATFORM_API_TLS_KEY", str(certificates.key))
    refusal = https.refusal(Settings())
    assert refusal is not None
    assert expected.format(path) in refusal
    assert [f.message for f in examine() if (f.check, f.level) == ("encryption", "problem")] == [refusal]


def test_the_process_says_why_it_does_not_start(home: Path, certificates: Certificates) -> None:
    certificates.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    variables = {
        "MINI_PLATFORM_API_TLS_CERT": str(certificates.cert),
        "MINI_PLATFORM_API_TLS_KEY": str(certificates.key),
    }
    with process(home, **variables) as (started, _):
        assert started.wait(timeout=30) == 1
    log = (home / "test.log").read_text()
    assert "is not the key of" in log
    assert "Traceback" not in log


def test_both_settings_or_none(certificates: Certificates) -> None:
    with pytest.raises(ValidationError, match="takes both"):
        Settings(api_tls_cert=certificates.cert)
    with pytest.raises(ValidationError, match="takes both"):
        Settings(api_tls_key=certificates.key)
    assert Settings(api_tls_cert="", api_tls_key="").api_url.startswith("http:")


def test_serving_others_in_clear_is_reported() -> None:
    assert "are sent unencrypted" in str(Settings(host="192.0.2.1").in_clear)
    for safe in ({}, {"host": "192.0.2.1", "api_proxies": "192.0.2.2"}, {"api_tls_cert": "/c", "api_tls_key": "/k"}):
        assert Settings(**safe).in_clear is None


# Proxies


@contextmanager
def proxy(to: str, address: str) -> Iterator[str]:
    """A reverse proxy at an address of loopback that says for whom it asks, as nginx does by `proxy_add_x_forwarded_for`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = urlsplit(to)
            upstream = http.client.HTTPConnection(str(target.hostname), target.port, source_address=(address, 0))
            forwarded_for = ", ".join(filter(None, [self.headers.get("X-Forwarded-For"), self.client_address[0]]))
            theirs = {n: v for n, v in self.headers.items() if not n.lower().startswith("x-forwarded")}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            forwarded = {"X-Forwarded-For": forwarded_for, "X-Forwarded-Proto": "https"}
            upstream.request(self.command, self.path, body, theirs | forwarded)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_POST = do_GET  # noqa: N815 - the name that is looked for

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{address}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def tried(url: str, client: str, **headers: str) -> int:
    """Return the status of a request with a wrong key from an address of loopback."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=client), timeout=PATIENCE) as http_client:
        return http_client.get(f"{url}/stats", headers={"X-API-Key": "x", **headers}).status_code


def test_each_client_of_a_named_proxy_is_one_and_none_makes_itself_another(platform: Platform, key: str) -> None:
    with (
        served(platform, api_proxies="127.0.0.2, 127.0.1.0/24", api_failed_keys=1) as url,
        proxy(url, "127.0.0.2") as front,
    ):
        assert [tried(front, f"127.0.0.{n}") for n in (11, 11, 12)] == [401, 429, 401]
        assert tried(front, "127.0.0.11", **{"X-Forwarded-For": "10.9.8.7"}) == 429, "its own word, before the proxy's"
        forged = [tried(url, "127.0.0.13", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(2)]
        assert forged == [401, 429], "who is no proxy is believed nothing"
        assert [tried(url, "127.0.1.9", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(2)] == [401, 401]
        by_proxy = httpx.post(f"{front}/login", data={"key": key, "then": "/"}, timeout=PATIENCE)
        assert by_proxy.headers["set-cookie"].endswith("; Secure")
        assert "strict-transport-security" in by_proxy.headers
        forged_scheme = httpx.post(
            f"{url}/login", data={"key": key}, headers={"X-Forwarded-Proto": "https"}, timeout=PATIENCE
        )
        assert "Secure" not in forged_scheme.headers["set-cookie"]
        assert "strict-transport-security" not in forged_scheme.headers


def test_a_proxy_that_is_not_named_is_one_client(platform: Platform) -> None:
    with served(platform, api_auth="always", api_failed_keys=1) as url, proxy(url, "127.0.0.2") as front:
        assert [tried(front, f"127.0.0.{n}") for n in (11, 12)] == [401, 429]


def test_behind_a_proxy_everybody_needs_a_key_on_loopback_too(platform: Platform, key: str) -> None:
    with served(platform, api_proxies="127.0.0.2") as url, proxy(url, "127.0.0.2") as front:
        assert httpx.get(f"{front}/stats", timeout=PATIENCE).status_code == 401
        assert httpx.get(f"{front}/stats", headers={"X-API-Key": key}, timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize("proxies", ["*", "proxy.example.com", "10.0.0.1/8"])
def test_proxies_are_addresses(proxies: str) -> None:
    with pytest.raises(ValidationError, match="api_proxies"):
        Settings(api_proxies=proxies)
