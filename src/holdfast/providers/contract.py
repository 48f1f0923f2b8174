"""The contract of `WorkflowProvider`: every promise as a named check, for pytest and for `holdfast providers contract`.

    @pytest.mark.parametrize("check", contract.CHECKS, ids=contract.CHECKS)
    async def test_my_provider_keeps(check, provider, tmp_path):
        await contract.CHECKS[check](Bench(provider, tmp_path))

A check raises `BrokenPromise` (or whatever the provider raised) when the promise is not kept. Checks use workflows of
`contract_flows` and delete them again; they do not disturb other workflows of the same engine.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast.providers.bench import Bench, BrokenPromise, equal, refused, true
from holdfast.providers.configuration import Configuration
from holdfast.providers.contract_flows import marks
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidInput,
    InvalidSpec,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
)
from holdfast.providers.types import ExecutionState, ExecutionStatus, RetryPolicy, SubState, WorkflowSpec

Check = Callable[[Bench], Awaitable[None]]

CHECKS: dict[str, Check] = {}
"""Promise -> its check, in the order of the interface."""


def promise(check: Check) -> Check:
    """Register a check under its function's name."""
    CHECKS[check.__name__] = check
    return check


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check."""

    name: str
    is_kept: bool
    problem: str
    duration_s: float

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "name": self.name,
            "is_kept": self.is_kept,
            "problem": self.problem,
            "duration_s": round(self.duration_s, 3),
        }


async def check_all(
    name: str,
    configuration: Configuration | None = None,
    *,
    only: str = "",
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Try every promise on a provider, opened by its name and configuration.

    Args:
        only: Text that names of checks must hold.
        on_result: Called after each check.
    Raises:
        ProviderNotFound, InvalidConfiguration, or what its opening raises.
    """
    from holdfast.providers.opening import open_provider

    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-contract-") as directory:
        async with await open_provider(name, config=configuration) as provider:
            for check_name, check in CHECKS.items():
                if only in check_name:
                    results.append(await _tried(check_name, check, Bench(provider, Path(directory))))
                    if on_result is not None:
                        on_result(results[-1])
    return results


async def _tried(name: str, check: Check, bench: Bench) -> Result:
    started_at = time.monotonic()
    try:
        await check(bench)
    except Exception as error:  # noqa: BLE001 whatever it is, the promise is broken
        problem = str(error) if isinstance(error, BrokenPromise) else f"{type(error).__name__}: {error}"
        return Result(name, False, problem, time.monotonic() - started_at)
    return Result(name, True, "", time.monotonic() - started_at)


# ---- identity and validation ---------------------------------------------------------------------------------------------


