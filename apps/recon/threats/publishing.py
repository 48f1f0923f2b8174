"""Publishing what a campaign found: several changes, all or none.

    reserve credit ─> record threats, page by page ─> publish report ─> confirm credit
         └ release         └ retract, page by page        └ withdraw

A failure or a cancel on the way undoes what was done, in reverse order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from restate import Context, RestateDurableFuture, RunOptions, Service, TerminalError

from apps.recon.campaigns.model import ThreatFinding
from apps.recon.threats.model import HOSTS_MAX, Credit, Sighting, ThreatRecord, object_key
from apps.recon.threats.objects import Contributors, Threats
from holdfast.patterns import Saga, fan_out

SERVICE = "ThreatPublisher"
PAGE = 100
"""Threats per call of the recorder: each is two entries in its journal."""
AT_A_TIME = 10
POINTS_MAX = 10
"""A campaign earns one point for each threat, and no more than this."""


class Findings(Protocol):
    """What the publisher reads; `FindingStore` is one."""

    def threats(self, campaign_id: str, *, after: str = "", limit: int) -> Awaitable[list[ThreatFinding]]: ...


class PublishRequest(msgspec.Struct):
    campaign_id: str
    contributor: str
    threat_count: int


class Published(msgspec.Struct):
    threat_count: int
    points: int
    reputation: int
    """Of the contributor, afterwards."""


class PageRequest(msgspec.Struct):
    campaign_id: str
    after: str
    """The id of the last threat of the page before."""


class Page(msgspec.Struct):
    threats: list[ThreatFinding]


class PageResult(msgspec.Struct):
    count: int
    last: str


class Recorder:
    """`ThreatRecorder`: `record_page` and `retract_page` of a campaign's threats."""

    def __init__(self, threats: Threats, findings: Findings) -> None:
        service = self.service = Service("ThreatRecorder", description="Records one page of threats.")
        to_page = RunOptions(type_hint=Page)

        async def read_page(request: PageRequest) -> Page:
            found = await findings.threats(request.campaign_id, after=request.after, limit=PAGE)
            for each in found:  # the journal needs no more than the objects keep
                del each.hosts[HOSTS_MAX:]
            return Page(found)

        async def each_of(
            ctx: Context, request: PageRequest, start: Callable[[ThreatFinding], RestateDurableFuture[Any]]
        ) -> PageResult:
            page = (await ctx.run_typed("read page", read_page, to_page, request)).threats
            for outcome in await fan_out(page, start, concurrency=AT_A_TIME):
                if outcome.status == "failed":
                    raise TerminalError(f"{outcome.item.threat_id}: {outcome.error}", status_code=outcome.error_code)
            return PageResult(len(page), page[-1].threat_id if page else request.after)

        @service.handler(ingress_private=True)
        async def record_page(ctx: Context, request: PageRequest) -> PageResult:
            source = source_of(request.campaign_id)

            def record(found: ThreatFinding) -> RestateDurableFuture[ThreatRecord]:
                seen = Sighting(found.severity, found.title[:500], source, found.host_count, found.hosts)
                return ctx.object_call(threats.record, key=found.threat_id, arg=msgspec.to_builtins(seen))

            return await each_of(ctx, request, record)

        @service.handler(ingress_private=True)
        async def retract_page(ctx: Context, request: PageRequest) -> PageResult:
            source = source_of(request.campaign_id)
            return await each_of(
                ctx, request, lambda found: ctx.object_call(threats.retract, key=found.threat_id, arg=source)
            )

        self.record_page, self.retract_page = record_page, retract_page


class Publisher:
    """`ThreatPublisher`: `publish(PublishRequest)` answers `Published`, once.

    Args:
        recorder, contributors: Through which it changes the objects.
        set_published: Makes a report public, or withdraws it; repeating it changes nothing.
    """

    def __init__(
        self,
        recorder: Recorder,
        contributors: Contributors,
        set_published: Callable[[str, bool], Awaitable[None]],
    ) -> None:
        self._recorder = recorder
        service = self.service = Service(SERVICE, description="Publishes the threats that a campaign found.")

        async def publish_report(campaign_id: str) -> None:
            await set_published(campaign_id, True)

        async def withdraw_report(campaign_id: str) -> None:
            await set_published(campaign_id, False)

        @service.handler(ingress_private=True)
        async def publish(ctx: Context, request: PublishRequest) -> Published:
            key, credit_id = object_key(request.contributor), source_of(request.campaign_id)
            points = min(POINTS_MAX, request.threat_count)
            async with Saga(ctx) as saga:
                # Announced before each step: a call that was cancelled half-way may have taken effect.
                saga.compensate_by(
                    "release credit", lambda: ctx.object_call(contributors.release, key=key, arg=credit_id)
                )
                await ctx.object_call(contributors.reserve, key=key, arg=Credit(credit_id, points))
                recorded = await self._record(ctx, saga, request)
                saga.compensate("withdraw report", withdraw_report, request.campaign_id)
                await ctx.run_typed("publish report", publish_report, RunOptions(), request.campaign_id)
                contributor = await ctx.object_call(contributors.confirm, key=key, arg=credit_id)
            return Published(recorded, points, contributor.reputation)

        self.publish = publish

    async def _record(self, ctx: Context, saga: Saga, request: PublishRequest) -> int:
        """Record all pages; how many threats that were."""
        page, recorded = PageRequest(request.campaign_id, ""), 0
        while recorded < request.threat_count:
            saga.compensate_by(
                f"retract behind {page.after!r}",
                lambda page=page: ctx.service_call(self._recorder.retract_page, arg=page),
            )
            result = await ctx.service_call(self._recorder.record_page, arg=page)
            if not result.count:
                break
            recorded += result.count
            page = PageRequest(request.campaign_id, result.last)
        return recorded


def source_of(campaign_id: str) -> str:
    """By what name a campaign reports threats and earns credits."""
    return f"campaign:{campaign_id}"
