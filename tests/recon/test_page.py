"""The dashboard, in a real browser and without one."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect

from apps.recon.demo_child import Child
from apps.recon.envelope import seal
from apps.recon.model import IngestRequest, JobState
from apps.recon.store import Step, Store
from tests.recon.conftest import Recon, embedded

CHROMIUM = shutil.which("chromium")
NASTY = "<script>document.title='stolen'</script>"


@pytest.fixture
async def recon(tmp_path: Path) -> AsyncIterator[Recon]:
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon:
        yield recon


async def test_it_says_what_to_do_when_there_is_nothing(recon: Recon):
    page = await recon.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "No scan was submitted yet" in page.text
    assert "workflow" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_it_shows_jobs_counts_and_errors_as_text(recon: Recon):
    for number in range(20):
        await recon.final(await recon.submit(f'{{"ip":"192.0.2.{number}","port":80}}'))
    await recon.store.create_job(IngestRequest("nasty", NASTY, 1), "x")
    await recon.store.set_state(Step.begin("nasty", "x"), JobState.FAILED, error_message=NASTY)
    page = (await recon.http.get("/")).text
    assert '<dd id="state-completed">20</dd>' in page
    assert '<dd id="count-host">20</dd>' in page
    assert len(re.findall('<tr id="job-', page)) == 15
    assert "15 of 21" in page
    assert NASTY not in page
    assert "&lt;script&gt;" in page


async def test_its_files_come_from_here(recon: Recon):
    page = (await recon.http.get("/")).text
    paths = re.findall(r'(?:href|src)="(/page[^"]+)"', page)
    assert paths == ["/page.css", "/page.js"]
    for path in paths:
        assert (await recon.http.get(path)).status_code == 200
    assert not re.search(r"https?://", page)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
async def test_a_browser_sees_jobs_arrive_without_loading_the_page_again(
    tmp_path: Path, browser: Browser, recon: Recon
):
    (tmp_path / "served").mkdir()
    child = await Child.start(tmp_path / "served", settings={"RECON_ENRICH": "false"})
    page = await browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(child.url)
    await expect(page.locator("#live")).to_have_text("live", timeout=20_000)
    await page.evaluate("window.stayed = true")
    body = seal('{"ip":"192.0.2.1","port":80}\n{"ip":"192.0.2.2","port":80}', recon.key, timestamp_s=int(time.time()))
    answer = await page.request.post(f"{child.url}/v1/mesh/ingest", data=body)
    assert answer.status == 202
    row = page.locator(f"#job-{(await answer.json())['job_id']}")
    await expect(row.locator(".state")).to_have_text("completed", timeout=20_000)
    await expect(page.locator("#count-host")).to_have_text("2")
    assert await page.evaluate("window.stayed")
    assert complaints == []
    async with asyncio.timeout(20):
        await child.stop()  # although a browser is connected
    await expect(page.locator("#live")).to_have_text("connecting again", timeout=20_000)
    await page.close()
