"""The invariants, by name, judged from outside: from what callers were told, from the ledger, and from the rows at rest.

Nothing here asks the engine what it thinks of itself. Each function of `INVARIANTS` raises `Violation` with its own
name; `test_mutants.py` breaks the engine in the way each of them guards against and sees it caught.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from holdfast.protocol import messages as m
from holdfast.protocol.wire import message, split
from tests.simulation.program import Entry
from tests.support.violation import Violation

_STEP = re.compile(rb'"([^"/]+)/([^"#]+)#(\d+)"')

EDITED = "edited"
"""Key whose state an operator changes, so that its journals do not tell all."""

LATE_MS = 120_000
"""A timer that is later than this was lost. Outages, retries and slow disks of a history delay it by seconds."""


@dataclass
class History:
    """What the callers know. Filled in by `world.py` while it happens."""

    ledger: list[Entry]
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    """u -> invocation id, from the moment a caller was told that it is accepted."""
    refused: set[str] = field(default_factory=set[str])
    """u of requests that were answered: not accepted."""
    unsure: set[str] = field(default_factory=set[str])
    """u of requests without an answer that were not repeated."""
    results: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict[str, list[Any]](list))
    """u -> every result that anybody was told of it, in order."""
    sequences: set[str] = field(default_factory=set[str])
    """u whose result is the list of values of its steps, which ran one after the other."""
    single_steps: dict[tuple[str, Any], str] = field(default_factory=dict[tuple[str, Any], str])
    """(u, step) -> the value that the handler got."""
    order: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    """Key -> u of increments, each sent after the one before was accepted."""
    increments: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict[str, set[str]](set))
    """Key -> u of increments that must be there in the end."""
    naps: dict[str, tuple[int, list[int]]] = field(default_factory=dict[str, tuple[int, list[int]]])
    """u -> (asked for, [fell asleep, woke]), milliseconds."""
    posted: list[str] = field(default_factory=list[str])
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Workflow -> {"answers": {decision: "accepted" or "409"}, "seen": [...]}."""
    cancelled: set[str] = field(default_factory=set[str])
    """Roots of trees whose cancel was answered."""
    is_over: bool = True
    """Everything has had the time to come to its end."""
    recorded: dict[tuple[str, Any], tuple[str, int]] = field(default_factory=dict[tuple[str, Any], tuple[str, int]])
    """(u, step) -> the value that was found in a journal at rest, and how long the ledger was then."""

    def look_at_rest(self, rows: Rows) -> None:
        """No handler is running: remember which steps are recorded from now on."""
        for row in rows.invocations:
            for kind, body in rows.journal(row):
                if kind != m.RUN_COMPLETION:
                    continue
                value = m.decode_result(message(body)).value or b""
                step = _STEP.match(value)
                if step is not None:
                    u, name, _ = step.groups()
                    key = (u.decode(), int(name) if name.isdigit() else name.decode())
                    self.recorded.setdefault(key, (json.loads(value), len(self.ledger)))


EMPTY_SCHEMA = (resources.files("holdfast.store.migrations") / "0001_initial.sql").read_text()


class Rows:
    """A database at rest, read without the engine."""

    def __init__(self, path: Path) -> None:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self.integrity = str(connection.pragma("integrity_check"))
            if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'").get:
                connection.execute(EMPTY_SCHEMA)  # it died while it made its tables: nobody was told anything yet
            self.invocations = self._all(connection, "SELECT * FROM invocation")
            self.journals: dict[int, bytes] = {row["seq"]: row["head"] for row in self.invocations}
            for seq, frames in connection.execute("SELECT seq, frames FROM journal ORDER BY seq, first_index"):
                self.journals[seq] = self.journals.get(seq, b"") + frames
            self.state = {
                (service, key, name): value for service, key, name, value in connection.execute("SELECT * FROM state")
            }
            self.timers = list(connection.execute("SELECT * FROM timer"))
        finally:
            connection.close()
        self.by_id = {row["id"]: row for row in self.invocations}

    @staticmethod
    def _all(connection: apsw.Connection, sql: str) -> list[dict[str, Any]]:
        cursor = connection.execute(sql)
        names: list[str] = []
        out: list[dict[str, Any]] = []
        for row in cursor:
            names = names or [column[0] for column in cursor.get_description()]
            out.append(dict(zip(names, row, strict=True)))
        return out

    def journal(self, row: dict[str, Any]) -> list[tuple[int, bytes]]:
        return list(split(self.journals[row["seq"]]))


