"""The demo keeps its promises: killed, cancelled, and every row counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps.imports.demo", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def test_the_demo_verifies_itself_and_says_how(tmp_path: Path) -> None:
    done = demo("--enterprises", "1500", "--keep-dir", str(tmp_path / "demo"), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True
    assert told["problems"] == []
    assert [kill["import_id"] for kill in told["kills"]] == ["import-140", "import-141"]
    for kill in told["kills"]:
        assert 0 < kill["done_before"] < kill["total"]
    assert 0 < told["cancelled_at"] < told["cancelled_of"]
    assert told["rows_checked"] > 30_000


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    done = demo("--keep-dir", str(tmp_path))
    assert done.returncode == 1
    assert "holds something else than an earlier demo: mine.txt" in done.stdout
    assert (tmp_path / "mine.txt").exists()
