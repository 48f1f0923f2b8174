"""SIGKILL at every step of a campaign, and inside a batch: what was scanned is not scanned again, nothing is doubled."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.recon.campaigns.world import loopback, names

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0
KILLS_MAX = 60
SCANNED_TOGETHER = 3

pytestmark = pytest.mark.slow


@contextmanager
def redis_at(*addresses: str) -> Iterator[int]:
    """Something that looks like a threat: port 6379 on each of these addresses."""
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(socket.create_server((address, 6379), backlog=64))
        yield 6379


def begin(home: Path, targets: list[str], *, die_at: int = 0, refuse: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.recon.campaigns.dying", str(home), "campaign", ",".join(targets), "6379"]
    with (home / "errors").open("w") as errors:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "DIE_AT": str(die_at), "REFUSE": refuse},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def finish(home: Path, process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What it printed, or None if it was killed."""
    output, _ = process.communicate(timeout=PATIENCE_S)
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, (home / "errors").read_text()[-3000:]
    return json.loads(output)


def lines(home: Path) -> list[str]:
    ledger = home / "ledger"
    return ledger.read_text().splitlines() if ledger.exists() else []


def scanned_after_it_was_kept(ledger: list[str]) -> list[str]:
    kept: set[str] = set()
    again: list[str] = []
    for line in ledger:
        what, _, address = line.partition(" ")
        if what == "kept":
            kept.add(address)
        elif address in kept:
            again.append(address)
    return again


def die_at_every_write(home: Path, targets: list[str], *, refuse: str = "") -> tuple[dict[str, Any], int]:
    """Each process gets one write further than the one before, and dies before or after the next; the end, and kills."""
    for kills in range(KILLS_MAX):
        done = finish(home, begin(home, targets, die_at=2 if kills % 2 else -3, refuse=refuse))
        if done is not None:
            return done, kills
    raise AssertionError(f"still not over after {KILLS_MAX} kills")


def test_killed_at_every_step_a_campaign_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    targets = loopback(2, third=31)
    with redis_at(targets[0]):
        done, kills = die_at_every_write(tmp_path, targets)
    assert kills >= 8
    ledger = lines(tmp_path)
    assert scanned_after_it_was_kept(ledger) == []
    scans = Counter(line.removeprefix("scan ") for line in ledger if line.startswith("scan "))
    assert set(scans) == set(targets)
    assert sum(scans.values()) <= len(targets) + kills * SCANNED_TOGETHER
    campaign = done["report"]["campaign"]
    assert (campaign["status"], campaign["scanned"], campaign["total"]) == ("complete", 2, 2)
    assert campaign["is_published"] is True
    assert names(done["report"]["results"]) == sorted(targets)
    [threat] = done["threats"]["threats"]
    assert (threat["threat_id"], threat["updates"], threat["host_count"]) == ("EXPOSED-REDIS", 1, 1)
    assert done["contributor"]["contributions"] == 1


def test_killed_at_every_step_a_saga_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    targets = loopback(1, third=32)
    with redis_at(targets[0]):
        done, kills = die_at_every_write(tmp_path, targets, refuse="publish")
    assert kills >= 4
    campaign = done["report"]["campaign"]
    assert (campaign["status"], campaign["is_published"]) == ("complete", False)
    assert campaign["error"] == "not published: refused"
    assert done["threats"]["threats"] == []
    assert (done["contributor"]["contributions"], done["contributor"]["credits"]) == (0, [])


def test_a_hundred_targets_and_a_crash_inside_the_second_batch(tmp_path: Path) -> None:
    targets = sorted(loopback(100, third=33))
    first_batch = set(targets[:10])
    process = begin(tmp_path, targets)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while sum(line.startswith("scan ") for line in lines(tmp_path)) < 14:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)  # between two looks at the ledger
    finally:
        process.kill()
        process.communicate()
    before = len(lines(tmp_path))
    done = finish(tmp_path, begin(tmp_path, targets))
    assert done is not None
    ledger = lines(tmp_path)
    assert not {line.removeprefix("scan ") for line in ledger[before:] if line.startswith("scan ")} & first_batch
    assert scanned_after_it_was_kept(ledger) == []
    assert 100 <= sum(line.startswith("scan ") for line in ledger) <= 100 + 10
    campaign = done["report"]["campaign"]
    assert (campaign["status"], campaign["scanned"], campaign["total"]) == ("complete", 100, 100)
    assert len(done["report"]["results"]) == 100
