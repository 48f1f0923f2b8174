"""External calls: repeated under one key, and only where repeating can help."""

from __future__ import annotations

from uuid import UUID

import pytest
from restate import TerminalError
from restate.exceptions import RetryableError

from holdfast.patterns import idempotency_key, raise_for_status
from tests.patterns import world
from tests.patterns.conftest import Side
from tests.patterns.external_program import calls


@pytest.mark.parametrize("order", ["order-1", ""])
async def test_a_lost_answer_is_asked_for_again_under_the_same_key(side: Side, key: str, order: str) -> None:
    assert await side.call("/Payments/pay", {"key": key, "order": order, "answers": [0, 503]}) == "paid"
    assert len(calls[key]) == 3
    assert len(set(calls[key])) == len(world.effects[key]) == 1


async def test_a_business_key_holds_over_several_invocations_and_a_drawn_one_does_not(side: Side, key: str) -> None:
    for _ in range(2):
        await side.call("/Payments/pay", {"key": key, "order": "order-2", "answers": []})
    assert len(world.effects[key]) == 1
    for _ in range(2):
        await side.call("/Payments/pay", {"key": key, "answers": []})
    assert len(world.effects[key]) == 3


async def test_a_refused_request_is_not_repeated(side: Side, key: str) -> None:
    assert "provider: 402" in await side.call("/Payments/pay", {"key": key, "answers": [402]}, status=402)
    assert len(calls[key]) == 1


@pytest.mark.parametrize("answer", [408, 425, 429, 500, 503])
async def test_a_passing_refusal_is_repeated(side: Side, key: str, answer: int) -> None:
    assert await side.call("/Payments/pay", {"key": key, "answers": [answer]}) == "paid"


async def test_attempts_are_limited(side: Side, key: str) -> None:
    assert "provider: 500" in await side.call("/Payments/pay", {"key": key, "answers": [500] * 9}, status=500)
    assert len(calls[key]) == 3


def test_a_key_depends_on_every_part_and_on_nothing_else() -> None:
    keys = {
        idempotency_key("charge"),
        idempotency_key("charge", "a", "b"),
        idempotency_key("charge", "b", "a"),
        idempotency_key("charge", "ab"),
        idempotency_key("refund", "ab"),
        idempotency_key("charge", UUID(int=1)),
        idempotency_key("charge", 1),
    }
    assert len(keys) == 7
    assert idempotency_key("charge", "ab", 3) == idempotency_key("charge", "ab", 3)
    assert idempotency_key("charge", "ab").startswith("charge-")


def test_a_status_says_whether_to_try_again() -> None:
    raise_for_status(204)
    with pytest.raises(TerminalError) as refused:
        raise_for_status(404, "no such order")
    assert (refused.value.status_code, refused.value.message) == (404, "no such order")
    with pytest.raises(RetryableError) as passing:
        raise_for_status(429, retry_after_s=2.5)
    assert passing.value.retry_after is not None
    assert passing.value.retry_after.total_seconds() == 2.5
