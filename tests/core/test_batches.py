"""One transaction per batch: what is written, what stays in memory, what a lost batch leaves."""

from __future__ import annotations

import apsw
import pytest

from holdfast.core.events import KillRequested
from holdfast.core.machine import NUMBERS_RESERVED
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from holdfast.protocol.wire import data, message
from tests.core import sdk
from tests.core.driver import START_MS, World


class Writes:
    """Counts the rows that SQLite changes, as SQLite itself tells it."""

    def __init__(self, world: World) -> None:
        self.invocations: list[int] = []
        world.connection.set_update_hook(self._changed)

    def _changed(self, kind: int, database: str, table: str, rowid: int) -> None:
        if table == "invocation":
            self.invocations.append(rowid)


def test_one_row_per_invocation_and_batch():
    world = World()
    writes = Writes(world)
    invocation = world.submit("Counter/add", "k")
    seq = world.seq(invocation)
    assert writes.invocations == [seq]
    writes.invocations.clear()
    world.says(
        invocation,
        sdk.run(1),
        sdk.run_result(1, b"1"),
        sdk.sleep(2, START_MS + 5),
        sdk.set_state("a", b"1"),
        sdk.output(),
        sdk.END,
    )
    assert writes.invocations == [seq]


def test_progress_alone_writes_the_journal_and_not_the_row():
    world = World()
    invocation = world.submit("Plain/run")
    writes = Writes(world)
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.signal(invocation, 17)
    assert writes.invocations == []
    assert world.count("journal") == 2


def test_one_journal_row_per_invocation_and_batch():
    world = World()
    one, two = world.submit("Plain/run"), world.submit("Plain/run")
    world.batch(
        world.said(one, sdk.run(1)),
        world.said(two, sdk.run(1)),
        world.said(one, sdk.run_result(1, b"1"), sdk.run(2)),
        world.signalled(one, 17),
    )
    rows = world.connection.execute("SELECT seq, first_index, entry_count FROM journal ORDER BY seq").fetchall()
    assert rows == [(world.seq(one), 1, 4), (world.seq(two), 1, 1)]


def test_indexes_go_on_without_gaps_after_a_crash():
    world = World()
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.crash()
    world.says(invocation, sdk.run(2))
    rows = world.connection.execute("SELECT first_index, entry_count FROM journal").fetchall()
    assert rows == [(1, 2), (3, 1)]


def test_numbers_are_never_used_again():
    world = World()
    numbers: list[int] = []
    for _ in range(5):
        numbers.append(world.seq(world.submit("Plain/run")))
        world.lose(world.submitted("Plain/run"), flushed=True)
        numbers.append(world.seq(world.submit("Plain/run")))
        world.crash()
    assert numbers == sorted(set(numbers))


def test_numbers_are_reserved_many_at_a_time():
    world = World()
    world.submit("Plain/run")
    first = world.tables.meta("next_number")
    for _ in range(50):
        world.submit("Counter/add", "k")
    assert world.tables.meta("next_number") == first == str(1 + NUMBERS_RESERVED)


def test_numbers_after_the_reserved_ones():
    world = World()
    world.machine.next_number()
    for _ in range(NUMBERS_RESERVED):
        world.machine.next_number()
    assert world.tables.meta("next_number") == str(1 + 2 * NUMBERS_RESERVED)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_lost_batch_did_not_happen(flushed: bool):
    world = World()
    invocation = world.submit("Counter/add", "k")
    before = dump(world)
    world.lose(
        world.submitted("Counter/add", "k"),
        world.said(invocation, sdk.set_state("a", b"1"), sdk.sleep(1, START_MS + 5), sdk.output(), sdk.END),
        flushed=flushed,
    )
    assert dump(world) == before
    assert world.started == [invocation, invocation]


