"""The README's commands, as a person would type them, against recon as it is served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from apps.recon.campaigns.cli import approvals, campaigns
from apps.recon.cli.client import Api

REPOSITORY = Path(__file__).resolve().parents[3]
README = REPOSITORY / "apps" / "recon" / "campaigns" / "README.md"
PATIENCE_S = 60.0
SETTINGS = {
    "RECON_SENSITIVE_NETWORKS": "127.66.0.0/16",
    "RECON_ADMIN_TOKEN": "docs",
    "RECON_ENRICH": "false",
    "RECON_BANNER_TIMEOUT_S": "0.5",
}

pytestmark = pytest.mark.slow


@contextmanager
def served(home: Path) -> Iterator[str]:
    """recon as `serve` runs it; its address."""
    command = [sys.executable, "-m", "apps.recon", "serve", "--dir", str(home), "--port", "0"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[0-9.:]+", process.stdout.readline())
        assert found, (home / "log").read_text()
        yield found.group()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def run(url: str, arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps.recon", *arguments.split()]
    environment = {**os.environ, **SETTINGS, "RECON_URL": url}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def test_the_readmes_commands(tmp_path: Path) -> None:
    commands = re.findall(r"^\$ python -m apps\.recon (.+)$", README.read_text(), re.MULTILINE)
    assert len(commands) == 9
    with served(tmp_path) as url:
        shown: dict[str, str] = {}
        for command in commands:
            if command.startswith("approvals"):
                wait_for_the_question(url)
            done = run(url, command)
            assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{command}: {done.stderr}"
            shown[command] = done.stdout
        assert "complete" in shown["campaigns status second --wait"]
        assert "127.0.0.6" in shown["campaigns report first"]
        assert "May campaign second scan" in shown["approvals list"]
        assert "reputation" in shown["contributor local"]

        late = run(url, "approvals deny second --by Grace")
        assert (late.returncode, late.stderr.count("\n")) == (1, 1), late.stderr
        assert "Ada was first" in late.stderr
        for wrong, message in (
            ("campaigns report never", "there is no campaign never"),
            ("campaigns start", "0 targets"),
            ("campaigns start 127.0.0.1 --ports a,b", "numbers with commas"),
            ("campaigns cancel first", "is complete"),
            ("threats show CVE-1-1", "there is no threat"),
        ):
            refused = run(url, wrong)
            assert refused.returncode == 2, wrong
            assert message in refused.stderr
            assert "Traceback" not in refused.stderr
        said_of_a_cancelled_one(url)


def said_of_a_cancelled_one(url: str) -> None:
    """In this process: an interpreter for each command costs a second."""

    def said(arguments: str, token: str = SETTINGS["RECON_ADMIN_TOKEN"]) -> tuple[int, str]:
        group, *rest = arguments.split()
        command = {"campaigns": campaigns, "approvals": approvals}[group]
        done = CliRunner().invoke(command, rest, obj=Api(url, token))
        return done.exit_code, done.stderr

    assert said("campaigns start 127.66.0.1 --id third") == (0, "")
    wait_for_the_question(url, "third")
    without_token = "error: this route needs the admin token\nnext: give it by --token or RECON_ADMIN_TOKEN\n"
    assert said("approvals deny third", token="") == (2, without_token)
    assert said("campaigns cancel third") == (0, "")
    code, last = said("campaigns status third --wait")
    assert (code, last.splitlines()[-1]) == (1, "error: campaign third is cancelled")
    assert said("approvals approve third") == (1, "error: this answer did not count: the campaign was cancelled\n")


def wait_for_the_question(url: str, campaign: str = "second") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while httpx.get(f"{url}/v1/approvals/{campaign}").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two looks at the condition
