"""Results of targets as a scan that recon's ingest understands: nmap's XML, because it knows services and versions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from xml.sax.saxutils import quoteattr

from apps.recon.campaigns.model import OpenPort, TargetRow

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def scan_text(rows: Iterable[TargetRow]) -> str | None:
    """An nmap report of every target that answered; None when none did."""
    hosts = [_host(row) for row in rows if row.state == "scanned" and row.is_up and row.address]
    if not hosts:
        return None
    return '<?xml version="1.0"?>\n<nmaprun scanner="recon">\n' + "\n".join(hosts) + "\n</nmaprun>\n"


def _host(row: TargetRow) -> str:
    assert row.address is not None
    family = "ipv6" if ip_address(row.address).version == 6 else "ipv4"
    name = "" if row.target == row.address else f"<hostnames><hostname name={_quoted(row.target)}/></hostnames>"
    ports = "".join(_port(port) for port in row.ports)
    return (
        f'<host><status state="up"/><address addr={_quoted(row.address)} addrtype="{family}"/>{name}'
        f"<ports>{ports}</ports></host>"
    )


def _port(port: OpenPort) -> str:
    known = {"name": port.service, "product": port.product, "version": port.version}
    service = "".join(f" {name}={_quoted(value)}" for name, value in known.items() if value)
    banner = f'<script id="banner" output={_quoted(port.banner)}/>' if port.banner else ""
    return (
        f'<port protocol="{port.protocol}" portid="{port.number}"><state state="open"/>'
        f"{f'<service{service}/>' if service else ''}{banner}</port>"
    )


def _quoted(text: str) -> str:
    """An attribute; characters that XML cannot hold at all become question marks."""
    return quoteattr(_NOT_XML.sub("?", text))