@promise
async def its_name_is_constant_and_well_formed(bench: Bench) -> None:
    true("name", re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", bench.provider.name))
    equal("name", bench.provider.name, bench.provider.name)


@promise
async def validate_accepts_a_right_spec_and_creates_nothing(bench: Bench) -> None:
    spec = bench.spec("steps")
    await bench.provider.validate(spec)
    await refused(bench.provider.get_workflow(spec.workflow_id), WorkflowNotFound, spec.workflow_id)


@promise
async def validate_names_the_field_that_is_wrong(bench: Bench) -> None:
    right = bench.spec("steps")
    wrong: dict[str, WorkflowSpec] = {
        "workflow_id": replace(right, workflow_id=""),
        "workflow_id: 'Upper": replace(right, workflow_id="Upper_Case"),
        "name": replace(right, name=""),
        "description": replace(right, description="x" * 1025),
        "definition": replace(right, definition=""),
        "definition: '{'": replace(right, definition="{"),
        "definition: no module": replace(right, definition="no_such_module_anywhere:flow"),
        "definition: module": replace(right, definition="holdfast.providers.contract_flows:nothing"),
        "definition.handler": replace(
            right, definition={"reference": "holdfast.providers.contract_flows:steps", "handler": "nope"}
        ),
        "timeout": replace(right, timeout=timedelta(0)),
        "retry_policy.max_attempts": replace(right, retry_policy=RetryPolicy(max_attempts=-1)),
        "retry_policy.backoff_rate": replace(right, retry_policy=RetryPolicy(backoff_rate=0.5)),
        "tags": replace(right, tags={f"tag-{number}": "" for number in range(51)}),
        "provider_config.nonsense": replace(right, provider_config={"nonsense": "x"}),
        "provider_config.service_name": replace(right, provider_config={"service_name": "7up"}),
    }
    for text, spec in wrong.items():
        error = await refused(bench.provider.validate(spec), InvalidSpec, text)
        equal("field", error.field, re.split(r"[: ]", text)[0])


@promise
async def a_definition_that_does_not_run_is_refused(bench: Bench) -> None:
    spec = bench.spec("steps", definition="holdfast.providers.contract_flows:marks")
    await refused(bench.provider.validate(spec), InvalidSpec, "definition")
    await refused(bench.provider.create_workflow(spec), InvalidSpec, "definition")


# ---- workflows -----------------------------------------------------------------------------------------------------------


@promise
async def create_answers_where_the_workflow_is(bench: Bench) -> None:
    spec = bench.spec("steps")
    try:
        created = await bench.provider.create_workflow(spec)
        equal("workflow_id", created.workflow_id, spec.workflow_id)
        equal("provider_type", created.provider_type, bench.provider.name)
        equal("is_new", created.is_new, True)
        true("service_name", created.service_name)
        true("deployment_id", created.deployment_id)
        true("resource_ids", created.resource_ids)
    finally:
        await bench.provider.delete_workflow(spec.workflow_id)


@promise
async def create_again_succeeds_and_changes_nothing(bench: Bench) -> None:
    async with bench.workflow("steps", description="the first") as workflow_id:
        spec = bench.spec("steps", workflow_id=workflow_id, description="the second")
        again = await bench.provider.create_workflow(spec)
        equal("is_new", again.is_new, False)
        equal("description", (await bench.provider.get_workflow(workflow_id)).description, "the first")


@promise
async def the_definition_is_stored_and_read_back(bench: Bench) -> None:
    policy = RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=1))
    definition = {"reference": "holdfast.providers.contract_flows:steps", "version": "7"}
    changes: dict[str, Any] = {"timeout": timedelta(minutes=5), "retry_policy": policy, "tags": {"team": "a"}}
    async with bench.workflow("steps", definition=definition, **changes) as workflow_id:
        found = await bench.provider.get_workflow(workflow_id)
        equal("definition", found.definition, definition)
        equal("version", found.version, "7")
        equal("name", found.name, "steps")
        equal("timeout", found.timeout, timedelta(minutes=5))
        equal("retry_policy", found.retry_policy, policy)
        equal("tags", dict(found.tags), {"team": "a"})
        equal("handler", found.handler, "steps_run")
        equal("handlers", sorted(found.handlers), ["steps_run", "whoami"])


