"""The pages in a real browser, on both engines: they show, refresh themselves, and can do nothing but cancel."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from apps.imports.model import Progress, Status
from apps.imports.page import View, count, duration, render
from tests.imports.browser import CONTRAST, running_browser, screenshot
from tests.imports.extracts import full_extract
from tests.imports.running import EITHER_ENGINE, Running, on_engine

MANY = 2000
"""Enterprises of an import that is met in the middle: with one row per batch."""
PATIENCE_MS = 30_000


@pytest.fixture(scope="module", params=EITHER_ENGINE)
def imports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with on_engine(request.param, tmp_path_factory.mktemp("imports"), IMPORTS_BATCH_ROWS="1") as running:
        yield running


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For what no engine has a part in."""
    with on_engine("embedded", tmp_path_factory.mktemp("embedded")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert complaints == []


def running_import(imports: Running, import_id: str) -> str:
    """Start one that takes a while, and meet it in the middle."""
    imports.start(full_extract(imports.folder, imports.next_number(), enterprises=MANY), import_id)
    imports.until(import_id, "processing", completed=1)
    return f"/imports/{import_id}"


def test_a_running_import_is_shown_refreshes_itself_and_is_cancelled_after_a_question(
    imports: Running, page: Page
) -> None:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 playwright takes no builtin
    page.goto(imports.url + running_import(imports, "watched"))
    expect(page).to_have_title(re.compile(r"\d+ % · watched · imports"))
    expect(page.locator('[data-field="status"]')).to_have_text("processing")
    before = page.locator('[data-field="completed"]').inner_text()
    for _ in range(2):
        with page.expect_response("**/api/imports/watched/progress") as answered:
            pass
        assert answered.value.ok
    expect(page.locator('[data-field="completed"]')).not_to_have_text(before)
    expect(page.locator('[aria-current="step"]')).to_have_text("processing")
    screenshot(page, "running")

    # Two seconds after each answer by the browser's clock, from its own origin, and without loading the page again.
    looks_ms = [each.timing["startTime"] for each in asked if each.url.endswith("/progress")]
    looks_ms = [at_ms for at_ms in looks_ms if at_ms > 0]  # not of one that is under way
    assert len(looks_ms) >= 2
    assert all(1900 < later - earlier < PATIENCE_MS for earlier, later in itertools.pairwise(looks_ms)), looks_ms
    urls = [each.url for each in asked]
    assert {urlsplit(url).netloc for url in urls} == {urlsplit(imports.url).netloc}
    assert [url for url in urls if url.endswith("/imports/watched")] == [f"{imports.url}/imports/watched"]

    page.get_by_role("link", name="Cancel this import…").click()
    dialog = page.get_by_role("dialog", name="Cancel watched?")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("link", name="Keep it running")).to_be_focused()  # Enter does no harm
    screenshot(page, "question")
    dialog.get_by_role("link", name="Keep it running").click()
    expect(dialog).to_be_hidden()
    assert imports.progress("watched")["status"] == "processing"

    page.get_by_role("link", name="Cancel this import…").press("Enter")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    page.get_by_role("link", name="Cancel this import…").click()
    dialog.get_by_role("button", name="Yes, cancel it").click()
    expect(page.locator(".status")).to_have_text("cancelled", timeout=PATIENCE_MS)
    expect(page.get_by_role("link", name="Cancel this import…")).to_have_count(0)
    assert imports.progress("watched")["status"] == "cancelled"
    screenshot(page, "cancelled")


def test_the_page_is_read_only_but_for_cancel(embedded: Running, page: Page) -> None:
    extract = full_extract(embedded.folder, embedded.next_number())
    embedded.start(embedded.gate.hold(extract), "read-only")
    page.goto(f"{embedded.url}/imports/read-only")
    forms = page.locator("form")
    expect(forms).to_have_count(1)
    expect(forms).to_have_attribute("action", "/imports/read-only/cancel")
    assert page.locator("button, input:not([type=hidden]), select, textarea").all_text_contents() == ["Yes, cancel it"]
    for gone in ("Process next batch", "Process all", "Finalize"):
        assert page.get_by_text(re.compile(gone)).count() == 0
    embedded.gate.release(extract)
    # The page turns into that of a finished import by itself.
    expect(page.locator(".status")).to_have_text("completed")
    expect(page.locator("form, button, input")).to_have_count(0)
    expect(page.locator("body")).to_contain_text("100 %")
    screenshot(page, "completed")
    page.goto(embedded.url)
    expect(page.locator("form, button, input")).to_have_count(0)