def accepted_request_survives(history: History, rows: Rows) -> Iterable[str]:
    for u, invocation_id in history.accepted.items():
        row = rows.by_id.get(invocation_id)
        if row is None:
            yield f"{u} was accepted as {invocation_id} and is not there"
        elif row["status"] != "completed":
            yield f"{u} was accepted and is {row['status']} when all trouble is over"
    happened = {entry.u for entry in history.ledger}
    for u in history.refused:
        if any(one == u or one.startswith((f"{u}@", f"{u}.")) for one in happened):
            yield f"{u} was refused and happened all the same"
    for row in rows.invocations:
        if row["status"] != "completed":
            yield f"{row['service']}/{row['key']}/{row['handler']} never ends: {row['status']}"


def recorded_step_never_runs_again(history: History, rows: Rows) -> Iterable[str]:
    executions: defaultdict[str, list[tuple[Any, int]]] = defaultdict(list)
    last: dict[tuple[str, Any], str] = {}
    for entry in history.ledger:
        if entry.what == "step":
            executions[entry.u].append((entry.detail, entry.number))
            last[entry.u, entry.detail] = f"{entry.u}/{entry.detail}#{entry.number}"
    told: dict[tuple[str, Any], str] = dict(history.single_steps)
    for u in history.sequences & history.results.keys():
        values = history.results[u][0]
        told |= {(u, step): value for step, value in enumerate(values)}
        reached = -1
        for step, _ in executions[u]:
            # A step starts when the result of the one before is stored.
            if step < reached:
                yield f"step {step} of {u} ran again after step {reached} had started"
            reached = max(reached, step)
    for (u, step), (value, length) in history.recorded.items():
        if any(entry.what == "step" and (entry.u, entry.detail) == (u, step) for entry in history.ledger[length:]):
            yield f"step {step} of {u} was recorded as {value}, and ran again"
    for (u, step), value in told.items():
        if (u, step) not in last:
            yield f"step {step} of {u} has the result {value} and never ran"
        elif last[u, step] != value:
            yield f"step {step} of {u} has the result {value}, and ran again: {last[u, step]}"


def one_exclusive_handler_per_key_in_order_of_acceptance(history: History, rows: Rows) -> Iterable[str]:
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for entry in history.ledger:
        if entry.what == "step" and "@" in entry.u:
            u, _, key = entry.u.partition("@")
            if not by_key[key] or by_key[key][-1] != u:
                by_key[key].append(u)
    for key, turns in by_key.items():
        again = [u for u, count in Counter(turns).items() if count > 1]
        if again:
            yield f"key {key}: {again} ran in turns with others: {turns}"
    for key, accepted in history.order.items():
        applied = [u for u in _logged(rows, key) if u in set(accepted)]
        if applied != (accepted if history.is_over else accepted[: len(applied)]):
            yield f"key {key}: accepted as {accepted}, applied as {applied}"
    for key, expected in history.increments.items():
        lost = expected - {*_logged(rows, key)}
        if lost and history.is_over:
            yield f"key {key}: {sorted(lost)} ended, and others have overwritten it"


def _logged(rows: Rows, key: str) -> list[str]:
    return json.loads(rows.state.get(("Counter", key, "log"), b"[]"))


def state_and_its_journal_entry_become_visible_together(history: History, rows: Rows) -> Iterable[str]:
    written: defaultdict[str, list[list[str]]] = defaultdict(list)
    counts: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows.invocations:
        if (row["service"], row["handler"]) != ("Counter", "add") or row["key"] == EDITED:
            continue
        for kind, body in rows.journal(row):
            if kind == m.SET_STATE:
                content = message(body)
                name, value = content[1], m.decode_value(content[3])  # pyright: ignore[reportArgumentType]
                if name == b"log":
                    written[row["key"]].append(json.loads(value))
                elif name == b"count":
                    counts[row["key"]].append(json.loads(value))
    keys = {key for service, key, _ in rows.state if service == "Counter" and key != EDITED}
    for key in keys | written.keys():
        state = _logged(rows, key)
        newest = max(written[key], key=len, default=[])
        if state != newest:
            yield f"key {key}: the state is {state}, the journals say {newest}"
        if sorted(counts[key]) != list(range(1, len(counts[key]) + 1)):
            yield f"key {key}: the journals count {sorted(counts[key])}"
        count = json.loads(rows.state.get(("Counter", key, "count"), b"0"))
        if count != len(counts[key]):
            yield f"key {key}: the state counts {count}, the journals {len(counts[key])}"


def one_result_per_idempotency_key(history: History, rows: Rows) -> Iterable[str]:
    keys = Counter(
        (row["service"], row["key"], row["handler"], row["idempotency_key"])
        for row in rows.invocations
        if row["idempotency_key"] is not None
    )
    for target, count in keys.items():
        if count > 1:
            yield f"{target} made {count} invocations"
    for key, expected in history.increments.items():
        applied = Counter(_logged(rows, key))
        for u in expected:
            if applied[u] > 1:
                yield f"{u} was applied {applied[u]} times to {key}"


