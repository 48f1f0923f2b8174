"""Cancel, kill and purge, by operators and by handlers."""

from __future__ import annotations

from tests.conformance.harness import Outcome, Run, failed, ok, refused, scenario

CANCELLED = failed(409, "cancelled")
KILLED = failed(409, "killed")


@scenario({"cancel": 202, "answer": CANCELLED, "end": "[409] cancelled"})
async def cancel_while_sleeping(run: Run) -> Outcome:
    invocation = await run.send("Failing/sleeps_until_cancelled")
    await run.waiting(invocation)
    cancel = await run.operate("cancel", invocation)
    return {"cancel": cancel, "answer": await run.attach(invocation), "end": await run.ended(invocation)}


@scenario({"cancel": 202, "answer": CANCELLED, "child": CANCELLED, "executions": {"sleeping": 1}}, modes=("streaming",))
async def cancel_reaches_the_called_child(run: Run) -> Outcome:
    return await _cancel_parent(run)


@scenario({"cancel": 202, "answer": CANCELLED, "child": CANCELLED}, modes=("suspending", "request-response"))
async def cancel_reaches_the_child_of_a_suspended_parent(run: Run) -> Outcome:
    outcome = await _cancel_parent(run)
    outcome.pop("executions")  # the child starts anew when it is woken by its cancellation
    return outcome


async def _cancel_parent(run: Run) -> Outcome:
    invocation = await run.send("Failing/calls_until_cancelled")
    child = await run.noted("child")
    await run.seen("sleeping")
    await run.waiting(child)
    await run.waiting(invocation)
    cancel = await run.operate("cancel", invocation)
    return {
        "cancel": cancel,
        "answer": await run.attach(invocation),
        "child": await run.attach(child),
        "executions": run.counts("sleeping"),
    }


@scenario({"cancel": 202, "answer": CANCELLED, "late": 202})
async def cancel_while_awaiting_an_awakeable(run: Run) -> Outcome:
    invocation = await run.send("Failing/awaits_until_cancelled")
    awakeable = await run.noted("awakeable")
    await run.waiting(invocation)
    cancel = await run.operate("cancel", invocation)
    answer = await run.attach(invocation)
    return {"cancel": cancel, "answer": answer, "late": await run.resolve(awakeable, 1)}


@scenario({"answer": CANCELLED, "ledger": {"undo": 1, "crash": 2}})
async def cancelled_handler_cleans_up_durably(run: Run) -> Outcome:
    """The clean-up is itself retried, with the cancellation replayed."""
    invocation = await run.send("Failing/cleans_up")
    await run.waiting(invocation)
    await run.operate("cancel", invocation)
    return {"answer": await run.attach(invocation), "ledger": run.counts("undo", "crash")}


@scenario({"answer": ok("cleaned up after 409 cancelled"), "end": "success"})
async def cancelled_handler_may_end_well(run: Run) -> Outcome:
    invocation = await run.send("Failing/cleans_up", swallow=True)
    await run.waiting(invocation)
    await run.operate("cancel", invocation)
    return {"answer": await run.attach(invocation), "end": await run.ended(invocation)}


# Server 1.7.12 livelocks once the second wait is suspended: it finds the first, consumed cancel signal in the journal,
# resumes at once, and so on, thousands of attempts a minute.
@scenario(
    {"cancels": [202, 202], "answer": ok(["409 cancelled", "409 cancelled"]), "attempts in bounds": True},
    server_modes=("streaming",),
)
async def each_cancel_interrupts_one_wait(run: Run) -> Outcome:
    invocation = await run.send("Failing/cancelled_twice")
    cancels: list[Outcome] = []
    for index in range(2):
        await run.seen(f"waiting {index}")
        await run.waiting(invocation)
        cancels.append(await run.operate("cancel", invocation))
    answer = await run.attach(invocation)
    return {"cancels": cancels, "answer": answer, "attempts in bounds": run.counts()["waiting 0"] <= 5}


@scenario({"cancel": 202, "outcome": ok("interrupted 409")}, modes=("streaming",))
async def cancel_interrupts_the_wait_for_a_busy_step(run: Run) -> Outcome:
    invocation = await run.send("Failing/cancelled_while_busy")
    await run.seen("busy")
    cancel = await run.operate("cancel", invocation)
    answer = await run.attach(invocation)
    run.open("release")
    return {"cancel": cancel, "outcome": answer}


