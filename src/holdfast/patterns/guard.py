"""A guard for development: watches handlers, and warns about what will not survive a replay or a year."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

from restate import Service, VirtualObject, Workflow
from restate.serde import DefaultSerde

from holdfast.patterns.pitfalls import TASK, Finding, read_handler

log = logging.getLogger("holdfast.guard")

ServiceT = TypeVar("ServiceT", Service, VirtualObject, Workflow)
Report = Callable[[Finding], None]

SLEEP_MAX = timedelta(minutes=1)
STATE_BYTES_MAX = 64 * 1024
STATE_ITEMS_MAX = 1_000

_OF_THE_SDK = ("restate.", "restate_sdk_python_core")


def warn(finding: Finding) -> None:
    """The default report: one warning in the log."""
    where = f" ({finding.place})" if finding.place else ""
    log.warning("%s: %s%s", finding.handler, finding.message, where, extra={"rule": finding.rule})


def guarded(
    services: Iterable[Any],
    *,
    report: Report = warn,
    sleep_max: timedelta = SLEEP_MAX,
    state_bytes_max: int = STATE_BYTES_MAX,
    state_items_max: int = STATE_ITEMS_MAX,
) -> list[Any]:
    """Watch the handlers of these services, and give them back for `restate.app`.

        services = [imports, counters]
        app = restate.app(guarded(services) if settings.is_development else services)

    `holdfast serve --guard` does it for an application as it is.

    Each is reported once:

    - `clock`, `chance`, `task`, `wait`: found by reading the handler, before it ever runs (see `pitfalls`);
    - `task`: a task that was started in a handler and goes on when its attempt is over;
    - `sleep`: an exclusive handler of a virtual object sleeps longer than `sleep_max`, while nobody else gets at its key;
    - `state`: a value that is larger than `state_bytes_max`, or a list or mapping with more than `state_items_max`
      entries: it is sent with every call, and seldom stops growing.

    Nothing is forbidden, and what handlers do is not changed. It costs a little time with each call: for development
    and tests.

    Args:
        services: Of the SDK; their handlers are wrapped in place, so guard them once.
        report: Called with each finding; the default logs a warning of `holdfast.guard`.
    """
    watched = list(services)
    limits = _Limits(report, sleep_max, state_bytes_max, state_items_max)
    for service in watched:
        for handler in cast("dict[str, Any]", service.handlers).values():
            name = f"{service.name}/{handler.name}"
            for finding in read_handler(name, handler.fn):
                limits.report(finding)
            handler.fn = _watched(handler.fn, _Watch(name, limits, _is_exclusive(service, handler)))
    return watched


class _Limits:
    def __init__(self, report: Report, sleep_max: timedelta, state_bytes_max: int, state_items_max: int) -> None:
        self._report = report
        self._told: set[Finding] = set()
        self.sleep_max = sleep_max
        self.state_bytes_max = state_bytes_max
        self.state_items_max = state_items_max

    def report(self, finding: Finding) -> None:
        if finding not in self._told:
            self._told.add(finding)
            self._report(finding)


class _Watch:
    """One handler."""

    def __init__(self, name: str, limits: _Limits, is_exclusive: bool) -> None:
        self.name = name
        self._limits = limits
        self._is_exclusive = is_exclusive

    def found(self, rule: str, message: str, place: str = "") -> None:
        self._limits.report(Finding(rule, self.name, message, place))

    def sleeps(self, delta: timedelta) -> None:
        if self._is_exclusive and delta > self._limits.sleep_max:
            self.found(
                "sleep",
                "an exclusive handler sleeps for long, and its key is locked until then; "
                "send the rest to itself with send_delay, or use holdfast.patterns.Ticker",
            )

    def sets(self, name: str, value: Any, size: int) -> None:
        advice = "keep the newest and archive the rest (holdfast.patterns.BoundedLog), or give each its own key"
        if size > self._limits.state_bytes_max:
            limit = self._limits.state_bytes_max
            self.found("state", f"state {name!r} has more than {limit} bytes, sent with every call; {advice}")
        elif isinstance(value, list | dict) and len(cast("list[Any]", value)) > self._limits.state_items_max:
            self.found("state", f"state {name!r} has more than {self._limits.state_items_max} entries; {advice}")


def _is_exclusive(service: Any, handler: Any) -> bool:
    return isinstance(service, VirtualObject) and handler.kind != "shared"


_current: ContextVar[tuple[_Watch, list[weakref.ref[asyncio.Task[Any]]]] | None] = ContextVar(
    "holdfast-guard", default=None
)


def _watched(function: Callable[..., Awaitable[Any]], watch: _Watch) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def run(ctx: Any, *arguments: Any) -> Any:
        _watch_context(ctx, watch)
        _watch_tasks(asyncio.get_running_loop())
        tasks: list[weakref.ref[asyncio.Task[Any]]] = []
        token = _current.set((watch, tasks))
        try:
            return await function(ctx, *arguments)
        finally:
            _current.reset(token)
            for reference in tasks:
                task = reference()
                if task is not None and not task.done():
                    watch.found("task", f"a task goes on after its handler; {TASK}", _place(task))

    return run


def _watch_context(ctx: Any, watch: _Watch) -> None:
    """Look at what this attempt asks of its context. The context lives as long as the attempt."""
    sleep, put = ctx.sleep, getattr(ctx, "set", None)

    def sleeping(delta: timedelta, *arguments: Any, **named: Any) -> Any:
        watch.sleeps(delta)
        return sleep(delta, *arguments, **named)

    ctx.sleep = sleeping
    if put is None:
        return

    def setting(name: str, value: Any, *arguments: Any, **named: Any) -> Any:
        serde: Any = arguments[0] if arguments else named.get("serde", DefaultSerde[Any]())
        if isinstance(serde, DefaultSerde):
            serde = cast("DefaultSerde[Any]", serde).with_maybe_type(cast(Any, type(value)))  # as the SDK does
        watch.sets(name, value, len(serde.serialize(value)))
        return put(name, value, *arguments, **named)

    ctx.set = setting


_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def _watch_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, remember tasks that are started while a watched handler runs."""
    if loop in _loops:
        return
    _loops.add(loop)
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **named: Any) -> Any:
        task: Any = before(loop, coro, **named) if before is not None else asyncio.Task(coro, loop=loop, **named)
        current = _current.get()
        if current is not None and not _is_of_the_sdk(coro):
            current[1].append(weakref.ref(task))
        return task

    loop.set_task_factory(cast(Any, make))


def _is_of_the_sdk(coro: Any) -> bool:
    frame = getattr(coro, "cr_frame", None)
    module = str(frame.f_globals.get("__name__", "")) if frame is not None else ""
    # The SDK waits in tasks of its own, and runs steps in them.
    return module.startswith(_OF_THE_SDK) or module.partition(".")[0] in ("asyncio", "restate")


def _place(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if inspect.iscode(code) else ""
