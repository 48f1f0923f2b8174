"""Everything that can happen to the engine, in the past tense. Time and randomness come in as data.

Not frozen: these are built on the hot path, where a frozen dataclass costs three times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.protocol.discovery import HandlerSpec
from holdfast.protocol.messages import Result


@dataclass(slots=True)
class Submitted:
    """A request arrived at the ingress."""

    token: object | None
    """Given back in `Accepted`; None when the caller waits for the result only."""
    id: str
    raw_id: bytes
    is_unique: bool
    """The id is derived (workflow run, idempotency key), so the invocation may exist already."""
    spec: HandlerSpec
    key: str | None
    body: bytes
    headers: list[tuple[str, str]]
    idempotency_key: str | None
    start_at_ms: int | None
    at_ms: int


@dataclass(slots=True)
class FramesReceived:
    """An attempt sent whole frames."""

    seq: int
    attempt: int
    frames: list[tuple[int, bytes]]
    at_ms: int


@dataclass(slots=True)
class AttemptFailed:
    """An attempt ended without a terminal frame, or could not be made."""

    seq: int
    attempt: int
    code: int
    message: str
    at_ms: int
    retry_after_ms: int | None = None


@dataclass(slots=True)
class RetryDue:
    seq: int
    attempt: int
    at_ms: int


@dataclass(slots=True)
class TimerFired:
    """A stored timer is due. Completion id 0 is the start of a scheduled invocation."""

    due_ms: int
    seq: int
    completion_id: int
    at_ms: int


@dataclass(slots=True)
class SignalSent:
    """From outside: an awakeable was resolved or rejected."""

    token: object | None
    id: str
    signal: int | str
    result: Result
    at_ms: int


@dataclass(slots=True)
class CancelRequested:
    token: object
    id: str
    at_ms: int


@dataclass(slots=True)
class KillRequested:
    token: object
    id: str
    at_ms: int


@dataclass(slots=True)
class PauseRequested:
    token: object
    id: str
    at_ms: int


@dataclass(slots=True)
class ResumeRequested:
    """`deployment` is `keep`, `latest` or an id."""

    token: object
    id: str
    at_ms: int
    deployment: str = "keep"


@dataclass(slots=True)
class RestartRequested:
    """A completed invocation is to run again, as the new invocation `raw_id`.

    It takes over the journal up to `last_index`. `deployment` is `keep`, `latest` or an id.
    """

    token: object
    id: str
    raw_id: bytes
    last_index: int
    deployment: str
    at_ms: int


@dataclass(slots=True)
class PurgeRequested:
    """`journal_only` keeps the output."""

    token: object | None
    id: str
    journal_only: bool
    at_ms: int


@dataclass(slots=True)
class StateReplaced:
    """An operator replaces the whole state of a key. It waits in the key's inbox like an exclusive invocation."""

    token: object
    service: str
    key: str
    new_state: dict[str, bytes]
    version: str | None
    at_ms: int


Event = (
    Submitted
    | FramesReceived
    | AttemptFailed
    | RetryDue
    | TimerFired
    | SignalSent
    | CancelRequested
    | KillRequested
    | PauseRequested
    | ResumeRequested
    | RestartRequested
    | PurgeRequested
    | StateReplaced
)
