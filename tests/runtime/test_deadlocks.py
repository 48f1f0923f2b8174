"""Exclusive handlers that call each other in a circle get an error that says so, instead of waiting for ever."""

from __future__ import annotations

import restate

from holdfast import Engine
from holdfast.core.model import Completion

pair = restate.VirtualObject("Pair")


@pair.handler()
async def chain(ctx: restate.ObjectContext, keys: list[str]) -> str:
    """Call the first key with the rest of the list."""
    if not keys:
        return f"end at {ctx.key()}"
    return await ctx.object_call(chain, key=keys[0], arg=keys[1:])


@pair.handler()
async def survive(ctx: restate.ObjectContext) -> str:
    try:
        return await ctx.object_call(chain, key=ctx.key(), arg=[])
    except restate.TerminalError as error:
        return f"{error.status_code} {error.message}"


app = restate.app([pair])


async def completion(engine: Engine, key: str, handler: str, body: bytes) -> Completion:
    return (await engine.call(engine.services["Pair"].handlers[handler], key, body))[0]


async def test_a_circle_of_two_is_refused() -> None:
    async with Engine(app) as engine:
        done = await completion(engine, "a", "chain", b'["b", "a"]')
        assert done.failure is not None
        assert (done.failure.code, done.failure.message) == (
            409,
            "deadlock: Pair/a is held by a handler that waits for this call",
        )
        assert (await completion(engine, "a", "chain", b'["b"]')).value == b'"end at b"', "both keys are free again"


async def test_a_handler_may_catch_it() -> None:
    async with Engine(app) as engine:
        done = await completion(engine, "a", "survive", b"")
        assert done.value == b'"409 deadlock: Pair/a is held by a handler that waits for this call"'


async def test_a_long_chain_of_different_keys_is_none() -> None:
    async with Engine(app) as engine:
        assert (await completion(engine, "a", "chain", b'["b", "c", "d"]')).value == b'"end at d"'
