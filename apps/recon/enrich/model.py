"""What the enrichment services ask and answer. Addresses and counts only: results go to the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from apps.recon.enrich.schema import KINDS

Kind = Literal["asn", "geo", "vuln"]

BATCH_MAX = 100
"""Addresses per batch."""
HOSTS_MAX = 1000
"""Addresses that one request may name; a job may have any number."""
FAILURES_MAX = 100
"""Failures that a run lists; all are counted."""


class Failure(msgspec.Struct, frozen=True, order=True):
    """One thing that could not be enriched, and why."""

    subject: str
    """An address, or a CPE."""
    reason: str


class Totals(msgspec.Struct):
    """What came of one kind of enrichment. Every asked-for thing is enriched, not found or failed."""

    asked: int = 0
    """Addresses; for vulnerabilities: CPE names of their services."""
    enriched: int = 0
    from_cache: int = 0
    """Of those asked, the ones that needed no new look-up."""
    not_found: int = 0
    """The source has nothing about them, as about private networks."""
    failed: int = 0
    failures: list[Failure] = []
    """At most `FAILURES_MAX`."""
    skipped: str | None = None
    """Why this kind was not done at all: the setting that is missing."""

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(
            asked=self.asked + other.asked,
            enriched=self.enriched + other.enriched,
            from_cache=self.from_cache + other.from_cache,
            not_found=self.not_found + other.not_found,
            failed=self.failed + other.failed,
            failures=[*self.failures, *other.failures][:FAILURES_MAX],
            skipped=self.skipped or other.skipped,
        )


class VulnTotals(msgspec.Struct):
    """What came of looking for vulnerabilities, beside the totals."""

    services: int = 0
    """Services seen on the hosts; one that runs on hosts of two batches counts in both."""
    cpes: int = 0
    """CPE names of theirs, with a version."""
    vulns: int = 0
    """Vulnerabilities that apply to any of them; as with services."""
    relations: int = 0
    """Edges from a service to a vulnerability."""

    def plus(self, other: VulnTotals) -> VulnTotals:
        return VulnTotals(
            self.services + other.services,
            self.cpes + other.cpes,
            self.vulns + other.vulns,
            self.relations + other.relations,
        )


class EnrichRequest(msgspec.Struct):
    """Input of the workflow: which hosts, and what to find out."""

    job_id: str | None = None
    """All hosts that this job told of."""
    hosts: list[str] = []
    """Or these addresses."""
    kinds: list[Kind] = msgspec.field(default_factory=lambda: list[Kind](KINDS))
    force_refresh: bool = False
    """Ask the sources again, whatever the caches know."""


class BatchRequest(msgspec.Struct):
    """Input of one batch."""

    request: EnrichRequest
    after: str | None = None
    """The last address of the batch before."""
    started_at_ms: int = 0
    """When the run began, Unix milliseconds: what was looked up since is fresh even for `force_refresh`."""


class LookupRequest(msgspec.Struct):
    """Input of one kind of enrichment: up to `BATCH_MAX` addresses of known hosts."""

    ips: list[str]
    job_id: str | None = None
    force_refresh: bool = False
    started_at_ms: int = 0


class LookupResult(msgspec.Struct):
    totals: Totals
    vulnerabilities: VulnTotals | None = None


class Progress(msgspec.Struct):
    """How far a run is; in the end its result."""

    host_count: int = 0
    batch_count: int = 0
    totals: dict[str, Totals] = {}
    """By kind."""
    vulnerabilities: VulnTotals = msgspec.field(default_factory=VulnTotals)
    unknown: list[Failure] = []
    """Addresses that were asked for and are no hosts of ours; at most `FAILURES_MAX`."""

    def plus(self, other: Progress) -> Progress:
        """Both together."""
        return Progress(
            host_count=self.host_count + other.host_count,
            batch_count=self.batch_count + other.batch_count,
            totals={
                kind: self.totals.get(kind, Totals()).plus(other.totals.get(kind, Totals()))
                for kind in sorted({*self.totals, *other.totals})
            },
            vulnerabilities=self.vulnerabilities.plus(other.vulnerabilities),
            unknown=[*self.unknown, *other.unknown][:FAILURES_MAX],
        )


class BatchResult(msgspec.Struct):
    """Output of one batch."""

    done: Progress
    last: str | None
    """The last address of this batch, or None when there was nothing behind it."""


class Enrichment(msgspec.Struct):
    """One run, as the API shows it."""

    id: str
    state: str
    """`running`, `completed`, `failed` or `cancelled`."""
    kinds: list[str]
    host_count: int
    result: Progress
    started_at: datetime
    updated_at: datetime
    job_id: str | None = None
    error_message: str | None = None
    finished_at: datetime | None = None
