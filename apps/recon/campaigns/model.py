"""The words of campaigns. Plain data; knows no database and no engine."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

SERVICE = "Campaign"
"""The workflow; its key is the campaign's id."""

BATCH_SIZE = 50
BATCH_SIZE_MAX = 200
"""Each target of a batch is two entries in the journal of its batch."""
TARGETS_MAX = 65_536
"""Addresses of one campaign, networks spread out."""
PORTS_MAX = 1024
COMMON_PORTS = (21, 22, 23, 25, 53, 80, 110, 143, 443, 445, 993, 995, 1433, 2375, 3306, 3389, 5432, 5900, 6379, 8080)
"""What is looked at when a campaign names no ports."""
ENRICHMENT_WAIT_S = 30
LOCAL_CONTRIBUTOR = "local"

ScannerName = Literal["tcp", "nmap"]
CampaignId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Storable = Annotated[str, msgspec.Meta(pattern=r"^[^\u0000]*$")]
"""The database gives back no row that has a null byte."""
Contributor = Annotated[str, msgspec.Meta(pattern=r"^[^\u0000]*$", max_length=128)]


class CampaignOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How to scan. The same for all targets of a campaign."""

    scanner: ScannerName = "tcp"
    ports: Annotated[list[PortNumber], msgspec.Meta(max_length=PORTS_MAX)] = msgspec.field(
        default_factory=lambda: list(COMMON_PORTS)
    )
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=BATCH_SIZE_MAX)] = BATCH_SIZE
    target_timeout_s: Seconds = 30.0
    """A target that takes longer is a failed one."""
    reuse_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0
    """A result of the same address, scanner and ports that is not older is taken instead of a new scan."""
    contributor: Contributor = LOCAL_CONTRIBUTOR
    """Who gets the credit: a scanner's public key, base64."""


class CampaignRequest(msgspec.Struct, omit_defaults=True):
    """Input of the workflow. The API stores the targets first and leaves them out here, to keep the journal small."""

    campaign_id: CampaignId
    targets: list[Storable] = msgspec.field(default_factory=list[Storable])
    """Addresses, networks or names."""
    options: CampaignOptions = msgspec.field(default_factory=CampaignOptions)


class Phase(StrEnum):
    """Where a campaign stands; while it scans, the API shows `scanning_batch_1`, `scanning_batch_2` and so on."""

    INITIALIZING = "initializing"
    AWAITING_APPROVAL = "awaiting_approval"
    SCANNING = "scanning_batch"
    CORRELATING = "correlating"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


_BROKEN_OFF = frozenset({Phase.FAILED, Phase.CANCELLED})

TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.INITIALIZING: frozenset({Phase.AWAITING_APPROVAL, Phase.SCANNING, Phase.CORRELATING}) | _BROKEN_OFF,
    Phase.AWAITING_APPROVAL: frozenset({Phase.INITIALIZING}) | _BROKEN_OFF,
    Phase.SCANNING: frozenset({Phase.CORRELATING}) | _BROKEN_OFF,
    Phase.CORRELATING: frozenset({Phase.COMPLETE}) | _BROKEN_OFF,
    Phase.COMPLETE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.CANCELLED: frozenset(),
}
"""Which phase may follow which. Staying is always allowed: a step that died before it was recorded runs again.

The schema is written from this table, so the database refuses what is not in it (see `schema.py`).
"""

FINAL = frozenset(phase for phase, following in TRANSITIONS.items() if not following)


def status_text(phase: Phase, batch: int) -> str:
    """What callers read: the phase, with the number of the batch while it scans."""
    return f"{phase}_{batch}" if phase is Phase.SCANNING else phase.value


class Validated(msgspec.Struct):
    """Result of the validator: counts only, the targets are in the database."""

    ready_count: int
    """Sensitive ones included."""
    sensitive_count: int
    rejected_count: int


class Cut(msgspec.Struct):
    """What is to be scanned, after an approval or without one."""

    total: int
    batch_count: int


