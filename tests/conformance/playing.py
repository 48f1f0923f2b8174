"""Play a program of the interpreter on an engine, and gather everything that is determined about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from tests.conformance import ledger
from tests.conformance.backends import Backend
from tests.conformance.drawing import Node
from tests.conformance.harness import Outcome, Run

PROGRAM_TIMEOUT_S = 15.0
LOOK_S = 0.004
"""Between two looks at the ledger."""


async def play_program(program: Node, backend: Backend) -> Outcome:
    """Start the program, do what it asks of the outside, wait until every invocation it made has ended.

    Returns:
        Answer of the root, results of all that were sent to or started, ledger, order and final state of each key.
    """
    run = Run(backend, "any")
    watcher = asyncio.create_task(_act(run, {op["n"]: op for op in _operations(program["body"]) if "outside" in op}))
    try:
        async with asyncio.timeout(PROGRAM_TIMEOUT_S):
            outcome = await _play(run, program)
        if watcher.done() and watcher.exception():
            raise watcher.exception() or AssertionError
        return run.normal(outcome)
    except Exception as error:  # noqa: BLE001 - what goes wrong is an outcome, to be compared like others
        ends = {what: sorted(values) for what, values in ledger.notes(run.test_id).items()}
        return f"{type(error).__name__}: {run.normal(str(error))}; ledger {run.entries()}; notes {ends}"
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await run.close()
        ledger.forget(run.test_id)


async def _play(run: Run, program: Node) -> Outcome:
    key = None if program["key"] is None else run.key(program["key"])
    target = f"{program['service']}/{program['handler']}"
    arguments: dict[str, Any] = {"node": program["node"], "body": program["body"], "env": {}}
    headers = {"idempotency-key": f"{run.test_id} root"} if program["via"] == "idempotent" else None
    body = {"t": run.test_id, **arguments}
    if program["via"] in ("send", "delayed"):
        delay = "15ms" if program["via"] == "delayed" else None
        answer = await run.attach(await run.send(target, key, body=body, delay=delay))
    else:
        answer = await run.call(target, key, body=body, headers=headers)
    results = await _results(run)
    # How often a point of failure is passed depends on how often the attempts are suspended.
    entries = [entry for entry in run.entries() if not entry.startswith("crash")]
    return {
        "answer": answer,
        "results": results,
        "ledger": {entry: entries.count(entry) for entry in sorted(set(entries))},
        "order": _order(entries),
        "attempts agree": {what: len(values) for what, values in ledger.notes(run.test_id).items()},
        "state": {f"{service}/{name}": await _state(run, service, name) for service, name in _keyed(program)},
        "commands": await _commands(run),
    }


async def _results(run: Run) -> dict[str, Outcome]:
    """Attach to every invocation that was noted, and to those which these have noted, until there are no more."""
    results: dict[str, Outcome] = {}
    while missing := {what: ids for what, ids in _ids(run).items() if what not in results}:
        answers = await asyncio.gather(*(run.attach(one) for one in missing.values()))
        results |= dict(zip(missing, answers, strict=True))
    return dict(sorted(results.items()))


def _ids(run: Run) -> dict[str, str]:
    """Node -> invocation id."""
    notes = ledger.notes(run.test_id)
    return {what.removeprefix("id "): min(ids) for what, ids in notes.items() if what.startswith("id ")}


def _order(entries: list[str]) -> dict[str, list[str]]:
    """Key -> who entered, in order."""
    order: dict[str, list[str]] = {}
    for entry in entries:
        word, *rest = entry.split(" ")
        if word == "enter":
            order.setdefault(rest[0], []).append(rest[1])
    return order


async def _state(run: Run, service: str, key: str) -> Outcome:
    return await run.call(f"{service}/state", run.key(key), body=None)


async def _commands(run: Run) -> dict[str, list[str]]:
    """The commands in the journal of every invocation, by node: what the code did, as the engine has it."""
    ids = _ids(run)
    journals = await run.backend.commands(list(ids.values()))
    return {node: journals.get(invocation_id, []) for node, invocation_id in ids.items()}


# --- the outside ------------------------------------------------------------------------------------------------------


async def _act(run: Run, wanted: dict[str, dict[str, Any]]) -> None:
    """Do for each awakeable what the program says, as soon as it has been noted."""
    while wanted:
        notes = ledger.notes(run.test_id)
        for n in [n for n in wanted if f"outside {n}" in notes]:
            invocation_id, awakeable = min(notes[f"outside {n}"]).split(" ")
            await _do(run, wanted.pop(n), invocation_id, awakeable)
        await asyncio.sleep(LOOK_S)


async def _do(run: Run, op: dict[str, Any], invocation_id: str, awakeable: str) -> None:
    if op.get("pause"):
        await _pause_and_resume(run, invocation_id)
    match op["outside"]:
        case "resolve":
            await run.resolve(awakeable, op["value"])
        case "reject":
            await run.reject(awakeable, op["value"])
        case operation:
            await run.operate(operation, invocation_id)
    if op.get("again"):
        await run.resolve(awakeable, "too late")


async def _pause_and_resume(run: Run, invocation_id: str) -> None:
    if await run.operate("pause", invocation_id) == 202:
        # A server forgets the pause when the attempt suspends by itself at the same moment.
        await run.status(invocation_id, "paused", "suspended", "completed")
        await run.operate("resume", invocation_id)


def _operations(body: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every operation of a body and of the bodies inside."""
    for op in body:
        yield op
        if "branch" in op:
            yield from _operations([op["branch"]])
        for name in ("body", "catch", "of"):
            yield from _operations(op.get(name, []))
        for place in (op, op.get("by", {})):
            if "node" in place:
                yield from _operations(place["node"]["body"])


def _keyed(program: Node) -> list[tuple[str, str]]:
    """(service, key) of every object and workflow in the program."""
    places = (place for op in _operations(program["body"]) for place in (op, op.get("by", {})))
    nodes = [program, *(place["node"] for place in places if "node" in place)]
    return sorted({(node["service"], node["key"]) for node in nodes if node["key"] is not None})
