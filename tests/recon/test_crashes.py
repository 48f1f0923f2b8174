"""SIGKILL at every point of the workflow, and in the middle of hundreds of them; and a judge that can say no."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from nacl.signing import SigningKey

from apps.recon.demo import SETTINGS
from apps.recon.demo_child import Child
from apps.recon.demo_scans import DemoFailed, Item, Scanner, real_items, workload
from apps.recon.demo_tally import count
from apps.recon.demo_verify import RecordedStep, Report, check_database, check_steps, verify
from apps.recon.envelope import seal
from apps.recon.generator import naabu_scan
from apps.recon.store import LedgerLine, Store
from apps.recon.surreal import DATABASE, NAMESPACE, Surreal
from tests.support.restate_server import RunningRestate, free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
SCAN = naabu_scan("crash", 250, mean_ports=2)  # two batches
STEPS = ("mark-processing", "parse", "persist-1", "persist-2", "mark-completed")
POINTS = [f"{step} {when}" for step in STEPS for when in ("before", "after")]
BAD_POINTS = ["mark-failed before", "mark-failed after"]

pytestmark = pytest.mark.slow


async def final(url: str, job_id: str) -> str:
    """Wait for the job's end; returns its state."""
    async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(30):
        while (job := (await http.get(f"/v1/jobs/{job_id}")).json())["state"] not in ("completed", "failed"):
            await asyncio.sleep(0.02)  # between two looks at the condition
        return job["state"]


@pytest.mark.parametrize("point", POINTS + BAD_POINTS)
async def test_a_kill_at_any_point_of_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str):
    """The job ends as if nothing had happened; only the step that was cut off after its commit ran twice."""
    scan = "nothing usable\n" if point in BAD_POINTS else SCAN
    tally = count(scan)
    body = seal(scan, SigningKey.generate(), timestamp_s=int(time.time()))
    monkeypatch.setenv("DIE_AT", point)
    child = await Child.start(tmp_path, module="tests.recon.dying_service")
    async with httpx.AsyncClient(base_url=child.url) as http:
        try:
            job_id = (await http.post("/v1/mesh/ingest", content=body)).json()["job_id"]
        except httpx.TransportError:
            job_id = None  # it died before it could answer, which is what envelopes may be sent again for
    assert await child.ended() == -signal.SIGKILL
    monkeypatch.delenv("DIE_AT")
    restarted_at_s = time.time()
    child = await Child.start(tmp_path, module="tests.recon.dying_service")
    if job_id is None:
        answer = await asyncio.to_thread(httpx.post, f"{child.url}/v1/mesh/ingest", content=body)
        job_id = answer.json()["job_id"]
    assert await final(child.url, job_id) == ("completed" if tally.hosts else "failed")
    await child.stop()

    report = await verify(tmp_path, {job_id: Item("scan", scan, tally)}, restarted_at_s=restarted_at_s)
    assert report.problems == []
    assert report.repeated_recorded_count == 0
    async with Store(tmp_path / "surreal") as store:
        repeated = [line.step for line in await store.ledger() if line.attempt > 1]
    step, _, when = point.partition(" ")
    assert repeated == ([step] if when == "after" else [])
    assert report.repeated_unrecorded_count == len(repeated)


