"""Services whose handlers execute a program that arrives as their input: JSON, a list of operations.

    {"t": "<test id>", "node": "n1", "body": [{"o": "step", "n": "2", "value": 7}, {"o": "sleep", "ms": 5}], "env": {}}

The handler returns one result for each operation that has one. What an operation means is one function below, in
`_OPERATIONS`; `generated/programs.py` draws programs of them. Nothing here depends on which engine it runs on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import restate
from restate import RunOptions, Service, TerminalError, VirtualObject, Workflow, as_completed, gather, select
from restate.asyncio import wait_completed
from restate.exceptions import RetryableError
from restate.handler import handler_from_callable

from tests.conformance import ledger
from tests.conformance.programs.common import RETRY, ms

Program = dict[str, Any]
Operation = dict[str, Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "Brief": {"inactivity_timeout": ms(50)},
    # Request and response: every wait is a suspension. State is asked for instead of sent along.
    "Plain": {"inactivity_timeout": ms(0), "enable_lazy_state": True},
}
"""Suffix of the service's name -> its settings. Each call of a program picks one."""

FOREVER_MS = 3_600_000


@dataclass(slots=True)
class Frame:
    """One invocation at work."""

    ctx: Any
    t: str
    node: str
    env: dict[str, Any]
    """Ids that other operations need: of awakeables and invocations, by the number of the operation that made them."""
    out: list[Any] = field(default_factory=list[Any])
    futures: dict[str, Any] = field(default_factory=dict[str, Any])

    def note(self, what: str, value: str) -> None:
        """Tell the test an id, or whatever else must be the same in every attempt."""
        ledger.note(self.t, what, value)


async def interpret(ctx: Any, program: Program) -> list[Any]:
    frame = Frame(ctx, program["t"], program["node"], dict(program["env"]))
    frame.note(f"id {frame.node}", ctx.request().id)
    await _body(frame, program["body"])
    return frame.out


async def _body(frame: Frame, body: list[Operation]) -> None:
    for op in body:
        await _OPERATIONS[op["o"]](frame, op)


def _error(error: TerminalError) -> list[Any]:
    return [error.status_code, error.message, error.metadata or {}]


# --- steps and failures -------------------------------------------------------------------------------------------


def _run(frame: Frame, op: Operation) -> Any:
    """The future of a step: records itself, fails `fails` times, then returns `value` or fails for good."""
    t, name = frame.t, f"step {op['n']}"

    def work() -> Any:
        ledger.fail_first(t, name, op.get("fails", 0))
        if "terminal" in op:
            code, message, metadata = op["terminal"]
            raise TerminalError(message, status_code=code, metadata=metadata)
        return op.get("value")

    async def work_async() -> Any:
        return work()

    options: RunOptions[Any] = RunOptions()
    if "max" in op:
        options = RunOptions(
            max_attempts=op["max"], initial_retry_interval=ms(3), retry_interval_factor=1.0, max_retry_interval=ms(5)
        )
    return frame.ctx.run_typed(op.get("name", name), work_async if op.get("is_async") else work, options)


async def _step(frame: Frame, op: Operation) -> None:
    frame.out.append(await _run(frame, op))


async def _crash(frame: Frame, op: Operation) -> None:
    """The attempt fails here the first times; the next one replays."""
    if op.get("after_ms") is None:
        ledger.fail_first(frame.t, f"crash {op['n']}", op["times"])
    elif ledger.record(frame.t, f"crash {op['n']}") <= op["times"]:
        raise RetryableError("later", retry_after=ms(op["after_ms"]))


async def _fail(frame: Frame, op: Operation) -> None:
    raise TerminalError(op["message"], status_code=op["code"], metadata=op.get("metadata"))


async def _try(frame: Frame, op: Operation) -> None:
    try:
        await _body(frame, op["body"])
        frame.out.append("no error")
    except TerminalError as error:
        frame.out.append(_error(error))
        await _body(frame, op["catch"])


async def _sleep(frame: Frame, op: Operation) -> None:
    await frame.ctx.sleep(ms(op["ms"]))


