"""SIGKILL in the middle of enrichment: afterwards everything is as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from apps.recon.envelope import seal
from tests.recon.dying_enrichment import WRITERS
from tests.recon.intel import LINKOPING, LONDON, NOWHERE, Mirror, nvd_mirror

REPOSITORY = Path(__file__).resolve().parents[2]
ALL_POINTS = [f"{name} {when}" for name in WRITERS for when in ("before", "after")]
POINTS = ["apply_asn before", "keep_vulnerabilities after", "relate after", "record after"]
"""One of each sort: before a write, a step of a cache, of a service, of the workflow. RECON_ALL_POINTS=1 takes all."""
HOSTS = {LINKOPING: ("ssh", "OpenSSH", "7.2p2"), LONDON: ("http", "Apache httpd", "2.2.22"), NOWHERE: ("ssh", "", "")}

pytestmark = pytest.mark.slow


def report() -> str:
    hosts = "".join(
        f'<host><status state="up"/><address addr="{address}" addrtype="ipv4"/><ports><port protocol="tcp" portid="22">'
        f'<state state="open"/><service name="{name}" product="{product}" version="{version}"/></port></ports></host>'
        for address, (name, product, version) in HOSTS.items()
    )
    return f"<nmaprun>{hosts}</nmaprun>"


async def live(directory: Path, mirror: Mirror, die_at: str = "") -> tuple[int, str]:
    """Run the process to its end; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.recon.dying_enrichment", str(directory), mirror.url,
        cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, env={**os.environ, "DIE_AT": die_at},
    )  # fmt: skip
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


def envelope(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "envelope").write_bytes(seal(report(), SigningKey.generate(), timestamp_s=int(time.time())))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """What it prints when nothing happens, and how many questions the NVD gets."""
    directory = tmp_path_factory.mktemp("undisturbed")

    async def run() -> tuple[str, int]:
        envelope(directory)
        async with nvd_mirror() as mirror:
            code, printed = await live(directory, mirror)
            assert code == 0
            return printed, len(mirror.asked)

    return asyncio.run(run())


def test_the_undisturbed_run_finds_something(undisturbed: tuple[str, int]):
    """Otherwise the others would compare nothing with nothing."""
    printed, asked = undisturbed
    assert asked == 2
    for name in ("CVE-2018-15473", "CVE-2017-7679", "Linköping", "29518"):
        assert name in printed


@pytest.mark.parametrize("point", ALL_POINTS if os.environ.get("RECON_ALL_POINTS") else POINTS)
async def test_a_kill_at_any_step_changes_nothing(tmp_path: Path, undisturbed: tuple[str, int], point: str):
    expected, asked = undisturbed
    envelope(tmp_path)
    async with nvd_mirror() as mirror:
        code, printed = await live(tmp_path, mirror, die_at=point)
        assert (code, printed) == (-signal.SIGKILL, "")
        code, printed = await live(tmp_path, mirror)
        assert code == 0
        assert printed == expected
        # Only the question that was under way when it died is asked again, once for each of the two that were.
        assert asked <= len(mirror.asked) <= asked + (2 if point == "keep_vulnerabilities after" else 0)
