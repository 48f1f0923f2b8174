"""Which addresses a scan may connect to: the public internet, whatever a name, a redirect or a spelling says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from typing import Any

import pytest
import trustme

from apps.leads.web import LOOPBACK_ALLOWED, FetchLimits, NetworkPolicy, scan_site
from apps.leads.web.network import AddressRefused, is_address_allowed, is_public, resolve
from tests.leads.web_server import redirect, response, web_server

PAGE = response("<html><title>inside</title><h1>secret</h1>")
QUICK = FetchLimits(site_time_s=5, request_time_s=3, pause_s=0)

NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "100.100.100.200",  # metadata of another
    "192.0.0.192",  # and another
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:169.254.169.254",  # translated
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::",
    "2001:db8::1",
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not is_address_allowed(ip_address(address), 80, NetworkPolicy())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_on_ports_of_the_web(address: str) -> None:
    assert is_address_allowed(ip_address(address), 443, NetworkPolicy())
    assert not is_address_allowed(ip_address(address), 22, NetworkPolicy())


def test_a_policy_allows_a_network_and_no_other_also_where_ipv6_wraps_it() -> None:
    assert is_address_allowed(ip_address("127.0.0.1"), 12345, LOOPBACK_ALLOWED)
    assert is_address_allowed(ip_address("::ffff:127.0.0.1"), 12345, LOOPBACK_ALLOWED)
    assert not is_address_allowed(ip_address("10.0.0.1"), 80, LOOPBACK_ALLOWED)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]"]
)
async def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    async with web_server({"/": PAGE}) as site:
        scan = await scan_site(f"http://{host}:{site.port}/", limits=QUICK)
    assert not scan.is_reachable
    assert scan.failure is not None
    # A spelling that the resolver does not know is no address at all.
    assert scan.failure.code in {"refused_address", "dns", "bad_url"}
    assert not scan.failure.is_transient
    assert site.requests == []


async def test_a_redirect_to_an_address_that_is_not_public_is_not_followed() -> None:
    async with web_server() as inside, web_server() as site:
        # The policy allows this one server's port by network; 127.0.0.2 is the rest of the inside.
        site.routes["/"] = redirect(f"http://127.0.0.2:{inside.port}/latest/meta-data/")
        scan = await scan_site(site.url, limits=QUICK, policy=NetworkPolicy(allowed_networks=("127.0.0.1/32",)))
        assert scan.failure is not None
        assert scan.failure.code == "refused_address"
        assert "127.0.0.2" in scan.failure.message
        assert inside.requests == []


async def test_links_to_the_inside_are_not_followed_by_a_comprehensive_scan() -> None:
    async with web_server() as inside, web_server() as site:
        inside_url = f"http://127.0.0.2:{inside.port}"
        site.routes["/robots.txt"] = response(f"Sitemap: {inside_url}/sitemap.xml\n", content_type="text/plain")
        site.routes["/"] = response('<html><a href="/contact">Contact</a><link rel=stylesheet href="/s.css">')
        site.routes["/contact"] = redirect(f"{inside_url}/admin")
        site.routes["/s.css"] = redirect(f"{inside_url}/s.css")
        policy = NetworkPolicy(allowed_networks=("127.0.0.1/32",))
        scan = await scan_site(site.url, limits=QUICK, policy=policy, comprehensive=True)
    assert scan.is_reachable
    assert [page.failure.code for page in scan.pages if page.failure] == ["refused_address"]
    assert scan.structure.sitemap is not None
    assert not scan.structure.sitemap.is_found
    assert scan.resources.assets == []
    assert inside.requests == []


class Resolver:
    """Answers of the name servers, one after another; everything else of the event loop stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo, raising=False)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


async def test_a_name_that_points_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["10.0.0.5"])
    with pytest.raises(AddressRefused, match=r"shop\.example port 80 is 10\.0\.0\.5"):
        await resolve("shop.example", 80, NetworkPolicy())
    assert resolver.asked == ["shop.example"]


async def test_only_the_allowed_ones_of_several_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["10.0.0.5", "93.184.216.34"])
    assert await resolve("shop.example", 80, NetworkPolicy()) == ["93.184.216.34"]


async def test_the_address_that_was_judged_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer points elsewhere, but there is no second question per connection."""
    async with web_server({"/": PAGE}) as site, web_server({"/": PAGE}) as inside:
        resolver = Resolver(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        policy = NetworkPolicy(allowed_networks=("127.0.0.1/32",))
        scan = await scan_site(f"http://shop.example:{site.port}/", limits=QUICK, policy=policy)
        # robots.txt went to the judged address; the next connection was judged anew, and refused.
        assert site.paths == ["/robots.txt"]
        assert site.requests[0].headers["host"] == f"shop.example:{site.port}"
        assert scan.failure is not None
        assert scan.failure.code == "refused_address"
        assert len(resolver.asked) == 2
        assert inside.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://x/",
        "http://",
        "http://u:p@example.com/",
        "http://exa mple.com:99999/",
        "http://[::1",
        "",
        "http://" + "a" * 3000,
    ],
)
async def test_what_is_no_web_address_is_refused_without_any_question(url: str) -> None:
    scan = await scan_site(url, limits=QUICK)
    assert scan.failure is not None
    assert scan.failure.code in {"bad_url", "dns"}
    assert not scan.failure.is_transient


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/", "http://user:secret@127.0.0.1/"])
async def test_a_redirect_to_something_else_than_the_web_is_refused(location: str) -> None:
    async with web_server({"/": redirect(location)}) as site:
        scan = await scan_site(site.url, limits=QUICK, policy=LOOPBACK_ALLOWED)
    assert scan.failure is not None
    assert scan.failure.code == "bad_url"


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_keeps_the_name_while_the_judged_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    policy = NetworkPolicy(allowed_networks=("127.0.0.0/8",), ca_file=str(tmp_path / "ca.pem"))
    async with web_server({"/": PAGE}, tls=server_context(authority, "shop.example")) as site:
        Resolver(monkeypatch, ["127.0.0.1"])
        scan = await scan_site(f"https://shop.example:{site.port}/", limits=QUICK, policy=policy)
    assert scan.failure is None
    assert scan.access.has_tls
    tls = scan.access.tls
    assert tls is not None
    assert tls.is_valid
    assert tls.version in {"TLSv1.2", "TLSv1.3"}
    assert tls.expires_at is not None
    assert tls.expires_at.endswith("Z")


async def test_a_certificate_that_is_not_trusted_is_a_finding_and_the_page_is_read() -> None:
    async with web_server({"/": PAGE}, tls=server_context(trustme.CA(), "127.0.0.1")) as site:
        scan = await scan_site(site.url, limits=QUICK, policy=LOOPBACK_ALLOWED)
    assert scan.is_reachable
    tls = scan.access.tls
    assert tls is not None
    assert not tls.is_valid
    assert "certificate" in (tls.problem or "")


async def test_a_server_that_speaks_no_tls_at_all_is_a_failure() -> None:
    async with web_server({"/": PAGE}) as site:
        scan = await scan_site(f"https://127.0.0.1:{site.port}/", limits=QUICK, policy=LOOPBACK_ALLOWED)
    assert scan.failure is not None
    assert scan.failure.code == "tls"


async def test_an_address_without_scheme_is_asked_by_https_first_then_by_http() -> None:
    async with web_server({"/": PAGE}) as site:
        scan = await scan_site(f"127.0.0.1:{site.port}", limits=QUICK, policy=LOOPBACK_ALLOWED)
    assert scan.is_reachable
    assert scan.access.final_url == f"{site.url}/"
