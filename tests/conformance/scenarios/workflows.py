"""Workflows: once per key, shared handlers, promises, state, retention until purge."""

from __future__ import annotations

import asyncio

from tests.conformance.harness import Outcome, Run, failed, ok, refused, scenario

RESULT = ok({"value": 1, "step": 1, "key": "k"})
DECIDED = ok({"decision": "yes", "keys": ["decision", "status"]})
ALREADY_INVOKED = failed(409, "the workflow method was already invoked")


@scenario({"first": RESULT, "second": ALREADY_INVOKED, "executions": 1})
async def workflow_runs_once_per_key(run: Run) -> Outcome:
    first = await run.call("SimpleFlow/flow", run.key(), value=1)
    second = await run.call("SimpleFlow/flow", run.key(), value=2)
    return {"first": first, "second": second, "executions": run.counts()["flow step"]}


@scenario({"statuses": ["Accepted", "PreviouslyAccepted", "PreviouslyAccepted"], "same id": True, "executions": 1})
async def second_send_of_a_workflow_is_the_first(run: Run) -> Outcome:
    first = (await run.send_raw("SimpleFlow/flow", run.key(), value=1)).json()
    second = (await run.send_raw("SimpleFlow/flow", run.key(), value=2)).json()
    await run.attach(first["invocationId"])
    third = (await run.send_raw("SimpleFlow/flow", run.key(), value=3)).json()
    answers = (first, second, third)
    return {
        "statuses": [answer["status"] for answer in answers],
        "same id": len({answer["invocationId"] for answer in answers}) == 1,
        "executions": run.counts()["flow step"],
    }


@scenario({"during": ALREADY_INVOKED, "run": DECIDED})
async def workflow_call_while_it_runs_is_refused(run: Run) -> Outcome:
    first = run.start("Approval/run", run.key())
    await run.seen("waiting")
    during = await run.call("Approval/run", run.key())
    await run.call("Approval/decide", run.key(), body="yes")
    return {"during": during, "run": await first}


@scenario({"sorted": [200] + [409] * 5, "executions": 1})
async def workflow_calls_at_the_same_time(run: Run) -> Outcome:
    answers = await asyncio.gather(*(run.call("SimpleFlow/flow", run.key(), value=1) for _ in range(6)))
    return {"sorted": sorted(answer["status"] for answer in answers), "executions": run.counts()["flow step"]}


@scenario({"first": failed(422, "sad"), "second": ALREADY_INVOKED, "attach": failed(422, "sad")})
async def failed_workflow_is_not_run_again(run: Run) -> Outcome:
    return {
        "first": await run.call("SimpleFlow/flow", run.key(), fail="sad"),
        "second": await run.call("SimpleFlow/flow", run.key()),
        "attach": run.answer(await run.request("GET", f"/restate/workflow/SimpleFlow/{run.key()}/attach")),
    }


@scenario({"cancel": 200, "peek": ok({"peek": "yes"}), "status": "Accepted", "run": DECIDED})
async def promises_outlive_a_run_that_never_began(run: Run) -> Outcome:
    """Cancelling a scheduled run frees its id; what was promised before stays for the next."""
    await run.call("Approval/decide", run.key(), body="yes")
    scheduled = await run.send("Approval/run", run.key(), delay="1h")
    await run.status(scheduled, "scheduled")
    cancel = await run.operate("cancel", scheduled)
    await run.status(scheduled, "gone")
    peek = await run.call("Approval/peek", run.key(), body="decision")
    again = (await run.send_raw("Approval/run", run.key())).json()
    answer = await run.attach(again["invocationId"])
    return {"cancel": cancel, "peek": peek, "status": again["status"], "run": answer}


@scenario({"result": RESULT, "ledger": {"flow step": 1, "flow crash": 2}})
async def workflow_is_retried(run: Run) -> Outcome:
    return {"result": await run.call("SimpleFlow/flow", run.key(), value=1), "ledger": run.counts()}


@scenario(
    {
        "unknown": refused(404, "invocation not found"),
        "running": refused(470, "the invocation exists but has not completed yet"),
        "completed": DECIDED,
        "attached": DECIDED,
        "same by id": True,
    }
)
async def workflow_attach_and_output(run: Run) -> Outcome:
    path = f"/restate/workflow/Approval/{run.key()}"
    unknown = run.answer(await run.request("GET", f"{path}/output"))
    invocation = await run.send("Approval/run", run.key())
    await run.seen("waiting")
    running = run.answer(await run.request("GET", f"{path}/output"))
    attached = asyncio.create_task(run.request("GET", f"{path}/attach"))
    await run.call("Approval/decide", run.key(), body="yes")
    answer = run.answer(await attached)
    completed = run.answer(await run.request("GET", f"{path}/output"))
    return {
        "unknown": unknown,
        "running": running,
        "completed": completed,
        "attached": answer,
        "same by id": await run.output(invocation) == completed,
    }