@promise
async def workflows_are_listed_in_order_and_by_pages(bench: Bench) -> None:
    async with bench.workflow("steps") as one, bench.workflow("asleep") as two, bench.workflow("failing") as three:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await bench.provider.list_workflows(limit=2, cursor=cursor)
            true("a page is not longer than asked", len(page) <= 2)
            found += [each.workflow_id for each in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        equal("order", found, sorted(found))
        true("all are listed", {one, two, three} <= set(found))
        equal("listed once", len(found), len(set(found)))


@promise
async def an_unknown_workflow_is_named(bench: Bench) -> None:
    unknown = bench.fresh("unknown")
    await refused(bench.provider.start_execution(unknown, {}), WorkflowNotFound, unknown)
    await refused(bench.provider.get_workflow(unknown), WorkflowNotFound, unknown)


@promise
async def delete_forgets_the_workflow_and_an_unknown_one_succeeds(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        await bench.provider.delete_workflow(workflow_id)
        await refused(bench.provider.start_execution(workflow_id, {}), WorkflowNotFound, workflow_id)
        await bench.provider.delete_workflow(workflow_id)
    await bench.provider.delete_workflow(bench.fresh("unknown"))


@promise
async def delete_names_running_executions_and_stops_them_by_force(bench: Bench) -> None:
    async with bench.workflow("asleep") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        error = await refused(bench.provider.delete_workflow(workflow_id), WorkflowInUse, started.execution_id)
        equal("execution_ids", error.execution_ids, (started.execution_id,))
        true("it was not deleted", await bench.provider.get_workflow(workflow_id))
        await bench.provider.delete_workflow(workflow_id, force=True)
        status = await bench.provider.get_execution_status(started.execution_id)
        equal("state", status.state, ExecutionState.STOPPED)


@promise
async def a_deleted_workflow_can_be_created_again(bench: Bench) -> None:
    async with bench.workflow("asleep") as workflow_id:
        await bench.provider.delete_workflow(workflow_id)
        again = await bench.provider.create_workflow(bench.spec("failing", workflow_id=workflow_id))
        equal("is_new", again.is_new, True)
        started = await bench.provider.start_execution(workflow_id, bench.marks_file())
        equal("output", (await bench.finished(started.execution_id)).output, "in the end")


# ---- executions ------------------------------------------------------------------------------------------------------------


@promise
async def start_answers_an_id_and_the_first_state(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {}, execution_name=bench.fresh())
        true("state", started.state in (ExecutionState.PENDING, ExecutionState.RUNNING))
        equal("is_new", started.is_new, True)
        equal("workflow_id", started.workflow_id, workflow_id)
        await bench.finished(started.execution_id)


@promise
async def the_same_name_is_the_same_execution(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        name, request = bench.fresh(), bench.marks_file()
        start = bench.provider.start_execution
        answers = await asyncio.gather(*(start(workflow_id, request, execution_name=name) for _ in range(10)))
        equal("new executions", sum(answer.is_new for answer in answers), 1)
        equal("ids", len({answer.execution_id for answer in answers}), 1)
        await bench.finished(answers[0].execution_id)
        late = await start(workflow_id, request, execution_name=name)
        equal("is_new", late.is_new, False)
        equal("state", late.state, ExecutionState.SUCCEEDED)
        equal("steps that ran", marks(request), ["first", "second"])


@promise
async def wrong_arguments_are_named(bench: Bench) -> None:
    start = bench.provider.start_execution
    async with bench.workflow("steps") as workflow_id:
        await refused(start(workflow_id, {}, execution_name="a b"), InvalidInput, "execution_name")
        await refused(start(workflow_id, {}, execution_name="x" * 129), InvalidInput, "execution_name")
        await refused(start(workflow_id, {1, 2}), InvalidInput, "input")
        await refused(start(workflow_id, {}, tags={"t": "x" * 129}), InvalidInput, "tags")
        await refused(start(workflow_id, {}, key="k"), InvalidInput, "key")


@promise
async def status_tells_input_output_and_history(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        request = bench.marks_file()
        before = datetime.now(UTC) - timedelta(seconds=5)
        started = await bench.provider.start_execution(
            workflow_id, request, tags={"team": "a"}, metadata={"config_hash": "1"}, trigger_source="controller"
        )
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.SUCCEEDED)
        equal("input", status.input, request)
        equal("output", status.output["marks"], ["first", "second"])
        equal("error", status.error, None)
        equal("tags", dict(status.tags), {"team": "a"})
        equal("metadata", status.metadata["config_hash"], "1")
        equal("trigger_source", status.trigger_source, "controller")
        true("start_time", status.start_time is not None and status.stop_time is not None)
        times = [before, status.created_at, status.start_time, status.stop_time]
        equal("times in order", times, sorted(time for time in times if time is not None))
        names = [event.name for event in status.history if event.name]
        true("steps in the history", {"first step", "second step"} <= set(names))
        stamps = [event.timestamp for event in status.history]
        equal("history in order", stamps, sorted(stamps))


@promise
async def status_tells_state_and_progress(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {"wait": True})
        status = await bench.until(started.execution_id, lambda each: each.progress == {"done": 1, "of": 2})
        equal("K/V state", dict(status.kv_state), {"progress": {"done": 1, "of": 2}})
        equal("state", status.state, ExecutionState.RUNNING)
        await bench.provider.signal(started.execution_id, "go", {})
        equal("progress", (await bench.finished(started.execution_id)).progress, {"done": 2, "of": 2})


@promise
async def a_reference_of_a_workflow_to_itself_reaches_itself(bench: Bench) -> None:
    async with bench.workflow("steps") as one, bench.workflow("steps") as two:
        for workflow_id in (one, two):
            name = bench.fresh()
            started = await bench.provider.start_execution(workflow_id, {}, execution_name=name)
            found = (await bench.finished(started.execution_id)).output["itself"]
            equal("itself", found, {"key": name, "progress": {"done": 2, "of": 2}})


@promise
async def a_failed_execution_has_its_error(bench: Bench) -> None:
    async with bench.workflow("failing") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {"code": 418})
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.FAILED)
        true("error", status.error)
        assert status.error is not None
        equal("error", (status.error.code, status.error.message), (418, "as it was told"))


@promise
async def attempts_are_repeated_as_the_retry_policy_says(bench: Bench) -> None:
    quick = RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=10), max_interval=timedelta(seconds=1))
    for policy, attempts, state in (
        (quick, 3, ExecutionState.SUCCEEDED),
        (replace(quick, max_attempts=0), 1, ExecutionState.FAILED),
    ):
        async with bench.workflow("failing", retry_policy=policy) as workflow_id:
            request = {**bench.marks_file(), "fail_times": 2}
            started = await bench.provider.start_execution(workflow_id, request)
            status = await bench.finished(started.execution_id)
            equal("state", status.state, state)
            equal("attempts", len(marks(request)), attempts)


