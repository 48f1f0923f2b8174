"""Approval of sensitive targets: somebody says yes within a time, or the answer is no.

    run ──> request (row and notice, once) ──> wait for the answer or the time-out ──> row ──> decision
    decide ──> answers the request, then tells which decision counts

Three ways to answer: `POST /v1/approvals/{id}`, the command line, or by the id of the awakeable at the engine's
ingress (`POST /restate/awakeables/<id>/resolve`). The first one counts; a later one, and one after the time-out, learns
what was decided and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import msgspec
from restate import (
    DurablePromise,
    RestateDurableFuture,
    RunOptions,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
)

from apps.recon.inputs import required
from apps.recon.store import Store
from holdfast.patterns import Decision, Saga, ask_for_approval, decision, idempotency_key, raise_for_status

logger = logging.getLogger("recon.approval")

SERVICE = "Approval"
NOTICE_TIMEOUT_S = 10.0


class ApprovalRequest(msgspec.Struct):
    question: str
    """What is asked, for a person."""
    within_s: float
    """How long an answer is waited for."""


class Approval(msgspec.Struct):
    """An approval as the API shows it."""

    id: str
    state: str
    """`pending`, `approved`, `denied`, `timeout` or `cancelled`."""
    question: str
    awakeable_id: str
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    comment: str | None = None


Notifier = Callable[[Approval], Awaitable[None]]
"""Tells somebody. It may be called again for the same approval if the process dies while it runs."""


async def notify_log(approval: Approval) -> None:
    """A line in the log."""
    logger.warning(
        "approval_requested",
        extra={"approval_id": approval.id, "question": approval.question, "expires_at": str(approval.expires_at)},
    )


def notify_webhook(url: str) -> Notifier:
    """POST the approval as JSON, with a key by which the receiver knows a repetition."""

    async def notify(approval: Approval) -> None:
        await notify_log(approval)
        key = idempotency_key("approval", approval.id, approval.awakeable_id)
        async with httpx.AsyncClient(timeout=NOTICE_TIMEOUT_S) as client:
            answer = await client.post(
                url,
                content=msgspec.json.encode(approval),
                headers={"content-type": "application/json", "idempotency-key": key},
            )
        raise_for_status(answer.status_code, f"{url} answered with {answer.status_code}")

    return notify


class ApprovalStore:
    """Approvals, on recon's database."""

    def __init__(self, store: Store) -> None:
        self._base = store

    async def request(self, approval_id: str, awakeable_id: str, request: ApprovalRequest) -> Approval:
        """Keep a new request, or return the one that is kept."""
        await self._base.write(
            """INSERT IGNORE INTO approval { id: $id, state: 'pending', awakeable: $awakeable, question: $question,
                expires_at: $expires_at } RETURN NONE""",
            id=approval_id,
            awakeable=awakeable_id,
            question=request.question,
            expires_at=datetime.now(UTC) + timedelta(seconds=request.within_s),
        )
        found = await self.approval(approval_id)
        assert found is not None
        return found

    async def finish(self, approval_id: str, state: str, by: str, comment: str) -> None:
        """Keep what was decided; the first decision stays."""
        await self._base.write(
            """UPDATE type::thing('approval', $id) SET state = $state, decided_by = $by, comment = $comment,
                decided_at = time::now() WHERE state = 'pending' RETURN NONE""",
            id=approval_id,
            state=state,
            by=by or None,
            comment=comment or None,
        )

    async def approval(self, approval_id: str) -> Approval | None:
        """The approval, or None."""
        (rows,) = await self._base.read("SELECT * FROM type::thing('approval', $id)", id=approval_id)
        return _approval(rows[0]) if rows else None

    async def approvals(self, *, state: str | None, limit: int) -> list[Approval]:
        """The newest first; None means in any state."""
        (rows,) = await self._base.read(
            """SELECT * FROM approval WHERE $state = NONE OR state = $state
                ORDER BY requested_at DESC LIMIT $limit""",
            state=state,
            limit=limit,
        )
        return [_approval(row) for row in rows]


class Approvals:
    """The workflow; its key is the approval's id. `run(ApprovalRequest)` answers the decision, `decide(answer)` too."""

    def __init__(self, store: ApprovalStore, notify: Notifier = notify_log) -> None:
        service = self.service = Workflow(SERVICE, description="Asks somebody, and waits for so long.")

        @service.main()
        async def run(ctx: WorkflowContext, request: ApprovalRequest) -> dict[str, Any]:
            request, approval_id = required(request), ctx.key()

            async def send(awakeable_id: str) -> None:
                await notify(await store.request(approval_id, awakeable_id, request))

            promise: DurablePromise[Any] = ctx.promise("decided")
            async with Saga(ctx) as saga:  # should it be cancelled; another cancel then does not interrupt this
                saga.compensate("mark cancelled", store.finish, approval_id, "cancelled", "", "")
                saga.compensate_by(
                    "refuse answers",
                    lambda: cast(
                        "RestateDurableFuture[None]",
                        promise.resolve(Decision(False, comment="cancelled").as_dict()),
                    ),
                )
                decided = await ask_for_approval(ctx, send, within=timedelta(seconds=request.within_s))
            await promise.resolve(decided.as_dict())
            state = outcome(decided)
            await ctx.run_typed(
                "mark decided", store.finish, RunOptions(), approval_id, state, decided.by, decided.comment
            )
            return decided.as_dict()

        @service.handler()
        async def decide(ctx: WorkflowSharedContext, answer: Any) -> dict[str, Any]:
            approval_id = ctx.key()

            async def find() -> Request | None:
                known = await store.approval(approval_id)
                return Request(known.awakeable_id, decision_of(known)) if known is not None else None

            found = await ctx.run_typed("find request", find, RunOptions(type_hint=Request))
            if found is None:
                raise TerminalError(f"there is no approval {approval_id}", status_code=404)
            if found.decided is not None:  # perhaps long ago: the engine may have forgotten the workflow
                return found.decided
            ctx.resolve_awakeable(found.awakeable_id, decision(answer).as_dict())
            return await ctx.promise("decided").value()

        self.run, self.decide = run, decide


class Request(msgspec.Struct):
    """What `decide` needs of a row."""

    awakeable_id: str
    decided: dict[str, Any] | None


def decision_of(approval: Approval) -> dict[str, Any] | None:
    """The decision that a row tells of, or None while there is none."""
    if approval.state == "pending":
        return None
    return Decision(
        approval.state == "approved",
        by=approval.decided_by or "",
        comment="cancelled" if approval.state == "cancelled" else approval.comment or "",
        is_timeout=approval.state == "timeout",
    ).as_dict()


def outcome(decided: Decision) -> str:
    """The state of an approval after this decision."""
    if decided.is_timeout:
        return "timeout"
    return "approved" if decided.is_approved else "denied"


def _approval(row: dict[str, Any]) -> Approval:
    return Approval(
        id=row["id"].id,
        state=row["state"],
        question=row["question"],
        awakeable_id=row["awakeable"],
        requested_at=row["requested_at"],
        expires_at=row["expires_at"],
        decided_at=row.get("decided_at"),
        decided_by=row.get("decided_by"),
        comment=row.get("comment"),
    )