async def _random(frame: Frame, op: Operation) -> None:
    """Every attempt must draw the same."""
    ctx = frame.ctx
    frame.note(f"random {op['n']}", f"{ctx.random().randint(0, 10**9)} {ctx.uuid()}")
    frame.out.append(isinstance(await ctx.time(), float))


# --- state ----------------------------------------------------------------------------------------------------------


async def _get(frame: Frame, op: Operation) -> None:
    frame.out.append(await frame.ctx.get(op["key"]))


async def _set(frame: Frame, op: Operation) -> None:
    frame.ctx.set(op["key"], op["value"])


async def _clear(frame: Frame, op: Operation) -> None:
    frame.ctx.clear(op["key"])


async def _clear_all(frame: Frame, op: Operation) -> None:
    frame.ctx.clear_all()


async def _keys(frame: Frame, op: Operation) -> None:
    frame.out.append(sorted(await frame.ctx.state_keys()))


async def _dump(frame: Frame, op: Operation) -> None:
    frame.out.append({name: await frame.ctx.get(name) for name in sorted(await frame.ctx.state_keys())})


# --- other invocations ------------------------------------------------------------------------------------------------


def _request(frame: Frame, node: Program) -> dict[str, Any]:
    return {"t": frame.t, "node": node["node"], "body": node["body"], "env": frame.env}


def _address(frame: Frame, node: Program) -> tuple[str, str | None]:
    return node["service"], None if node["key"] is None else f"{frame.t}~{node['key']}"


def _call(frame: Frame, op: Operation) -> Any:
    """The future of a call. `idempotency` is a name within the test."""
    node = op["node"]
    service, key = _address(frame, node)
    idempotency = f"{frame.t} {op['idempotency']}" if "idempotency" in op else None
    if op.get("is_typed"):
        arguments: dict[str, Any] = {"arg": _request(frame, node), "idempotency_key": idempotency}
        handler = HANDLERS[service, node["handler"]]
        if key is None:
            return frame.ctx.service_call(handler, **arguments)
        kind = frame.ctx.workflow_call if isinstance(SERVICES[service], Workflow) else frame.ctx.object_call
        return kind(handler, key=key, **arguments)
    body = json.dumps(_request(frame, node)).encode()
    return frame.ctx.generic_call(service, node["handler"], body, key=key, idempotency_key=idempotency)


def _result(value: Any) -> Any:
    """What a future of a call gives: bytes when the call was generic."""
    return json.loads(value) if isinstance(value, bytes) and value else value


async def _call_now(frame: Frame, op: Operation) -> None:
    frame.out.append(_result(await _call(frame, op)))


async def _call_twice(frame: Frame, op: Operation) -> None:
    """Two calls with one idempotency key, at the same time: one child, and both get its result."""
    first, second = _call(frame, op), _call(frame, op)
    same = await first.invocation_id() == await second.invocation_id()
    frame.out.append([same, _result(await first), _result(await second)])


async def _send(frame: Frame, op: Operation) -> None:
    node = op["node"]
    service, key = _address(frame, node)
    handle = frame.ctx.generic_send(
        service,
        node["handler"],
        json.dumps(_request(frame, node)).encode(),
        key=key,
        send_delay=ms(op["delay_ms"]) if "delay_ms" in op else None,
        idempotency_key=f"{frame.t} {op['idempotency']}" if "idempotency" in op else None,
    )
    frame.env[op["n"]] = invocation_id = await handle.invocation_id()
    frame.note(f"id {node['node']}", invocation_id)
    if op.get("is_cancelled"):
        frame.ctx.cancel_invocation(invocation_id)


async def _attach(frame: Frame, op: Operation) -> None:
    frame.out.append(await frame.ctx.attach_invocation(frame.env[op["to"]]))


async def _signal(frame: Frame, op: Operation) -> None:
    """Named signals to an invocation that was sent before."""
    for name, value in op["signals"]:
        if isinstance(value, dict) and "reject" in value:
            frame.ctx.reject_signal(frame.env[op["to"]], name, *value["reject"])
        else:
            frame.ctx.resolve_signal(frame.env[op["to"]], name, value)