@promise
async def an_unknown_execution_is_named(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        for unknown in (f"{workflow_id}.{bench.fresh()}", "nonsense"):
            await refused(bench.provider.get_execution_status(unknown), ExecutionNotFound, unknown)
            await refused(bench.provider.stop_execution(unknown, "x"), ExecutionNotFound, unknown)
            await refused(bench.provider.wait(unknown, timeout=1), ExecutionNotFound, unknown)


@promise
async def an_object_is_invoked_by_its_key(bench: Bench) -> None:
    async with bench.workflow("counter") as workflow_id:
        key = bench.fresh("key")
        for by, total in ((2, 2), (3, 5)):
            started = await bench.provider.start_execution(workflow_id, {"by": by}, key=key)
            equal("output", (await bench.finished(started.execution_id)).output, total)
        equal("K/V state", dict((await bench.finished(started.execution_id)).kv_state), {"count": 5})


# ---- ends ------------------------------------------------------------------------------------------------------------------


@promise
async def stop_ends_an_execution_and_keeps_the_reason(bench: Bench) -> None:
    async with bench.workflow("asleep") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, bench.marks_file())
        stopped = await bench.provider.stop_execution(started.execution_id, "no longer needed")
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.STOPPED)
        equal("reason", status.reason, "no longer needed")
        equal("the answer's state", stopped.state, ExecutionState.STOPPED)
        equal("steps after the stop", marks(status.input), [])


@promise
async def a_second_stop_changes_nothing(bench: Bench) -> None:
    async with bench.workflow("asleep") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        await bench.provider.stop_execution(started.execution_id, "the first")
        first = await bench.finished(started.execution_id)
        second = await bench.provider.stop_execution(started.execution_id, "the second")
        equal("reason", second.reason, "the first")
        equal("stop_time", second.stop_time, first.stop_time)
        equal("state", second.state, first.state)


