"""`invocations`: list, show, and every operation in every status it can be asked for."""

from __future__ import annotations

import json
import re
import signal

import pytest

from holdfast.admin.api import STATUSES
from holdfast.runtime.introspect import PUBLIC_STATUSES
from tests.cli.support import Serve, Served

UNKNOWN = "inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"


def test_the_command_offers_every_status():
    assert STATUSES == PUBLIC_STATUSES


def test_list_filters_and_pages(engine: Served):
    ids = [engine.send("Counter/paged/add", number) for number in range(5)]
    for invocation_id in ids:
        engine.wait_for(invocation_id, "completed")

    def listed(*options: str) -> list[str]:
        return [row["id"] for row in engine.json("invocations", "list", "--key", "paged", *options)]

    assert listed() == ids[::-1]
    assert listed("--oldest-first") == ids
    assert listed("--limit", "2") == [ids[4], ids[3]]
    assert listed("--limit", "2", "--before", ids[3]) == [ids[2], ids[1]]
    assert listed("--limit", "2", "--before", ids[1], "--oldest-first") == [ids[2], ids[3]]
    assert listed("--service", "Counter", "--handler", "add", "--status", "completed") == ids[::-1]
    assert listed("--handler", "peek") == []
    assert listed("--status", "running", "--status", "paused") == []


def test_list_is_a_line_per_invocation(engine: Served):
    invocation_id = engine.send("Greeter/refuse", {"message": "no luck", "code": 400})
    engine.wait_for(invocation_id, "completed")
    text = engine.done("invocations", "list", "--handler", "refuse", "--limit", "1")
    header, row = text.splitlines()
    assert header.split() == ["ID", "TARGET", "STATUS", "AGE", "NOTE"]
    assert re.fullmatch(rf"{invocation_id} +Greeter/refuse +failure +[\d.]+ m?s +\[400\] no luck *", row)


def test_an_empty_list_says_so(engine: Served):
    assert engine.done("invocations", "list", "--key", "no such key") == "no invocations"
    assert engine.json("invocations", "list", "--key", "no such key") == []


def test_list_refuses_an_unknown_status_before_it_asks(engine: Served):
    result = engine.cli("invocations", "list", "--status", "done")
    assert result.exit_code == 2
    assert "'done' is not one of 'scheduled', 'pending'" in result.stderr


def test_show_prints_the_journal_as_a_timeline(engine: Served):
    invocation_id = engine.send("Greeter/steps", "Ada")
    engine.wait_for(invocation_id, "completed")
    lines = engine.done("invocations", "show", invocation_id).splitlines()
    assert lines[0] == f"{invocation_id}  Greeter/steps"
    assert re.fullmatch(r"completed: success, after [\d.]+ m?s", lines[1])
    assert re.fullmatch(r"created \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, [\d.]+ m?s ago, by ingress", lines[2])
    assert lines[3] == ""
    rows = [re.fullmatch(r" *\+([\d.]+ m?s) +(\d)  (.*)", line) for line in lines[4:]]
    assert [row and row[2] for row in rows] == list("012345")
    texts = [re.sub(r"wake_up_time=\+[\d.]+ m?s", "wake_up_time=…", row[3]) for row in rows if row]
    assert texts == [
        'Input  value="Ada"',
        'Run "measure"',
        "└ Run  value=3",
        'Sleep "breath"  wake_up_time=…',
        "└ Sleep",
        'Output  value="Ada has 3"',
    ]


def test_show_json_has_the_invocation_and_its_journal(engine: Served):
    invocation_id = engine.send("Greeter/steps", "Ada")
    engine.wait_for(invocation_id, "completed")
    document = engine.json("invocations", "show", invocation_id)
    assert document["invocation"]["completion_result"] == "success"
    assert [entry["index"] for entry in document["journal"]] == list(range(document["invocation"]["journal_size"]))
    assert [entry["entry_type"] for entry in document["journal"]][:2] == ["Command: Input", "Command: Run"]


def test_show_tells_what_it_waits_for(engine: Served):
    invocation_id = engine.send("Greeter/wait", "tea")
    engine.wait_for(invocation_id, "suspended")
    text = engine.done("invocations", "show", invocation_id)
    assert text.splitlines()[1] == 'suspended: waits for Sleep "tea" (completion 1)'


