"""Services and their vulnerabilities in the database: what runs where, its CPE names, and what these are affected by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from surrealdb import RecordID

from apps.recon.enrich.cpe import CONFIDENCE, FoundCpe, find_cpes
from apps.recon.enrich.kev import Catalogue
from apps.recon.enrich.matching import CONDITIONAL_FACTOR, Applies
from apps.recon.enrich.nvd import Vulnerability
from apps.recon.enrich.products import identify
from apps.recon.store import Store

BANNER_CONFIDENCE = 0.6
"""Of the edge from a port to the service that its banner gave away; the scanner's own word has 1."""


@dataclass(slots=True)
class _Service:
    """A service as the database has it, or as it shall have it."""

    name: str
    product: str | None
    version: str | None
    scanner_cpes: list[str] = field(default_factory=list[str])

    @property
    def fingerprint(self) -> str:
        text = f"{self.name}|{self.product or ''}|{self.version or ''}".lower()
        return hashlib.sha256(text.encode()).hexdigest()

    def found(self) -> list[FoundCpe]:
        return find_cpes(self.scanner_cpes, self.product, self.version)


_RUNNING = """
SELECT record::id(in) AS port, in.service AS name, in.product AS product, in.version AS version, confidence,
    record::id(out) AS fingerprint, out.name AS known_name, out.product AS known_product, out.version AS known_version,
    out.scanner_cpe AS scanner_cpes
FROM array::flatten((SELECT VALUE ->HAS->port->RUNS FROM $hosts));
"""

_BANNERS = """
SELECT record::id(port) AS port, out.sample AS sample, last_seen FROM EVIDENCED_BY
    WHERE port IN $ports AND evidence_type = 'banner' ORDER BY last_seen DESC;
"""

# A port gets the product that its banner gave away like one that a scanner reported: the next scan then finds it there.
_IDENTIFY = """
BEGIN;
INSERT INTO service (
    SELECT fingerprint AS id, fingerprint, name, product, version, $at AS first_seen, $at AS last_seen FROM $ports
) ON DUPLICATE KEY UPDATE last_seen = IF $at > last_seen THEN $at ELSE last_seen END RETURN NONE;
FOR $row IN $ports {
    UPDATE type::thing('port', $row.port) SET product = $row.product, version = $row.version RETURN NONE;
};
LET $edges = (SELECT type::thing('RUNS', port) AS edge, type::thing('port', port) AS in,
    type::thing('service', fingerprint) AS out FROM $ports);
DELETE (SELECT VALUE edge FROM $edges WHERE edge.out != NONE AND edge.out != out) RETURN NONE;
INSERT RELATION INTO RUNS (
    SELECT edge AS id, in, out, $confidence AS confidence, $at AS first_seen, $at AS last_seen FROM $edges
) ON DUPLICATE KEY UPDATE confidence = $confidence RETURN NONE;
FOR $row IN $services {
    UPDATE type::thing('service', $row.fingerprint) SET cpe = $row.cpe WHERE cpe != $row.cpe RETURN NONE;
};
COMMIT;
"""

_KEEP_VULNS = """
BEGIN;
INSERT INTO vuln (
    SELECT cve_id AS id, cve_id, cvss, cvss_version, severity, kev_flag, $at AS first_seen, $at AS last_updated FROM $rows
) ON DUPLICATE KEY UPDATE cvss = $input.cvss, cvss_version = $input.cvss_version, severity = $input.severity,
    kev_flag = $input.kev_flag, last_updated = $at RETURN NONE;
INSERT INTO vuln_doc (
    SELECT cve_id AS id, cve_id, title, summary, text, cvss, cpe, exploit_refs, published_date, last_modified FROM $rows
) ON DUPLICATE KEY UPDATE title = $input.title, summary = $input.summary, text = $input.text, cvss = $input.cvss,
    cpe = $input.cpe, exploit_refs = $input.exploit_refs, published_date = $input.published_date,
    last_modified = $input.last_modified RETURN NONE;
COMMIT;
"""

