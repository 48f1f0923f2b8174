"""`call` and `send`: every answer of the ingress, as a person sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import Served, run

AS_A_PROCESS: dict[str, tuple[list[str], str]] = {
    "call": (["call", "Greeter/greet", "-"], '"Hello Ada"\n'),
    "list": (["invocations", "list", "--key", "nobody"], "no invocations\n"),
    "state": (["state", "get", "Counter/nobody"], "(empty)\n"),
}


@pytest.mark.parametrize(("arguments", "stdout"), AS_A_PROCESS.values(), ids=AS_A_PROCESS)
def test_the_command_as_a_process(engine: Served, arguments: list[str], stdout: str):
    result = run(*arguments, stdin='"Ada"', settings=engine.settings)
    assert (result.returncode, result.stdout, result.stderr) == (0, stdout, "")


def test_failing_as_a_process(engine: Served):
    result = run("call", "Greeter/refuse", '{"message": "no", "code": 400}', settings=engine.settings)
    assert (result.returncode, result.stdout) == (1, "")
    assert run("call", "Greeter/nope", settings=engine.settings).returncode == 2


def test_call_prints_the_result(engine: Served):
    assert engine.done("call", "Greeter/greet", '"Ada"') == '"Hello Ada"'


def test_call_json_names_the_invocation(engine: Served):
    answer = engine.json("call", "Greeter/shape", "[1, 2, 3]")
    assert answer["result"] == {"count": 3}
    assert engine.admin.invocation(answer["invocation_id"]).target == "Greeter/shape"


def test_call_takes_a_file_or_standard_input(engine: Served, tmp_path: Path):
    (tmp_path / "name.json").write_text('"Grace"')
    assert engine.done("call", "Greeter/greet", f"@{tmp_path}/name.json") == '"Hello Grace"'
    assert engine.done("call", "Greeter/greet", "-", stdin='"Edsger"') == '"Hello Edsger"'


def test_call_of_an_object_with_a_slash_in_its_key(engine: Served):
    assert engine.done("call", "Counter/a/b c?/add", "5") == "5"
    assert engine.done("call", "Counter/a/b c?/peek") == "5"
    assert engine.done("call", "Counter/a/peek") == "0"


def test_call_without_body_and_without_result(engine: Served):
    assert engine.done("call", "Greeter/void") == ""
    assert engine.json("call", "Greeter/void")["result"] is None


def test_call_with_bytes_that_are_no_json(engine: Served):
    options = ["--content-type", "application/octet-stream"]
    assert engine.done("call", "Greeter/blob", "not json", *options) == "not json"
    assert engine.json("call", "Greeter/blob", "not json", *options)["result"] == "not json"


def test_an_idempotency_key_gives_the_same_invocation(engine: Served):
    first = engine.json("call", "Counter/once/add", "1", "--idempotency-key", "k1")
    assert engine.json("call", "Counter/once/add", "1", "--idempotency-key", "k1") == first
    assert engine.done("call", "Counter/once/peek") == "1"


def test_a_failed_invocation_is_exit_code_1(engine: Served):
    result = engine.cli("call", "Greeter/refuse", '{"message": "bad thing", "code": 418}', "--json")
    assert result.exit_code == 1
    outcome = json.loads(result.stdout)
    assert outcome["failure"] == {"code": 418, "message": "bad thing", "metadata": {}}
    assert result.stderr.splitlines() == [
        "error HF0106: [418] bad thing",
        f"  next: how it got there: holdfast invocations show {outcome['invocation_id']}",
    ]


def test_send_prints_the_id_and_does_not_wait(engine: Served):
    result = engine.cli("send", "Greeter/wait", '"me"')
    invocation_id = result.stdout.strip()
    assert result.stderr == f"accepted; follow it: holdfast invocations show {invocation_id}\n"
    assert engine.admin.invocation(invocation_id).status != "completed"


def test_send_with_delay_and_idempotency_key(engine: Served):
    options = ["--delay", "1 day 2h", "--idempotency-key", "later"]
    first = engine.json("send", "Greeter/greet", '"Ada"', *options)
    assert first["status"] == "Accepted"
    assert first["executionTime"].endswith("Z")
    info = engine.admin.invocation(first["invocationId"])
    assert info.status == "scheduled"
    assert info.idempotency_key == "later"
    again = engine.json("send", "Greeter/greet", '"Ada"', *options)
    assert (again["invocationId"], again["status"]) == (first["invocationId"], "PreviouslyAccepted")


def test_headers_reach_the_handler(engine: Served):
    assert engine.done("call", "Greeter/header", '"x-trace"', "--header", "X-Trace: 42") == '"42"'


# arguments -> lines on stderr; exit code 2, because the request was wrong
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "no such service": (
        ["call", "Nope/greet", '"Ada"'],
        [
            "error HF0105: service 'Nope' not found, make sure to register the service before calling it.",
            "  next: what there is: holdfast services list",
        ],
    ),
    "no such handler": (
        ["send", "Greeter/nope", '"Ada"'],
        [
            (
                "error HF0105: the service 'Greeter' exists, but the handler 'nope' was not found, check that the handler "
                "exists in the latest registered service version."
            ),
            "  next: what there is: holdfast services list",
        ],
    ),
    "private": (
        ["call", "Greeter/tuned", "true"],
        [
            "error HF0105: the invoked service is not public",
            "  next: what handlers accept: holdfast services list",
        ],
    ),
    "no handler": (
        ["call", "Greeter"],
        [
            "error HF0105: 'Greeter' names no handler",
            "  next: write Service/handler, or Object/key/handler; see: holdfast services list",
        ],
    ),
    "not JSON": (
        ["call", "Greeter/greet", "Ada"],
        [
            "error HF0105: not JSON: Expecting value: line 1 column 1 (char 0)",
            "  next: text needs JSON quotes, inside the shell's: '\"Ada\"'; what is not JSON needs --content-type",
        ],
    ),
    "no such file": (
        ["call", "Greeter/greet", "@no-such.json"],
        [
            "error HF0105: cannot read no-such.json: No such file or directory",
            "  next: @FILE stands for the content of a file",
        ],
    ),
    "body for a handler without input": (
        ["call", "Greeter/void", "1"],
        [
            (
                "error HF0105: input validation error: Expected body and content-type to be empty, but wasn't with "
                "content-type 'Some(\"application/json\")'"
            ),
            "  next: what handlers accept: holdfast services list",
        ],
    ),
    "header without colon": (
        ["call", "Greeter/void", "--header", "x-trace"],
        ["error HF0105: 'x-trace' is no header", "  next: write --header 'name: value'"],
    ),
}


@pytest.mark.parametrize(("arguments", "lines"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_exit_code_2(engine: Served, arguments: list[str], lines: list[str]):
    result = engine.cli(*arguments)
    assert result.stderr.splitlines() == lines
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("arguments", [["call", "S/h"], ["send", "S/h"], ["invocations", "list"], ["services", "list"]])
def test_no_engine_there(arguments: list[str], free_port: int):
    url = f"http://127.0.0.1:{free_port}"
    result = run(*arguments, settings={"HOLDFAST_INGRESS_URL": url, "HOLDFAST_ADMIN_URL": url})
    assert result.stderr.splitlines() == [
        f"error HF0303: no engine answers at {url}",
        "  next: start one: holdfast serve module:app",
    ]
    assert (result.returncode, result.stdout) == (1, "")


def test_call_gives_up_waiting_after_a_timeout(engine: Served):
    result = engine.cli("call", "Greeter/wait", '"patience"', "--timeout", "0.5")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error HF0300: no result within 0.5 s; the invocation goes on",
        "  next: see how far it is: holdfast invocations list",
    ]
