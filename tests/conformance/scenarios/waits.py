"""Sleeps, awakeables, signals, and combined futures."""

from __future__ import annotations

import asyncio
import time

from holdfast.core.ids import awakeable_parts, awakeable_text
from tests.conformance import ledger
from tests.conformance.harness import Outcome, Run, failed, ok, scenario


@scenario({"answer": ok("awake"), "slept long enough": True, "ledger": {"slept": 1}})
async def sleep(run: Run) -> Outcome:
    start = time.monotonic()
    answer = await run.call("Waits/sleeps", delays_ms=[120])
    return {"answer": answer, "slept long enough": time.monotonic() - start >= 0.12, "ledger": run.counts()}


@scenario(ok("awake"))
async def sleeps_of_no_time_and_in_sequence(run: Run) -> Outcome:
    return await run.call("Waits/sleeps", delays_ms=[0, 1, 0, 30, 0, 5])


@scenario({"answer": ok(1), "ledger": {"before": 1, "after": 1}, "attempts": 1}, modes=("streaming",))
async def waiting_stream_needs_one_attempt(run: Run) -> Outcome:
    answer = await run.call("Waits/sleep_and_steps", delay_ms=150)
    return {"answer": answer, "ledger": run.counts("before", "after"), "attempts": run.counts()["attempt"]}


@scenario(
    {"answer": ok(1), "ledger": {"before": 1, "after": 1}, "several attempts": True},
    modes=("suspending", "request-response"),
)
async def suspended_sleep_replays_its_steps(run: Run) -> Outcome:
    answer = await run.call("Waits/sleep_and_steps", delay_ms=400)
    return {"answer": answer, "ledger": run.counts("before", "after"), "several attempts": run.counts()["attempt"] > 1}


@scenario({"statuses": ["suspended"], "attempts": 1, "answer": failed(409, "cancelled")}, modes=("suspending",))
async def idle_invocation_is_suspended(run: Run) -> Outcome:
    invocation = await run.send("Failing/sleeps_until_cancelled")
    statuses = [await run.status(invocation, "suspended")]
    attempts = run.counts()["waiting"]
    await run.operate("cancel", invocation)
    return {"statuses": statuses, "attempts": attempts, "answer": await run.attach(invocation)}


@scenario(ok([10, 80, 160]))
async def parallel_sleeps_complete_by_length(run: Run) -> Outcome:
    return await run.call("Waits/parallel_sleeps", delays_ms=[160, 10, 80])


