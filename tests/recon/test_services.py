"""Services, banners and certificates: what runs on a port, as records and edges of the graph."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.recon.batches import cut
from apps.recon.model import Certificate, Host, IngestRequest, Port, Scan
from apps.recon.parsers import parse_scan
from apps.recon.parsers.evidence import read_certificate
from apps.recon.store import Step, Store

DATA = Path(__file__).resolve().parents[2] / "apps" / "recon" / "data"
AT_S = 1_790_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(tmp_path / "surreal") as store:
        yield store


async def put(store: Store, scan: Scan, job_id: str = "job-1", *, at_s: int = AT_S) -> None:
    await store.create_job(IngestRequest(job_id, "key", at_s), "a scan")
    await store.stage(Step.begin(job_id, "parse"), batches := list(cut(scan)))
    for index in range(len(batches)):
        await store.persist(Step.begin(job_id, f"persist-{index + 1}"), index, at_s)


def on(*ports: Port, address: str = "192.0.2.1") -> Scan:
    return Scan("nmap", {address: Host(address, address, None, {(each.protocol, each.number): each for each in ports})})


async def rows(store: Store, sql: str) -> list[Any]:
    (found,) = await store.read(sql)
    return found


async def running(store: Store) -> list[list[Any]]:
    """Address, port, service, product and version along the edges."""
    found = await rows(store, "SELECT in, out.name AS n, out.product AS p, out.version AS v FROM RUNS ORDER BY in")
    return [[each["in"].id[0], each["in"].id[2], each["n"], each.get("p"), each.get("v")] for each in found]


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "nmap").glob("*.xml")))
async def test_every_service_of_a_real_report_is_a_record_with_an_edge(store: Store, name: str):
    """Each port that the report says more of than its number, and no other."""
    scan = parse_scan((DATA / "nmap" / name).read_text()) if name != "libnmap_2_null_hosts.xml" else on()
    await put(store, scan)
    told = [
        [host.address, port.number, port.service or "unknown", port.product, port.version]
        for host in scan.hosts.values()
        for port in host.ports.values()
        if port.service or port.product
    ]
    assert sorted(await running(store), key=str) == sorted(told, key=str)
    fingerprints = {
        hashlib.sha256("|".join(each or "" for each in words).lower().encode()).hexdigest() for _, _, *words in told
    }
    assert set(await rows(store, "SELECT VALUE fingerprint FROM service")) == fingerprints
    assert set(await rows(store, "SELECT VALUE record::id(id) FROM service")) == fingerprints


async def test_hosts_that_run_the_same_share_one_record_but_not_their_ports(store: Store):
    ssh = Port("tcp", 22, "ssh", "OpenSSH", "9.6")
    await put(store, on(ssh, address="192.0.2.1"))
    await put(store, on(ssh, address="192.0.2.2"), "job-2")
    await put(store, on(Port("tcp", 22), address="192.0.2.3"), "job-3")
    assert len(await rows(store, "SELECT id FROM service")) == 1
    assert [each[0] for each in await running(store)] == ["192.0.2.1", "192.0.2.2"]
    found = await rows(store, "SELECT VALUE ->HAS->port->RUNS->service.product FROM host:⟨192.0.2.3⟩")
    assert found == [[]], "the same number on another host says nothing"


async def test_a_port_that_runs_something_else_has_one_edge_to_that(store: Store):
    await put(store, on(Port("tcp", 80, "http", "nginx", "1.18.0")))
    await put(store, on(Port("tcp", 80, "http", "Apache httpd")), "job-2", at_s=AT_S + 60)
    assert await running(store) == [["192.0.2.1", 80, "http", "Apache httpd", None]]
    assert sorted(await rows(store, "SELECT VALUE product FROM service")) == ["Apache httpd", "nginx"]


@pytest.mark.parametrize(("first_s", "second_s"), [(0, 60), (60, 0)], ids=["in order", "the older one arrives late"])
async def test_what_was_observed_last_counts_whatever_arrives_first(store: Store, first_s: int, second_s: int):
    at = {0: Port("tcp", 80, "http", "nginx", "1.18.0"), 60: Port("tcp", 80, "http", "nginx", "1.27.1")}
    await put(store, on(at[first_s]), "job-1", at_s=AT_S + first_s)
    await put(store, on(at[second_s]), "job-2", at_s=AT_S + second_s)
    assert await running(store) == [["192.0.2.1", 80, "http", "nginx", "1.27.1"]]


async def test_a_scan_that_knows_less_takes_nothing_away(store: Store):
    await put(store, on(Port("tcp", 80, "http", "nginx", "1.18.0")))
    await put(store, on(Port("tcp", 80)), "job-2", at_s=AT_S + 60)  # naabu
    await put(store, on(Port("tcp", 80, "http")), "job-3", at_s=AT_S + 120)  # masscan
    assert await running(store) == [["192.0.2.1", 80, "http", "nginx", "1.18.0"]]


async def test_banners_and_certificates_are_evidence_of_the_service(store: Store):
    for number, name in enumerate(("libnmap_dionaea_scan.xml", "libnmap_fullscan.xml")):
        await put(store, parse_scan((DATA / "nmap" / name).read_text()), f"job-{number}")
    found = await rows(
        store,
        "SELECT VALUE [in.name, evidence_type, record::id(port), out.sample ?? out.cn] FROM EVIDENCED_BY",
    )
    found.sort(key=lambda each: each[2])
    assert [each[:3] for each in found] == [
        ["ftp", "banner", ["172.28.1.3", "tcp", 21]],
        ["mysql", "banner", ["172.28.1.3", "tcp", 3306]],
        ["https", "tls_cert", ["192.168.1.1", "tcp", 443]],
        ["telnet", "tls_cert", ["192.168.1.1", "tcp", 992]],
        ["https-alt", "tls_cert", ["192.168.1.1", "tcp", 8443]],
    ]
    assert found[0][3] == "220 DiskStation FTP server ready."
    assert {each[3] for each in found[2:]} == {"ORname_Jungo: OpenRG Products Group"}
    [certificate] = await rows(store, "SELECT * FROM tls_cert")
    assert certificate["not_before"].isoformat() == "2004-06-03T10:11:43+00:00"
    assert certificate["not_after"].isoformat() == "2024-05-29T10:11:43+00:00"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "yesterday"])
def test_a_date_that_no_calendar_has_leaves_the_certificate_without_it(moment: str):
    pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----"
    told = f"Subject: commonName=a.example\nNot valid before: {moment}\nNot valid after:  2030-01-01T00:00:00\n{pem}"
    certificate = read_certificate(told)
    assert certificate is not None
    assert (certificate.cn, certificate.not_before) == ("a.example", None)
    assert certificate.not_after == datetime(2030, 1, 1, tzinfo=UTC)


async def test_a_long_banner_keeps_its_hash_and_a_sample(store: Store):
    banner = "é" * 5000
    await put(store, on(Port("tcp", 25, banner=banner)))
    [row] = await rows(store, "SELECT hash, sample FROM banner")
    assert row == {"hash": hashlib.sha256(banner.encode()).hexdigest(), "sample": "é" * 2048}
    assert await running(store) == [["192.0.2.1", 25, "unknown", None, None]]


async def test_the_same_scan_again_leaves_the_graph_as_it_is(store: Store):
    certificate = Certificate("a" * 64, "a.example", ("a.example", "b.example"))
    scan = on(Port("tcp", 443, "https", "nginx", "1", "hello", certificate), Port("udp", 53, "domain"))
    tables = ("host", "port", "service", "banner", "tls_cert", "HAS", "RUNS", "EVIDENCED_BY")
    await put(store, scan)
    once = await store.row_counts(*tables)
    await put(store, scan, "job-2", at_s=AT_S + 60)
    assert await store.row_counts(*tables) == once
    assert once == dict.fromkeys(tables, 1) | {"port": 2, "HAS": 2, "service": 2, "RUNS": 2, "EVIDENCED_BY": 2}


async def test_a_job_knows_its_hosts_by_pages(store: Store):
    addresses = sorted(f"10.0.0.{number}" for number in range(25))
    await put(store, Scan("naabu", {each: Host(each, each, None, {("tcp", 1): Port("tcp", 1)}) for each in addresses}))
    await put(store, on(Port("tcp", 1)), "job-2")
    assert await store.hosts_of_job("job-1") == addresses
    first = await store.hosts_of_job("job-1", limit=20)
    assert first + await store.hosts_of_job("job-1", limit=20, after=first[-1]) == addresses
    assert await store.hosts_of_job("job-2") == ["192.0.2.1"]
    assert await store.hosts_of_job("nobody") == []
