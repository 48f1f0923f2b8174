"""Durable steps that people can watch: each runs once by `ctx.run_typed`, and tells the store when it begins and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from restate import Context, RunOptions, TerminalError

from apps.leads.settings import RetryPreset
from apps.leads.store import Store

T = TypeVar("T")
logger = logging.getLogger("leads")

OWN_DATABASE = RetryPreset(attempts=1000, first_wait_s=0.2, wait_max_s=10.0)
"""For steps that only write to our own database: a full disk or a long transaction elsewhere passes."""


class Steps:
    """The steps of one run of a job. Without a job (`job_id` empty) they are durable all the same, and leave no trace."""

    def __init__(self, ctx: Context, store: Store, job_id: str, run: int) -> None:
        self._ctx = ctx
        self._store = store
        self.job_id = job_id
        self.run_number = run

    async def run(
        self,
        name: str,
        action: Callable[[], Awaitable[T]],
        type_hint: type[T] | None = None,
        *,
        subject: str = "",
        retry: RetryPreset = OWN_DATABASE,
        summary: Callable[[T], Any] | None = None,
        problem: Callable[[T], str | None] | None = None,
    ) -> T:
        """Run `action` as the durable step `name`; returns its result, from the journal if it is there.

        Args:
            type_hint: Of the result, when it is no plain JSON.
            subject: Which business, when the step is done for several.
            retry: The engine's policy for errors that are not terminal.
            summary: What people see of a large result.
            problem: Why a result counts as a failed step for them, although the job goes on with it.
        Raises:
            TerminalError: the action's own, or its last attempt failed, or this invocation was cancelled.
        """

        async def recorded() -> T:
            if not self.job_id:
                return await action()
            where = (self.job_id, self.run_number, name, subject)
            label = f"{name} {subject}" if subject else name
            attempt = await self._store.begin_step(*where)
            try:
                result = await action()
            except asyncio.CancelledError:
                raise  # the process stops, or the attempt is over; the step comes again
            except Exception as error:
                is_last = isinstance(error, TerminalError) or attempt >= retry.attempts
                text = error.message if isinstance(error, TerminalError) else f"{type(error).__name__}: {error}"
                await self._store.end_step(*where, None, text)
                await self.log("error" if is_last else "warning", label, f"attempt {attempt} failed: {text}")
                raise
            shown = summary(result) if summary is not None else result
            wrong = problem(result) if problem is not None else None
            await self._store.end_step(*where, msgspec.to_builtins(shown), wrong)
            return result

        options: RunOptions[Any] = retry.options(type_hint)
        return await self._ctx.run_typed(name, recorded, options)

    async def log(self, level: str, step: str, message: str) -> None:
        """A line in the job's log and in the process's. Only inside a step: it writes."""
        logger.log(logging.getLevelNamesMapping()[level.upper()], "%s: %s: %s", self.job_id or "-", step, message)
        if self.job_id:
            await self._store.log(self.job_id, level, step, message)


def is_cancellation(error: TerminalError) -> bool:
    """Is it what the engines raise in a handler that was cancelled?"""
    return error.status_code == 409 and error.message.lower() == "cancelled"


async def surely(start: Callable[[], Awaitable[T]]) -> T:
    """Do something idempotent to its end, through cancellations of this invocation.

    A cancellation also cancels the call that is being waited for, so it is made again. Money is settled this way.
    """
    while True:
        try:
            return await start()
        except TerminalError as error:
            if not is_cancellation(error):
                raise
