"""Schedules: cron expressions that start work, with a word for what happens when it takes too long or was missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypedDict, cast

from restate import Context, ObjectContext, ObjectSharedContext, Service, TerminalError, VirtualObject
from restate.context import RunOptions

from holdfast.patterns.context import now_ms, read_state
from holdfast.patterns.cron import Cron, InvalidSchedule

CATCH_UP_MAX = 1_000
"""So many missed times are made up for; older ones are counted as skipped."""
QUEUE_MAX = 1_000
LATE_MS = 60_000
"""From here on a firing was missed, not merely late."""

Overlap = Literal["skip", "queue", "allow", "cancel"]
CatchUp = Literal["none", "latest", "all"]


class Firing(TypedDict):
    """What the target is called with."""

    schedule: str
    scheduled_at_ms: int
    """When it was due; the same for a firing that comes late or is back-filled."""
    payload: Any


class ScheduleStatus(TypedDict):
    """Of one schedule. Times are milliseconds since the epoch; 0 where there is none."""

    cron: str
    time_zone: str
    overlap: str
    catch_up: str
    payload: Any
    is_paused: bool
    next_at_ms: int
    running: list[int]
    """When those that run now were due."""
    queued: list[int]
    fired: int
    skipped: int
    """Not started: it ran still, nobody wanted missed ones, or there were too many."""
    succeeded: int
    failed: int
    last_error: str


@dataclass(frozen=True, slots=True)
class _Spec:
    cron: str
    time_zone: str
    overlap: Overlap
    catch_up: CatchUp
    payload: Any

    @classmethod
    def of(cls, given: Any) -> _Spec:
        """
        Raises:
            TerminalError: 400, with what is wrong.
        """
        if not isinstance(given, dict):
            raise TerminalError("a schedule is an object with at least `cron`", status_code=400)
        fields = cast("dict[str, Any]", given)
        unknown = sorted(fields.keys() - {"cron", "time_zone", "overlap", "catch_up", "payload"})
        if unknown:
            raise TerminalError(
                f"unknown field {unknown[0]}; there are cron, time_zone, overlap, catch_up, payload", status_code=400
            )
        overlap, catch_up = fields.get("overlap", "skip"), fields.get("catch_up", "latest")
        if overlap not in ("skip", "queue", "allow", "cancel"):
            raise TerminalError("overlap is skip, queue, allow or cancel", status_code=400)
        if catch_up not in ("none", "latest", "all"):
            raise TerminalError("catch_up is none, latest or all", status_code=400)
        cron, time_zone = fields.get("cron"), fields.get("time_zone", "UTC")
        if not isinstance(cron, str) or not isinstance(time_zone, str):
            raise TerminalError("cron is text such as 30 2 * * MON-FRI, time_zone such as Europe/Brussels", 400)
        try:
            Cron(cron, time_zone)
        except InvalidSchedule as error:
            raise TerminalError(str(error), status_code=400) from None
        return cls(cron, time_zone, overlap, catch_up, fields.get("payload"))

    @property
    def times(self) -> Cron:
        return Cron(self.cron, self.time_zone)

    def as_dict(self) -> dict[str, Any]:
        return {
            "cron": self.cron,
            "time_zone": self.time_zone,
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "payload": self.payload,
        }


class Plan(TypedDict):
    """What happens when a schedule is due."""

    times: list[int]
    """To fire now, oldest first."""
    skipped: int
    next_at_ms: int
    """0: never again."""


def plan_firings(spec: _Spec, due_ms: int, at_ms: int) -> Plan:
    """What happens at `at_ms` to a schedule that was due at `due_ms`, and perhaps more often since then."""
    times = spec.times
    passed = [due_ms, *times.between(due_ms, at_ms, CATCH_UP_MAX)]
    next_ms = times.next_ms(max(at_ms, due_ms)) or 0
    wanted = passed[:CATCH_UP_MAX] if spec.catch_up == "all" else passed[-1:]
    if spec.catch_up == "none" and at_ms - wanted[-1] > LATE_MS:
        wanted = []
    return Plan(times=wanted, skipped=len(passed) - len(wanted), next_at_ms=next_ms)


class Schedules:
    """A virtual object with a schedule per key that calls a handler at the times of a cron expression.

        reports = Schedules("Reports", generate)       # generate: a handler (ctx: Context, firing: Firing)
        app = restate.app([*reports.services, service_of_generate])
        POST /Reports/nightly/put   {"cron": "30 2 * * *", "time_zone": "Europe/Brussels", "overlap": "skip"}

    Each firing is a call of its own, so it may take as long as it likes, and the schedule knows how it ended. For a
    fixed interval and work of a moment, `Ticker` is less.

    What is sent to `put`: `cron` and `time_zone` (see `Cron`); `overlap`, what to do while the last firing still runs:
    `skip` it (default), `queue` it, `allow` both, or `cancel` the one that runs; `catch_up`, what becomes of times that
    passed while the engine was away or the schedule was paused: the `latest` (default), `all` (up to 1,000) or `none`;
    `payload`, any JSON for the target.

    Handlers: `put(spec)` creates or replaces, which also starts it anew; `pause()`, `resume()`, `remove()`;
    `fire()` runs it now, once; `backfill({"after_ms": …, "until_ms": …})` fires every time in between, by the rule of
    `overlap` but never skipped; `release()` forgets what runs, for when an operator has killed it; shared `get()`, a
    `ScheduleStatus`. All but `put` and `remove` answer 404 if there is none.

    Args:
        name: Of the virtual object; a service `<name>Runs` stands beside it.
        target: A handler of a plain service, taking a `Firing`. It ends a firing; a TerminalError counts as failed.
    """

    def __init__(self, name: str, target: Callable[[Context, Firing], Any]) -> None:
        self._schedules = VirtualObject(name, description="Starts work by cron expressions")
        self._runs = Service(f"{name}Runs", description=f"What {name} has started")
        self.services = [self._schedules, self._runs]
        self._work(target)
        self._manage()
        self._ask()

    def _work(self, target: Callable[[Context, Firing], Any]) -> None:
        """Handlers that only these two services call."""

        @self._runs.handler(ingress_private=True)
        async def run(ctx: Context, order: dict[str, Any]) -> None:
            error = ""
            try:
                await ctx.service_call(target, order["firing"])
            except TerminalError as failure:
                # Also when the target was killed, or this was cancelled because another firing takes its place.
                error = failure.message or "failed"
            ctx.object_send(finished, key=order["firing"]["schedule"], arg={"number": order["number"], "error": error})

        @self._schedules.handler(ingress_private=True)
        async def finished(ctx: ObjectContext, ended: dict[str, Any]) -> None:
            schedule = await self._read(ctx)
            if schedule is not None and schedule.ended(ended["number"], ended["error"]):
                await schedule.start_queued()
                schedule.write()

        @self._schedules.handler(ingress_private=True)
        async def due(ctx: ObjectContext, number: int) -> None:
            schedule = await self._read(ctx)
            if schedule is None or schedule.state["round"] != number or schedule.state["is_paused"]:
                return  # replaced, paused or removed when this was on its way
            await schedule.fire_what_is_due()
            schedule.write()

        self._run, self._due = run, due

    def _manage(self) -> None:
        @self._schedules.handler()
        async def put(ctx: ObjectContext, spec: Any) -> None:
            wanted = _Spec.of(spec)
            before = await self._read(ctx)
            schedule = _Schedule(ctx, _begun(wanted, before), self._run, self._due)
            if before is not None:
                before.disarm()
            at_ms = await now_ms(ctx)
            next_ms = await ctx.run_typed("plan", lambda: wanted.times.next_ms(at_ms) or 0, RunOptions(type_hint=int))
            await schedule.arm(next_ms, at_ms)
            schedule.write()

        @self._schedules.handler()
        async def pause(ctx: ObjectContext) -> None:
            schedule = await self._existing(ctx)
            if not schedule.state["is_paused"]:
                schedule.state["is_paused"] = True
                schedule.disarm()
                schedule.write()

        @self._schedules.handler()
        async def resume(ctx: ObjectContext) -> None:
            schedule = await self._existing(ctx)
            if not schedule.state["is_paused"]:
                return
            schedule.state["is_paused"] = False
            at_ms, next_ms = await now_ms(ctx), schedule.state["next_at_ms"]
            if next_ms and next_ms <= at_ms:
                await schedule.fire_what_is_due()
            else:
                await schedule.arm(next_ms, at_ms)
            schedule.write()

        @self._schedules.handler()
        async def remove(ctx: ObjectContext) -> None:
            schedule = await self._read(ctx)
            if schedule is not None:
                schedule.disarm()
                ctx.clear("schedule")

        self.put, self.pause, self.resume, self.remove = put, pause, resume, remove

    def _ask(self) -> None:
        @self._schedules.handler()
        async def fire(ctx: ObjectContext) -> None:
            schedule = await self._existing(ctx)
            await schedule.fire(await now_ms(ctx), is_wanted=True)
            schedule.write()

        @self._schedules.handler()
        async def backfill(ctx: ObjectContext, span: Any) -> int:
            schedule = await self._existing(ctx)
            after_ms, until_ms = _span(span)
            times: list[int] = await ctx.run_typed(
                "plan",
                lambda: schedule.spec.times.between(after_ms, until_ms, CATCH_UP_MAX + 1),
                RunOptions(type_hint=list),
            )
            if len(times) > CATCH_UP_MAX:
                raise TerminalError(f"more than {CATCH_UP_MAX} times; ask for a shorter span", status_code=400)
            for scheduled_at_ms in times:
                await schedule.fire(scheduled_at_ms, is_wanted=True)
            schedule.write()
            return len(times)

        @self._schedules.handler()
        async def release(ctx: ObjectContext) -> None:
            schedule = await self._existing(ctx)
            schedule.state["running"] = []
            await schedule.start_queued()
            schedule.write()

        @self._schedules.handler(kind="shared")
        async def get(ctx: ObjectSharedContext) -> ScheduleStatus:
            state = await read_state(ctx, "schedule")
            if state is None:
                raise TerminalError(f"there is no schedule {ctx.key()}; make it with put", status_code=404)
            shown = {name: state[name] for name in ScheduleStatus.__annotations__ if name in state}
            shown |= {**state["spec"], "running": [each["scheduled_at_ms"] for each in state["running"]]}
            return cast("ScheduleStatus", shown)

        self.fire, self.backfill, self.release, self.get = fire, backfill, release, get

    async def _read(self, ctx: ObjectContext) -> _Schedule | None:
        state = await read_state(ctx, "schedule")
        return None if state is None else _Schedule(ctx, state, self._run, self._due)

    async def _existing(self, ctx: ObjectContext) -> _Schedule:
        schedule = await self._read(ctx)
        if schedule is None:
            raise TerminalError(f"there is no schedule {ctx.key()}; make it with put", status_code=404)
        return schedule


def _begun(spec: _Spec, before: _Schedule | None) -> dict[str, Any]:
    """The state of a schedule that is made. What runs, waits and was counted goes on under new rules."""
    begun: dict[str, Any] = {
        "round": 0,
        "running": [],
        "queued": [],
        "fired": 0,
        "skipped": 0,
        "succeeded": 0,
        "failed": 0,
        "last_error": "",
    }
    kept = {name: before.state[name] for name in begun} if before is not None else begun
    return {**kept, "spec": spec.as_dict(), "is_paused": False, "next_at_ms": 0, "next_id": ""}


class _Schedule:
    """One schedule, while a handler of its key works on it."""

    def __init__(self, ctx: ObjectContext, state: dict[str, Any], run: Any, due: Any) -> None:
        self._ctx = ctx
        self._run = run
        self._due = due
        self.state = state
        self.spec = _Spec(**state["spec"])

    def write(self) -> None:
        self._ctx.set("schedule", self.state)

    async def arm(self, next_ms: int, at_ms: int) -> None:
        """Send what fires it the next time."""
        state = self.state
        state["round"] += 1
        state["next_at_ms"], state["next_id"] = next_ms, ""
        if next_ms:
            delay = timedelta(milliseconds=max(1, next_ms - at_ms))
            sent = self._ctx.object_send(self._due, key=self._ctx.key(), arg=state["round"], send_delay=delay)
            state["next_id"] = await sent.invocation_id()

    def disarm(self) -> None:
        if self.state["next_id"]:
            self._ctx.cancel_invocation(self.state["next_id"])

    async def fire_what_is_due(self) -> None:
        at_ms = await now_ms(self._ctx)
        # A step, because the rules of a time zone may be others when this is replayed.
        plan: dict[str, Any] = await self._ctx.run_typed(
            "plan",
            lambda: {**plan_firings(self.spec, self.state["next_at_ms"], at_ms)},
            RunOptions(type_hint=dict),
        )
        self.state["skipped"] += plan["skipped"]
        await self.arm(plan["next_at_ms"], at_ms)
        for scheduled_at_ms in plan["times"]:
            await self.fire(scheduled_at_ms)

    async def fire(self, scheduled_at_ms: int, *, is_wanted: bool = False) -> None:
        """Start it by the rule of overlap; one that somebody asked for by name waits instead of being skipped."""
        overlap, running = self.spec.overlap, self.state["running"]
        if overlap == "cancel":
            for each in running:
                self._ctx.cancel_invocation(each["id"])
        elif running and overlap != "allow":
            if (overlap == "queue" or is_wanted) and len(self.state["queued"]) < QUEUE_MAX:
                self.state["queued"].append(scheduled_at_ms)
            else:
                self.state["skipped"] += 1
            return
        await self._start(scheduled_at_ms)

    async def _start(self, scheduled_at_ms: int) -> None:
        state = self.state
        state["fired"] += 1
        firing = Firing(schedule=self._ctx.key(), scheduled_at_ms=scheduled_at_ms, payload=self.spec.payload)
        sent = self._ctx.service_send(self._run, arg={"number": state["fired"], "firing": firing})
        invocation_id = await sent.invocation_id()
        state["running"].append({"number": state["fired"], "scheduled_at_ms": scheduled_at_ms, "id": invocation_id})

    async def start_queued(self) -> None:
        while self.state["queued"] and not self.state["running"]:
            await self._start(self.state["queued"].pop(0))

    def ended(self, number: int, error: str) -> bool:
        """False if it is not known, because it was released or the schedule was removed."""
        running = [each for each in self.state["running"] if each["number"] != number]
        if len(running) == len(self.state["running"]):
            return False
        self.state["running"] = running
        self.state["failed" if error else "succeeded"] += 1
        self.state["last_error"] = error
        return True


def _span(given: Any) -> tuple[int, int]:
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    after_ms, until_ms = fields.get("after_ms"), fields.get("until_ms")
    # bool is an int
    if type(after_ms) is not int or type(until_ms) is not int or not 0 <= after_ms < until_ms < 253_402_300_800_000:
        raise TerminalError("after_ms and until_ms are milliseconds since the epoch, in this order", status_code=400)
    return after_ms, until_ms
