"""Approval of sensitive targets: yes, no, or no answer in time; asked once, answered once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from restate import TerminalError
from restate.exceptions import RetryableError

from apps.recon.campaigns.approval import Approval, decision_of, notify_webhook, outcome
from holdfast.patterns import Decision
from tests.recon.campaigns.conftest import SETTINGS, Side, StartSide, until
from tests.recon.campaigns.world import names

OPEN, SENSITIVE = "127.0.0.2", "127.66.0.1"
CAREFUL = replace(SETTINGS, sensitive_networks=(ip_network("127.66.0.0/16"),))
HASTY = replace(CAREFUL, approval_timeout=timedelta(milliseconds=300))


async def asked(side: Side, key: str) -> Approval:
    """A campaign with a sensitive target, once somebody was asked."""
    started = await side.start([OPEN, SENSITIVE, OPEN], key=key, ports=[9])
    assert started["status"] == "initializing"
    await until(lambda: side.mailbox.notices)
    waiting = await side.get(f"/v1/campaigns/{key}/status")
    assert (waiting["status"], waiting["approval"]) == ("awaiting_approval", "pending")
    assert (waiting["scanned"], waiting["total"]) == (0, 2), "targets given twice are one"
    assert not side.witness.calls
    [notice] = side.mailbox.notices
    return notice


@pytest.mark.parametrize("is_approved", [True, False])
async def test_sensitive_targets_are_scanned_if_somebody_approves_and_only_then(
    start_side: StartSide, key: str, is_approved: bool
) -> None:
    async with start_side(CAREFUL) as side:
        notice = await asked(side, key)
        assert "1 sensitive of its 2 targets" in notice.question
        assert notice.expires_at - notice.requested_at > timedelta(hours=23, minutes=59)
        [pending] = (await side.get("/v1/approvals?state=pending"))["approvals"]
        assert (pending["id"], pending["state"]) == (key, "pending")
        progress = {"status": "awaiting_approval", "scanned": 0, "total": 2}
        assert await side.call(f"/Campaign/{key}/status") == progress
        session = await until(lambda: side.session(key, "processing"))
        assert (session["note"], session["total"]) == ("awaiting approval", 2)

        answer = {"approved": is_approved, "by": "Ada", "comment": "on Monday"}
        decided = await side.post(f"/v1/approvals/{key}", answer)
        assert (decided["is_approved"], decided["by"]) == (is_approved, "Ada")
        done = await side.final(key)
        report = await side.get(f"/v1/campaigns/{key}/report")
        state = "approved" if is_approved else "denied"
        assert (done["status"], done["approval"]) == ("complete", state)
        assert names(report["results"]) == ([OPEN, SENSITIVE] if is_approved else [OPEN])
        assert set(side.witness.calls) == ({OPEN, SENSITIVE} if is_approved else {OPEN})
        assert names(report["rejected"]) == ([] if is_approved else [SENSITIVE])
        if not is_approved:
            assert report["rejected"][0]["reason"] == "sensitive; denied by Ada: on Monday"
        kept = await side.get(f"/v1/approvals/{key}")
        assert (kept["state"], kept["decided_by"], kept["comment"]) == (state, "Ada", "on Monday")
        assert len(side.mailbox.notices) == 1


async def test_no_answer_in_time_is_a_denial_and_a_late_one_does_no_harm(start_side: StartSide, key: str) -> None:
    async with start_side(HASTY) as side:
        await asked(side, key)
        done = await side.final(key)
        assert (done["status"], done["approval"]) == ("complete", "timeout")
        late = await side.post(f"/v1/approvals/{key}", {"approved": True, "by": "Ada"})
        assert (late["is_approved"], late["is_timeout"]) == (False, True)
        awakeable = (await side.get(f"/v1/approvals/{key}"))["awakeable_id"]
        resolved = await side.ingress.post(f"/restate/awakeables/{awakeable}/resolve", json=True)
        assert resolved.status_code < 500
        assert (await side.output("Approval", key)).json()["is_approved"] is False
        assert set(side.witness.calls) == {OPEN}
        report = await side.get(f"/v1/campaigns/{key}/report")
        assert report["rejected"][0]["reason"].startswith("sensitive; nobody approved within")


async def test_whoever_has_the_id_of_the_request_may_answer_at_the_engine(start_side: StartSide, key: str) -> None:
    async with start_side(CAREFUL) as side:
        notice = await asked(side, key)
        path = f"/restate/awakeables/{notice.awakeable_id}/resolve"
        assert (await side.ingress.post(path, json={"approved": True})).status_code == 202
        assert (await side.final(key))["approval"] == "approved"
        assert set(side.witness.calls) == {OPEN, SENSITIVE}


async def test_the_first_answer_counts(start_side: StartSide, key: str) -> None:
    async with start_side(CAREFUL) as side:
        await asked(side, key)
        await side.post(f"/v1/approvals/{key}", {"approved": False, "by": "Ada"})
        second = await side.post(f"/v1/approvals/{key}", {"approved": True, "by": "Grace"})
        assert (second["is_approved"], second["by"]) == (False, "Ada")
        assert (await side.final(key))["approval"] == "denied"


async def test_a_campaign_cancelled_while_it_waits_asks_no_more(start_side: StartSide, key: str) -> None:
    async with start_side(CAREFUL) as side:
        await asked(side, key)
        await side.post(f"/v1/campaigns/{key}/cancel", status=202)
        done = await side.final(key)
        assert (done["status"], done["approval"]) == ("cancelled", "cancelled")
        await until(lambda: is_state(side, key, "cancelled"))
        late = await side.post(f"/v1/approvals/{key}", {"approved": True})
        assert (late["is_approved"], late["comment"]) == (False, "cancelled")
        assert not side.witness.calls


async def is_state(side: Side, key: str, state: str) -> bool:
    return (await side.get(f"/v1/approvals/{key}"))["state"] == state


async def test_a_campaign_without_sensitive_targets_asks_nobody(start_side: StartSide, key: str) -> None:
    async with start_side(CAREFUL) as side:
        report = await side.run([OPEN], key=key, ports=[9])
        assert report["campaign"].get("approval") is None
        assert side.mailbox.notices == []


async def test_answers_need_the_token_and_a_request(side: Side, key: str) -> None:
    for headers, status in (({"authorization": "Bearer wrong"}, 401), ({}, 404)):
        answer = await side.api.post(f"/v1/approvals/{key}", json={"approved": True}, headers=headers)
        assert answer.status_code == status
    await side.post(f"/v1/approvals/{key}", {"approved": "yes"}, status=400)
    await side.get(f"/v1/approvals/{key}", status=404)
    await side.get("/v1/approvals?state=perhaps", status=400)
    assert await side.call(f"/Approval/{key}/decide", True, status=404)


OUTCOMES: dict[str, tuple[Decision, str]] = {
    "yes": (Decision(True), "approved"),
    "no": (Decision(False), "denied"),
    "nobody": (Decision(False, is_timeout=True), "timeout"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_what_a_decision_makes_of_an_approval_and_back(case: str) -> None:
    decided, state = OUTCOMES[case]
    assert outcome(decided) == state
    now = datetime.now(UTC)
    row: Any = Approval("a", state, "may I?", "sign_1", now, now)
    assert decision_of(row) == decided.as_dict()


def test_a_pending_approval_has_no_decision() -> None:
    now = datetime.now(UTC)
    assert decision_of(Approval("a", "pending", "may I?", "sign_1", now, now)) is None


async def test_a_restart_does_not_ask_again(start_side: StartSide, key: str) -> None:
    async with start_side(CAREFUL) as side:
        await asked(side, key)
        if not side.is_embedded:
            pytest.skip("the server goes on while we restart: its own tests restart it")
    async with start_side(CAREFUL) as side:
        await side.post(f"/v1/approvals/{key}", {"approved": True, "by": "Ada"})
        assert (await side.final(key))["approval"] == "approved"
        assert set(side.witness.calls) == {OPEN, SENSITIVE}
        assert side.mailbox.notices == []


@asynccontextmanager
async def receiver(status: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A web hook that answers every request with that status; its URL and what it got."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        requests.append(head.lower() + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ask", requests
    finally:
        server.close()
        await server.wait_closed()


async def test_a_web_hook_gets_the_question_with_a_key_that_tells_repetitions() -> None:
    now = datetime.now(UTC)
    question = Approval("c-1", "pending", "may I?", "sign_1abc", now, now)
    async with receiver(200) as (url, requests):
        for _ in range(2):
            await notify_webhook(url)(question)
    keys = {request.partition(b"idempotency-key: ")[2].partition(b"\r\n")[0] for request in requests}
    assert len(requests) == 2
    assert len(keys) == 1
    assert b'"awakeable_id":"sign_1abc"' in requests[0]
    async with receiver(503) as (url, _):
        with pytest.raises(RetryableError, match="503"):
            await notify_webhook(url)(question)
    async with receiver(404) as (url, _):
        with pytest.raises(TerminalError, match="404"):
            await notify_webhook(url)(question)
