"""What the programs really did: side effects in order, and the gates at which they wait for the test.

Programs run in the test's own process (on another thread when a Restate server drives them), so that a plain dict is
the witness that no engine can falsify: a step that ran twice is recorded twice. Everything is keyed by test id.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from concurrent.futures import Future, InvalidStateError

_entries: defaultdict[str, list[str]] = defaultdict(list)
_gates: defaultdict[tuple[str, str], Future[None]] = defaultdict(Future)
_notes: defaultdict[str, dict[str, set[str]]] = defaultdict(dict)
_closed: set[str] = set()
_lock = threading.Lock()

GATE_TIMEOUT_S = 20.0
"""For sync steps, which block a thread; longer than any scenario needs, shorter than the suite's patience."""


class ForcedRetry(Exception):
    """Not terminal: the attempt fails and the engine tries again."""


def record(test_id: str, entry: str) -> int:
    """Add an entry; returns how many equal ones there are now (1 for the first)."""
    with _lock:
        entries = _entries[test_id]
        entries.append(entry)
        return entries.count(entry)


def record_once(test_id: str, entry: str) -> None:
    """Add an entry unless it is there: for what every attempt says."""
    with _lock:
        if entry not in _entries[test_id]:
            _entries[test_id].append(entry)


def entries(test_id: str) -> list[str]:
    """All entries of a test, in order."""
    with _lock:
        return list(_entries[test_id])


def counts(test_id: str) -> dict[str, int]:
    """How often each entry was recorded."""
    return dict(Counter(entries(test_id)))


def note(test_id: str, what: str, value: str) -> None:
    """Remember a value that every attempt must repeat."""
    with _lock:
        _notes[test_id].setdefault(what, set()).add(value)


def notes(test_id: str) -> dict[str, set[str]]:
    """Everything noted: more than one value says that attempts differed."""
    with _lock:
        return {what: set(values) for what, values in _notes[test_id].items()}


def forget(test_id: str) -> None:
    """Free what thousands of tests in one process would pile up. Call `close` before."""
    with _lock:
        _entries.pop(test_id, None)
        _notes.pop(test_id, None)
        for place in [place for place in _gates if place[0] == test_id]:
            del _gates[place]


def fail_first(test_id: str, name: str, times: int = 1) -> None:
    """Raise `ForcedRetry` the first `times` times this point is reached."""
    if record(test_id, name) <= times:
        raise ForcedRetry(name)


def open_gate(test_id: str, name: str) -> None:
    """Let everybody through who waits at this gate, now and later."""
    _open(_gate(test_id, name))


async def gate(test_id: str, name: str) -> None:
    """Wait for `open_gate`, from any event loop. Not a durable wait: the attempt stays busy."""
    # Shielded: a cancelled attempt must not cancel the gate for the next one.
    await asyncio.shield(asyncio.wrap_future(_gate(test_id, name)))


def gate_blocking(test_id: str, name: str) -> None:
    """`gate` for sync steps, which run in a thread."""
    _gate(test_id, name).result(timeout=GATE_TIMEOUT_S)


def close(test_id: str) -> None:
    """The test is over: nobody waits for it any longer, now or later."""
    with _lock:
        _closed.add(test_id)
        gates = [gate for (owner, _), gate in _gates.items() if owner == test_id]
    for one in gates:
        _open(one)


def _gate(test_id: str, name: str) -> Future[None]:
    with _lock:
        future = _gates[test_id, name]
    if test_id in _closed:
        _open(future)
    return future


def _open(gate: Future[None]) -> None:
    try:
        gate.set_result(None)
    except InvalidStateError:
        pass  # open already