@scenario(
    {
        "before": ok({"status": None, "keys": []}),
        "peek before": ok({"peek": None}),
        "during": ok({"status": "waiting", "keys": ["status"]}),
        "decide": ok("accepted"),
        "peek decision": ok({"peek": "yes"}),
        "after": ok({"status": "decided", "keys": ["decision", "status"]}),
        "outcome": ok({"decision": "yes"}),
        "peek outcome": ok({"peek": {"decision": "yes"}}),
    }
)
async def shared_handlers_before_during_and_after(run: Run) -> Outcome:
    key = run.key()
    before = await run.call("Approval/status", key, body=None)
    peek_before = await run.call("Approval/peek", key, body="outcome")
    running = run.start("Approval/run", key)
    await run.seen("waiting")
    await run.eventually(lambda: _status_is(run, key, "waiting"), "state of the run")
    during = await run.call("Approval/status", key, body=None)
    decide = await run.call("Approval/decide", key, body="yes")
    await running
    return {
        "before": before,
        "peek before": peek_before,
        "during": during,
        "decide": decide,
        "peek decision": await run.call("Approval/peek", key, body="decision"),
        "after": await run.call("Approval/status", key, body=None),
        "outcome": await run.call("Approval/outcome", key, body=None),
        "peek outcome": await run.call("Approval/peek", key, body="outcome"),
    }


async def _status_is(run: Run, key: str, status: str) -> bool:
    return (await run.call("Approval/status", key, body=None))["value"]["status"] == status


@scenario({"early": ok("accepted"), "run": DECIDED})
async def promise_resolved_before_the_run(run: Run) -> Outcome:
    early = await run.call("Approval/decide", run.key(), body="yes")
    return {"early": early, "run": await run.call("Approval/run", run.key())}


@scenario({"waiters": [ok({"decision": "yes"})] * 3, "run": DECIDED})
async def promise_wakes_all_its_waiters(run: Run) -> Outcome:
    waiters = [run.start("Approval/outcome", run.key(), body=None) for _ in range(3)]
    await run.seen("awaits outcome", 3)
    running = run.start("Approval/run", run.key())
    await run.seen("waiting")
    await run.call("Approval/decide", run.key(), body="yes")
    return {"waiters": list(await asyncio.gather(*waiters)), "run": await running}


@scenario(
    {
        "second": ok("409 promise was already completed"),
        "uncaught": failed(409, "promise was already completed"),
        "reject": failed(409, "promise was already completed"),
        "run": DECIDED,
    }
)
async def promise_is_completed_once(run: Run) -> Outcome:
    await run.call("Approval/decide", run.key(), body="yes")
    return {
        "second": await run.call("Approval/decide_again", run.key(), body="no"),
        "uncaught": await run.call("Approval/decide", run.key(), body="no"),
        "reject": await run.call("Approval/reject", run.key(), message="no", code=500),
        "run": await run.call("Approval/run", run.key()),
    }


@scenario(
    {
        "run": ok({"decision": "rejected 451 forbidden book", "keys": ["decision", "status"]}),
        "peek": ok("451 forbidden book"),
    }
)
async def promise_can_be_rejected(run: Run) -> Outcome:
    running = run.start("Approval/run", run.key())
    await run.seen("waiting")
    await run.call("Approval/reject", run.key(), message="forbidden book", code=451)
    return {"run": await running, "peek": await run.call("Approval/peek", run.key(), body="decision")}


@scenario({"timeout": ok("timeout"), "outcome": ok({"decision": "yes"})})
async def promise_or_timeout(run: Run) -> Outcome:
    timeout = await run.call("Approval/outcome_or_timeout", run.key(), body=50)
    waiter = run.start("Approval/outcome_or_timeout", run.key(), body=60_000)
    await run.call("Approval/decide", run.key(), body="yes")
    await run.call("Approval/run", run.key())
    return {"timeout": timeout, "outcome": await waiter}


@scenario(ok(["yes", {"decision": "yes"}]))
async def gather_of_promises(run: Run) -> Outcome:
    waiter = run.start("Approval/both_promises", run.key(), body=None)
    await run.call("Approval/decide", run.key(), body="yes")
    await run.call("Approval/run", run.key())
    return await waiter


