"""Cutting a parsed scan into batches of bounded size: one durable persist step each."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from apps.recon.model import Host, Port, Scan

HOSTS_MAX = 200
PORTS_MAX = 1000
"""Per batch. A transaction of that size takes about 0.15 s: long enough to be worth a journal entry, short enough to
repeat after a crash. A host with more ports than this is spread over several batches."""


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


class Batch(msgspec.Struct):
    """Rows for one transaction, as they wait in `scan_batch`."""

    hosts: list[HostRow]
    ports: list[PortRow]
    host_count: int = 0
    """Hosts that begin in this batch; a continued one was counted before."""


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
            batch.ports.append(_row(host, port))
    if batch.hosts:
        yield batch


def _row(host: Host, port: Port) -> PortRow:
    return PortRow((host.address, port.protocol, port.number), port.service, port.product, port.version)
