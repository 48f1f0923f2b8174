"""A log that a killed process left is brought to the disk, however large it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.store.database import connect


@pytest.mark.parametrize("rows", [10, 40, 400])
def test_a_database_opens_with_whatever_log_it_has(tmp_path: Path, rows: int) -> None:
    connection = connect(tmp_path / "left.db", fsync=False)
    try:
        connection.pragma("wal_autocheckpoint", 0)
        connection.execute("CREATE TABLE extra (body)")
        for _ in range(rows):
            connection.execute("INSERT INTO extra VALUES (zeroblob(8000))")
        for name in ("left.db", "left.db-wal"):  # as they are when the process dies now
            shutil.copy(tmp_path / name, tmp_path / name.replace("left", "found"))
    finally:
        connection.close()
    again = connect(tmp_path / "found.db", fsync=False)
    try:
        assert again.execute("SELECT count(*) FROM extra").fetchall() == [(rows,)]
    finally:
        again.close()
