"""Enrichment as a whole, over HTTP, on the embedded engine and on a Restate server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from apps.recon.settings import Settings
from tests.recon.intel import (
    ASN_FILE,
    CITY_FILE,
    FULLSCAN,
    GOOGLE,
    KEV_FILE,
    LINKOPING,
    LONDON,
    MILTON,
    NOWHERE,
    Intel,
    Mirror,
    Whois,
    intel,
    nvd_mirror,
    whois_server,
)

SSH = "cpe:2.3:a:openbsd:openssh:5.9:p1:*:*:*:*:*:*"
APACHE = "cpe:2.3:a:apache:http_server:2.2.22:*:*:*:*:*:*:*"
WHOIS_LINES = {
    NOWHERE: f"13335   | {NOWHERE}     | 104.16.0.0/12       | US | arin     | 2014-03-28 | CLOUDFLARENET, US"
}


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with nvd_mirror() as mirror:
        yield mirror


@pytest.fixture
async def whois() -> AsyncIterator[Whois]:
    async with whois_server(WHOIS_LINES) as whois:
        yield whois


@pytest.fixture(params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Starts recon on either engine, with the settings given."""
    server = request.getfixturevalue("restate_server") if request.param == "restate" else None
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Intel:
            return await stack.enter_async_context(intel(tmp_path, Settings(**settings), server))

        yield start


def everything(mirror: Mirror, **more: Any) -> dict[str, Any]:
    """Settings with all sources but whois."""
    return {
        "geoip_asn_path": ASN_FILE,
        "geoip_city_path": CITY_FILE,
        "kev_path": KEV_FILE,
        "nvd_enabled": True,
        "nvd_url": mirror.url,
        "nvd_requests_per_30s": 3000,
        "enrich_after_ingest": False,
        **more,
    }


async def test_the_chain_from_a_real_scan_to_its_vulnerabilities(start: Any, mirror: Mirror):
    """nmap's report -> services -> CPE names -> the NVD's records -> what affects them."""
    recon: Intel = await start(**everything(mirror, enrich_after_ingest=True))
    job_id = await recon.ingest(FULLSCAN.read_bytes())
    run = await recon.final(f"job-{job_id}")
    assert run["state"] == "completed"
    assert sorted(mirror.asked) == [APACHE, SSH]
    assert run["result"]["vulnerabilities"]["vulns"] == 2
    affected = await recon.rows(
        """SELECT in.product AS product, in.version AS version, out.cve_id AS cve_id, out.cvss AS cvss,
            out.severity AS severity, out.kev_flag AS kev, cpe FROM AFFECTED_BY ORDER BY cve_id"""
    )
    assert affected == [
        {
            "product": "Apache httpd", "version": "2.2.22", "cve_id": "CVE-2017-7679", "cvss": 9.8,
            "severity": "CRITICAL", "kev": False, "cpe": APACHE,
        },
        {
            "product": "OpenSSH", "version": "5.9p1 Debian 5ubuntu1", "cve_id": "CVE-2018-15473", "cvss": 5.3,
            "severity": "MEDIUM", "kev": False, "cpe": SSH,
        },
    ]  # fmt: skip
