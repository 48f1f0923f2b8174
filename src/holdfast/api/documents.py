"""What requests of the API carry, as types: they check it, and the OpenAPI document is made of them.

What a workflow is created from, and every answer, are the types of `holdfast.providers.types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from holdfast.providers.base import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX
from holdfast.providers.types import ExecutionState


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """An execution to start."""

    execution_name: str | None = None
    """1 to 128 letters, digits, hyphens, underscores. The same name again answers the existing execution and starts
    nothing. Without one every request starts an execution."""
    input: Any = None
    """For the handler: any JSON value; leave it out for handlers without input."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Labels, text to text."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Kept with the execution: any JSON object."""
    trigger_source: str = "api"
    """Who asks, for people: `api`, `controller` …"""
    key: str | None = None
    """For virtual objects: the object's key. Without one it is the execution's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """How to end an execution."""

    reason: str = ""
    """Kept with the execution."""
    grace: timedelta | None = None
    """With `kill`: how long it may take to react; without one, the provider's `stop_grace`."""
    kill: bool = False
    """End it without its consent after `grace`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRequest:
    """What to tell a live execution."""

    name: str = field(metadata={"minLength": 1})
    """An awakeable's id, a shared handler, a durable promise, or a named signal; the first of these that there is."""
    payload: Any = None
    """Any JSON value."""
    idempotency_key: str | None = None
    """For shared handlers and named signals: the same key again is delivered once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalAnswer:
    """What a signal was answered."""

    answer: Any = None
    """The shared handler's answer; null for everything else."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {"answer": self.answer}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """The workflow can be created."""

    valid: bool
    workflow_id: str

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {"valid": self.valid, "workflow_id": self.workflow_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Which part of a list."""

    limit: int = field(default=PAGE_LIMIT_DEFAULT, metadata={"minimum": 1, "maximum": PAGE_LIMIT_MAX})
    """Items at most. A page may have fewer although more follow: `next_cursor` tells."""
    cursor: str | None = None
    """`next_cursor` of the page before, with the same filters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionsOfWorkflowQuery(PageQuery):
    """Which executions of a workflow."""

    state: tuple[ExecutionState, ...] = ()
    """Only these; may be given several times."""
    created_after: datetime | None = None
    """Only what was accepted after this time."""
    created_before: datetime | None = None
    """Only what was accepted before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionsQuery(ExecutionsOfWorkflowQuery):
    """Which executions."""

    workflow_id: str | None = None
    """Only of this workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuery:
    """How much of an execution."""

    history: bool = True
    """False leaves out the history, which may be long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteQuery:
    """How to delete a workflow."""

    force: bool = False
    """Stop its running executions first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitQuery:
    """How long to wait."""

    timeout: timedelta | None = None
    """`30s`, or seconds; without one the answer comes when the execution is over."""
