"""Approvals: the first of decision and time-out counts, and only one ever does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.patterns import Decision, decision
from tests.patterns import world
from tests.patterns.conftest import Side, until

HOUR_MS = 3_600_000
SHORT_MS = 100
TIMED_OUT = Decision(False, is_timeout=True).as_dict()


@pytest.mark.parametrize("is_approved", [True, False])
async def test_what_is_decided_is_the_result(side: Side, key: str, is_approved: bool) -> None:
    await side.send(f"/Release/{key}/run", HOUR_MS)
    given = {"approved": is_approved, "by": "Ada", "comment": "on Monday"}
    expected = Decision(is_approved, by="Ada", comment="on Monday").as_dict()
    assert await side.call(f"/Release/{key}/answer", given) == expected
    assert (await side.attach("Release", key)).json() == expected


async def test_a_decision_may_come_before_the_workflow_waits(side: Side, key: str) -> None:
    await side.call(f"/Release/{key}/answer", True)
    assert (await side.call(f"/Release/{key}/run", HOUR_MS))["is_approved"] is True


async def test_the_first_decision_counts(side: Side, key: str) -> None:
    await side.send(f"/Release/{key}/run", HOUR_MS)
    await side.call(f"/Release/{key}/answer", {"approved": True, "by": "Ada"})
    second = await side.call(f"/Release/{key}/answer", {"approved": False, "by": "Grace"})
    assert second == Decision(True, by="Ada").as_dict()


async def test_no_decision_in_time_is_a_denial_and_a_late_one_learns_so(side: Side, key: str) -> None:
    assert await side.call(f"/Release/{key}/run", SHORT_MS) == TIMED_OUT
    assert await side.call(f"/Release/{key}/answer", True) == TIMED_OUT
    assert (await side.attach("Release", key)).json() == TIMED_OUT


async def test_a_rejected_promise_is_a_denial(side: Side, key: str) -> None:
    await side.send(f"/Release/{key}/run", HOUR_MS)
    await side.call(f"/Release/{key}/reject", "not in my name")
    assert (await side.attach("Release", key)).json() == Decision(False, comment="not in my name").as_dict()


async def test_a_cancelled_wait_ends_as_cancelled_not_as_denied(side: Side, key: str) -> None:
    invocation_id = await side.send(f"/Release/{key}/run", HOUR_MS)
    await side.cancel(invocation_id)
    assert (await side.attach("Release", key)).status_code == 409


async def asked(side: Side, key: str, timeout_ms: int) -> tuple[asyncio.Task[Any], str]:
    """A started request and the id that was mailed."""
    task = asyncio.create_task(side.call("/Mails/ask", {"key": key, "timeout_ms": timeout_ms}))
    await until(lambda: world.effects[key])
    return task, world.effects[key][0]


@pytest.mark.parametrize("answer", [True, False])
async def test_an_awakeable_is_resolved_from_outside(side: Side, key: str, answer: bool) -> None:
    task, awakeable_id = await asked(side, key, HOUR_MS)
    resolved = await side.ingress.post(f"/restate/awakeables/{awakeable_id}/resolve", json=answer)
    assert resolved.status_code == 202
    assert (await task)["is_approved"] is answer
    assert world.effects[key] == [awakeable_id]  # mailed once


async def test_an_awakeable_is_rejected_from_outside(side: Side, key: str) -> None:
    task, awakeable_id = await asked(side, key, HOUR_MS)
    await side.ingress.post(f"/restate/awakeables/{awakeable_id}/reject", content="too dear")
    assert await task == Decision(False, comment="too dear").as_dict()


async def test_an_awakeable_that_nobody_resolves_is_a_denial_and_a_late_answer_does_no_harm(
    side: Side, key: str
) -> None:
    task, awakeable_id = await asked(side, key, SHORT_MS)
    assert await task == TIMED_OUT
    late = await side.ingress.post(f"/restate/awakeables/{awakeable_id}/resolve", json=True)
    assert late.status_code < 500


ANSWERS: dict[str, tuple[Any, bool]] = {
    "true": (True, True),
    "false": (False, False),
    "nothing": (None, False),
    "a text": ("true", False),
    "a number": (1, False),
    "an object": ({"approved": True}, True),
    "an object with a text": ({"approved": "yes"}, False),
    "an empty object": ({}, False),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_only_true_approves(case: str) -> None:
    answer, is_approved = ANSWERS[case]
    assert decision(answer).is_approved is is_approved
