"""Saga: several steps that are all done, or undone again in reverse order."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from restate import Context, RestateDurableFuture, RunOptions, TerminalError, wait_completed

from holdfast.patterns.actions import called, terminal_error

T = TypeVar("T")
P = ParamSpec("P")

STEP_RETRY: RunOptions[Any] = RunOptions(
    max_attempts=10,
    initial_retry_interval=timedelta(milliseconds=100),
    retry_interval_factor=2,
    max_retry_interval=timedelta(seconds=10),
)
"""Half a minute in all, then the step has failed and what was done is undone."""

COMPENSATION_RETRY: RunOptions[Any] = RunOptions(
    initial_retry_interval=timedelta(milliseconds=100), retry_interval_factor=2, max_retry_interval=timedelta(minutes=1)
)
"""For ever: what was done must be undone. An action gives up by raising TerminalError."""


@dataclass(frozen=True, slots=True)
class FailedCompensation:
    name: str
    error: str


class CompensationFailed(TerminalError):
    """The saga failed, and not all of it could be undone: a person must look at it.

    Code and cause are those of the failure that began it. `metadata`, which callers of the handler receive too, holds
    `compensated` and `not_compensated` as JSON lists of names.
    """

    def __init__(self, cause: TerminalError, compensated: list[str], failed: list[FailedCompensation]) -> None:
        self.compensated = compensated
        self.failed = failed
        what = ", ".join(f"{one.name} ({one.error})" for one in failed)
        super().__init__(
            f"{cause.message}; could not be undone: {what}",
            status_code=cause.status_code,
            metadata={
                **(cause.metadata or {}),
                "compensated": json.dumps(compensated),
                "not_compensated": json.dumps([one.name for one in failed]),
            },
        )


class Saga:
    """Runs compensations in reverse order when its block ends with a terminal error, a cancellation included.

        async with Saga(ctx) as saga:
            seat = await saga.step("reserve", reserve, release, trip)    # release(seat)
            payment = await saga.step("charge", charge, refund, trip)    # refund(payment)
            await ctx.run_typed("confirm", confirm, trip)                # nothing to undo

    Use it for changes in several systems that know no common transaction, where each can be undone by a further
    change. Not where a reader must never see the state between, and not for what cannot be undone (a mail): do that
    last. In an exclusive handler the key stays locked meanwhile.

    Undoing must be idempotent: like every step it may run again when the process dies in the middle of it.

    Args:
        ctx: The handler's context.
        step_retry: For `step`. An unlimited policy would let a step that never succeeds hold up a cancellation.
        compensation_retry: For compensations; each is retried until it succeeds or raises TerminalError.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        step_retry: RunOptions[Any] = STEP_RETRY,
        compensation_retry: RunOptions[Any] = COMPENSATION_RETRY,
    ) -> None:
        self._ctx = ctx
        self._step_retry = step_retry
        self._compensation_retry = compensation_retry
        self._compensations: list[tuple[str, Callable[[], RestateDurableFuture[Any]]]] = []

    async def step(
        self,
        name: str,
        action: Callable[P, Coroutine[Any, Any, T]] | Callable[P, T],
        undo: Callable[[T], Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `action` as a durable step; from then on a failure of the saga calls `undo` with its result.

        A cancellation that comes while it runs waits for its end, so that a step that took effect is undone as well.
        A step that fails is not undone: where a failed attempt may have had an effect, call `compensate` before it.

        Raises:
            TerminalError: `action` raised it, or its last attempt failed, or 409: this invocation was cancelled.
        """

        @functools.wraps(action)
        async def perform(*args: Any, **kwargs: Any) -> Any:
            return await called(action, *args, **kwargs)

        future: RestateDurableFuture[Any] = self._ctx.run_typed(name, perform, self._step_retry, *args, **kwargs)
        cancellation = await _settled(future)
        try:
            result = await future
        except TerminalError:
            if cancellation is not None:
                raise cancellation from None
            raise
        self.compensate(f"undo {name}", undo, result)
        if cancellation is not None:
            raise cancellation
        return result

    def compensate(self, name: str, action: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Should the saga fail from here on, run `action` as a durable step called `name`.

        Call it before a change that may have happened even if it seems to have failed; `action` must then cope with
        nothing to undo, e.g. by an id that was chosen beforehand with `ctx.uuid()`.
        """

        async def undo() -> None:
            await called(action, *args, **kwargs)

        self.compensate_by(name, lambda: self._ctx.run_typed(name, undo, self._compensation_retry))

    def compensate_by(self, name: str, start: Callable[[], RestateDurableFuture[Any]]) -> None:
        """Likewise, by whatever durable future `start` gives, such as a call:
        `saga.compensate_by("release", lambda: ctx.object_call(release, seat, None))`."""
        self._compensations.append((name, start))

    async def __aenter__(self) -> Saga:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Anything else than a terminal error ends the attempt, not the invocation: it is going to be repeated.
        cause = terminal_error(error)
        if cause is None:
            return
        compensated: list[str] = []
        failed: list[FailedCompensation] = []
        while self._compensations:
            name, start = self._compensations.pop()
            error_of_it = await _undone(start)
            if error_of_it is None:
                compensated.append(name)
            else:
                failed.append(FailedCompensation(name, error_of_it.message))
        if failed:
            raise CompensationFailed(cause, compensated, failed) from error


async def _undone(start: Callable[[], RestateDurableFuture[Any]]) -> TerminalError | None:
    """Run a compensation to its end; the error it ended with.

    A cancellation of this invocation also cancels the calls that it waits for. A compensation that is a call is therefore
    made again after one: it is idempotent, and not making it would leave the change in place.
    """
    while True:
        future = start()
        cancellation = await _settled(future)
        try:
            await future
        except TerminalError as error:
            was_cancelled = (error.status_code, error.message) == (409, "cancelled")
            if cancellation is None or not was_cancelled:
                return error
        else:
            return None


async def _settled(future: RestateDurableFuture[Any]) -> TerminalError | None:
    """Wait until `future` has a result, through cancellations; the last cancellation that came meanwhile.

    Waiting does not raise what the future itself ended with, so any terminal error here is a cancellation. Awaiting the
    future at once would keep that error as its result.
    """
    cancellation = None
    while True:
        try:
            await wait_completed(future)
        except TerminalError as error:
            cancellation = error
        else:
            return cancellation
