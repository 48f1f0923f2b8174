"""recon as a process: settings, databases elsewhere, health, logs, metrics, commands, and the files of its containers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from apps.recon import logs
from apps.recon.cli import recon as recon_command
from apps.recon.engines import open_store, serve_worker
from apps.recon.generator import naabu_scan
from apps.recon.model import JobState
from apps.recon.serve import main as serve_main
from apps.recon.settings import InvalidSetting, Settings, documented
from apps.recon.store import Store
from apps.recon.surreal import ServerAddress, StoreRefused, StoreUnavailable
from apps.serving import listen
from holdfast.deploy.versions import RESTATE
from tests.recon.conftest import GENEROUS, embedded, serving
from tests.recon.surreal_server import PASSWORD, USER, surreal_server
from tests.support.restate_server import RunningRestate, free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
RECON = REPOSITORY / "apps" / "recon"
ONE_PORT = '{"ip":"192.0.2.1","port":80}\n'
SIGNED_IN = {"SURREALDB_USER": USER, "SURREALDB_PASS": PASSWORD}


# -- settings ----------------------------------------------------------------------------------------------------


def test_flags_come_before_the_environment_and_that_before_the_defaults():
    environment = {"PORT": "4000", "HOST": "::1", "RECON_ALLOWED_NETWORKS": "10.0.0.0/8, 127.0.0.1/32"}
    settings = Settings.load({"port": "5000", "host": None}, environment)
    assert (settings.port, settings.host, settings.engine) == (5000, "::1", "embedded")
    assert settings.allowed_networks == (ip_network("10.0.0.0/8"), ip_network("127.0.0.1/32"))
    assert Settings.load({}, {"PORT": ""}).port == 3000, "an empty variable is none"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "x"}, "PORT: 'x' is not a port"),
        ({"RECON_ENGINE": "other"}, "RECON_ENGINE: 'other' is not embedded or restate"),
        ({"SURREALDB_URL": "http://x"}, "begins with ws://, wss://"),
        ({"SURREALDB_URL": "ws://me:secret@x"}, "without user and password"),
        ({"SURREALDB_URL": "ws://x"}, "needs SURREALDB_USER and SURREALDB_PASS"),
        ({"SURREALDB_URL": "ws://x", "SURREALDB_USER": "root", "SURREALDB_PASS": "root"}, "choose a password"),
        ({"RECON_ALLOWED_NETWORKS": "10.0.0.0/99"}, "networks with commas"),
        ({"RECON_SWEEP_S": "-1"}, "seconds above 0"),
        ({"RECON_INGEST_PER_MINUTE": "0"}, "above 0"),
        ({"RECON_ENRICH": "perhaps"}, "true or false"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(environment: dict[str, str], message: str):
    with pytest.raises(InvalidSetting) as caught:
        Settings.load({}, environment)
    assert message in str(caught.value)


def test_secrets_are_shown_nowhere():
    secrets = {"RESTATE_AUTH_TOKEN": "s3cret-a", "RECON_ADMIN_TOKEN": "s3cret-b", "NVD_API_KEY": "s3cret-c"}
    settings = Settings.load(
        {}, {**secrets, "SURREALDB_URL": "ws://x", "SURREALDB_USER": "u", "SURREALDB_PASS": "s3cret-d"}
    )
    assert "s3cret" not in str(settings.describe())
    assert "s3cret" not in repr(settings.database_address)
    assert {settings.describe()[name] for name in ("surrealdb_pass", "admin_token")} == {"set"}


def test_the_readme_lists_every_setting_with_its_default():
    text = (RECON / "README.md").read_text()
    rows = {
        cells[0].strip("` "): cells[1].strip("` ")
        for line in text.splitlines()
        if line.startswith("| `") and len(cells := line.strip("| ").split(" | ")) == 3
    }
    for variable, default, _ in documented():
        assert rows.get(variable) == default, f"{variable} has the default {default!r}"


# -- SurrealDB elsewhere -------------------------------------------------------------------------------------------


async def test_all_of_ingest_on_a_surrealdb_server(tmp_path: Path):
    async with surreal_server(tmp_path / "surreal") as server:
        address = ServerAddress(server.url, USER, PASSWORD, "other", "names")
        async with embedded(Store(address), ":memory:") as recon:
            job_id = await recon.submit(naabu_scan("elsewhere", 50))
            job = await recon.final(job_id)
            assert (job["state"], job["host_count"]) == ("completed", 50)
            (names,) = await recon.store.read("INFO FOR ROOT")
            assert "other" in names["namespaces"]
        async with Store(dataclasses.replace(address, namespace="spectra")) as beside:
            assert await beside.hosts() == set(), "another namespace is another database"
        async with Store(address) as again:
            assert again.process == 2
            assert len(await again.hosts()) == 50


async def test_a_connection_that_is_lost_is_made_again_and_no_step_is_lost(tmp_path: Path):
    async with surreal_server(tmp_path / "surreal") as server:
        store = Store(ServerAddress(server.url, USER, PASSWORD))
        async with embedded(store, ":memory:") as recon:
            await server.stop()
            with pytest.raises(StoreUnavailable, match=r"was lost|cannot be reached"):
                await store.count_jobs(JobState.PENDING)
            ready = await recon.http.get("/health/ready")
            assert (ready.status_code, ready.json()["database"]) == (503, "cannot be reached")
            assert (await recon.http.get("/health/live")).status_code == 200
            refused = await recon.post(ONE_PORT)
            assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
            assert int(refused.headers["retry-after"]) > 0
            await server.start()
            job_ids = [await recon.submit(naabu_scan(f"lost-{n}", 300)) for n in range(3)]
            await recon.until(job_ids[0], JobState.PROCESSING, JobState.COMPLETED)
            await server.stop()
            await server.start()
            for job_id in job_ids:
                assert (await recon.final(job_id))["state"] == "completed"
            assert (await recon.http.get("/health/ready")).status_code == 200
            assert server.connection_count == 1, "one connection, however often it was lost"


WRONG = {
    "password": ({"SURREALDB_PASS": "wrong-s3cret"}, "refused user 'recon'"),
    "user": ({"SURREALDB_USER": "nobody", "SURREALDB_PASS": "wrong-s3cret"}, "refused user 'nobody'"),
    "level": ({"SURREALDB_AUTH_LEVEL": "database", "SURREALDB_PASS": "wrong-s3cret"}, "(database user)"),
}


@pytest.mark.parametrize(("environment", "message"), WRONG.values(), ids=WRONG)
async def test_wrong_credentials_are_told_without_the_password(
    tmp_path: Path, environment: dict[str, str], message: str
):
    async with surreal_server(tmp_path / "surreal") as server:
        settings = Settings.load({}, {**SIGNED_IN, "SURREALDB_URL": server.url, **environment})
        with pytest.raises(StoreRefused) as caught:
            async with open_store(settings):
                pass
    assert message in str(caught.value)
    assert server.url in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


async def test_wrong_addresses_of_surrealdb(tmp_path: Path):
    [nobody] = free_ports(1)
    brief = {**SIGNED_IN, "RECON_STARTUP_WAIT_S": "0.1"}
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{nobody} cannot be reached.*check SURREALDB_URL"):
        async with open_store(Settings.load({}, {**brief, "SURREALDB_URL": f"ws://127.0.0.1:{nobody}"})):
            pass
    other = await asyncio.start_server(_not_a_database, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    with pytest.raises(StoreRefused, match="is no SurrealDB server"):
        async with open_store(Settings.load({}, {**brief, "SURREALDB_URL": f"ws://127.0.0.1:{port}"})):
            pass
    other.close()
    await other.wait_closed()


async def _not_a_database(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_recon_waits_for_a_database_that_starts_later(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    [port] = free_ports(1)
    settings = Settings.load({}, {**SIGNED_IN, "SURREALDB_URL": f"ws://127.0.0.1:{port}"})

    async def use() -> int:
        async with open_store(settings) as store:
            return store.process

    using = asyncio.create_task(use())
    async with asyncio.timeout(20):
        while "waiting for SurrealDB" not in caplog.text:
            await asyncio.sleep(0.01)  # between two looks
        async with surreal_server(tmp_path / "surreal") as server:
            await server.stop()
            server._port = port
            await server.start()
            assert await using == 1


# -- processes -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`python -m apps.recon ...` as its own process, and the URL in its first line; stopped by SIGTERM, with status 0."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "apps.recon", *arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert started.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await started.stdout.readline()).decode()
        found = re.search(r"http://[\d.:]+", line)
        if found is None:
            _, errors = await started.communicate()
            raise AssertionError(errors.decode())
        yield started, found[0]
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await started.communicate() if not started.stderr.at_eof() else None  # pyright: ignore[reportOptionalMemberAccess]
    assert started.returncode == 0


async def run(url: str, *arguments: str, **environment: str) -> Result:
    """A command, in a thread of this process: what it prints and how it ends are the same, but it starts at once."""
    return await asyncio.to_thread(
        CliRunner().invoke, recon_command, ["--url", url, *arguments], env=environment, prog_name="recon"
    )


@pytest.mark.parametrize("variable", ["RECON_GEOIP_ASN", "RECON_GEOIP_CITY", "RECON_KEV"])
async def test_a_file_that_is_not_what_its_setting_says_is_one_line_and_no_traceback(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "other").write_text("something else")
    monkeypatch.setenv(variable, str(tmp_path / "other"))
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    try:
        status = await asyncio.to_thread(serve_main, ["--dir", str(tmp_path / "data"), "--port", "0"])
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before
    shown = capfd.readouterr().err.splitlines()
    assert status == 2
    assert len(shown) == 1
    assert shown[0].startswith(f"error: {variable}: ")


async def test_a_worker_port_that_is_taken_is_named(tmp_path: Path):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        async with Store(tmp_path / "surreal") as store:
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with serve_worker(store, dataclasses.replace(GENEROUS, worker_port=port)):
                    pass


@pytest.mark.slow
async def test_a_scanners_day_by_the_commands(tmp_path: Path):
    """keygen, register, submit, jobs, revoke: as a person types them, against a process in registered mode."""
    key = str(tmp_path / "scanner.key")
    scan = str(RECON / "data" / "nmap" / "libnmap_fullscan.xml")
    admin = {"RECON_ADMIN_TOKEN": "of-the-admin"}
    served = process("serve", "--dir", str(tmp_path / "data"), "--port", "0", RECON_KEYS="registered", **admin)
    async with served as (_, url):
        made = await run(url, "keygen", "--key", key)
        public_key = made.stdout.strip()
        assert (made.exit_code, len(public_key)) == (0, 44)
        assert Path(key).stat().st_mode & 0o777 == 0o600
        refused = await run(url, "submit", scan, "--key", key)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: the envelope is not validly signed\nnext: ")
        assert (await run(url, "keys", "register", public_key, RECON_ADMIN_TOKEN="wrong")).exit_code == 2
        assert (await run(url, "keys", "register", public_key, "--name", "roof", **admin)).exit_code == 0
        done = await run(url, "--json", "submit", scan, "--key", key, "--wait")
        assert done.exit_code == 0, done.stderr
        job = json.loads(done.stdout)
        assert (job["state"], job["host_count"], job["scanner_key"]) == ("completed", 2, public_key)
        listed = await run(url, "jobs", "list", "--state", "completed")
        assert listed.stdout.splitlines()[1].split()[:4] == [job["id"], "completed", "2", "9"]
        assert "1 of 1" in listed.stderr
        assert job["id"] in (await run(url, "jobs", "get", job["id"])).stdout
        late = await run(url, "jobs", "cancel", job["id"], **admin)
        assert (late.exit_code, "is completed already" in late.stderr) == (2, True)
        assert "roof" in (await run(url, "keys", "list", **admin)).stdout
        assert (await run(url, "keys", "revoke", public_key, **admin)).exit_code == 0
        assert (await run(url, "submit", scan, "--key", key)).exit_code == 2
        assert (await run(url, "healthy", "--at", f"{url}/health/live")).exit_code == 0
        metrics = (await asyncio.to_thread(httpx.get, f"{url}/metrics")).text
        assert re.search(r'holdfast_\w+\{[^}]*service="IngestWorkflow"', metrics)
        assert "holdfast_engine_up" in metrics
        assert 'recon_jobs{state="completed"} 1.0' in metrics
        assert 'recon_rows{table="host"} 2.0' in metrics
        assert re.search(r'recon_enrichment_total\{kind="asn",outcome="asked"\} \d', metrics)
    failed = await run(f"http://127.0.0.1:{free_ports(1)[0]}", "healthy", "--at", "http://127.0.0.1:1/health")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)


@pytest.mark.slow
async def test_every_log_line_is_json_with_job_and_invocation_and_none_is_doubled(tmp_path: Path):
    served = process(
        "serve", "--dir", str(tmp_path / "data"), "--port", "0", "--log-format", "json", RECON_ENRICH="false"
    )
    async with served as (child, url):
        assert child.stderr is not None
        key = str(tmp_path / "k")
        await run(url, "keygen", "--key", key)
        (tmp_path / "scan").write_text(naabu_scan("logs", 450))
        done = await run(url, "--json", "submit", str(tmp_path / "scan"), "--key", key, "--wait")
        job = json.loads(done.stdout)
        (tmp_path / "bad").write_text("hello")
        await run(url, "submit", str(tmp_path / "bad"), "--key", key, "--wait")
        child.send_signal(signal.SIGTERM)
        lines = [json.loads(line) async for line in child.stderr]
        await child.wait()
    assert {line["level"] for line in lines} <= {"info", "warning"}
    mine = [line for line in lines if line.get("job_id") == job["id"] and line["logger"] == "recon.ingest"]
    assert [line["event"] for line in mine] == ["scan_started", "scan_completed"]
    assert {line["invocation_id"] for line in mine} == {job["invocation_id"]}
    assert mine[1]["host_count"] == 450
    [failed] = [line for line in lines if line["event"] == "scan_failed"]
    assert failed["error"].startswith("no valid hosts")
    posts = [line for line in lines if line["event"] == "request" and line.get("method") == "POST"]
    assert [line["status"] for line in posts] == [202, 202]
    assert posts[0]["job_id"] == job["id"]
    assert posts[0]["duration_ms"] < 1000


@pytest.mark.slow
@pytest.mark.restate_server
async def test_api_and_worker_in_processes_of_their_own_on_two_servers(tmp_path: Path, restate_server: RunningRestate):
    """The shape of compose.restate.yaml: API, worker, Restate, SurrealDB."""
    async with surreal_server(tmp_path / "surreal") as server:
        environment = {
            **SIGNED_IN, "SURREALDB_URL": server.url, "RECON_ENGINE": "restate", "RECON_ENRICH": "false",
            "RESTATE_INGRESS_URL": restate_server.ingress_url, "RESTATE_ADMIN_URL": restate_server.admin_url,
        }  # fmt: skip
        key = str(tmp_path / "k")
        async with (
            process("worker", "--port", "0", **environment) as (_, worker_url),
            process("serve", "--no-worker", "--port", "0", **environment) as (_, url),
        ):
            assert (await asyncio.to_thread(httpx.get, f"{worker_url}/health")).status_code == 200
            assert (await asyncio.to_thread(httpx.get, f"{url}/health/ready")).json()["engine"] == "ok"
            await run(url, "keygen", "--key", key)
            scan = str(RECON / "data" / "naabu" / "defectdojo_naabu_many.jsonl")
            done = await run(url, "--json", "submit", scan, "--key", key, "--wait")
            assert (done.exit_code, json.loads(done.stdout)["state"]) == (0, "completed"), done.stderr
            metrics = (await asyncio.to_thread(httpx.get, f"{url}/metrics")).text
            assert 'engine="restate"' in metrics
            stopped = await asyncio.to_thread(
                httpx.post, f"{restate_server.ingress_url}/ReconSweeper/jobs/stop", timeout=20
            )
            assert stopped.status_code == 200


# -- requests ------------------------------------------------------------------------------------------------------


async def test_an_engine_that_is_away_makes_it_not_ready_but_alive(tmp_path: Path):
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon:
        from apps.recon.api import create_api

        async def away() -> None:
            raise httpx.ConnectError("nobody there")

        api = create_api(recon.store, recon.client, GENEROUS, probe=away)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://recon") as http:
            ready = await http.get("/health/ready")
            assert (ready.status_code, ready.json()) == (
                503, {"status": "unavailable", "database": "ok", "engine": "fails"},
            )  # fmt: skip
            assert (await http.get("/health")).status_code == 200


async def test_what_has_no_route_is_refused_as_json(tmp_path: Path):
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon, serving(recon.store, recon.client) as http:
        nowhere, wrong_method = await http.get("/v1/nothing"), await http.delete("/v1/jobs")
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "not_found")
    assert (wrong_method.status_code, wrong_method.json()["error"]) == (405, "method_not_allowed")
    assert "GET" in wrong_method.headers["allow"]


def test_answers_leave_at_once():
    """Without it the second packet of an answer waits for the client's delayed acknowledgement, 40 ms later."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_each_answer_carries_the_id_of_its_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "recon.http")
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon, serving(recon.store, recon.client) as http:
        answer = await http.get("/v1/jobs")
    assert answer.headers["x-request-id"] in [getattr(record, "request_id", "") for record in caplog.records]