@pytest.mark.restate_server
async def test_a_kill_in_the_middle_of_many_jobs_on_a_restate_server(tmp_path: Path, restate_server: RunningRestate):
    """The worker dies with dozens of jobs in the middle; the server gives them to the one that comes after it."""
    settings = {
        **SETTINGS,
        "RECON_ENGINE": "restate",
        "RESTATE_INGRESS_URL": restate_server.ingress_url,
        "RESTATE_ADMIN_URL": restate_server.admin_url,
        "RECON_WORKER_PORT": str(free_ports(1)[0]),
    }
    scanner = Scanner(workload(40, seed=5))
    child = await Child.start(tmp_path, settings=settings)
    submitting = asyncio.create_task(scanner.run())
    scanner.up(child.url)
    async with httpx.AsyncClient(base_url=child.url) as http, asyncio.timeout(60):
        while (await http.get("/v1/jobs?state=completed&limit=1")).json()["total"] < 10:
            await asyncio.sleep(0.02)  # between two looks at the condition
    scanner.down()
    await child.kill()
    child = await Child.start(tmp_path, settings=settings)
    scanner.up(child.url)
    await submitting
    async with asyncio.timeout(90):
        for job_id in scanner.accepted:
            await final(child.url, job_id)
    await asyncio.to_thread(httpx.post, f"{restate_server.ingress_url}/ReconSweeper/jobs/stop", timeout=20)
    await child.stop()
    report = Report()
    async with Store(tmp_path / "surreal") as store:
        await check_database(report, store, scanner.accepted)
        attempts = [line.attempt for line in await store.ledger()]
    assert report.problems == []
    assert len(scanner.accepted) == 40
    assert max(attempts) <= 2, "what was running at the kill, and nothing else"


