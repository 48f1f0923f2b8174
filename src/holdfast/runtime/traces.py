"""Where in the user's code an attempt failed, when the SDK does not tell the engine.

With a journal mismatch restate-sdk 1.3 sends an Error without a stack trace; the exception that knows the line only
reaches the SDK's own log. For an application in this process that log passes by here. Nothing is changed or held back:
a filter looks at the record and lets it go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any

import holdfast

_SDK_LOGGERS = ("restate.server", "restate.server_context")
_FOREIGN = tuple(
    os.path.join(path, "")  # noqa: PTH118 prefixes of strings, compared often
    for path in (os.path.dirname(holdfast.__file__), *{sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")})  # noqa: PTH120
)


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
    places = [*traceback.walk_tb(raised)]
    if not any(_is_users(frame) for frame, _ in places):
        # The SDK failed at an await of its own: what the user's code waits for, at this very moment.
        places = [(frame, frame.f_lineno) for frame in (*_waiting(task), *reversed([*_running()]))]
    summary = traceback.StackSummary.extract((place for place in places if _is_users(place[0])), capture_locals=False)
    return "".join(["Traceback (most recent call last):\n", *summary.format()]) if summary else ""


def _running() -> Iterator[FrameType]:
    """The frames above this one, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waiting(task: asyncio.Task[Any] | None) -> Iterator[FrameType]:
    """The frames of a task that waits, outermost first."""
    waiting: Any = task.get_coro() if task is not None and task is not asyncio.current_task() else None
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return not name.startswith(_FOREIGN) and not name.startswith("<frozen")
