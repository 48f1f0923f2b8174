"""`holdfast workflows` and `holdfast executions`, in both modes, on both engines."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.progress import share
from tests.api.processes import Cli, environment, running
from tests.support.restate_server import RunningRestate

# Code that is served from this process over HTTP/2 leaves a task behind when its loop ends with the command: hypercorn's
# watch over an idle connection, cancelled before its first step.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MODES = [
    "embedded here",
    "embedded over HTTP",
    pytest.param("restate here", marks=pytest.mark.restate_server),
    pytest.param("restate over HTTP", marks=pytest.mark.restate_server),
]


@pytest.fixture(scope="module", params=MODES)
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command, told where workflows are."""
    folder = tmp_path_factory.mktemp("cli")
    database = ("--db", str(folder / "engine.db"))
    match request.param:
        case "embedded here":
            yield Cli(database, "embedded")
        case "embedded over HTTP":
            ports = ("--ingress-port", "0", "--admin-port", "0")
            with running(folder, "serve", "tests.admin.sample_app:app", *database, *ports) as served:
                yield Cli(("--url", served.document["admin_url"]), "embedded")
        case mode:
            server: RunningRestate = request.getfixturevalue("restate")
            settings = (
                "--provider",
                "restate",
                "--set",
                f"workflow.restate.endpoint={server.ingress_url}",
                "--set",
                f"workflow.restate.admin_endpoint={server.admin_url}",
            )
            if mode == "restate here":
                yield Cli(settings, "restate", prefix="here-")
            else:
                with running(folder, "api", *settings, "--port", "0") as served:
                    yield Cli(("--url", served.document["url"]), "restate", prefix="http-")


# --- workflows


def test_a_workflow_from_its_creation_to_its_end(cli: Cli) -> None:
    workflow_id = f"{cli.prefix}life"
    definition = ("--id", workflow_id, "--definition", "tests.api.flows:hello")
    assert cli.done("workflows", "validate", *definition) == f"{workflow_id} can be created"
    created = cli("workflows", "create", *definition, "--timeout", "30m", "--tag", "team=a", "--retry-attempts", "2")
    assert (created.exit_code, created.stderr) == (0, f"start it: holdfast executions start {workflow_id}\n")
    assert created.stdout.startswith(f"{workflow_id} created: {cli.provider}, service ")
    again = cli.done("workflows", "create", *definition, "--description", "another")
    assert again.startswith(f"{workflow_id} was there already; nothing was changed")
    info = cli.json("workflows", "show", workflow_id)
    assert (info["timeout"], info["tags"], info["retry_policy"]["max_attempts"]) == ("30m", {"team": "a"}, 2)
    assert info["description"] == ""
    shown = cli.done("workflows", "show", workflow_id)
    assert re.search(r"^definition +tests\.api\.flows:hello$", shown, re.MULTILINE)
    assert re.search(r"^timeout +30m$", shown, re.MULTILINE)
    assert re.search(rf"^{workflow_id} +{cli.provider} ", cli.done("workflows", "list"), re.MULTILINE)
    assert workflow_id in [each["workflow_id"] for each in cli.json("workflows", "list")["items"]]
    assert cli.done("workflows", "delete", workflow_id, f"{workflow_id}-never") == (
        f"{workflow_id} deleted\n{workflow_id}-never deleted"
    )
    gone = cli("workflows", "show", workflow_id)
    assert gone.exit_code == 2
    assert gone.stderr.startswith(f"error HF0402: there is no workflow '{workflow_id}'\n  next: ")


