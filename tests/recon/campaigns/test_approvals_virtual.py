"""Approvals in virtual time: a whole day passes, and nobody waits for it. The rows are kept in a dictionary."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import restate
from restate import Context, Service

from apps.recon.campaigns.approval import Approval, ApprovalRequest, Approvals, ApprovalStore
from apps.recon.settings import Settings
from holdfast import Engine
from holdfast.testing import run_virtually

DAY_S = Settings().approval_timeout.total_seconds()


class Rows(ApprovalStore):
    """What the database does, without leaving the process: virtual time cannot wait for anything outside."""

    def __init__(self) -> None:
        self.rows: dict[str, Approval] = {}

    async def request(self, approval_id: str, awakeable_id: str, request: ApprovalRequest) -> Approval:
        now = datetime.fromtimestamp(time.time(), UTC)
        fresh = Approval(
            approval_id, "pending", request.question, awakeable_id, now, now + timedelta(seconds=request.within_s)
        )
        return self.rows.setdefault(approval_id, fresh)

    async def finish(self, approval_id: str, state: str, by: str, comment: str) -> None:
        row = self.rows[approval_id]
        if row.state == "pending":
            row.state, row.decided_by, row.comment = state, by or None, comment or None

    async def approval(self, approval_id: str) -> Approval | None:
        return self.rows.get(approval_id)


async def asked(answer_after_s: float) -> tuple[dict[str, Any], dict[str, Any], float, int]:
    """A request that somebody answers with yes after that time: both decisions, when it was decided, and notices."""
    rows, notices = Rows(), 0

    async def notify(_: Approval) -> None:
        nonlocal notices
        notices += 1

    approvals = Approvals(rows, notify)
    helper = Service("Helper")

    @helper.handler()
    async def ask(ctx: Context) -> list[Any]:
        begin_s = await ctx.time()
        decided = await ctx.workflow_call(approvals.run, key="a", arg=ApprovalRequest("may I?", DAY_S))
        return [decided, await ctx.time() - begin_s]

    @helper.handler()
    async def answer_later(ctx: Context) -> dict[str, Any]:
        await ctx.sleep(timedelta(seconds=answer_after_s))
        return await ctx.workflow_call(approvals.decide, key="a", arg={"approved": True, "by": "Ada"})

    async with Engine(restate.app([helper, approvals.service])) as engine:
        (decided, took_s), answered = await asyncio.gather(
            engine.client.service_call(ask, arg=None), engine.client.service_call(answer_later, arg=None)
        )
    return decided, answered, took_s, notices


@pytest.mark.parametrize(
    ("answer_after_s", "is_approved"),
    [(DAY_S - 60, True), (DAY_S + 60, False), (7 * DAY_S, False)],
    ids=["a minute early", "a minute late", "a week later"],
)
def test_a_day_is_what_there_is_to_answer(answer_after_s: float, is_approved: bool) -> None:
    assert timedelta(hours=24).total_seconds() == DAY_S
    decided, answered, took_s, notices = run_virtually(lambda: asked(answer_after_s))
    assert (decided["is_approved"], decided["is_timeout"]) == (is_approved, not is_approved)
    assert answered == decided
    assert abs(took_s - min(answer_after_s, DAY_S)) < 1
    assert notices == 1
