"""The command line of imports, on both engines: what it prints, and with which code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from apps.imports.cli import main
from tests.imports.extracts import full_extract
from tests.imports.running import EITHER_ENGINE, PATIENCE_S, Running, environment, on_engine, running_imports
from tests.support.restate_server import REPOSITORY, free_ports, running_server, skip_without_server


@pytest.fixture(scope="module", params=EITHER_ENGINE)
def imports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with on_engine(request.param, tmp_path_factory.mktemp("imports"), IMPORTS_BATCH_ROWS="1") as running:
        yield running


def run(imports: Running, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--url", imports.url, *arguments], input=stdin, env={"COLUMNS": "200"})


def test_start_and_watch(imports: Running) -> None:
    number = imports.next_number()
    extract = full_extract(imports.folder, number)
    result = run(imports, "start", str(extract), "--watch")
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert first == f"started import-{number}; {imports.url}/imports/import-{number}"
    assert last.startswith(f"completed import-{number}: extract {number}, ")
    assert "3 names resolved, 0 rows rejected" in last


def test_watch_tells_each_change_as_json(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    accepted = json.loads(run(imports, "start", str(extract), "--id", "json", "--json").stdout)
    assert (accepted["workflow_id"], accepted["status"]) == ("json", "started")
    result = run(imports, "watch", "json", "--json")
    assert result.exit_code == 0
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[-1]["status"] == "completed"
    assert told == [each for index, each in enumerate(told) if index == 0 or each != told[index - 1]]


def test_a_failed_import_ends_with_1(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number(), broken_file="enterprise")
    result = run(imports, "start", str(extract), "--id", "broken", "--watch")
    assert result.exit_code == 1
    assert result.stderr.startswith("failed broken: ")
    assert "enterprise.csv" in result.stderr


def test_a_known_id_is_refused_with_what_to_do(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    assert run(imports, "start", str(extract), "--id", "known", "--watch").exit_code == 0
    result = run(imports, "start", str(extract), "--id", "known")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: import 'known' was started before and is completed; choose another id to import again\n"
        "next: follow it with `imports watch`, or choose another --id\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nothere.zip", "there is no file nothere.zip here, and no extract number in the file's name"),
        ("http://127.0.0.1:1/latest.zip", "error: no extract number in the file's name"),
    ],
)
def test_a_source_that_gives_no_id_is_refused_with_what_to_do(imports: Running, source: str, said: str) -> None:
    result = run(imports, "start", source)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert "choose an id with --id" in result.stderr


def test_cancel_asks_first(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    imports.start(imports.gate.hold(extract), "asked")
    assert run(imports, "cancel", "asked", stdin="n\n").exit_code == 1
    assert imports.progress("asked")["status"] in ("pending", "preparing")
    cancelled = run(imports, "cancel", "asked", stdin="y\n")
    assert (cancelled.exit_code, cancelled.stdout.splitlines()[-1]) == (
        0,
        "cancelling asked; `imports watch asked` shows its end",
    )
    imports.gate.release(extract)
    watched = run(imports, "watch", "asked")
    assert (watched.exit_code, watched.stdout) == (
        3,
        "cancelled asked: rolled back; readers see the extract before it\n",
    )


def test_cancel_in_a_script(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number(), enterprises=200)
    imports.start(extract, "scripted")
    imports.until("scripted", "processing", completed=1)
    result = run(imports, "cancel", "scripted", "--yes", "--watch", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "cancelled"
    over = run(imports, "cancel", "scripted", "--yes")
    assert (over.exit_code, over.stderr.splitlines()[0]) == (
        1,
        "error: import 'scripted' is cancelled already; there is nothing to cancel",
    )


def test_history(imports: Running) -> None:
    for index in range(2):
        extract = full_extract(imports.folder, imports.next_number())
        assert run(imports, "start", str(extract), "--id", f"old-{index}", "--watch").exit_code == 0
    table = run(imports, "history", "--limit", "1").stdout
    assert table.splitlines()[0].split()[:2] == ["IMPORT", "STATUS"]
    assert "old-1" in table
    assert "older: imports history --cursor old-1" in table
    page = json.loads(run(imports, "history", "--limit", "1", "--cursor", "old-1", "--json").stdout)
    assert [each["import_id"] for each in page["imports"]] == ["old-0"]


@pytest.mark.parametrize("command", [["watch", "never"], ["cancel", "never", "--yes"]])
def test_an_unknown_import(imports: Running, command: list[str]) -> None:
    result = run(imports, *command)
    assert result.exit_code == 1
    assert result.stderr == "error: there is no import 'never'\nnext: see `imports history`\n"


def imports_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it."""
    line = [sys.executable, "-m", "apps.imports", *arguments]
    return subprocess.run(
        line, cwd=REPOSITORY, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def test_nobody_there_is_one_line_and_what_to_do() -> None:
    [port] = free_ports(1)
    result = CliRunner().invoke(main, ["--url", f"http://127.0.0.1:{port}", "--patience", "0", "history"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0].startswith(f"error: no answer from http://127.0.0.1:{port}: ")
    assert result.stderr.splitlines()[1].startswith("next: start it with")
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "variables", "complaint"),
    [
        (["--engine", "restate"], {"RESTATE_ADMIN_URL": "http://x:1"}, "RESTATE_INGRESS_URL is not set"),
        (["--engine", "restate"], {"RESTATE_INGRESS_URL": "http://x:1"}, "RESTATE_ADMIN_URL is not set"),
        ([], {"RESTATE_INGRESS_URL": "x:1"}, "RESTATE_INGRESS_URL is 'x:1'"),
        ([], {"IMPORTS_BATCH_ROWS": "many"}, "IMPORTS_BATCH_ROWS is 'many'"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named_at_the_start(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], complaint: str
) -> None:
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--dir", str(tmp_path), *arguments], env=variables)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {complaint}")
    assert len(result.stderr.splitlines()) == 2


def test_a_port_that_is_taken_is_one_line(tmp_path_factory: pytest.TempPathFactory, imports: Running) -> None:
    port = imports.url.rpartition(":")[2]
    done = imports_command("serve", "--port", port, "--dir", str(tmp_path_factory.mktemp("data")))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(f"error: cannot serve on 127.0.0.1:{port}: ")
    assert done.stderr.splitlines()[-1] == "next: choose another --port or --worker-port"


def test_a_database_in_use_is_one_line(imports: Running) -> None:
    done = imports_command("serve", "--port", "0", "--dir", str(imports.folder / "data"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0].startswith("error: ")


@pytest.mark.parametrize("engine", EITHER_ENGINE)
def test_who_watches_sees_the_end_though_the_process_is_killed_meanwhile(engine: str, tmp_path: Path) -> None:
    port, worker_port = (str(each) for each in free_ports(2))
    with ExitStack() as stack:
        server = None
        if engine == "restate":
            skip_without_server()
            server = stack.enter_context(running_server())
        variables = {"IMPORTS_PORT": port, "IMPORTS_WORKER_PORT": worker_port, "IMPORTS_BATCH_ROWS": "1"}
        pool = stack.enter_context(ThreadPoolExecutor(1))
        with running_imports(tmp_path, server, port=port, ready=True, **variables) as imports:
            imports.start(full_extract(tmp_path, imports.next_number(), enterprises=25), "killed")
            imports.until("killed", "processing", completed=5)
            watching = pool.submit(run, imports, "watch", "killed", "--json")
            imports.process.kill()
            imports.process.wait()
        with running_imports(tmp_path, server, port=port, ready=False, **variables):
            result = watching.result(PATIENCE_S)
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["status"] == "completed"
    assert last["completed"] == last["total"] > 50
    with duckdb.connect(str(tmp_path / "data" / "kbo.duckdb"), read_only=True) as store:
        assert store.execute("SELECT count(*) FROM enterprises_current").fetchone() == (25,)
        key = "job_id, table_name, operation, batch_number"
        assert (
            store.execute(f"SELECT {key} FROM import_job_batches GROUP BY {key} HAVING count(*) > 1").fetchall() == []
        )
