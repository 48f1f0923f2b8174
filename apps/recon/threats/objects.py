"""Virtual objects: one per threat, one per contributor. One writer at a time per key, any number of readers beside it.

What they hold is bounded (see `model.py`); what happened goes to a `BoundedLog` beside each, and from there, when it
gets long, to the database.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import msgspec
from restate import Context, ObjectContext, ObjectSharedContext, RunOptions, TerminalError, VirtualObject

from apps.recon.threats import model
from apps.recon.threats.model import Contributor, Credit, Penalty, Sighting, ThreatAnswer, ThreatEvent, ThreatRecord
from apps.recon.threats.store import ThreatStore
from holdfast.patterns import BoundedLog

T = TypeVar("T")

HISTORY_SHOWN = 20
HISTORY_SHOWN_MAX = 1000

_VALID_ID = msgspec.defstruct("_VALID_ID", [("threat_id", model.ThreatId)])


def history(name: str, store: ThreatStore, *, keep: int, chunk: int) -> BoundedLog:
    """A log whose older chunks go to the database."""
    return BoundedLog(
        name,
        keep=keep,
        chunk=chunk,
        write_chunk=partial(store.write_chunk, name),
        read_chunk=partial(store.read_chunk, name),
    )


class Threats:
    """`ThreatIntelligence`: `record(Sighting)`, `retract(source)`, and beside them `get(entries of history)`.

    `record` and `retract` answer the record as it then is. The same source again changes nothing, and neither does
    taking back what was never recorded: so both can be repeated, and a saga can undo half of a list.
    """

    def __init__(self, store: ThreatStore, *, keep: int = model.HISTORY_KEEP, chunk: int = model.HISTORY_CHUNK) -> None:
        log = self.history = history("ThreatHistory", store, keep=keep, chunk=chunk)
        service = self.service = VirtualObject("ThreatIntelligence", description="What is known of one threat.")

        async def keep_record(ctx: ObjectContext, record: ThreatRecord, event: ThreatEvent) -> ThreatRecord:
            ctx.set("threat", msgspec.to_builtins(record))
            ctx.object_send(log.append, key=ctx.key(), arg=msgspec.to_builtins(event))
            await ctx.run_typed("write row", store.put, RunOptions(), record)
            return record

        @service.handler()
        async def record(ctx: ObjectContext, sighting: Any) -> ThreatRecord:
            convert({"threat_id": ctx.key()}, _VALID_ID)
            given = convert({} if sighting is None else sighting, Sighting)
            at_ms = await now_ms(ctx)
            known = await threat_of(ctx)
            new = model.see(known, ctx.key(), given, at_ms)
            if new is None:
                assert known is not None
                return known
            event = ThreatEvent(at_ms, "seen", given.source, given.severity, new.host_count)
            return await keep_record(ctx, new, event)

        @service.handler()
        async def retract(ctx: ObjectContext, source: str) -> ThreatRecord | None:
            known = await threat_of(ctx)
            new = model.retract(known, source)
            if new is None:
                return known
            return await keep_record(ctx, new, ThreatEvent(await now_ms(ctx), "retracted", source))

        @service.handler(kind="shared")
        async def get(ctx: ObjectSharedContext, entries: int | None) -> ThreatAnswer:
            known = await threat_of(ctx)
            if known is None:
                raise TerminalError(f"there is no threat {ctx.key()}", status_code=404)
            count = min(HISTORY_SHOWN if entries is None else entries, HISTORY_SHOWN_MAX)
            recent = await ctx.object_call(log.recent, key=ctx.key(), arg=count)
            status = await ctx.object_call(log.status, key=ctx.key(), arg=None)
            return ThreatAnswer(known, msgspec.convert(recent, list[ThreatEvent]), status["first"])

        self.record, self.retract, self.get = record, retract, get


class Contributors:
    """`ContributorReputation`: `reserve(Credit)`, `confirm(id)`, `release(id)`, `penalise(Penalty)`, shared `get()`.

    `earn(Credit)` is what needs no second step: reserved and confirmed. A contributor begins when it is first heard of, with the reputation that its key deserves.
    """

    def __init__(self, store: ThreatStore, *, keep: int = model.HISTORY_KEEP, chunk: int = model.HISTORY_CHUNK) -> None:
        self._store = store
        log = self.history = history("ContributorHistory", store, keep=keep, chunk=chunk)
        service = self.service = VirtualObject(model.CONTRIBUTORS, description="What a contributor has earned.")

        load = self._load

        async def keep_contributor(
            ctx: ObjectContext, known: Contributor, new: Contributor | None, kind: str, subject: str
        ) -> Contributor:
            if new is None:
                return known
            ctx.set("contributor", msgspec.to_builtins(new))
            entry = {"at_ms": await now_ms(ctx), "kind": kind, "subject": subject, "reputation": new.reputation}
            ctx.object_send(log.append, key=ctx.key(), arg=entry)
            return new

        @service.handler()
        async def reserve(ctx: ObjectContext, credit: Credit) -> Contributor:
            known = await load(ctx)
            try:
                new = model.reserve(known, credit.credit_id, credit.points)
            except model.NotTrusted as error:
                raise TerminalError(str(error), status_code=403) from error
            except model.TooManyOpen as error:
                raise TerminalError(str(error), status_code=429) from error
            return await keep_contributor(ctx, known, new, "reserved", credit.credit_id)

        @service.handler()
        async def earn(ctx: ObjectContext, credit: Credit) -> Contributor:
            known = await load(ctx)
            try:
                new = model.earn(known, credit.credit_id, credit.points)
            except model.TooManyOpen as error:
                raise TerminalError(str(error), status_code=429) from error
            if new is None:
                return known
            ctx.set("contributor", msgspec.to_builtins(new))  # no history: the list of jobs is one
            return new

        @service.handler()
        async def confirm(ctx: ObjectContext, credit_id: str) -> Contributor:
            known = await load(ctx)
            return await keep_contributor(ctx, known, model.confirm(known, credit_id), "confirmed", credit_id)

        @service.handler()
        async def release(ctx: ObjectContext, credit_id: str) -> Contributor:
            known = await load(ctx)
            return await keep_contributor(ctx, known, model.release(known, credit_id), "released", credit_id)

        @service.handler()
        async def penalise(ctx: ObjectContext, penalty: Any) -> Contributor:
            given = convert(penalty, Penalty)
            known = await load(ctx)
            return await keep_contributor(ctx, known, model.penalise(known, given), "penalised", given.reason)

        @service.handler(kind="shared")
        async def get(ctx: ObjectSharedContext) -> Contributor:
            return await load(ctx)

        self.reserve, self.confirm, self.release = reserve, confirm, release
        self.earn, self.penalise, self.get = earn, penalise, get

    async def _load(self, ctx: ObjectContext | ObjectSharedContext) -> Contributor:
        known = await contributor_of(ctx)
        if known is not None:
            return known
        key = ctx.key()
        if key != model.LOCAL and model.public_key(key) is None:
            raise TerminalError(f"{key} is no public key", status_code=400)
        reputation = await ctx.run_typed("first reputation", self._first_reputation, RunOptions(type_hint=int), key)
        return Contributor(model.public_key(key) or key, reputation)

    async def _first_reputation(self, key: str) -> int:
        if key == model.LOCAL:
            return model.REPUTATION_LOCAL
        public_key = model.public_key(key)
        is_registered = public_key is not None and await self._store.is_registered(public_key)
        return model.REPUTATION_REGISTERED if is_registered else model.REPUTATION_OPEN


def convert(given: Any, type_: type[T]) -> T:
    """What a caller sent as `type_`.

    Raises:
        TerminalError: 400 with the reason: it will be wrong again.
    """
    try:
        return msgspec.convert(given, type_)
    except msgspec.ValidationError as error:
        raise TerminalError(f"the request is not valid: {error}", status_code=400) from error


async def now_ms(ctx: Context) -> int:
    """Milliseconds since the epoch, the same at every replay."""
    return int(await ctx.time() * 1000)


async def threat_of(ctx: ObjectContext | ObjectSharedContext) -> ThreatRecord | None:
    """The state of a threat's object."""
    known: Any = await ctx.get("threat", type_hint=object)
    return None if known is None else msgspec.convert(known, ThreatRecord)


async def contributor_of(ctx: ObjectContext | ObjectSharedContext) -> Contributor | None:
    """The state of a contributor's object."""
    known: Any = await ctx.get("contributor", type_hint=object)
    return None if known is None else msgspec.convert(known, Contributor)
