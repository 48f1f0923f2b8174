"""The official `restate` command prints the same about holdfast as about a Restate server, and changes the same."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.query.history import Asked
from tests.query.normal import Names
from tests.support.restate_server import REPOSITORY

pytestmark = pytest.mark.restate_server

COMMAND = REPOSITORY / "node_modules" / ".bin" / "restate"
_PATTERNS = [
    (re.compile(r"[ ─]+"), " "),  # widths of columns
    (re.compile(r"(?:(?:\d+|an?) (?:days?|hours?|minutes?|seconds?|ms)(?:,| and)? ?)+|now(?= ago)"), "<duration> "),
    # What has waited for five seconds is remarked upon.
    (re.compile(r"(<duration> ) *(ago|\. The key will not be released until this invocation is complete)"), r"\1"),
    (re.compile(r"Query took \S+"), "Query took <duration>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d\d:\d\d"), "<moment>"),
    (re.compile(r"\w{3} \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d\d:\d\d"), "<moment>"),
    (re.compile(r"(?:http://(?:127\.0\.0\.1:\d+|<address>)|inprocess://app)/?"), "<endpoint>"),
    # Which invocation of a key is the first is left to chance.
    (re.compile(r"(?<= 0 )<.*> \(completed\) \w+"), "<some invocation>"),
]
# A server invents one for calls without; see docs/compatibility.md.
_INVENTED_KEY = re.compile(r"\s*Idempotency key: +01[0-9A-Z]{24}\s*")


@dataclass(frozen=True, slots=True)
class Printed:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the command's settings, so that it does not touch those of whoever runs the tests."""
    if not COMMAND.exists():
        pytest.skip("no restate command: npm install @restatedev/restate")
    return tmp_path_factory.mktemp("restate")


