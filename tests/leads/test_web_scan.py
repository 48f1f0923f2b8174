"""A visit to a whole site: pages put together, files looked at, owner found, audit made. And the outside services."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import msgspec
import pytest

from apps.leads.web import (
    LOOPBACK_ALLOWED,
    OWNER_SOURCE_COSTS_USD,
    AuditRefused,
    AuditService,
    AuditUnavailable,
    FetchLimits,
    HttpOwnerSource,
    SiteScan,
    WebsiteSource,
    audit,
    find_owner,
    scan_page,
    scan_site,
    search_owner,
)
from apps.leads.web.audit import CATEGORY_WEIGHTS, judge
from apps.leads.web.audit_checks import CHECKS
from apps.leads.web.types import OwnerCandidate, TlsFacts
from tests.leads.web_server import Handler, Request, response, web_server

PAGES = Path(__file__).resolve().parents[2] / "apps" / "leads" / "data" / "pages"
LIMITS = FetchLimits(site_time_s=10, request_time_s=5, pause_s=0)


def page(name: str) -> bytes:
    return (PAGES / f"{name}.html").read_bytes()


def bakery_site() -> dict[str, bytes | Handler]:
    style = b"p { margin: 0 }" * 400
    return {
        "/": response(gzip.compress(page("bakery")), content_encoding="gzip", server="nginx/1.24.0", set_cookie="a=b"),
        "/robots.txt": response("User-agent: *\nAllow: /\n", content_type="text/plain"),
        "/sitemap.xml": response("<urlset><url><loc>https://boulangerie.example/</loc></url></urlset>"),
        "/contact": response(page("bakery-contact")),
        "/mentions-legales": response(page("bakery-legal")),
        "/wp-content/themes/pain/style.css?ver=6.5.2": response(
            gzip.compress(style),
            content_type="text/css",
            content_encoding="gzip",
            cache_control="public, max-age=31536000",
        ),
    }


async def scan_bakery(*, comprehensive: bool) -> SiteScan:
    async with web_server(bakery_site()) as site:
        return await scan_site(site.url, limits=LIMITS, policy=LOOPBACK_ALLOWED, comprehensive=comprehensive)


async def test_a_quick_scan_reads_the_home_page_alone() -> None:
    scan = await scan_bakery(comprehensive=False)
    assert [one.kind for one in scan.pages] == ["home"]
    assert scan.structure.sitemap is not None
    assert (scan.structure.sitemap.is_found, scan.structure.sitemap.url_count) == (True, 1)
    assert scan.structure.robots is not None
    assert scan.structure.robots.is_found
    assert scan.ai_readability is not None
    assert scan.ai_readability.points == 100
    assert scan.seo is not None
    assert [one.name for one in scan.seo.components if not one.points] == ["tls"]
    assert scan.access.status == 200
    assert scan.access.headers["server"] == "nginx/1.24.0"
    assert scan.access.insecure_cookie_count == 1
    assert scan.access.body_bytes > scan.access.transferred_bytes > 0
    assert scan.resources.assets == []


async def test_a_comprehensive_scan_puts_the_pages_together() -> None:
    scan = await scan_bakery(comprehensive=True)
    assert [(one.kind, one.status) for one in scan.pages] == [("home", 200), ("legal", 200), ("contact", 200)]
    assert "commandes@boulangerie.example" in {email.address for email in scan.contact.emails}
    assert "+3263600020" in {phone.number for phone in scan.contact.phones}
    assert {phone.page_url.rpartition("/")[2] for phone in scan.contact.phones} == {"", "contact"}
    assert scan.head.title == "Boulangerie Exemple, pain au levain à Arlon"
    [asset] = scan.resources.assets
    assert (asset.kind, asset.is_compressed, asset.cache_seconds) == ("stylesheet", True, 31_536_000)
    assert asset.body_bytes == 6_000
    assert [one.name for one in scan.owner_candidates] == ["Marie Delvaux", "Luc Martin"]
    # Structured data and the legal page agree.
    assert scan.owner_candidates[0].confidence == 0.98
    assert len(msgspec.json.encode(scan)) < 20_000


async def test_the_same_site_gives_the_same_scan_but_for_the_clock() -> None:
    async with web_server(bakery_site()) as site:
        scans = [
            await scan_site(site.url, limits=LIMITS, policy=LOOPBACK_ALLOWED, comprehensive=True) for _ in range(2)
        ]
    for scan in scans:
        scan.access.elapsed_ms = 0
    assert scans[0] == scans[1]
    assert judge(scans[0]) == judge(scans[1])


async def test_no_more_pages_and_files_than_the_limits_say() -> None:
    links = "".join(
        f'<a href="/{name}">{name}</a>' for name in ("contact", "about", "services", "booking", "impressum")
    )
    files = "".join(f'<script src="/{index}.js"></script>' for index in range(9))
    async with web_server({"/": response(links + files)}) as site:
        limits = FetchLimits(pages_max=3, assets_max=2, pause_s=0)
        scan = await scan_site(site.url, limits=limits, policy=LOOPBACK_ALLOWED, comprehensive=True)
        assert site.paths == ["/robots.txt", "/", "/sitemap.xml", "/impressum", "/contact", "/0.js", "/1.js"]
    assert [one.failure.code for one in scan.pages if one.failure] == ["status", "status"]


async def test_many_sites_at_once_do_not_disturb_each_other() -> None:
    async def named(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(f"<title>{request.path}</title>"))

    async with web_server({f"/{index}": named for index in range(20)}) as site:
        scans = await asyncio.gather(
            *(scan_site(f"{site.url}/{index}", limits=LIMITS, policy=LOOPBACK_ALLOWED) for index in range(20))
        )
    assert [scan.head.title for scan in scans] == [f"/{index}" for index in range(20)]


async def test_every_page_has_its_line_in_the_log_with_time_and_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="leads.web")
    async with web_server(bakery_site()) as site:
        del site.routes["/contact"]
        await scan_site(site.url, limits=LIMITS, policy=LOOPBACK_ALLOWED, comprehensive=True)
    lines = [re.sub(r"\d+ ms", "n ms", record.getMessage()) for record in caplog.records if record.name == "leads.web"]
    assert lines == [
        f"page {site.url}/mentions-legales (legal): status 200, n ms",
        f"page {site.url}/contact (contact): {site.url}/contact: status 404",
        f"scan {site.url}: ok, n ms, 3 pages",
    ]


# Owner


async def test_the_owner_is_found_in_structured_data_and_legal_pages() -> None:
    scan = await scan_bakery(comprehensive=True)
    owner = await find_owner("Boulangerie Exemple", scan)
    assert owner is not None
    assert (owner.name, owner.source, owner.confidence) == ("Marie Delvaux", "website", 0.98)
    assert owner.evidence == scan.access.final_url


@pytest.mark.parametrize(
    ("name", "owner", "role"),
    [("garage-impressum", "Klaus von der Heide", "director"), ("salon-wix", "Priya Patel", "founder")],
)
async def test_owners_of_other_pages(name: str, owner: str, role: str) -> None:
    found = await find_owner("Example", scan_page(page(name)))
    assert found is not None
    assert (found.name, found.role) == (owner, role)


async def test_a_weak_hint_is_no_owner_and_a_name_in_the_business_name_helps() -> None:
    scan = scan_page(b"<p>")
    scan.owner_candidates = [OwnerCandidate("Jan Peeters", "author", "structured", "https://x/", 0.45)]
    assert await find_owner("Garage Janssens", scan) is None
    assert await find_owner("Garage Peeters", scan) is not None


async def test_nobody_is_named_by_a_page_that_names_nobody() -> None:
    assert await find_owner("Example Boutique", scan_page(page("boutique-shopify"))) is None


async def test_sources_are_asked_in_order_until_one_answers_and_each_question_has_its_price() -> None:
    async def knows(request: Request, writer: asyncio.StreamWriter) -> None:
        asked = msgspec.json.decode(request.body)
        assert asked == {"business_name": "Boulangerie Exemple", "website": ""}
        writer.write(response('{"owner": {"name": "Anna Schmit", "confidence": 0.7}}', content_type="application/json"))

    routes: dict[str, bytes | Handler] = {
        "/answer": response("{}"),
        "/search": response("x", status=500),
        "/profile": knows,
    }
    async with web_server(routes) as services:
        sources = [
            HttpOwnerSource("answer_engine", f"{services.url}/answer", token="t0ken"),
            HttpOwnerSource("search_data", f"{services.url}/search"),
            HttpOwnerSource("profile_search", f"{services.url}/profile"),
            WebsiteSource(),
        ]
        found = await search_owner("Boulangerie Exemple", scan_page(b"<p>"), sources=sources)
        assert services.requests[0].headers["authorization"] == "Bearer t0ken"
    assert found.owner is not None
    assert (found.owner.name, found.owner.source) == ("Anna Schmit", "profile_search")
    assert [(use.source, use.is_found, use.error is None) for use in found.asked] == [
        ("answer_engine", False, True),
        ("search_data", False, False),
        ("profile_search", True, True),
    ]
    assert found.cost_usd == OWNER_SOURCE_COSTS_USD["answer_engine"] + OWNER_SOURCE_COSTS_USD["profile_search"] == 0.155


@pytest.mark.parametrize("answer", [b"not json", b'{"owner": 3}', b""])
async def test_a_source_that_answers_nonsense_is_passed_over(answer: bytes) -> None:
    async with web_server({"/": response(answer)}) as service:
        source = HttpOwnerSource("answer_engine", service.url + "/")
        found = await search_owner("Shop", scan_page(page("salon-wix")), sources=[source, WebsiteSource()])
    assert found.owner is not None
    assert found.owner.source == "website"
    assert found.asked[0].error is not None
    assert found.cost_usd == 0


async def test_the_same_question_carries_the_same_idempotency_key() -> None:
    async with web_server({"/": response("{}")}) as service:
        for business, scope in (("Shop", "job-1"), ("Shop", "job-1"), ("Shop", "job-2"), ("Other", "job-1")):
            source = HttpOwnerSource("answer_engine", service.url + "/", scope=scope)
            assert await source.ask(business, scan_page(b"<p>")) is None
        keys = [request.headers["idempotency-key"] for request in service.requests]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_a_source_that_answers_with_a_company_is_not_believed() -> None:
    async with web_server({"/": response('{"owner": {"name": "Example Holding GmbH"}}')}) as service:
        source = HttpOwnerSource("answer_engine", service.url + "/")
        assert await find_owner("Shop", scan_page(b"<p>"), sources=[source]) is None


# Audit


async def test_an_audit_says_what_is_wrong_and_what_to_do() -> None:
    report = await audit(await scan_bakery(comprehensive=True))
    assert report.source == "local"
    assert set(report.scores) == set(CATEGORY_WEIGHTS)
    assert report.score == round(sum(report.scores[name] * weight for name, weight in CATEGORY_WEIGHTS.items()))
    assert report.scores["performance"] == 100
    assert report.scores["accessibility"] == 100
    codes = [issue.code for issue in report.issues]
    assert codes[0] == "tls"
    assert {"content-security-policy", "framing", "cookies", "versions"} <= set(codes)
    assert all(issue.advice and issue.message and issue.points_lost > 0 for issue in report.issues)
    assert [issue.points_lost for issue in report.issues] == sorted(
        (i.points_lost for i in report.issues), reverse=True
    )
    assert not set(codes) & set(report.passed)


def good_scan() -> SiteScan:
    """The bakery as its makers would like it: nothing to find."""
    scan = scan_page(page("bakery"), url="https://boulangerie.example/")
    scan.head.generator = None
    scan.text.word_count = 400
    scan.access.tls = TlsFacts(is_valid=True, version="TLSv1.3")
    scan.access.http_redirects_to_https = True
    scan.access.headers = {
        "content-encoding": "gzip",
        "strict-transport-security": "max-age=31536000",
        "content-security-policy": "default-src 'self'; frame-ancestors 'self'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return scan


def test_a_site_without_fault_has_100_points() -> None:
    report = judge(good_scan())
    assert report.issues == []
    assert (report.score, report.scores) == (100, dict.fromkeys(CATEGORY_WEIGHTS, 100))


FAULTS = {
    "title": lambda scan: setattr(scan.head, "title", None),
    "description": lambda scan: setattr(scan.head, "description", "short"),
    "h1": lambda scan: setattr(scan.structure, "heading_levels", [2, 2]),
    "structured-data": lambda scan: setattr(scan.structured, "error_count", 1),
    "open-graph": lambda scan: setattr(scan.head, "open_graph", {"title": "x"}),
    "viewport": lambda scan: setattr(scan.head, "viewport", None),
    "canonical": lambda scan: setattr(scan.head, "canonical_url", None),
    "indexable": lambda scan: setattr(scan.head, "robots", "noindex, follow"),
    "text": lambda scan: setattr(scan.text, "word_count", 100),
    "language": lambda scan: setattr(scan.head, "language", None),
    "alternative-texts": lambda scan: setattr(scan.accessibility, "images_without_alt_count", 1),
    "labels": lambda scan: setattr(scan.accessibility, "fields_without_label_count", 2),
    "link-names": lambda scan: setattr(scan.accessibility, "links_without_text_count", 3),
    "heading-order": lambda scan: setattr(scan.accessibility, "skipped_heading_count", 1),
    "landmarks": lambda scan: setattr(scan.accessibility, "has_main", False),
    "zoom": lambda scan: setattr(scan.accessibility, "is_zoom_blocked", True),
    "markup": lambda scan: setattr(scan.accessibility, "duplicate_id_count", 2),
    "html-size": lambda scan: setattr(scan.access, "body_bytes", 400_000),
    "compression": lambda scan: scan.access.headers.pop("content-encoding"),
    "render-blocking": lambda scan: setattr(scan.resources, "render_blocking", ["x"] * 8),
    "requests": lambda scan: setattr(scan.resources, "image_count", 90),
    "third-parties": lambda scan: setattr(scan.resources, "third_party_hosts", ["x"] * 9),
    "dom-size": lambda scan: setattr(scan.structure, "node_count", 4_000),
    "image-sizes": lambda scan: setattr(scan.resources, "images_without_size_count", 1),
    "tls": lambda scan: setattr(scan.access, "tls", TlsFacts(is_valid=False, problem="certificate has expired")),
    "https-redirect": lambda scan: setattr(scan.access, "http_redirects_to_https", False),
    "hsts": lambda scan: scan.access.headers.pop("strict-transport-security"),
    "content-type-options": lambda scan: scan.access.headers.pop("x-content-type-options"),
    "referrer-policy": lambda scan: scan.access.headers.pop("referrer-policy"),
    "mixed-content": lambda scan: setattr(scan.resources, "insecure_urls", ["http://x/a.js"]),
    "cookies": lambda scan: setattr(scan.access, "insecure_cookie_count", 1),
    "versions": lambda scan: scan.access.headers.update(server="Apache/2.4.57"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_one_fault_is_one_issue(code: str) -> None:
    scan = good_scan()
    FAULTS[code](scan)
    report = judge(scan)
    assert [issue.code for issue in report.issues] == [code]
    category = next(check.category for check in CHECKS if check.code == code)
    assert report.scores[category] < 100
    assert {name for name, points in report.scores.items() if points < 100} == {category}


def test_points_of_a_category_are_enough_to_lose_and_codes_are_unique() -> None:
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    for category in CATEGORY_WEIGHTS:
        assert sum(check.points for check in CHECKS if check.category == category) >= 95
    assert sum(CATEGORY_WEIGHTS.values()) == 1


async def test_a_site_that_is_down_has_no_points() -> None:
    scan = await scan_site("http://127.0.0.1:9/", limits=LIMITS, policy=LOOPBACK_ALLOWED)
    report = await audit(scan)
    assert report.score == 0
    assert [issue.code for issue in report.issues] == ["unreachable"]


async def test_an_outside_audit_is_asked_as_its_interface_says() -> None:
    answer = {
        "score": 61.6,
        "categories": {"content": 70, "technical": 130},
        "issues": [
            {"title": "No FAQ", "category": "content", "severity": "critical", "recommendation": "Write one"},
            "Slow",
        ],
        "citations": ["https://a/", {"url": "https://b/"}],
        "html": "<h1>Report</h1>",
    }
    async with web_server({"/api/public-audit": response(msgspec.json.encode(answer))}) as site:
        service = AuditService(site.url + "/", api_key="k", keys={"serp": "s"})
        scan = scan_page(page("bakery"))
        report = await audit(
            scan, business_name="Boulangerie", locations=["Arlon"], service=service, idempotency_key="j1"
        )
        [request] = site.requests
    assert (request.method, request.headers["authorization"]) == ("POST", "Bearer k")
    assert request.headers["idempotency-key"] == "j1"
    assert msgspec.json.decode(request.body) == {
        "website_url": "https://boulangerie.example/",
        "business_name": "Boulangerie",
        "locations": ["Arlon"],
        "keys": {"serp": "s"},
    }
    assert (report.score, report.scores) == (62, {"content": 70, "technical": 100})
    assert [(issue.code, issue.severity, issue.advice) for issue in report.issues] == [
        ("no-faq", "high", "Write one"),
        ("slow", "medium", ""),
    ]
    assert report.citations == ["https://a/", '{"url":"https://b/"}']
    assert report.html == "<h1>Report</h1>"


async def test_an_outside_audit_that_may_work_later_and_one_that_never_will() -> None:
    async with web_server() as site:
        service = AuditService(site.url, timeout_s=30)
        site.routes["/api/public-audit"] = response("busy", status=429, retry_after="7")
        with pytest.raises(AuditUnavailable) as later:
            await service.audit("https://x/", "X")
        assert later.value.retry_after_s == 7
        site.routes["/api/public-audit"] = response("no such site", status=422)
        with pytest.raises(AuditRefused, match="422: no such site") as never:
            await service.audit("https://x/", "X")
        assert never.value.status == 422
        for nonsense in ("[]", "not json", '{"score": "high"}'):
            site.routes["/api/public-audit"] = response(nonsense)
            with pytest.raises(AuditRefused, match="no report"):
                await service.audit("https://x/", "X")
    with pytest.raises(AuditUnavailable, match="no answer"):
        await service.audit("https://x/", "X")
