"""A business's website, looked at for a discovery or an enrichment. Never raises: a scan that fails says so."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from apps.leads import web
from apps.leads.model import Business
from apps.leads.settings import Settings
from apps.leads.web.types import Access, Failure, SiteScan

GRACE_S = 1.0
"""The scan keeps its own time limit; beyond it by so much, it is ended from outside."""

logger = logging.getLogger("leads")


async def look_at(business: Business, settings: Settings, *, comprehensive: bool = False) -> SiteScan:
    """Scan the business's website within the limits of the tier.

    Args:
        comprehensive: The enrichment's scan, of more pages and for longer; else the discovery's.
    """
    url = site_url(business, settings)
    limits = settings.enrichment_limits if comprehensive else settings.discovery_limits
    try:
        async with asyncio.timeout(limits.site_time_s + GRACE_S):
            return await web.scan_site(
                url,
                limits=limits,
                policy=settings.network,
                comprehensive=comprehensive,
                country=business.country or settings.default_country,
            )
    except TimeoutError:
        return _failed(url, Failure(code="timeout", message=f"not done in {limits.site_time_s:g} s", is_transient=True))
    except Exception as error:  # a scanner that stumbles over one page must not cost the other 99 their result
        logger.exception("the scan of %s failed", url)
        return _failed(
            url, Failure(code="protocol", message=f"the scanner failed: {type(error).__name__}: {error}"[:300])
        )


def site_url(business: Business, settings: Settings) -> str:
    """The address to scan: the business's own, or the mirror's in tests and in the demo."""
    url = business.website or ""
    if not settings.site_mirror_url:
        return url
    return settings.site_mirror_url.replace("{host}", urlsplit(url).hostname or "unknown")


def _failed(url: str, failure: Failure) -> SiteScan:
    return SiteScan(access=Access(url=url, final_url=url, is_reachable=False), failure=failure)
