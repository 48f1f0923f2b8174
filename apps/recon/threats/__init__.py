"""Threats, contributors and the publication of what a campaign found. See `apps/recon/campaigns/README.md`."""

from __future__ import annotations

from restate import Service, VirtualObject, Workflow

from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.threats.api import routes
from apps.recon.threats.crediting import after_ingest
from apps.recon.threats.objects import Contributors, Threats
from apps.recon.threats.store import ThreatStore

__all__ = ["after_ingest", "routes", "services"]


def services(store: Store, settings: Settings) -> list[Service | VirtualObject | Workflow]:
    """What the engine runs for threats and contributors."""
    del settings
    threats, contributors = Threats(ThreatStore(store)), Contributors(ThreatStore(store))
    logs = (threats.history, contributors.history)
    return [threats.service, contributors.service, *(each for log in logs for each in (log.service, log.archive))]