# `$complete` are the services about which every question was answered: edges that are not confirmed there are gone.
_RELATE = """
BEGIN;
LET $stale = (SELECT VALUE id FROM array::flatten((SELECT VALUE ->AFFECTED_BY FROM $complete)) WHERE id NOT IN $confirmed);
DELETE $stale RETURN NONE;
INSERT RELATION INTO AFFECTED_BY (
    SELECT type::thing('AFFECTED_BY', [fingerprint, cve_id]) AS id, type::thing('service', fingerprint) AS in,
        type::thing('vuln', cve_id) AS out, confidence, conditional, cpe, $at AS first_detected, $at AS last_confirmed
    FROM $rows WHERE record::exists(type::thing('vuln', cve_id))
) ON DUPLICATE KEY UPDATE confidence = $input.confidence, conditional = $input.conditional, cpe = $input.cpe,
    last_confirmed = $at RETURN NONE;
COMMIT;
"""

_FLAG = """
BEGIN;
UPDATE (SELECT VALUE id FROM vuln WHERE kev_flag = true AND cve_id NOT IN $cve_ids) SET kev_flag = false RETURN NONE;
UPDATE (SELECT VALUE id FROM $vulns WHERE kev_flag = false) SET kev_flag = true RETURN NONE;
UPSERT catalogue:kev SET version = $version RETURN NONE;
COMMIT;
"""


async def identity(store: Store) -> str:
    """Which database this is: made at the first call, the same ever after."""
    (version,) = await store.write(
        "UPSERT ONLY catalogue:store SET version = version ?? <string>rand::uuid::v4() RETURN VALUE version"
    )
    return version


async def identify_services(store: Store, addresses: Sequence[str]) -> tuple[int, list[str]]:
    """Find out what runs on these hosts: products from banners where the scanner gave none, CPE names for all.

    Returns: how many services they run, and the names that say a version: those that can be asked about.
    """
    running = await _running(store, addresses)
    ports = await _from_banners(store, running)
    services = {service.fingerprint: service for service, _ in ports.values()}
    for row in running:
        if tuple(row["port"]) not in ports:
            service = _known(row)
            services[row["fingerprint"]] = service
    rows: list[dict[str, Any]] = []
    names: set[str] = set()
    for fingerprint, service in services.items():
        found = service.found()
        rows.append({"fingerprint": fingerprint, "cpe": sorted(str(each.cpe) for each in found)})
        names.update(str(each.cpe) for each in found if _can_be_asked(each))
    await store.write(
        _IDENTIFY,
        ports=[
            {
                "port": list(port),
                "fingerprint": service.fingerprint,
                "name": service.name,
                "product": service.product,
                "version": service.version,
            }
            for port, (service, is_new) in ports.items()
            if is_new
        ],
        services=rows,
        confidence=BANNER_CONFIDENCE,
        at=datetime.now(UTC),
    )
    return len(services), sorted(names)


async def keep_vulnerabilities(store: Store, found: Sequence[Vulnerability], catalogue: Catalogue) -> None:
    """Write records and their texts. One transaction."""
    if not found:
        return
    await store.write(_KEEP_VULNS, rows=[_row(each, catalogue) for each in found], at=datetime.now(UTC))


