"""Bounded log: the newest entries at hand, the older ones in archive chunks, and no state that grows without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from restate import ObjectContext, ObjectSharedContext, RunOptions, TerminalError, VirtualObject

from holdfast.patterns.actions import called
from holdfast.patterns.context import read_state


class LogStatus(TypedDict):
    """Indices count the entries of a key from 0 and never change."""

    first: int
    """Index of the oldest entry that is at hand; all before it are archived."""
    next: int
    """Index of the entry that comes next, which is how many there were."""
    chunks: int
    """Archive chunks 0 up to, not including, this one are there."""


class BoundedLog:
    """A virtual object with a log per key, of which the newest `keep` entries stay at hand.

        sightings = BoundedLog("Sightings", keep=1000, chunk=100)
        app = restate.app([scans, sightings.service, sightings.archive])
        ctx.object_send(sightings.append, key="CVE-2025-1234", arg={"seen": "192.0.2.1"})

    Use it for histories of an object: updates, sightings, an audit. Not as a queue, nothing is ever taken out; not for
    entries larger than some kilobytes; and not where entries must be searched, which is what databases are for.

    When there are `keep + chunk` entries the oldest `chunk` of them move, as one value, into an object of their own
    with the key `<key>:<number>`. So each value and each journal stays bounded, however long the log becomes.

    Handlers: `append(entry)` returns the entry's index; shared `recent(count)` the newest entries, oldest of them
    first; shared `status()` a `LogStatus`; and of the archive, whose service is `<name>Archive`, shared `get()` the
    entries of a chunk.

    Args:
        name: Of the virtual object.
        keep: So many entries at least stay at hand, and fewer than `keep + chunk`.
        chunk: So many are archived together.
        write_chunk, read_chunk: Both or none: where chunks go instead of the archive's state, such as a database.
            `write_chunk("<key>:<number>", entries)` is a durable step, which may run again when the process dies in the
            middle of it; `read_chunk("<key>:<number>")` returns the entries, or None.
    Raises:
        ValueError: `keep` or `chunk` is less than 1, or only one of `write_chunk` and `read_chunk` is given.
    """

    def __init__(
        self,
        name: str,
        *,
        keep: int = 1000,
        chunk: int = 100,
        write_chunk: Callable[[str, list[Any]], Any] | None = None,
        read_chunk: Callable[[str], Any] | None = None,
    ) -> None:
        if keep < 1 or chunk < 1:
            raise ValueError("keep and chunk must be at least 1")
        if (write_chunk is None) != (read_chunk is None):
            raise ValueError("write_chunk and read_chunk go together")
        archive = self.archive = VirtualObject(f"{name}Archive", description=f"Older entries of {name}")
        # Lazy: an append needs two of the hundreds of values.
        service = self.service = VirtualObject(name, description="A bounded log", state_preload=False)

        @archive.handler(ingress_private=True)
        async def store(ctx: ObjectContext, entries: list[Any]) -> None:
            if write_chunk is None:
                ctx.set("entries", entries)
                return
            key, write = ctx.key(), write_chunk

            async def step() -> None:
                await called(write, key, entries)

            await ctx.run_typed("write chunk", step)

        @archive.handler(kind="shared")
        async def get(ctx: ObjectSharedContext) -> list[Any]:
            if read_chunk is None:
                entries = await read_state(ctx, "entries")
            else:
                key, read = ctx.key(), read_chunk

                async def step() -> Any:
                    return await called(read, key)

                entries = await ctx.run_typed("read chunk", step, RunOptions[Any]())
            if entries is None:
                raise TerminalError(f"there is no chunk {ctx.key()}", status_code=404)
            return entries

        @service.handler()
        async def append(ctx: ObjectContext, entry: Any) -> int:
            log = await _log(ctx)
            index = log["next"]
            ctx.set(_name(index), entry)
            log["next"] += 1
            if log["next"] - log["first"] >= keep + chunk:
                oldest = range(log["first"], log["first"] + chunk)
                entries = [await read_state(ctx, _name(one)) for one in oldest]
                ctx.object_send(store, key=f"{ctx.key()}:{log['chunks']}", arg=entries)
                for one in oldest:
                    ctx.clear(_name(one))
                log["first"] += chunk
                log["chunks"] += 1
            ctx.set("log", log)
            return index

        @service.handler(kind="shared", state_preload=True)
        async def recent(ctx: ObjectSharedContext, count: int) -> list[Any]:
            log = await _log(ctx)
            return [await read_state(ctx, _name(index)) for index in _last(log, count)]

        @service.handler(kind="shared")
        async def status(ctx: ObjectSharedContext) -> LogStatus:
            return await _log(ctx)

        self.append, self.recent, self.status = append, recent, status
        self.get_chunk = get


async def _log(ctx: ObjectContext | ObjectSharedContext) -> LogStatus:
    log = await read_state(ctx, "log")
    return LogStatus(first=0, next=0, chunks=0) if log is None else LogStatus(**log)


def _last(log: LogStatus, count: Any) -> range:
    """Indices of the newest entries at hand. A `count` that came over HTTP may be anything.

    Raises:
        TerminalError: 400.
    """
    if type(count) is not int:
        raise TerminalError("give the number of entries, a whole number", status_code=400)
    return range(max(log["first"], log["next"] - max(0, count)), log["next"])


def _name(index: int) -> str:
    return f"entry-{index}"
