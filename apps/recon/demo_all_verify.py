"""After the demo of everything: what is on disk, against the input and against sources of its own.

Places and systems are read from the MMDB files here, what listens is known to the demo, counts of scans come from an
independent reader. Nothing that the service said while it ran is believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import maxminddb

from apps.recon.application import create_app
from apps.recon.demo_child import Child
from apps.recon.demo_scans import DATA, Item
from apps.recon.demo_tally import Tally
from apps.recon.demo_verify import Report, check_steps, ended_invocations, recorded_steps
from apps.recon.serve import ENGINE_FILE, STORE_DIRECTORY
from apps.recon.store import LedgerLine, Store
from holdfast import Engine

REAL_CVES = {"CVE-2018-15473", "CVE-2017-7679"}
"""What the NVD's real answers say of OpenSSH 5.9p1 and Apache 2.2.22 in one of nmap's real reports."""

IN_FLIGHT_MAX = 16
"""Targets that a campaign scans at a time: so many may have been scanned, but not recorded, at a kill."""


@dataclass
class Expected:
    """What was put in."""

    jobs: dict[str, Item] = field(default_factory=dict[str, Item])
    enrichments: list[str] = field(default_factory=list[str])
    campaigns: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """The last status of each, as its API said."""
    open_ports: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """What listened on the networks of the campaigns, and was to be found."""
    connections: dict[str, int] = field(default_factory=dict[str, int])
    """How often each listener was connected to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison."""

    what: str
    found: str
    expected: str
    is_right: bool

    @classmethod
    def same(cls, what: str, found: Any, expected: Any) -> Finding:
        """Right when both are equal; sets are shown by their size and their difference."""
        if isinstance(found, set) and isinstance(expected, set):
            have, want = cast(set[Any], found), cast(set[Any], expected)
            lost, strange = sorted(map(str, want - have)), sorted(map(str, have - want))
            return cls(
                what, str(len(have)), f"{len(lost)} missing {lost[:2]}, {len(strange)} too many {strange[:2]}",
                have == want,
            )  # fmt: skip
        return cls(what, str(found), str(expected), found == expected)


async def verify_all(directory: Path, expected: Expected, *, child: Child, admin_url: str | None) -> list[Finding]:
    """Stop the service, open what it left, compare.

    Args:
        admin_url: Of the Restate server that was the engine; None when the engine was in the service.
    """
    findings: list[Finding] = []
    if admin_url is not None:
        findings += await _server_invocations(admin_url, expected)
    await child.stop()
    async with Store(directory / STORE_DIRECTORY) as store:
        findings += await _ingest(store, expected)
        findings += await _enrichment(store, expected)
        findings += await _campaigns(store, expected)
        ledger = await store.ledger()
        if admin_url is None:
            findings += await _embedded_engine(store, directory, ledger)
    return findings


async def _ingest(store: Store, expected: Expected) -> list[Finding]:
    (rows,) = await store.read("SELECT record::id(id) AS id, state, host_count, port_count, scanner_key FROM job")
    known = {row["id"]: row for row in rows}
    right = {
        job_id
        for job_id, item in expected.jobs.items()
        if (row := known.get(job_id)) is not None
        and row["state"] == ("completed" if item.tally.hosts else "failed")
        and (row["host_count"], row["port_count"]) == (len(item.tally.hosts), len(item.tally.ports))
    }
    union = Tally()
    for item in expected.jobs.values():
        union.add(item.tally)
    ports = union.ports | {(a, "tcp", number) for a, numbers in expected.open_ports.items() for number in numbers}
    told = {row["id"] for row in rows} - expected.jobs.keys()
    return [
        Finding.same("submitted scans, each one job with the counts of its file", right, set(expected.jobs)),
        Finding.same("jobs that have not ended", {r["id"] for r in rows if r["state"] in ("pending", "processing")}, set()),
        Finding("jobs made by campaigns from what they found", str(len(told)), "more than 0", bool(told)),
        Finding.same("ports of the graph, from files and from campaigns", await store.edges(), ports),
        Finding.same("scans and batches left behind", await store.row_counts("submission", "scan_batch"),
                     {"submission": 0, "scan_batch": 0}),
    ]  # fmt: skip


async def _enrichment(store: Store, expected: Expected) -> list[Finding]:
    hosts, runs, cves = await store.read(
        """SELECT address, asn, country, city FROM host WHERE ip != NONE;
        SELECT record::id(id) AS id, state FROM enrichment;
        SELECT VALUE record::id(out) FROM AFFECTED_BY;"""
    )
    found = {(host["address"], host.get("asn"), host.get("country"), host.get("city")) for host in hosts}
    states = {run["id"]: run["state"] for run in runs}
    with (
        maxminddb.open_database(DATA / "geoip" / "GeoLite2-ASN-Test.mmdb") as systems,
        maxminddb.open_database(DATA / "geoip" / "GeoLite2-City-Test.mmdb") as cities,
    ):
        wanted = {(host["address"], *_looked_up(systems, cities, host["address"])) for host in hosts}
    return [
        Finding.same("hosts with the system, country and city of the MMDB files", found, wanted),
        Finding("hosts with a place", str(sum(each[2] is not None for each in found)), "more than 5",
                sum(each[2] is not None for each in found) > 5),
        Finding.same("enrichments that ended", {n for n in expected.enrichments if states.get(n) == "completed"},
                     set(expected.enrichments)),
        Finding.same("real vulnerabilities of real services among those found", REAL_CVES & set(cves), REAL_CVES),
    ]  # fmt: skip


def _looked_up(systems: Any, cities: Any, address: str) -> tuple[int | None, str | None, str | None]:
    system: dict[str, Any] = systems.get(address) or {}
    place: dict[str, Any] = cities.get(address) or {}
    return (
        system.get("autonomous_system_number"),
        place.get("country", {}).get("iso_code"),
        place.get("city", {}).get("names", {}).get("en"),
    )


async def _campaigns(store: Store, expected: Expected) -> list[Finding]:
    (rows,) = await store.read("SELECT campaign, state, address, ports FROM campaign_target")
    found = {
        (row["campaign"], row["address"], port["number"])
        for row in rows
        if row["state"] == "scanned"
        for port in row["ports"]
    }
    names = {"127.66.0.1": "asked-yes"}
    wanted = {(names.get(a, "demo"), a, number) for a, numbers in expected.open_ports.items() for number in numbers}
    states = {name: status["status"] for name, status in expected.campaigns.items()}
    total = expected.campaigns["demo"]
    rejected = {row["address"] for row in rows if row["state"] == "rejected"}
    again = sum(expected.connections.get(address, 0) - 1 for address in expected.open_ports)
    return [
        Finding.same("campaigns that ended", states, dict.fromkeys(states, "complete")),
        Finding.same("targets of the campaign that were scanned", (total["scanned"], total["failed"]), (total["total"], 0)),
        Finding.same("listeners found, by the campaign that was to find them", found, wanted),
        Finding("targets scanned again, in flight at the kill", str(again), f"at most {IN_FLIGHT_MAX}",
                0 <= again <= IN_FLIGHT_MAX),
        Finding.same("what was approved and what was not", [expected.campaigns[n]["approval"] for n in ("asked-yes", "asked-no")],
                     ["approved", "denied"]),
        Finding.same("connections to the host that nobody approved", expected.connections.get("127.66.0.2", 0), 0),
        Finding.same("targets refused for want of a yes", rejected, {"127.66.0.2"}),
    ]  # fmt: skip


async def _embedded_engine(store: Store, directory: Path, ledger: list[LedgerLine]) -> list[Finding]:
    report = Report()
    async with Engine(create_app(store), db=directory / ENGINE_FILE) as engine:
        invocations = await ended_invocations(engine)
        check_steps(report, [step for each in invocations for step in recorded_steps(engine, each)], ledger)
    return [
        Finding.same("ingest workflows that have not ended", sum(e.status != "completed" for e in invocations), 0),
        Finding.same("recorded steps that ran again", report.repeated_recorded_count, 0),
        Finding.same("steps of the journal that are not in the database, or the other way", report.problems, []),
    ]


async def _server_invocations(admin_url: str, expected: Expected) -> list[Finding]:
    query = "SELECT target, status FROM sys_invocation WHERE target_service_name = 'IngestWorkflow'"
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(f"{admin_url}/query", json={"query": query}, headers={"accept": "application/json"})
    rows: list[dict[str, str]] = answer.raise_for_status().json()["rows"]
    of_jobs = [row["target"].split("/")[1] for row in rows]
    return [
        Finding.same("workflows at the server, one for each job", len([e for e in of_jobs if e in expected.jobs]),
                     len(expected.jobs)),
        Finding.same("ingest workflows that have not ended", sum(row["status"] != "completed" for row in rows), 0),
    ]  # fmt: skip
