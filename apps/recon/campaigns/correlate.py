"""Results of several scans to findings: one entry per host, one per threat. Pure.

A threat is a vulnerability that enrichment found for what runs on a port (its id is the CVE), or a service that should
not be reachable from a network at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

import msgspec

from apps.recon.campaigns.model import HOSTS_SHOWN_MAX, SCANS_SHOWN_MAX, HostFinding, OpenPort, ThreatFinding

SEVERITIES = ("none", "low", "medium", "high", "critical")


class Seen(msgspec.Struct):
    """One host in one scan."""

    scan: str
    """Of a campaign or of a job."""
    address: str
    name: str | None = None
    """If it was scanned by name."""
    ports: list[OpenPort] = msgspec.field(default_factory=list[OpenPort])


class Vulnerability(msgspec.Struct):
    """What enrichment knows of one port of one host."""

    address: str
    protocol: str
    number: int
    cve_id: str
    severity: str | None = None


class Threat(msgspec.Struct, frozen=True):
    """What a threat is, wherever it is found."""

    threat_id: str
    severity: str
    title: str


_EXPOSED: Mapping[str, tuple[str, str]] = {
    "telnet": ("high", "Telnet: log-ins in clear text"),
    "docker": ("critical", "Docker API without encryption"),
    "redis": ("high", "Redis"),
    "mongodb": ("high", "MongoDB"),
    "memcached": ("high", "memcached"),
    "elasticsearch": ("high", "Elasticsearch"),
    "microsoft-ds": ("high", "Windows file sharing"),
    "netbios-ssn": ("medium", "NetBIOS"),
    "ms-wbt-server": ("high", "Remote Desktop"),
    "vnc": ("high", "VNC"),
    "mysql": ("medium", "MySQL"),
    "postgresql": ("medium", "PostgreSQL"),
    "ms-sql-s": ("medium", "Microsoft SQL Server"),
    "ftp": ("medium", "FTP: log-ins in clear text"),
    "snmp": ("medium", "SNMP"),
    "rlogin": ("high", "rlogin: log-ins in clear text"),
    "shell": ("high", "rsh: commands in clear text"),
}
"""By nmap's names of services."""


_PREFIX = "EXPOSED-"


def exposure(port: OpenPort) -> str | None:
    """The id of the threat that an open port is by itself, if it is one."""
    name = (port.service or "").lower()
    return _PREFIX + name.upper() if name in _EXPOSED else None


def exposed_threat(threat_id: str) -> Threat | None:
    """The threat of that id, if it is one of ours and no vulnerability."""
    name = threat_id.removeprefix(_PREFIX).lower()
    if not threat_id.startswith(_PREFIX) or name not in _EXPOSED:
        return None
    severity, what = _EXPOSED[name]
    return Threat(threat_id, severity, f"{what} is reachable")


def vulnerability_threat(cve_id: str, severity: str | None, title: str | None) -> Threat:
    """The threat that a vulnerability is; what is not known of it counts as nothing."""
    severity = (severity or "none").lower()
    return Threat(cve_id, severity if severity in SEVERITIES else "none", title or cve_id)


def join(seen: Iterable[Seen], vulnerabilities: Iterable[Vulnerability]) -> list[HostFinding]:
    """One finding per address, in their order.

    A port that several scans saw is one port, with whatever any of them knew of it; the first known answer counts, so
    give the most trusted scan first.
    """
    by_port: dict[tuple[str, str, int], set[str]] = {}
    for each in vulnerabilities:
        by_port.setdefault((each.address, each.protocol, each.number), set()).add(each.cve_id)
    gathered: dict[str, tuple[dict[str, None], set[str], dict[tuple[str, int], OpenPort]]] = {}
    for one in seen:
        scans, names, ports = gathered.setdefault(one.address, ({}, set(), {}))
        scans[one.scan] = None
        if one.name:
            names.add(one.name)
        for port in one.ports:
            key = (port.protocol, port.number)
            ports[key] = merge_ports(ports[key], port) if key in ports else port
    hosts: list[HostFinding] = []
    for address in sorted(gathered, key=address_order):
        scans, names, ports = gathered[address]
        threats: set[str] = set()
        for (protocol, number), port in ports.items():
            threats |= by_port.get((address, protocol, number), set())
            if exposed := exposure(port):
                threats.add(exposed)
        in_order = [ports[key] for key in sorted(ports, key=lambda key: (key[1], key[0]))]
        hosts.append(HostFinding(address, sorted(names), in_order, list(scans)[:SCANS_SHOWN_MAX], sorted(threats)))
    return hosts


def merge_ports(first: OpenPort, second: OpenPort) -> OpenPort:
    """One port from two scans; a version only ever comes with the product it belongs to."""
    product, version = first.product, first.version
    if product is None or (version is None and second.product == product):
        product, version = second.product, second.version
    return OpenPort(
        first.number,
        first.protocol,
        first.service or second.service,
        product,
        version,
        first.banner or second.banner,
    )


def tally(hosts: Iterable[tuple[str, Sequence[str]]], threats: Mapping[str, Threat]) -> list[ThreatFinding]:
    """Where each threat was found, the most severe first.

    Args:
        hosts: Address and threat ids of each host.
        threats: What the ids stand for.
    """
    where: dict[str, list[str]] = {}
    for address, found in hosts:
        for threat_id in found:
            where.setdefault(threat_id, []).append(address)
    findings = [
        ThreatFinding(
            threat_id,
            threats[threat_id].severity,
            threats[threat_id].title,
            len(addresses),
            sorted(addresses, key=address_order)[:HOSTS_SHOWN_MAX],
        )
        for threat_id, addresses in where.items()
    ]
    return sorted(findings, key=lambda one: (-SEVERITIES.index(one.severity), -one.host_count, one.threat_id))


def address_order(address: str) -> tuple[int, int, str]:
    """Sorts addresses as numbers, IPv4 before IPv6, names last."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return (9, 0, address)
    return (parsed.version, int(parsed), "")