@promise
async def stop_of_a_finished_execution_changes_nothing(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        first = await bench.finished(started.execution_id)
        second = await bench.provider.stop_execution(started.execution_id, "too late")
        equal("state", second.state, ExecutionState.SUCCEEDED)
        equal("stop_time", second.stop_time, first.stop_time)
        equal("reason", second.reason, "")


@promise
async def a_stopped_handler_may_clean_up(bench: Bench) -> None:
    async with bench.workflow("tidy") as workflow_id:
        request = bench.marks_file()
        started = await bench.provider.start_execution(workflow_id, request)
        await bench.until(started.execution_id, lambda each: each.start_time is not None)
        await bench.provider.stop_execution(started.execution_id, "enough")
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.STOPPED)
        equal("output", status.output, "tidied up")
        equal("clean-ups", marks(request), ["tidied"])


@promise
async def what_does_not_react_can_be_killed(bench: Bench) -> None:
    async with bench.workflow("stubborn") as workflow_id:
        started = await bench.provider.start_execution(workflow_id)
        await bench.until(started.execution_id, lambda each: each.start_time is not None)
        status = await bench.provider.stop_execution(
            started.execution_id, "by force", kill=True, grace=timedelta(milliseconds=200)
        )
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.STOPPED)
        equal("reason", status.reason, "by force")


@promise
async def a_time_limit_ends_an_execution(bench: Bench) -> None:
    async with bench.workflow("asleep", timeout=timedelta(seconds=1)) as workflow_id:
        request = {**bench.marks_file(), "seconds": 3600}
        started = await bench.provider.start_execution(workflow_id, request)
        status = await bench.finished(started.execution_id)
        equal("state", status.state, ExecutionState.TIMEOUT)
        true("error", status.error is not None and status.error.code == 408)
        assert status.stop_time is not None
        true("it was not ended early", status.stop_time - status.created_at >= timedelta(seconds=1))
        equal("steps after the limit", marks(request), [])


@promise
async def a_time_limit_that_is_not_reached_changes_nothing(bench: Bench) -> None:
    async with bench.workflow("steps", timeout=timedelta(hours=1)) as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        equal("state", (await bench.finished(started.execution_id)).state, ExecutionState.SUCCEEDED)


# ---- lists, waiting, signals -----------------------------------------------------------------------------------------------


@promise
async def executions_are_listed_by_workflow_state_and_time(bench: Bench) -> None:
    async with bench.workflow("failing") as one, bench.workflow("asleep") as two:
        failed = await bench.provider.start_execution(one, {"code": 400})
        status = await bench.finished(failed.execution_id)
        asleep = await bench.provider.start_execution(two, {})

        async def ids(**filters: Any) -> list[str]:
            return [each.execution_id for each in await bench.provider.list_executions(**filters)]

        equal("of a workflow", await ids(workflow_id=one), [failed.execution_id])
        equal("of another", await ids(workflow_id=two), [asleep.execution_id])
        equal("failed", await ids(workflow_id=one, states=["failed"]), [failed.execution_id])
        equal("succeeded", await ids(workflow_id=one, states=["succeeded"]), [])
        live = [ExecutionState.PENDING, ExecutionState.RUNNING]
        equal("live", await ids(workflow_id=two, states=live), [asleep.execution_id])
        later, earlier = (status.created_at + timedelta(milliseconds=change) for change in (1, -1))
        equal("accepted later", await ids(workflow_id=one, created_after=later), [])
        equal("accepted before", await ids(workflow_id=one, created_before=earlier), [])
        found = await ids(workflow_id=one, created_after=earlier, created_before=later)
        equal("accepted in between", found, [failed.execution_id])
        await refused(bench.provider.list_executions(states=["asleep"]), InvalidInput, "pending, running")
        await refused(bench.provider.list_executions(cursor="nonsense"), InvalidInput, "cursor")
        await refused(bench.provider.list_executions(limit=0), InvalidInput, "limit")