def test_show_tells_why_it_fails_and_when_it_tries_again(engine: Served):
    invocation_id = engine.send("Greeter/stumble", "over a stone")
    engine.wait_for(invocation_id, "backing-off")
    lines = engine.done("invocations", "show", invocation_id).splitlines()
    assert re.fullmatch(r"backing-off: attempt 1 failed, the next starts in (1\.\d h|[\d.]+ min)", lines[1])
    assert "last failure: RuntimeError('over a stone')" in lines


def test_cancel_of_a_suspended_one_reaches_its_handler(engine: Served):
    invocation_id = engine.send("Greeter/wait", "cancelled")
    engine.wait_for(invocation_id, "suspended")
    assert engine.done("invocations", "cancel", invocation_id) == f"{invocation_id} told to stop; it may clean up first"
    assert engine.wait_for(invocation_id, "completed").completion_failure == "[409] cancelled"


def test_cancel_of_a_scheduled_one_drops_it(engine: Served):
    invocation_id = engine.send("Greeter/greet", "late", delay="1h")
    [outcome] = engine.json("invocations", "cancel", invocation_id)
    assert outcome == {"id": invocation_id, "outcome": "had not started and is gone"}
    assert engine.cli("invocations", "show", invocation_id).exit_code == 2


def test_kill_ends_at_once(engine: Served):
    invocation_id = engine.send("Greeter/wait", "killed")
    assert engine.done("invocations", "kill", invocation_id) == f"{invocation_id} killed"
    assert engine.wait_for(invocation_id, "completed").completion_failure == "[409] killed"


def test_pause_and_resume(engine: Served):
    invocation_id = engine.send("Greeter/stumble", "again")
    engine.wait_for(invocation_id, "backing-off")
    assert (
        engine.done("invocations", "pause", invocation_id)
        == f"{invocation_id} pauses, a running attempt is ended first"
    )
    engine.wait_for(invocation_id, "paused")
    assert engine.done("invocations", "resume", invocation_id) == f"{invocation_id} goes on"
    engine.wait_for(invocation_id, "backing-off")


def test_purge_forgets(engine: Served):
    invocation_id = engine.call("Greeter/steps", "Ada")
    assert engine.done("invocations", "purge", invocation_id) == f"{invocation_id} forgotten"
    assert engine.cli("invocations", "show", invocation_id).exit_code == 2


def test_purge_of_the_journal_keeps_the_result(engine: Served):
    invocation_id = engine.call("Greeter/steps", "Ada")
    assert engine.done("invocations", "purge", "--journal", invocation_id) == f"{invocation_id} journal forgotten"
    document = engine.json("invocations", "show", invocation_id)
    assert document["invocation"]["completion_result"] == "success"
    assert document["invocation"]["journal_size"] == 0
    assert document["journal"] == []
    assert engine.done("invocations", "show", invocation_id).endswith("(no journal)")


NOT_FOUND = [
    f"error HF0101: The requested invocation '{UNKNOWN}' does not exist",
    "  next: it may be purged, or its retention over; recent ones: holdfast invocations list",
]


@pytest.mark.parametrize("operation", ["show", "cancel", "kill", "pause", "resume", "restart-as-new", "purge"])
def test_an_unknown_invocation_is_exit_code_2(engine: Served, operation: str):
    result = engine.cli("invocations", operation, UNKNOWN)
    assert result.stderr.splitlines() == NOT_FOUND
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_malformed_id_is_exit_code_2(engine: Served):
    result = engine.cli("invocations", "cancel", "inv_bad")
    assert result.stderr.splitlines() == [
        "error HF0105: The request field 'invocation_id' is invalid. Reason: unrecognized codec version",
        "  next: ids begin with inv_1 and are copied whole: holdfast invocations list",
    ]
    assert result.exit_code == 2


# operation -> what Restate 1.7.12 says about one that has completed
CONFLICTS = {
    "cancel": "The invocation '{id}' was already completed.",
    "kill": "The invocation '{id}' was already completed.",
    "pause": "The invocation '{id}' is not running, cannot be paused.",
    "resume": "The invocation '{id}' is completed, cannot be resumed.",
}
NO_DEPLOYMENT = "dp_16tCcPQuIcwtYpzUmqjMAmK"


