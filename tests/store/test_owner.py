"""One engine per file: a second one is told whose it is; the right dies with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import DatabaseInUse, DatabaseRefused
from holdfast.store.database import Owner

HOLD = """
import sys
from pathlib import Path
from holdfast.store.database import Owner
owner = Owner(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
owner.release()
print("released", flush=True)
sys.stdin.close()
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "app.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_the_pid_of_the_first(tmp_path: Path, holder: subprocess.Popen[str]):
    with pytest.raises(DatabaseInUse) as refusal:
        Owner(tmp_path / "app.db")
    assert f"process {holder.pid}" in str(refusal.value)
    assert str(tmp_path / "app.db") in str(refusal.value)
    assert refusal.value.hint
    with pytest.raises(DatabaseInUse, match=f"process {holder.pid}"):
        Owner(tmp_path / "app.db")


def test_it_is_free_after_sigkill(tmp_path: Path, holder: subprocess.Popen[str]):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Owner(tmp_path / "app.db").release()


def test_it_is_free_after_a_release(tmp_path: Path, holder: subprocess.Popen[str]):
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    holder.stdin = None
    assert holder.stdout.readline() == "released\n"
    Owner(tmp_path / "app.db").release()


def test_a_second_owner_in_the_same_process(tmp_path: Path):
    owner = Owner(tmp_path / "app.db")
    with pytest.raises(DatabaseInUse, match=f"process {os.getpid()}"):
        Owner(tmp_path / "app.db")
    owner.release()
    Owner(tmp_path / "app.db").release()


def test_other_files_have_other_owners(tmp_path: Path):
    owners = [Owner(tmp_path / name) for name in ("a.db", "b.db")]
    for owner in owners:
        owner.release()


def test_an_owner_that_left_no_pid(tmp_path: Path, holder: subprocess.Popen[str]):
    (tmp_path / "app.db.owner").write_text("")
    with pytest.raises(DatabaseInUse, match="process unknown"):
        Owner(tmp_path / "app.db")


def test_a_missing_directory_is_refused_in_words(tmp_path: Path):
    with pytest.raises(DatabaseRefused, match="does not exist"):
        Owner(tmp_path / "missing" / "app.db")


def test_the_pid_file_is_private(tmp_path: Path):
    owner = Owner(tmp_path / "app.db")
    assert (tmp_path / "app.db.owner").stat().st_mode & 0o777 == 0o600
    owner.release()