@scenario({"cancel": 200, "later": refused(404, "invocation not found"), "executions": {}})
async def cancel_of_a_scheduled_invocation(run: Run) -> Outcome:
    invocation = await run.send("Callee/echo", value=1, delay="1h")
    await run.status(invocation, "scheduled")
    cancel = await run.operate("cancel", invocation)
    await run.status(invocation, "gone")
    return {"cancel": cancel, "later": await run.output(invocation), "executions": run.counts()}


@scenario(
    {
        "waiter": failed(409, "canceled"),
        "cancel": 200,
        "holder": ok("holder"),
        "next": ok("next"),
        "entered": ["enter holder", "leave holder", "enter next", "leave next"],
    }
)
async def cancel_of_a_queued_invocation(run: Run) -> Outcome:
    """It leaves the queue; the one behind it moves up."""
    key = run.key()
    holder = run.start("Locked/enter", key, name="holder", gate="leave")
    await run.seen("enter holder")
    waiter = run.start("Locked/enter", key, name="queued", headers={"idempotency-key": "queued"})
    queued = await run.lookup("Locked", "enter", key, "queued")
    await run.status(queued, "pending")
    behind = await run.send("Locked/enter", key, name="next")
    await run.status(behind, "pending")
    cancel = await run.operate("cancel", queued)
    answer = await waiter
    run.open("leave")
    return {
        "waiter": answer,
        "cancel": cancel,
        "holder": await holder,
        "next": await run.attach(behind),
        "entered": [entry for entry in run.entries() if entry.startswith(("enter", "leave"))],
    }


@scenario(
    {
        "completed": {
            "cancel": [409, "The invocation 'inv' was already completed."],
            "kill": [409, "The invocation 'inv' was already completed."],
            "pause": [409, "The invocation 'inv' is not running, cannot be paused."],
            "resume": [409, "The invocation 'inv' is completed, cannot be resumed."],
        },
        "purged": 200,
        "unknown": {
            name: [404, "The requested invocation 'inv' does not exist"]
            for name in ("cancel", "kill", "pause", "resume", "purge")
        },
        "malformed": {
            name: [400, "The request field 'invocation_id' is invalid. Reason: bad format"]
            for name in ("cancel", "kill", "pause", "resume", "purge")
        },
    }
)
async def operations_on_what_is_not_live(run: Run) -> Outcome:
    invocation = await run.send("Callee/echo", value=1)
    await run.attach(invocation)
    completed = {name: await run.operate(name, invocation) for name in ("cancel", "kill", "pause", "resume")}
    purged = await run.operate("purge", invocation)
    await run.status(invocation, "gone")
    operations = ("cancel", "kill", "pause", "resume", "purge")
    return {
        "completed": completed,
        "purged": purged,
        "unknown": {name: await run.operate(name, invocation) for name in operations},
        "malformed": {name: await run.operate(name, "bogus") for name in operations},
    }


NOT_BEGUN = {
    "pause": [409, "The invocation 'inv' is not running, cannot be paused."],
    "resume": [425, "The invocation 'inv' is either inboxed or scheduled, cannot be resumed."],
    "purge": [409, "The invocation 'inv' is not yet completed."],
}


@scenario({"scheduled": NOT_BEGUN, "pending": NOT_BEGUN, "kill": [200, 200]})
async def operations_on_what_has_not_begun(run: Run) -> Outcome:
    key = run.key()
    holder = run.start("Locked/enter", key, name="holder", gate="leave")
    await run.seen("enter holder")
    scheduled = await run.send("Callee/echo", value=1, delay="1h")
    await run.status(scheduled, "scheduled")
    pending = await run.send("Locked/enter", key, name="queued")
    await run.status(pending, "pending")
    operations = ("pause", "resume", "purge")
    outcome = {
        "scheduled": {name: await run.operate(name, scheduled) for name in operations},
        "pending": {name: await run.operate(name, pending) for name in operations},
        "kill": [await run.operate("kill", scheduled), await run.operate("kill", pending)],
    }
    run.open("leave")
    await holder
    return outcome


