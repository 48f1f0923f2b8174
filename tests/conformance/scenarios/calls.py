"""Calls and sends between handlers, and what their failures do."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Outcome, Run, failed, ok, scenario

FLOW = {"value": 7, "step": 1, "key": "kinds"}


@scenario(
    {
        "answer": ok(
            {
                "service": {"a": [1, "ü"]},
                "void": None,
                "private handler": "secret",
                "private service": "hidden secret",
                "object": ["first"],
                "shared": ["first"],
                "workflow": FLOW,
                "generic": ["first", "second"],
            }
        ),
        "ledger": {"echo": 1, "first": 1, "second": 1, "flow step": 1},
    }
)
async def calls_of_all_kinds(run: Run) -> Outcome:
    answer = await run.call("Caller/all_kinds")
    return {"answer": answer, "ledger": run.counts("echo", "first", "second", "flow step")}


@scenario(
    {
        "answer": ok(
            {
                "service": 1,
                "object": ["sent"],
                "workflow": {"value": 1, "step": 1, "key": "sent"},
                "generic": 2,
                "delayed": True,
                "generic delayed": True,
            }
        ),
        "ledger": {"echo": 2, "sent": 1, "own_id": 2, "flow step": 1},
    }
)
async def sends_of_all_kinds(run: Run) -> Outcome:
    answer = await run.call("Caller/send_kinds")
    return {"answer": answer, "ledger": run.counts("echo", "sent", "own_id", "flow step")}


@scenario(
    {
        "answer": ok(
            [
                "500 plain {'why': 'plain'}",
                "418 teapot {'why': 'teapot'}",
                "409  {'why': ''}",
                "599 ünïcode {'why': 'ünïcode'}",
            ]
        ),
        "executions": {"refuse": 4},
    }
)
async def failures_of_children_can_be_caught(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/failures"), "executions": run.counts("refuse")}


@scenario({"answer": failed(444, "not today", {"a": "b"}), "executions": {"refuse": 1}})
async def failure_of_a_child_fails_the_parent(run: Run) -> Outcome:
    answer = await run.call("Caller/failure_passes_through", code=444, message="not today", metadata={"a": "b"})
    return {"answer": answer, "executions": run.counts()}


@scenario({"answer": ok("recovered"), "ledger": {"flaky": 3}})
async def parent_does_not_notice_retries_of_its_child(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/child_recovers"), "ledger": run.counts()}


@scenario(ok([{"x-test-one": "1", "x-test-two": "zwei ☃"}, {"x-test-three": ""}, {}]))
async def headers_of_a_call_reach_the_child(run: Run) -> Outcome:
    return await run.call("Caller/with_headers")


@scenario({"answer": ok({"values": [1, 1, 3], "same child": [True, False, True]}), "executions": {"echo": 2}})
async def idempotency_key_on_calls(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/with_idempotency_key"), "executions": run.counts("echo")}


@scenario({"answers": [1, 1], "executions": {"echo": 1}})
async def idempotency_key_is_shared_with_the_ingress(run: Run) -> Outcome:
    """The key names the invocation of a handler, whoever starts it."""
    first = await run.call("Callee/echo", value=1, headers={"idempotency-key": run.test_id})
    answer = await run.call("Caller/with_idempotency_key")
    return {"answers": [first["value"], answer["value"]["values"][0]], "executions": {"echo": run.counts()["echo"] - 1}}


@scenario({"answer": ok(list(range(20))), "executions": 20})
async def parallel_calls(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/parallel", count=20), "executions": run.counts()["echo"]}


@scenario(
    {"answer": ok([*(f"line {i}" for i in range(8)), "last"]), "order": [*(f"line {i}" for i in range(8)), "last"]}
)
async def sends_to_one_key_keep_their_order(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/sends_in_order", count=8), "order": run.entries()}


@scenario(ok(["now", "soon", "late"]))
async def delayed_sends_queue_when_due(run: Run) -> Outcome:
    return await run.call("Caller/delayed_object_sends")


@scenario({"status": "scheduled", "executions": {}, "cancel": 200, "after": "gone"})
async def delayed_send_from_a_handler_waits(run: Run) -> Outcome:
    response = await run.send_raw("Caller/delayed_send", delay_ms=3_600_000)
    child = (await run.request("GET", f"/restate/invocation/{response.json()['invocationId']}/attach")).json()
    return {
        "status": await run.status(child, "scheduled"),
        "executions": run.counts(),
        "cancel": await run.operate("cancel", child),
        "after": await run.status(child, "gone"),
    }


@scenario({"answer": ok(12), "executions": {"countdown": 13}})
async def recursion(run: Run) -> Outcome:
    return {"answer": await run.call("Callee/countdown", n=12), "executions": run.counts()}


@scenario({"answer": ok(["beside"]), "later": ok(["again", "mine"])})
async def object_calls_other_keys_and_its_own_shared_handlers(run: Run) -> Outcome:
    await run.call("Diary/append", run.key("a"), body="mine")
    return {
        "answer": await run.call("Diary/calls_neighbour", run.key("b"), body="beside"),
        "later": await run.call("Diary/calls_neighbour", run.key("a"), body="again"),
    }


@scenario({"status": "pending", "kill": 200, "answer": failed(409, "killed"), "key is free": True})
async def object_that_calls_itself_deadlocks(run: Run) -> Outcome:
    """Both waits are visible; killing the caller frees the key. It kills the callee too, unless that was quicker."""
    key = run.key()
    caller = await run.send("Diary/calls_itself", key, body="x")
    status = await run.status(await run.noted("called"), "pending")
    await run.waiting(caller)
    queued = await run.send("Diary/append", key, body="free")
    await run.status(queued, "pending")
    answer = run.start_attach(caller)
    kill = await run.operate("kill", caller)
    await run.attach(queued)
    return {
        "status": status,
        "kill": kill,
        "answer": await answer,
        "key is free": "free" in (await run.call("Diary/lines", key, body=None))["value"],
    }


@scenario({"status": "backing-off", "kill": 200, "answer": failed(409, "killed")})
async def unknown_service_is_retried(run: Run) -> Outcome:
    return await _never_gets_through(run, service="NoSuchService", handler="h")


@scenario({"status": "backing-off", "kill": 200, "answer": failed(409, "killed")})
async def unknown_handler_is_retried(run: Run) -> Outcome:
    return await _never_gets_through(run, service="Callee", handler="no_such_handler")


@scenario({"status": "backing-off", "kill": 200, "answer": failed(409, "killed")})
async def key_for_a_plain_service_is_retried(run: Run) -> Outcome:
    return await _never_gets_through(run, service="Callee", handler="nothing", object_key="k")


@scenario({"status": "backing-off", "kill": 200, "answer": failed(409, "killed")})
async def empty_idempotency_key_is_retried(run: Run) -> Outcome:
    return await _never_gets_through(run, service="Callee", handler="nothing", idempotency_key="")


async def _never_gets_through(run: Run, **fields: Any) -> Outcome:
    invocation = await run.send("Caller/calls_generic", **fields)
    status = await run.status(invocation, "backing-off")
    waiter = run.start_attach(invocation)
    return {"status": status, "kill": await run.operate("kill", invocation), "answer": await waiter}


@scenario({"status": 500, "source": "invocation", "names the service": True})
async def unknown_service_with_two_attempts(run: Run) -> Outcome:
    answer = await run.call("Caller/calls_generic_twice", service="NoSuchService", handler="h")
    error = answer["error"]
    return {
        "status": answer["status"],
        "source": error["source"],
        "names the service": "NoSuchService" in error["message"],
    }


@scenario(ok("[]"))
async def object_without_key_has_the_empty_key(run: Run) -> Outcome:
    return await run.call("Caller/calls_generic_twice", service="Diary", handler="lines")


@scenario({"answer": ok("409 cancelled"), "overslept": False})
async def call_is_cancelled_by_its_future(run: Run) -> Outcome:
    answer = await run.call("Caller/cancels_child")
    return {"answer": answer, "overslept": "overslept" in run.entries()}


@scenario({"answer": ok("409 cancelled")})
async def send_is_cancelled_by_its_handle(run: Run) -> Outcome:
    return {"answer": await run.call("Caller/cancels_send")}


@scenario({"cancel": ok("cancelled"), "result": failed(409, "cancelled"), "end": "[409] cancelled"})
async def invocation_is_cancelled_by_id(run: Run) -> Outcome:
    sleeper = await run.send("Callee/sleeps_for_long")
    await run.seen("sleeping")
    cancel = await run.call("Caller/cancels_by_id", invocation_id=sleeper)
    return {"cancel": cancel, "result": await run.attach(sleeper), "end": await run.ended(sleeper)}


@scenario({"running": ok("released"), "completed": ok("released"), "executions": {"held": 1}})
async def attach_from_a_handler(run: Run) -> Outcome:
    target = await run.send("Callee/held")
    await run.seen("held")
    waiter = await run.send("Caller/attaches", invocation_id=target)
    await run.waiting(waiter)
    run.open("release")
    return {
        "running": await run.attach(waiter),
        "completed": await run.call("Caller/attaches", invocation_id=target),
        "executions": run.counts("held"),
    }


@scenario({"failed": ok("451 hush"), "unknown": ok("404 not found")})
async def attach_from_a_handler_to_failed_and_unknown(run: Run) -> Outcome:
    target = await run.send("Callee/refuse", code=451, message="hush")
    await run.attach(target)
    gone = await run.send("Callee/echo", value=1)
    await run.attach(gone)
    await run.operate("purge", gone)
    return {
        "failed": await run.call("Caller/attaches", invocation_id=target),
        "unknown": await run.call("Caller/attaches", invocation_id=gone),
    }