def test_the_demo_as_a_newcomer_runs_it(tmp_path: Path):
    """Fewer jobs, but all real files, the kill, and the judgement."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "engine.db").write_text("of an earlier demo")
    command = [sys.executable, "-m", "apps.recon.demo", "--jobs", "60", "--seed", "3", "--plain"]
    command += ["--keep-dir", str(tmp_path / "out")]
    demo = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=110)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    shown = {
        cells[1].strip(): cells[2].strip() for line in demo.stdout.splitlines() if len(cells := line.split("│")) == 4
    }
    assert (shown["jobs completed"], shown["recorded steps re-executed"]) == ("59", "0")
    assert shown["killed at"].endswith(" of 60 jobs")
    assert float(shown["recovery: process start to first job done"].removesuffix(" s")) > 0
    assert "OK: every accepted job ended once" in demo.stdout
    assert "43 generated ones" in demo.stdout
    assert "3 listeners found, as many as there were" in demo.stdout
    assert (tmp_path / "out" / "surreal").is_dir()


def test_the_demo_does_not_touch_a_directory_of_somebody_else(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "apps.recon.demo", "--plain", "--keep-dir", str(tmp_path)]
    demo = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (demo.returncode, demo.stderr) == (1, "")
    assert "FAILED" in demo.stdout
    assert "thesis.txt" in demo.stdout
    assert (tmp_path / "thesis.txt").read_text() == "precious"


# -- a judge that can say no ---------------------------------------------------------------------------------------


async def finished_run(directory: Path) -> dict[str, Item]:
    """All real files through a service that is then stopped cleanly."""
    scanner = Scanner(real_items())
    child = await Child.start(directory)
    scanner.up(child.url)
    await scanner.run()
    for job_id in scanner.accepted:
        await final(child.url, job_id)
    await child.stop()
    return scanner.accepted


TAMPERED = {
    "an edge lost": ("DELETE (SELECT VALUE id FROM HAS LIMIT 1)", "edges: 1 missing"),
    "an edge to another host's port": (
        (
            "LET $e = (SELECT * FROM ONLY HAS WHERE in != host:⟨127.0.0.1⟩ LIMIT 1); DELETE $e.id;"
            "INSERT RELATION INTO HAS { in: host:⟨127.0.0.1⟩, out: $e.out, first_seen: time::now(), last_seen: time::now() }"
        ),
        "edges: 1 missing",
    ),
    "an edge twice": (
        (
            "LET $e = (SELECT * FROM ONLY HAS LIMIT 1);"
            "INSERT RELATION INTO HAS { in: $e.in, out: $e.out, first_seen: time::now(), last_seen: time::now() }"
        ),
        "rows for",
    ),
    "a host too many": (
        "CREATE host:x SET address = 'x', first_seen = time::now(), last_seen = time::now()",
        "hosts: 0 missing, 1 too many",
    ),
    "a job lost": ("DELETE (SELECT VALUE id FROM job LIMIT 1)", "1 accepted jobs are not in the database"),
    "a job that nobody sent": ("CREATE job:x SET state = 'pending', scanner_key = 'k'", "that nobody submitted"),
    "a wrong count": (
        "UPDATE (SELECT VALUE id FROM job WHERE state = 'completed' LIMIT 1) SET port_count = 99",
        "the file has",
    ),
    "a job without an end": (
        "UPDATE (SELECT VALUE id FROM job WHERE state = 'completed' LIMIT 1) SET completed_at = NONE",
        "no end time",
    ),
    "a batch left behind": ("CREATE scan_batch:x SET body = '{}'", "staged batches"),
    "a recorded step run again": (
        (
            "LET $l = (SELECT * FROM ONLY step_ledger WHERE step = 'parse' LIMIT 1); CREATE step_ledger CONTENT "
            "{ id: [$l.id[0], 'parse', 2], job: $l.job, step: 'parse', attempt: 2, process: 2, began_at: time::now() }"
        ),
        "1 recorded steps ran again",
    ),
    "a recorded step that did nothing": (
        "DELETE (SELECT VALUE id FROM step_ledger WHERE step = 'persist-1' LIMIT 1)",
        "left no trace",
    ),
    "a step nobody recorded": (
        (
            "LET $l = (SELECT * FROM ONLY step_ledger LIMIT 1); CREATE step_ledger CONTENT "
            "{ id: [$l.id[0], 'persist-99', 1], job: $l.job, step: 'persist-99', attempt: 1, process: 1, began_at: time::now() }"
        ),
        "in no journal",
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Item]]:
    directory = tmp_path_factory.mktemp("finished")
    return directory, asyncio.run(finished_run(directory))


async def test_an_honest_run_passes(finished: tuple[Path, dict[str, Item]]):
    report = await verify(*finished, restarted_at_s=0)
    assert report.problems == []
    assert (report.completed_count, report.failed_count) == (16, 1)
    assert report.recorded_step_count == 16 * 4 + 3


@pytest.mark.parametrize(("sql", "problem"), TAMPERED.values(), ids=TAMPERED)
async def test_a_change_behind_its_back_is_found(
    tmp_path: Path, finished: tuple[Path, dict[str, Item]], sql: str, problem: str
):
    directory, accepted = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    surreal = await Surreal.open(tmp_path / "surreal", NAMESPACE, DATABASE)
    await surreal.write(sql)
    await surreal.close()
    report = await verify(tmp_path, accepted, restarted_at_s=0)
    assert any(problem in each for each in report.problems), report.problems


async def test_a_job_the_engine_does_not_know_is_found(tmp_path: Path, finished: tuple[Path, dict[str, Item]]):
    directory, accepted = finished
    shutil.copytree(directory / "surreal", tmp_path / "surreal")
    report = await verify(tmp_path, accepted, restarted_at_s=0)
    assert any("17 jobs have not exactly one workflow" in each for each in report.problems), report.problems


def line(at_ms: int, attempt: int = 1) -> LedgerLine:
    return LedgerLine("job-1", "parse", attempt, 1, datetime.fromtimestamp(at_ms / 1000, UTC))


REPEATS: dict[str, tuple[list[LedgerLine], int, int]] = {
    "once, before it was recorded": ([line(900)], 0, 0),
    "once, in the very millisecond": ([line(1000)], 0, 0),
    "cut off and repeated, then recorded": ([line(500), line(900, 2)], 0, 1),
    "recorded, and run again": ([line(900), line(1001, 2)], 1, 0),
    "both": ([line(500), line(900, 2), line(2000, 3)], 1, 1),
}


@pytest.mark.parametrize(("lines", "recorded", "unrecorded"), REPEATS.values(), ids=REPEATS)
def test_which_repetition_counts(lines: list[LedgerLine], recorded: int, unrecorded: int):
    report = Report()
    check_steps(report, [RecordedStep("job-1", "parse", 1000)], lines)
    assert (report.repeated_recorded_count, report.repeated_unrecorded_count) == (recorded, unrecorded)
    assert bool(report.problems) == bool(recorded)


# -- the process that is killed ------------------------------------------------------------------------------------


async def test_a_directory_in_use_is_told_in_one_line(tmp_path: Path):
    child = await Child.start(tmp_path)
    with pytest.raises(DemoFailed, match=f"in use by process {child.pid}"):
        await Child.start(tmp_path)
    assert "Traceback" not in (tmp_path / "serve.log").read_text()
    await child.stop()


async def test_the_service_ends_when_its_parent_does(tmp_path: Path):
    script = (
        "import asyncio, sys, pathlib\n"
        "from apps.recon.demo_child import Child\n"
        "async def main():\n"
        "    child = await Child.start(pathlib.Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child_pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(20):
        while _is_running(child_pid):
            await asyncio.sleep(0.02)  # between two looks: it is not our child, so there is nothing to wait on


def _is_running(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else not os.kill(pid, 0)
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_serve_says_when_it_cannot(tmp_path: Path):
    (tmp_path / "surreal").write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, status, message in (
            (["--port", str(taken.getsockname()[1])], 1, "cannot listen on 127.0.0.1"),
            (["--port", "70000"], 2, "--port: '70000' is not a port"),
            (["--port", "0", "--dir", str(tmp_path)], 1, "is a file; SurrealDB needs a directory"),
        ):
            command = [sys.executable, "-m", "apps.recon.serve", *arguments]
            serve = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
            assert (serve.returncode, serve.stdout) == (status, "")
            assert message in serve.stderr
            assert "Traceback" not in serve.stderr
    assert (tmp_path / "surreal").read_text() == "precious"


async def test_the_readmes_commands(tmp_path: Path):
    """Each console block of the README, as a person types it: serve in one terminal, the rest in another."""
    blocks = re.findall(r"```console\n(.*?)```", (REPOSITORY / "apps" / "recon" / "README.md").read_text(), re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    (tmp_path / "apps").symlink_to(REPOSITORY / "apps")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def words(command: str) -> list[str]:
        return shlex.split(command.replace(".venv/bin/python", sys.executable).replace("--port 3000", "--port 0"))

    serve = await asyncio.create_subprocess_exec(
        *words(commands[0]), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert serve.stdout is not None
    said = (await serve.stdout.readline()).decode()
    assert re.sub(r":\d+,", ":3000,", said) in blocks[0]
    url = said.split()[3].rstrip(",")
    outputs: list[str] = []
    for command in commands[1:]:
        done = await asyncio.to_thread(
            subprocess.run, words(command), cwd=tmp_path, env={**environment, "RECON_URL": url},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs.append(done.stdout)
    assert len(outputs) == 3
    assert "completed" in outputs[1]
    assert outputs[2].splitlines()[1].split()[1:4] == ["completed", "2", "9"]
    assert (tmp_path / "scanner.key").stat().st_mode & 0o777 == 0o600
    signed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "apps.recon", "sign", "apps/recon/data/naabu/defectdojo_naabu_many.jsonl"],
        cwd=tmp_path, env=environment, capture_output=True, check=True,
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/v1/mesh/ingest", content=signed.stdout)
        assert answer.status_code == 202
        assert await final(url, answer.json()["job_id"]) == "completed"
    serve.terminate()
    _, log = await serve.communicate()
    assert serve.returncode == 0
    assert {line.split()[1] for line in log.decode().splitlines()} == {"info"}, log.decode()


@pytest.mark.parametrize(
    ("scan", "key", "message"),
    [("missing.xml", "new.key", "missing.xml: No such file"), ("scan", "scan", "holds 5 bytes; a scanner key has 32")],
)
def test_what_sign_says_when_it_cannot(tmp_path: Path, scan: str, key: str, message: str):
    (tmp_path / "scan").write_text("hello")
    command = [sys.executable, "-m", "apps.recon.sign", str(tmp_path / scan), "--key", str(tmp_path / key)]
    sign = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    assert (sign.returncode, sign.stdout) == (1, "")
    assert message in sign.stderr
    assert "Traceback" not in sign.stderr
