"""robots.txt as RFC 9309 has it, and sitemaps. Pure: bytes in, facts out."""

from __future__ import annotations

import gzip
import re
import zlib
from io import BytesIO
from urllib.parse import urljoin, urlsplit

from protego import Protego

from apps.leads.web.types import RobotsFacts, SitemapFacts

# What the RFC asks a crawler to read at least.
ROBOTS_BYTES_MAX = 500 * 1024
SITEMAP_BYTES_MAX = 2_000_000
AI_CRAWLERS = ("GPTBot", "ClaudeBot", "PerplexityBot", "Google-Extended", "CCBot")
_LOCATION = re.compile(rb"<loc>\s*(?:<!\[CDATA\[)?\s*([^<\]]{1,2000}?)\s*(?:\]\]>)?\s*</loc>", re.IGNORECASE)


class Rules:
    """What a site's robots.txt lets us do."""

    def __init__(self, parsed: Protego | None, user_agent: str, *, is_all_refused: bool = False) -> None:
        self._parsed = parsed
        self._agent = user_agent
        self._is_all_refused = is_all_refused

    def is_allowed(self, url: str) -> bool:
        if self._is_all_refused:
            return False
        return self._parsed is None or self._parsed.can_fetch(url, self._agent)

    @property
    def crawl_delay_s(self) -> float | None:
        return self._parsed.crawl_delay(self._agent) if self._parsed is not None else None

    def facts(self, page_url: str) -> RobotsFacts:
        """As they go into a scan."""
        if self._parsed is None:
            return RobotsFacts(is_found=False, is_allowed=not self._is_all_refused)
        return RobotsFacts(
            is_found=True,
            is_allowed=self.is_allowed(page_url),
            crawl_delay_s=self.crawl_delay_s,
            sitemap_urls=[urljoin(page_url, url) for url in list(self._parsed.sitemaps)[:5]],
            refused_ai_crawlers=[name for name in AI_CRAWLERS if not self._parsed.can_fetch(page_url, name)],
        )


def parse_robots(status: int, body: bytes, user_agent: str) -> Rules:
    """The rules that an answer to `GET /robots.txt` sets.

    4xx: there are none. 5xx: the site is in trouble, so everything is refused (RFC 9309, 2.3.1.4). A page of HTML in
    its place (many sites answer any path with their home page) is none either.
    """
    product = re.match(r"[A-Za-z_-]*", user_agent)
    agent = (product[0] if product else "") or "*"
    if status >= 500:
        return Rules(None, agent, is_all_refused=True)
    start = body[:200].lstrip().lower()
    if status >= 400 or start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return Rules(None, agent)
    text = body[:ROBOTS_BYTES_MAX].decode("utf-8", "replace").removeprefix("\ufeff")
    return Rules(Protego.parse(text), agent)


def robots_url(page_url: str) -> str:
    parts = urlsplit(page_url)
    return f"{parts.scheme}://{parts.netloc}/robots.txt"


def parse_sitemap(url: str, status: int, body: bytes) -> SitemapFacts:
    """What a sitemap holds. Read by pattern: no entities, no external references, broken ones count as far as they go."""
    if status >= 400:
        return SitemapFacts(is_found=False)
    if body.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=BytesIO(body)) as unpacked:
                body = unpacked.read(SITEMAP_BYTES_MAX)
        except (OSError, EOFError, zlib.error):
            return SitemapFacts(is_found=False)
    head = body[:2_000].lower()
    is_index = b"<sitemapindex" in head
    if not is_index and b"<urlset" not in head:
        return SitemapFacts(is_found=False)
    return SitemapFacts(is_found=True, url=url, url_count=len(_LOCATION.findall(body)), is_index=is_index)
