"""Limits that hold over all invocations and restarts: so many per time, and so many at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypedDict

from restate import Context, ObjectContext, ObjectSharedContext, TerminalError, VirtualObject, wait_completed

from holdfast.patterns.actions import terminal_error
from holdfast.patterns.context import read_state


class RateLimiter:
    """A virtual object that lets so many pass per time, for each key, with a burst at the start.

        api = RateLimiter("ApiRate", limit=100, per=timedelta(minutes=1))
        app = restate.app([scans, api.service])
        await api.wait(ctx, "example.com")      # in a handler: sleeps until it is this one's turn

    Use it to keep to another side's limit. Not for what needs an answer within a millisecond or two, each is a durable
    call; and not against overload of your own process, which the engine's limits are for. Waiting is done by the
    caller, never by the object, so that no key is ever blocked; in an exclusive handler of another object `wait` blocks
    that one's key. A caller that is cancelled while it waits has used its turn up.

    Handlers: `reserve()` takes the next turn and returns the milliseconds until it; `take()` takes a turn that is due
    now and returns 0, or else takes none and returns the milliseconds to wait before asking again.

    Args:
        name: Of the virtual object.
        limit, per: So many turns in that time, evenly.
        burst: So many may come at once after a quiet time; `limit` by default.
        wait_max: `reserve` refuses with code 429 a turn that is further away.
    Raises:
        ValueError: `limit`, `per` or `burst` is not positive.
    """

    def __init__(
        self,
        name: str = "RateLimiter",
        *,
        limit: int,
        per: timedelta,
        burst: int | None = None,
        wait_max: timedelta = timedelta(hours=1),
    ) -> None:
        per_ms = per.total_seconds() * 1000
        if limit < 1 or per_ms <= 0 or (burst is not None and burst < 1):
            raise ValueError("limit, per and burst must be positive")
        interval_ms = per_ms / limit
        burst_ms = interval_ms * (limit if burst is None else burst)
        wait_max_ms = wait_max.total_seconds() * 1000
        service = self.service = VirtualObject(name, description="Turns at a limited rate")

        async def turn(ctx: ObjectContext, allowed_ms: float) -> tuple[int, bool]:
            # The generic cell rate algorithm: one number says when all turns given so far would be used up.
            now_ms = await ctx.time() * 1000
            used_until_ms = max(await read_state(ctx, "used_until_ms") or 0.0, now_ms) + interval_ms
            delay_ms = max(0, round(used_until_ms - burst_ms - now_ms))
            if delay_ms > allowed_ms:
                return delay_ms, False
            ctx.set("used_until_ms", used_until_ms)
            return delay_ms, True

        @service.handler()
        async def reserve(ctx: ObjectContext) -> int:
            delay_ms, is_given = await turn(ctx, wait_max_ms)
            if not is_given:
                raise TerminalError(f"{name}/{ctx.key()}: the next turn is in {delay_ms} ms", status_code=429)
            return delay_ms

        @service.handler()
        async def take(ctx: ObjectContext) -> int:
            delay_ms, _ = await turn(ctx, 0)
            return delay_ms

        self.reserve, self.take = reserve, take

    async def wait(self, ctx: Context, key: str) -> None:
        """Take the next turn of `key` and sleep until it.

        Raises:
            TerminalError: 429, it is further away than `wait_max`; 409, this invocation was cancelled.
        """
        delay_ms = await ctx.object_call(self.reserve, key=key, arg=None)
        if delay_ms:
            await ctx.sleep(timedelta(milliseconds=delay_ms))


class SemaphoreStatus(TypedDict):
    held: int
    waiting: int


class Semaphore:
    """A virtual object with so many permits for each key; who finds none waits in a queue, first come, first served.

        scanners = Semaphore("Scanners", permits=4)
        app = restate.app([scans, scanners.service])
        async with scanners.hold(ctx, "nmap"):
            await ctx.run_typed("scan", scan, target)

    Use it where a bound must hold over many invocations; inside one `fan_out` has its own. Not around something short:
    a permit is three durable messages. Do not hold one permit while waiting for another: two that do this in different
    order wait for each other until a lease ends.

    A holder that crashes is retried and keeps its permit; one that is cancelled or fails gives it back; only one that
    was killed or purged does not, and for that there is the lease.

    Args:
        name: Of the virtual object.
        permits: So many at a time, per key.
        lease: After that a permit is free again, even if its holder still works. Longer than any work.
        waiting_max: More than that in the queue are refused with code 429, so that the state stays bounded.
    Raises:
        ValueError: `permits` is less than 1.
    """

    def __init__(
        self,
        name: str = "Semaphore",
        *,
        permits: int,
        lease: timedelta = timedelta(hours=1),
        waiting_max: int = 1000,
    ) -> None:
        if permits < 1:
            raise ValueError("permits must be at least 1")
        service = self.service = VirtualObject(name, description="Permits")

        @service.handler(ingress_private=True)
        async def acquire(ctx: ObjectContext, holder: str) -> None:
            """`holder`: an awakeable's id, which is resolved when the permit is there."""
            waiting = await _waiting(ctx)
            if len(waiting) >= waiting_max:
                ctx.reject_awakeable(holder, f"{name}/{ctx.key()}: {len(waiting)} are waiting already", 429)
                return
            await grant(ctx, await _held(ctx), [*waiting, holder])

        @service.handler(ingress_private=True)
        async def release(ctx: ObjectContext, holder: str) -> None:
            held = await _held(ctx)
            if expiry := held.pop(holder, ""):
                ctx.cancel_invocation(expiry)
            await grant(ctx, held, [one for one in await _waiting(ctx) if one != holder])

        @service.handler(ingress_private=True)
        async def expire(ctx: ObjectContext, holder: str) -> None:
            held = await _held(ctx)
            held.pop(holder, None)
            await grant(ctx, held, await _waiting(ctx))

        async def grant(ctx: ObjectContext, held: dict[str, str], waiting: list[str]) -> None:
            while waiting and len(held) < permits:
                holder = waiting.pop(0)
                ctx.resolve_awakeable(holder, True)
                expiry = ctx.object_send(expire, key=ctx.key(), arg=holder, send_delay=lease)
                held[holder] = await expiry.invocation_id()
            ctx.set("held", held)
            ctx.set("waiting", waiting)

        @service.handler(kind="shared")
        async def status(ctx: ObjectSharedContext) -> SemaphoreStatus:
            return SemaphoreStatus(held=len(await _held(ctx)), waiting=len(await _waiting(ctx)))

        self._acquire, self._release = acquire, release
        self.status = status

    @asynccontextmanager
    async def hold(self, ctx: Context, key: str) -> AsyncGenerator[None, None]:
        """Wait for a permit of `key` and keep it during the block.

        Raises:
            TerminalError: 429, too many are waiting; 409, this invocation was cancelled.
        """
        holder, permit = ctx.awakeable(type_hint=bool)
        ctx.object_send(self._acquire, key=key, arg=holder)
        try:
            await wait_completed(permit)
            await permit
            yield
        except Exception as error:
            # Whatever else comes out of here is retried, and goes on with the permit it has.
            if terminal_error(error) is not None:
                ctx.object_send(self._release, key=key, arg=holder)
            raise
        ctx.object_send(self._release, key=key, arg=holder)


async def _held(ctx: ObjectContext | ObjectSharedContext) -> dict[str, str]:
    """Holder -> the invocation that ends its lease."""
    return await read_state(ctx, "held") or {}


async def _waiting(ctx: ObjectContext | ObjectSharedContext) -> list[str]:
    return await read_state(ctx, "waiting") or []
