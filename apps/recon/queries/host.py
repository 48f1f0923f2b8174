"""One host, and as much of the graph around it as is asked for.

depth 0  the host         depth 3  + vulnerabilities of the services
depth 1  + open ports     depth 4  + city, region, country
depth 2  + services       depth 5  + autonomous system
"""
# ruff: noqa: S608 (statements are put together from constants of this module; what a caller sends is bound)

from __future__ import annotations

from typing import Any

from apps.recon.queries.reading import QUERY_TIMEOUT, Reading

HOST_FIELDS = "address, ip, name, asn, city, region, country, cloud_region, first_seen, last_seen, last_scanned_at"

_PORTS = """
SELECT record::id(id) AS id, number, protocol, service, product, version, first_seen, last_seen
FROM $host->HAS->port ORDER BY protocol, number"""
_SERVICES = """
SELECT record::id(in) AS port, confidence, last_seen, out.fingerprint AS fingerprint, out.name AS name,
    out.product AS product, out.version AS version, out.cpe AS cpe
FROM $host->HAS->port->RUNS"""
_VULNERABILITIES = """
SELECT record::id(in) AS service, out.cve_id AS cve_id, out.cvss AS cvss, out.severity AS severity,
    out.kev_flag AS kev_flag, confidence, conditional, cpe, first_detected, last_confirmed
FROM array::distinct($host->HAS->port->RUNS->service->AFFECTED_BY)"""
_PLACE = """
SELECT VALUE { name: name, lat: lat, lon: lon } FROM $host->IN_CITY->city;
SELECT VALUE { name: name, code: code } FROM array::concat($host->IN_REGION->region, $host->IN_CITY->city->IN_REGION->region);
SELECT VALUE { name: name, cc: cc } FROM type::thing('country', $host.country)"""
_ASN = "SELECT VALUE { number: number, org: org, country: country } FROM $host->IN_ASN->asn"


async def read_host(reading: Reading, address: str, depth: int) -> dict[str, Any] | None:
    """The host with everything up to `depth`, or None when it is not known."""
    parts = [_PORTS, _SERVICES, _VULNERABILITIES, _PLACE, _ASN][:depth]
    statements = [
        "LET $host = type::thing('host', $address)",
        f"SELECT {HOST_FIELDS} FROM $host {QUERY_TIMEOUT}",
        *parts,
    ]
    _, hosts, *rest = await reading(";".join(statements), address=address)
    if not hosts:
        return None
    host: dict[str, Any] = hosts[0]
    if depth >= 1:
        _put_services(host, rest[0], rest[1] if depth >= 2 else None, rest[2] if depth >= 3 else None)
    if depth >= 4:
        host["place"] = {
            name: _first(rows) for name, rows in zip(("city", "region", "country"), rest[3:6], strict=True)
        }
    if depth >= 5:
        host["autonomous_system"] = _first(rest[6])
    return host


def _put_services(
    host: dict[str, Any],
    ports: list[dict[str, Any]],
    services: list[dict[str, Any]] | None,
    vulnerabilities: list[dict[str, Any]] | None,
) -> None:
    """Nest them as they belong together: ports in the host, a service in its port, vulnerabilities in the service."""
    affecting: dict[str, list[dict[str, Any]]] = {}
    for row in vulnerabilities or []:
        affecting.setdefault(row.pop("service"), []).append(row)
    running: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in services or []:
        running[tuple(row.pop("port"))] = row
        if vulnerabilities is not None:
            found = affecting.get(row["fingerprint"], [])
            row["vulnerabilities"] = sorted(found, key=lambda each: (-(each["cvss"] or 0), each["cve_id"]))
    for port in ports:
        port_id = tuple(port.pop("id"))
        if services is not None:
            port["runs"] = running.get(port_id)
    host["ports"] = ports


def _first(rows: list[Any]) -> Any:
    return rows[0] if rows else None
