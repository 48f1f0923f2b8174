"""`python -m apps.leads.web`: the scanner alone, from outside."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.leads.web.audit_checks import CHECKS
from apps.leads.web.cli import main
from apps.leads.web.signatures import BOOKING, CHAT, TECHNOLOGY, TRACKERS
from tests.leads.web_server import response, web_server
from tests.test_readme import ROOT, Shell, play

PAGE = (ROOT / "apps" / "leads" / "web" / "README.md").read_text()
BAKERY = ROOT / "apps" / "leads" / "data" / "pages" / "bakery.html"


def test_the_module_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apps.leads.web", str(BAKERY)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "phones            +3263600010, +3263600011 (fax), +32470123456\n" in done.stdout
    assert "AI-readability    90/100 passed: structured_data 20/20" in done.stdout


def test_everything_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(BAKERY), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["head"]["language"] == "fr-BE"


def test_a_file_that_is_not_there_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.html"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: no file nowhere.html; next: give a saved page, or an address with http:// or https://\n"


def test_a_wrong_network_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(BAKERY), "--allow-network", "localhost"]) == 2
    assert capsys.readouterr().err.startswith("error: 'localhost' does not appear to be an IPv4 or IPv6 network; next:")


async def test_a_site_on_this_machine_needs_leave(capsys: pytest.CaptureFixture[str]) -> None:
    async with web_server({"/": response("<title>Here</title>")}) as site:
        assert await asyncio.to_thread(main, [site.url]) == 1
        assert "not reachable, refused_address: 127.0.0.1" in capsys.readouterr().out
        assert await asyncio.to_thread(main, [site.url, "--allow-network", "127.0.0.0/8"]) == 0
        assert "title             Here" in capsys.readouterr().out


def test_the_page_about_it_is_true(tmp_path: Path) -> None:
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    (folder / "apps").symlink_to(ROOT / "apps")
    shell = Shell(folder, ROOT, outputs)
    try:
        assert play(PAGE, shell) == []
    finally:
        shell.stop()


def test_the_page_counts_right() -> None:
    assert f"{len(BOOKING)} booking services" in PAGE
    assert f"{len(CHAT)} chats, {len(TRACKERS)} trackers, {len(TECHNOLOGY)} programs" in PAGE
    assert f"by {len(CHECKS)} checks" in PAGE
