"""`state`: look at what a key holds and change it, without stepping on a handler's toes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import Served


def test_set_get_and_clear(engine: Served):
    assert engine.done("state", "get", "Counter/st") == "(empty)"
    assert engine.json("state", "set", "Counter/st", "total", "41") == {"total": {"utf8": "41"}}
    assert engine.done("call", "Counter/st/add", "1") == "42"
    assert engine.done("state", "get", "Counter/st", "total") == "42"
    assert engine.json("state", "get", "Counter/st", "total") == {"utf8": "42"}

    result = engine.cli("state", "set", "Counter/st", "note", '"hi"')
    assert result.stderr == "Counter/st: set note\n"
    assert engine.json("state", "get", "Counter/st") == {"total": {"utf8": "42"}, "note": {"utf8": '"hi"'}}
    assert [line.split() for line in engine.done("state", "get", "Counter/st").splitlines()] == [
        ["NAME", "VALUE"],
        ["note", '"hi"'],
        ["total", "42"],
    ]

    assert engine.cli("state", "clear", "Counter/st", "note").stderr == "Counter/st: cleared note\n"
    assert engine.json("state", "get", "Counter/st") == {"total": {"utf8": "42"}}
    assert engine.json("state", "clear", "Counter/st") == {}
    assert engine.done("call", "Counter/st/peek") == "0"
    assert engine.cli("state", "clear", "Counter/st").stderr == "Counter/st: nothing to change\n"


def test_a_key_may_hold_slashes(engine: Served):
    engine.done("state", "set", "Counter/a/b", "total", "7")
    assert engine.done("call", "Counter/a/b/peek") == "7"


def test_bytes_that_are_no_text(engine: Served, tmp_path: Path):
    (tmp_path / "raw").write_bytes(b"\xff\x00")
    engine.done("state", "set", "Counter/raw", "blob", f"@{tmp_path}/raw", "--raw")
    assert engine.json("state", "get", "Counter/raw") == {"blob": {"base64": "/wA="}}


def test_a_held_key_is_not_changed_behind_its_holders_back(engine: Served):
    holder = engine.send("Counter/held/hold")
    engine.wait_for(holder, "suspended")
    result = engine.cli("state", "set", "Counter/held", "total", "1", "--wait", "0.1")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error HF0300: Counter/held is not changed yet: a handler holds the key, or has changed it meanwhile",
        "  next: what it is now: holdfast state get Counter/held; who holds it: holdfast invocations list --service Counter --key held",
    ]
    awakeable = json.loads(json.loads(engine.done("state", "get", "Counter/held", "awakeable", "--json"))["utf8"])
    assert awakeable.startswith("sign_1")
    engine.admin.kill(holder)
    engine.wait_for(holder, "completed")
    assert engine.done("call", "Counter/held/peek") == "1"  # applied when the key became free


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no such service": (
        ["get", "Nope/a"],
        ["error HF0105: The requested service 'Nope' does not exist", "  next: what there is: holdfast services list"],
    ),
    "plain service": (
        ["set", "Greeter/a", "x", "1"],
        ["error HF0105: Cannot modify state for service type Service"],
    ),
    "no key": (
        ["get", "Counter"],
        ["error HF0105: 'Counter' names no key", "  next: write Object/key; objects: holdfast services list"],
    ),
    "no such name": (
        ["get", "Counter/void", "total"],
        [
            "error HF0105: Counter/void has no state named 'total'",
            "  next: what there is: holdfast state get Counter/void",
        ],
    ),
    "clear of no such name": (
        ["clear", "Counter/void", "total"],
        [
            "error HF0105: Counter/void has no state named 'total'",
            "  next: what there is: holdfast state get Counter/void",
        ],
    ),
    "not JSON": (
        ["set", "Counter/void", "total", "abc"],
        [
            "error HF0105: not JSON: Expecting value: line 1 column 1 (char 0)",
            "  next: text needs JSON quotes, inside the shell's: '\"Ada\"'; what is not JSON needs --raw",
        ],
    ),
}


@pytest.mark.parametrize(("arguments", "lines"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_exit_code_2(engine: Served, arguments: list[str], lines: list[str]):
    result = engine.cli("state", *arguments)
    assert result.stderr.splitlines() == lines
    assert (result.exit_code, result.stdout) == (2, "")
