"""What several scans and enrichment know of a host comes together in one finding."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
from nacl.signing import SigningKey

from apps.recon.envelope import seal
from apps.recon.settings import Settings
from apps.recon.store import Store
from tests.recon.campaigns.conftest import SETTINGS, Side, until
from tests.recon.campaigns.world import listening
from tests.recon.conftest import StartRecon

SSH = b"SSH-2.0-OpenSSH_9.6p1\r\n"
NMAP = """<nmaprun><host><status state="up"/><address addr="127.0.0.2" addrtype="ipv4"/>
<hostnames><hostname name="box.example.org"/></hostnames><ports><port protocol="tcp" portid="23">
<state state="open"/><service name="telnet" product="Linux telnetd"/></port></ports></host></nmaprun>"""
VULNERABLE = """
LET $service = (SELECT VALUE ->RUNS->service FROM ONLY type::thing('port', ['127.0.0.2', 'tcp', 23]))[0];
UPSERT vuln:⟨CVE-2026-1⟩ SET cve_id = 'CVE-2026-1', cvss = 9.8, severity = 'CRITICAL', first_seen = time::now(),
    last_updated = time::now();
RELATE $service->AFFECTED_BY->vuln:⟨CVE-2026-1⟩ SET confidence = 1, conditional = false, cpe = 'cpe:2.3:a:x',
    first_detected = time::now(), last_confirmed = time::now();
"""


async def ingest(side: Side, text: str) -> str:
    """A scan that somebody submitted; its job id."""
    body = seal(text, SigningKey.generate(), timestamp_s=int(time.time()))
    answer = await side.api.post("/v1/mesh/ingest", content=body)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]

    async def look() -> bool:
        return (await side.get(f"/v1/jobs/{job_id}"))["state"] == "completed"

    await until(look)
    return job_id


async def test_a_host_that_several_scans_saw_is_one_entry_with_all_that_is_known(side: Side, key: str) -> None:
    job_id = await ingest(side, NMAP)
    await side.store.write(VULNERABLE)
    async with listening("127.0.0.2", greeting=SSH) as port, listening("127.0.0.2", "127.0.0.3") as other:
        await side.run(["127.0.0.2"], key=f"{key}-1", ports=[other])
        report = await side.run(["127.0.0.2", "127.0.0.3"], key=f"{key}-2", ports=[port])

    assert [host["address"] for host in report["hosts"]] == ["127.0.0.2", "127.0.0.3"]
    host = report["hosts"][0]
    assert [one["number"] for one in host["ports"]] == sorted([23, port, other])
    assert {f"{key}-1", f"{key}-2", job_id} <= set(host["scans"])
    assert host["names"] == ["box.example.org"]
    assert host["threats"] == ["CVE-2026-1", "EXPOSED-TELNET"]
    threats = {threat["threat_id"]: threat for threat in report["threats"]}
    assert threats["CVE-2026-1"]["severity"] == "critical"
    assert threats["EXPOSED-TELNET"]["hosts"] == ["127.0.0.2"]

    known = await side.get("/v1/threats/CVE-2026-1")
    assert f"campaign:{key}-1" in known["threat"]["sources"]
    assert known["threat"]["host_count"] == 1


async def test_what_a_campaign_finds_is_in_the_graph_like_every_other_scan(side: Side, key: str) -> None:
    async with listening("127.0.0.2", greeting=SSH) as port:
        await side.run(["127.0.0.2", "127.0.0.3"], key=key, ports=[port])
    assert ("127.0.0.2", "tcp", port) in await side.store.ports()
    assert "127.0.0.3" in await side.store.hosts()  # it answered, though nothing is open
    [job] = (await side.get("/v1/jobs"))["jobs"]
    assert (job["state"], job["host_count"], job["port_count"], job["scanner_key"]) == ("completed", 2, 1, "local")


async def test_correlating_again_finds_what_became_known_since(side: Side, key: str) -> None:
    async with listening("127.0.0.2") as port:
        report = await side.run(["127.0.0.2"], key=key, ports=[port])
    assert report["threats"] == []
    await ingest(side, NMAP)
    again = await side.call("/Correlator/correlate", key)
    assert again == {"host_count": 1, "threat_count": 1}
    report = await side.get(f"/v1/campaigns/{key}/report")
    assert [threat["threat_id"] for threat in report["threats"]] == ["EXPOSED-TELNET"]


async def test_a_campaign_in_the_whole_application_waits_for_enrichment(start_recon: StartRecon, key: str) -> None:
    """The services as they are served, with nothing exchanged."""
    settings: Settings = replace(SETTINGS, admin_token=None, enrich_after_ingest=True)
    async with start_recon(settings) as recon, listening("127.0.0.2", greeting=SSH) as port:
        done = await campaign(recon.http, {"targets": ["127.0.0.2"], "campaign_id": key, "options": {"ports": [port]}})
        assert (done["status"], done["is_published"]) == ("complete", True)
        [run] = await enrichments(recon.store)
        assert (run["state"], run["host_count"]) == ("completed", 1)
        assert run["finished_at"] <= done_at(done)
        page = await recon.http.get("/")
        assert "Campaigns" in page.text
        assert key in page.text


async def campaign(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    started = await http.post("/v1/campaigns", json=body)
    assert started.status_code == 202, started.text

    async def look() -> dict[str, Any] | None:
        found = (await http.get(f"/v1/campaigns/{body['campaign_id']}")).json()
        return found if found["status"] in ("complete", "failed") else None

    return await until(look)


async def enrichments(store: Store) -> list[dict[str, Any]]:
    (rows,) = await store.read("SELECT * FROM enrichment")
    return rows


def done_at(campaign: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(campaign["completed_at"])
