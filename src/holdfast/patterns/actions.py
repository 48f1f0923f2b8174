"""What an application hands to a pattern: functions of any kind, and the errors with which its blocks end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from restate import TerminalError


async def called(action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of `action`; one that is no coroutine function runs in a thread, as in the SDK's own steps.

    Unlike there, `lambda seat: release(seat, key)` works: it does not look like a coroutine function, and the SDK would
    take its coroutine for the result, which cannot be serialised, again and again.
    """
    if inspect.iscoroutinefunction(action):
        return await action(*args, **kwargs)
    result = await asyncio.to_thread(action, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def terminal_error(error: BaseException | None) -> TerminalError | None:
    """The terminal error as which the SDK will end this invocation: the error itself, or one that it was raised from."""
    while error is not None and not isinstance(error, TerminalError):
        # The SDK looks at causes of ordinary exceptions only: a suspension is none.
        error = error.__cause__ if isinstance(error, Exception) else None
    return error
