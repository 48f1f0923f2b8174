"""`holdfast serve`: what is wrong is said in one clear line; what runs is drained; a lost process loses nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.support import ANY_PORTS, COMMAND, PATIENCE_S, REPOSITORY, SAMPLE, Serve, Served, environment, poll, run
from tests.support.restate_server import serving_h2c

EMPTY_APPS = """\
import restate

no_services = restate.app([])


async def other_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"not here"})
"""


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def refused(*arguments: str, cwd: Path = REPOSITORY) -> tuple[int, list[str]]:
    """Start, which must fail: exit code and what was said."""
    result = run("serve", *arguments, *ANY_PORTS, cwd=cwd)
    assert result.stdout == ""
    return result.returncode, result.stderr.splitlines()


def test_a_module_that_is_not_there(tmp_path: Path):
    (tmp_path / "shop.py").write_text("")
    assert refused("shpo:app", cwd=tmp_path) == (
        2,
        ["error HF0201: no module 'shpo'", "  next: did you mean shop:app?"],
    )
    assert not (tmp_path / "holdfast.db").exists()


def test_a_module_that_fails(tmp_path: Path):
    (tmp_path / "shop.py").write_text("import restate\n\nprice = 1 / 0\n")
    assert refused("shop:app", cwd=tmp_path) == (
        1,
        [
            "error HF0200: importing shop failed: ZeroDivisionError: division by zero (shop.py:3)",
            "  next: to see the whole traceback: python -c 'import shop'",
        ],
    )


def test_an_app_without_services(tmp_path: Path):
    (tmp_path / "empty.py").write_text(EMPTY_APPS)
    assert refused("empty:no_services", cwd=tmp_path) == (
        2,
        [
            "error HF0201: the application has no services",
            "  next: list them: restate.app([my_service, my_object])",
        ],
    )
    assert not (tmp_path / "holdfast.db").exists()


def test_an_app_that_is_no_restate_application(tmp_path: Path):
    (tmp_path / "empty.py").write_text(EMPTY_APPS)
    code, lines = refused("empty:other_app", cwd=tmp_path)
    assert code == 2
    assert lines == [
        "error HF0201: the application answered discovery with status 404: not here",
        "  next: pass what restate.app([...]) returns, with at least one service in the list",
    ]


@pytest.mark.parametrize("what", ["ingress", "admin"])
def test_a_port_in_use(what: str, taken_port: int, tmp_path: Path):
    db = tmp_path / "engine.db"
    result = run("serve", SAMPLE, "--db", str(db), "--ingress-port", "0", "--admin-port", "0",
                      f"--{what}-port", str(taken_port))  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"error HF0305: {what} port {taken_port} on 127.0.0.1 is in use",
        f"  next: another engine? stop it, or choose another port: --{what}-port {taken_port + 1}, or 0 for a free one",
    ]
    assert not db.exists()


def test_an_address_of_another_machine():
    code, lines = refused(SAMPLE, "--host", "192.0.2.1", "--insecure")
    assert code == 1
    assert lines == [
        "error HF0305: cannot listen on 192.0.2.1: Cannot assign requested address",
        "  next: --host takes an address of this machine",
    ]


def test_a_database_of_another_engine(serve: Serve):
    owner = serve()
    code, lines = refused(SAMPLE, "--db", owner.db)
    assert code == 1
    assert len(lines) == 2
    assert lines[0].startswith("error HF0301: ")
    assert str(owner.process.pid) in lines[0]
    assert owner.call("Greeter/greet", "still here").startswith("inv_1")
    assert owner.stop() == 0


def test_a_file_that_is_no_database_of_ours(tmp_path: Path):
    db = tmp_path / "other.db"
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    before = db.read_bytes()
    code, lines = refused(SAMPLE, "--db", str(db))
    assert code == 1
    assert lines[0].startswith("error HF0302: ")
    assert lines[1].startswith("  next: ")
    assert db.read_bytes() == before


def test_a_service_or_a_list_of_services_will_do(serve: Serve):
    single = serve("tests.admin.sample_app:counter")
    assert [service["name"] for service in single.admin.services()] == ["Counter"]
    assert single.stop() == 0


def test_it_says_what_it_serves_and_where(tmp_path: Path, free_port: int):
    command = [*COMMAND, "serve", SAMPLE, "--db", "app.db", "--ingress-port", "0", "--admin-port", str(free_port)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment()
    )
    assert process.stderr is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith("stop ")):
        lines.append(process.stderr.readline().rstrip("\n"))
        assert lines[-1] or process.poll() is None, lines
    process.send_signal(signal.SIGINT)
    stdout, rest = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (0, "")
    assert "Traceback" not in rest
    table, places = lines[: lines.index("")], dict(re.split(r" {2,}", line, maxsplit=1) for line in lines[-5:])
    assert table[0].split() == ["SERVICE", "KIND", "HANDLER", "TAKES", "RETURNS"]
    assert table[1].split() == ["Greeter", "service", "greet", "string", "string"]
    assert places["admin"] == f"http://127.0.0.1:{free_port}"
    assert places["database"] == "app.db"
    assert places["try"] == f"curl {places['ingress']}/Greeter/greet -H 'content-type: application/json' -d '\"Ada\"'"
    assert (tmp_path / "app.db").exists()


def test_the_line_to_try_works(serve: Serve, tmp_path: Path):
    served = serve()
    answer = httpx.post(f"{served.ingress_url}/Greeter/greet", json="Ada")
    assert (answer.status_code, answer.json()) == (200, "Hello Ada")
    assert served.stop() == 0


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_handler_finish_and_answers_its_caller(
    serve: Serve, tmp_path: Path, signal_number: int
):
    (tmp_path / "slow.py").write_text(SLOW)
    served = serve("slow:app", cwd=tmp_path)
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(served.post("Slow/plain")))
    caller.start()
    wait_for_file(tmp_path / "started")
    served.process.send_signal(signal_number)
    wait_until_refused(served.ingress_url)
    (tmp_path / "go").touch()
    caller.join(PATIENCE_S)
    assert served.process.wait(PATIENCE_S) == 0
    assert [answer.json() for answer in answers] == ["finished"]


def test_a_step_that_runs_when_the_signal_comes_is_finished_and_never_run_again(serve: Serve, tmp_path: Path):
    (tmp_path / "slow.py").write_text(SLOW)
    served = serve("slow:app", cwd=tmp_path)
    invocation_id = served.send("Slow/step")
    wait_for_file(tmp_path / "started")
    served.process.send_signal(signal.SIGTERM)
    wait_until_refused(served.ingress_url)
    (tmp_path / "go").touch()
    assert served.process.wait(PATIENCE_S) == 0

    again = serve("slow:app", db=served.db, cwd=tmp_path)
    assert again.wait_for(invocation_id, "completed").completion_result == "success"
    assert again.stop() == 0
    assert (tmp_path / "started").read_text() == "once\n"


def test_a_waiting_caller_is_told_and_the_invocation_goes_on_after_the_restart(serve: Serve):
    served = serve()
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(served.post("Signup/drained/run", "a@b")))
    caller.start()
    invocation_id = found(served, "Signup")
    served.wait_for(invocation_id, "suspended")
    assert served.stop() == 0
    caller.join(PATIENCE_S)
    assert [answer.status_code for answer in answers] == [503]

    again = serve(db=served.db)
    again.post("Signup/drained/approve", "boss")
    assert again.wait_for(invocation_id, "completed").completion_result == "success"
    assert again.stop() == 0


def test_a_handler_that_does_not_finish_is_left_for_the_next_start(serve: Serve, tmp_path: Path):
    (tmp_path / "slow.py").write_text(SLOW)
    served = serve("slow:app", "--drain", "0.2", cwd=tmp_path)
    invocation_id = served.send("Slow/step")
    wait_for_file(tmp_path / "started")
    assert served.stop() == 0

    (tmp_path / "go").touch()
    again = serve("slow:app", db=served.db, cwd=tmp_path)
    assert again.wait_for(invocation_id, "completed").completion_result == "success"
    assert again.stop() == 0


def test_a_later_second_signal_ends_it_at_once(serve: Serve, tmp_path: Path):
    (tmp_path / "slow.py").write_text(SLOW)
    served = serve("slow:app", "--drain", "3600", cwd=tmp_path)
    invocation_id = served.send("Slow/step")
    wait_for_file(tmp_path / "started")

    def signal_again() -> bool:
        served.process.send_signal(signal.SIGTERM)
        return served.process.poll() is not None

    poll(signal_again, "it goes on draining")
    assert served.process.returncode == 128 + signal.SIGTERM

    (tmp_path / "go").touch()
    again = serve("slow:app", db=served.db, cwd=tmp_path)
    assert again.wait_for(invocation_id, "completed").completion_result == "success"
    assert again.stop() == 0


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not here: it limits the size of files")
def test_a_disk_that_takes_no_more_refuses_new_work_until_there_is_space(serve: Serve):
    served = serve(file_bytes_max=2_000_000)
    answers: list[httpx.Response] = []

    def fill() -> bool:
        answers.append(served.post("Greeter/greet", "x" * 100_000))
        return answers[-1].status_code != 200

    poll(fill, "two megabytes are never full")
    refused = answers[-1]
    assert refused.status_code == 503
    assert "the disk is full" in refused.json()["message"]
    assert int(refused.headers["retry-after"]) >= 1
    accepted = [answer for answer in answers if answer.status_code == 200]
    assert accepted

    subprocess.run(["prlimit", "--pid", str(served.process.pid), "--fsize=unlimited"], check=True)
    poll(lambda: served.post("Greeter/greet", "again").status_code == 200, "it never recovered")
    for answer in accepted:
        assert served.admin.invocation(answer.headers["x-restate-id"]).completion_result == "success"
    assert served.stop() == 0


def test_json_logs_are_json_line_by_line(serve: Serve):
    served = serve(SAMPLE, "--log-format", "json")
    invocation_id = served.call("Greeter/flaky", "json logs")
    served.call("Greeter/refuse", {"message": "no", "code": 400})
    assert served.stop() == 0
    lines = [json.loads(line) for line in served.logs().splitlines()]
    assert [line["ingress_url"] for line in lines if line["event"] == "serving"] == [served.ingress_url]
    [ended] = [line for line in lines if line["event"] == "ends with json logs"]
    assert ended | {"timestamp": ""} == {
        "event": "ends with json logs",
        "level": "warning",
        "logger": "sample",
        "invocation_id": invocation_id,
        "handler": "Greeter/flaky",
        "length": 9,
        "timestamp": "",
    }
    # What precedes the last journal entry is not said again when the second attempt replays it.
    said = [line["event"] for line in lines if line["logger"] == "sample"]
    assert said.count("begins with json logs") == said.count("prepares json logs") == 1
    [failure] = [line for line in lines if "exception" in line]
    assert "RuntimeError: stumbled over json logs" in failure["exception"]


SLOW = """\
import asyncio
from pathlib import Path

