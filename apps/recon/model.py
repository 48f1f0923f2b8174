"""The words of recon: what a scan holds, and the states of a job. Plain data; knows no file format and no database."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

PROTOCOLS = ("tcp", "udp")

ScanFormat = Literal["naabu", "masscan", "nmap"]


class Certificate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A TLS certificate that a service showed."""

    sha256: str
    """Of its DER form, hexadecimal."""
    cn: str | None = None
    sans: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None


class Port(msgspec.Struct, frozen=True):
    """An open port of one host."""

    protocol: str
    """`tcp` or `udp`."""
    number: int
    """1 to 65535."""
    service: str | None = None
    """What the scanner took it for: `http`, `ssh` ... As everything below: None when it did not say."""
    product: str | None = None
    version: str | None = None
    banner: str | None = None
    """What the service said first, unshortened."""
    certificate: Certificate | None = None
    cpes: tuple[str, ...] = ()
    """CPE names that the scanner gave the service, as it wrote them."""


class Host(msgspec.Struct):
    """A host that answered, with its open ports. `ports` is empty for one that is up and has none."""

    address: str
    """What the host is known by: its IP address; its name only where the scan gives no address."""
    ip: str | None
    """The address again, in canonical spelling, or None when only a name is known."""
    name: str | None = None
    """The name that was scanned, if any. Many addresses may share one."""
    ports: dict[tuple[str, int], Port] = msgspec.field(default_factory=dict[tuple[str, int], Port])
    """By protocol and number: scanners repeat themselves."""


class Scan(msgspec.Struct):
    """What a scanner's output says, whichever scanner wrote it."""

    format: ScanFormat
    hosts: dict[str, Host]
    """By `Host.address`."""
    skipped_count: int = 0
    """Entries that could not be used: malformed, without a host or a port, or a port out of range."""

    @property
    def port_count(self) -> int:
        return sum(len(host.ports) for host in self.hosts.values())


class JobState(StrEnum):
    """Where a job stands. The last two are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


FINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.PROCESSING, JobState.FAILED}),
    JobState.PROCESSING: frozenset({JobState.COMPLETED, JobState.FAILED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
}
"""Which state may follow which. Staying is always allowed: a step that died before it was recorded runs again.

The schema is written from this table, so the database refuses what is not in it (see `schema.py`).
"""


class Job(msgspec.Struct):
    """One accepted submission, as the API shows it. Times are UTC."""

    id: str
    state: JobState
    scanner_key: str
    """The public key whose signature was verified, base64."""
    host_count: int
    port_count: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    """When it became final, for both final states."""
    error_message: str | None = None
    invocation_id: str | None = None
    """What works on it in the engine."""


class IngestRequest(msgspec.Struct):
    """Input of the workflow."""

    job_id: str
    """Under this id the scan waits in the database."""
    scanner_key: str
    observed_at_s: int
    """When the scanner signed it, Unix seconds: becomes `first_seen` and `last_seen`."""


class ParsedCounts(msgspec.Struct):
    """Result of the parse step. Counts only: the hosts themselves wait in the database, not in the journal."""

    format: str
    host_count: int
    port_count: int
    skipped_count: int
    batch_count: int


class PersistedCounts(msgspec.Struct):
    """Result of one persist step."""

    host_count: int
    port_count: int


class IngestResult(msgspec.Struct):
    """Output of the workflow."""

    job_id: str
    state: JobState
    format: str
    host_count: int
    port_count: int
    edge_count: int
    skipped_count: int
    scanner_key: str