@promise
async def executions_are_listed_by_pages_newest_first(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = [await bench.provider.start_execution(workflow_id, {}) for _ in range(5)]
        found: list[ExecutionStatus] = []
        cursor: str | None = None
        while True:
            page = await bench.provider.list_executions(workflow_id=workflow_id, limit=2, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        equal("listed", sorted(each.execution_id for each in found), sorted(each.execution_id for each in started))
        times = [each.created_at for each in found]
        equal("order", times, sorted(times, reverse=True))
        for each in started:
            await bench.finished(each.execution_id)


@promise
async def wait_ends_in_time(bench: Bench) -> None:
    async with bench.workflow("asleep") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        await refused(bench.provider.wait(started.execution_id, timeout=0.2), WaitTimeout, started.execution_id)
        state = (await bench.provider.get_execution_status(started.execution_id)).state
        true("it goes on", not state.is_final)


@promise
async def watch_tells_each_change_until_the_end(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {"wait": True})
        states: list[ExecutionState] = []
        times: list[datetime] = []
        progress: list[Any] = []
        async for change in bench.provider.watch(started.execution_id):
            equal("from_state", change.from_state, states[-1] if states else None)
            states.append(change.to_state)
            times.append(change.at)
            progress.append(change.progress)
            if change.progress == {"done": 1, "of": 2} and change.sub_state != SubState.PAUSED:
                await bench.provider.signal(started.execution_id, "go", {})
        equal("last state", states[-1], ExecutionState.SUCCEEDED)
        true("it ran before", ExecutionState.RUNNING in states)
        true("progress was told", {"done": 1, "of": 2} in progress)
        true("times are told", all(at.tzinfo is not None for at in times))


@promise
async def a_signal_completes_a_promise_once(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {"wait": True})
        for number in (1, 2):
            try:
                await bench.provider.signal(started.execution_id, "go", {"number": number})
            except InvalidInput:
                true("only a finished execution refuses a signal", number == 2)
        status = await bench.finished(started.execution_id)
        equal("answer", status.output["answer"], {"number": 1})
        await refused(bench.provider.signal(started.execution_id, "go", {}), InvalidInput, "over")


@promise
async def a_signal_calls_a_shared_handler(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        name = bench.fresh()
        started = await bench.provider.start_execution(workflow_id, {"wait": True}, execution_name=name)
        await bench.until(started.execution_id, lambda each: each.progress == {"done": 1, "of": 2})
        answer = await bench.provider.signal(started.execution_id, "whoami")
        equal("answer", answer, {"key": name, "progress": {"done": 1, "of": 2}})


@promise
async def a_signal_reaches_a_plain_service(bench: Bench) -> None:
    async with bench.workflow("signalled") as workflow_id:
        started = await bench.provider.start_execution(workflow_id, {})
        await bench.until(started.execution_id, lambda each: each.start_time is not None)
        await bench.provider.signal(started.execution_id, "go", {"number": 1})
        equal("output", (await bench.finished(started.execution_id)).output, {"number": 1})


@promise
async def a_hundred_executions_at_once_run_once_each(bench: Bench) -> None:
    async with bench.workflow("steps") as workflow_id:
        requests: Sequence[dict[str, Any]] = [bench.marks_file() for _ in range(100)]
        started = await asyncio.gather(
            *(
                bench.provider.start_execution(workflow_id, request, execution_name=f"n{number}")
                for number, request in enumerate(requests)
                for _ in range(2)  # each one twice
            )
        )
        equal("new executions", sum(each.is_new for each in started), 100)
        ids = sorted({each.execution_id for each in started})
        equal("executions", len(ids), 100)
        ended = await asyncio.gather(*(bench.finished(each) for each in ids))
        equal("states", {each.state for each in ended}, {ExecutionState.SUCCEEDED})
        equal("steps", {tuple(marks(request)) for request in requests}, {("first", "second")})
