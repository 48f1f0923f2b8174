"""What goes in and out of a provider: plain, immutable data with one JSON form.

`to_json()` gives what the HTTP API and `--json` show; `WorkflowSpec.from_json` reads what they accept. Times are aware
datetimes in UTC and RFC 3339 text in JSON; durations are timedeltas and text such as `30m` in JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

DESCRIPTION_BYTES_MAX = 1 << 10
NAME_CHARACTERS_MAX = 256
PAYLOAD_BYTES_MAX = 256 << 10
"""Definition, input and output, each, as JSON. `workflow.<provider>.payload_bytes_max` changes it for input and output."""
TAGS_MAX = 50
TAG_BYTES_MAX = 128


class ExecutionState(StrEnum):
    """Where an execution is. The last four are final: nothing changes them."""

    PENDING = "pending"
    """Accepted and durable; its handler has not started."""
    RUNNING = "running"
    """Its handler has started; `sub_state` says whether it runs, waits, or backs off."""
    PAUSED = "paused"
    """It used up its attempts and waits for a person (resume or stop)."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """A person ended it: `stop_execution`, or cancel and kill at the engine."""
    TIMEOUT = "timeout"
    """The workflow's time limit ended it."""

    @property
    def is_final(self) -> bool:
        """Whether the execution is over."""
        return self in _FINAL


_FINAL = frozenset({ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.STOPPED, ExecutionState.TIMEOUT})


class SubState(StrEnum):
    """What a live execution does at this moment; for display. Final executions repeat their state's word."""

    WAITING = "waiting"
    """Scheduled, queued behind its key, ready, or suspended until something happens."""
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    """Its last attempt failed; the next one has a time."""
    PAUSED = "paused"
    STOPPING = "stopping"
    """Stop or time limit were sent; the handler cleans up."""
    ERROR = "error"
    """It runs again after a failed attempt; `error` is that attempt's."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how quickly a failing attempt is repeated, before the execution is `failed`."""

    max_attempts: int = 3
    """Further attempts after the first one; 0 means one attempt in all."""
    backoff_rate: float = 2.0
    """Factor from one delay to the next, at least 1."""
    initial_interval: timedelta = timedelta(milliseconds=500)
    max_interval: timedelta = timedelta(minutes=1)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSpec:
    """What `create_workflow` is told. Nothing is checked here: `validate` does, with the field's name in its error."""

    workflow_id: str
    """1 to 128 of a–z, 0–9 and hyphen."""
    definition: str | Mapping[str, Any] = ""
    """`module:attribute` of a restate-sdk Workflow, Service, VirtualObject, one of their handlers, an application made
    by `restate.app([...])`, or a coroutine function `(ctx, input)`. As a mapping: `{"reference": "module:attribute",
    "handler": "run", "version": "2"}`, the last two optional."""
    name: str = ""
    """For people; required, at most 256 characters."""
    description: str = ""
    timeout: timedelta | None = None
    """Time limit of one execution, from its acceptance; None means the provider's default."""
    retry_policy: RetryPolicy | None = None
    """None means what the definition says, then the provider's default."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    provider_type: str | None = None
    """Provider to use when a `Router` chooses; None means by its rules."""
    provider_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of this workflow at its provider; each provider lists the ones it understands."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which `from_json` reads."""
        return _to_json(self)

    @classmethod
    def from_json(cls, document: Any) -> WorkflowSpec:
        """Read the JSON form. Values of a wrong type are refused, values out of range are `validate`'s matter.

        Raises:
            InvalidSpec: with the name of the wrong or missing field.
        """
        from holdfast.providers.validation import spec_from_json

        return spec_from_json(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWorkflowResult:
    """What `create_workflow` did."""

    workflow_id: str
    provider_type: str
    service_name: str
    """The workflow's service at the engine."""
    deployment_id: str
    """`dp_…`; the engine's name for where the service runs."""
    is_new: bool
    """False: it was already there, and nothing was changed."""
    created_at: datetime
    resource_ids: Mapping[str, str] = field(default_factory=dict[str, str])
    """Ids to find it by at the engine: service, handler, deployment, endpoint."""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """A stored workflow, as it is read back from the engine."""

    workflow_id: str
    provider_type: str
    name: str
    definition: str | Mapping[str, Any]
    service_name: str
    service_type: str
    """`workflow`, `virtual_object` or `service`."""
    handler: str
    """The handler that an execution invokes."""
    handlers: tuple[str, ...]
    deployment_id: str
    created_at: datetime
    version: str = ""
    description: str = ""
    timeout: timedelta | None = None
    retry_policy: RetryPolicy | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    provider_config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What `start_execution` answers."""

    execution_id: str
    workflow_id: str
    execution_name: str
    provider_type: str
    state: ExecutionState
    is_new: bool
    """False: an execution of this name was there already, and this is it; nothing was started."""
    started_at: datetime
    """When it was accepted."""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionError:
    """Why an execution did not succeed, or why its last attempt failed while it is retried."""

    code: int
    """HTTP-like code of the terminal error; 500 when the handler gave none, 409 for stopped, 408 for timeout."""
    message: str
    cause: str = ""
    failed_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """One thing that happened: a journal entry of the handler, a failed attempt, or a change of the execution's state."""

    timestamp: datetime
    type: str
    """`Command: Run`, `Notification: Sleep` … as the engine names journal entries; `attempt-failed`, `paused`;
    `state: running` … for the execution's own."""
    name: str = ""
    """The entry's name: that of a step, a promise …"""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStatus:
    """Everything about one execution."""

    execution_id: str
    workflow_id: str
    execution_name: str
    provider_type: str
    state: ExecutionState
    sub_state: SubState
    created_at: datetime
    """When it was accepted."""
    start_time: datetime | None = None
    """When its handler first ran; None while it has not."""
    stop_time: datetime | None = None
    """When it reached its final state; None while it lives."""
    input: Any = None
    output: Any = None
    error: ExecutionError | None = None
    reason: str = ""
    """Why it was stopped, as given to `stop_execution`."""
    progress: Any = None
    """The value of the K/V key `progress` (else `status`) of the workflow or object; None without one."""
    kv_state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """K/V state of the workflow or object, JSON values parsed."""
    history: tuple[HistoryEvent, ...] = ()
    """Oldest first. Empty in lists."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What `start_execution` was given, and `retry_count`, `invocation_id`, `deployment_id`, `target`."""
    trigger_source: str = "api"

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One item of `watch`: the state, sub-state or progress has changed."""

    execution_id: str
    from_state: ExecutionState | None
    """None in the first item, which tells the state at the time of the call."""
    to_state: ExecutionState
    sub_state: SubState
    at: datetime
    """When the engine made the change where it tells (created, started, finished), else when it was seen."""
    progress: Any = None
    error: ExecutionError | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """One page of a list. Pass `next_cursor` as `cursor` to get the following one; None means that this is the last."""

    items: tuple[Item, ...]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return _to_json(self)


def duration_text(value: timedelta) -> str:
    """`1h 30m`, `250ms`: the form the engines print, and the configuration reads."""
    left_ms = value // timedelta(milliseconds=1)
    parts: list[str] = []
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, left_ms = divmod(left_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as the engines print it."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _to_json(value: Any) -> Any:
    match value:
        case datetime():
            return time_text(value)
        case timedelta():
            return duration_text(value)
        case StrEnum():
            return value.value
        case Mapping():
            return {str(key): _to_json(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_to_json(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {each.name: _to_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            return value
