"""Enrichment as a whole, over HTTP, on the embedded engine and on a Restate server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from defusedxml import ElementTree
from restate import RunOptions
from starlette.responses import JSONResponse, Response

from apps.recon.enrich import addresses
from apps.recon.enrich.services import enrichment_services
from apps.recon.settings import InvalidSetting, Settings
from apps.recon.store import Store
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
    until,
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


async def test_the_scanners_own_cpe_counts_more_than_one_made_from_the_product(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(FULLSCAN.read_bytes())
    await recon.enrich(hosts=["192.168.1.254", "10.0.0.1"])
    job = await recon.ingest(nmap_report("192.0.2.7", 22, "ssh", "OpenSSH", "7.2p2"))
    await recon.enrich(job_id=(await recon.http.get("/v1/jobs")).json()["jobs"][1]["id"])
    await recon.enrich(job_id=job)
    found = await recon.rows("SELECT in.version AS version, confidence, conditional FROM AFFECTED_BY ORDER BY version")
    assert found == [
        {"version": "2.2.22", "confidence": 1.0, "conditional": False},
        {"version": "5.9p1 Debian 5ubuntu1", "confidence": 1.0, "conditional": False},
        {"version": "7.2p2", "confidence": 0.8, "conditional": False},
    ]
    [ssh] = await recon.rows("SELECT cpe, scanner_cpe FROM service WHERE version = '5.9p1 Debian 5ubuntu1'")
    assert ssh["scanner_cpe"] == ["cpe:/a:openbsd:openssh:5.9p1", "cpe:/o:linux:linux_kernel"]
    assert ssh["cpe"] == [SSH, "cpe:2.3:o:linux:linux_kernel:*:*:*:*:*:*:*:*"]


async def test_addresses_get_their_network_and_place(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.know(LINKOPING, MILTON, LONDON, GOOGLE, NOWHERE, "10.0.0.1")
    result = await recon.enrich(hosts=[LINKOPING, MILTON, LONDON, GOOGLE, NOWHERE, "10.0.0.1"], kinds=["asn", "geo"])
    assert result["host_count"] == 6
    assert counts(result["totals"]["asn"]) == {"asked": 6, "enriched": 3, "from_cache": 0, "not_found": 3, "failed": 0}
    assert counts(result["totals"]["geo"]) == {"asked": 6, "enriched": 3, "from_cache": 0, "not_found": 3, "failed": 0}
    hosts = await recon.rows(
        """SELECT address, asn, city, region, country, ->IN_ASN->asn.org AS org, ->IN_CITY->city.name AS cities,
            ->IN_CITY->city->IN_REGION->region.code AS regions,
            ->IN_CITY->city->IN_REGION->region->IN_COUNTRY->country.name AS countries FROM host ORDER BY address"""
    )
    by_address = {each.pop("address"): each for each in hosts}
    assert by_address[LINKOPING] == {
        "asn": 29518, "city": "Linköping", "region": "Östergötland County", "country": "SE", "org": ["Bredband2 AB"],
        "cities": ["Linköping"], "regions": ["E"], "countries": ["Sweden"],
    }  # fmt: skip
    assert (by_address[MILTON]["asn"], by_address[MILTON]["city"]) == (209, "Milton")
    assert (by_address[LONDON]["asn"], by_address[LONDON]["city"]) == (None, "London")
    assert (by_address[GOOGLE]["asn"], by_address[GOOGLE]["city"]) == (15169, None)
    for nowhere in (NOWHERE, "10.0.0.1"):
        assert (by_address[nowhere]["asn"], by_address[nowhere]["country"], by_address[nowhere]["cities"]) == (
            None,
            None,
            [],
        )


async def test_again_is_from_the_cache_changes_nothing_and_can_be_forced(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    job_id = await recon.ingest(FULLSCAN.read_bytes())
    await recon.know(LINKOPING)
    first = await recon.enrich(job_id=job_id)
    await recon.enrich(hosts=[LINKOPING])
    before = await graph(recon)
    asked = len(mirror.asked)
    second = await recon.enrich(job_id=job_id)
    assert await graph(recon) == before
    assert len(mirror.asked) == asked == 2
    for kind in ("asn", "geo", "vuln"):
        assert second["totals"][kind] == {**first["totals"][kind], "from_cache": 2}
    assert second["vulnerabilities"] == first["vulnerabilities"]
    forced = await recon.enrich(job_id=job_id, force_refresh=True)
    assert forced == first
    assert len(mirror.asked) == 4
    assert await graph(recon) == before


async def test_a_run_has_a_name_and_is_one_run(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.know(LINKOPING)
    assert await recon.start(hosts=[LINKOPING], id="monday") == "monday"
    first = await recon.final("monday")
    assert await recon.start(hosts=[LINKOPING], id="monday") == "monday"
    assert await recon.final("monday") == first
    listed = (await recon.http.get("/v1/enrich")).json()
    assert (listed["total"], [each["id"] for each in listed["enrichments"]]) == (1, ["monday"])
    answer = await recon.http.post("/v1/enrich/monday/cancel")
    assert (answer.status_code, answer.json()["error"]) == (409, "already_final")


async def test_more_hosts_than_fit_in_a_batch(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    announced = [f"1.128.{index // 200}.{index % 200 + 1}" for index in range(250)]
    await recon.know(*announced)
    result = await recon.enrich(hosts=[*announced, "203.0.113.9"], kinds=["asn"])
    assert (result["host_count"], result["batch_count"]) == (250, 3)
    assert counts(result["totals"]["asn"]) == {
        "asked": 250,
        "enriched": 250,
        "from_cache": 0,
        "not_found": 0,
        "failed": 0,
    }
    assert result["unknown"] == [{"subject": "203.0.113.9", "reason": "no such host"}]
    assert await recon.rows("SELECT count() FROM host WHERE asn = 1221 GROUP ALL") == [{"count": 250}]
    assert await recon.rows("SELECT VALUE count(<-IN_ASN) FROM asn:1221") == [250]


async def test_the_whois_server_is_asked_about_what_the_file_does_not_have(start: Any, mirror: Mirror, whois: Whois):
    recon: Intel = await start(**everything(mirror, whois_server=whois.server))
    await recon.know(LINKOPING, NOWHERE, "10.0.0.1", "8.8.8.8")
    whois.hang_ups = 1  # the engine tries again
    result = await recon.enrich(hosts=[LINKOPING, NOWHERE, "10.0.0.1", "8.8.8.8"], kinds=["asn"])
    assert whois.asked == [[NOWHERE, "8.8.8.8"]]  # not the one in the file, not the private one
    assert counts(result["totals"]["asn"]) == {"asked": 4, "enriched": 2, "from_cache": 0, "not_found": 2, "failed": 0}
    assert await recon.rows("SELECT number, org, country FROM asn:13335") == [
        {"number": 13335, "org": "CLOUDFLARENET, US", "country": "US"}
    ]
    again = await recon.enrich(hosts=[LINKOPING, NOWHERE, "10.0.0.1", "8.8.8.8"], kinds=["asn"])
    assert len(whois.asked) == 1
    assert again["totals"]["asn"] == {**result["totals"]["asn"], "from_cache": 4}


async def test_a_silent_whois_server_fails_its_addresses_and_no_others(
    start: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
):
    quick = RunOptions[Any](max_attempts=3, initial_retry_interval=timedelta(milliseconds=10))
    monkeypatch.setattr(addresses, "EXTERNAL_CALL", quick)
    async with whois_server({}) as gone:
        address = gone.server
    recon: Intel = await start(**everything(mirror, whois_server=address))
    await recon.know(LINKOPING, NOWHERE)
    result = await recon.enrich(hosts=[LINKOPING, NOWHERE])
    assert counts(result["totals"]["asn"]) == {"asked": 2, "enriched": 1, "from_cache": 0, "not_found": 0, "failed": 1}
    [failure] = result["totals"]["asn"]["failures"]
    assert failure["subject"] == NOWHERE
    assert "Connect" in failure["reason"]
    assert counts(result["totals"]["geo"])["enriched"] == 1


async def test_the_nvd_says_later_and_the_engine_comes_back(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(nmap_report("192.0.2.7", 22, "ssh", "OpenSSH", "7.2p2"))
    mirror.says += [lambda: Response(status_code=503), lambda: Response(status_code=403), lambda: Response(b"<html>")]
    result = await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"])
    assert counts(result["totals"]["vuln"]) == {"asked": 1, "enriched": 1, "from_cache": 0, "not_found": 0, "failed": 0}
    assert len(mirror.keys) == 4


async def test_a_name_that_the_nvd_refuses_fails_alone_and_what_was_known_stays(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(nmap_report("192.0.2.7", 22, "ssh", "OpenSSH", "7.2p2"))
    await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"])
    await recon.ingest(nmap_report("192.0.2.8", 80, "http", "Apache httpd", "2.4.25"))
    mirror.says.append(lambda: Response(status_code=404, headers={"message": "Invalid cpeName."}))
    result = await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"], force_refresh=True)
    assert counts(result["totals"]["vuln"])["failed"] == 1
    assert result["totals"]["vuln"]["failures"] == [
        {"subject": "cpe:2.3:a:openbsd:openssh:7.2:p2:*:*:*:*:*:*", "reason": "NVD: 404 Invalid cpeName."}
    ]
    assert await recon.rows("SELECT VALUE out.cve_id FROM AFFECTED_BY") == ["CVE-2018-15473"]
    assert (await recon.enrich(hosts=["192.0.2.8"], kinds=["vuln"]))["vulnerabilities"]["vulns"] == 1


async def test_the_key_goes_along_and_the_known_exploited_are_flagged(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror, nvd_api_key="secret"))
    exchange = "cpe:2.3:a:microsoft:exchange_server:2013:cumulative_update_23:*:*:*:*:*:*"
    await recon.ingest(nmap_report("192.0.2.7", 443, "https", "Exchange", "15", exchange))
    await recon.enrich(hosts=["192.0.2.7"])
    assert set(mirror.keys) == {"secret"}
    assert await recon.rows("SELECT cve_id, kev_flag FROM vuln") == [{"cve_id": "CVE-2021-26855", "kev_flag": True}]
    [title] = await recon.rows("SELECT VALUE title FROM vuln_doc")
    assert title == "Microsoft Exchange Server Remote Code Execution Vulnerability"


async def test_a_new_catalogue_flags_what_is_known_already(start: Any, mirror: Mirror):
    """Without asking the NVD again, and both ways."""
    recon: Intel = await start(**everything(mirror))
    exchange = "cpe:2.3:a:microsoft:exchange_server:2013:cumulative_update_23:*:*:*:*:*:*"
    await recon.ingest(nmap_report("192.0.2.7", 443, "https", "Exchange", "15", exchange))
    await recon.ingest(nmap_report("192.0.2.8", 22, "ssh", "OpenSSH", "7.2p2"))
    await recon.enrich(hosts=["192.0.2.7", "192.0.2.8"], kinds=["vuln"])
    flags = "SELECT VALUE [cve_id, kev_flag] FROM vuln"
    expected = [["CVE-2018-15473", False], ["CVE-2021-26855", True]]
    assert sorted(await recon.rows(flags)) == expected
    await recon.store.write("UPDATE vuln SET kev_flag = !kev_flag; UPDATE catalogue:kev SET version = 'older'")
    asked = len(mirror.asked)
    await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"])
    assert sorted(await recon.rows(flags)) == expected
    assert len(mirror.asked) == asked


async def test_a_banner_gives_away_what_the_scanner_did_not_name(start: Any, mirror: Mirror):
    """And for its own port only: the service without a product is shared by many."""
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(nmap_report("192.0.2.7", 2222, "unknown", banner="SSH-2.0-OpenSSH_7.4p1 Debian-10+deb9u7"))
    await recon.ingest(nmap_report("192.0.2.8", 2222, "unknown", banner="something else"))
    hosts = ["192.0.2.7", "192.0.2.8"]
    await recon.enrich(hosts=hosts, kinds=["vuln"])
    running = "SELECT in.host.address AS host, out.product AS product, out.version AS version, confidence FROM RUNS ORDER BY host"
    assert await recon.rows(running) == [
        {"host": "192.0.2.7", "product": "OpenSSH", "version": "7.4p1", "confidence": 0.6},
        {"host": "192.0.2.8", "product": None, "version": None, "confidence": 1.0},
    ]
    assert await recon.rows("SELECT VALUE out.cve_id FROM AFFECTED_BY") == ["CVE-2018-15473"]
    await recon.ingest(nmap_report("192.0.2.7", 2222, "unknown", banner="SSH-2.0-OpenSSH_8.4p1"), later_s=1)
    await recon.enrich(hosts=hosts, kinds=["vuln"])
    assert (await recon.rows(running))[0]["version"] == "8.4p1"
    affected = await recon.rows("SELECT VALUE array::flatten(->RUNS->service->AFFECTED_BY->vuln.cve_id) FROM port")
    assert affected == [[], []]


async def test_a_vulnerability_that_no_longer_applies_is_gone(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(nmap_report("192.0.2.7", 22, "ssh", "OpenSSH", "7.2p2"))
    await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"])
    empty = {"resultsPerPage": 0, "startIndex": 0, "totalResults": 0, "vulnerabilities": []}
    mirror.says.append(lambda: JSONResponse(empty))
    result = await recon.enrich(hosts=["192.0.2.7"], kinds=["vuln"], force_refresh=True)
    assert counts(result["totals"]["vuln"])["not_found"] == 1
    assert await recon.rows("SELECT * FROM AFFECTED_BY") == []


async def test_what_is_not_configured_is_named(start: Any):
    recon: Intel = await start(enrich_after_ingest=False)
    await recon.ingest(FULLSCAN.read_bytes())
    for kind, setting in (
        ("asn", "neither RECON_GEOIP_ASN nor RECON_WHOIS is set"),
        ("geo", "RECON_GEOIP_CITY is not set"),
    ):
        answer = await recon.http.post("/v1/enrich", json={"hosts": [LONDON], "kinds": [kind]})
        assert (answer.status_code, answer.json()["error"]) == (503, "not_configured")
        assert setting in answer.json()["message"]
    jobs = (await recon.http.get("/v1/jobs")).json()["jobs"]
    result = await recon.enrich(job_id=jobs[0]["id"])
    assert {kind: "RECON_" in totals["skipped"] for kind, totals in result["totals"].items()} == {
        "asn": True, "geo": True, "vuln": True,
    }  # fmt: skip
    services = {
        (service.get("name"), service.get("product"), service.get("version"))
        for service in ElementTree.parse(FULLSCAN).iterfind(".//service/../state[@state='open']/../service")
    }
    assert result["vulnerabilities"] == {"services": len(services), "cpes": 2, "vulns": 0, "relations": 0}
    assert await recon.rows("SELECT VALUE cpe FROM service WHERE product = 'Apache httpd'") == [[APACHE]]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "either job_id or hosts"),
        ({"hosts": []}, 400, "either job_id or hosts"),
        ({"hosts": [LONDON], "job_id": "x"}, 400, "either job_id or hosts"),
        ({"hosts": ["example.com"]}, 400, "'example.com' is not an IP address"),
        ({"hosts": [LONDON] * 1001}, 400, "1001 hosts; at most 1000"),
        ({"job_id": "0190-nope"}, 404, "there is no job 0190-nope"),
        ({"hosts": [LONDON], "kinds": ["dns"]}, 400, "dns"),
        ({"hosts": [LONDON], "id": "a/b"}, 400, "id must be"),
        ({"hosts": [LONDON], "what": 1}, 400, "what"),
    ],
)
async def test_what_cannot_be_started_says_why(tmp_path: Path, body: dict[str, Any], status: int, message: str):
    async with intel(tmp_path, Settings()) as recon:
        answer = await recon.http.post("/v1/enrich", json=body)
        assert (answer.status_code, message in answer.json()["message"]) == (status, True), answer.text
        assert (await recon.http.get("/v1/enrich")).json()["total"] == 0
        for missing in ("nope", "a%2Fb", "x" * 200):
            assert (await recon.http.get(f"/v1/enrich/{missing}")).status_code == 404


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("geoip_asn_path", "RECON_GEOIP_ASN"), ("geoip_city_path", "RECON_GEOIP_CITY"), ("kev_path", "RECON_KEV")],
)
def test_a_missing_or_wrong_file_is_refused_at_start_with_its_setting(tmp_path: Path, setting: str, variable: str):
    wrong: Any = {"geoip_asn_path": CITY_FILE, "geoip_city_path": ASN_FILE, "kev_path": ASN_FILE}
    for path, reason in ((tmp_path / "missing", "No such file"), (wrong[setting], "is "), (FULLSCAN, "is not ")):
        given: dict[str, Any] = {setting: path}
        with pytest.raises(InvalidSetting, match=f"^{variable}: .*{reason}"):
            enrichment_services(Store(tmp_path / "surreal"), Settings(**given))


async def test_cancel_stops_between_batches(start: Any, mirror: Mirror):
    recon: Intel = await start(**everything(mirror))
    await recon.ingest(nmap_report("192.0.2.7", 22, "ssh", "OpenSSH", "7.2p2"))
    mirror.says += [lambda: Response(status_code=503, headers={"retry-after": "600"})] * 4
    run_id = await recon.start(hosts=["192.0.2.7"], kinds=["vuln"])
    await until(lambda: mirror.keys)
    answer = await recon.http.post(f"/v1/enrich/{run_id}/cancel")
    assert answer.status_code == 202, answer.text
    run = await recon.final(run_id)
    assert run["state"] == "cancelled"
    assert run["finished_at"] is not None


# -- helpers ---------------------------------------------------------------------------------------------------------


def counts(totals: dict[str, Any]) -> dict[str, int]:
    return {name: totals[name] for name in ("asked", "enriched", "from_cache", "not_found", "failed")}


def nmap_report(
    address: str, port: int, name: str, product: str = "", version: str = "", cpe: str = "", *, banner: str = ""
) -> str:
    """What nmap writes about one service of one host."""
    said = f'<script id="banner" output="{banner}"/>' if banner else ""
    named = f"<cpe>{cpe}</cpe>" if cpe else ""
    return (
        f'<nmaprun><host><status state="up"/><address addr="{address}" addrtype="ipv4"/><ports>'
        f'<port protocol="tcp" portid="{port}"><state state="open"/>'
        f'<service name="{name}" product="{product}" version="{version}">{named}</service>{said}</port>'
        "</ports></host></nmaprun>"
    )


async def graph(recon: Intel) -> list[Any]:
    """All that enrichment wrote, without the times at which it looked."""
    return await recon.store.read(
        """SELECT address, asn, city, region, country FROM host ORDER BY address;
        SELECT id, in, out FROM IN_ASN ORDER BY id; SELECT id, in, out FROM IN_CITY ORDER BY id;
        SELECT id, in, out FROM IN_REGION ORDER BY id; SELECT id, in, out FROM IN_COUNTRY ORDER BY id;
        SELECT * FROM asn ORDER BY id; SELECT * FROM city ORDER BY id; SELECT fingerprint, cpe FROM service ORDER BY fingerprint;
        SELECT cve_id, cvss, severity, kev_flag, first_seen FROM vuln ORDER BY cve_id; SELECT * FROM vuln_doc ORDER BY id;
        SELECT id, in, out, confidence, conditional, cpe, first_detected FROM AFFECTED_BY ORDER BY id;
        SELECT id, in, out, confidence FROM RUNS ORDER BY id;"""
    )
