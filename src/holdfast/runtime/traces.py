"""Where in the user's code an attempt failed, when the SDK does not tell the engine.

With a journal mismatch restate-sdk 1.3 sends an Error without a stack trace; the exception that knows the line only
reaches the SDK's own log. For an application in this process that log passes by here. Nothing is changed or held back:
a filter looks at the record and lets it go on.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_SDK_LOGGERS = ("restate.server", "restate.server_context")
_LIBRARIES = tuple(f"{Path(sysconfig.get_path(name))}{os.sep}" for name in ("purelib", "platlib"))
_FOREIGN = (
    f"{Path(__file__).parents[1]}{os.sep}",
    *(f"{library}restate{os.sep}" for library in _LIBRARIES),
    "<frozen",
)
_HANDLER_IS_RUN_BY, _HANDLER_IS_CALLED_BY = "enter", "invoke_handler"
_STANDARD_LIBRARY = f"{Path(sysconfig.get_path('stdlib'))}{os.sep}"


class Trace:
    """What is known of one attempt's failure."""

    __slots__ = ("task", "text")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.text = ""
        """As Python prints tracebacks, the user's frames only."""


_current: ContextVar[Trace | None] = ContextVar("holdfast_trace", default=None)


def begin() -> Trace:
    """For the attempt that the running task makes: its tasks inherit it."""
    trace = Trace(asyncio.current_task())
    _current.set(trace)
    return trace


class _Watch(logging.Filter):
    """Keeps the traceback of what the SDK logs about a failed attempt."""

    def filter(self, record: logging.LogRecord) -> bool:
        trace = _current.get()
        if trace is not None and record.exc_info and record.exc_info[1] is not None:
            trace.text = _text(record.exc_info[1].__traceback__, trace.task)
        return True


def watch() -> None:
    """Look at what the SDK of this process logs, from now on. Once is enough, more does no harm."""
    for name in _SDK_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Watch) for one in logger.filters):
            logger.addFilter(_Watch())


def _text(raised: TracebackType | None, task: asyncio.Task[Any] | None) -> str:
    places = _users([*traceback.walk_tb(raised)])
    if not places and (handler := _returned(raised)):
        return f"Traceback (most recent call last):\n{handler}\n"
    if not places:
        # The SDK failed at an await of its own: of what the user's code waits for, at this very moment.
        places = _users([(frame, frame.f_lineno) for frame in _waiting(task)])
    summary = traceback.StackSummary.extract(iter(places))
    return "".join(["Traceback (most recent call last):\n", *summary.format()]) if summary else ""


def _returned(raised: TracebackType | None) -> str:
    """The handler itself, when it had returned already: nothing of it is on the stack any more."""
    for frame, _ in traceback.walk_tb(raised):
        if frame.f_code.co_name == _HANDLER_IS_RUN_BY:
            function = getattr(getattr(frame.f_locals.get("self"), "handler", None), "fn", None)
            code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
            if code is not None:
                return f'  File "{code.co_filename}", line {code.co_firstlineno}, in {code.co_name}'
    return ""


_Places = list[tuple[FrameType, int]]


def _users(places: _Places) -> _Places:
    """Frames of the handler and of what it called: not those of programs around the SDK, nor of the SDK."""
    entered = [index for index, (frame, _) in enumerate(places) if frame.f_code.co_name == _HANDLER_IS_CALLED_BY]
    return [place for place in places[entered[0] :] if _is_users(place[0])] if entered else []


def _waiting(task: asyncio.Task[Any] | None) -> Iterator[FrameType]:
    """The frames of a task, outermost first, whether it waits or runs."""
    waiting: Any = task.get_coro() if task is not None else None
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith(_STANDARD_LIBRARY):  # site-packages are below it, and an application may be installed there
        return name.startswith(_LIBRARIES) and not name.startswith(_FOREIGN)
    return not name.startswith(_FOREIGN)
