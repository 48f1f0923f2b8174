"""One at a time per key, shared handlers beside it, and who keeps the lock."""

from __future__ import annotations

import asyncio

from tests.conformance.harness import Outcome, Run, failed, ok, scenario


@scenario({"order": [f"enter {i}" for i in range(6)], "overlaps": 0})
async def exclusive_handlers_run_in_order_of_acceptance(run: Run) -> Outcome:
    key = run.key()
    ids = [await run.send("Locked/enter", key, name=str(index), sleep_ms=5) for index in range(6)]
    await asyncio.gather(*(run.attach(one) for one in ids))
    # Attempts that replay enter again; the first of each counts.
    events = list(dict.fromkeys(run.entries()))
    pairs = [(events.index(f"leave {i}"), events.index(f"enter {i + 1}")) for i in range(5)]
    return {
        "order": [event for event in events if event.startswith("enter")],
        "overlaps": sum(leave > enter for leave, enter in pairs),
    }


@scenario({"shared": [ok("a")] * 3, "holder": ok("holder")})
async def shared_handlers_run_beside_an_exclusive_one(run: Run) -> Outcome:
    """The three only end when all run at once, while the lock is taken."""
    holder = run.start("Locked/enter", run.key(), name="holder", gate="leave")
    await run.seen("enter holder")
    shared = await asyncio.gather(*(run.call("Locked/glance", run.key(), body="a") for _ in range(3)))
    run.open("leave")
    return {"shared": list(shared), "holder": await holder}


@scenario({"both inside": True, "answers": [ok("one"), ok("two")]})
async def different_keys_run_at_the_same_time(run: Run) -> Outcome:
    one = run.start("Locked/enter", run.key("one"), name="one", gate="leave")
    two = run.start("Locked/enter", run.key("two"), name="two", gate="leave")
    await run.seen("enter one")
    await run.seen("enter two")
    inside = not any(entry.startswith("leave") for entry in run.entries())
    run.open("leave")
    return {"both inside": inside, "answers": [await one, await two]}


@scenario({"answers": [failed(500, "oops"), ok("next")]})
async def failure_frees_the_key(run: Run) -> Outcome:
    first = run.start("Locked/enter", run.key(), name="first", gate="leave", fail="oops")
    await run.seen("enter first")
    second = await run.send("Locked/enter", run.key(), name="next")
    await run.status(second, "pending")
    run.open("leave")
    return {"answers": [await first, await run.attach(second)]}


@scenario({"queued": "pending", "first entered last": True, "answers": [ok("first"), ok("next")]})
async def retries_keep_the_key(run: Run) -> Outcome:
    first = await run.send("Locked/enter", run.key(), name="first", gate="leave", crashes=3)
    await run.seen("enter first")
    second = await run.send("Locked/enter", run.key(), name="next")
    queued = await run.status(second, "pending")
    run.open("leave")
    answers = [await run.attach(first), await run.attach(second)]
    events = run.entries()
    last = len(events) - 1 - events[::-1].index("enter first")
    return {"queued": queued, "first entered last": last < events.index("enter next"), "answers": answers}


@scenario({"queued": "pending", "answers": [ok("go!"), ok("next")]})
async def waiting_keeps_the_key(run: Run) -> Outcome:
    first = await run.send("Locked/waits_for_signal", run.key())
    target = await run.noted("id")
    await run.waiting(first)
    second = await run.send("Locked/enter", run.key(), name="next")
    queued = await run.status(second, "pending")
    await run.call("Waits/sends_signals", invocation_id=target, signals=[["go", "go!"]])
    return {"queued": queued, "answers": [await run.attach(first), await run.attach(second)]}


@scenario({"queued": "pending", "still": "pending", "answers": [ok("repaired"), ok("next")]})
async def pausing_keeps_the_key(run: Run) -> Outcome:
    first = await run.send("Locked/breaks", run.key())
    second = await run.send("Locked/enter", run.key(), name="next")
    queued = await run.status(second, "pending")
    await run.status(first, "paused")
    still = await run.status(second, "pending")
    await run.operate("resume", first)
    return {"queued": queued, "still": still, "answers": [await run.attach(first), await run.attach(second)]}


@scenario({"answers": [failed(409, "killed"), ok("next")]})
async def kill_frees_the_key(run: Run) -> Outcome:
    first = await run.send("Locked/enter", run.key(), name="first", gate="never")
    await run.seen("enter first")
    second = await run.send("Locked/enter", run.key(), name="next")
    await run.status(second, "pending")
    await run.operate("kill", first)
    return {"answers": [await run.attach(first), await run.attach(second)]}


@scenario({"answers": [ok("first"), ok("soon"), ok("late")], "order": ["enter first", "enter soon", "enter late"]})
async def due_invocations_join_the_queue(run: Run) -> Outcome:
    """A delayed request has no place in the queue before it is due."""
    key = run.key()
    first = run.start("Locked/enter", key, name="first", gate="leave")
    await run.seen("enter first")
    late = await run.send("Locked/enter", key, name="late", delay="3s")
    soon = await run.send("Locked/enter", key, name="soon")
    await run.status(late, "pending")
    run.open("leave")
    answers = [await first, await run.attach(soon), await run.attach(late)]
    return {"answers": answers, "order": [entry for entry in run.entries() if entry.startswith("enter")]}


@scenario({"distinct": 30, "answers": 30})
async def many_keys_at_once(run: Run) -> Outcome:
    answers = await asyncio.gather(
        *(run.call("State/increment", run.key(str(index)), body=index + 1) for index in range(30))
    )
    values = [answer.get("value") for answer in answers]
    return {"distinct": len(set(values)), "answers": len([value for value in values if value])}