@pytest.mark.parametrize("operation", CONFLICTS)
def test_a_completed_one_cannot_be_changed(engine: Served, operation: str):
    invocation_id = engine.call("Greeter/greet", "Ada")
    result = engine.cli("invocations", operation, invocation_id)
    assert result.stderr.splitlines() == [
        f"error HF0103: {CONFLICTS[operation].replace('{id}', invocation_id)}",
        f"  next: see its status: holdfast invocations show {invocation_id}",
    ]
    assert result.exit_code == 2


def test_a_live_one_cannot_be_purged(engine: Served):
    invocation_id = engine.send("Greeter/wait", "alive")
    result = engine.cli("invocations", "purge", invocation_id)
    assert result.stderr.splitlines()[0] == f"error HF0103: The invocation '{invocation_id}' is not yet completed."
    assert result.exit_code == 2


def test_a_scheduled_one_cannot_be_resumed(engine: Served):
    invocation_id = engine.send("Greeter/greet", "soon", delay="1h")
    result = engine.cli("invocations", "resume", invocation_id)
    assert result.stderr.splitlines() == [
        f"error HF0104: The invocation '{invocation_id}' is either inboxed or scheduled, cannot be resumed.",
        f"  next: to drop it before it starts: holdfast invocations cancel {invocation_id}",
    ]
    assert result.exit_code == 2


def test_several_ids_are_all_tried(engine: Served):
    first, last = engine.send("Greeter/wait", "1"), engine.send("Greeter/wait", "2")
    result = engine.cli("invocations", "kill", first, UNKNOWN, last, "--json")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == NOT_FOUND
    assert [(one["id"], one.get("outcome"), one.get("error")) for one in json.loads(result.stdout)] == [
        (first, "killed", None),
        (UNKNOWN, None, "HF0101"),
        (last, "killed", None),
    ]
    for invocation_id in (first, last):
        engine.wait_for(invocation_id, "completed")


def test_a_pending_one_names_the_key_it_waits_for(engine: Served):
    holder = engine.send("Counter/busy/hold")
    queued = engine.send("Counter/busy/add", 1)
    engine.wait_for(holder, "suspended")
    assert engine.done("invocations", "show", queued).splitlines()[1] == "pending: another invocation holds key busy"
    engine.done("invocations", "kill", holder)
    engine.wait_for(queued, "completed")


def test_restart_as_new(engine: Served):
    invocation_id = engine.call("Greeter/steps", "Ada")
    text = engine.done("invocations", "restart-as-new", invocation_id)
    found = re.fullmatch(rf"{invocation_id} runs again as (inv_1\w+)", text)
    assert found is not None
    assert engine.wait_for(found[1], "completed").restarted_from == invocation_id
    lines = engine.done("invocations", "show", found[1]).splitlines()
    assert lines[2].endswith(f"ago, by restart of {invocation_id}")


def test_restart_as_new_keeps_what_was_done(engine: Served):
    invocation_id = engine.call("Greeter/steps", "Ada")
    measured = engine.logs().count("measuring Ada")
    [outcome] = engine.json("invocations", "restart-as-new", invocation_id, "--from", "2", "--deployment", "keep")
    engine.wait_for(outcome["outcome"].split()[-1], "completed")
    assert engine.logs().count("measuring Ada") == measured
    result = engine.cli("invocations", "restart-as-new", invocation_id, "--from", "99")
    assert result.exit_code == 2
    assert "contains some Commands without respective Completions" in result.stderr


def test_a_deployment_that_is_not_there(engine: Served):
    invocation_id = engine.send("Greeter/stumble", "stay")
    engine.wait_for(invocation_id, "backing-off")
    engine.done("invocations", "pause", invocation_id)
    engine.wait_for(invocation_id, "paused")
    result = engine.cli("invocations", "resume", invocation_id, "--deployment", "newest")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0].endswith("'deployment' is invalid. Reason: bad format")
    completed = engine.call("Greeter/steps", "Ada")
    result = engine.cli("invocations", "restart-as-new", completed, "--deployment", NO_DEPLOYMENT)
    assert result.exit_code == 2
    assert "The given deployment was not found" in result.stderr
    assert engine.done("invocations", "resume", invocation_id, "--deployment", "latest") == f"{invocation_id} goes on"


# --- all that a filter finds


