"""HTTP routes of campaigns and approvals.

    POST /v1/campaigns              202 | 400 | 409 the id belongs to another campaign
    GET  /v1/campaigns              200
    GET  /v1/campaigns/{id}         200 | 404         /status: the short form
    POST /v1/campaigns/{id}/cancel  202 | 404 | 409 it is over | 503 the engine is away
    GET  /v1/campaigns/{id}/report  200 | 404         in pages: ?limit= &after=
    GET  /v1/approvals              200               ?state=pending
    GET  /v1/approvals/{id}         200 | 404
    POST /v1/approvals/{id}         200 | 400 | 401, 403 without the admin token | 404 | 503

A campaign is answered once it is on disk with its targets. When the engine cannot be reached, the sweeper starts it.

Where an admin token is configured, starting and cancelling campaigns needs it as well.
"""

from __future__ import annotations

import asyncio
import logging
import uuid

import httpx
import msgspec
import restate
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon.campaigns.approval import ApprovalStore
from apps.recon.campaigns.assembly import assemble
from apps.recon.campaigns.findings import FindingStore
from apps.recon.campaigns.model import (
    FINAL,
    TARGETS_MAX,
    Campaign,
    CampaignId,
    CampaignOptions,
    CampaignRequest,
    Report,
    TargetRow,
)
from apps.recon.campaigns.schema import APPROVAL_STATES
from apps.recon.campaigns.store import CampaignDiffers, CampaignStore
from apps.recon.campaigns.targets import count
from apps.recon.http import ApiError, answer, choice, number, read_json, require_admin
from apps.recon.parts import ApiContext

logger = logging.getLogger("recon.campaigns")

START_TIMEOUT_S = 5
"""How long a caller waits for the engine before the start is left to the sweeper."""

ENGINE_TIMEOUT_S = 30
"""How long anything else may take that only the engine can do."""

BODY_BYTES_MAX = 4 << 20
"""Room for the largest list of targets, each as long as an IPv6 address."""
CAMPAIGNS_PER_PAGE = 50
REPORT_ROWS = 1000
REPORT_ROWS_MAX = 5000
REJECTED_SHOWN_MAX = 1000
THREATS_SHOWN_MAX = 1000


class StartCampaign(msgspec.Struct, forbid_unknown_fields=True):
    targets: list[str]
    campaign_id: CampaignId | None = None
    """Sent again, it is the same campaign. None makes one up."""
    options: CampaignOptions = msgspec.field(default_factory=CampaignOptions)


class Status(msgspec.Struct):
    campaign_id: str
    status: str
    scanned: int
    total: int
    rejected: int
    failed: int
    approval: str | None
    error: str | None