@scenario({"one": ok({"peek": "1"}), "two": ok({"peek": None})})
async def promises_belong_to_one_key(run: Run) -> Outcome:
    await run.call("Approval/decide", run.key("one"), body="1")
    return {
        "one": await run.call("Approval/peek", run.key("one"), body="decision"),
        "two": await run.call("Approval/peek", run.key("two"), body="decision"),
    }


@scenario(
    ok(
        [
            {"value": None, "step": 1, "key": "twice"},
            "409 the workflow method was already invoked",
            True,
        ]
    )
)
async def workflow_called_twice_by_a_handler(run: Run) -> Outcome:
    return await run.call("RunsWorkflows/twice")


@scenario(ok([{"decision": "yes"}, {"decision": "yes", "keys": ["decision", "status"]}]))
async def workflow_driven_by_a_handler(run: Run) -> Outcome:
    return await run.call("RunsWorkflows/drives_approval")


@scenario(
    {
        "live": [409, "The invocation 'inv' is not yet completed."],
        "purge": 200,
        "state": ok({"status": None, "keys": []}),
        "promise": ok({"peek": None}),
        "output": refused(404, "invocation not found"),
        "again": DECIDED,
    }
)
async def purge_frees_the_workflow_key(run: Run) -> Outcome:
    key = run.key()
    invocation = await run.send("Approval/run", key)
    await run.seen("waiting")
    live = await run.operate("purge", invocation)
    await run.call("Approval/decide", key, body="yes")
    await run.attach(invocation)
    purge = await run.operate("purge", invocation)
    await run.status(invocation, "gone")
    state = await run.call("Approval/status", key, body=None)
    promise = await run.call("Approval/peek", key, body="decision")
    output = await run.output(invocation)
    await run.call("Approval/decide", key, body="yes")
    return {
        "live": live,
        "purge": purge,
        "state": state,
        "promise": promise,
        "output": output,
        "again": await run.call("Approval/run", key),
    }


@scenario(
    refused(
        400,
        "cannot use the idempotency key with workflow handlers. "
        "The handler invocation will already be idempotent by the workflow key itself.",
    )
)
async def idempotency_key_on_a_workflow_run(run: Run) -> Outcome:
    return await run.call("SimpleFlow/flow", run.key(), headers={"idempotency-key": "x"})


@scenario({"answers": [ok({"peek": None}), ok({"peek": None})], "same": True})
async def idempotency_key_on_a_shared_workflow_handler(run: Run) -> Outcome:
    """The second answer is the stored one, though the promise is complete by then."""
    headers = {"idempotency-key": run.test_id}
    first = await run.call("Approval/peek", run.key(), body="decision", headers=headers)
    await run.call("Approval/decide", run.key(), body="yes")
    second = await run.call("Approval/peek", run.key(), body="decision", headers=headers)
    return {"answers": [first, second], "same": first == second}


@scenario({"cancel": 202, "run": ok({"decision": "rejected 409 cancelled", "keys": ["decision", "status"]})})
async def workflow_is_cancelled_while_it_waits_for_a_promise(run: Run) -> Outcome:
    invocation = await run.send("Approval/run", run.key())
    await run.seen("waiting")
    await run.waiting(invocation)
    return {"cancel": await run.operate("cancel", invocation), "run": await run.attach(invocation)}


@scenario(
    {
        "status": "scheduled",
        "output": refused(470, "the invocation exists but has not completed yet"),
        "second": "PreviouslyAccepted",
        "call": ALREADY_INVOKED,
        "executions": {},
    }
)
async def delayed_workflow_holds_its_key(run: Run) -> Outcome:
    invocation = await run.send("SimpleFlow/flow", run.key(), delay="1h")
    status = await run.status(invocation, "scheduled")
    second = (await run.send_raw("SimpleFlow/flow", run.key())).json()["status"]
    return {
        "status": status,
        "output": await run.output(invocation),
        "second": second,
        "call": await run.call("SimpleFlow/flow", run.key()),
        "executions": run.counts(),
    }


@scenario({"statuses": [200, 200], "executions": 2})
async def workflow_without_retention_can_run_again(run: Run) -> Outcome:
    """Whether its state is gone is left open: a server keeps it in this case, and deletes it after any retention."""
    first = await run.call("ShortFlow/short", run.key())
    await run.eventually(lambda: _is_unknown(run, "ShortFlow"), "the end of the first run")
    second = await run.call("ShortFlow/short", run.key())
    return {"statuses": [first["status"], second["status"]], "executions": run.counts()["short run"]}


async def _is_unknown(run: Run, workflow: str) -> bool:
    return (await run.request("GET", f"/restate/workflow/{workflow}/{run.key()}/output")).status_code == 404