def dump(world: World) -> dict[str, list[object]]:
    tables = [row[0] for row in world.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {table: list(world.connection.execute(f"SELECT * FROM {table}")) for table in tables}


def test_a_batch_may_hold_a_whole_life():
    world = World()
    invocation = world.submit("Plain/run")
    frames = [world.said(invocation, frame) for frame in (sdk.run(1), sdk.run_result(1, b"1"), sdk.output(), sdk.END)]
    del world.attempts[invocation]
    world.batch(*frames)
    assert world.status(invocation) == "completed"
    assert [kind for kind, _ in world.journal(invocation)] == [m.INPUT, m.RUN, m.RUN_COMPLETION]
    assert world.machine.resident == {}


def test_an_invocation_that_is_made_and_killed_in_one_batch():
    world = World()
    event = world.submitted("Counter/add", "k")
    world.batch(event, KillRequested(world.token(), event.id, world.now_ms))
    assert world.status(event.id) == "completed"
    assert event.id not in world.attempts
    assert world.status(world.submit("Counter/add", "k")) == "invoked"


def test_one_that_is_queued_and_killed_in_one_batch_leaves_nothing():
    world = World()
    world.submit("Counter/add", "k")
    event = world.submitted("Counter/add", "k", body=bytes(5_000))
    world.batch(event, KillRequested(world.token(), event.id, world.now_ms))
    assert world.status(event.id) == "gone"
    assert (world.count("invocation"), world.count("journal")) == (1, 0)


def test_run_results_are_acknowledged_in_version_7_and_stored_whole():
    world = World(7)
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"r"))
    assert world.attempts[invocation].received == [(m.PROPOSE_RUN_COMPLETION_ACK, m.uint(1, 1))]
    assert world.result(invocation, 1) == Result(value=b"r")
    world.crash()
    assert [kind for kind, _ in world.attempts[invocation].known] == [m.INPUT, m.RUN, m.RUN_COMPLETION]


@pytest.mark.parametrize("version", [5, 6])
def test_run_results_come_back_whole_before_version_7(version: int):
    world = World(version)
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_failure(1, 400, "no"))
    assert [kind for kind, _ in world.attempts[invocation].received] == [m.RUN_COMPLETION]
    assert world.result(invocation, 1) == Result(failure=(400, "no", {}))


def test_nothing_is_forwarded_before_its_commit():
    world = World()
    invocation = world.submit("Plain/run")
    world.tables.begin()
    world.machine.apply(world.signalled(invocation, 17))
    assert world.attempts[invocation].received == []
    world.tables.rollback()
    world.crash()
    assert len(world.attempts[invocation].known) == 1


def test_what_is_in_memory_is_what_runs():
    world = World()
    running = [world.submit("Counter/add", f"k{number}") for number in range(5)]
    for invocation in running:
        world.submit("Counter/add", "k0")
        world.fail(invocation)
    assert {inv.id for inv in world.machine.resident.values()} == set(running)
    for invocation in running:
        world.retry(invocation)
        world.suspend(invocation, signals=(17,))
    assert world.machine.resident == {}


def test_forgetting_is_refused_while_something_happens():
    world = World()
    invocation = world.submit("Plain/run")
    inv = world.machine.resident[world.seq(invocation)]
    world.machine.forget(inv)
    assert world.machine.find(invocation) is inv
    inv.in_flight = False
    world.machine.forget(inv)
    assert world.machine.resident == {}


def test_an_error_of_the_database_reaches_the_caller():
    world = World()
    invocation = world.submit("Plain/run")
    world.connection.execute("DROP TABLE journal")
    with pytest.raises(apsw.SQLError):
        world.says(invocation, sdk.run(1))


def test_unknown_fields_of_commands_are_stored_as_they_came():
    world = World()
    invocation = world.submit("Plain/run")
    command = (m.RUN, sdk.run(1)[1] + data(99 % 32, b"later version"))
    world.says(invocation, command)
    assert world.journal(invocation)[-1] == command
    assert message(command[1])[11] == 1
