"""What the correlator reads and writes: hosts from campaigns and from the graph, vulnerabilities, findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from surrealdb import RecordID

from apps.recon.campaigns.correlate import Seen, Threat, Vulnerability, exposed_threat, vulnerability_threat
from apps.recon.campaigns.model import SCANS_SHOWN_MAX, HostFinding, OpenPort, ThreatFinding
from apps.recon.store import Store

_SEEN_BY_CAMPAIGNS = """
SELECT campaign, target, address, ports, scanned_at FROM campaign_target
    WHERE address IN $addresses AND state = 'scanned' AND is_up ORDER BY scanned_at DESC
"""
_PORTS = """
SELECT record::id(id) AS id, service, product, version,
    ->RUNS->service->AFFECTED_BY->vuln.{cve_id, severity} AS vulnerabilities
    FROM array::flatten($hosts->HAS->port)
"""


class FindingStore:
    """Findings of campaigns, on recon's database."""

    def __init__(self, store: Store) -> None:
        self._base = store

    async def addresses(self, campaign_id: str, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Addresses that answered in a page of a campaign's targets, and where the next page begins."""
        (rows,) = await self._base.read(
            "SELECT target, state, is_up, address FROM campaign_target:[$campaign, $after]>..[$campaign, {}] LIMIT $limit",
            campaign=campaign_id,
            after=after,
            limit=limit,
        )
        answered = [row["address"] for row in rows if row["state"] == "scanned" and row["is_up"]]
        return list(dict.fromkeys(answered)), rows[-1]["target"] if len(rows) == limit else None

    async def seen(self, addresses: Sequence[str]) -> list[Seen]:
        """These hosts in every scan that told of them: campaigns, the newest first, then ingested jobs."""
        (rows,) = await self._base.read(_SEEN_BY_CAMPAIGNS, addresses=list(addresses))
        seen = [
            Seen(
                row["campaign"],
                row["address"],
                None if row["target"] == row["address"] else row["target"],
                msgspec.convert(row["ports"], list[OpenPort]),
            )
            for row in rows
        ]
        hosts = _hosts(addresses)
        (jobs,) = await self._base.read(
            """SELECT address, name, (SELECT VALUE job FROM sighting WITH INDEX sighting_host WHERE host = $parent.id
                ORDER BY job) AS jobs FROM $hosts""",
            hosts=hosts,
        )
        (ports,) = await self._base.read(_PORTS, hosts=hosts)
        by_address: dict[str, list[OpenPort]] = {}
        for row in ports:
            address, protocol, number = row["id"]
            by_address.setdefault(address, []).append(
                OpenPort(number, protocol, row.get("service"), row.get("product"), row.get("version"))
            )
        for row in jobs:
            # One of its scans carries the ports, which the graph holds merged.
            for place, job in enumerate(reversed(row["jobs"][-SCANS_SHOWN_MAX:])):
                known = by_address.get(row["address"], []) if place == 0 else []
                seen.append(Seen(job.id, row["address"], row.get("name"), known))
        return seen

    async def vulnerabilities(self, addresses: Sequence[str]) -> list[Vulnerability]:
        """What enrichment has found for what runs on these hosts."""
        (ports,) = await self._base.read(_PORTS, hosts=_hosts(addresses))
        return [
            Vulnerability(*row["id"], cve_id=each["cve_id"], severity=each.get("severity"))
            for row in ports
            for each in row["vulnerabilities"]
        ]

    async def save_hosts(self, campaign_id: str, hosts: Iterable[HostFinding]) -> None:
        """Keep findings; one that is known is replaced."""
        rows = [{"id": [campaign_id, host.address], **msgspec.to_builtins(host)} for host in hosts]
        await self._base.write(
            """INSERT INTO campaign_host $rows ON DUPLICATE KEY UPDATE names = $input.names, ports = $input.ports,
                scans = $input.scans, threats = $input.threats RETURN NONE""",
            rows=rows,
        )

    async def threatened(self, campaign_id: str) -> list[tuple[str, list[str]]]:
        """Address and threats of every host that has any."""
        (rows,) = await self._base.read(
            """SELECT address, threats FROM campaign_host:[$campaign, '']..[$campaign, {}]
                WHERE array::len(threats) > 0""",
            campaign=campaign_id,
        )
        return [(row["address"], row["threats"]) for row in rows]

    async def describe(self, threat_ids: Iterable[str]) -> dict[str, Threat]:
        """What these threats are."""
        described: dict[str, Threat] = {}
        others: list[str] = []
        for threat_id in set(threat_ids):
            if (exposed := exposed_threat(threat_id)) is not None:
                described[threat_id] = exposed
            else:
                others.append(threat_id)
        vulnerabilities, titles = await self._base.read(
            """SELECT cve_id, severity FROM vuln WHERE cve_id IN $ids;
            SELECT cve_id, title FROM vuln_doc WHERE cve_id IN $ids""",
            ids=others,
        )
        title_of = {row["cve_id"]: row["title"] for row in titles}
        severity_of = {row["cve_id"]: row.get("severity") for row in vulnerabilities}
        for cve_id in others:
            described[cve_id] = vulnerability_threat(cve_id, severity_of.get(cve_id), title_of.get(cve_id))
        return described

    async def save_threats(self, campaign_id: str, threats: Iterable[ThreatFinding]) -> None:
        """Keep the threats of a campaign, instead of those of an earlier correlation."""
        rows = [{"id": [campaign_id, one.threat_id], **msgspec.to_builtins(one)} for one in threats]
        await self._base.write(
            """BEGIN;
            DELETE campaign_threat:[$campaign, '']..[$campaign, {}] RETURN NONE;
            INSERT INTO campaign_threat $rows RETURN NONE;
            COMMIT""",
            campaign=campaign_id,
            rows=rows,
        )

    async def counts(self, campaign_id: str) -> tuple[int, int]:
        """How many hosts and threats a campaign found."""
        hosts, threats = await self._base.read(
            """SELECT count() FROM campaign_host:[$campaign, '']..[$campaign, {}] GROUP ALL;
            SELECT count() FROM campaign_threat:[$campaign, '']..[$campaign, {}] GROUP ALL""",
            campaign=campaign_id,
        )
        return (hosts[0]["count"] if hosts else 0, threats[0]["count"] if threats else 0)

    async def hosts(self, campaign_id: str, addresses: Sequence[str]) -> list[HostFinding]:
        """Findings for these hosts."""
        ids = [RecordID("campaign_host", [campaign_id, address]) for address in addresses]
        (rows,) = await self._base.read("SELECT * FROM $ids", ids=ids)
        return [_convert(row, HostFinding) for row in rows]

    async def threats(self, campaign_id: str, *, after: str = "", limit: int) -> list[ThreatFinding]:
        """Threats in the order of their ids, those behind `after`."""
        (rows,) = await self._base.read(
            "SELECT * FROM campaign_threat:[$campaign, $after]>..[$campaign, {}] LIMIT $limit",
            campaign=campaign_id,
            after=after,
            limit=limit,
        )
        return [_convert(row, ThreatFinding) for row in rows]


def _hosts(addresses: Iterable[str]) -> list[RecordID]:
    return [RecordID("host", address) for address in addresses]


def _convert(row: dict[str, Any], type_: type[Any]) -> Any:
    return msgspec.convert({name: value for name, value in row.items() if name != "id"}, type_)