class CampaignList(msgspec.Struct):
    campaigns: list[Campaign]
    limit: int
    offset: int
    next_offset: int | None


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """To a request for an approval."""

    approved: bool
    by: str = ""
    comment: str = ""


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, with their full paths."""
    own = _Routes(context)
    return [
        Route("/v1/campaigns", own.start, methods=["POST"]),
        Route("/v1/campaigns", own.list_campaigns),
        Route("/v1/campaigns/{campaign_id}", own.get),
        Route("/v1/campaigns/{campaign_id}/status", own.status),
        Route("/v1/campaigns/{campaign_id}/cancel", own.cancel, methods=["POST"]),
        Route("/v1/campaigns/{campaign_id}/report", own.report),
        Route("/v1/approvals", own.list_approvals),
        Route("/v1/approvals/{approval_id}", own.decide, methods=["POST"]),
        Route("/v1/approvals/{approval_id}", own.get_approval),
    ]


class _Routes:
    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._parts = assemble(context.store, context.settings)  # for the names of their handlers
        self._campaigns = CampaignStore(context.store)
        self._findings = FindingStore(context.store)
        self._approvals = ApprovalStore(context.store)

    async def start(self, request: Request) -> Response:
        self._admit(request)
        body = await read_json(request, StartCampaign, bytes_max=BODY_BYTES_MAX)
        targets = count(body.targets)
        if not 0 < targets <= TARGETS_MAX:
            raise ApiError(400, "invalid_request", f"{targets} targets; a campaign has 1 to {TARGETS_MAX}")
        campaign_id = body.campaign_id or str(uuid.uuid4())
        wanted = CampaignRequest(campaign_id, body.targets, body.options)
        try:
            campaign = await self._campaigns.create(wanted, targets)
        except CampaignDiffers as error:
            raise ApiError(409, "conflict", str(error)) from error
        if not is_over(campaign):
            await self._begin(CampaignRequest(campaign_id, options=body.options))
        return answer(await self._campaign(campaign_id), 202)

    async def _begin(self, wanted: CampaignRequest) -> None:
        """Start the workflow. Campaign and targets are on disk: if that fails now, the sweeper does it later.

        The workflow's input stays small: it leaves the targets out.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                handle = await self._context.client.workflow_send(
                    self._parts.campaigns.run, key=wanted.campaign_id, arg=msgspec.to_builtins(wanted)
                )
        except (restate.HttpError, httpx.TransportError, TimeoutError) as error:
            fields = {"campaign_id": wanted.campaign_id, "error": repr(error)}
            logger.error("campaign is not started yet: the engine did not take it", extra=fields)
            return
        await self._campaigns.set_invocation(wanted.campaign_id, handle.invocation_id)

    async def get(self, request: Request) -> Response:
        self._context.limit(request)
        return answer(await self._campaign(request.path_params["campaign_id"]))

    async def status(self, request: Request) -> Response:
        self._context.limit(request)
        campaign = await self._campaign(request.path_params["campaign_id"])
        return answer(
            Status(
                campaign.id,
                campaign.status,
                campaign.scanned,
                campaign.total,
                campaign.rejected,
                campaign.failed,
                campaign.approval,
                campaign.error,
            )
        )

    async def list_campaigns(self, request: Request) -> Response:
        self._context.limit(request)
        limit = number(request.query_params, "limit", CAMPAIGNS_PER_PAGE, 1, 500)
        offset = number(request.query_params, "offset", 0, 0, 2**31)
        found = await self._campaigns.campaigns(limit=limit, offset=offset)
        return answer(CampaignList(found, limit, offset, offset + limit if len(found) == limit else None))

    async def cancel(self, request: Request) -> Response:
        self._admit(request)
        campaign = await self._campaign(request.path_params["campaign_id"])
        if is_over(campaign):
            raise ApiError(409, "conflict", f"campaign {campaign.id} is {campaign.status}")
        if campaign.invocation_id is None and not await self._campaigns.cancel_unstarted(campaign.id):
            campaign = await self._campaign(campaign.id)  # it was started just now
        if campaign.invocation_id is not None:
            try:
                async with asyncio.timeout(ENGINE_TIMEOUT_S):
                    await self._context.cancel(campaign.invocation_id)
            except (restate.HttpError, httpx.TransportError, TimeoutError) as error:
                raise ApiError(
                    503, "unavailable", "the engine cannot be reached; try again", {"Retry-After": "5"}
                ) from error
        return answer(await self._campaign(campaign.id), 202)

    async def report(self, request: Request) -> Response:
        self._context.limit(request)
        campaign = await self._campaign(request.path_params["campaign_id"])
        limit = number(request.query_params, "limit", REPORT_ROWS, 1, REPORT_ROWS_MAX)
        after = request.query_params.get("after", "")
        results = await self._campaigns.targets(
            campaign.id, states=["scanned", "failed", "ready"], after=after, limit=limit
        )
        rejected: list[TargetRow] = []
        if not after:
            rejected = await self._campaigns.targets(campaign.id, states=["rejected"], limit=REJECTED_SHOWN_MAX)
        addresses = {row.address for row in results if row.address and row.is_up}
        return answer(
            Report(
                campaign=campaign,
                results=results,
                rejected=rejected,
                hosts=await self._findings.hosts(campaign.id, sorted(addresses)),
                threats=await self._findings.threats(campaign.id, limit=THREATS_SHOWN_MAX),
                next=results[-1].target if len(results) == limit else None,
            )
        )

    async def list_approvals(self, request: Request) -> Response:
        self._context.limit(request)
        state = choice(request.query_params, "state", APPROVAL_STATES)
        limit = number(request.query_params, "limit", 50, 1, 500)
        return answer({"approvals": await self._approvals.approvals(state=state, limit=limit)})

    async def get_approval(self, request: Request) -> Response:
        self._context.limit(request)
        approval_id = request.path_params["approval_id"]
        approval = await self._approvals.approval(approval_id)
        if approval is None:
            raise ApiError(404, "not_found", f"there is no approval {approval_id}")
        return answer(approval)

    async def decide(self, request: Request) -> Response:
        require_admin(request, self._context.settings)
        approval_id = request.path_params["approval_id"]
        given = await read_json(request, Answer)
        if await self._approvals.approval(approval_id) is None:
            raise ApiError(404, "not_found", f"there is no approval {approval_id}")
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT_S):
                decided = await self._context.client.workflow_call(
                    self._parts.approvals.decide, key=approval_id, arg=msgspec.to_builtins(given)
                )
        except (restate.HttpError, httpx.TransportError, TimeoutError) as error:
            raise ApiError(503, "unavailable", "the engine did not take the answer; send it again") from error
        return answer({"approval_id": approval_id, **decided})

    def _admit(self, request: Request) -> None:
        if self._context.settings.admin_token is not None:
            require_admin(request, self._context.settings)
        self._context.limit(request)

    async def _campaign(self, campaign_id: str) -> Campaign:
        campaign = await self._campaigns.campaign(campaign_id)
        if campaign is None:
            raise ApiError(404, "not_found", f"there is no campaign {campaign_id}")
        return campaign


def is_over(campaign: Campaign) -> bool:
    """Whether nothing about it will change any more."""
    return campaign.status in {phase.value for phase in FINAL}
