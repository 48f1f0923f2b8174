"""Campaigns that the engine does not look after: recorded while it was away, or killed there by an operator.

The sweeper (`apps/recon/control.py`) asks for both in each tick.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
from restate import Context, ObjectContext, RunOptions, Service, TerminalError

from apps.recon.campaigns.approval import ApprovalStore
from apps.recon.campaigns.model import SERVICE, CampaignRequest, Phase
from apps.recon.campaigns.store import CampaignStore
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast.patterns import JobTracker

logger = logging.getLogger("recon.sweeper")

WATCHER = "CampaignWatcher"
KILLED = "its workflow was ended from outside"
"""Begins the error of a campaign that was not allowed to finish."""

SWEPT_PER_TICK = 100
"""Each is an entry in the tick's journal; the rest is for the next one."""

_JSON = {"Content-Type": "application/json"}


class Watched(msgspec.Struct):
    """A campaign, and the invocation that runs it."""

    campaign_id: str
    invocation_id: str


class Overdue(msgspec.Struct):
    """Result of the step."""

    unstarted: list[CampaignRequest]
    unwatched: list[Watched]


class Watcher:
    """`CampaignWatcher`: waits for the end of a campaign's workflow, and ends the campaign if the workflow did not.

    A workflow that fails or is cancelled marks its campaign itself. One that is killed has no time to.
    """

    def __init__(self, campaigns: CampaignStore, approvals: ApprovalStore, sessions: JobTracker) -> None:
        service = self.service = Service(WATCHER, description="Ends campaigns whose workflow was killed.")

        async def close(campaign_id: str, reason: str) -> None:
            await approvals.finish(campaign_id, "cancelled", "", "")
            await campaigns.set_phase(campaign_id, Phase.FAILED, error=reason)

        @service.handler(ingress_private=True)
        async def watch(ctx: Context, watched: Watched) -> None:
            await ctx.run_typed("watching", campaigns.set_watched, RunOptions(), watched.campaign_id)
            try:
                await ctx.attach_invocation(watched.invocation_id, type_hint=object)
            except TerminalError as error:
                if error.message == "cancelled":  # the campaign, which has marked itself then, or this watcher
                    raise
                reason = f"{KILLED}: {error.message}"
                await ctx.run_typed("close", close, RunOptions(), watched.campaign_id, reason)
                ctx.object_send(sessions.fail, key=watched.campaign_id, arg=reason)

        assert watch is not None  # the decorator registers it; the sweeper calls it by name


async def sweep(ctx: ObjectContext, store: Store, settings: Settings) -> None:
    """Start every campaign that nobody has begun within the sweeper's interval, and have the others watched.

    The workflow's key is the campaign's id, so starting one that was started meanwhile changes nothing.
    """
    campaigns = CampaignStore(store)

    async def find() -> Overdue:
        before = datetime.now(UTC) - settings.sweep_interval
        unwatched = await campaigns.unwatched(before=before, limit=SWEPT_PER_TICK)
        return Overdue(
            await campaigns.unstarted(before=before, limit=SWEPT_PER_TICK), [Watched(*each) for each in unwatched]
        )

    found = await ctx.run_typed("find campaigns", find, RunOptions(type_hint=Overdue))
    for request in found.unstarted:
        ctx.generic_send(SERVICE, "run", msgspec.json.encode(request), key=request.campaign_id, headers=_JSON)
        logger.info("campaign started by the sweeper", extra={"campaign_id": request.campaign_id})
    for watched in found.unwatched:
        body = msgspec.json.encode(watched)
        ctx.generic_send(WATCHER, "watch", body, idempotency_key=watched.campaign_id, headers=_JSON)