def timers_never_early_never_lost(history: History, rows: Rows) -> Iterable[str]:
    for u, (asked_ms, (asleep_ms, awake_ms)) in history.naps.items():
        slept_ms = awake_ms - asleep_ms
        if slept_ms < asked_ms or slept_ms > asked_ms + LATE_MS:
            yield f"{u} asked for {asked_ms} ms and slept {slept_ms}"
    for key, arrivals in _arrivals(rows).items():
        for late_ms in arrivals:
            if late_ms < 0:
                yield f"{key} arrived {-late_ms} ms early"
            elif late_ms > LATE_MS:
                yield f"{key} arrived {late_ms} ms late"
    for due_ms, seq, _ in rows.timers:
        yield f"a timer of {seq} for {due_ms} is left"


def _arrivals(rows: Rows) -> dict[str, list[int]]:
    return {
        key: json.loads(value)
        for (service, key, name), value in rows.state.items()
        if service == "Mailbox" and name == "arrivals"
    }


def first_completion_of_a_promise_wins(history: History, rows: Rows) -> Iterable[str]:
    for workflow, said in history.decisions.items():
        winners = [decision for decision, told in said["answers"].items() if told == "accepted"]
        seen = set(said["seen"])
        if len(seen) > 1:
            yield f"{workflow}: different decisions were seen: {sorted(seen)}"
        if len(winners) > 1:
            yield f"{workflow}: {winners} were all told to be the first"
        if winners and seen and seen != set(winners):
            yield f"{workflow}: {winners[0]} was first, and {sorted(seen)} was seen"


def a_send_arrives_once(history: History, rows: Rows) -> Iterable[str]:
    arrivals = _arrivals(rows)
    for u in history.posted:
        for key in (f"{u}.now", f"{u}.later"):
            if len(arrivals.get(key, [])) != 1:
                yield f"{key} arrived {len(arrivals.get(key, []))} times"
    for key in arrivals:
        if len(arrivals[key]) > 1:
            yield f"{key} arrived {len(arrivals[key])} times"


def cancel_reaches_every_child(history: History, rows: Rows) -> Iterable[str]:
    nodes: dict[str, set[str]] = defaultdict(set)
    for entry in history.ledger:
        if entry.what == "node":
            nodes[entry.u].add(entry.detail)
    for root in history.cancelled:
        for u, ids in nodes.items():
            if u == root or u.startswith(f"{root}."):
                for invocation_id in ids:
                    row = rows.by_id.get(invocation_id)
                    if row is None or row["failure_code"] != 409:
                        yield f"{u} below {root} was not cancelled: {row and (row['status'], row['failure_code'])}"


def an_output_never_changes(history: History, rows: Rows) -> Iterable[str]:
    for u, told in history.results.items():
        if any(one != told[0] for one in told):
            yield f"{u}: told {told}"


def integrity(history: History, rows: Rows) -> Iterable[str]:
    if rows.integrity != "ok":
        yield rows.integrity


INVARIANTS: tuple[Callable[[History, Rows], Iterable[str]], ...] = (
    integrity,
    accepted_request_survives,
    one_result_per_idempotency_key,  # a second invocation breaks others, too; this says why
    recorded_step_never_runs_again,
    one_exclusive_handler_per_key_in_order_of_acceptance,
    state_and_its_journal_entry_become_visible_together,
    timers_never_early_never_lost,
    first_completion_of_a_promise_wins,
    a_send_arrives_once,
    cancel_reaches_every_child,
    an_output_never_changes,
)


_OF_THE_END = (accepted_request_survives, timers_never_early_never_lost)


def judge(history: History, rows: Rows, *, is_over: bool = True) -> None:
    """
    Args:
        is_over: everything has had the time to come to its end.
    Raises:
        Violation: of the first invariant that does not hold.
    """
    history.is_over = is_over
    for invariant in INVARIANTS:
        if not is_over and invariant in _OF_THE_END:
            continue
        for what in invariant(history, rows):
            raise Violation(invariant.__name__, what)


def judge_at_rest(history: History, rows: Rows) -> None:
    """What must hold whenever the engine is not running, above all right after a crash.

    Raises:
        Violation: what was acknowledged is not there, or the rows do not fit together.
    """
    for what in integrity(history, rows):
        raise Violation("integrity", what)
    for what in state_and_its_journal_entry_become_visible_together(history, rows):
        raise Violation("state_and_its_journal_entry_become_visible_together", what)
    for u, invocation_id in history.accepted.items():
        row = rows.by_id.get(invocation_id)
        if row is None:
            raise Violation("accepted_request_survives", f"{u} was accepted as {invocation_id} and is not there")
        if u in history.results and row["status"] != "completed":
            raise Violation("an_output_never_changes", f"{u} was answered, and is {row['status']} after a crash")
