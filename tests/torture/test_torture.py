"""The command that runs the fault battery: it plays, counts, says how to repeat what it finds, and publishes what it ran."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import properties
from tests.simulation import world
from tests.simulation.mutants import MUTANTS, applied
from tests.support.restate_server import server_binary
from tests.torture import campaigns
from tests.torture.__main__ import main
from tests.torture.campaigns import CAMPAIGNS, Clock
from tests.torture.page import BEGIN, END, FIGURES, PAGE, table, with_table

# What CI plays of each; those that are left out are played by tests of their own, at greater length.
SMALL = ("core", "simulation", "crashes", "kills", "fuzz")


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "KILLS_PER_ROUND", 2)
    monkeypatch.setattr(campaigns, "FUZZ_TIMES", 1)
    decoder = properties.ALL["decoder"]
    monkeypatch.setattr(properties, "ALL", {"decoder": decoder})


def test_a_campaign_plays_so_many_rounds_and_tells_what_happened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main([*SMALL, "--count", "1", "--seed", "20", "--json", str(out)]) == 0
    summary = json.loads(out.read_text())
    assert tuple(summary) == SMALL
    assert all((one["rounds"], one["seed"]) == (1, 20) for one in summary.values())
    figures = {name: one["figures"] for name, one in summary.items()}
    assert figures["core"]["histories"] == 2
    assert figures["simulation"]["histories"] == 1
    assert figures["simulation"]["invocations judged"] > 40
    assert figures["crashes"]["disasters: kill before commit"] == figures["crashes"]["disasters: kill after commit"] > 3
    assert figures["crashes"]["scenarios"] == 1
    assert figures["kills"]["kills"] == 2
    assert figures["fuzz"]["decoder"] >= properties.ALL["decoder"].examples
    told = capsys.readouterr().out
    assert "seeds from 20 on" in told
    assert "1 histories" in told


@pytest.mark.restate_server
@pytest.mark.skipif(server_binary() is None, reason="no real Restate server here")
def test_drawn_programs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "PROGRAMS_PER_ROUND", 4)
    figures = campaigns.conformance(Clock(1, count=1))
    assert figures["runs of a program"] == 4 * figures["programs"]


def test_a_broken_promise_ends_it_and_can_be_repeated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An engine whose timers fire early: found, named, and found again by the command that is printed."""
    out = tmp_path / "out.json"
    with applied(MUTANTS["timers fire early"]):
        assert main(["simulation", "--count", "30", "--seed", "0", "--json", str(out)]) == 1
        told = capsys.readouterr().out
        assert "BROKEN" in told
        assert json.loads(out.read_text()) == {}
        repeat = re.search(r"repeat it: python -m tests\.torture (.+)", told)
        assert repeat is not None
        found = told.splitlines()[-2]
        assert main(repeat[1].split()) == 1
        assert found in capsys.readouterr().out


def test_a_broken_moment_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object) -> None:
        raise AssertionError("another outcome")

    monkeypatch.setattr(campaigns, "check", changed)
    assert main(["crashes", "--count", "3", "--seed", "2"]) == 1
    told = capsys.readouterr().out
    assert "another outcome" in told
    assert "in calls: kill before commit 1, version 7" in told
    assert "--seed 2 --count 1" in told


def test_a_campaign_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter([0.0, 3.0, 9.0, 10.0])
    monkeypatch.setattr(campaigns.time, "monotonic", lambda: next(now_s))
    clock = Clock(7, seconds=10.0)
    assert [*clock.rounds()] == [7, 8, 9]


@pytest.mark.parametrize("arguments", [["simulatoin"], ["core", "--count", "0"]])
def test_what_cannot_be_run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


# ---- the page ------------------------------------------------------------------------------------------------------------

STORED = json.loads(FIGURES.read_text())


def test_the_page_shows_what_was_run() -> None:
    assert with_table(PAGE.read_text(), STORED) == PAGE.read_text()
    assert PAGE.read_text().count(BEGIN) == PAGE.read_text().count(END) == 1


def test_every_campaign_was_run() -> None:
    assert [*STORED] == [*CAMPAIGNS]
    for entry in STORED.values():
        assert entry["rounds"] > 0
        assert sum(entry["figures"].values()) > 0


def test_the_table_tells_counts_dates_and_how_to_repeat() -> None:
    entry = {
        "date": "2030-01-02", "commit": "abc", "seconds": 7200, "seed": 5, "rounds": 12,
        "figures": Counter({"histories": 12_000}),
    }  # fmt: skip
    assert table({"simulation": entry}).splitlines()[2:] == [
        "| Simulation of the whole engine | 2030-01-02, abc, 2.0 h | 12,000 histories | `simulation --seed 5 --count 12` |"
    ]


def test_writing_keeps_what_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, page = tmp_path / "reliability.json", tmp_path / "reliability.md"
    figures.write_text(json.dumps({"fuzz": STORED["fuzz"], "core": STORED["core"]}))
    page.write_text(f"# Before\n\n{BEGIN}old\n{END}\nafter\n")
    monkeypatch.setattr("tests.torture.__main__.FIGURES", figures)
    monkeypatch.setattr("tests.torture.__main__.PAGE", page)
    assert main(["core", "--count", "1", "--seed", "3", "--write"]) == 0
    stored = json.loads(figures.read_text())
    assert [*stored] == ["core", "fuzz"]
    assert stored["core"]["seed"] == 3
    assert stored["fuzz"] == STORED["fuzz"]
    assert page.read_text() == f"# Before\n\n{BEGIN}{table(stored)}{END}\nafter\n"


def test_a_history_that_never_ends_is_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience of a history is virtual: a campaign is not held up by what it waits for."""
    monkeypatch.setattr(world, "PATIENCE_S", 0.5)
    with pytest.raises(AssertionError):
        campaigns.simulation(Clock(1, count=1))