def test_without_javascript_the_page_reloads_and_cancel_asks_on_its_own_page(
    embedded: Running, browser: Browser
) -> None:
    extract = full_extract(embedded.folder, embedded.next_number())
    embedded.start(embedded.gate.hold(extract), "plain")
    context = browser.new_context(base_url=embedded.url, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/imports/plain")
    with page.expect_navigation(url="**/imports/plain"):
        pass  # by itself
    page.get_by_role("link", name="Cancel this import…").click()
    expect(page.get_by_role("heading", name="Cancel plain?")).to_be_visible()
    page.get_by_role("button", name="Yes, cancel it").click()
    embedded.gate.release(extract)
    expect(page.locator(".status")).to_have_text("cancelled")
    context.close()


def test_a_cancel_form_must_be_ours(embedded: Running) -> None:
    extract = full_extract(embedded.folder, embedded.next_number())
    embedded.start(embedded.gate.hold(extract), "protected")
    address = "/imports/protected/cancel"
    foreign_key = re.search(r'name="key" value="(\w+)"', embedded.http.get(address).text)
    assert foreign_key is not None
    for data in ({}, {"key": ""}, {"key": "guess"}, {"key": "x" * 10_000}, {"key": "ünïcode"}):
        assert embedded.http.post(address, data=data).status_code == 403
    key = foreign_key[1]
    assert embedded.http.post("/imports/other/cancel", data={"key": key}).status_code == 403
    assert embedded.http.post(address, data={"key": key}, headers={"origin": "https://evil.example"}).status_code == 403
    embedded.gate.release(extract)
    assert embedded.until("protected", "completed", "failed", "cancelled")["status"] == "completed"


def test_a_failed_import_says_why_and_nothing_of_it_is_markup(embedded: Running, page: Page) -> None:
    embedded.start("/no/such/<script>alert(1)</script>.zip", "failed")
    embedded.until("failed", "failed")
    page.goto(f"{embedded.url}/imports/failed")
    expect(page.get_by_role("heading", name="Why it failed")).to_be_visible()
    expect(page.locator("main")).to_contain_text("<script>alert(1)</script>")
    assert page.locator("main script").count() == 0
    screenshot(page, "failed")


def test_the_list_leads_to_each_import(embedded: Running, page: Page) -> None:
    embedded.start(full_extract(embedded.folder, embedded.next_number()), "listed")
    embedded.until("listed", "completed")
    page.goto(embedded.url)
    screenshot(page, "list")
    page.get_by_role("link", name="listed", exact=True).click()
    expect(page.get_by_role("heading", name="listed")).to_be_visible()


def test_an_unknown_import_is_a_page_that_says_so(embedded: Running) -> None:
    answer = embedded.http.get("/imports/never")
    assert answer.status_code == 404
    assert "there is no import" in answer.text
    assert embedded.http.get("/?cursor=never").status_code == 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_colour_schemes_and_on_a_telephone(
    embedded: Running, browser: Browser, scheme: Any
) -> None:
    import_id = f"seen-{scheme}"
    extract = full_extract(embedded.folder, embedded.next_number())
    embedded.start(embedded.gate.hold(extract), import_id)
    embedded.start("/no/such.zip", f"{import_id}-failed")
    embedded.until(f"{import_id}-failed", "failed")
    context = browser.new_context(
        base_url=embedded.url, color_scheme=scheme, viewport={"width": 360, "height": 740}, bypass_csp=True
    )
    page = context.new_page()
    for name in ("", f"imports/{import_id}", f"imports/{import_id}/cancel", f"imports/{import_id}-failed"):
        page.goto(f"/{name}")
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("html[lang=en] main h1, html[lang=en] main h2").count() > 0
        screenshot(page, f"{scheme}-{name.replace('/', '-') or 'list'}")
    page.goto(f"/imports/{import_id}")
    expect(page.get_by_role("progressbar", name="Batches done")).to_be_visible()
    expect(page.locator(".status[role=status]")).to_be_visible()
    context.close()
    embedded.gate.release(extract)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (75, "1 min 15 s"),
        (3600, "1 h 0 min"),
        (-1, "0 s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_not_known_yet_is_a_dash() -> None:
    assert count(None) == "–"
    page = render("import.html", view=View("new", Progress()), form_key="k")
    assert bytes(page.body).decode().count("<dd data-field") == 9


def test_a_completed_import_without_batches_is_full() -> None:
    empty = Progress(status=Status.COMPLETED)
    assert View("empty", empty).bar == 1
    assert View("half", msgspec.structs.replace(empty, total=4, completed=2)).bar == 2
