"""Sagas: all steps, or those that were done undone in reverse order."""

from __future__ import annotations

import json

from tests.patterns import world
from tests.patterns.conftest import Side, until
from tests.patterns.saga_program import attempts

UNDONE = ["reserve", "charge", "ship", "refund charge-id", "release"]


async def test_all_steps_in_order(side: Side, key: str) -> None:
    assert await side.call(f"/Booking/{key}/book", {}) == "charge-id"
    assert world.effects[key] == ["reserve", "charge", "ship"]


async def test_a_failure_at_the_end_undoes_all_in_reverse(side: Side, key: str) -> None:
    text = await side.call(f"/Booking/{key}/book", {"ship": "refused"}, status=422)
    assert "ship refused" in text
    assert world.effects[key] == UNDONE


async def test_a_failed_step_stops_the_saga_and_is_not_undone_itself(side: Side, key: str) -> None:
    await side.call(f"/Booking/{key}/book", {"charge": "refused"}, status=422)
    assert world.effects[key] == ["reserve", "charge", "release"]


async def test_what_was_announced_before_its_step_is_undone_even_if_that_failed(side: Side, key: str) -> None:
    await side.call(f"/Booking/{key}/book", {"reserve": "refused"}, status=422)
    assert world.effects[key] == ["reserve", "release"]


async def test_a_step_that_never_succeeds_ends_after_its_attempts(side: Side, key: str) -> None:
    await side.call(f"/Booking/{key}/book", {"charge": "broken"}, status=500)
    assert world.effects[key] == ["reserve", "charge", "charge", "charge", "release"]


async def test_passing_errors_of_steps_undo_nothing(side: Side, key: str) -> None:
    assert await side.call(f"/Booking/{key}/book", {"charge": "flaky", "ship": "flaky"}) == "charge-id"
    assert world.effects[key] == ["reserve", "charge", "ship"]


async def test_compensations_are_retried_until_they_succeed(side: Side, key: str) -> None:
    plan = {"ship": "refused", "refund charge-id": "flaky", "release": "flaky"}
    await side.call(f"/Booking/{key}/book", plan, status=422)
    assert world.effects[key] == UNDONE
    assert (attempts[key, "refund charge-id"], attempts[key, "release"]) == (3, 3)


async def test_a_compensation_that_gives_up_is_reported_and_stops_no_other(side: Side, key: str) -> None:
    text = await side.call(f"/Booking/{key}/book", {"ship": "refused", "refund charge-id": "refused"}, status=422)
    assert world.effects[key] == UNDONE
    assert "ship refused; could not be undone: undo charge (refund charge-id refused)" in text


async def test_a_calling_handler_learns_what_was_undone_and_what_was_not(side: Side, key: str) -> None:
    plan = {"ship": "refused", "refund charge-id": "refused"}
    metadata = await side.call("/Seats/book_for", {"key": key, "plan": plan})
    assert json.loads(metadata["compensated"]) == ["release"]
    assert json.loads(metadata["not_compensated"]) == ["undo charge"]


async def test_a_cancelled_saga_waits_for_its_running_step_and_undoes_that_too(side: Side, key: str) -> None:
    invocation_id = await side.send(f"/Booking/{key}/book", {"charge": "gated"})
    await until(lambda: "charge begins" in world.effects[key])
    await side.cancel(invocation_id)
    world.gates[key] = True
    assert (await side.attach("Booking", key)).status_code == 409
    assert world.effects[key] == ["reserve", "charge begins", "charge", "refund charge-id", "release"]


async def test_a_second_cancel_does_not_stop_the_compensation(side: Side, key: str) -> None:
    invocation_id = await side.send(f"/Booking/{key}/book", {"ship": "refused", "refund charge-id": "gated"})
    await until(lambda: "refund charge-id begins" in world.effects[key])
    await side.cancel(invocation_id)
    world.gates[key] = True
    assert (await side.attach("Booking", key)).status_code == 422
    assert [one for one in world.effects[key] if "begins" not in one] == UNDONE


async def test_a_second_cancel_does_not_stop_a_compensation_that_is_a_call(side: Side, key: str) -> None:
    # The cancellation goes on to the call that is being waited for: it is made again.
    invocation_id = await side.send(f"/Booking/{key}/book", {"ship": "refused", "release": "gated"})
    await until(lambda: "release begins" in world.effects[key])
    await side.cancel(invocation_id)
    world.gates[key] = True
    answer = await side.attach("Booking", key)
    assert answer.status_code == 422
    assert "could not be undone" not in answer.text
    assert world.effects[key][-1] == "release"
