"""What callers see: idempotency keys, delays, attach and output, refusals, and what reaches the handler."""

from __future__ import annotations

import asyncio
import re
import time

from tests.conformance.harness import Outcome, Run, ok, refused, scenario


@scenario({"answers": [ok(1), ok(1), ok(1)], "executions": {"echo": 1}, "expiry": [False, True, True]})
async def idempotency_key(run: Run) -> Outcome:
    headers = {"idempotency-key": f"{run.test_id} x"}
    responses = [
        await run.request("POST", "/Callee/echo", content=body, headers={**headers, "content-type": "application/json"})
        for body in (
            f'{{"t": "{run.test_id}", "value": 1}}'.encode(),
            f'{{"t": "{run.test_id}", "value": 2}}'.encode(),
            b'"anything"',
        )
    ]
    return {
        "answers": [run.answer(response) for response in responses],
        "executions": run.counts(),
        "expiry": ["idempotency-expires" in response.headers for response in responses],
    }


@scenario({"answers": [ok("released")] * 4, "executions": {"held": 1}, "send": "PreviouslyAccepted"})
async def idempotent_calls_join_a_running_one(run: Run) -> Outcome:
    headers = {"idempotency-key": run.test_id}
    calls = [run.start("Callee/held", headers=headers) for _ in range(3)]
    await run.seen("held")
    again = (await run.send_raw("Callee/held", headers=headers)).json()
    run.open("release")
    answers = [await call for call in calls]
    return {
        "answers": [*answers, await run.attach(again["invocationId"])],
        "executions": run.counts(),
        "send": again["status"],
    }


@scenario({"values": ["a", "b"], "executions": {"echo": 2}})
async def idempotency_keys_belong_to_one_handler(run: Run) -> Outcome:
    headers = {"idempotency-key": run.test_id}
    echo = await run.call("Callee/echo", value="a", headers=headers)
    await run.call("Callee/nothing", body=None, headers=headers)
    other = await run.call("Callee/echo", value="b", headers={"idempotency-key": run.test_id + "b"})
    return {"values": [echo["value"], other["value"]], "executions": run.counts("echo")}


@scenario({"one": ok(["x"]), "two": ok(["y"]), "one again": ok(["x"]), "lines": ok(["x"])})
async def idempotency_keys_belong_to_one_object_key(run: Run) -> Outcome:
    headers = {"idempotency-key": run.test_id}
    return {
        "one": await run.call("Diary/append", run.key("one"), body="x", headers=headers),
        "two": await run.call("Diary/append", run.key("two"), body="y", headers=headers),
        "one again": await run.call("Diary/append", run.key("one"), body="z", headers=headers),
        "lines": await run.call("Diary/lines", run.key("one"), body=None),
    }


@scenario({"attach": ok(5), "output": ok(5), "unknown": refused(404, "invocation not found")})
async def attach_and_output_by_idempotency_key(run: Run) -> Outcome:
    await run.send("Callee/echo", value=5, headers={"idempotency-key": run.test_id})
    path = f"/restate/invocation/Callee/echo/{run.test_id}"
    return {
        "attach": run.answer(await run.request("GET", f"{path}/attach")),
        "output": run.answer(await run.request("GET", f"{path}/output")),
        "unknown": run.answer(await run.request("GET", f"{path}-unknown/output")),
    }


@scenario(
    {
        "output while running": refused(470, "the invocation exists but has not completed yet"),
        "attach": ok("released"),
        "output": ok("released"),
        "again": ok("released"),
    }
)
async def attach_and_output_by_id(run: Run) -> Outcome:
    invocation = await run.send("Callee/held")
    await run.seen("held")
    running = await run.output(invocation)
    waiters = [run.start_attach(invocation) for _ in range(2)]
    run.open("release")
    answers = [await waiter for waiter in waiters]
    assert answers[0] == answers[1]
    return {
        "output while running": running,
        "attach": answers[0],
        "output": await run.output(invocation),
        "again": await run.attach(invocation),
    }


@scenario({"status": "scheduled", "execution time": True, "answer": ok(1), "waited": True})
async def delayed_send_runs_when_due(run: Run) -> Outcome:
    start = time.monotonic()
    response = (await run.send_raw("Callee/echo", value=1, delay="1s")).json()
    status = await run.status(response["invocationId"], "scheduled")
    answer = await run.attach(response["invocationId"])
    return {
        "status": status,
        "execution time": bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{9})?Z", response["executionTime"])),
        "answer": answer,
        "waited": time.monotonic() - start >= 1.0,
    }


@scenario(
    {
        "unknown service": refused(
            404, "service 'Nope' not found, make sure to register the service before calling it."
        ),
        "unknown handler": refused(
            404,
            "the service 'Callee' exists, but the handler 'nope' was not found, "
            "check that the handler exists in the latest registered service version.",
        ),
        "private handler": refused(400, "the invoked service is not public"),
        "private service": refused(400, "the invoked service is not public"),
        "no content type": refused(400, "input validation error: Empty content-type"),
        "wrong content type": refused(
            400, "input validation error: Content-type 'text/plain' does not match 'application/json'"
        ),
        "executions": {},
    }
)
async def refusals(run: Run) -> Outcome:
    text = {"content-type": "text/plain"}
    return {
        "unknown service": await run.call("Nope/echo"),
        "unknown handler": await run.call("Callee/nope"),
        "private handler": await run.call("Callee/secret", body=None),
        "private service": await run.call("Hidden/secret", body=None),
        "no content type": await run.call("Callee/echo", body=b"{}"),
        "wrong content type": await run.call("Callee/echo", body=b"{}", headers=text),
        "executions": run.counts(),
    }


@scenario({"answer": ok(None), "content type": None})
async def handler_without_input_and_output(run: Run) -> Outcome:
    response = await run.request("POST", "/Callee/nothing")
    return {"answer": run.answer(response), "content type": response.headers.get("content-type")}


@scenario(
    {
        "status": 200,
        "seen": {
            "body": '{"t": "T"}',
            "parsed": {"t": "T"},
            "headers": {"x-custom": "ok", "x-restate-ingress-path": "/Failing/request?a=b"},
            "content type": "application/json",
            "id is own": True,
            "id": "inv",
            "protocol": "application/vnd.restate.invocation",
            "has host": False,
            "has idempotency key": False,
            "finished": False,
        },
        "id header": True,
    }
)
async def request_as_the_handler_sees_it(run: Run) -> Outcome:
    response = await run.request(
        "POST",
        "/Failing/request?a=b",
        content=f'{{"t": "{run.test_id}"}}'.encode(),
        headers={"content-type": "application/json", "X-Custom": "ok", "idempotency-key": run.test_id},
    )
    seen = response.json()
    return {"status": response.status_code, "seen": seen, "id header": response.headers["x-restate-id"] == seen["id"]}


@scenario({"distinct": 50, "executions": 50})
async def fifty_sends_at_once(run: Run) -> Outcome:
    ids = await asyncio.gather(*(run.send("Callee/echo", value=index) for index in range(50)))
    answers = await asyncio.gather(*(run.attach(one) for one in ids))
    values = {answer["value"] for answer in answers}
    return {"distinct": len(values), "executions": run.counts()["echo"]}
