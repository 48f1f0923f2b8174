"""Fetching politely and within limits: what a site can do to us, and what we never do to a site."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib

import pytest

from apps.leads.web import LOOPBACK_ALLOWED, FetchLimits, SiteScan, scan_site
from apps.leads.web.fetch import Fetcher, FetchFailed
from apps.leads.web.robots import parse_robots, parse_sitemap
from apps.leads.web.types import USER_AGENT
from tests.leads.web_server import Request, never, redirect, response, web_server

PAGE = response("<html lang=en><title>Shop</title><h1>Shop</h1>")
LIMITS = FetchLimits(site_time_s=5, request_time_s=4, pause_s=0)


def plain(text: str) -> bytes:
    return response(text, content_type="text/plain")


async def scan(url: str, limits: FetchLimits = LIMITS, *, comprehensive: bool = False) -> SiteScan:
    return await scan_site(url, limits=limits, policy=LOOPBACK_ALLOWED, comprehensive=comprehensive)


def code_of(scanned: SiteScan) -> str | None:
    return scanned.failure.code if scanned.failure else None


async def test_robots_txt_is_read_first_and_we_say_who_we_are() -> None:
    async with web_server({"/": PAGE}) as site:
        scanned = await scan(site.url)
    assert scanned.failure is None
    assert site.paths == ["/robots.txt", "/", "/sitemap.xml"]
    assert {request.headers["user-agent"] for request in site.requests} == {USER_AGENT}


@pytest.mark.parametrize(
    ("robots", "is_allowed"),
    [
        ("User-agent: *\nDisallow: /", False),
        ("User-agent: holdfast-leads\nDisallow: /\n\nUser-agent: *\nAllow: /", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: holdfast-leads\nAllow: /", True),
        ("User-agent: *\nDisallow: /private", True),
        ("\ufeffUser-Agent: *\r\nDISALLOW: /", False),
        ("", True),
    ],
)
async def test_what_robots_txt_refuses_is_not_read(robots: str, is_allowed: bool) -> None:
    async with web_server({"/": PAGE, "/robots.txt": plain(robots)}) as site:
        scanned = await scan(site.url)
    assert code_of(scanned) == (None if is_allowed else "robots")
    assert ("/" in site.paths) == is_allowed


async def test_a_page_that_robots_txt_refuses_is_left_out_of_a_comprehensive_scan() -> None:
    async with web_server({"/robots.txt": plain("User-agent: *\nDisallow: /contact")}) as site:
        site.routes["/"] = response('<a href="/contact">Contact</a><a href="/about">About us</a>')
        site.routes["/about"] = PAGE
        scanned = await scan(site.url, comprehensive=True)
    assert {page.kind: page.failure and page.failure.code for page in scanned.pages} == {
        "home": None,
        "contact": "robots",
        "about": None,
    }
    assert "/contact" not in site.paths


async def test_the_robots_txt_of_a_site_we_are_sent_to_counts_too() -> None:
    async with web_server({"/": PAGE, "/robots.txt": plain("User-agent: *\nDisallow: /")}) as other:
        async with web_server({"/": redirect(other.url + "/")}) as site:
            assert code_of(await scan(site.url)) == "robots"
        assert other.paths == ["/robots.txt"]


def test_robots_txt_of_a_site_in_trouble_refuses_and_a_missing_one_does_not() -> None:
    assert not parse_robots(503, b"", USER_AGENT).is_allowed("http://x/")
    assert parse_robots(404, b"Disallow: /", USER_AGENT).is_allowed("http://x/")
    assert parse_robots(200, b"<!DOCTYPE html><p>Disallow: /", USER_AGENT).is_allowed("http://x/")
    assert parse_robots(200, b"\xff\xfe\x00garbage\n" * 100, USER_AGENT).is_allowed("http://x/")


def test_facts_of_robots_txt() -> None:
    text = b"User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n\nUser-agent: *\nCrawl-delay: 2\nSitemap: /map.xml\n"
    found = parse_robots(200, text, USER_AGENT).facts("http://shop.example/")
    assert (found.is_found, found.is_allowed, found.crawl_delay_s) == (True, True, 2.0)
    assert found.sitemap_urls == ["http://shop.example/map.xml"]
    assert found.refused_ai_crawlers == ["GPTBot", "CCBot"]


async def test_a_crawl_delay_is_kept_and_one_that_is_too_long_ends_the_visit_after_the_home_page() -> None:
    async with web_server({"/": PAGE, "/robots.txt": plain("User-agent: *\nCrawl-delay: 60")}) as site:
        scanned = await scan(site.url)
        assert site.paths == ["/robots.txt", "/"]
        assert scanned.is_reachable
        assert not scanned.is_complete
        site.routes["/robots.txt"] = plain("User-agent: *\nCrawl-delay: 0.3")
        started = time.perf_counter()
        assert (await scan(site.url)).is_complete
        assert time.perf_counter() - started >= 0.3


SITEMAPS = {
    "a list": (
        b"<urlset><url><loc>http://a/1</loc></url><url><loc> <![CDATA[http://a/2]]> </loc></url></urlset>",
        (True, 2, False),
    ),
    "an index": (
        b"<?xml version='1.0'?><sitemapindex><sitemap><loc>http://a/s</loc></sitemap></sitemapindex>",
        (True, 1, True),
    ),
    "packed": (gzip.compress(b"<urlset><loc>http://a/1</loc></urlset>"), (True, 1, False)),
    "packed and broken": (gzip.compress(b"<urlset>" * 99)[:30], (False, 0, False)),
    "a page in its place": (b"<!doctype html><title>Not found</title>", (False, 0, False)),
    "entities are not resolved": (b"<!DOCTYPE x [<!ENTITY a 'aaa'>]><urlset><loc>&a;</loc></urlset>", (True, 1, False)),
}


@pytest.mark.parametrize("case", SITEMAPS)
def test_sitemaps(case: str) -> None:
    body, expected = SITEMAPS[case]
    found = parse_sitemap("http://a/sitemap.xml", 200, body)
    assert (found.is_found, found.url_count, found.is_index) == expected


async def test_redirects_are_followed_and_told() -> None:
    routes = {"/": redirect("/a", 301), "/a": redirect("b?x=1", 308), "/b?x=1": PAGE}
    async with web_server(dict(routes)) as site:
        scanned = await scan(site.url)
    assert scanned.access.redirects == [f"{site.url}/a", f"{site.url}/b?x=1"]
    assert scanned.access.final_url == f"{site.url}/b?x=1"
    assert scanned.head.title == "Shop"


async def test_redirects_in_a_circle_and_without_end_are_given_up() -> None:
    async with web_server({"/": redirect("/a"), "/a": redirect("/")}) as site:
        assert code_of(await scan(site.url)) == "redirects"
        assert len(site.requests) < 10

    async def next_one(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(redirect(f"/{int(request.path[1:] or 0) + 1}"))

    async with web_server({f"/{index or ''}": next_one for index in range(30)}) as site:
        scanned = await scan(site.url)
        assert code_of(scanned) == "redirects"
        assert not scanned.failure.is_transient if scanned.failure else False
        assert len(site.requests) == LIMITS.redirects_max + 2


async def test_a_page_that_never_ends_is_given_up_after_its_time() -> None:
    limits = FetchLimits(site_time_s=120, request_time_s=0.3, pause_s=0)
    async with web_server({"/": never}) as site, asyncio.timeout(40):
        scanned = await scan(site.url, limits)
    assert code_of(scanned) == "timeout"
    assert scanned.failure is not None
    assert scanned.failure.is_transient


async def test_a_page_that_drips_is_cut_by_the_time_of_the_site() -> None:
    async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        while True:  # every byte is in time; the whole never is
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with web_server({"/": drip}) as site:
        scanned = await scan(site.url, FetchLimits(site_time_s=0.4, request_time_s=10, pause_s=0))
    assert code_of(scanned) == "timeout"


async def test_when_the_time_is_over_the_home_page_is_kept() -> None:
    async with web_server(
        {"/": response('<title>Shop</title><a href="/contact">Contact</a>'), "/contact": never}
    ) as site:
        scanned = await scan(site.url, FetchLimits(site_time_s=0.5, request_time_s=9, pause_s=0), comprehensive=True)
    assert scanned.is_reachable
    assert not scanned.is_complete
    assert scanned.head.title == "Shop"
    assert scanned.ai_readability is not None


async def test_a_huge_page_is_cut_and_not_read_on() -> None:
    sent = 0

    async def huge(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<title>Big</title>")
        for _index in range(2_000):  # 200 MB
            writer.write(b"<p>word</p>" * 9_000)
            await writer.drain()
            sent += 99_000

    async with web_server({"/": huge}) as site:
        scanned = await scan(site.url, FetchLimits(body_bytes_max=300_000, pause_s=0))
    assert scanned.access.is_truncated
    assert scanned.access.body_bytes == 300_000
    assert scanned.head.title == "Big"
    assert sent < 20_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_packed_pages_are_unpacked(encoding: str) -> None:
    html = b"<title>Packed</title>" + b"<p>text</p>" * 500
    body = gzip.compress(html) if encoding == "gzip" else zlib.compress(html)
    async with web_server({"/": response(body, content_encoding=encoding)}) as site:
        scanned = await scan(site.url)
    assert scanned.head.title == "Packed"
    assert scanned.access.body_bytes == len(html)
    assert scanned.access.transferred_bytes == len(body)


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(40_000_000), 9)  # 39 kB
    async with web_server({"/": response(bomb, content_encoding="gzip")}) as site:
        scanned = await scan(site.url, FetchLimits(body_bytes_max=50_000_000, pause_s=0))
    assert code_of(scanned) == "bomb"


BAD_ANSWERS = {
    "an encoding nobody asked for": (response(b"x", content_encoding="br"), "encoding"),
    "two encodings": (response(b"x", content_encoding="gzip, gzip"), "encoding"),
    "broken gzip": (response(b"not gzip at all", content_encoding="gzip"), "encoding"),
    "not found": (response("gone", status=404), "status"),
    "in trouble": (response("later", status=503), "status"),
    "a picture": (response(b"\x89PNG", content_type="image/png"), "not_html"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
    "nothing": (b"", "protocol"),
    "cut short": (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 99\r\n\r\n<html>", "protocol"),
    "a header without end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "protocol"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_a_bad_answer_is_a_failure_with_a_reason(case: str) -> None:
    answer, code = BAD_ANSWERS[case]
    async with web_server({"/": answer, "/robots.txt": plain("")}) as site:
        scanned = await scan(site.url)
    assert code_of(scanned) == code
    assert not scanned.is_reachable
    assert scanned.failure is not None
    assert scanned.failure.is_transient == (case == "in trouble" or code == "protocol")


async def test_nobody_there_is_worth_another_attempt() -> None:
    async with web_server() as site:
        url = site.url
    scanned = await scan(url)
    assert code_of(scanned) == "connect"
    assert scanned.failure is not None
    assert scanned.failure.is_transient


async def test_a_page_without_content_type_is_known_by_its_beginning() -> None:
    async with web_server({"/": b"HTTP/1.1 200 OK\r\n\r\n\xef\xbb\xbf <!DOCTYPE html><title>Plain"}) as site:
        assert (await scan(site.url)).is_reachable


async def test_cookies_are_kept_through_a_redirect_and_judged() -> None:
    async def greet(request: Request, writer: asyncio.StreamWriter) -> None:
        has_cookie = "seen=1" in request.headers.get("cookie", "")
        writer.write(PAGE if has_cookie else response(status=302, location="/", set_cookie="seen=1"))

    async with web_server({"/": greet}) as site:
        scanned = await scan(site.url)
    assert scanned.failure is None
    assert scanned.access.redirects == [f"{site.url}/"]


async def test_one_site_is_asked_one_thing_at_a_time() -> None:
    open_count = highest = 0

    async def counted(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal open_count, highest
        open_count += 1
        highest = max(highest, open_count)
        await asyncio.sleep(0.01)
        writer.write(response('<a href="/contact">Contact</a><a href="/about">About</a>'))
        await writer.drain()
        open_count -= 1

    async with web_server(dict.fromkeys(["/", "/contact", "/about", "/sitemap.xml"], counted)) as site:
        await scan(site.url, comprehensive=True)
    assert len(site.requests) == 5
    assert highest == 1


async def test_no_proxy_of_the_environment_connects_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    async with web_server({"/": PAGE}) as site, web_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert (await scan(site.url)).is_reachable
        assert proxy.requests == []


async def test_fetching_raises_nothing_but_its_own_error() -> None:
    async with web_server({"/": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\njunk"}) as site:
        fetcher = Fetcher(LIMITS, LOOPBACK_ALLOWED)
        with pytest.raises(FetchFailed, match="broken gzip"):
            await fetcher.get(site.url)
        await fetcher.aclose()
