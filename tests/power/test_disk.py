"""The simulated disk itself: what a sync promises stays, everything else may be lost, in every combination."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.power.disk import PAGE, SECTOR, Disk, Op, Platters, full_error, io_error, write_images


def changed(*ops: Op) -> Platters:
    platters = Platters({"a": b"." * 4 * SECTOR})
    for op in ops:
        platters.apply(op)
    return platters


def outcomes(platters: Platters, count: int = 300) -> set[bytes | None]:
    """What `a` may be after a power failure."""
    return {platters.after_power_loss(Random(seed)).get("a") for seed in range(count)}


def test_a_synced_write_stays() -> None:
    platters = changed(Op("write", "a", 0, b"x" * SECTOR), Op("sync", "a"))
    assert platters.is_settled
    assert outcomes(platters) == {b"x" * SECTOR + b"." * 3 * SECTOR}


def test_writes_without_a_sync_are_lost_torn_and_reordered() -> None:
    found = outcomes(changed(Op("write", "a", 0, b"x" * 2 * SECTOR), Op("write", "a", 2 * SECTOR, b"y" * SECTOR)))
    dots, x, y = b"." * SECTOR, b"x" * SECTOR, b"y" * SECTOR
    for first in (dots, x):
        for second in (dots, x):
            for third in (dots, y):
                assert first + second + third + dots in found
    garbage = [one for one in found if one is not None and not set(one) <= {*b".xy"}]
    assert garbage, "a sector that is being written can become anything"
    assert all(one is not None and one.endswith(dots) for one in found), "bytes outside of a write never change"


def test_a_longer_file_may_be_long_and_empty() -> None:
    found = outcomes(changed(Op("write", "a", 4 * SECTOR, b"x" * SECTOR)))
    assert {b"." * 4 * SECTOR, b"." * 4 * SECTOR + b"x" * SECTOR, b"." * 4 * SECTOR + bytes(SECTOR)} <= found


def test_names_need_a_sync_of_their_folder() -> None:
    made = Platters()
    made.apply(Op("create", "a"))
    made.apply(Op("write", "a", 0, b"x"))
    made.apply(Op("sync", "a"))
    assert outcomes(made) == {None, b"x"}
    made.apply(Op("sync", "a", syncs_folder=True))
    assert outcomes(made) == {b"x"}
    made.apply(Op("delete", "a"))
    assert outcomes(made) == {None, b"x"}


def test_after_a_failed_sync_the_cache_lies() -> None:
    """What could not be written is shown, no longer dirty, and not on the disk: a later sync does not bring it there."""
    platters = changed(Op("write", "a", 0, b"x" * SECTOR), Op("sync", "a", failed=True), Op("sync", "a"))
    assert platters.cache()["a"].startswith(b"x")
    assert outcomes(platters) == {b"." * 4 * SECTOR}


def test_a_page_that_is_dirty_again_is_written_whole() -> None:
    platters = changed(
        Op("write", "a", 0, b"x"), Op("sync", "a", failed=True), Op("write", "a", SECTOR, b"y"), Op("sync", "a")
    )
    assert outcomes(platters) == {b"x" + b"." * (SECTOR - 1) + b"y" + b"." * (3 * SECTOR - 1)}
    assert PAGE > SECTOR


# ---- under SQLite ------------------------------------------------------------------------------------------------------


def insert(connection: apsw.Connection, value: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    connection.execute("COMMIT")


def insert_many(connection: apsw.Connection) -> None:
    for value in range(10):
        insert(connection, value)


def table(disk: Disk, *, synchronous: str) -> apsw.Connection:
    connection = apsw.Connection(str(disk.folder / "a.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", synchronous)
    connection.execute("CREATE TABLE t (a)")
    return connection


def values_after(disk: Disk, place: Path, seed: int) -> list[int]:
    """What the table holds after a power failure."""
    copy = write_images(place, disk.platters.after_power_loss(Random(seed)))
    connection = apsw.Connection(str(copy / "a.db"))
    try:
        assert connection.pragma("integrity_check") == "ok"
        return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]
    except apsw.SQLError:
        return []
    finally:
        connection.close()


@pytest.mark.parametrize(("synchronous", "loses"), [("full", False), ("normal", True)])
def test_sqlite_keeps_what_it_synced(synchronous: str, loses: bool, folder: Path) -> None:
    """In the mode that the engine uses no commit is lost; in the one below, power takes the last ones."""
    (folder / "disk").mkdir()
    with Disk(folder / "disk").installed() as disk:
        connection = table(disk, synchronous=synchronous)
        for value in range(5):
            insert(connection, value)
        found = {tuple(values_after(disk, folder / "look", seed)) for seed in range(40)}
        connection.close()
    assert (0, 1, 2, 3, 4) in found
    assert (len(found) > 1) == loses, found


def test_a_disk_that_lies_about_syncs_breaks_a_database(folder: Path) -> None:
    """The integrity check can fail: without the syncs that a checkpoint relies on, a power failure leaves ruins."""
    (folder / "disk").mkdir()
    with Disk(folder / "disk").installed() as disk:
        connection = table(disk, synchronous="off")
        connection.pragma("wal_autocheckpoint", 1)
        connection.execute("CREATE TABLE big (a, b); CREATE INDEX big_a ON big (a)")
        broken = 0
        for value in range(40):
            connection.execute("INSERT INTO big VALUES (?, randomblob(3000))", (str(value) * 50,))
            try:
                values_after(disk, folder / "look", value)
            except (AssertionError, apsw.Error):
                broken += 1
        connection.close()
    assert broken


@pytest.mark.parametrize(
    ("error", "kind", "raises"),
    [
        (io_error, "write", apsw.IOError),
        (io_error, "sync", apsw.IOError),
        (io_error, "read", apsw.IOError),
        (full_error, "write", apsw.FullError),
    ],
)
def test_a_call_that_fails_fails_the_transaction(
    error: Callable[[str], BaseException], kind: str, raises: type[Exception], folder: Path
) -> None:
    (folder / "disk").mkdir()
    with Disk(folder / "disk").installed() as disk:
        table(disk, synchronous="full").close()
        connection = apsw.Connection(str(disk.folder / "a.db"))
        connection.pragma("synchronous", "full")
        disk.before = lambda called, file: error(kind) if called == kind else None
        with pytest.raises(raises):
            insert(connection, 1)
        disk.before = lambda called, file: None
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*) FROM t").get == 0
        connection.close()


def test_a_full_disk_is_full_for_whoever_needs_more(folder: Path) -> None:
    (folder / "disk").mkdir()
    with Disk(folder / "disk").installed() as disk:
        connection = table(disk, synchronous="full")
        disk.capacity_bytes = disk.used_bytes + 2 * PAGE
        with pytest.raises(apsw.FullError):
            insert_many(connection)
        stored = connection.execute("SELECT count(*) FROM t").get
        disk.capacity_bytes = None
        insert(connection, 99)
        assert connection.execute("SELECT count(*) FROM t").get == stored + 1
        connection.close()