import restate

slow = restate.Service("Slow")


async def work() -> str:
    with Path("started").open("a") as ledger:
        ledger.write("once\\n")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "finished"


@slow.handler()
async def plain(ctx: restate.Context) -> str:
    return await work()


@slow.handler()
async def step(ctx: restate.Context) -> str:
    return await ctx.run_typed("work", work)


app = restate.app([slow])
"""


def wait_for_file(path: Path) -> None:
    poll(path.exists, f"{path} does not appear")


def wait_until_refused(url: str) -> None:
    def is_refused() -> bool:
        try:
            httpx.get(f"{url}/restate/health", timeout=PATIENCE_S)
        except httpx.TransportError:
            return True
        return False

    poll(is_refused, f"{url} still accepts connections")


def found(served: Served, service: str) -> str:
    """The newest invocation of `service`, as soon as there is one."""
    ids: list[str] = []

    def look() -> bool:
        ids[:] = [info.id for info in served.admin.list_invocations(service=service, limit=1)]
        return bool(ids)

    poll(look, f"no invocation of {service}")
    return ids[0]


def test_without_an_application_it_serves_what_is_registered(serve: Serve):
    served = serve(None)
    assert served.json("deployments", "list") == []
    with serving_h2c(SAMPLE) as url:
        served.done("deployments", "register", url)
        assert served.done("call", "Greeter/greet", '"Ada"') == '"Hello Ada"'
