"""What can be read out of a stored journal or result."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from holdfast.core.awaiting import Leaf
from holdfast.core.model import Completion, Failure, Invocation
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from holdfast.protocol.wire import HEADER_BYTES, frame, message, split, u32, u64


def completion_of(inv: Invocation) -> Completion:
    """The result stored in the Output frame of a completed invocation."""
    output = inv.result
    if output is None:
        output = inv.result = m.output_result(inv.output[HEADER_BYTES:])
    expires = inv.completed_at_ms + inv.retention_ms if inv.completed_at_ms is not None else None
    if output.failure is not None:
        return Completion(inv.id, None, Failure(*output.failure), expires)
    return Completion(inv.id, output.value or b"", None, expires)


def result_of(completion: Completion) -> Result:
    if completion.failure is not None:
        failure = completion.failure
        return Result(failure=(failure.code, failure.message, failure.metadata))
    return Result(value=completion.value or b"")


def pending_sleeps(journal: bytes) -> dict[int, int]:
    """Completion id -> wake-up time of the sleeps in a journal that have not completed."""
    sleeps: dict[int, int] = {}
    for message_type, body in split(journal):
        if message_type == m.SLEEP:
            command = message(body)
            sleeps[u32(command, 11)] = u64(command, 1, 0)
        elif message_type == m.SLEEP_COMPLETION:
            sleeps.pop(u32(message(body), 1), None)
    return sleeps


def journal_prefix(journal: bytes, last_index: int) -> list[bytes] | None:
    """The frames up to `last_index`, then the later completions of the commands among them.

    Later signals are left out: nothing in the prefix asked for them.

    Returns:
        None when the journal ends before, or when a command among them has no completion yet.
    """
    kept: list[bytes] = []
    awaited: set[int] = set()
    length = 0
    for index, (message_type, body) in enumerate(split(journal)):
        length += 1
        is_early = index <= last_index
        if m.is_command(message_type):
            if is_early:
                awaited |= m.completion_ids(message_type, body)
        elif message_type != m.SIGNAL:
            completion_id = u32(message(body), 1)
            is_early = is_early or completion_id in awaited
            awaited.discard(completion_id)
        if is_early:
            kept.append(frame(message_type, body))
    return None if awaited or last_index >= length else kept


def completed_leaves(journal: bytes) -> Iterator[Leaf]:
    """What the notifications of a journal complete: commands, and awakeables. Other signals may be awaited repeatedly."""
    for message_type, body in split(journal):
        if message_type >= m.NOTIFICATION:
            leaf = m.notification_leaf(message_type, body)
            if isinstance(leaf, tuple) or (isinstance(leaf, int) and leaf >= m.FIRST_AWAKEABLE_SIGNAL):
                yield leaf


def state_version(state: list[tuple[str, bytes]]) -> str:
    """The version of a whole state, as the server computes it for conditional edits."""
    digest = hashlib.sha256()
    for index, (name, value) in enumerate(sorted(state)):
        digest.update(index.to_bytes(8, "big") + b"\x01" + name.encode() + b"\x02" + value + b"\x03")
    return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
