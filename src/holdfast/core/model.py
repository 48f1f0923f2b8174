"""The words of the engine: what an invocation, its result and its status are. Plain data, no behaviour that waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.core.awaiting import Leaf
from holdfast.core.catalog import Deployment
from holdfast.protocol.discovery import HandlerSpec
from holdfast.protocol.messages import AttemptError, Awaited, Result


class Status:
    """Stored statuses, as in Restate's `sys_invocation_status`. Text in the database, so that a person can read it."""

    SCHEDULED = "scheduled"
    INBOXED = "inboxed"
    INVOKED = "invoked"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Failure:
    """A terminal failure: HTTP-like code, message, and the user's metadata."""

    code: int
    message: str
    metadata: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Completion:
    """The result of an invocation. Exactly one of `value` and `failure` is set."""

    invocation_id: str
    value: bytes | None
    failure: Failure | None
    expires_at_ms: int | None = None
    """When the stored result may be forgotten; None when it is not kept."""


@dataclass(slots=True)
class Receipt:
    """What a caller learns when a request is durable."""

    invocation_id: str
    is_new: bool
    execution_time_ms: int | None = None
    """Set for delayed sends: when it becomes due."""


LIVE = frozenset((Status.INVOKED, Status.SUSPENDED, Status.PAUSED))
"""Statuses in which an invocation has a journal that signals reach and, if exclusive, holds the lock of its key."""


HEAD_BYTES_MAX = 2048
"""A larger input gets a journal row of its own, so that changing a status does not rewrite it."""


class Invocation:
    """One invocation as the engine holds it in memory while something happens to it.

    Only the first block is durable, and only through the rows that `Tables` writes; an invocation that waits is not in
    memory at all. The second block describes the attempt in flight and is lost with the process on purpose: recovery
    starts a new attempt.
    """

    __slots__ = (  # noqa: RUF023 grouped by meaning
        # durable
        "seq",
        "id",
        "raw",
        "service",
        "handler",
        "key",
        "exclusive",
        "status",
        "created_at_ms",
        "modified_at_ms",
        "start_at_ms",
        "inboxed_at_ms",
        "running_at_ms",
        "completed_at_ms",
        "idempotency_key",
        "invoked_by_id",
        "invoked_by_target",
        "restarted_from",
        "sink_seq",
        "sink_completion_id",
        "has_listeners",
        "head",
        "entries",
        "random_seed",
        "retention_ms",
        "journal_retention_ms",
        "inbox_seq",
        "deployment_id",
        "protocol_version",
        "awaiting",
        "output",
        "result",
        "failure_code",
        # of the current residency and attempt
        "spec",
        "attempt",
        "attempt_at_ms",
        "attempt_deployment",
        "in_flight",
        "input_open",
        "pause_requested",
        "pending",
        "pending_from",
        "forward",
        "missed",
        "sleeps",
        "retry_count",
        "failures_since_entry",
        "entry_at_ms",
        "last_error",
        "next_retry_at_ms",
        "is_new",
        "is_dirty",
        "is_gone",
    )

    def __init__(
        self,
        seq: int,
        id: str,
        service: str,
        handler: str,
        key: str | None,
        exclusive: bool,
        status: str,
        created_at_ms: int,
        spec: HandlerSpec | None,
    ) -> None:
        self.seq = seq
        self.id = id
        self.raw = b""
        """The id's 24 bytes, where they are at hand."""
        self.service = service
        self.handler = handler
        self.key = key
        self.exclusive = exclusive
        self.status = status
        self.created_at_ms = created_at_ms
        self.modified_at_ms = created_at_ms
        self.start_at_ms: int | None = None
        self.inboxed_at_ms: int | None = None
        """When it began to wait for its key; None: it never did."""
        self.running_at_ms: int | None = None
        """When it could begin to run: nothing delayed it any more, and its key was free."""
        self.completed_at_ms: int | None = None
        self.idempotency_key: str | None = None
        self.invoked_by_id: str | None = None
        self.invoked_by_target: str | None = None
        self.restarted_from: str | None = None
        """The invocation whose input, and perhaps journal, this one took over."""
        self.sink_seq: int | None = None
        self.sink_completion_id = 0
        self.has_listeners = False
        self.head = b""
        """First frames of the journal, kept in the invocation's own row when they are small."""
        self.entries = 0
        """Commands and notifications stored so far."""
        self.random_seed: int | None = None
        self.retention_ms = 0
        self.journal_retention_ms = 0
        self.inbox_seq: int | None = None
        self.deployment_id: str | None = None
        self.protocol_version: int | None = None
        self.awaiting: Awaited | None = None
        self.result: Result | None = None
        self.output = b""
        """The Output frame; type 0 instead when the result is the engine's own (killed, canceled)."""
        self.failure_code: int | None = None

        self.spec = spec
        self.attempt = 0
        self.attempt_at_ms: int | None = None
        """When the newest attempt started."""
        self.attempt_deployment: Deployment | None = None
        """Where the newest attempt runs."""
        self.in_flight = False
        self.input_open = False
        self.pause_requested = False
        self.pending: list[bytes] = []
        self.pending_from = 0
        self.forward: list[tuple[bytes, Leaf]] = []
        """Notifications to send to the attempt when they are durable."""
        self.missed: list[Leaf] = []
        """Notifications that the attempt cannot know of, because its input was closed before."""
        self.sleeps: dict[int, int] = {}
        """Completion id -> wake-up time of timers not yet fired."""
        self.retry_count = 0
        self.failures_since_entry = 0
        self.entry_at_ms = created_at_ms
        self.last_error: AttemptError | None = None
        self.next_retry_at_ms: int | None = None
        self.is_new = False
        self.is_dirty = False
        self.is_gone = False

    @property
    def target(self) -> str:
        """`Service/handler` or `Object/key/handler`."""
        if self.key is None:
            return f"{self.service}/{self.handler}"
        return f"{self.service}/{self.key}/{self.handler}"

    def begin(self, first: bytes) -> None:
        """Put the Input entry of a new invocation where its size asks for."""
        if len(first) > HEAD_BYTES_MAX:
            self.append(first)
        else:
            self.head = first
            self.entries = 1

    def append(self, frame: bytes) -> None:
        """Add one entry to the journal; it is durable after the batch."""
        if not self.pending:
            self.pending_from = self.entries
        self.pending.append(frame)
        self.entries += 1
