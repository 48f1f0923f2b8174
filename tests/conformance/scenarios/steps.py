"""Durable steps, their results, and their retries."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.conformance.harness import Outcome, Run, failed, ok, scenario

ONE_MB = 1_000_000


@scenario({"answer": ok({"n": 1, "nested": [True, None, 1.5, "ü"]}), "ledger": {"step": 1}})
async def sync_step(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/sync_action"), "ledger": run.counts()}


@scenario({"answer": ok([1, 2]), "ledger": {"step": 1}})
async def async_step_with_arguments(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/async_action"), "ledger": run.counts()}


@scenario({"answer": ok(25), "ledger": {"add": 1}})
async def legacy_run_with_args(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/legacy_run"), "ledger": run.counts()}


@scenario({"answer": ok("None"), "ledger": {"step": 1, "crash": 2}})
async def step_result_none_is_a_result(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/none_result"), "ledger": run.counts()}


@scenario(
    {
        "answer": ok(
            {
                "order": ["Order", "ink", 3, ["a", "b"]],
                "point": ["Point", 1, -1],
                "raw": [0, 255, 10],
                "text": "abc",
                "hinted": ["Order", "pen"],
            }
        ),
        "ledger": {"order": 1, "point": 1},
    }
)
async def typed_step_results_survive_replay(run: Run) -> Outcome:
    answer = await run.call("Steps/typed_results")
    return {"answer": answer, "ledger": run.counts("order", "point")}


@scenario(ok({"item": "INK", "amount": 4, "tags": ["x", "seen"]}))
async def pydantic_input_and_output(run: Run) -> Outcome:
    return await run.call("Steps/pydantic_io", body={"item": "ink", "amount": 2, "tags": ["x"]})


@scenario(ok({"x": 2, "y": 1}))
async def msgspec_input_and_output(run: Run) -> Outcome:
    return await run.call("Steps/struct_io", body={"x": 1, "y": 2})


@scenario({"status": 200, "type": "application/octet-stream", "body": [2, 1, 0, 255]})
async def bytes_input_and_output(run: Run) -> Outcome:
    response = await run.request(
        "POST", "/Steps/raw_bytes", content=b"\xff\x00\x01\x02", headers={"content-type": "application/octet-stream"}
    )
    return {
        "status": response.status_code,
        "type": response.headers["content-type"],
        "body": list(response.content),
    }


@scenario({"answer": ok("done"), "ledger": {"before": 1, "step": 4}})
async def step_is_retried_by_the_policy(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/fails_then_succeeds", failures=3), "ledger": run.counts()}


@scenario({"answer": failed(500, "ForcedRetry('step')"), "ledger": {"step": 3}})
async def step_gives_up_after_max_attempts(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/max_attempts", failures=99, max=3), "ledger": run.counts()}


@scenario({"answer": failed(500, "ForcedRetry('step')"), "ledger": {"step": 1}})
async def step_with_one_attempt(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/max_attempts", failures=99, max=1), "ledger": run.counts()}


@scenario({"answer": ok("done"), "ledger": {"step": 3}})
async def step_succeeds_at_its_last_attempt(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/max_attempts", failures=2, max=3), "ledger": run.counts()}


@scenario({"answer": ok("500 ForcedRetry('step')"), "ledger": {"step": 2, "undo": 1}})
async def exhausted_step_can_be_compensated(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/max_attempts", failures=99, max=2, catch=True), "ledger": run.counts()}


@scenario({"answer": failed(500, "ValueError('never works')"), "ledger": {"step": 2}})
async def legacy_run_max_attempts(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/legacy_max_attempts"), "ledger": run.counts()}


@scenario({"answer": failed(500, "ValueError('never works')"), "executions in bounds": True})
async def step_gives_up_after_max_duration(run: Run) -> Outcome:
    answer = await run.call("Steps/max_duration")
    # 500 ms at 100 ms each; a loaded machine manages fewer, never more.
    return {"answer": answer, "executions in bounds": 2 <= run.counts()["step"] <= 7}


@scenario({"answer": ok("firstsecond"), "ledger": {"first": 3, "second": 3}})
async def each_step_has_its_own_attempts(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/second_step_fails"), "ledger": run.counts()}


@scenario({"answer": failed(418, "short and stout", {"pot": "tea"}), "ledger": {"step": 1, "crash": 2}})
async def terminal_error_in_step(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/terminal_in_step"), "ledger": run.counts()}


@scenario({"answer": ok("418 short and stout {'pot': 'tea'}"), "ledger": {"step": 1, "crash": 2}})
async def terminal_error_in_step_is_caught_after_replay(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/terminal_in_step", catch=True), "ledger": run.counts()}


@scenario({"answer": ok("done"), "ledger": {"step": 3}})
async def retryable_error_in_step_names_its_delay(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/retryable_in_step"), "ledger": run.counts()}


@scenario({"answered what was drawn": True, "draws": 3, "crashed": [True, True]})
async def results_are_replayed_not_recomputed(run: Run) -> Outcome:
    answer = await run.call("Steps/replayed")
    drawn = [entry.removeprefix("drew ") for entry in run.entries() if entry.startswith("drew ")]
    return {
        "answered what was drawn": answer == ok(drawn),
        "draws": len(drawn),
        "crashed": [count > 1 for count in run.counts("first crash", "second crash").values()],
    }


@scenario({"answer": ok(sum(range(1000))), "ledger": {"step": 1000, "crash": 2}}, modes=("streaming", "suspending"))
async def journal_of_two_thousand_entries(run: Run) -> Outcome:
    # Not request-response: there every step costs an attempt that replays all before it.
    return {"answer": await run.call("Steps/many", count=1000), "ledger": run.counts()}


@scenario({"answer": ok(sum(range(40))), "ledger": {"step": 40, "crash": 2}})
async def journal_of_eighty_entries(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/many", count=40), "ledger": run.counts()}


@scenario({"status": 200, "equal": True, "ledger": {"step": 1, "crash": 2}})
async def one_megabyte_through_a_step(run: Run) -> Outcome:
    text = "é" + "x" * ONE_MB
    answer = await run.call("Steps/large", text=text)
    return {"status": answer["status"], "equal": answer.get("value") == text + "!", "ledger": run.counts()}


@scenario({"status": 200, "equal": True})
async def four_megabytes_of_bytes(run: Run) -> Outcome:
    body = bytes(range(256)) * (4 * ONE_MB // 256)
    response = await run.request(
        "POST", "/Steps/raw_bytes", content=body, headers={"content-type": "application/octet-stream"}
    )
    return {"status": response.status_code, "equal": response.content == body[::-1]}


@scenario({"answer": ok([0, 1, 2, 3, 4]), "started": 5})
async def async_steps_run_concurrently(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/concurrent", count=5), "started": run.counts()["started"]}


@scenario({"answer": ok([0, 1, 2]), "started": 3})
async def blocking_steps_run_concurrently(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/concurrent_sync", count=3), "started": run.counts()["started"]}


@scenario(ok("ok ☃"))
async def step_with_unicode_name(run: Run) -> Outcome:
    return await run.call("Steps/unicode_name")


@scenario({"answer": ok("awaited"), "ledger": {}})
async def step_that_is_not_awaited_never_runs(run: Run) -> Outcome:
    return {"answer": await run.call("Steps/not_awaited"), "ledger": run.counts()}


@scenario({"answer": ok({"distinct_ids": True, "is_float": True}), "attempts": True, "different sights": 1})
async def random_uuid_and_time_are_stable(run: Run) -> Outcome:
    answer = await run.call("Steps/deterministic")
    sights: list[Any] = [entry for entry in run.entries() if entry.startswith("saw")]
    return {"answer": answer, "attempts": len(sights) >= 3, "different sights": len(set(sights))}


@scenario({"two invocations differ": True})
async def random_differs_between_invocations(run: Run) -> Outcome:
    await run.call("Steps/deterministic")
    await run.call("Steps/deterministic")
    sights = {entry for entry in run.entries() if entry.startswith("saw")}
    return {"two invocations differ": len(sights) == 2}


@scenario(failed(500, "Unable to parse an input argument. Expecting value: line 1 column 1 (char 0)"))
async def input_that_is_no_json(run: Run) -> Outcome:
    return await run.call("Steps/sync_action", body=b"no json", headers={"content-type": "application/json"})


@scenario({"sent back": True})
async def input_keeps_its_bytes(run: Run) -> Outcome:
    """The body reaches the handler as it was sent, odd whitespace included."""
    body = json.dumps({"a": base64.b64encode(bytes(range(64))).decode()}, indent=3).encode() + b"\n \t"
    answer = await run.call("Failing/request", body=body, headers={"content-type": "application/json"})
    return {"sent back": answer["value"]["body"].encode() == body}
