"""A visit to a website: robots.txt, home page, sitemap; comprehensive also further pages and files. One request at a time."""

from __future__ import annotations

import asyncio
import logging
import re
from urllib.parse import urlsplit

from apps.leads.web.document import Document
from apps.leads.web.facts import asset_urls
from apps.leads.web.fetch import Fetched, Fetcher, FetchFailed, checked_url
from apps.leads.web.page import (
    base_url_of_file,
    insecure_cookie_count,
    kept_headers,
    looks_like_html,
    merge_page,
    page_links,
    read_page,
    with_scores,
)
from apps.leads.web.robots import ROBOTS_BYTES_MAX, SITEMAP_BYTES_MAX, Rules, parse_robots, parse_sitemap, robots_url
from apps.leads.web.types import (
    ENRICHMENT_LIMITS,
    Access,
    Asset,
    Failure,
    FetchLimits,
    NetworkPolicy,
    Page,
    SiteScan,
    TlsFacts,
)

log = logging.getLogger("leads.web")

ASSET_BYTES_MAX = 1_000_000


def scan_page(body: bytes, *, url: str = "", content_type: str | None = None, country: str | None = None) -> SiteScan:
    """Read a page that is at hand. No network: sitemap, robots.txt, TLS and headers stay unknown.

    Args:
        url: Where it was; without it, what the page itself says (`<base>`, canonical link).
        content_type: The header it came with, for its charset.
        country: Two letters, for telephone numbers without a country code.
    """
    document = Document(body, url, content_type)
    document.url = url or base_url_of_file(document)
    access = Access(
        url=document.url,
        final_url=document.url,
        is_reachable=True,
        has_tls=document.url.startswith("https://"),
        body_bytes=len(body),
        transferred_bytes=len(body),
    )
    return with_scores(read_page(document, access, country=country.upper() if country else None))


async def scan_site(
    url: str,
    *,
    limits: FetchLimits = ENRICHMENT_LIMITS,
    policy: NetworkPolicy | None = None,
    comprehensive: bool = False,
    country: str | None = None,
) -> SiteScan:
    """Visit a website. Never raises for what the site or the network does: see `SiteScan.failure`.

    Args:
        url: http(s); without a scheme https is tried first, then http.
        limits: `DISCOVERY_LIMITS` or `ENRICHMENT_LIMITS`.
        policy: Which addresses may be connected to; None: the public internet only.
        comprehensive: Also contact, legal, about ... pages, and how scripts and style sheets are served.
        country: Where the business is known to be, two letters.
    """
    allowed = policy or NetworkPolicy()
    text = url.strip()
    has_scheme = re.match(r"[a-z][a-z0-9+.-]*:(?!\d+(?:/|$))", text, re.IGNORECASE) is not None
    candidates = [text] if has_scheme else [f"https://{text}", f"http://{text}"]
    visit = _Visit(url, limits, allowed, is_comprehensive=comprehensive, country=country)
    for candidate in candidates:
        await visit.run(candidate)
        failure = visit.scan.failure
        if failure is None or failure.code not in {"connect", "tls", "timeout"}:
            break
    scan = visit.scan
    outcome = "ok" if scan.failure is None else f"{scan.failure.code}: {scan.failure.message}"
    log.info("scan %s: %s, %d ms, %d pages", url, outcome, scan.access.elapsed_ms, len(scan.pages))
    return scan