@scenario({"resolve": 202, "answer": ok({"value": {"n": [1, "ü"]}}), "again": 202})
async def awakeable_resolved_over_the_ingress(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable")
    awakeable = await run.noted("awakeable")
    resolve = await run.resolve(awakeable, {"n": [1, "ü"]})
    answer = await run.attach(invocation)
    return {"resolve": resolve, "answer": answer, "again": await run.resolve(awakeable, "too late")}


@scenario({"reject": 202, "answer": failed(500, "no way ☃")})
async def awakeable_rejected_over_the_ingress(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable")
    reject = await run.reject(await run.noted("awakeable"), "no way ☃")
    return {"reject": reject, "answer": await run.attach(invocation)}


@scenario({"by": ok("answered"), "answer": ok({"value": [1, 2]}), "ids": 1})
async def awakeable_resolved_by_a_handler(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable")
    by = await run.call("Waits/answers_awakeable", awakeable=await run.noted("awakeable"), value=[1, 2])
    answer = await run.attach(invocation)
    # The handler fails once after the answer: all its attempts have the same awakeable.
    ids = {entry for entry in ledger.entries(run.test_id) if entry.startswith("awakeable")}
    return {"by": by, "answer": answer, "ids": len(ids)}


@scenario({"by": ok("answered"), "answer": ok("442 bad luck")})
async def awakeable_rejected_by_a_handler(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable", catch=True)
    by = await run.call("Waits/answers_awakeable", awakeable=await run.noted("awakeable"), message="bad luck", code=442)
    return {"by": by, "answer": await run.attach(invocation)}


@scenario({"answers": [202, 202, 202], "answer": ok({"value": "first"})})
async def first_resolution_of_an_awakeable_counts(run: Run) -> Outcome:
    """All arrive before the handler looks."""
    invocation = await run.send("Waits/awakeable", hold=True)
    awakeable = await run.noted("awakeable")
    answers = [
        await run.resolve(awakeable, "first"),
        await run.resolve(awakeable, "second"),
        await run.reject(awakeable, "third"),
    ]
    run.open("hold")
    return {"answers": answers, "answer": await run.attach(invocation)}


@scenario({"answers": [202, 202], "answer": failed(500, "first")})
async def rejection_before_resolution_counts(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable", hold=True)
    awakeable = await run.noted("awakeable")
    answers = [await run.reject(awakeable, "first"), await run.resolve(awakeable, "second")]
    run.open("hold")
    return {"answers": answers, "answer": await run.attach(invocation)}


@scenario({"answer": ok({"value": None})})
async def awakeable_resolved_with_nothing(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable")
    await run.request("POST", f"/restate/awakeables/{await run.noted('awakeable')}/resolve")
    return {"answer": await run.attach(invocation)}


@scenario(ok({"self": True}))
async def handler_resolves_its_own_awakeable(run: Run) -> Outcome:
    return await run.call("Waits/own_awakeable")


@scenario({"answer": ok(["zero", "one", "two"])})
async def awakeables_in_order_of_awaiting(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeables", count=3, as_completed=False)
    names = [await run.noted(f"awakeable {index}") for index in range(3)]
    for index in (2, 0, 1):
        await run.resolve(names[index], ["zero", "one", "two"][index])
    return {"answer": await run.attach(invocation)}


@scenario({"answer": ok(["two", "zero", "one"])})
async def awakeables_as_completed(run: Run) -> Outcome:
    """The order of arrival is part of the journal: the replayed attempt sees the same."""
    invocation = await run.send("Waits/awakeables", count=3, as_completed=True)
    names = [await run.noted(f"awakeable {index}") for index in range(3)]
    for index in (2, 0, 1):
        value = ["zero", "one", "two"][index]
        await run.resolve(names[index], value)
        await run.seen(f"got {value}")
    return {"answer": await run.attach(invocation)}


@scenario({"bad": [400, "bad awakeable id 'bogus': bad format"], "finished": 202})
async def awakeable_ids_that_lead_nowhere(run: Run) -> Outcome:
    invocation = await run.send("Waits/awakeable")
    awakeable = await run.noted("awakeable")
    await run.resolve(awakeable, 1)
    await run.attach(invocation)
    await run.operate("purge", invocation)
    response = await run.request("POST", "/restate/awakeables/bogus/resolve", content=b"1")
    return {
        "bad": [response.status_code, response.json()["message"]],
        "finished": await run.resolve(awakeable, 1),
    }


@scenario({"sent": ok("sent"), "answer": ok([{"n": 1}, "two"])})
async def named_signals(run: Run) -> Outcome:
    invocation = await run.send("Waits/signals", names=["one", "two"])
    target = await run.noted("id")
    sent = await run.call("Waits/sends_signals", invocation_id=target, signals=[["two", "two"], ["one", {"n": 1}]])
    return {"sent": sent, "answer": await run.attach(invocation)}


@scenario({"answer": ok([1, 2, "b"])})
async def signals_are_kept_until_awaited(run: Run) -> Outcome:
    """Two of one name: first in, first out."""
    invocation = await run.send("Waits/signals", names=["a", "a", "b"], hold=True)
    target = await run.noted("id")
    await run.call("Waits/sends_signals", invocation_id=target, signals=[["b", "b"], ["a", 1], ["a", 2]])
    run.open("hold")
    return {"answer": await run.attach(invocation)}


@scenario({"answer": ok(["481 no go", None])})
async def signal_can_be_rejected(run: Run) -> Outcome:
    invocation = await run.send("Waits/signals", names=["a", "b"])
    target = await run.noted("id")
    await run.call("Waits/sends_signals", invocation_id=target, signals=[["b", None]], rejects=[["a", "no go", 481]])
    return {"answer": await run.attach(invocation)}


@scenario({"statuses": [202, 202, 202], "answer": failed(409, "cancelled")})
async def awakeable_with_the_index_of_the_cancel_signal_cancels(run: Run) -> Outcome:
    """An awakeable's id is an invocation and the index of a signal: whoever may write one may cancel. 2 to 16 do nothing."""
    invocation = await run.send("Waits/awakeable")
    raw, _ = awakeable_parts(await run.noted("awakeable"))
    statuses = [await run.resolve(awakeable_text(raw, index), "x") for index in (2, 16, 1)]
    return {"statuses": statuses, "answer": await run.attach(invocation)}


@scenario(202)
async def awakeable_of_an_old_protocol_is_accepted(run: Run) -> Outcome:
    """And means nobody."""
    return await run.resolve("prom_1NMyOAvDK2CcBjUH4Rmb7eGBp0DNNDnmsAAAAAQ", 1)


@scenario({"signal": ok(["signal", 7]), "timeout": ok(["timeout"])})
async def signal_or_timeout(run: Run) -> Outcome:
    invocation = await run.send("Waits/select_signal_or_timeout", timeout_ms=60_000)
    await run.call("Waits/sends_signals", invocation_id=await run.noted("id"), signals=[["go", 7]])
    return {
        "signal": await run.attach(invocation),
        "timeout": await run.call("Waits/select_signal_or_timeout", timeout_ms=60),
    }


@scenario({"lost": "suspended or running", "answer": ok("second")})
async def signal_to_a_queued_invocation_is_lost(run: Run) -> Outcome:
    """Only an invocation that has begun keeps signals."""
    key = run.key()
    holder = await run.send("Locked/enter", key, name="holder", gate="leave")
    await run.seen("enter holder")
    queued = await run.send("Locked/waits_for_signal", key)
    await run.status(queued, "pending")
    await run.call("Waits/sends_signals", invocation_id=queued, signals=[["go", "first"]])
    run.open("leave")
    await run.attach(holder)
    await run.noted("id")
    await run.waiting(queued)
    await run.call("Waits/sends_signals", invocation_id=queued, signals=[["go", "second"]])
    return {"lost": "suspended or running", "answer": await run.attach(queued)}


@scenario({"answer": ok(["second", "late riser"]), "winners": ["winner second"] * 3})
async def winner_of_select_is_replayed(run: Run) -> Outcome:
    """The second awakeable wins; the first arrives before two forced retries, and must not win then."""
    invocation = await run.send("Waits/select_winner")
    first, second = await run.noted("awakeable 0"), await run.noted("awakeable 1")
    await run.resolve(second, "late riser")
    await run.seen("winner second")
    await run.resolve(first, "too late")
    run.open("crash now")
    answer = await run.attach(invocation)
    winners = [entry for entry in run.entries() if entry.startswith("winner")]
    return {"answer": answer, "winners": winners[-3:]}


@scenario(ok([510, "boom"]))
async def failed_future_wins_select(run: Run) -> Outcome:
    return await run.call("Waits/select_failure")


@scenario(ok([4, None, "step", "500 boom", "awakeable"]))
async def gather_waits_for_all(run: Run) -> Outcome:
    return await run.call("Waits/gather_mixed")


@scenario(ok({"completed": 1, "waiting": 1, "again": 1, "empty": 0}))
async def wait_completed_splits(run: Run) -> Outcome:
    return await run.call("Waits/partition")


@scenario({"answer": ok([1, 1]), "ledger": {"step": 1}})
async def future_can_be_awaited_twice(run: Run) -> Outcome:
    return {"answer": await run.call("Waits/awaited_twice"), "ledger": run.counts()}


@scenario({"answers": [ok("awake")] * 20})
async def many_sleepers_at_once(run: Run) -> Outcome:
    calls = (run.call("Waits/sleeps", delays_ms=[40 + index % 5]) for index in range(20))
    return {"answers": list(await asyncio.gather(*calls))}
