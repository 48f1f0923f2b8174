"""Batch fan-out: many items, so many at a time, each with a result of its own, and progress to read meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from restate import ObjectContext, RestateDurableFuture, TerminalError, wait_completed

T = TypeVar("T")
R = TypeVar("R")

REPORTS_MAX = 100
"""A state entry per item would make the journal of a large batch half as long again; nobody reads finer than 1 %."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T, R]):
    """What became of one item."""

    index: int
    item: T
    status: Literal["succeeded", "failed", "skipped"]
    """`skipped`: never started, because `failures_max` was reached before."""
    value: R | None = None
    error: str = ""
    error_code: int = 0
    """Of the terminal error, like an HTTP status; 0 unless failed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fan-out is. Never more than `total` are done."""

    total: int
    succeeded: int = 0
    failed: int = 0
    running: int = 0

    @property
    def done(self) -> int:
        return self.succeeded + self.failed

    def as_dict(self) -> dict[str, int]:
        """For JSON: the fields and `done`."""
        return {**asdict(self), "done": self.done}


async def fan_out(
    items: Sequence[T],
    start: Callable[[T], RestateDurableFuture[R]],
    *,
    concurrency: int = 10,
    failures_max: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Outcome[T, R]]:
    """Work on every item, at most `concurrency` at the same time; one that fails does not fail the others.

        outcomes = await fan_out(targets, lambda target: ctx.service_call(scan, target), concurrency=20)

    Use it where a handler needs the results of up to about a thousand items. Not for more than that in one
    invocation, because each costs two or three journal entries that every replay reads: let it fan out over `batches`,
    and a service fan out over each batch. Not for results that are large: let items store theirs and return a key.

    Items that may need retries should be service calls, an invocation each. With `ctx.run_typed` one transient failure
    ends the attempt, and the other steps that were running then run again.

    Args:
        items: Must be the same at every replay: from the input, from state or from a step.
        start: Starts one item and returns its durable future at once; it is not awaited, so it can read nothing.
        concurrency: At least 1.
        failures_max: After so many failures nothing more is started; what runs is waited for. None: go on to the end.
        on_progress: Called before the first item, after the last, and at about every percent between; see
            `progress_to_state`. It runs again at every replay, so it must only use the context.
    Returns:
        One outcome per item, in the order of `items`.
    Raises:
        ValueError: `concurrency` or `failures_max` is less than 1.
        TerminalError: 409, this invocation was cancelled. Nothing more is started; calls that run are cancelled too.
    """
    if concurrency < 1 or (failures_max is not None and failures_max < 1):
        raise ValueError("concurrency and failures_max must be at least 1")
    outcomes: list[Outcome[T, R]] = [Outcome(index, item, "skipped") for index, item in enumerate(items)]
    running: dict[RestateDurableFuture[Any], int] = {}
    started = succeeded = failed = reported = 0
    report_every = -(-len(items) // REPORTS_MAX)

    def report() -> None:
        nonlocal reported
        reported = succeeded + failed
        if on_progress is not None:
            on_progress(Progress(len(items), succeeded, failed, len(running)))

    report()
    while True:
        while started < len(items) and len(running) < concurrency and (failures_max is None or failed < failures_max):
            running[start(items[started])] = started
            started += 1
        if not running:
            break
        # The order of completions is that of the journal, so a replay takes the same way. Only a cancellation of
        # this invocation raises here; that of a called one comes out of its own future below.
        completed, _ = await wait_completed(*running)
        for future in completed:
            index = running.pop(future)
            outcomes[index] = await _outcome(index, items[index], future)
            succeeded += outcomes[index].status == "succeeded"
            failed += outcomes[index].status == "failed"
        if succeeded + failed - reported >= report_every and (running or started < len(items)):
            report()
    if items:
        report()
    return outcomes


async def _outcome(index: int, item: T, future: RestateDurableFuture[R]) -> Outcome[T, R]:
    try:
        return Outcome(index, item, "succeeded", value=await future)
    except TerminalError as error:
        return Outcome(index, item, "failed", error=error.message, error_code=error.status_code)


def progress_to_state(ctx: ObjectContext, state: str = "progress") -> Callable[[Progress], None]:
    """For `on_progress` in a workflow or virtual object: keep it in a state that shared handlers can read meanwhile.

    The state holds `Progress.as_dict()`. A plain service has no state; there, report to a job tracker.
    """

    def keep(progress: Progress) -> None:
        ctx.set(state, progress.as_dict())

    return keep


def batches(items: Sequence[T], size: int) -> list[list[T]]:
    """Cut `items` in lists of `size`, the last one shorter.

    Raises:
        ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError("size must be at least 1")
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
