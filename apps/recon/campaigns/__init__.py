"""Scan campaigns: targets in, scans in durable batches, correlated findings out. See README.md."""

from __future__ import annotations

from restate import Service, VirtualObject, Workflow

from apps.recon.campaigns.api import routes
from apps.recon.campaigns.assembly import assemble
from apps.recon.campaigns.cli import commands
from apps.recon.campaigns.panels import panels
from apps.recon.campaigns.sweeping import sweep
from apps.recon.settings import Settings
from apps.recon.store import Store

__all__ = ["commands", "panels", "routes", "services", "sweep"]


def services(store: Store, settings: Settings) -> list[Service | VirtualObject | Workflow]:
    """What the engine runs for campaigns. The objects of threats, which these call, are in `apps.recon.threats`."""
    return assemble(store, settings).campaign_services()
