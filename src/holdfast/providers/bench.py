"""What checks of the contract work with: a provider with workflows that come and go, and words for what is wrong."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from holdfast.errors import HoldfastError
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.types import ExecutionStatus, WorkflowSpec

PATIENCE_S = 60.0
"""How long a check waits for something that must happen; on an idle machine it takes milliseconds."""

Error = TypeVar("Error", bound=HoldfastError)


class BrokenPromise(AssertionError):
    """A provider did not do what it promises."""


class Bench:
    """What a check works with: a provider, ids of its own, and a place for marks.

    Args:
        directory: Where workflows leave marks; on the machine that runs them.
    """

    def __init__(self, provider: WorkflowProvider, directory: Path) -> None:
        self.provider = provider
        self.directory = directory
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def fresh(self, text: str = "x") -> str:
        """A name that was never used."""
        return f"{text}-{self._run}-{next(self._numbers)}"

    def marks_file(self) -> dict[str, Any]:
        """Input that makes a workflow leave marks in a file of its own."""
        return {"marks": str(self.directory / self.fresh("marks"))}

    @asynccontextmanager
    async def workflow(self, flow: str, **changes: Any) -> AsyncGenerator[str]:
        """A workflow of `contract_flows` for the length of the block; yields its id."""
        spec = self.spec(flow, **changes)
        await self.provider.create_workflow(spec)
        try:
            yield spec.workflow_id
        finally:
            await self.provider.delete_workflow(spec.workflow_id, force=True)

    def spec(self, flow: str, **changes: Any) -> WorkflowSpec:
        """A right spec."""
        definition = f"holdfast.providers.contract_flows:{flow}"
        spec = WorkflowSpec(workflow_id=self.fresh(f"contract-{flow}"), name=flow, definition=definition)
        return replace(spec, **changes)

    async def until(self, execution_id: str, ready: Callable[[ExecutionStatus], bool]) -> ExecutionStatus:
        """The status when it is as it should be."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status = await self.provider.get_execution_status(execution_id)
            if ready(status):
                return status
            if time.monotonic() > deadline:
                broken(f"still {status.state}/{status.sub_state} after {PATIENCE_S:g} s: {status}")
            await asyncio.sleep(0.05)

    async def finished(self, execution_id: str) -> ExecutionStatus:
        """The final status."""
        return await self.provider.wait(execution_id, timeout=PATIENCE_S)


def broken(message: str) -> NoReturn:
    """
    Raises:
        BrokenPromise: always.
    """
    raise BrokenPromise(message)


def equal(what: str, found: Any, expected: Any) -> None:
    """
    Raises:
        BrokenPromise: they differ.
    """
    if found != expected:
        broken(f"{what} is {found!r}, not {expected!r}")


def true(what: str, found: object) -> None:
    """
    Raises:
        BrokenPromise: it is not so.
    """
    if not found:
        broken(f"not so: {what} (found {found!r})")


async def refused(what: Awaitable[Any], error_type: type[Error], text: str) -> Error:
    """The error with which it was refused, as it must be.

    Raises:
        BrokenPromise: it was accepted, or the error does not hold `text`.
    """
    try:
        result = await what
    except error_type as error:
        if text not in str(error):
            broken(f"the error does not name {text!r}: {error}")
        return error
    broken(f"it was accepted instead of refused with {error_type.__name__}: {result!r}")
