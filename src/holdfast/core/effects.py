"""Everything the runtime must do after the commit, in the imperative. All of it can be derived again from rows."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.model import Completion, Invocation


@dataclass(slots=True)
class StartAttempt:
    invocation: Invocation


@dataclass(slots=True)
class Forward:
    """Send `invocation.forward` to the attempt in flight."""

    invocation: Invocation


@dataclass(slots=True)
class CloseInput:
    """End the attempt's input: the SDK suspends at its next await."""

    invocation: Invocation


@dataclass(slots=True)
class AbortAttempt:
    seq: int
    attempt: int


@dataclass(slots=True)
class ScheduleRetry:
    seq: int
    attempt: int
    delay_ms: int
    jitter: bool


@dataclass(slots=True)
class ReportPaused:
    """Tell the operator: this invocation waits for a person."""

    invocation: Invocation


@dataclass(slots=True)
class ArmTimer:
    due_ms: int


@dataclass(slots=True)
class Accepted:
    """Answer a submitter: its request is durable, or it joined an existing invocation."""

    token: object
    invocation_id: str
    is_new: bool
    start_at_ms: int | None
    completion: Completion | None


@dataclass(slots=True)
class Completed:
    """Answer everybody who waits for this invocation."""

    completion: Completion


@dataclass(slots=True)
class Answer:
    """Answer an operator's request with a word."""

    token: object
    value: str


@dataclass(slots=True)
class Refuse:
    """Refuse an operator's request: `kind` is not_found, conflict, too_early, gone, unsupported or invalid."""

    token: object
    kind: str
    message: str


Effect = (
    StartAttempt
    | Forward
    | CloseInput
    | AbortAttempt
    | ScheduleRetry
    | ReportPaused
    | ArmTimer
    | Accepted
    | Completed
    | Answer
    | Refuse
)
