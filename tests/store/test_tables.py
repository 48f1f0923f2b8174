"""The tables: what goes in comes out, in the order that the core relies on."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.model import Invocation, Status
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Awaited
from holdfast.store.database import connect
from holdfast.store.sqlite import SqliteTables
from tests.core.driver import START_MS, World
from tests.core.services import spec


@pytest.fixture
def tables() -> SqliteTables:
    return SqliteTables(connect(None, fsync=False))


def invocation(seq: int = 1, status: str = Status.INVOKED, key: str | None = "k") -> Invocation:
    return Invocation(seq, f"inv_{seq}", "Counter", "add", key, True, status, START_MS, spec("Counter/add"))


DURABLE = Invocation.__slots__[: Invocation.__slots__.index("output") + 1]


def filled() -> Invocation:
    """An invocation with a value in every durable field."""
    inv = invocation()
    inv.modified_at_ms, inv.start_at_ms, inv.completed_at_ms = 2, 3, 4
    inv.idempotency_key, inv.invoked_by_id, inv.invoked_by_target = "i", "inv_0", "Plain/run"
    inv.sink_seq, inv.sink_completion_id, inv.has_listeners = 7, 8, True
    inv.head, inv.entries = m.input_frame([], b"in"), 1
    inv.random_seed = 2**64 - 1
    inv.retention_ms, inv.journal_retention_ms, inv.inbox_seq = 9, 10, 11
    inv.deployment_id, inv.protocol_version = "dp_1", 7
    inv.awaiting = Awaited((1,), (17,), ("n",), (Awaited((2,), combinator=2),))
    inv.output, inv.failure_code = b"out", 409
    return inv


def durable(inv: Invocation) -> dict[str, object]:
    return {name: getattr(inv, name) for name in DURABLE}


def test_an_invocation_is_read_as_it_was_written(tables: SqliteTables):
    inv = filled()
    tables.insert_invocations([inv])
    for read in (tables.invocation_by_id("inv_1"), tables.invocation_by_seq(1)):
        assert read is not None
        assert durable(read) == durable(inv)
        assert (read.attempt, read.in_flight, read.spec) == (0, False, None)


def test_an_invocation_without_anything(tables: SqliteTables):
    inv = invocation(key=None)
    tables.insert_invocations([inv])
    read = tables.invocation_by_seq(1)
    assert read is not None
    assert durable(read) == durable(inv)


def test_an_update_changes_what_may_change(tables: SqliteTables):
    tables.insert_invocations([invocation()])
    inv = filled()
    inv.status = Status.COMPLETED
    tables.update_invocations([inv])
    read = tables.invocation_by_seq(1)
    assert read is not None
    fixed = {"start_at_ms", "idempotency_key", "invoked_by_id", "invoked_by_target", "sink_seq", "sink_completion_id"}
    fixed |= {"random_seed", "retention_ms", "journal_retention_ms"}
    assert {name: value for name, value in durable(read).items() if name not in fixed} == {
        name: value for name, value in durable(inv).items() if name not in fixed
    }


def test_unknown_invocations(tables: SqliteTables):
    assert (tables.invocation_by_id("inv_1"), tables.invocation_by_seq(1)) == (None, None)
    tables.delete_invocation(1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4), max_size=6))
def test_a_journal_is_read_in_the_order_it_was_written(batches: list[list[bytes]]):
    tables = SqliteTables(connect(None, fsync=False))
    inv = invocation()
    inv.head = b"head"
    tables.insert_invocations([inv])
    index = 1
    for batch in batches:
        tables.append_journal([(1, index, len(batch), START_MS + index, b"".join(batch))])
        index += len(batch)
    assert tables.journal(1) == b"".join([b"".join(batch) for batch in batches])
    read = tables.invocation_by_seq(1)
    assert read is not None
    assert read.entries == index
    tables.delete_journal(1)
    assert tables.journal(1) == b""


def test_the_queue_of_a_key(tables: SqliteTables):
    statuses = {1: Status.COMPLETED, 2: Status.INBOXED, 3: Status.SUSPENDED, 4: Status.INBOXED, 5: Status.SCHEDULED}
    for seq, status in statuses.items():
        inv = invocation(seq, status)
        inv.inbox_seq = 20 - seq if status == Status.INBOXED else None
        tables.insert_invocations([inv])
    other = invocation(6, Status.PAUSED, key="other")
    shared = invocation(7, Status.INVOKED)
    shared.exclusive = False
    tables.insert_invocations([other, shared])
    tables.add_mutation(17, "Counter", "k", {"a": b"\x00\xff"}, "v")
    assert tables.key_queue("Counter", "k") == (3, [4, -17, 2])
    assert tables.key_queue("Counter", "other") == (6, [])
    assert tables.key_queue("Counter", "nobody") == (None, [])
    assert tables.take_mutation(17) == ({"a": b"\x00\xff"}, "v")
    assert tables.key_queue("Counter", "k") == (3, [4, 2])


def test_state(tables: SqliteTables):
    tables.set_state("S", "k", "b", b"2")
    tables.set_state("S", "k", "a", b"")
    tables.set_state("S", "k", "b", b"3")
    tables.set_state("S", "other", "a", b"x")
    assert tables.state("S", "k") == [("a", b""), ("b", b"3")]
    assert (tables.state_value("S", "k", "a"), tables.state_value("S", "k", "c")) == (b"", None)
    tables.clear_state("S", "k", "a")
    tables.clear_state("S", "k", "never")
    assert tables.state("S", "k") == [("b", b"3")]
    tables.clear_all_state("S", "k")
    assert (tables.state("S", "k"), tables.state("S", "other")) == ([], [("a", b"x")])


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.binary(max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_key_name_and_value_is_kept(service: str, key: str, name: str, value: bytes):
    tables = SqliteTables(connect(None, fsync=False))
    tables.set_state(service, key, name, value)
    assert tables.state(service, key) == [(name, value)]


def test_promises_and_who_waits_for_them(tables: SqliteTables):
    assert tables.promise("S", "k", "p") is None
    for seq, completion_id in ((2, 1), (1, 2), (1, 1), (1, 1)):
        tables.add_promise_listener("S", "k", "p", seq, completion_id)
    tables.complete_promise("S", "k", "p", b"r")
    assert tables.promise("S", "k", "p") == b"r"
    assert tables.take_promise_listeners("S", "k", "p") == [(1, 1), (1, 2), (2, 1)]
    assert tables.take_promise_listeners("S", "k", "p") == []
    tables.add_promise_listener("S", "k", "q", 1, 1)
    tables.delete_promises("S", "k")
    assert (tables.promise("S", "k", "p"), tables.take_promise_listeners("S", "k", "q")) == (None, [])


def test_listeners(tables: SqliteTables):
    for seq, completion_id in ((3, 1), (2, 5), (2, 4)):
        tables.add_listener(1, seq, completion_id, m.CALL_COMPLETION)
    assert tables.take_listeners(1) == [(2, 4, 0x800D), (2, 5, 0x800D), (3, 1, 0x800D)]
    assert tables.take_listeners(1) == []


def test_timers_are_due_in_order(tables: SqliteTables):
    assert tables.next_timer_ms() is None
    for due_ms, seq in ((30, 1), (10, 2), (20, 3), (2**64 - 1, 4)):
        tables.add_timer(due_ms, seq, 0)
    assert tables.next_timer_ms() == 10
    assert tables.due_timers(20, 10) == [(10, 2, 0), (20, 3, 0)]
    assert tables.due_timers(100, 1) == [(10, 2, 0)]
    tables.remove_timer(10, 2, 0)
    tables.remove_timer(2**64 - 1, 4, 0)
    assert tables.due_timers(2**63 - 1, 10) == [(20, 3, 0), (30, 1, 0)]


def test_what_an_attempt_should_be_working_on(tables: SqliteTables):
    statuses = [Status.SUSPENDED, Status.INVOKED, Status.COMPLETED, Status.INVOKED, Status.SCHEDULED, Status.PAUSED]
    for seq, status in reversed(list(enumerate(statuses, start=1))):
        tables.insert_invocations([invocation(seq, status, key=str(seq))])
    assert tables.invoked() == [2, 4]


def test_meta(tables: SqliteTables):
    assert tables.meta("next_number") is None
    tables.reserve_numbers(5)
    tables.reserve_numbers(9)
    assert tables.meta("next_number") == "9"


# ---- retention -----------------------------------------------------------------------------------------------------------


def kept(tables: SqliteTables, seq: int, *, retention_ms: int, journal_retention_ms: int, head: bytes = b"h") -> None:
    inv = invocation(seq, Status.COMPLETED)
    inv.completed_at_ms, inv.retention_ms, inv.journal_retention_ms = START_MS, retention_ms, journal_retention_ms
    inv.head = head
    tables.insert_invocations([inv])


def test_expired(tables: SqliteTables):
    kept(tables, 1, retention_ms=100, journal_retention_ms=100)
    kept(tables, 2, retention_ms=200, journal_retention_ms=100)
    kept(tables, 3, retention_ms=200, journal_retention_ms=200)
    tables.insert_invocations([invocation(4)])
    assert tables.expired(START_MS + 99, 0, 10) == (0, [])
    assert tables.expired(START_MS + 100, 0, 10) == (0, [("inv_1", False), ("inv_2", True)])
    assert tables.expired(START_MS + 200, 0, 10) == (0, [("inv_1", False), ("inv_2", False), ("inv_3", False)])


def test_expired_looks_at_some_rows_at_a_time(tables: SqliteTables):
    for seq in range(1, 6):
        kept(tables, seq, retention_ms=1, journal_retention_ms=1)
    seen, after = [], 0
    for _ in range(3):
        after, expired = tables.expired(START_MS + 1, after, 2)
        seen += [invocation_id for invocation_id, _ in expired]
        if after == 0:
            break
    assert seen == [f"inv_{seq}" for seq in range(1, 6)]


def test_the_journal_of_a_large_input_expires_too():
    world = World()
    for body in (b"small", bytes(10_000)):
        run = world.submit("OutputOnly/run", idempotency_key=str(len(body)), body=body)
        world.says(run, *[(m.RUN, m.uint(11, 1))])
    world.connection.execute("UPDATE invocation SET journal_retention_ms = 10, retention_ms = 1000")
    world.crash()
    for invocation_id in list(world.attempts):
        world.finish(invocation_id)
    _, expired = world.tables.expired(world.now_ms + 10, 0, 10)
    assert [journal_only for _, journal_only in expired] == [True, True]


LARGE = bytes(4 << 20)


@pytest.mark.parametrize("table", ["state", "promise", "journal"])
def test_a_large_value_costs_its_neighbours_nothing(tables: SqliteTables, table: str):
    """Pages that SQLite looks at, a thousand for the large value, are told by its cache."""
    put = {
        "state": lambda name, value: tables.set_state("Counter", "k", name, value),
        "promise": lambda name, value: tables.complete_promise("Flow", "k", name, value),
        "journal": lambda name, value: tables.append_journal([(ord(name), 1, 1, START_MS, value)]),
    }[table]
    connection = tables.connection
    for name in "bdf":
        put(name, LARGE)
    connection.status(apsw.SQLITE_DBSTATUS_CACHE_HIT, reset=True)
    for name in "aceg":
        put(name, b"small")
    pages, _ = connection.status(apsw.SQLITE_DBSTATUS_CACHE_HIT)
    assert pages < 100
