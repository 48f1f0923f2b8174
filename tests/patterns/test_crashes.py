"""SIGKILL again and again, in the middle of effects: what was done stays done, and the rest is done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0

pytestmark = pytest.mark.slow


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


def survive(home: Path, workflow: str, body: str, *, kill_after: list[int]) -> tuple[int, str, list[str]]:
    """Kill the process each time the ledger has so many more lines, then let it finish: status, answer, ledger."""
    ledger = home / "ledger"
    command = [sys.executable, "-m", "tests.patterns.dying", str(home / "db"), str(ledger), workflow, "k", body]
    for more in kill_after:
        limit = len(lines(ledger)) + more
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while len(lines(ledger)) < limit:
                assert process.poll() is None, "it ended before it was killed"
                assert time.monotonic() < deadline
                time.sleep(0.002)  # between two looks at the ledger
        finally:
            process.kill()
            process.wait()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    status, _, answer = done.stdout.strip().partition(" ")
    return int(status), answer, lines(ledger)


def test_a_batch_survives_kills_and_repeats_only_what_was_running(tmp_path: Path) -> None:
    kills = [5, 6, 4, 3]
    status, answer, ledger = survive(tmp_path, "Batch", "12", kill_after=kills)
    names = [f"item-{number}" for number in range(12)]
    assert status == 200
    assert json.loads(answer)["values"] == names
    assert json.loads(answer)["progress"] == {"total": 12, "succeeded": 12, "failed": 0, "running": 0, "done": 12}
    begun = Counter(line.removesuffix(" begins") for line in ledger if line.endswith("begins"))
    assert set(begun) == set(names)
    # A kill finds at most three at work, so no more than those can have been begun once more.
    assert sum(begun.values()) <= len(names) + 3 * len(kills)


def test_a_saga_killed_while_it_undoes_still_undoes_all_in_reverse(tmp_path: Path) -> None:
    # Four steps are eight lines: the first kill is in the second step, the others are in compensations.
    status, answer, ledger = survive(tmp_path, "Trip", "4", kill_after=[3, 7, 3, 2])
    assert status == 422
    assert "no seat is left" in answer
    begun = [line.removesuffix(" begins") for line in ledger if line.endswith("begins")]
    in_order = [name for place, name in enumerate(begun) if place == 0 or begun[place - 1] != name]
    steps = [f"step-{number}" for number in range(4)]
    assert in_order == [*steps, *(f"undo {name}" for name in reversed(steps))]
    assert set(ledger) >= set(in_order)  # each was also brought to its end
