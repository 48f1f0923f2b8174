"""The website side of leads: visit a site politely, read the facts, find the owner, audit it. Knows no engine.

    scan = await scan_site("https://example.com", limits=ENRICHMENT_LIMITS, policy=NetworkPolicy(), comprehensive=True)
    owner = await find_owner("Example Ltd", scan)
    report = await audit(scan)

None of them raises for what a website does: a site that is down gives a scan that says so (`SiteScan.failure`).
`scan_page` reads one page that is at hand, without any network.
"""

from __future__ import annotations

from apps.leads.web.audit import OWN_AUDIT, audit, judge
from apps.leads.web.audit_service import AuditRefused, AuditService, AuditUnavailable
from apps.leads.web.owner import (
    OWNER_SOURCE_COSTS_USD,
    HttpOwnerSource,
    OwnerSource,
    OwnerSourceFailed,
    WebsiteSource,
    find_owner,
    search_owner,
)
from apps.leads.web.scan import scan_page, scan_site
from apps.leads.web.types import (
    DISCOVERY_LIMITS,
    ENRICHMENT_LIMITS,
    LOOPBACK_ALLOWED,
    AuditReport,
    Failure,
    FetchLimits,
    NetworkPolicy,
    Owner,
    OwnerSearch,
    SiteScan,
)

__all__ = [
    "DISCOVERY_LIMITS",
    "ENRICHMENT_LIMITS",
    "LOOPBACK_ALLOWED",
    "OWNER_SOURCE_COSTS_USD",
    "OWN_AUDIT",
    "AuditRefused",
    "AuditReport",
    "AuditService",
    "AuditUnavailable",
    "Failure",
    "FetchLimits",
    "HttpOwnerSource",
    "NetworkPolicy",
    "Owner",
    "OwnerSearch",
    "OwnerSource",
    "OwnerSourceFailed",
    "SiteScan",
    "WebsiteSource",
    "audit",
    "find_owner",
    "judge",
    "scan_page",
    "scan_site",
    "search_owner",
]