class BatchRequest(msgspec.Struct):
    campaign_id: str
    number: int
    """From 1."""
    options: CampaignOptions
    waits_for_enrichment: bool = False
    """Until what was found is enriched, but not longer than `ENRICHMENT_WAIT_S`."""


class BatchTarget(msgspec.Struct, array_like=True):
    target: str
    address: str


class BatchTargets(msgspec.Struct):
    """What a batch has to scan."""

    targets: list[BatchTarget]


class BatchCounts(msgspec.Struct):
    scanned: int
    """Finished targets of the batch, the failed ones included."""
    failed: int
    is_late: bool = False
    """Enrichment was not done in time; it goes on, but the correlator may not see what it finds."""


class ScanRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One target to scan on its own; the result is only answered."""

    target: str
    options: CampaignOptions = msgspec.field(default_factory=CampaignOptions)


class CampaignScanRequest(msgspec.Struct, omit_defaults=True):
    """One target of a campaign; the result goes to its row."""

    campaign_id: str
    target: str
    address: str
    """Where the target was resolved to."""
    options: CampaignOptions


class OpenPort(msgspec.Struct, omit_defaults=True):
    number: int
    protocol: str = "tcp"
    service: str | None = None
    product: str | None = None
    version: str | None = None
    banner: str | None = None


class ScanResult(msgspec.Struct):
    """What one scan of one target found."""

    target: str
    address: str
    is_up: bool
    """It answered: a port was open, or refused the connection."""
    ports: list[OpenPort]
    elapsed_ms: int
    is_reused: bool = False


class ScanSummary(msgspec.Struct):
    """A result without its ports, for the journal of the batch."""

    target: str
    open_count: int
    error: str = ""


class HostFinding(msgspec.Struct):
    """Everything known of one host, from however many scans: one entry per address."""

    address: str
    names: list[str]
    ports: list[OpenPort]
    scans: list[str]
    """Campaigns and ingested jobs that saw it, the newest first; at most `SCANS_SHOWN_MAX`."""
    threats: list[str]


class ThreatFinding(msgspec.Struct):
    """One threat and where it was found."""

    threat_id: str
    """A CVE id, or `EXPOSED-…` for a service that should not be reachable."""
    severity: str
    title: str
    host_count: int
    hosts: list[str]
    """At most `HOSTS_SHOWN_MAX` of them."""


HOSTS_SHOWN_MAX = 100
SCANS_SHOWN_MAX = 50


class Correlated(msgspec.Struct):
    host_count: int
    threat_count: int


class CampaignResult(msgspec.Struct):
    """Output of the workflow; the results of the targets are in the report."""

    campaign_id: str
    status: str
    total: int
    scanned: int
    failed: int
    rejected: int
    hosts: int
    threats: int


class Campaign(msgspec.Struct):
    """A campaign as the API shows it."""

    id: str
    status: str
    scanned: int
    total: int
    rejected: int
    failed: int
    approval: str | None
    """`pending`, `approved`, `denied`, `timeout` or `cancelled` when it has sensitive targets."""
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    error: str | None = None
    contributor: str = LOCAL_CONTRIBUTOR
    scanner: str = "tcp"
    is_published: bool = False
    """Its threats are recorded and its contributor credited."""
    invocation_id: str | None = None


class TargetRow(msgspec.Struct):
    """One target in the report."""

    target: str
    state: str
    """`scanned`, `failed`, `rejected`, or `ready`: not reached yet."""
    address: str | None = None
    reason: str | None = None
    """Why it was rejected, or how it failed."""
    is_up: bool = False
    ports: list[OpenPort] = msgspec.field(default_factory=list[OpenPort])
    scanned_at: datetime | None = None
    elapsed_ms: int | None = None


class Report(msgspec.Struct):
    """What a campaign found. Lists come in pages; the counts are of all."""

    campaign: Campaign
    results: list[TargetRow]
    """Valid targets, in the order of their names."""
    rejected: list[TargetRow]
    hosts: list[HostFinding]
    threats: list[ThreatFinding]
    next: str | None
    """Give it as `after` to get the next page of results and hosts; None on the last."""
