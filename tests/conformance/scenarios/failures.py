"""Errors of handlers: terminal ones, retried ones, and what happens when retries run out."""

from __future__ import annotations

from tests.conformance.harness import Outcome, Run, failed, ok, refused, scenario


@scenario({"answer": failed(418, "bad thing", {"a": "1", "ü": "☃"}), "attempts": {"attempt": 1}})
async def terminal_error(run: Run) -> Outcome:
    answer = await run.call("Failing/terminal", code=418, message="bad thing", metadata={"a": "1", "ü": "☃"})
    return {"answer": answer, "attempts": run.counts()}


@scenario(
    [
        *(failed(code, "m") for code in (400, 404, 500, 599, 200)),
        *(failed(code, "m", status=500) for code in (99, 1000)),
        failed(500, ""),
    ]
)
async def terminal_error_codes_become_http_statuses(run: Run) -> Outcome:
    """Left out: 600 to 999, which a server passes on as they are, but not every HTTP library can send."""
    codes = [400, 404, 500, 599, 200, 99, 1000]
    answers = [await run.call("Failing/terminal", code=code, message="m") for code in codes]
    return [*answers, await run.call("Failing/terminal", code=500, message="")]


@scenario({"answer": failed(412, "inner"), "attempts": {"attempt": 1}})
async def terminal_error_as_the_cause_of_another(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/wrapped_terminal"), "attempts": run.counts()}


@scenario({"answer": ok("recovered"), "ledger": {"before": 1, "attempt": 5}})
async def errors_are_retried(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/recovers", failures=4), "ledger": run.counts()}


@scenario({"answer": ok("recovered"), "ledger": {"attempt": 6}})
async def retryable_errors_use_up_no_attempts(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/retryable", failures=5), "ledger": run.counts()}


@scenario({"answer": failed(500, "ValueError('attempt 3')"), "attempts": {"attempt": 3}, "end": True})
async def killed_at_max_attempts(run: Run) -> Outcome:
    """The last error is the result. It counts attempts, the first included."""
    invocation = await run.send("Failing/killed_at_last")
    answer = await run.attach(invocation)
    end = await run.ended(invocation)
    return {"answer": answer, "attempts": run.counts(), "end": end.startswith("[500") and "attempt 3" in end}


@scenario({"answer": failed(500, "ValueError('only attempt')"), "attempts": {"attempt": 1}})
async def killed_at_the_only_attempt(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/killed_at_once"), "attempts": run.counts()}


@scenario({"answer": failed(500, "ValueError('broken step')"), "executions": {"step": 2}})
async def failing_step_is_killed_by_the_policy(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/step_killed"), "executions": run.counts()}


@scenario({"answer": ok("done"), "executions": {"step": 5}})
async def retries_of_a_step_with_options_beat_the_policy(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/step_options_beat_policy"), "executions": run.counts()}


@scenario(
    {
        "status": "paused",
        "attempts": 2,
        "output": refused(470, "the invocation exists but has not completed yet"),
        "resume": 200,
        "answer": ok("repaired"),
        "ledger": {"before": 1, "attempt": 3},
    }
)
async def paused_at_max_attempts_then_resumed(run: Run) -> Outcome:
    invocation = await run.send("Failing/paused_at_last", failures=2)
    status = await run.status(invocation, "paused")
    attempts = run.counts()["attempt"]
    output = await run.output(invocation)
    resume = await run.operate("resume", invocation)
    answer = await run.attach(invocation)
    return {
        "status": status,
        "attempts": attempts,
        "output": output,
        "resume": resume,
        "answer": answer,
        "ledger": run.counts(),
    }


@scenario({"attempts": [2, 4, 5], "answer": ok("repaired"), "before": 1})
async def resume_gives_a_fresh_set_of_attempts(run: Run) -> Outcome:
    invocation = await run.send("Failing/paused_at_last", failures=4)
    attempts: list[int] = []
    for count in (2, 4):
        await run.seen("attempt", count)
        await run.status(invocation, "paused")
        attempts.append(run.counts()["attempt"])
        await run.operate("resume", invocation)
    answer = await run.attach(invocation)
    return {"attempts": [*attempts, run.counts()["attempt"]], "answer": answer, "before": run.counts()["before"]}


MISMATCH = (
    "Found a mismatch between the code paths taken during the previous execution "
    "and the paths taken during this execution.\n"
    "This typically happens when some parts of the code are non-deterministic.\n"
)


@scenario(
    {
        "answer": failed(
            570,
            MISMATCH + "- The mismatch happened while executing 'run' (index '1')\n"
            "- Difference:\n   name: step of attempt 1 != step of attempt 3",
        ),
        "attempts": {"attempt": 3},
    },
    modes=("streaming",),  # others may suspend after the step, which would be the first attempt already
)
async def nondeterministic_handler(run: Run) -> Outcome:
    """Killed by the policy; the message names the command that does not match."""
    answer = await run.call("Failing/nondeterministic")
    return {"answer": answer, "attempts": run.counts()}


@scenario(
    {
        "answer": failed(
            570,
            MISMATCH + " - The previous execution ran and recorded the following: 'run' (index '1')\n"
            " - The current execution attempts to perform the following: 'handler return'",
        ),
        "attempts": {"attempt": 3},
    },
    modes=("streaming",),  # others may suspend after the step, which would be the first attempt already
)
async def handler_that_forgets_a_step(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/forgetful"), "attempts": run.counts()}


@scenario({"refused": True, "executions": {"held": 0}})
async def scoped_call_is_refused(run: Run) -> Outcome:
    """By the SDK up to protocol V6, by the engine from V7; never executed without its scope."""
    answer = await run.call("Failing/scoped")
    return {"refused": answer["status"] >= 500, "executions": run.counts("held")}


@scenario({"paused": 202, "status": "paused", "resume": 200, "answer": ok("recovered")})
async def backing_off_invocation_can_be_paused(run: Run) -> Outcome:
    invocation = await run.send("Failing/slow_retry", failures=1)
    await run.status(invocation, "backing-off")
    paused = await run.operate("pause", invocation)
    status = await run.status(invocation, "paused")
    resume = await run.operate("resume", invocation)
    return {"paused": paused, "status": status, "resume": resume, "answer": await run.attach(invocation)}


@scenario({"resume": 200, "answer": ok("recovered")})
async def resume_ends_the_backoff(run: Run) -> Outcome:
    """The retry would only come after an hour."""
    invocation = await run.send("Failing/slow_retry", failures=1)
    await run.status(invocation, "backing-off")
    return {"resume": await run.operate("resume", invocation), "answer": await run.attach(invocation)}


@scenario(
    {"pause": 202, "busy": "running", "status": "paused", "resume": 200, "answer": ok("finished, then 409")},
    modes=("streaming", "suspending"),
)
async def running_invocation_is_paused_at_its_next_wait(run: Run) -> Outcome:
    invocation = await run.send("Failing/cancelled_while_busy")
    await run.seen("busy")
    pause = await run.operate("pause", invocation)
    busy = await run.status(invocation, "running")
    run.open("release")
    status = await run.status(invocation, "paused")
    resume = await run.operate("resume", invocation)
    await run.waiting(invocation)
    await run.operate("cancel", invocation)
    answer = await run.attach(invocation)
    return {"pause": pause, "busy": busy, "status": status, "resume": resume, "answer": answer}


@scenario({"pause": 200, "status": "suspended", "answer": ok({"value": 1})}, modes=("suspending", "request-response"))
async def suspended_invocation_cannot_be_paused(run: Run) -> Outcome:
    """The answer is 200, but nothing happens: it goes on by itself."""
    invocation = await run.send("Waits/awakeable")
    awakeable = await run.noted("awakeable")
    await run.status(invocation, "suspended")
    pause = await run.operate("pause", invocation)
    status = await run.status(invocation, "suspended")
    await run.resolve(awakeable, 1)
    return {"pause": pause, "status": status, "answer": await run.attach(invocation)}


@scenario({"resume": 200, "answer": ok({"value": 1})}, modes=("suspending", "request-response"))
async def suspended_invocation_can_be_resumed_in_vain(run: Run) -> Outcome:
    """It replays, finds nothing, and is suspended again."""
    invocation = await run.send("Waits/awakeable")
    awakeable = await run.noted("awakeable")
    await run.status(invocation, "suspended")
    resume = await run.operate("resume", invocation)
    await run.status(invocation, "suspended")
    await run.resolve(awakeable, 1)
    return {"resume": resume, "answer": await run.attach(invocation)}


@scenario({"paused": "paused", "stored": 202, "still": "paused", "resume": 200, "answer": ok("repaired")})
async def paused_invocation_stays_paused(run: Run) -> Outcome:
    """Pausing what is paused changes nothing; a second resume of a live one neither."""
    invocation = await run.send("Failing/paused_at_last", failures=2)
    paused = await run.status(invocation, "paused")
    again = await run.operate("pause", invocation)
    still = await run.status(invocation, "paused")
    resume = await run.operate("resume", invocation)
    return {
        "paused": paused,
        "stored": 202 if again == 200 else again,
        "still": still,
        "resume": resume,
        "answer": await run.attach(invocation),
    }


@scenario({"answer": ok([3, 3]), "ledger": {"step": 3, "echo": 3}}, modes=("streaming",))
async def explicit_recovery_starts_anew(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/recovers_explicitly"), "ledger": run.counts("step", "echo")}


@scenario({"answer": ok("done"), "before": 1}, modes=("streaming", "suspending"))
async def hanging_attempt_is_aborted(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/hangs_once"), "before": run.counts()["before"]}


@scenario({"answer": ok("done"), "before": 1}, modes=("streaming", "suspending"))
async def escaped_cancellation_is_retried(run: Run) -> Outcome:
    return {"answer": await run.call("Failing/lets_cancellation_escape"), "before": run.counts()["before"]}


@scenario({"answer": ok("forgotten"), "output": refused(404, "invocation not found"), "executions": 2})
async def result_without_retention(run: Run) -> Outcome:
    """A waiting caller gets it; afterwards the idempotency key is free."""
    headers = {"idempotency-key": run.test_id}
    answer = await run.call("Failing/forgotten", headers=headers)
    invocation = await run.send("Failing/forgotten", headers=headers)
    await run.seen("forgotten", 2)
    await run.status(invocation, "gone")
    return {"answer": answer, "output": await run.output(invocation), "executions": run.counts()["forgotten"]}


@scenario({"state": True, "promise": True})
async def plain_service_has_neither_state_nor_promises(run: Run) -> Outcome:
    """Refused as long as it is tried, here twice."""
    answers = {name: await run.call(f"Failing/uses_{name}") for name in ("state", "promise")}
    return {name: answer["status"] == 500 for name, answer in answers.items()}
