"""Messages to Discord, at most once per event: a virtual object per webhook, so that one rate limit is waited for once.

    post-1 ── 2xx ──────────────> sent
       ├── 429, retry_after ───── durable wait, post-2 ...
       ├── no connection ───────── durable wait, post-2 ...        (it cannot have arrived)
       ├── 4xx ────────────────── refused
       └── anything else, or the process died while it waited for the answer: unknown, and not repeated

Each attempt is claimed in the database before it is made. A step that runs again, because the process died, finds its claim
and does not send: the message may have arrived. So a message may be lost, but never comes twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import httpx
import msgspec
import restate
from restate import ObjectContext, VirtualObject

from apps.leads.model import JobKind, JobOrder, JobStatus
from apps.leads.outside import http_client
from apps.leads.settings import RetryPreset, Settings
from apps.leads.store import Store

SERVICE = "Notifications"
ATTEMPTS_MAX = 10
RETRY_AFTER_MAX_S = 300.0
CONNECT_WAIT_S = 2.0
ANSWER_TIMEOUT_S = 15.0
# Discord's own limits for embeds.
TITLE_MAX, DESCRIPTION_MAX, FIELDS_MAX, FIELD_NAME_MAX, FIELD_VALUE_MAX = 256, 4096, 25, 256, 1024
COLOURS = {"completed": 0x2E7D32, "failed": 0xC62828, "cancelled": 0x757575, "timed_out": 0xEF6C00}
_ONCE = RetryPreset(attempts=1)

State = Literal["sent", "limited", "unconnected", "refused", "unknown"]


class Event(msgspec.Struct, kw_only=True):
    """Something to tell, once."""

    event_id: str
    """The same id again is the same event."""
    content: str = ""
    embeds: list[dict[str, Any]] = []


class Attempt(msgspec.Struct, kw_only=True):
    """What became of one request."""

    state: State
    detail: str = ""
    retry_after_s: float = 0.0


class Delivery(msgspec.Struct, kw_only=True):
    """What became of an event at one target."""

    event_id: str
    target: str
    state: Literal["sent", "refused", "unknown", "given_up", "no_target"]
    attempt_count: int
    detail: str = ""


def notifications(store: Store, settings: Settings) -> tuple[VirtualObject, Any]:
    """The virtual object and its handler `deliver`. Its keys are targets: see `address_of`."""
    service = VirtualObject(SERVICE, description="Discord webhooks, one key each", state_preload=False)

    @service.handler()
    async def deliver(ctx: ObjectContext, event: Event) -> Delivery:
        target = ctx.key()
        url = address_of(target, settings)
        if url is None:
            return Delivery(event_id=event.event_id, target=target, state="no_target", attempt_count=0)
        attempt = Attempt(state="unknown")
        for number in range(1, ATTEMPTS_MAX + 1):
            attempt = await ctx.run_typed(
                f"post-{number}", _post, _ONCE.options(Attempt), store, url, event, target, number
            )
            if attempt.state not in ("limited", "unconnected"):
                return Delivery(
                    event_id=event.event_id,
                    target=target,
                    state=attempt.state,
                    attempt_count=number,
                    detail=attempt.detail,
                )
            if number < ATTEMPTS_MAX:
                await ctx.sleep(timedelta(seconds=attempt.retry_after_s))
        return Delivery(
            event_id=event.event_id,
            target=target,
            state="given_up",
            attempt_count=ATTEMPTS_MAX,
            detail=attempt.detail,
        )

    return service, deliver


def address_of(target: str, settings: Settings) -> str | None:
    """Where a target's messages go: a configured webhook's name, or `interaction/<application id>/<token>`."""
    if target.startswith("interaction/"):
        parts = target.split("/")
        if (
            len(parts) == 3
            and parts[1].isdigit()
            and parts[2].replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            return f"{settings.discord_api_url}/webhooks/{parts[1]}/{parts[2]}"
        return None
    return settings.webhooks.get(target)


async def _post(store: Store, url: str, event: Event, target: str, number: int) -> Attempt:
    if not await store.begin_delivery(event.event_id, target, number):
        return Attempt(state="unknown", detail="the process died while it waited for the answer; not sent again")
    try:
        attempt = await _request(url, event)
    except asyncio.CancelledError:
        raise  # the claim stays: nobody knows whether it arrived
    state = "limited" if attempt.state == "unconnected" else attempt.state
    await store.end_delivery(event.event_id, target, number, state, attempt.detail)
    return attempt


async def _request(url: str, event: Event) -> Attempt:
    message: dict[str, Any] = {"embeds": event.embeds, "allowed_mentions": {"parse": []}}
    if event.content:
        message["content"] = event.content[:2000]
    try:
        async with http_client(timeout=ANSWER_TIMEOUT_S) as client:
            answer = await client.post(url, json=message)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return Attempt(
            state="unconnected", detail=f"no connection: {type(error).__name__}", retry_after_s=CONNECT_WAIT_S
        )
    except httpx.HTTPError as error:
        return Attempt(state="unknown", detail=f"no answer: {type(error).__name__}")
    if answer.status_code == 429:
        return Attempt(state="limited", detail="rate limit", retry_after_s=_retry_after_s(answer))
    if answer.is_success:
        return Attempt(state="sent")
    state: State = "unknown" if answer.status_code >= 500 else "refused"
    return Attempt(state=state, detail=f"answered with {answer.status_code}")


def _retry_after_s(answer: httpx.Response) -> float:
    """Discord says it in the body with fractions, and in a header in whole seconds."""
    try:
        value = float(answer.json()["retry_after"])
    except (ValueError, KeyError, TypeError):
        try:
            value = float(answer.headers.get("retry-after", "1"))
        except ValueError:
            value = 1.0
    return min(max(0.0, value), RETRY_AFTER_MAX_S)


# ---- what is told --------------------------------------------------------------------------------------------------------


def job_event(
    order: JobOrder, status: JobStatus, result: Mapping[str, Any] | None, error: str, settings: Settings
) -> Event:
    """The message about the end of a job. One per job, run and end."""
    request = order.request
    if order.kind is JobKind.DISCOVERY:
        what = f"{request.get('niche', '')} in {request.get('location', '')}"
    else:
        what = f"{(result or {}).get('business_count') or len(request.get('businesses', []))} businesses"
    fields = [("Job", order.job_id), *_facts(order.kind, result)]
    if error:
        fields.append(("Why", error))
    embed = {
        "title": f"{order.kind.capitalize()} {status.replace('_', ' ')}: {what}"[:TITLE_MAX],
        "color": COLOURS[status],
        "fields": [
            {"name": name[:FIELD_NAME_MAX], "value": str(value)[:FIELD_VALUE_MAX], "inline": len(str(value)) < 30}
            for name, value in fields[:FIELDS_MAX]
            if str(value)
        ],
    }
    if settings.public_url:
        embed["url"] = f"{settings.public_url.rstrip('/')}/jobs/{order.job_id}"
    return Event(event_id=f"{order.run_id}:{status}", embeds=[embed])


def _facts(kind: JobKind, result: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    if result is None:
        return []
    if kind is JobKind.DISCOVERY:
        stats = result["stats"]
        return [
            ("Leads", result["lead_count"]),
            ("With website", stats["with_website"]),
            ("Websites that answered", stats["scanned"]),
            ("Best score", result["best_score"]),
        ]
    return [
        ("Enriched", result["enriched_count"]),
        ("Failed", result["failed_count"]),
        ("Best score", result["best_score"]),
    ]


def targets_of(order: JobOrder, settings: Settings) -> list[str]:
    """Who hears of the end of this job, each once."""
    return [*dict.fromkeys([*settings.notify_always, *order.notify])]


def send_job_event(
    ctx: restate.Context,
    deliver: Any,
    order: JobOrder,
    status: JobStatus,
    result: Mapping[str, Any] | None,
    error: str,
    settings: Settings,
) -> None:
    """Have the end of a job told; durable as soon as the handler goes on."""
    event = job_event(order, status, result, error, settings)
    for target in targets_of(order, settings):
        ctx.object_send(deliver, key=target, arg=event, idempotency_key=event.event_id)
