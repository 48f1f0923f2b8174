"""Gathering hosts and ports while a file is read; shared by all formats."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from apps.recon.model import PROTOCOLS, Certificate, Host, Port, Scan, ScanFormat

# Letters, digits, hyphens and underscores between dots, no label over 63: what a scanner can have been told to scan.
_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")

_TEXT_MAX = 256
"""Characters kept of a service, product or version; a guard, real ones are far shorter."""

_CPES_MAX = 8
"""Of one service, likewise."""


class Gathered:
    """Hosts found so far, by address, and how many entries had to be skipped."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.skipped_count = 0

    def host(self, ip: Any, name: Any) -> Host | None:
        """The host that an entry speaks of, made on first sight; None when the entry names none.

        The address decides: one name can have many. The name itself is the key only where no address is given, as in
        the output of old naabu versions.
        """
        address = _address(ip) or _address(name)
        label = _name(name)
        key = address or (label if ip is None else None)
        if key is None:
            return None
        host = self.hosts.get(key)
        if host is None:
            host = self.hosts[key] = Host(key, address, label)
        elif host.name is None:
            host.name = label
        return host

    def skip(self) -> None:
        self.skipped_count += 1

    def scan(self, format_: ScanFormat) -> Scan:
        return Scan(format_, self.hosts, self.skipped_count)


def read_port(
    number: Any,
    protocol: Any,
    service: str | None = None,
    product: str | None = None,
    version: str | None = None,
    *,
    banner: str | None = None,
    certificate: Certificate | None = None,
    cpes: Sequence[str | None] = (),
) -> Port | None:
    """A port, or None when the number is out of range or the protocol is not one we keep. No protocol means tcp."""
    protocol = protocol.lower() if isinstance(protocol, str) and protocol else protocol or "tcp"
    if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= 5:
        number = int(number)
    if type(number) is not int or not 1 <= number <= 65535 or protocol not in PROTOCOLS:
        return None
    names = tuple(text for cpe in cpes[:_CPES_MAX] if (text := _text(cpe)) and text.startswith("cpe:"))
    return Port(protocol, number, _text(service), _text(product), _text(version), banner, certificate, names)


def add_port(host: Host, port: Port) -> None:
    """Add a port once; a repetition only fills in what was not known before."""
    key = (port.protocol, port.number)
    known = host.ports.get(key)
    if known is not None:
        port = Port(
            port.protocol,
            port.number,
            known.service or port.service,
            known.product or port.product,
            known.version or port.version,
            known.banner or port.banner,
            known.certificate or port.certificate,
            known.cpes or port.cpes,
        )
    host.ports[key] = port


def _text(value: str | None) -> str | None:
    """Free text of a scanner, shortened, without lone surrogates and null bytes: legal in JSON, in no database's keys."""
    return value[:_TEXT_MAX].encode("utf-8", "replace").decode().replace("\0", "?") if value else None


def _address(value: Any) -> str | None:
    # Only text: `ipaddress` would take the integer 8443 for 0.0.32.251.
    # A zone (`fe80::1%eth0`) means something on the scanner's machine only.
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return None


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or _address(value):
        return None
    value = value.strip().rstrip(".").lower()
    return value if _NAME.match(value) else None