@scenario({"kill": 200, "answer": KILLED, "end": "[409] killed"})
async def kill_while_sleeping(run: Run) -> Outcome:
    invocation = await run.send("Failing/cleans_up")
    await run.waiting(invocation)
    waiter = run.start_attach(invocation)
    kill = await run.operate("kill", invocation)
    answer = await waiter
    return {"kill": kill, "answer": answer, "end": await run.ended(invocation)}


@scenario({"kill": 200, "answer": KILLED, "attempts": 1})
async def kill_while_busy(run: Run) -> Outcome:
    invocation = await run.send("Failing/cancelled_while_busy")
    await run.seen("busy")
    kill = await run.operate("kill", invocation)
    answer = await run.attach(invocation)
    run.open("release")
    return {"kill": kill, "answer": answer, "attempts": run.counts()["busy"]}


@scenario({"kill": 200, "answer": KILLED})
async def kill_while_backing_off(run: Run) -> Outcome:
    invocation = await run.send("Failing/slow_retry", failures=99)
    await run.status(invocation, "backing-off")
    return {"kill": await run.operate("kill", invocation), "answer": await run.attach(invocation)}


@scenario({"kill": 200, "answer": KILLED})
async def kill_while_paused(run: Run) -> Outcome:
    invocation = await run.send("Failing/paused_at_last", failures=99)
    await run.status(invocation, "paused")
    return {"kill": await run.operate("kill", invocation), "answer": await run.attach(invocation)}


@scenario({"parent": KILLED, "call": KILLED, "sent": KILLED, "delayed": "gone"})
async def kill_reaches_calls_and_sends(run: Run) -> Outcome:
    parent = await run.send("Caller/calls_held")
    call, sent, delayed = [await run.noted(name) for name in ("call", "sent", "delayed")]
    await run.seen("held", 2)
    await run.operate("kill", parent)
    return {
        "parent": await run.attach(parent),
        "call": await run.attach(call),
        "sent": await run.attach(sent),
        "delayed": await run.status(delayed, "gone"),
    }


@scenario({"parent": CANCELLED, "call": CANCELLED, "sent": ok("released"), "delayed": "scheduled", "kill": 200})
async def cancel_reaches_calls_but_not_sends(run: Run) -> Outcome:
    parent = await run.send("Caller/calls_sleeper")
    call, sent, delayed = [await run.noted(name) for name in ("call", "sent", "delayed")]
    await run.seen("held")
    await run.seen("sleeping")
    await run.waiting(call)
    await run.operate("cancel", parent)
    outcome = {
        "parent": await run.attach(parent),
        "call": await run.attach(call),
        "delayed": await run.status(delayed, "scheduled"),
    }
    run.open("release")
    return outcome | {"sent": await run.attach(sent), "kill": await run.operate("kill", delayed)}


@scenario({"status": "paused", "cancel": 202, "answer": ok("409 cancelled"), "attempts": True})
async def cancel_wakes_a_paused_invocation(run: Run) -> Outcome:
    invocation = await run.send("Failing/broken_until_cancelled")
    status = await run.status(invocation, "paused")
    cancel = await run.operate("cancel", invocation)
    answer = await run.attach(invocation)
    return {"status": status, "cancel": cancel, "answer": answer, "attempts": run.counts()["attempt"] >= 3}


@scenario(
    {
        "purge": 200,
        "output": refused(404, "invocation not found"),
        "attach": failed(404, "not found"),
        "executions": {"echo": 2},
    }
)
async def purge_forgets_an_idempotency_key(run: Run) -> Outcome:
    headers = {"idempotency-key": run.test_id}
    await run.call("Callee/echo", value=1, headers=headers)
    again = (await run.send_raw("Callee/echo", value=2, headers=headers)).json()
    purge = await run.operate("purge", again["invocationId"])
    await run.status(again["invocationId"], "gone")
    output, attach = await run.output(again["invocationId"]), await run.attach(again["invocationId"])
    await run.call("Callee/echo", value=3, headers=headers)
    return {"purge": purge, "output": output, "attach": attach, "executions": run.counts()}
