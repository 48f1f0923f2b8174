"""What campaigns show on the dashboard."""

from __future__ import annotations

from apps.recon.campaigns.approval import ApprovalStore
from apps.recon.campaigns.store import CampaignStore
from apps.recon.parts import ApiContext, Panel

SHOWN = 10


async def panels(context: ApiContext) -> list[Panel]:
    """The latest campaigns, and the approvals that wait."""
    found = await CampaignStore(context.store).campaigns(limit=SHOWN, offset=0)
    waiting = await ApprovalStore(context.store).approvals(state="pending", limit=SHOWN)
    campaigns = Panel(
        "Campaigns",
        ["campaign", "status", "scanned", "total", "rejected", "failed", "created"],
        [[one.id, one.status, one.scanned, one.total, one.rejected, one.failed, one.created_at] for one in found],
        note="" if found else "none yet",
    )
    if not waiting:
        return [campaigns]
    rows = [[one.id, one.question, one.requested_at, one.expires_at] for one in waiting]
    return [campaigns, Panel("Waiting for approval", ["approval", "question", "requested", "expires"], rows)]