def test_a_log_line_as_json_and_as_text():
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    shown: dict[str, str] = {}
    try:
        for log_format in ("json", "text"):
            stream = StringIO()
            logs.configure(log_format, "info", stream)
            logging.getLogger("recon.test").info("scan_%s", "done", extra={"job_id": "j-1", "nothing": None})
            logging.getLogger("recon.test").debug("unseen")
            shown[log_format] = stream.getvalue()
    finally:
        root.handlers[:], root.level = before
    line: dict[str, Any] = json.loads(shown["json"])
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {"level": "info", "logger": "recon.test", "event": "scan_done", "job_id": "j-1"}
    assert shown["text"].endswith("info    recon.test: scan_done job_id=j-1\n")


# -- containers ----------------------------------------------------------------------------------------------------

COMPOSE = ("compose.yaml", "compose.restate.yaml")


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / name)
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_dockerfile_passes_hadolint():
    judged = tool("hadolint", "--no-color", "--failure-threshold", "style", str(RECON / "deploy" / "Dockerfile"))
    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_the_compose_files_fit_the_specification(name: str):
    path = str(RECON / "deploy" / name)
    judged = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert judged.returncode == 0, judged.stdout
    document = yaml.safe_load(Path(path).read_text())
    for service in document["services"].values():
        assert "limits" in service["deploy"]["resources"]
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in document["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        if "build" in service:
            assert (Path(path).parent / service["build"]["context"]).resolve() == REPOSITORY
            assert (REPOSITORY / service["build"]["dockerfile"]).is_file()
            known = {each.metadata["environment"] for each in fields(Settings)} | {"RECON_HEALTH_URL"}
            assert service["environment"].keys() <= known
    if name == "compose.restate.yaml":
        assert document["services"]["restate"]["image"].endswith(f":{RESTATE}")


def test_the_dockerfile_installs_the_versions_of_the_lock():
    """Its own line of sed, on the real lock: every pin, and nothing else."""
    text = (RECON / "deploy" / "Dockerfile").read_text()
    line = re.search(r"RUN (sed -n .*?) > constraints\.txt", text)
    assert line is not None
    pins = subprocess.run(
        ["sh", "-c", line[1]], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lock = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert pins == [each.split()[0].rstrip(";") for each in lock if re.match(r"[A-Za-z0-9]", each)]
    assert any(pin.startswith("surrealdb==") for pin in pins)
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for each in source.split():
            assert (REPOSITORY / each).exists(), each
