"""Job tracker: a record with the transitions that make sense, and no others."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.patterns.jobs import TRANSITIONS
from tests.patterns.conftest import Side

CREATE, START = ("create", {"file": "a.json"}), ("start", None)
COMPLETE, FAIL, CANCEL = ("complete", {"rows": 3}), ("fail", "no space"), ("cancel", "by Ada")


async def test_a_job_from_beginning_to_end(side: Side, key: str) -> None:
    at = f"/TestJobs/{key}"
    created = await side.call(f"{at}/create", {"file": "a.json"})
    assert (created["state"], created["details"], created["done"]) == ("pending", {"file": "a.json"}, 0)
    started = await side.call(f"{at}/start")
    assert started["state"] == "processing"
    assert (await side.call(f"{at}/advance", {"done": 2}))["done"] == 2  # how many there are may not be known yet
    await side.call(f"{at}/advance", {"done": 1, "total": 3, "note": "first"})
    far = await side.call(f"{at}/advance", {"done": 7})
    assert (far["done"], far["total"], far["note"]) == (3, 3, "first")
    await side.call(f"{at}/complete", {"rows": 3})
    job = await side.call(f"{at}/get")
    assert (job["state"], job["result"], job["error"]) == ("completed", {"rows": 3}, "")
    assert 0 < job["created_at_ms"] <= job["started_at_ms"] <= job["ended_at_ms"]


REACHED = {
    "pending": [CREATE],
    "processing": [CREATE, START],
    "completed": [CREATE, START, COMPLETE],
    "failed": [CREATE, START, FAIL],
    "cancelled": [CREATE, CANCEL],
}
MOVES = {"processing": START, "completed": COMPLETE, "failed": FAIL, "cancelled": CANCEL}


@pytest.mark.parametrize("state", REACHED)
async def test_every_transition_is_made_refused_or_nothing_new(side: Side, key: str, state: str) -> None:
    for number, (target, (move, body)) in enumerate(MOVES.items()):
        at = f"/TestJobs/{key}-{number}"
        for handler, its_body in REACHED[state]:
            before = await side.call(f"{at}/{handler}", its_body)
        is_allowed = target in TRANSITIONS[state] or target == state
        answer = await side.call(f"{at}/{move}", body, status=200 if is_allowed else 409)
        if target == state:
            assert answer == before
        elif is_allowed:
            assert answer["state"] == target
        else:
            assert f"is {state}; it cannot become {target}" in answer
            assert await side.call(f"{at}/get") == before


async def test_created_again_it_stays_what_it_is(side: Side, key: str) -> None:
    first = await side.call(f"/TestJobs/{key}/create", "one")
    assert await side.call(f"/TestJobs/{key}/create", "two") == first


async def test_an_unknown_or_removed_job_is_not_there(side: Side, key: str) -> None:
    await side.call(f"/TestJobs/{key}/get", status=404)
    await side.call(f"/TestJobs/{key}/create", "one")
    await side.call(f"/TestJobs/{key}/remove")
    await side.call(f"/TestJobs/{key}/start", status=404)


async def test_only_a_job_at_work_advances(side: Side, key: str) -> None:
    await side.call(f"/TestJobs/{key}/create", "one")
    await side.call(f"/TestJobs/{key}/advance", {"done": 1}, status=409)


WRONG_STEPS = [None, [], "x", {"done": "1"}, {"done": -1}, {"total": 1.5}, {"total": None}, {"done": True}, {"note": 1}]


async def test_a_step_that_is_none_is_refused_and_the_job_stays_free(side: Side, key: str) -> None:
    """Retried for ever, it would lock the job for everybody."""
    for handler, body in REACHED["processing"]:
        await side.call(f"/TestJobs/{key}/{handler}", body)
    for step in WRONG_STEPS:
        answer = await side.ingress.post(f"/TestJobs/{key}/advance", json=step)
        assert (answer.status_code, "whole numbers from 0" in answer.text) == (400, True), step
    assert (await side.call(f"/TestJobs/{key}/advance", {"done": 0, "total": 2}))["total"] == 2


async def test_of_two_that_end_a_job_at_once_one_is_refused(side: Side, key: str) -> None:
    for handler, body in REACHED["processing"]:
        await side.call(f"/TestJobs/{key}/{handler}", body)
    answers = await asyncio.gather(
        side.ingress.post(f"/TestJobs/{key}/complete", json=1), side.ingress.post(f"/TestJobs/{key}/fail", json="x")
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
