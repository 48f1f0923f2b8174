"""TLS: real handshakes with certificates made here, HTTP/1.1 and HTTP/2, and certificates that cannot be used."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from tests.cli.support import run
from tests.security.process import APP, Running, serving, token


@dataclass(frozen=True, slots=True)
class Certificates:
    cert: Path
    key: Path
    """Of `cert`."""
    both: Path
    other_key: Path
    """Of another certificate."""
    ca: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued, other = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("localhost")
    found = Certificates(*(folder / name for name in ("cert.pem", "key.pem", "both.pem", "other.pem", "ca.pem")))
    found.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(found.key)
    issued.private_key_and_cert_chain_pem.write_to_path(found.both)
    other.private_key_pem.write_to_path(found.other_key)
    authority.cert_pem.write_to_path(found.ca)
    return found


@pytest.fixture(scope="module")
def engine(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    flags = ("--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key))
    with serving(tmp_path_factory.mktemp("tls"), *flags) as running:
        yield running


@pytest.mark.parametrize("version", [1, 2])
def test_both_apis_in_both_versions_of_http(engine: Running, certificates: Certificates, version: int):
    context = ssl.create_default_context(cafile=certificates.ca)
    with httpx.Client(verify=context, http1=version == 1, http2=version == 2) as client:
        assert engine.ingress_url.startswith("https://127.0.0.1:")
        for _ in range(3):
            call = client.post(f"{engine.ingress_url}/S/echo", json="x" * 100_000)
            assert (call.status_code, call.json()) == (200, "x" * 100_000)
        listed = client.get(f"{engine.admin_url}/services")
        assert (listed.status_code, listed.http_version) == (200, f"HTTP/{version if version == 2 else '1.1'}")


def test_a_client_that_is_offered_both_takes_http_2(engine: Running, certificates: Certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    with httpx.Client(verify=context, http2=True) as client:  # as the SDK's own client does
        assert client.get(f"{engine.ingress_url}/restate/health").http_version == "HTTP/2"


def test_a_client_that_knows_nothing_of_alpn(engine: Running, certificates: Certificates):
    answer = engine_says(engine, certificates, b"GET /restate/health HTTP/1.0\r\nhost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def engine_says(engine: Running, certificates: Certificates, request: bytes) -> bytes:
    context = ssl.create_default_context(cafile=certificates.ca)
    address = urlsplit(engine.ingress_url)
    with (
        socket.create_connection((address.hostname, address.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(request)
        received = b""
        while chunk := secured.recv(65_536):
            received += chunk
        return received


def test_who_does_not_trust_the_authority_does_not_connect(engine: Running):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{engine.ingress_url}/restate/health")


def test_plain_http_is_not_answered(engine: Running):
    with pytest.raises(httpx.TransportError):
        httpx.get(engine.ingress_url.replace("https:", "http:") + "/restate/health")


def test_old_tls_is_refused(engine: Running, certificates: Certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that this version is old is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{engine.ingress_url}/restate/health", verify=context)


def test_the_commands_trust_the_authority_that_they_are_told(engine: Running, certificates: Certificates):
    urls = {"HOLDFAST_ADMIN_URL": engine.admin_url, "HOLDFAST_INGRESS_URL": engine.ingress_url}
    untrusting = run("services", "list", settings=urls)
    assert (untrusting.returncode, untrusting.stderr.splitlines()) == (
        1,
        [
            f"error HF0300: the certificate of {engine.admin_url} is not trusted",
            "  next: name the file of the authority that made it: SSL_CERT_FILE=ca.pem",
        ],
    )
    trusting = urls | {"SSL_CERT_FILE": str(certificates.ca)}
    assert run("services", "list", settings=trusting).returncode == 0
    assert run("call", "S/echo", '"x"', settings=trusting).stdout == '"x"\n'


def test_other_machines_with_tokens_and_tls(certificates: Certificates, tmp_path: Path):
    for scope in ("ingress", "admin"):
        token(tmp_path, scope)
    # One file may hold certificate and key.
    with serving(tmp_path, "--host", "0.0.0.0", "--tls-cert", str(certificates.both)) as engine:
        context = ssl.create_default_context(cafile=certificates.ca)
        assert httpx.get(f"{engine.admin_url}/services", verify=context).status_code == 401
        assert "unencrypted" not in engine.log


def test_certificates_that_cannot_be_used_stop_the_start(certificates: Certificates, tmp_path: Path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("not PEM")
    cert = str(certificates.cert)
    cases = {
        ("--tls-cert", str(tmp_path / "none.pem")): "there is no file ",
        ("--tls-cert", cert): f"certificate {cert} and key {cert} cannot be used: ",
        ("--tls-cert", cert, "--tls-key", str(certificates.other_key)): "cannot be used: KEY_VALUES_MISMATCH",
        ("--tls-cert", str(rubbish), "--tls-key", str(certificates.key)): "cannot be used: ",
        ("--tls-cert", cert, "--tls-key", str(rubbish)): "cannot be used: ",
    }
    for flags, expected in cases.items():
        result = run("serve", APP, "--db", str(tmp_path / "app.db"), *flags)
        assert result.returncode == 1, flags
        first, second = result.stderr.splitlines()
        assert first.startswith("error HF0311: ")
        assert expected in first
        assert second.startswith("  next: ")
    assert [path.name for path in tmp_path.iterdir()] == ["rubbish.pem"]


def test_a_key_without_certificate_is_refused(certificates: Certificates, tmp_path: Path):
    result = run("serve", APP, "--db", str(tmp_path / "app.db"), "--tls-key", str(certificates.key))
    assert (result.returncode, "tls_key needs tls_cert" in result.stderr) == (2, True)
