"""What was promised to the outside, checked against rows, and nothing else: the oracle of the simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from holdfast.core import awaiting
from holdfast.protocol import messages as m
from holdfast.protocol.wire import message, split
from tests.core.sdk import Frame
from tests.core.simulated import Simulated, is_notification, leaf_of
from tests.support.violation import Violation

LIVE = ("invoked", "suspended", "paused")


class Promises:
    """Looks at a simulated world after every step; remembers what it saw before."""

    def __init__(self, simulated: Simulated) -> None:
        self.simulated = simulated
        self.world = simulated.world
        info = self.world.connection.execute("PRAGMA table_info(invocation)")
        self.columns: list[str] = [column[1] for column in info]
        self.rows: list[dict[str, Any]] = []
        self.journals: dict[int, bytes] = {}
        self.results: dict[int, bytes] = {}
        self.promises: dict[tuple[str, str, str], bytes] = {}
        self.queues: dict[tuple[str, str], list[int]] = {}

    def check(self) -> None:
        rows = self.world.connection.execute("SELECT * FROM invocation")
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in rows]
        for invariant, checks in INVARIANTS.items():
            for check in checks:
                try:
                    check(self)
                except AssertionError as error:
                    raise Violation(invariant, f"{check.__name__}: {error}") from error

    def of_status(self, *statuses: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] in statuses]

    def frames(self, row: dict[str, Any]) -> list[Frame]:
        return list(split(self.journals[row["seq"]]))

    def journals_only_grow(self) -> None:
        journals: dict[int, bytes] = {}
        for row in self.rows:
            journal = row["head"] + self.world.tables.journal(row["seq"])
            known = self.journals.get(row["seq"], b"")
            # Without retention a journal goes with its invocation, never before.
            assert journal.startswith(known) or row["status"] == "completed", "an entry was changed"
            journals[row["seq"]] = journal
        self.journals = journals

    def accepted_survives(self) -> None:
        stored = {row["id"] for row in self.rows}
        for invocation, before in list(self.simulated.accepted.items()):
            completions = self.world.completions.get(invocation, [])[before:]
            assert completions or invocation in stored, "an accepted invocation was lost"
            assert len(completions) <= 1, "answered twice"
            if invocation not in stored:  # over and forgotten; its id may come back
                del self.simulated.accepted[invocation]
                self.simulated.forgotten.append(invocation)

    def a_result_never_changes(self) -> None:
        for row in self.of_status("completed"):
            assert self.results.setdefault(row["seq"], row["output"]) == row["output"]
        over = {row["seq"] for row in self.of_status("completed")}
        assert not {row["seq"] for row in self.rows} & (self.results.keys() - over), "it came back to life"

    def state_is_what_a_journal_says(self) -> None:
        """Handlers write their own id: whoever is read there has that entry in its journal, or an operator wrote it."""
        journals = {row["id"]: row for row in self.rows if self.journals[row["seq"]]}
        rows = self.world.connection.execute("SELECT value FROM state WHERE name = 'n'")
        for value in [row[0] for row in rows]:
            row = journals.get(value.decode(errors="replace"))
            if row is not None:
                assert m.SET_STATE in {kind for kind, _ in self.frames(row)}, "state without its entry"
        for row in self.of_status(*LIVE):
            if row["exclusive"] and m.SET_STATE in {kind for kind, _ in self.frames(row)}:
                written = self.world.state(row["service"], row["key"]).get("n")
                # Nobody else writes while it holds the key, operators wait in its queue.
                assert written == row["id"].encode(), "an entry without its state"

    def one_row_per_idempotency_key(self) -> None:
        keyed = [
            (row["service"], row["key"], row["handler"], row["idempotency_key"])
            for row in self.rows
            if row["idempotency_key"] is not None
        ]
        assert len(keyed) == len(set(keyed)), "one key, two invocations"

    def one_child_per_command(self) -> None:
        made = Counter(row["invoked_by_id"] for row in self.rows if row["invoked_by_id"] is not None)
        for row in self.rows:
            is_unique = row["idempotency_key"] is None and row["service"] != "Flow"  # else its id may come back
            if self.journals[row["seq"]] and is_unique:
                asked = [kind for kind, _ in self.frames(row) if kind in (m.CALL, m.ONE_WAY_CALL)]
                assert made[row["id"]] <= len(asked), "more children than commands"

    def one_holds_a_key(self) -> None:
        holding = [(row["service"], row["key"]) for row in self.of_status(*LIVE) if row["exclusive"]]
        assert len(holding) == len(set(holding)), "two hold one key"
        waiting = {(row["service"], row["key"]) for row in self.of_status("inboxed")}
        assert waiting <= set(holding), "somebody waits for a key that nobody holds"

    def queues_keep_their_order(self) -> None:
        queues: dict[tuple[str, str], list[int]] = {}
        for row in sorted(self.of_status("inboxed"), key=lambda row: row["inbox_seq"]):
            queues.setdefault((row["service"], row["key"]), []).append(row["seq"])
        for place, before in self.queues.items():
            now = queues.get(place, [])
            still = [seq for seq in before if seq in now]
            assert now[: len(still)] == still, "the queue was reordered"
            for row in self.of_status(*LIVE):
                if row["exclusive"] and (row["service"], row["key"]) == place and row["seq"] in before:
                    overtaken = before[: before.index(row["seq"])]
                    assert not set(overtaken) & set(now), "the queue was jumped"
        self.queues = queues

    def every_need_has_a_timer_and_every_timer_is_needed(self) -> None:
        needed = {(row["start_at_ms"], row["seq"], 0) for row in self.of_status("scheduled")}
        for row in self.of_status(*LIVE):
            sleeping: dict[object, object] = {}
            for kind, body in self.frames(row):
                if kind == m.SLEEP:
                    sleeping[message(body)[11]] = message(body)[1]
                elif kind == m.SLEEP_COMPLETION:
                    del sleeping[message(body)[1]]
            needed |= {(due_ms, row["seq"], completion_id) for completion_id, due_ms in sleeping.items()}
        assert set(self.world.timers()) == needed

    def the_first_completion_of_a_promise_wins(self) -> None:
        rows = self.world.connection.execute("SELECT * FROM promise")
        stored = {(service, key, name): result for service, key, name, result in rows}
        if not self.simulated.may_have_forgotten:
            assert self.promises.items() <= stored.items(), "a completed promise changed"
        self.simulated.may_have_forgotten = False
        self.promises = stored
        for listening in self.world.connection.execute("SELECT service, key, name FROM promise_listener"):
            assert listening not in stored, "somebody still waits for a completed promise"

    def nothing_awaited_is_slept_through(self) -> None:
        for row in self.of_status("suspended"):
            arrived = {leaf_of(frame) for frame in self.frames(row) if is_notification(frame)}
            awaited = awaiting.from_json(row["awaiting"]).leaves()
            assert awaited
            assert not set(awaited) & arrived

    def a_call_and_its_child_agree(self) -> None:
        over = {row["id"] for row in self.of_status("completed")}
        for row in self.of_status(*LIVE):
            frames = self.frames(row)
            answered = {leaf_of(frame) for frame in frames if is_notification(frame)}
            for (kind, body), (following, told) in zip(frames, [*frames[1:], (0, b"")], strict=True):
                if kind not in (m.CALL, m.ONE_WAY_CALL):
                    continue
                assert following == m.CALL_INVOCATION_ID, "the child's id stands directly behind the command"
                child = message(told)[16]
                assert isinstance(child, bytes)
                if kind == m.CALL and child.decode() in over:
                    assert (message(body)[11],) in answered, "a finished child did not answer its caller"

    def what_should_run_runs(self) -> None:
        if self.simulated.kept:
            return
        world = self.world
        invoked = {row["id"] for row in self.of_status("invoked")}
        assert invoked == world.attempts.keys() | world.retries.keys(), "nobody works on it, or on one too many"
        assert {inv.id for inv in world.machine.resident.values()} == invoked, "only what runs is in memory"
        assert world.machine.by_id.keys() == invoked
        for invocation, attempt in world.attempts.items():
            assert world.machine.resident[attempt.invocation.seq] is attempt.invocation, "two copies in memory"
            assert world.machine.by_id[invocation] is attempt.invocation

    def attempts_see_what_is_stored_in_its_order(self) -> None:
        if self.simulated.kept:
            return
        rows = {row["id"]: row for row in self.rows}
        for invocation, attempt in self.world.attempts.items():
            stored = [leaf_of(frame) for frame in self.frames(rows[invocation]) if is_notification(frame)]
            seen = [leaf_of(frame) for frame in attempt.known + attempt.received if is_notification(frame)]
            assert seen == stored[: len(seen)]
            assert attempt.is_closed or len(seen) == len(stored), "a notification was not sent"

    def everything_finishes(self) -> None:
        """Without further trouble: whoever has stopped is resumed, every handler returns, time passes."""
        self.simulated.commit()
        world = self.world
        for _ in range(200):
            for row in self.of_status("paused", "suspended"):
                if world.status(row["id"]) == row["status"]:
                    world.resume(row["id"])
            for invocation in list(world.retries):
                world.retry(invocation)
            for invocation in list(world.attempts):
                if invocation in world.attempts:
                    world.finish(invocation)
            world.advance(1_000)
            self.check()
            if len(self.of_status("completed")) == len(self.rows):
                break
        assert self.of_status("completed") == self.rows, "something never finishes"
        assert world.timers() == []
        assert world.count("state_mutation") == 0
        assert world.machine.resident == {}


INVARIANTS: dict[str, tuple[Callable[[Promises], None], ...]] = {
    "recorded_step_never_runs_again": (
        Promises.journals_only_grow,
        Promises.attempts_see_what_is_stored_in_its_order,
    ),
    "accepted_request_survives": (
        Promises.accepted_survives,
        Promises.nothing_awaited_is_slept_through,
        Promises.what_should_run_runs,
    ),
    "an_output_never_changes": (Promises.a_result_never_changes,),
    "one_exclusive_handler_per_key_in_order_of_acceptance": (
        Promises.one_holds_a_key,
        Promises.queues_keep_their_order,
    ),
    "state_and_its_journal_entry_become_visible_together": (Promises.state_is_what_a_journal_says,),
    "one_result_per_idempotency_key": (Promises.one_row_per_idempotency_key,),
    "timers_never_early_never_lost": (Promises.every_need_has_a_timer_and_every_timer_is_needed,),
    "first_completion_of_a_promise_wins": (Promises.the_first_completion_of_a_promise_wins,),
    "a_send_arrives_once": (Promises.a_call_and_its_child_agree, Promises.one_child_per_command),
}
"""By the names that tests/simulation has for them. `simulated.py` itself looks whether a cancel reaches every child."""