def run(side: Asked, home: Path, *arguments: str, settings: dict[str, str] | None = None) -> Printed:
    """The command on one of the two engines."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RESTATE_")}
    done = subprocess.run(
        [str(COMMAND), *arguments],
        env={
            **inherited,
            "RESTATE_ADMIN_URL": side.admin_url,
            "RESTATE_INGRESS_URL": side.ingress_url,
            "RESTATE_CLI_CONFIG_HOME": str(home),
            "NO_COLOR": "1",
            "DO_NOT_TRACK": "1",
            "CI": "true",  # yes to every question
            **(settings or {}),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Printed(done.returncode, done.stdout, done.stderr)


def comparable(side: Asked, printed: str) -> list[str]:
    """Lines without what differs from run to run: ids, times, ports, widths of columns."""
    text = Names(side).text(printed)
    for url in (side.admin_url, side.ingress_url):
        text = text.replace(url, "<url>")
    lines = [line for line in text.splitlines() if not _INVENTED_KEY.fullmatch(line)]
    for pattern, name in _PATTERNS:
        lines = [pattern.sub(name, line).strip() for line in lines]
    return [line for line in lines if line]


def same(home: Path, sides: tuple[Asked, Asked], *arguments: str, is_ordered: bool = True) -> list[str]:
    """Run it on both, which must print the same and end the same; what was printed.

    Args:
        is_ordered: Else only the words must be the same: a server lists services and handlers in an order of chance.
    """
    printed = [run(side, home, *[_filled(argument, side) for argument in arguments]) for side in sides]
    ours, theirs = [
        [f"exit code {one.exit_code}", *comparable(side, one.stdout), *comparable(side, one.stderr)]
        for side, one in zip(sides, printed, strict=True)
    ]
    if not is_ordered:
        ours, theirs = [sorted(" ".join(lines).split()) for lines in (ours, theirs)]
    assert ours == theirs, "\n".join(difflib.unified_diff(theirs, ours, "restate", "holdfast", lineterm=""))
    return ours


def _filled(argument: str, side: Asked) -> str:
    if argument == "{deployment}":
        return side.rows("SELECT id FROM sys_deployment")[0]["id"]
    for name, invocation_id in side.ids.items():
        argument = argument.replace(f"{{{name}}}", invocation_id)
    return argument


@pytest.fixture(scope="package")
def sides(holdfast_side: Asked, restate_side: Asked) -> tuple[Asked, Asked]:
    return holdfast_side, restate_side


_EVERY_KEY = "--locked-keys-limit 100 --locked-key-held-threshold-second 10000"
UNORDERED = [
    "services list",
    "services list --extra",
    "services describe Counter",
    "services describe Signup",
    f"services status {_EVERY_KEY}",
    f"services status Counter --sample-invocations-limit 3 {_EVERY_KEY}",
    "services status Worker --sample-invocations-limit 3",
    "services status nope",
    "deployments list",
    "deployments list --extra",
    "deployments describe {deployment}",
    "deployments describe {deployment} --extra",
    "invocations list --service Signup --all",
]
ORDERED = [
    "whoami",
    "invocations list --service Counter",
    "invocations list --handler add --all --oldest-first",
    "invocations list --key busy",
    "invocations list --status suspended --status paused --status backing-off --service Worker --handler give_up",
    "invocations list --status completed --completion-result failure",
    "invocations list --virtual-objects-only --limit 3",
    "invocations list --deployment dp_11nGQpCRmau6ypL82KH2TnP",
    "invocations list --zombie",
    "invocations describe {queued 1}",
    "invocations describe {scheduled}",
    "invocations describe {give up}",
    "invocations describe {stumble}",
    "invocations describe {hold}",
    "invocations describe {eve}",
    "invocations describe {ada}",
    "invocations describe {killed}",
    "invocations describe {purged}",
    "invocations describe {fill}",
    "invocations describe {look}",
    "invocations describe {failing step}",
    "invocations describe inv_14vxrpCpsdiC0mfIEyzNlslM5hXIeyNAbz",
    "state get Board w1",
    "state get Board nothing",
    "state get Counter a",
    "state get Worker x",
    "rules list",
    "subscriptions list",
]


@pytest.mark.parametrize("line", [*UNORDERED, *ORDERED])
def test_looking(sides: tuple[Asked, Asked], home: Path, line: str) -> None:
    same(home, sides, *_words(line), is_ordered=line in ORDERED)


def _words(line: str) -> list[str]:
    """Words, where a name in braces is one."""
    return re.findall(r"\{[^}]*\}|\S+", line)


def test_state_that_is_no_text(sides: tuple[Asked, Asked], home: Path) -> None:
    assert "AP8" in "\n".join(same(home, sides, "state", "get", "Counter", "f x", "--binary", is_ordered=False))


QUERIES = [
    "SELECT name, revision, public, ty FROM sys_service ORDER BY name",
    "SELECT 1 AS a, null AS b, true AS c, 1.5 AS d, 'ü' AS e, [1, 2] AS f, interval '1 day' AS g",
    "SELECT service_key, key, value, value_utf8 FROM state WHERE service_name = 'Counter' ORDER BY 1, 2",
    "SELECT target, status, completion_retention FROM sys_invocation WHERE target_service_name = 'Signup' ORDER BY 1, 2",
    "SELECT 1 WHERE false",
    "SELECT nope FROM state",
    "SELEC",
    "SELECT * FROM nope",
    "DELETE FROM state",
    "DESCRIBE sys_inbox",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_queries(sides: tuple[Asked, Asked], home: Path, sql: str) -> None:
    same(home, sides, "sql", sql)


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_queries_for_programs(sides: tuple[Asked, Asked], home: Path, form: str) -> None:
    same(home, sides, "sql", form, QUERIES[0])
    same(home, sides, "sql", form, QUERIES[1])


def test_the_journal_of_an_invocation(sides: tuple[Asked, Asked], home: Path) -> None:
    printed = "\n".join(same(home, sides, "invocations", "describe", "{steps}"))
    assert "first step" in printed
    assert "Worker/echo" in printed


# ---- changing ------------------------------------------------------------------------------------------------------------


def _values(side: Asked, key: str) -> dict[str, str]:
    found = side.rows(f"SELECT key, value_utf8 FROM state WHERE service_name = 'Counter' AND service_key = '{key}'")
    return {row["key"]: row["value_utf8"] for row in found}


def test_state_is_patched_edited_and_cleared(sides: tuple[Asked, Asked], home: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/twelve/thirteen/' \"$1\"\n")
    editor.chmod(0o755)
    for side in sides:
        side.call("to patch", "Counter/patched/add", 12)
        side.call("to clear", "Counter/cleared/add", 12)
    patch = json.dumps(
        [{"op": "add", "path": "/word", "value": "twelve"}, {"op": "replace", "path": "/total", "value": 13}]
    )
    same(home, sides, "state", "patch", "Counter", "patched", "--patch", patch, "--force", is_ordered=False)
    for side in sides:
        side.poll(lambda side=side: _values(side, "patched") == {"total": "13", "word": '"twelve"'}, "not patched")
    edited = [
        run(side, home, "state", "edit", "Counter", "patched", settings={"EDITOR": str(editor), "VISUAL": str(editor)})
        for side in sides
    ]
    assert [one.exit_code for one in edited] == [0, 0]
    for side in sides:
        side.poll(lambda side=side: _values(side, "patched")["word"] == '"thirteen"', "not edited")
    same(home, sides, "state", "clear", "Counter/cleared", "--force")
    for side in sides:
        side.poll(lambda side=side: _values(side, "cleared") == {}, "not cleared")


# Not of one that backs off: a server's memory of it is never cleared, and other tests compare that.
@pytest.mark.parametrize(
    ("operation", "status"), [("cancel", "completed"), ("kill", "completed"), ("resume", "suspended")]
)
def test_operations_by_id(sides: tuple[Asked, Asked], home: Path, operation: str, status: str) -> None:
    name = f"to {operation} by id"
    for side in sides:
        side.send(name, "Worker/wait_timer")
        side.wait_for("suspended", name)
    same(home, sides, "invocations", operation, f"{{{name}}}")
    for side in sides:
        side.wait_for(status, name)


def test_pausing_one_that_waits(sides: tuple[Asked, Asked], home: Path) -> None:
    for side in sides:
        side.send("to pause", "Worker/wait_timer")
        side.wait_for("suspended", "to pause")
    same(home, sides, "invocations", "pause", "{to pause}")
    ours, theirs = [
        side.rows(f"SELECT status FROM sys_invocation WHERE id = '{side.ids['to pause']}'") for side in sides
    ]
    assert ours == theirs


def test_operations_by_target(sides: tuple[Asked, Asked], home: Path) -> None:
    for side in sides:
        for number in (1, 2):
            name = f"of a target {number}"
            side.send(name, "Worker/wait_awakeable", f"target {number}")
            side.wait_for("suspended", name)
    same(home, sides, "invocations", "kill", "Worker/wait_awakeable", is_ordered=False)
    for side in sides:
        side.wait_for("completed", "of a target 1", "of a target 2")


def test_completed_ones_are_purged_and_restarted(sides: tuple[Asked, Asked], home: Path) -> None:
    for side in sides:
        side.call("to restart", "Worker/tuned", 7, headers={"idempotency-key": "restart"})
        side.call("to purge", "Worker/tuned", 8, headers={"idempotency-key": "purge"})
    same(home, sides, "invocations", "purge", "{to purge}")
    for side in sides:
        side.poll(lambda side=side: not _exists(side, "to purge"), "not purged")
    printed = [run(side, home, "invocations", "restart-as-new", side.ids["to restart"]) for side in sides]
    assert [one.exit_code for one in printed] == [0, 0]
    for side in sides:
        sql = (
            f"SELECT id FROM sys_invocation WHERE restarted_from = '{side.ids['to restart']}' AND status = 'completed'"
        )
        side.poll(lambda side=side, sql=sql: len(side.rows(sql)) == 1, "not restarted")
        side.ids["restarted"] = side.rows(sql)[0]["id"]
    sql = "SELECT target, invoked_by, restarted_from, completion_result FROM sys_invocation WHERE id = '{}'"
    ours, theirs = [Names(side).rows(side.rows(sql.format(side.ids["restarted"]))) for side in sides]
    assert ours == theirs


def _exists(side: Asked, name: str) -> bool:
    return bool(side.rows(f"SELECT id FROM sys_invocation WHERE id = '{side.ids[name]}'"))