async def _await_signal(frame: Frame, op: Operation) -> None:
    frame.out.append(await frame.ctx.signal(op["name"]))


async def _cancel_call(frame: Frame, op: Operation) -> None:
    """Cancel a called child that waits for ever."""
    future = _call(frame, op)
    frame.note(f"id {op['node']['node']}", await future.invocation_id())
    await future.cancel_invocation()
    frame.out.append(_result(await future))


# --- awakeables, promises, and what the test does from outside ----------------------------------------------------------


async def _awakeable(frame: Frame, op: Operation) -> None:
    """Completed by a child that is sent to, or by the test."""
    name, future = frame.ctx.awakeable()
    if "by" in op:
        frame.env[op["n"]] = name
        await _send(frame, op["by"])
    else:
        # All commands before are durable with it: a kill must not come in between.
        await frame.ctx.run_typed("flush", lambda: None)
        frame.note(f"outside {op['n']}", f"{frame.ctx.request().id} {name}")
    frame.out.append(await future)


async def _complete(frame: Frame, op: Operation) -> None:
    """Complete the awakeable of an ancestor."""
    awakeable = frame.env[op["to"]]
    if "reject" in op:
        frame.ctx.reject_awakeable(awakeable, *op["reject"])
    else:
        frame.ctx.resolve_awakeable(awakeable, op["value"])


async def _promise(frame: Frame, op: Operation) -> None:
    promise = frame.ctx.promise(op["name"])
    match op["do"]:
        case "get":
            frame.out.append(await promise.value())
        case "peek":
            frame.out.append(await promise.peek())
        case "resolve":
            await promise.resolve(op["value"])
        case "reject":
            await promise.reject(*op["error"])


# --- futures --------------------------------------------------------------------------------------------------------------


def _branch(frame: Frame, op: Operation) -> Any:
    """A future that is not awaited yet."""
    match op["o"]:
        case "step":
            return _run(frame, op)
        case "sleep":
            return frame.ctx.sleep(ms(op["ms"]))
        case "call":
            return _call(frame, op)
        case "awakeable":
            name, future = frame.ctx.awakeable()
            frame.note(f"outside {op['n']}", f"{frame.ctx.request().id} {name}")
            return future
        case "never":
            return {
                "awakeable": lambda: frame.ctx.awakeable()[1],
                "sleep": lambda: frame.ctx.sleep(ms(FOREVER_MS)),
                "signal": lambda: frame.ctx.signal("never"),
            }[op["as"]]()
        case other:
            raise TerminalError(f"no branch {other}")


async def _settled(future: Any) -> Any:
    try:
        return ["ok", _result(await future)]
    except TerminalError as error:
        return ["error", *_error(error)]


async def _never(frame: Frame, op: Operation) -> None:
    await _branch(frame, op)


async def _start(frame: Frame, op: Operation) -> None:
    frame.futures[op["f"]] = future = _branch(frame, op["branch"])
    if op["branch"]["o"] == "call":
        frame.note(f"id {op['branch']['node']['node']}", await future.invocation_id())


async def _join(frame: Frame, op: Operation) -> None:
    frame.out.append(_result(await frame.futures.pop(op["f"])))


async def _gather(frame: Frame, op: Operation) -> None:
    futures = [_branch(frame, branch) for branch in op["of"]]
    await gather(*futures)
    frame.out.append([await _settled(future) for future in futures])


async def _as_completed(frame: Frame, op: Operation) -> None:
    """The order is for chance to decide; the results are not."""
    futures = [_branch(frame, branch) for branch in op["of"]]
    places = {id(future): place for place, future in enumerate(futures)}
    results: dict[int, Any] = {}
    async for future in as_completed(*futures):
        place = places[id(future)]
        results[place] = await _settled(future)
    frame.out.append([results[place] for place in sorted(results)])