def test_a_workflow_from_a_file(cli: Cli, tmp_path: Path) -> None:
    workflow_id = f"{cli.prefix}file"
    spec = {"workflow_id": workflow_id, "name": "From a file", "definition": "tests.api.flows:approval", "timeout": 60}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    options = ("--handler", "run", "--description", "said twice")
    cli.done("workflows", "create", "--file", str(tmp_path / "spec.json"), *options)
    info = cli.json("workflows", "show", workflow_id)
    assert (info["name"], info["timeout"], info["description"]) == ("From a file", "1m", "said twice")
    assert info["definition"] == {"reference": "tests.api.flows:approval", "handler": "run"}
    again = cli.json("workflows", "create", "--file", "-", stdin=json.dumps(spec))
    assert again["is_new"] is False


WRONG: dict[str, tuple[list[str], str]] = {
    "an unknown attribute": (["--definition", "tests.api.flows:nowhere"], "HF0400: definition: "),
    "no definition": ([], "HF0400: definition: is required"),
    "a duration": (["--definition", "tests.api.flows:hello", "--timeout", "0s"], "HF0400: timeout: "),
    "a handler": (["--definition", "tests.api.flows:hello", "--handler", "no"], "HF0400: definition.handler: "),
    "a setting": (
        ["--definition", "tests.api.flows:hello", "--provider-config", "colour=red"],
        "HF0400: provider_config.colour: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_created(cli: Cli, case: str) -> None:
    options, message = WRONG[case]
    for command in ("validate", "create"):
        refused = cli("workflows", command, "--id", f"{cli.prefix}wrong", *options)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"error {message}" in refused.stderr, refused.stderr


# --- executions


def test_an_execution_that_succeeds(cli: Cli) -> None:
    workflow_id = cli.create("hello")
    options = (workflow_id, '"Ada"', "--name", "first", "--tag", "a=b", "--metadata", '{"m": 1}')
    started = cli("executions", "start", *options)
    execution_id = f"{workflow_id}.first"
    assert (started.exit_code, started.stdout) == (0, f"{execution_id}\n")
    assert f"follow it: holdfast executions wait {execution_id}" in started.stderr
    waited = cli("executions", "wait", execution_id, "--timeout", "30")
    assert (waited.exit_code, waited.stdout) == (0, '"Hello Ada"\n'), waited.stderr
    assert re.search(rf"^\d\d:\d\d:\d\d  {execution_id}  succeeded  completed=1 total=1$", waited.stderr, re.MULTILINE)
    again = cli("executions", "start", workflow_id, '"Bob"', "--name", "first")
    assert "was there already, succeeded" in again.stderr
    status = cli.json("executions", "status", execution_id)
    assert (status["input"], status["output"], status["trigger_source"]) == ("Ada", "Hello Ada", "cli")
    assert (status["tags"], status["metadata"]["m"]) == ({"a": "b"}, 1)
    described = cli.done("executions", "status", execution_id)
    assert re.search(r"^state +succeeded$", described, re.MULTILINE)
    assert 'Command: Run "greet"' in described
    assert "Command" not in cli.done("executions", "status", execution_id, "--no-history")
    listed = cli.done("executions", "list", "--workflow", workflow_id, "--state", "succeeded", "--since", "1h")
    assert re.search(rf"^{execution_id} +{cli.provider} +succeeded ", listed, re.MULTILINE)
    assert cli.done("executions", "list", "--workflow", workflow_id, "--state", "failed") == "no executions"


def test_an_execution_that_is_waited_for_at_once(cli: Cli) -> None:
    workflow_id = cli.create("plain")
    assert cli.done("executions", "start", workflow_id, "-", "--wait", stdin="[1, null]") == '{"plain": [1, null]}'
    document = cli.json("executions", "start", workflow_id, "--wait")
    assert (document["state"], document["output"]) == ("succeeded", {"plain": None})


def test_an_execution_that_fails(cli: Cli) -> None:
    workflow_id = cli.create("failing")
    failed = cli("executions", "start", workflow_id, '"no tea"', "--name", "first", "--wait")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[-2:] == [
        f"error HF0106: {workflow_id}.first failed: [418] no tea",
        f"  next: how it got there: holdfast executions status {workflow_id}.first",
    ]
    watched = cli("executions", "watch", f"{workflow_id}.first")
    assert watched.exit_code == 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d  failed  \[418\] no tea\n", watched.stdout)
    as_json = cli("executions", "wait", f"{workflow_id}.first", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["state"]) == (1, "failed")


def test_an_execution_that_is_told_and_watched(cli: Cli) -> None:
    workflow_id = cli.create("approval")
    execution_id = cli.json("executions", "start", workflow_id, '{"n": 1}')["execution_id"]
    late = cli("executions", "wait", execution_id, "--timeout", "200ms")
    assert late.exit_code == 124
    assert f"error HF0407: execution '{execution_id}' is still " in late.stderr
    assert cli("workflows", "delete", workflow_id).exit_code == 2
    assert cli.done("executions", "signal", execution_id, "ask", '"well"').startswith('"well? ')
    told = cli("executions", "signal", execution_id, "approved", "true")
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "told\n"), told.stderr
    changes = cli.done("executions", "watch", execution_id, "--json").splitlines()
    assert json.loads(changes[-1])["to_state"] == "succeeded"
    output = cli.json("executions", "wait", execution_id)["output"]
    assert output == {"document": {"n": 1}, "approved": True}
    refused = cli("executions", "signal", execution_id, "approved", "true")
    assert refused.exit_code == 2
    assert "is over; nothing hears a signal" in refused.stderr


def test_an_execution_that_is_stopped(cli: Cli) -> None:
    workflow_id = cli.create("sleepy")
    ids = [cli.json("executions", "start", workflow_id, "600")["execution_id"] for _ in range(2)]
    stopped = cli.done("executions", "stop", *ids, "--reason", "enough", "--kill", "--grace", "5s")
    assert stopped == "\n".join(f"{execution_id} stopped: enough" for execution_id in ids)
    assert cli.done("executions", "stop", ids[0], "--reason", "again") == f"{ids[0]} stopped: enough"
    waited = cli("executions", "wait", ids[0])
    assert waited.exit_code == 1
    assert f"error HF0106: {ids[0]} was stopped: enough" in waited.stderr


def test_an_execution_that_takes_too_long(cli: Cli) -> None:
    workflow_id = cli.create("sleepy", "--timeout", "30m")
    limited = f"{workflow_id}-limited"
    cli.done("workflows", "create", "--id", limited, "--definition", "tests.api.flows:sleepy", "--timeout", "500ms")
    over = cli("executions", "start", limited, "600", "--wait")
    assert over.exit_code == 1
    assert "reached its time limit" in over.stderr


def test_what_is_not_there(cli: Cli) -> None:
    for command in (["status"], ["wait"], ["watch"], ["stop"], ["signal", "nowhere.e", "go"]):
        refused = cli("executions", command[0], *(command[1:] or ["nowhere.e"]))
        assert refused.exit_code == 2, command
        assert "error HF0403: there is no execution 'nowhere.e'" in refused.stderr
    refused = cli("executions", "start", "nowhere")
    assert refused.exit_code == 2
    assert "error HF0402: there is no workflow 'nowhere'" in refused.stderr


def test_lists_come_in_pages(cli: Cli) -> None:
    workflow_id = cli.create("plain")
    for number in range(3):
        cli.done("executions", "start", workflow_id, "--name", f"page{number}", "--wait")
    names: list[str] = []
    cursor: list[str] = []
    while True:
        page = cli.json("executions", "list", "--workflow", workflow_id, "--limit", "2", *cursor)
        names += [each["execution_name"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = ["--cursor", page["next_cursor"]]
    assert [name for name in names if name.startswith("page")] == ["page2", "page1", "page0"]
    first = cli("executions", "list", "--workflow", workflow_id, "--limit", "1")
    assert "there may be more: --cursor '" in first.stderr


# --- where workflows are


def bare(*arguments: str, settings: dict[str, str] | None = None) -> Any:
    return Cli((), "", settings=settings or {})(*arguments)


def test_a_database_that_does_not_exist_is_not_made_by_a_look(tmp_path: Path) -> None:
    db = tmp_path / "typo.db"
    refused = bare("executions", "list", "--db", str(db))
    assert refused.exit_code == 2
    assert f"error HF0105: there is no database {db}" in refused.stderr
    assert not db.exists()


def test_a_database_in_use_is_reached_through_its_engine(tmp_path: Path) -> None:
    db = str(tmp_path / "engine.db")
    ports = ("--ingress-port", "0", "--admin-port", "0")
    with running(tmp_path, "serve", "tests.admin.sample_app:app", "--db", db, *ports) as served:
        refused = bare("workflows", "list", "--db", db)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error HF0301: ")
        assert "--url" in refused.stderr
        url = served.document["admin_url"]
        assert bare("workflows", "list", "--url", url).stdout == "no workflows\n"
        # The environment says where the engine is; a database in the environment is then its own.
        settings = {"HOLDFAST_API_URL": url, "HOLDFAST_DB": db}
        assert bare("workflows", "list", settings=settings).stdout == "no workflows\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "http://127.0.0.1:1", "--db", "x.db"], "--db is for a provider that is opened here"),
        (["--url", "http://127.0.0.1:1", "--set", "a=b"], "--config and --set are for a provider"),
        (["--url", "http://127.0.0.1:1", "--provider", "restate"], "--provider is for a workflow that is created"),
        (["--set", "nonsense"], "'nonsense' is not KEY=VALUE"),
        (["--provider", "nowhere"], "error HF0404: there is no provider 'nowhere'; known: "),
        (["--provider", "restate"], "error HF0408: workflow.restate.endpoint"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_options_that_do_not_fit(options: list[str], message: str, tmp_path: Path) -> None:
    refused = bare("workflows", "list", *options)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_nobody_answers() -> None:
    refused = bare("workflows", "list", "--url", "http://127.0.0.1:1")
    assert refused.exit_code == 1
    assert "error HF0420: no API answers at http://127.0.0.1:1" in refused.stderr


def test_a_restate_server_that_is_away_is_named() -> None:
    options = ("--provider", "restate", "--set", "workflow.restate.endpoint=http://127.0.0.1:1")
    refused = bare("workflows", "list", *options, "--set", "workflow.restate.request_attempts=1")
    assert refused.exit_code == 1
    assert "http://127.0.0.1:1" in refused.stderr


def test_the_configuration_routes(tmp_path: Path) -> None:
    config = tmp_path / "holdfast.toml"
    config.write_text(f'[workflow.embedded]\ndb = "{tmp_path / "routed.db"}"\n')
    create = ("workflows", "create", "--id", "x", "--definition", "tests.api.flows:hello")
    assert bare(*create, "--config", str(config)).exit_code == 0
    assert (tmp_path / "routed.db").exists()


# --- live progress


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.25, 0.25),
        ({"completed": 1, "total": 4}, 0.25),
        ({"done": 5, "total": 4}, 1.0),
        (7, None),
        (True, None),
        ("half", None),
        ({"completed": 1}, None),
        ({"completed": 1, "total": 0}, None),
        (None, None),
    ],
)
def test_how_much_is_done(progress: Any, expected: float | None) -> None:
    assert share(progress) == expected


def test_a_terminal_shows_live_progress(tmp_path: Path) -> None:
    """On a terminal the line moves; what is printed at the end is the output alone."""
    db = ("--db", str(tmp_path / "engine.db"))
    Cli(db, "embedded").create("hello")
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 4096))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.cli", "executions", "start", "hello", '"Ada"', "--name", "e", "--wait", *db],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
        timeout=60,
        check=False,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b'"Hello Ada"\n'), seen.decode()
    assert b"hello.e" in seen
    assert b"\x1b[2K" in seen  # it was drawn, and taken away
