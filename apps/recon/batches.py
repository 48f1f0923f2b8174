"""Cutting a parsed scan into batches of bounded size: one durable persist step each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from apps.recon.model import Certificate, Host, Port, Scan

HOSTS_MAX = 200
PORTS_MAX = 1000
"""Per batch. A transaction of that size takes about 0.15 s: long enough to be worth a journal entry, short enough to
repeat after a crash. A host with more ports than this is spread over several batches."""

SAMPLE_CHARS_MAX = 2048
"""Kept of a banner; its hash is of the whole."""


class HostRow(msgspec.Struct, omit_defaults=True):
    id: str
    ip: str | None = None
    name: str | None = None


class PortRow(msgspec.Struct, omit_defaults=True):
    id: tuple[str, str, int]
    """Address, protocol, number: also the id of the edge."""
    service: str | None = None
    product: str | None = None
    version: str | None = None
    banner: str | None = None
    """SHA-256 of the banner; the row is in `Batch.banners`."""
    certificate: str | None = None
    """SHA-256 of the certificate; the row is in `Batch.certificates`."""
    cpes: tuple[str, ...] = ()


class BannerRow(msgspec.Struct):
    hash: str
    sample: str


class Batch(msgspec.Struct):
    """Rows for one transaction, as they wait in `scan_batch`."""

    hosts: list[HostRow]
    ports: list[PortRow]
    host_count: int = 0
    """Hosts that begin in this batch; a continued one was counted before."""
    banners: list[BannerRow] = []
    certificates: list[Certificate] = []

    @property
    def tells_services(self) -> bool:
        """Any port has more than its number."""
        return any(row.service or row.product or row.banner or row.certificate for row in self.ports)


def cut(scan: Scan) -> Iterator[Batch]:
    """Batches that together hold every host and port once."""
    batch = Batch([], [])
    for host in scan.hosts.values():
        if len(batch.hosts) >= HOSTS_MAX or len(batch.ports) >= PORTS_MAX:
            yield batch
            batch = Batch([], [])
        batch.hosts.append(HostRow(host.address, host.ip, host.name))
        batch.host_count += 1
        for port in host.ports.values():
            if len(batch.ports) >= PORTS_MAX:
                yield batch
                batch = Batch([HostRow(host.address, host.ip, host.name)], [])
            _add(batch, host, port)
    if batch.hosts:
        yield batch


def _add(batch: Batch, host: Host, port: Port) -> None:
    row = PortRow((host.address, port.protocol, port.number), port.service, port.product, port.version, cpes=port.cpes)
    if port.banner:
        row.banner = hashlib.sha256(port.banner.encode()).hexdigest()
        if all(row.banner != known.hash for known in batch.banners):
            batch.banners.append(BannerRow(row.banner, port.banner[:SAMPLE_CHARS_MAX]))
    if port.certificate:
        row.certificate = port.certificate.sha256
        if port.certificate not in batch.certificates:
            batch.certificates.append(port.certificate)
    batch.ports.append(row)
