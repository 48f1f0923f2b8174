"""Small scenarios that use every command of the protocol, each with an outcome that no crash may change.

A scenario asks again for whatever was not answered, as a client with idempotency keys does. What depends on time or on
the number of executions is left out of its outcome, and judged by the ledger instead.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.errors import EngineError, HoldfastError
from tests.simulation.machine import Machine
from tests.simulation.program import Entry

Scenario = Callable[[Machine], Awaitable[Any]]

_EXECUTION = re.compile(r"#\d+")


def _plain(value: Any) -> Any:
    """Without the numbers of executions."""
    return json.loads(_EXECUTION.sub("", json.dumps(value)))


async def _call(machine: Machine, path: str, body: Any = None, key: str = "once") -> Any:
    got = await machine.persist("POST", path, body, idempotency_key=key)
    assert got.status == 200, got
    return _plain(json.loads(got.body)) if got.body else None


async def _send(machine: Machine, path: str, body: Any, key: str = "once") -> str:
    got = await machine.persist("POST", path, body, idempotency_key=key)
    assert got.status == 202, got
    return got.headers["x-restate-id"]


async def _attach(machine: Machine, invocation_id: str) -> Any:
    got = await machine.persist("GET", f"/restate/invocation/{invocation_id}/attach")
    return [got.status, _plain(json.loads(got.body)) if got.body else None]


async def _noted(machine: Machine, what: str, u: str) -> Entry:
    while True:
        for entry in machine.ledger:
            if (entry.what, entry.u) == (what, u):
                return entry
        await asyncio.sleep(0.01)


async def _operate(machine: Machine, operation: Callable[[Any], Awaitable[Any]]) -> None:
    """Repeat an operator's request until it is answered; one that was done before its answer was lost is refused."""
    while True:
        await machine.up.wait()
        try:
            await operation(machine.engine)
            return
        except EngineError:
            await asyncio.sleep(0.05)
        except HoldfastError:
            return


def call(path: str, **body: Any) -> Scenario:
    async def scenario(machine: Machine) -> Any:
        return await _call(machine, path, {"u": "u", **body})

    return scenario


async def nap(machine: Machine) -> bool:
    asleep_ms, awake_ms = await _call(machine, "/Flow/nap", {"u": "u", "ms": 300})
    return awake_ms - asleep_ms >= 300


async def race(machine: Machine) -> bool:
    winner, recorded = await _call(machine, "/Flow/race", {"u": "u", "ms": 100})
    return winner == recorded


async def awakeable(machine: Machine) -> Any:
    waiting = asyncio.ensure_future(_call(machine, "/Flow/wait", {"u": "u"}))
    awakeable_id = (await _noted(machine, "awakeable", "u")).detail
    await machine.persist("POST", f"/restate/awakeables/{awakeable_id}/resolve", "first")
    await machine.persist("POST", f"/restate/awakeables/{awakeable_id}/reject", "second")
    return await waiting


async def awakeable_from_handler(machine: Machine) -> Any:
    waiting = asyncio.ensure_future(_call(machine, "/Flow/wait", {"u": "u"}))
    awakeable_id = (await _noted(machine, "awakeable", "u")).detail
    answered = await _call(machine, "/Flow/answer", {"awakeable": awakeable_id, "value": "first"}, "answer")
    return [answered, await waiting]


async def delayed(machine: Machine) -> Any:
    invocation_id = await _send(machine, "/Flow/steps/send?delay=300ms", {"u": "u", "n": 2})
    return await _attach(machine, invocation_id)


async def queue(machine: Machine) -> Any:
    """Increments of one key, each accepted before the next is sent."""
    ids = [
        await _send(machine, "/Counter/k/add/send", {"u": u, "pause_ms": 100 * (u == "b")}, u) for u in ("a", "b", "c")
    ]
    return [await _attach(machine, one) for one in ids]


async def workflow(machine: Machine) -> Any:
    sent = await machine.persist("POST", "/Approval/w/run/send", {"u": "u"})
    watching = asyncio.ensure_future(_call(machine, "/Approval/w/watch", None, "watch"))
    first = await _call(machine, "/Approval/w/decide", "yes", "one")
    second = await _call(machine, "/Approval/w/decide", "no", "two")
    watched = await watching
    return [sent.status, first, second, watched[1:], await _attach(machine, sent.headers["x-restate-id"])]


async def cancelled_tree(machine: Machine) -> Any:
    root = await _send(machine, "/Flow/tree/send", {"u": "u", "depth": 1})
    leaf = (await _noted(machine, "node", "u.1")).detail
    await _operate(machine, lambda engine: engine.cancel(root))
    return [(await _attach(machine, one))[0] for one in (root, leaf)]


async def killed_tree(machine: Machine) -> Any:
    root = await _send(machine, "/Flow/tree/send", {"u": "u", "depth": 1})
    leaf = (await _noted(machine, "node", "u.1")).detail
    await _operate(machine, lambda engine: engine.kill(root))
    return [(await _attach(machine, one))[0] for one in (root, leaf)]


async def paused(machine: Machine) -> Any:
    root = await _send(machine, "/Flow/steps/send", {"u": "u", "n": 3})
    await _operate(machine, lambda engine: engine.pause(root))
    result = asyncio.ensure_future(_attach(machine, root))
    while not result.done():
        await _operate(machine, lambda engine: engine.resume(root))
        await asyncio.sleep(0.05)
    return await result


async def edited_state(machine: Machine) -> Any:
    """An operator's edit waits in the queue of its key."""
    first = await _send(machine, "/Counter/edited/add/send", {"u": "a", "pause_ms": 200}, "a")
    await _operate(
        machine, lambda engine: engine.mutate_state("Counter", "edited", {"count": b"41", "log": b'["edit"]'})
    )
    await _attach(machine, first)
    return await _call(machine, "/Counter/edited/add", {"u": "b"}, "b")


CATALOGUE: dict[str, Scenario] = {
    "steps": call("/Flow/steps", n=4),
    "steps at once": call("/Flow/parallel"),
    "calls": call("/Flow/parent"),
    "sleep": nap,
    "race": race,
    "awakeable": awakeable,
    "awakeable from a handler": awakeable_from_handler,
    "named signals": call("/Flow/talk"),
    "sends": call("/Flow/post", ms=200),
    "delayed send": delayed,
    "calls of objects": call("/Flow/chain", keys=["x", "y"]),
    "queue of a key": queue,
    "lazy state": call("/Store/k/use"),
    "eager state": call("/EagerStore/k/use"),
    "workflow": workflow,
    "cancel by a handler": call("/Flow/ends_child"),
    "cancel by an operator": cancelled_tree,
    "kill": killed_tree,
    "pause and resume": paused,
    "edit of state": edited_state,
}
