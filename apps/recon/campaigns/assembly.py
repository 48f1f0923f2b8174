"""All services of campaigns and threats, put together from the store and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from restate import Service, VirtualObject, Workflow

from apps.recon.campaigns.approval import Approvals, ApprovalStore, Notifier, notify_log, notify_webhook
from apps.recon.campaigns.batch import Batches
from apps.recon.campaigns.correlator import Correlator
from apps.recon.campaigns.findings import FindingStore
from apps.recon.campaigns.scanners import NmapScanner, Scanner, TcpScanner
from apps.recon.campaigns.scanning import ScanRetry, Scans
from apps.recon.campaigns.store import CampaignStore
from apps.recon.campaigns.sweeping import Watcher
from apps.recon.campaigns.targets import AllowList, Resolver, resolve
from apps.recon.campaigns.validation import Validator
from apps.recon.campaigns.workflow import Campaigns, Services
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.threats.model import HISTORY_CHUNK, HISTORY_KEEP
from apps.recon.threats.objects import Contributors, Threats
from apps.recon.threats.publishing import Publisher, Recorder
from apps.recon.threats.store import ThreatStore
from holdfast.patterns import JobTracker


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the API and the engine need of campaigns and threats."""

    scans: Scans
    validator: Validator
    approvals: Approvals
    batches: Batches
    correlator: Correlator
    campaigns: Campaigns
    sessions: JobTracker
    threats: Threats
    contributors: Contributors
    recorder: Recorder
    publisher: Publisher
    watcher: Watcher

    def campaign_services(self) -> list[Service | VirtualObject | Workflow]:
        """For the engine."""
        return [
            self.campaigns.service,
            self.validator.service,
            self.approvals.service,
            self.batches.service,
            self.scans.service,
            self.correlator.service,
            self.sessions.service,
            self.publisher.service,
            self.recorder.service,
            self.watcher.service,
        ]

    def threat_services(self) -> list[Service | VirtualObject | Workflow]:
        """For the engine."""
        histories = (self.threats.history, self.contributors.history)
        objects = [self.threats.service, self.contributors.service]
        return [*objects, *(each for log in histories for each in (log.service, log.archive))]


def assemble(
    store: Store,
    settings: Settings,
    *,
    scanners: Mapping[str, Scanner] | None = None,
    resolver: Resolver = resolve,
    notify: Notifier | None = None,
    retry: ScanRetry | None = None,
    history_keep: int = HISTORY_KEEP,
    history_chunk: int = HISTORY_CHUNK,
) -> Parts:
    """Put the services together.

    Args:
        store: recon's database.
        settings: Networks, time limits, concurrency.
        scanners, resolver, notify, retry: Instead of those that the settings describe.
        history_keep, history_chunk: So many entries of a history stay at hand; so many are archived together.
    """
    campaigns, threat_store, findings = CampaignStore(store), ThreatStore(store), FindingStore(store)
    allow = AllowList(settings.allowed_networks, settings.sensitive_networks)
    if notify is None:
        notify = notify_webhook(settings.approval_webhook) if settings.approval_webhook else notify_log
    scans = Scans(campaigns, scanners or scanners_of(settings), allow, retry or ScanRetry())
    validator = Validator(campaigns, allow, resolver)
    asked = ApprovalStore(store)
    approvals = Approvals(asked, notify)
    batches = Batches(campaigns, scans, concurrency=settings.scan_concurrency)
    correlator = Correlator(findings)
    threats = Threats(threat_store, keep=history_keep, chunk=history_chunk)
    contributors = Contributors(threat_store, keep=history_keep, chunk=history_chunk)
    recorder = Recorder(threats, findings)
    publisher = Publisher(recorder, contributors, campaigns.set_published)
    sessions = JobTracker("ScanSession")
    services = Services(validator, approvals, batches, correlator, publisher, sessions)
    workflow = Campaigns(
        campaigns,
        services,
        approval_timeout=settings.approval_timeout,
        waits_for_enrichment=settings.enrich_after_ingest,
    )
    return Parts(
        scans=scans,
        validator=validator,
        approvals=approvals,
        batches=batches,
        correlator=correlator,
        campaigns=workflow,
        sessions=sessions,
        threats=threats,
        contributors=contributors,
        recorder=recorder,
        publisher=publisher,
        watcher=Watcher(campaigns, asked, sessions),
    )


def scanners_of(settings: Settings) -> dict[str, Scanner]:
    """The scanners by the names that callers use."""
    return {
        "tcp": TcpScanner(settings.connect_timeout, settings.banner_timeout or timedelta(0)),
        "nmap": NmapScanner(settings.nmap_path, with_versions=settings.nmap_versions),
    }