async def relate(
    store: Store, addresses: Sequence[str], answers: Mapping[str, Mapping[str, Applies]], unanswered: Collection[str]
) -> tuple[int, int]:
    """Write which services of these hosts are affected by what.

    Args:
        answers: For each CPE name that was asked about, the vulnerabilities that apply to it.
        unanswered: Names that could not be asked about now: what was known of them stays.
    Returns: how many vulnerabilities and edges.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    complete: list[RecordID] = []
    for row in {row["fingerprint"]: row for row in await _running(store, addresses)}.values():
        asked = [each for each in _known(row).found() if _can_be_asked(each)]
        if not any(str(each.cpe) in unanswered for each in asked):
            complete.append(RecordID("service", row["fingerprint"]))
        for each in asked:
            for cve_id, how in answers.get(str(each.cpe), {}).items():
                confidence = CONFIDENCE[each.origin] * (1 if how is Applies.YES else CONDITIONAL_FACTOR)
                edge = {
                    "fingerprint": row["fingerprint"],
                    "cve_id": cve_id,
                    "confidence": confidence,
                    "conditional": how is not Applies.YES,
                    "cpe": str(each.cpe),
                }
                key = (row["fingerprint"], cve_id)
                if key not in rows or rows[key]["confidence"] < confidence:
                    rows[key] = edge
    await store.write(
        _RELATE,
        rows=list(rows.values()),
        complete=complete,
        confirmed=[RecordID("AFFECTED_BY", list(key)) for key in rows],
        at=datetime.now(UTC),
    )
    return len({cve_id for _, cve_id in rows}), len(rows)


async def flag_exploited(store: Store, catalogue: Catalogue) -> bool:
    """Bring the flag of all vulnerabilities to this catalogue, unless that was done. Returns whether it was done now."""
    (version,) = await store.read("SELECT VALUE version FROM ONLY catalogue:kev")
    if version == catalogue.version:
        return False
    await store.write(
        _FLAG,
        cve_ids=list(catalogue.entries),
        vulns=[RecordID("vuln", cve_id) for cve_id in catalogue.entries],
        version=catalogue.version,
    )
    return True


async def _running(store: Store, addresses: Sequence[str]) -> list[dict[str, Any]]:
    (rows,) = await store.read(_RUNNING, hosts=[RecordID("host", address) for address in addresses])
    return rows


async def _from_banners(
    store: Store, running: Sequence[Mapping[str, Any]]
) -> dict[tuple[Any, ...], tuple[_Service, bool]]:
    """Port -> the service that its latest banner gives away, and whether that is news.

    Only for ports whose product no scanner named.
    """
    silent = [row for row in running if not row["product"] or row["confidence"] < 1]
    if not silent:
        return {}
    (banners,) = await store.read(_BANNERS, ports=[RecordID("port", row["port"]) for row in silent])
    latest: dict[tuple[Any, ...], str] = {}
    for banner in banners:
        latest.setdefault(tuple(banner["port"]), banner["sample"])
    told: dict[tuple[Any, ...], tuple[_Service, bool]] = {}
    for row in silent:
        identity = identify(latest.get(tuple(row["port"]), ""))
        if identity is not None:
            service = _Service(row["name"] or "unknown", identity.product, identity.version)
            told[tuple(row["port"])] = (service, service.fingerprint != row["fingerprint"])
    # Others may run the same and have names from their scanner.
    (rows,) = await store.read(
        "SELECT fingerprint, scanner_cpe AS scanner_cpes FROM $ids",
        ids=[RecordID("service", fingerprint) for fingerprint in {each.fingerprint for each, _ in told.values()}],
    )
    names = {row["fingerprint"]: row["scanner_cpes"] for row in rows}
    for service, _ in told.values():
        service.scanner_cpes = names.get(service.fingerprint, [])
    return told


def _known(row: Mapping[str, Any]) -> _Service:
    return _Service(row["known_name"], row["known_product"], row["known_version"], row["scanner_cpes"])


def _can_be_asked(found: FoundCpe) -> bool:
    return found.cpe.part == "a" and found.cpe.has_version


def _row(found: Vulnerability, catalogue: Catalogue) -> dict[str, Any]:
    exploited = catalogue.entries.get(found.cve_id)
    title = exploited.name if exploited else found.cve_id
    return {
        "cve_id": found.cve_id,
        "title": title,
        "summary": found.summary,
        # Without the id: a word that every text has counts against it. Ids are looked up, not searched.
        "text": f"{exploited.name} {found.summary}" if exploited else found.summary,
        "cvss": found.cvss,
        "cvss_version": found.cvss_version,
        "severity": found.severity,
        "kev_flag": exploited is not None,
        "cpe": found.cpes,
        "exploit_refs": found.exploit_refs,
        "published_date": found.published_at,
        "last_modified": found.modified_at,
    }
