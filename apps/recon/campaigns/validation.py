"""The validator: reads the lines that a campaign was given, resolves names, and writes a row for every target."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from restate import Context, RunOptions, Service, TerminalError

from apps.recon.campaigns.model import TARGETS_MAX, Validated
from apps.recon.campaigns.store import CampaignStore
from apps.recon.campaigns.targets import AllowList, ResolutionFailed, Resolver, TargetRejected, expand, locate, resolve
from holdfast.patterns import EXTERNAL_CALL

SERVICE = "TargetValidator"
NAMES_AT_A_TIME = 20

_COUNT = RunOptions(type_hint=int)
_VALIDATED = RunOptions(type_hint=Validated)


class Validator:
    """The service; `validate(campaign_id)` answers what its targets came to. Repeating it decides nothing anew."""

    def __init__(self, store: CampaignStore, allow: AllowList, resolver: Resolver = resolve) -> None:
        service = self.service = Service(SERVICE, description="Checks and resolves the targets of a campaign.")

        async def check_page(campaign_id: str, page: int, is_last_try: bool) -> None:
            texts = await store.source(campaign_id, page)
            await store.add_targets(campaign_id, await check(texts, allow, resolver, is_last_try=is_last_try))

        @service.handler(ingress_private=True)
        async def validate(ctx: Context, campaign_id: str) -> Validated:
            pages = await ctx.run_typed("count pages", store.source_count, _COUNT, campaign_id)
            for page in range(pages):
                name = f"check page {page}"
                try:
                    await ctx.run_typed(name, check_page, EXTERNAL_CALL, campaign_id, page, False)
                except TerminalError as error:
                    if error.status_code == 409:
                        raise
                    # The name server stays away: its names are rejected, the rest of the page is not lost.
                    await ctx.run_typed(f"{name} without names", check_page, RunOptions(), campaign_id, page, True)
            return await ctx.run_typed("count targets", store.validated, _VALIDATED, campaign_id)

        self.validate = validate


async def check(
    texts: Sequence[str], allow: AllowList, resolver: Resolver, *, is_last_try: bool
) -> list[dict[str, Any]]:
    """A row of `campaign_target` for every target that these lines stand for.

    Args:
        texts: As the caller wrote them.
        is_last_try: Reject a name that nobody can resolve now, instead of raising.
    Raises:
        ResolutionFailed: a name could not be resolved; try again.
    """
    targets: dict[str, str | None] = {}
    for text in texts:
        try:
            targets |= dict.fromkeys(expand(text))
        except TargetRejected as error:
            targets[text.strip()[:256] or "(empty)"] = str(error)
        if len(targets) > TARGETS_MAX:
            raise TerminalError(f"more than {TARGETS_MAX} targets", status_code=400)
    turns = asyncio.Semaphore(NAMES_AT_A_TIME)

    async def row(target: str, reason: str | None) -> dict[str, Any]:
        if reason is not None:
            return _rejected(target, reason)
        try:
            async with turns:
                address = await locate(target, allow, resolver)
        except TargetRejected as error:
            return _rejected(target, str(error))
        except ResolutionFailed as error:
            if not is_last_try:
                raise
            return _rejected(target, str(error))
        is_sensitive = allow.is_sensitive(address)
        return {"target": target, "state": "ready", "address": str(address), "is_sensitive": is_sensitive}

    return await asyncio.gather(*(row(target, reason) for target, reason in targets.items()))


def _rejected(target: str, reason: str) -> dict[str, Any]:
    return {"target": target, "state": "rejected", "reason": reason}
