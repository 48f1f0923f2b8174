"""The correlator: joins what a campaign found with what other scans and enrichment know, page by page."""

from __future__ import annotations

import msgspec
from restate import Context, RunOptions, Service

from apps.recon.campaigns.correlate import join, tally
from apps.recon.campaigns.findings import FindingStore
from apps.recon.campaigns.model import Correlated

SERVICE = "Correlator"
PAGE = 500
"""Targets per step. Their hosts with all ports are in memory at the same time."""


class Page(msgspec.Struct):
    next: str | None
    """Where the next one begins; None after the last."""


_PAGE = RunOptions(type_hint=Page)
_CORRELATED = RunOptions(type_hint=Correlated)


class Correlator:
    """The service; `correlate(campaign_id)` may be called again, when more is known."""

    def __init__(self, findings: FindingStore) -> None:
        service = self.service = Service(SERVICE, description="Joins the results of scans into hosts and threats.")

        async def join_page(campaign_id: str, after: str) -> Page:
            addresses, following = await findings.addresses(campaign_id, after=after, limit=PAGE)
            if addresses:
                hosts = join(await findings.seen(addresses), await findings.vulnerabilities(addresses))
                await findings.save_hosts(campaign_id, hosts)
            return Page(following)

        async def tally_threats(campaign_id: str) -> Correlated:
            hosts = await findings.threatened(campaign_id)
            threats = await findings.describe(each for _, found in hosts for each in found)
            await findings.save_threats(campaign_id, tally(hosts, threats))
            return Correlated(*await findings.counts(campaign_id))

        @service.handler()
        async def correlate(ctx: Context, campaign_id: str) -> Correlated:
            after: str | None = ""
            number = 0
            while after is not None:
                number += 1
                page = await ctx.run_typed(f"join page {number}", join_page, _PAGE, campaign_id, after)
                after = page.next
            return await ctx.run_typed("tally threats", tally_threats, _CORRELATED, campaign_id)

        self.correlate = correlate
