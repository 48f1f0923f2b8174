"""Enrichment: who announces a host's address, where it is, what its services are affected by. See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from apps.recon.enrich.api import routes
from apps.recon.enrich.cli import commands
from apps.recon.enrich.metrics import metrics
from apps.recon.enrich.model import EnrichRequest
from apps.recon.enrich.panels import panels
from apps.recon.enrich.services import WORKFLOW
from apps.recon.enrich.services import enrichment_services as services

if TYPE_CHECKING:
    from restate import WorkflowContext

    from apps.recon.model import IngestResult
    from apps.recon.settings import Settings

__all__ = ["after_ingest", "commands", "metrics", "panels", "routes", "services"]


def after_ingest(ctx: WorkflowContext, done: IngestResult, settings: Settings) -> None:
    """Enrich the hosts of a job that is complete, if configured: one durable send."""
    if settings.enrich_after_ingest:
        request = msgspec.json.encode(EnrichRequest(job_id=done.job_id))
        ctx.generic_send(
            WORKFLOW, "run", request, key=f"job-{done.job_id}", headers={"Content-Type": "application/json"}
        )