class _Visit:
    """One scan under way. `scan` is what is known so far, so that a time limit loses nothing."""

    def __init__(
        self, url: str, limits: FetchLimits, policy: NetworkPolicy, *, is_comprehensive: bool, country: str | None
    ) -> None:
        self._asked = url
        self._limits = limits
        self._policy = policy
        self._is_comprehensive = is_comprehensive
        self._country = country.upper() if country else None
        self._rules: dict[str, Rules] = {}
        self._deadline = asyncio.get_running_loop().time() + limits.site_time_s
        self.scan = self._unreached(Failure("connect", "not visited"))

    def _unreached(self, failure: Failure, answer: Fetched | None = None) -> SiteScan:
        access = Access(url=self._asked, final_url=self._asked, is_reachable=False)
        if answer is not None:
            access = self._access(answer, is_reachable=False)
        return SiteScan(access=access, failure=failure, is_comprehensive=self._is_comprehensive, country=self._country)

    def _access(self, answer: Fetched, *, is_reachable: bool) -> Access:
        has_tls = answer.url.startswith("https://")
        return Access(
            url=self._asked,
            final_url=answer.url,
            is_reachable=is_reachable,
            status=answer.status,
            redirects=answer.redirects,
            has_tls=has_tls,
            tls=answer.tls,
            headers=kept_headers(answer.headers),
            insecure_cookie_count=insecure_cookie_count(answer.headers, has_tls=has_tls),
            elapsed_ms=answer.elapsed_ms,
            body_bytes=len(answer.body),
            transferred_bytes=answer.transferred_bytes,
            is_truncated=answer.is_truncated,
        )

    async def run(self, url: str) -> None:
        """Visit `url`; the outcome is in `scan`."""
        self._rules.clear()
        try:
            async with asyncio.timeout_at(self._deadline):
                try:
                    await self._run(url, problem=None)
                except FetchFailed as error:
                    if not error.is_certificate:
                        raise
                    # An expired certificate is a finding, not a reason to know nothing: nothing secret is sent.
                    self._rules.clear()
                    await self._run(url, problem=error.failure.message)
        except FetchFailed as error:
            self.scan = self._unreached(error.failure)
        except TimeoutError:
            if self.scan.access.is_reachable:
                self.scan.is_complete = False
            else:
                message = f"{self._asked}: not read within {self._limits.site_time_s:g} s"
                self.scan = self._unreached(Failure("timeout", message, is_transient=True))
        if self.scan.access.is_reachable:
            with_scores(self.scan)

    async def _run(self, url: str, problem: str | None) -> None:
        async with Fetcher(self._limits, self._policy, is_certificate_checked=problem is None) as fetcher:

            async def check(address: str) -> None:
                await self._check_robots(fetcher, address)

            answer = await fetcher.get(str(checked_url(url)), check=check)
            if answer.tls is not None and problem is not None:
                answer.tls = TlsFacts(
                    is_valid=False, problem=problem, version=answer.tls.version, cipher=answer.tls.cipher
                )
            if answer.status >= 400:
                is_transient = answer.status >= 500 or answer.status in {408, 425, 429}
                failure = Failure("status", f"{answer.url}: status {answer.status}", is_transient)
                self.scan = self._unreached(failure, answer)
                return
            access = self._access(answer, is_reachable=True)
            if not looks_like_html(access.headers, answer.body):
                kind = access.headers.get("content-type", "no Content-Type")
                self.scan = self._unreached(Failure("not_html", f"{answer.url}: {kind}, not a page"), answer)
                return
            document = await asyncio.to_thread(Document, answer.body, answer.url, answer.header("content-type"))
            scan = await asyncio.to_thread(read_page, document, access, country=self._country)
            scan.is_comprehensive = self._is_comprehensive
            scan.pages = [Page(answer.url, "home", answer.status)]
            rules = self._rules[robots_url(answer.url)]
            scan.structure.robots = rules.facts(answer.url)
            self.scan = scan
            await self._read_further(fetcher, document, rules)

    async def _check_robots(self, fetcher: Fetcher, url: str) -> None:
        address = robots_url(url)
        if address not in self._rules:
            answer = await fetcher.get(address, body_bytes_max=ROBOTS_BYTES_MAX)
            self._rules[address] = parse_robots(answer.status, answer.body, self._limits.user_agent)
        if not self._rules[address].is_allowed(url):
            raise FetchFailed("robots", f"{url}: its robots.txt does not let us read it")

    async def _read_further(self, fetcher: Fetcher, document: Document, rules: Rules) -> None:
        """Sitemap, and for a comprehensive scan the rest. What fails is left out; the home page is known already."""
        pause_s = max(self._limits.pause_s, rules.crawl_delay_s or 0.0)
        if pause_s > self._limits.pause_max_s:
            self.scan.is_complete = False
            return
        await asyncio.sleep(pause_s)
        await self._read_sitemap(fetcher, document.url)
        if not self._is_comprehensive:
            return
        for kind, url in list(page_links(document).items())[: max(self._limits.pages_max - 1, 0)]:
            await asyncio.sleep(pause_s)
            await self._read_page(fetcher, kind, url)
        for url, kind in asset_urls(document)[: self._limits.assets_max]:
            await asyncio.sleep(pause_s)
            await self._read_asset(fetcher, kind, url)
        if document.url.startswith("https://") and urlsplit(document.url).port in {None, 443}:
            await asyncio.sleep(pause_s)
            await self._ask_plain_http(fetcher, document.url)

    async def _get(self, fetcher: Fetcher, url: str, body_bytes_max: int | None = None) -> Fetched:
        async def check(address: str) -> None:
            await self._check_robots(fetcher, address)

        return await fetcher.get(url, body_bytes_max=body_bytes_max, check=check)

    async def _read_sitemap(self, fetcher: Fetcher, home_url: str) -> None:
        robots = self.scan.structure.robots
        parts = urlsplit(home_url)
        own = f"{parts.scheme}://{parts.netloc}/sitemap.xml"
        url = robots.sitemap_urls[0] if robots is not None and robots.sitemap_urls else own
        try:
            answer = await self._get(fetcher, url, SITEMAP_BYTES_MAX)
        except FetchFailed as error:
            log.info("sitemap %s: %s", url, error)
            self.scan.structure.sitemap = parse_sitemap(url, 404, b"")
        else:
            self.scan.structure.sitemap = parse_sitemap(url, answer.status, answer.body)

    async def _read_page(self, fetcher: Fetcher, kind: str, url: str) -> None:
        try:
            answer = await self._get(fetcher, url)
            if answer.status >= 400:
                raise FetchFailed("status", f"{url}: status {answer.status}")
            access = self._access(answer, is_reachable=True)
            if not looks_like_html(access.headers, answer.body):
                raise FetchFailed("not_html", f"{url}: not a page")
        except FetchFailed as error:
            log.info("page %s (%s): %s", url, kind, error)
            self.scan.pages.append(Page(url, kind, None, error.failure))
            return
        document = await asyncio.to_thread(Document, answer.body, answer.url, answer.header("content-type"))
        page = await asyncio.to_thread(read_page, document, access, page_kind=kind, country=self.scan.country)
        merge_page(self.scan, page, kind)
        self.scan.pages.append(Page(answer.url, kind, answer.status))
        log.info("page %s (%s): status %d, %d ms", url, kind, answer.status, answer.elapsed_ms)

    async def _read_asset(self, fetcher: Fetcher, kind: str, url: str) -> None:
        try:
            answer = await self._get(fetcher, url, ASSET_BYTES_MAX)
        except FetchFailed as error:
            log.info("file %s: %s", url, error)
            return
        self.scan.resources.assets.append(
            Asset(
                url=url[:300],
                kind=kind,
                status=answer.status,
                body_bytes=len(answer.body),
                transferred_bytes=answer.transferred_bytes,
                is_compressed=(answer.header("content-encoding") or "identity").lower() != "identity",
                cache_seconds=cache_seconds(answer),
            )
        )

    async def _ask_plain_http(self, fetcher: Fetcher, home_url: str) -> None:
        try:
            answer = await fetcher.get(f"http://{urlsplit(home_url).hostname}/", is_redirect_followed=False)
        except FetchFailed:
            # Nothing answers there: nobody can be caught without TLS.
            self.scan.access.http_redirects_to_https = True
            return
        target = answer.header("location") or ""
        self.scan.access.http_redirects_to_https = answer.status in range(300, 400) and target.startswith("https://")


def cache_seconds(answer: Fetched) -> int | None:
    """How long a browser may keep an answer; None when nothing is said but `Expires`, which counts as a day."""
    control = (answer.header("cache-control") or "").lower()
    if "no-store" in control or "no-cache" in control:
        return 0
    if match := re.search(r"max-age\s*=\s*\"?(\d{1,10})", control):
        return int(match[1])
    return 86_400 if answer.header("expires") not in {None, "0", "-1"} else None
