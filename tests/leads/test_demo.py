"""The demo does what it says, on every engine: its report is compared with the promises, and it can fail."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.leads import demo_verify
from tests.leads.ui import environment
from tests.support.restate_server import REPOSITORY, skip_without_server

pytestmark = pytest.mark.slow


def run_demo(folder: Path, engine: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps.leads.demo", "--engine", engine, "--keep-dir", str(folder), "--json"]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.parametrize("engine", ["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
def test_the_demo_keeps_its_promises(tmp_path: Path, engine: str) -> None:
    if engine == "restate":
        skip_without_server()
    folder = tmp_path / "demo"
    done = run_demo(folder, engine)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert [kill["kind"] for kill in report["kills"]] == ["discovery", "enrichment"]
    for kill in report["kills"]:
        assert 0 < kill["steps_before"] < kill["steps"]
    assert (report["discovered"], report["enriched"], report["balance_cents"], report["messages"]) == (31, 12, 1900, 3)
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    judge_is_strict(folder / "data" / "leads.db", report)


def judge_is_strict(path: Path, report: dict[str, Any]) -> None:
    """What is wrong in the database is found."""
    job_id = report["kills"][1]["job_id"]
    assert demo_verify.scores(path, job_id, is_enriched=True) == (12, [])
    with sqlite3.connect(path) as database:
        database.execute("UPDATE leads SET score = score + 1 WHERE job_id = ? AND rank = 0", (job_id,))
    database.close()
    assert len(demo_verify.scores(path, job_id, is_enriched=True)[1]) == 2
    with sqlite3.connect(path) as database:
        database.execute("UPDATE cost_events SET cost_usd = 0.006 WHERE job_id = ? AND cost_usd > 0", (job_id,))
    database.close()
    assert demo_verify.costs(path, job_id, 6)[1]


def line(
    seq: int, kind: str, amount: int, held: int, balance: int, held_after: int, job_id: str = ""
) -> dict[str, Any]:
    return {
        "seq": seq, "kind": kind, "key": f"{job_id}:{kind}", "amount_cents": amount, "held_cents": held,
        "balance_after_cents": balance, "held_after_cents": held_after, "job_id": job_id,
    }  # fmt: skip


LEDGER = [
    line(0, "top_up", 1000, 0, 1000, 0),
    line(1, "charge", -100, 0, 900, 0, "d"),
    line(2, "hold", 0, 500, 900, 500, "e"),
    line(3, "capture", -500, -500, 400, 0, "e"),
]
WALLET = {"balance_cents": 400, "held_cents": 0, "booking_count": 4, "lifetime_spent_cents": 600}
JOBS = {"d": "discovery", "e": "enrichment"}


def test_the_judge_accepts_what_is_right() -> None:
    assert demo_verify.money(JOBS, LEDGER, WALLET, 1000) == []


@pytest.mark.parametrize(
    ("ledger", "wallet", "says"),
    [
        (LEDGER[:3], WALLET, "booked as ['hold']"),
        ([*LEDGER, line(4, "charge", -100, 0, 300, 0, "d")], WALLET, "booked 2 times"),
        (LEDGER, WALLET | {"balance_cents": 500}, "the wallet says"),
        (LEDGER, WALLET | {"held_cents": 500}, "the wallet says"),
        ([*LEDGER[:3], line(3, "capture", -400, -500, 400, 0, "e")], WALLET, "add up"),
        ([LEDGER[0], *LEDGER[2:]], WALLET, "line 1"),
    ],
)
def test_the_judge_finds_what_is_wrong(ledger: list[dict[str, Any]], wallet: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in demo_verify.money(JOBS, ledger, wallet, 1000))


def test_a_step_that_was_done_again_is_found() -> None:
    before = {("search", ""): (1, 5)}
    assert demo_verify.unrepeated(before, {("search", ""): (1, 5), ("score", ""): (1, 9)}) == []
    assert demo_verify.unrepeated(before, {("search", ""): (2, 8)})
    assert demo_verify.unrepeated(before, {})


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run_demo(tmp_path, "embedded")
    assert done.returncode == 1
    assert "mine.txt" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
