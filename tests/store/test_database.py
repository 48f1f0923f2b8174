"""The database file: made once, reopened, refused untouched when it is not ours, and a commit means something."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from holdfast.errors import DatabaseRefused
from holdfast.store.database import APPLICATION_ID, SCHEMA_VERSION, connect
from holdfast.store.sqlite import SqliteTables
from tests.core.driver import START_MS, World


def make(path: Path, *, rows: int = 0) -> None:
    """A database of ours with some content, closed properly."""
    connection = connect(path, fsync=False)
    world = World(connection=connection)
    for number in range(rows):
        world.finish(world.submit("Counter/add", f"k{number}", body=bytes(1_000)))
    connection.close()


def edit(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


# ---- made and reopened -------------------------------------------------------------------------------------------------


def test_a_fresh_file(tmp_path: Path):
    path = tmp_path / "app.db"
    connection = connect(path, fsync=True)
    assert connection.pragma("application_id") == APPLICATION_ID
    assert connection.pragma("user_version") == SCHEMA_VERSION
    connection.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_its_log_is_as_private_as_the_file(tmp_path: Path):
    connection = connect(tmp_path / "app.db", fsync=False)
    World(connection=connection).submit("Plain/run")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}
    connection.close()


def test_a_file_that_others_may_read_becomes_private(tmp_path: Path):
    path = tmp_path / "app.db"
    make(path, rows=1)
    path.chmod(0o664)
    connection = connect(path, fsync=False)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}
    connection.close()


def test_an_empty_file_becomes_a_database(tmp_path: Path):
    path = tmp_path / "app.db"
    path.touch()
    connect(path, fsync=False).close()
    assert path.stat().st_size > 0


def test_reopened_it_has_what_was_stored(tmp_path: Path):
    path = tmp_path / "app.db"
    connection = connect(path, fsync=False)
    world = World(connection=connection)
    waiting = [world.submit("Counter/add", "k") for _ in range(3)]
    connection.close()
    world = World(connection=connect(path, fsync=False))
    world.crash()
    assert [world.status(invocation) for invocation in waiting] == ["invoked", "inboxed", "inboxed"]
    assert list(world.attempts) == waiting[:1]
    world.connection.close()


def test_reopening_changes_no_schema(tmp_path: Path):
    path = tmp_path / "app.db"
    make(path)
    before = path.read_bytes()
    connect(path, fsync=False).close()
    assert path.read_bytes() == before


def test_a_file_of_schema_4_learns_when_its_invocations_waited_and_ran(tmp_path: Path):
    path = tmp_path / "app.db"
    connection = connect(path, fsync=False)
    world = World(connection=connection)
    done, sent = world.submit("Plain/run"), world.submit("Plain/run", start_at_ms=START_MS + 5)
    later = world.submit("Plain/run", start_at_ms=START_MS + 90)
    world.finish(done)
    world.advance(5)
    holder, waiting = world.submit("Counter/add", "k"), world.submit("Counter/add", "k")
    connection.close()
    edit(
        path,
        "ALTER TABLE invocation DROP COLUMN inboxed_at_ms",
        "ALTER TABLE invocation DROP COLUMN running_at_ms",
        "PRAGMA user_version = 4",
    )
    connection = connect(path, fsync=False)
    columns = "id, inboxed_at_ms - created_at_ms, running_at_ms - created_at_ms"
    rows = connection.execute(f"SELECT {columns} FROM invocation ORDER BY seq").fetchall()
    assert rows == [
        (done, None, 0),
        (sent, None, 5),
        (later, None, None),
        (holder, None, None),  # nobody knows any more whether it had to wait
        (waiting, 0, None),
    ]
    world = World(connection=connection)
    world.crash()
    world.finish(holder)
    assert world.started[-1] == waiting
    connection.close()


def test_the_log_of_a_process_that_died_is_read(tmp_path: Path):
    path = tmp_path / "app.db"
    connection = connect(path, fsync=False)
    World(connection=connection).submit("Plain/run")
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    connection.close()
    connection = connect(copy, fsync=False)
    assert connection.execute("SELECT count(*) FROM invocation").fetchall() == [(1,)]
    connection.close()


def test_a_new_file_is_ours_completely_or_not_at_all(tmp_path: Path):
    # A process that dies while it makes the file leaves one that the next process can finish.
    path = tmp_path / "app.db"
    edit(path, "PRAGMA journal_mode = wal")
    connection = connect(path, fsync=False)
    assert connection.pragma("user_version") == SCHEMA_VERSION
    connection.close()


# ---- what a commit means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fsync", "synchronous"), [(True, 2), (False, 1)])
def test_pragmas(tmp_path: Path, fsync: bool, synchronous: int):
    connection = connect(tmp_path / "app.db", fsync=fsync)
    assert connection.pragma("synchronous") == synchronous
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("fullfsync") == 1
    assert connection.pragma("checkpoint_fullfsync") == 1
    connection.close()


def test_in_memory():
    connection = connect(None, fsync=True)
    assert connection.pragma("journal_mode") == "memory"
    assert connection.execute("SELECT count(*) FROM invocation").fetchall() == [(0,)]


def test_the_write_ahead_log_reset_bug_is_fixed():
    assert apsw.sqlite_lib_version() >= "3.51.3"


def test_a_failed_batch_leaves_nothing(tmp_path: Path):
    connection = connect(tmp_path / "app.db", fsync=False)
    tables = SqliteTables(connection)
    tables.begin()
    tables.set_state("S", "k", "a", b"1")
    tables.add_timer(1, 1, 1)
    tables.complete_promise("S", "k", "p", b"")
    with pytest.raises(apsw.ConstraintError):
        tables.complete_promise("S", "k", "p", b"")
    tables.rollback()
    assert [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("state", "timer", "promise")] == [
        [],
        [],
        [],
    ]
    tables.begin()
    tables.commit()
    connection.close()


def test_a_batch_is_not_seen_before_its_commit(tmp_path: Path):
    path = tmp_path / "app.db"
    connection, reader = connect(path, fsync=False), apsw.Connection(str(path))
    tables = SqliteTables(connection)
    tables.begin()
    tables.set_state("S", "k", "a", b"1")
    assert reader.execute("SELECT * FROM state").fetchall() == []
    tables.commit()
    assert reader.execute("SELECT * FROM state").fetchall() == [("S", "k", "a", b"1")]
    reader.close()
    connection.close()


def test_rollback_without_a_batch_is_harmless():
    SqliteTables(connect(None, fsync=False)).rollback()


def test_a_full_disk_is_an_error_of_the_commit_or_before_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "app.db"
    make(path)
    connection = connect(path, fsync=False)
    connection.pragma("max_page_count", connection.pragma("page_count"))
    tables = SqliteTables(connection)
    tables.begin()
    tables.set_state("S", "k", "small", b"")
    with pytest.raises(apsw.FullError):
        tables.set_state("S", "k", "large", bytes(500_000))
    tables.rollback()
    assert connection.execute("SELECT count(*) FROM state").fetchall() == [(0,)]
    connection.close()


# ---- refused, and untouched ----------------------------------------------------------------------------------------------


def newer(path: Path) -> None:
    make(path, rows=3)
    edit(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def foreign(path: Path) -> None:
    edit(path, "CREATE TABLE cards (id INTEGER)", "INSERT INTO cards VALUES (1)")


def foreign_with_application_id(path: Path) -> None:
    edit(path, "PRAGMA application_id = 99", "CREATE TABLE cards (id INTEGER)")


def foreign_without_tables(path: Path) -> None:
    # Another program has set its mark, but not made its tables yet.
    edit(path, "PRAGMA application_id = 99", f"PRAGMA user_version = {SCHEMA_VERSION}")


def text(path: Path) -> None:
    path.write_text("dear diary\n" * 100)


def truncated(path: Path) -> None:
    make(path, rows=50)
    os.truncate(path, path.stat().st_size // 2)


def truncated_in_its_header(path: Path) -> None:
    make(path)
    os.truncate(path, 50)


def one_byte(path: Path) -> None:
    path.write_bytes(b"\x00")


def overwritten_in_the_middle(path: Path) -> None:
    make(path, rows=50)
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)


def with_a_broken_header(path: Path) -> None:
    make(path, rows=5)
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 40)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer schema": (newer, f"schema version {SCHEMA_VERSION + 1}, this holdfast knows up to {SCHEMA_VERSION}"),
    "of another program": (foreign, "another program"),
    "of another program, marked": (foreign_with_application_id, "another program"),
    "of another program, still without tables": (foreign_without_tables, "another program"),
    "no SQLite": (text, "not a SQLite database"),
    "one byte": (one_byte, "not a SQLite database"),
    "cut in half": (truncated, "damaged|cannot be read"),
    "cut in its header": (truncated_in_its_header, "damaged|cannot be read|not a SQLite"),
    "overwritten": (overwritten_in_the_middle, "damaged|cannot be read"),
    "broken header": (with_a_broken_header, "damaged|cannot be read|not a SQLite"),
}


@pytest.mark.parametrize(("spoil", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_untouched_and_told_what_to_do(tmp_path: Path, spoil: Callable[[Path], None], words: str):
    path = tmp_path / "app.db"
    spoil(path)
    before = contents(tmp_path)
    with pytest.raises(DatabaseRefused, match=words) as refusal:
        connect(path, fsync=True)
    assert str(path) in str(refusal.value)
    assert refusal.value.hint
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_directory(tmp_path: Path):
    with pytest.raises(DatabaseRefused, match="is a directory"):
        connect(tmp_path, fsync=True)
    assert contents(tmp_path) == {}


def test_a_missing_directory(tmp_path: Path):
    path = tmp_path / "missing" / "app.db"
    with pytest.raises(DatabaseRefused, match="does not exist") as refusal:
        connect(path, fsync=True)
    assert "mkdir" in refusal.value.hint
    assert contents(tmp_path) == {}


def test_a_damaged_log_is_not_taken_for_content(tmp_path: Path):
    # SQLite's own rule: frames behind a bad checksum were never committed.
    path = tmp_path / "app.db"
    connection = connect(path, fsync=False)
    World(connection=connection).submit("Plain/run")
    copy, log = tmp_path / "copy.db", tmp_path / "copy.db-wal"
    copy.write_bytes(path.read_bytes())
    log.write_bytes((tmp_path / "app.db-wal").read_bytes()[:-100])
    connection.close()
    connection = connect(copy, fsync=False)
    assert connection.execute("SELECT count(*) FROM invocation").fetchall() == [(0,)]
    connection.close()
