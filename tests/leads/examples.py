"""Leads to show: one that is enriched, from the handmade page of a bakery, and one of a hostile website."""

from __future__ import annotations

from apps.leads.model import Business, Lead
from apps.leads.score import discovery_score, lead_score
from apps.leads.settings import ScoreWeights
from apps.leads.web.audit import judge
from apps.leads.web.scan import scan_page
from apps.leads.web.types import AuditIssue, AuditReport, Owner, SiteScan
from tests.leads.world import PAGES

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def bakery() -> Lead:
    business = Business(
        place_id="osm:node/1",
        name="Boulangerie Exemple",
        category="shop=bakery",
        website="https://boulangerie.example/",
        phone="+32 63 60 00 10",
        street="Grand-Rue 12",
        postal_code="6700",
        city="Arlon",
        country="BE",
        latitude=49.68,
        longitude=5.81,
        licence="© OpenStreetMap contributors, ODbL 1.0",
    )
    scan = scan_page((PAGES / "bakery.html").read_bytes(), country="BE")
    audit = judge(scan)
    owner = Owner("Marie Delvaux", "website", 0.98, role="founder", evidence="https://boulangerie.example/contact")
    weights = ScoreWeights()
    discovery = discovery_score(business, scan, weights).score
    report = lead_score(discovery, business, scan, owner, audit, weights)
    return Lead(
        job_id="enrichment-1",
        rank=0,
        business=business,
        score=report.score,
        score_report=report,
        discovery_score=discovery,
        scan=scan,
        owner=owner,
        audit=audit,
    )


def hostile() -> Lead:
    """Everything that a stranger can write is an attack."""
    page = f"""<!doctype html><title>{EVIL}</title><meta name="description" content='{EVIL}'>
    <h1>{EVIL}</h1><a href="mailto:x@evil.example">{EVIL}</a><p>{EVIL * 3}</p>""".encode()
    scan: SiteScan = scan_page(page)
    scan.head.title = scan.text.description = EVIL
    scan.text.services = [EVIL]
    scan.social = {"facebook": "javascript:alert(1)", EVIL: EVIL}
    scan.contact.page_url = "data:text/html,<script>alert(1)</script>"
    issue = AuditIssue(EVIL, EVIL, EVIL, 1.0, EVIL, EVIL)
    audit = AuditReport(source=EVIL, url=EVIL, score=1, scores={EVIL: 1}, issues=[issue], html=f"<div>{EVIL}</div>")
    business = Business(
        place_id=EVIL,
        name=EVIL,
        category=EVIL,
        website="javascript:alert(document.domain)",
        phone=EVIL,
        email=EVIL,
        city=EVIL,
        opening_hours=EVIL,
        social={"x": "javascript:alert(1)"},
        licence=EVIL,
    )
    owner = Owner(EVIL, EVIL, 0.5, role=EVIL, evidence="http://[::1")
    return Lead(
        job_id="enrichment-1",
        rank=1,
        business=business,
        score=12.5,
        scan=scan,
        owner=owner,
        audit=audit,
        error=EVIL,
        warnings=[EVIL],
    )


def unknown() -> Lead:
    """Nothing is known of it but its name."""
    return Lead(job_id="discovery-1", rank=2, business=Business(place_id="osm:node/3", name="=SUM(A1:A9)"))
