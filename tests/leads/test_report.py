"""The report of a lead, in a real browser: whole by itself, readable in light and dark, deaf to what strangers wrote."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from apps.leads.model import DiscoveryRequest, JobStatus
from apps.leads.report import CSP, jobs_page, lead_page, problem_page
from tests.imports.browser import CONTRAST, running_browser, screenshot
from tests.leads.conftest import OpenLeads
from tests.leads.examples import EVIL, bakery, hostile, unknown
from tests.leads.local_web import LocalWeb
from tests.leads.ui import api_of
from tests.leads.world import until


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_report_says_why_whom_and_what_to_do() -> None:
    lead = bakery()
    page = lead_page(lead)
    assert lead.score_report is not None
    assert lead.audit is not None
    for part in lead.score_report.parts:
        assert part.reason in page
    for text in ("Marie Delvaux", "bonjour@boulangerie.example", "+32 63 60 00 10", "wordpress", "calendly", "ODbL"):
        assert text in page
    issues = lead.audit.issues
    assert page.count("<td>" + issues[0].message) == 1
    assert all(re.sub(r"[<>&'\"].*", "", issue.advice) in page for issue in issues)
    assert page.index(issues[0].message) < page.index(issues[-1].message)


@pytest.mark.parametrize("lead", [bakery(), hostile(), unknown()], ids=["bakery", "hostile", "unknown"])
def test_a_page_loads_and_runs_nothing(lead: Any) -> None:
    page = lead_page(lead)
    elements = Elements(page).found
    tags = {tag for tag, _ in elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "input", "base", "video", "svg"}
    for tag, attributes in elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        if tag == "link":
            assert attributes == {"rel": "icon", "href": "data:,"}
        if tag == "a":
            href = attributes["href"] or ""
            assert href.startswith(("#", "/", "http://", "https://"))
            if href.startswith("http"):
                assert attributes["rel"] == "noopener noreferrer nofollow"
    assert EVIL not in page
    assert "url(" not in page


def test_an_outside_services_markup_is_left_out() -> None:
    assert "<div>" not in lead_page(hostile()).partition("Audit:")[2]


async def test_the_server_says_the_same_to_browsers(open_embedded: OpenLeads, web: LocalWeb) -> None:
    world = await open_embedded(web)
    await world.rich()
    job = await world.discover(scan=False)
    async with api_of(world) as api:
        [lead, *_] = (await api.get(f"/v1/leads?job_id={job.job_id}")).json()["leads"]
        for path in ("/", f"/jobs/{job.job_id}", f"/leads/{lead['lead_id']}"):
            answer = await api.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-security-policy"] == CSP
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in CSP
            assert "unsafe" not in CSP
        page = (await api.get(f"/jobs/{job.job_id}")).text
        assert f"/leads/{lead['lead_id']}" in page
        assert 'http-equiv="refresh"' not in page  # it is over
        missing = await api.get("/jobs/nope")
        assert (missing.status_code, "there is no job nope" in missing.text) == (404, True)
        assert missing.headers["content-type"].startswith("text/html")


async def test_the_page_of_a_running_job_refreshes_itself(open_embedded: OpenLeads, web: LocalWeb) -> None:
    web.sites(web.hold())
    world = await open_embedded(web)
    await world.rich()
    job = await world.jobs.start_discovery(DiscoveryRequest(user_id=world.user, niche="bakery", location="Arlon"))
    await until(lambda: web.asked("/sites/"))
    async with api_of(world) as api:
        assert 'http-equiv="refresh" content="3"' in (await api.get(f"/jobs/{job.job_id}")).text
    web.let_go()
    assert (await world.over(job)).status is JobStatus.COMPLETED


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_it_can_be_read_on_every_screen(browser: Browser, tmp_path: Path, scheme: Any, width: int) -> None:
    viewport: Any = {"width": width, "height": 800}
    context = browser.new_context(color_scheme=scheme, viewport=viewport, bypass_csp=True)
    page = context.new_page()
    pages = {
        "bakery": lead_page(bakery()),
        "hostile": lead_page(hostile()),
        "unknown": lead_page(unknown()),
        "problem": problem_page("Not here", "there is no job nope"),
        "jobs": jobs_page([]),
    }
    for name, text in pages.items():
        path = tmp_path / f"{name}.html"
        path.write_text(text)
        page.goto(path.as_uri())
        assert page.evaluate(CONTRAST) == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.locator("html[lang=en] main h1").count() == 1
        screenshot(page, f"leads-{name}-{scheme}-{width}")
    context.close()


def test_a_saved_report_is_whole_and_no_script_of_a_stranger_runs(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    for lead in (bakery(), hostile()):
        path = tmp_path / "report.html"
        path.write_text(lead_page(lead))
        page.goto(path.as_uri())
        # Its own style holds under its own policy.
        assert page.locator("section.card").first.evaluate("one => getComputedStyle(one).borderRadius") == "10px"
    expect(page.locator("h1")).to_have_text(EVIL)
    assert complaints == []
    assert {url for url in asked if not url.startswith(("file:", "data:"))} == set()
    # Even a script that got in would not run.
    path.write_text(lead_page(bakery()).replace("</main>", "<script>document.title = 'taken'</script></main>"))
    page.goto(path.as_uri())
    expect(page).to_have_title("Boulangerie Exemple · leads")
    assert "Content Security Policy" in complaints[0]
    context.close()


def test_it_is_made_for_assistive_technology(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(lead_page(bakery()))
    context = browser.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert page.locator("meter:not([aria-label])").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    context.close()