async def _select(frame: Frame, op: Operation) -> None:
    """One branch completes, the others never do."""
    futures = {f"b{place}": _branch(frame, branch) for place, branch in enumerate(op["of"])}
    try:
        winner, value = await select(**futures)
        frame.out.append([winner, _result(value)])
    except TerminalError as error:
        frame.out.append(_error(error))


async def _wait_completed(frame: Frame, op: Operation) -> None:
    futures = [_branch(frame, branch) for branch in op["of"]]
    done, pending = await wait_completed(*futures)
    frame.out.append([[futures.index(one) for one in done], [futures.index(one) for one in pending]])


_OPERATIONS: dict[str, Callable[[Frame, Operation], Awaitable[None]]] = {
    "step": _step,
    "crash": _crash,
    "fail": _fail,
    "try": _try,
    "sleep": _sleep,
    "random": _random,
    "get": _get,
    "set": _set,
    "clear": _clear,
    "clear_all": _clear_all,
    "keys": _keys,
    "dump": _dump,
    "call": _call_now,
    "call_twice": _call_twice,
    "send": _send,
    "attach": _attach,
    "signal": _signal,
    "await_signal": _await_signal,
    "cancel_call": _cancel_call,
    "awakeable": _awakeable,
    "complete": _complete,
    "promise": _promise,
    "never": _never,
    "start": _start,
    "join": _join,
    "gather": _gather,
    "as_completed": _as_completed,
    "select": _select,
    "wait_completed": _wait_completed,
}


# --- the services ---------------------------------------------------------------------------------------------------------


def _services(suffix: str, settings: dict[str, Any]) -> list[Any]:
    plain = Service(f"Interp{suffix}", invocation_retry_policy=RETRY, **_without_state(settings))
    keyed = VirtualObject(f"InterpObject{suffix}", invocation_retry_policy=RETRY, **settings)
    flow = Workflow(f"InterpFlow{suffix}", invocation_retry_policy=RETRY, **settings)

    @plain.handler(name="run")
    async def run(ctx: restate.Context, program: Program) -> list[Any]:
        return await interpret(ctx, program)

    @keyed.handler(name="run")
    async def enter(ctx: restate.ObjectContext, program: Program) -> list[Any]:
        """Exclusive: the ledger holds the order of the key."""
        ledger.record_once(program["t"], f"enter {ctx.key().partition('~')[2]} {program['node']}")
        return await interpret(ctx, program)

    @keyed.handler(name="look", kind="shared")
    async def look(ctx: restate.ObjectSharedContext, program: Program) -> list[Any]:
        return await interpret(ctx, program)

    @keyed.handler(name="state", kind="shared")
    async def state(ctx: restate.ObjectSharedContext) -> dict[str, Any]:
        return {name: await ctx.get(name) for name in sorted(await ctx.state_keys())}

    @flow.main(name="run")
    async def main(ctx: restate.WorkflowContext, program: Program) -> list[Any]:
        return await interpret(ctx, program)

    @flow.handler(name="tell")
    async def tell(ctx: restate.WorkflowSharedContext, program: Program) -> list[Any]:
        return await interpret(ctx, program)

    @flow.handler(name="state")
    async def flow_state(ctx: restate.WorkflowSharedContext) -> dict[str, Any]:
        return {name: await ctx.get(name) for name in sorted(await ctx.state_keys())}

    for service, *handlers in ((plain, run), (keyed, enter, look, state), (flow, main, tell, flow_state)):
        for handler in handlers:
            HANDLERS[service.name, handler_from_callable(handler).name] = handler
    return [plain, keyed, flow]


def _without_state(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "enable_lazy_state"}


HANDLERS: dict[tuple[str, str], Any] = {}
"""(service, handler) -> what `ctx.service_call` and its like take."""
SERVICES: dict[str, Any] = {
    service.name: service for suffix, settings in VARIANTS.items() for service in _services(suffix, settings)
}


def interpreter() -> Any:
    """The ASGI application with every variant of the three services."""
    return restate.app(list(SERVICES.values()))