def test_a_filter_names_many(engine: Served):
    live = [engine.send(f"Counter/crowd{number}/hold") for number in range(3)]
    other = engine.send("Counter/elsewhere/hold")
    for invocation_id in (*live, other):
        engine.wait_for(invocation_id, "suspended")
    for number, invocation_id in enumerate(live[:2]):
        result = engine.cli("invocations", "cancel", "--service", "Counter", "--key", f"crowd{number}", "--yes")
        assert result.stdout.splitlines() == [f"{invocation_id} told to stop, or had not started and is gone"]
        assert result.stderr.splitlines() == ["cancel: 1 of 1"]
        engine.wait_for(invocation_id, "completed")
    killed = engine.json("invocations", "kill", "--handler", "hold", "--status", "suspended", "--yes")
    assert {one["id"] for one in killed} >= {live[2], other}
    assert {one["outcome"] for one in killed} == {"killed"}


def test_many_are_changed_only_when_somebody_agrees(engine: Served):
    invocation_id = engine.send("Counter/asked/hold")
    engine.wait_for(invocation_id, "suspended")
    select = ("--service", "Counter", "--key", "asked")
    refused = engine.cli("invocations", "kill", *select, stdin="n\n")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "kill 1 invocation? [y/N]" in refused.stderr
    assert engine.admin.invocation(invocation_id).status == "suspended"
    agreed = engine.cli("invocations", "kill", *select, stdin="y\n")
    assert (agreed.exit_code, agreed.stdout) == (0, f"{invocation_id} killed\n")


def test_failed_ones_run_again(engine: Served):
    engine.call("Counter/mixed/add", 1)
    failed = engine.send("Greeter/refuse", {"message": "mixed", "code": 400})
    engine.wait_for(failed, "completed")
    outcomes = engine.json("invocations", "restart-as-new", "--service", "Greeter", "--failed", "--yes")
    again = {one["id"]: one["outcome"].removeprefix("runs again as ") for one in outcomes}
    assert failed in again
    assert engine.wait_for(again[failed], "completed").completion_failure == "[400] mixed"
    assert engine.json("invocations", "purge", "--key", "mixed", "--failed", "--yes") == []
    [purged] = engine.json("invocations", "purge", "--key", "mixed", "--yes")
    assert purged["outcome"] == "forgotten"


def test_paused_ones_go_on(engine: Served):
    invocation_id = engine.send("Greeter/stumble", "all together")
    engine.wait_for(invocation_id, "backing-off")
    paused = engine.json("invocations", "pause", "--handler", "stumble", "--yes")
    assert invocation_id in {one["id"] for one in paused}
    engine.wait_for(invocation_id, "paused")
    resumed = engine.json("invocations", "resume", "--handler", "stumble", "--deployment", "latest", "--yes")
    assert invocation_id in {one["id"] for one in resumed}
    engine.done("invocations", "kill", "--handler", "stumble", "--yes")


def test_nothing_found_is_nothing_done(engine: Served):
    result = engine.cli("invocations", "cancel", "--key", "no such key")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no such invocations: nothing to do\n"


MISUSES = {
    "neither": ("cancel",),
    "both": ("cancel", UNKNOWN, "--service", "Greeter"),
    "a place in many journals": ("restart-as-new", "--service", "Greeter", "--from", "1"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_ids_or_a_filter(engine: Served, misuse: str):
    result = engine.cli("invocations", *MISUSES[misuse])
    assert result.exit_code == 2
    assert "name" in result.stderr.splitlines()[-1]


# --- services


def test_services_are_listed(engine: Served):
    text = engine.done("services", "list")
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert rows[:2] == [
        ["SERVICE", "KIND", "HANDLER", "TAKES", "RETURNS"],
        ["Greeter", "service", "greet", "string", "string"],
    ]
    assert ["Counter", "virtual object", "add", "integer", "integer"] in rows
    assert ["peek (shared)", "-", "integer"] in rows
    assert ["Signup", "workflow", "run (once per key)", "string", "string"] in rows
    assert ["tuned (private)", "boolean", "-"] in rows
    assert [service["name"] for service in engine.json("services", "list")] == ["Greeter", "Counter", "Signup"]


def test_everything_is_still_there_after_a_restart(serve: Serve):
    first = serve()
    sleeping = first.send("Greeter/wait", "over the restart")
    done = first.call("Counter/kept/add", 3)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = serve(db=first.db)
    assert second.done("call", "Counter/kept/peek") == "3"
    assert second.admin.invocation(done).completion_result == "success"
    second.done("invocations", "kill", sleeping)
    assert second.stop() == 0
