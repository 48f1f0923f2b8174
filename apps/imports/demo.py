"""The demo: three made-up extracts, a kill -9 in the middle of two imports, a cancel in the third, every row counted.

    python -m apps.imports.demo [--engine embedded|restate] [--enterprises N] [--keep-dir DIR] [--json]

This process makes the extracts, asks for the imports over HTTP and judges what came of them. imports itself runs in a
child process, which is what gets killed and started again on the same files. What must be in the database is computed
from the zips by Python's csv reader.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from apps.imports.demo_child import Child
from apps.imports.generator import Changes, Register
from apps.imports.model import Progress, Status
from apps.imports.settings import Settings
from apps.imports.store import Store, StoreError
from apps.imports.verify import Expected, Fingerprint, actual, differences
from apps.serving.demo import (
    DemoFailed,
    Screen,
    free_port,
    prepare,
    restate_server,
    run_demo,
    this_python,
    verdict,
)

_OURS = ("data", "extracts", "imports.log", "restate")
_BATCH_ROWS = 500
_DELETE_BATCH_ROWS = 10
_POLL_S = 0.02
_STALLED_S = 60.0
_FILES = {"IMPORTS_BATCH_ROWS": str(_BATCH_ROWS), "IMPORTS_DELETE_BATCH_ROWS": str(_DELETE_BATCH_ROWS)}


@dataclass(slots=True)
class Extracts:
    """The zips, and what the database must hold after each of the first three."""

    zips: list[Path]
    expected: dict[int, dict[str, Fingerprint]] = field(default_factory=dict[int, dict[str, Fingerprint]])


@dataclass(slots=True)
class Kill:
    """One import that was killed, and what became of it."""

    import_id: str
    done_before: int
    """Batches that were recorded when the process was killed."""
    total: int
    recovered_s: float
    """From the start of the next process to the next batch done."""
    rows: int
    seconds: float


@dataclass(slots=True)
class Report:
    kills: list[Kill] = field(default_factory=list[Kill])
    cancelled_at: int = 0
    cancelled_of: int = 0
    rollback_s: float = 0.0
    rows_checked: int = 0
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def make_extracts(folder: Path, enterprises: int, seed: int) -> Extracts:
    """A full extract and two updates, and the independent computation of their states."""
    changes = Changes(ceased=0.02, renamed=0.03, moved=0.03, other_activities=0.05, added=0.03)
    with Register(enterprises, seed=seed, nace_codes=300) as register:
        made = Extracts([register.write_full(folder)])
        made.zips += [register.write_update(folder, changes) for _ in range(2)]
    expected = Expected()
    for path in made.zips:
        expected.apply(path)
        made.expected[expected.extract_number] = expected.fingerprints()
    return made


class Demo:
    """One run. `engine` is how a child is started on it."""

    def __init__(self, folder: Path, engine: Engine, extracts: Extracts, screen: Screen) -> None:
        self._folder = folder
        self._engine = engine
        self._extracts = extracts
        self._screen = screen
        self.report = Report()

    async def run(self) -> Report:
        """Raises: DemoFailed: a process did not do as it should, or nothing moved any more."""
        began_s = time.monotonic()
        child = await self._child()
        try:
            for number, import_id in enumerate(("import-140", "import-141")):
                child = await self._killed_half_way(child, import_id, self._extracts.zips[number])
            await self._cancelled_half_way(child, "import-142", self._extracts.zips[2])
            await child.stop()
            await self._check_cancelled("import-142")
            child = await self._child()
            await self._start(child, "import-142-again", self._extracts.zips[2])
            await self._wait(child, "import-142-again", Status.COMPLETED)
            await child.stop()
        finally:
            child.discard()
        await self._check_all()
        self.report.seconds = time.monotonic() - began_s
        return self.report

    async def _child(self) -> Child:
        return await Child.start(self._folder / "data", self._folder / "imports.log", self._engine.options(), _FILES)

    async def _killed_half_way(self, child: Child, import_id: str, source: Path) -> Child:
        began_s = time.monotonic()
        await self._start(child, import_id, source)
        before = await self._until_half(child, import_id)
        await child.kill()
        self._screen.say(
            f" in {import_id}: {before.completed} of {before.total} batches done, at work on {before.step}",
            label="kill -9",
            style="bold red",
        )
        started_s = time.monotonic()
        child = await self._child()
        progress = await self._wait(child, import_id, Status.COMPLETED, completed=before.completed + 1)
        recovered_s = time.monotonic() - started_s
        progress = await self._wait(child, import_id, Status.COMPLETED)
        self._screen.say(f"        started again on the same files: completed, {progress.rows_completed} rows")
        seconds = time.monotonic() - began_s
        kill = Kill(import_id, before.completed, progress.total, recovered_s, progress.rows_completed, seconds)
        self.report.kills.append(kill)
        return child

    async def _cancelled_half_way(self, child: Child, import_id: str, source: Path) -> None:
        await self._start(child, import_id, source)
        before = await self._until_half(child, import_id)
        began_s = time.monotonic()
        answer = await child.http.post(f"/api/imports/{import_id}/cancel")
        if answer.status_code not in (200, 202):
            raise DemoFailed(f"the cancel of {import_id} was answered with {answer.status_code}: {answer.text}")
        progress = await self._wait(child, import_id, Status.CANCELLED)
        self.report.rollback_s = time.monotonic() - began_s
        self.report.cancelled_at, self.report.cancelled_of = progress.completed, progress.total
        self._screen.say(
            f" {import_id} after {before.completed} of {before.total} batches: rolled back",
            label="cancel ",
            style="bold yellow",
        )

    async def _start(self, child: Child, import_id: str, source: Path) -> None:
        body = {"fileUrl": str(source.absolute()), "workflowId": import_id}
        answer = await child.http.post("/api/imports/start", json=body)
        if answer.status_code != 202:
            raise DemoFailed(f"the start of {import_id} was answered with {answer.status_code}: {answer.text}")

    async def _until_half(self, child: Child, import_id: str) -> Progress:
        """When about half of its batches are done, it is in the middle of a table."""
        while True:
            progress = await self._wait(child, import_id, Status.COMPLETED, completed=1)
            if progress.status.is_final:
                raise DemoFailed(f"{import_id} was over before it could be interrupted; try more --enterprises")
            if progress.completed >= progress.total // 2:
                return progress
            await self._wait(child, import_id, Status.COMPLETED, completed=progress.total // 2)

    async def _wait(self, child: Child, import_id: str, final: Status, *, completed: int | None = None) -> Progress:
        """Until it ended as `final`; or, if given, so many batches are done."""
        moved_s, last = time.monotonic(), Progress()
        while time.monotonic() - moved_s < _STALLED_S:
            progress = await child.progress(import_id)
            if progress is not None and progress != last:
                moved_s, last = time.monotonic(), progress
            is_enough = completed is not None and last.total > 0 and last.completed >= completed
            if last.status is final or (is_enough and not last.status.is_final):
                return last
            if last.status.is_final:
                raise DemoFailed(f"{import_id} is {last.status}: {last.error}")
            await asyncio.sleep(_POLL_S)  # between two looks
        raise DemoFailed(f"{import_id} made no progress for {_STALLED_S:.0f} s; the log is {child.log}")

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncGenerator[Store]:
        data = self._folder / "data"
        async with Store(Settings.load(environ={}, database=str(data / "kbo.duckdb"), files=data / "files")) as store:
            yield store

    async def _check_cancelled(self, import_id: str) -> None:
        """As if it had never been, except in the history; and its zip is kept."""
        problems = self.report.problems
        async with self._store() as store:
            problems += differences(self._extracts.expected[141], await actual(store))
            for target in ("enterprises", "activities", "denominations", "addresses"):
                left = await store.query(
                    f"SELECT count(*) FROM {target} WHERE extract_number = 142 OR deleted_at_extract = 142"  # noqa: S608
                )
                if left[0][0]:
                    problems.append(f"{target}: {left[0][0]} rows of the cancelled extract are left")
            job = await store.job(import_id)
            if job is None or job.status is not Status.CANCELLED:
                problems.append(f"{import_id} is not cancelled in the history")
        if list((self._folder / "data" / "files").rglob("*.csv")):
            problems.append("staged batches of the cancelled import are left")
        if not list((self._folder / "data" / "files").rglob("extract.zip")):
            problems.append("the zip of the cancelled import is gone")

    async def _check_all(self) -> None:
        """Every state, now and back in time, against the computation from the zips; every batch once."""
        problems = self.report.problems
        async with self._store() as store:
            found = await actual(store)
            self.report.rows_checked = sum(each.count for name, each in found.items() if name != "names")
            problems += differences(self._extracts.expected[142], found)
            for number, expected in self._extracts.expected.items():
                for line in differences(expected, await actual(store, at_extract=number)):
                    problems.append(f"at extract {number}: {line}")
            doubled = await store.query(
                """SELECT job_id, table_name, operation, batch_number FROM import_job_batches
                GROUP BY ALL HAVING count(*) > 1"""
            )
            open_batches = await store.query("SELECT count(*) FROM import_job_batches WHERE state <> 'completed'")
            if doubled or open_batches[0][0]:
                problems.append(f"{len(doubled)} batches are there twice, {open_batches[0][0]} are not completed")
            statuses = [(job.import_id, job.status) for job in reversed(await store.history())]
        wanted = [("import-140", "completed"), ("import-141", "completed"), ("import-142", "cancelled")]
        if statuses != [*wanted, ("import-142-again", "completed")]:
            problems.append(f"the history is {statuses}")


@dataclass(frozen=True, slots=True)
class Engine:
    """What imports runs on in this demo."""

    name: str
    server: Any = None
    worker_port: int = 0

    def options(self) -> list[str]:
        if self.server is None:
            return []
        urls = ["--ingress-url", self.server.ingress_url, "--admin-url", self.server.admin_url]
        return ["--engine", "restate", *urls, "--worker-port", str(self.worker_port)]


@contextlib.contextmanager
def running_engine(name: str) -> Generator[Engine]:
    """The engine is in the child; or a Restate server of its own, which outlives the children.

    Raises:
        DemoFailed: no server is installed, or it does not start.
    """
    if name == "embedded":
        yield Engine(name)
        return
    with restate_server() as server:
        yield Engine(name, server, free_port())


def show_result(screen: Screen, report: Report) -> None:
    """The table, and the problems if there are any."""
    table = Table(show_header=False, title="what is in the database", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    for kill in report.kills:
        table.add_row(f"{kill.import_id}: rows of the extract", f"{kill.rows}")
        table.add_row("   killed after batches", f"{kill.done_before} of {kill.total}")
        table.add_row("   process start to next batch done", f"{kill.recovered_s:.2f} s")
        table.add_row("   both processes", f"{kill.seconds:.1f} s")
    table.add_row("import-142: cancelled after batches", f"{report.cancelled_at} of {report.cancelled_of}")
    table.add_row("   rolled back in", f"{report.rollback_s:.2f} s")
    table.add_row("current rows, each compared with the zips", f"{report.rows_checked}")
    table.add_row("everything", f"{report.seconds:.1f} s")
    screen.console.print(table)
    for problem in report.problems[:10]:
        screen.say(f" {problem}", label="wrong:", style="bold red")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m apps.imports.demo", description="imports, killed and judged.")
    parser.add_argument("--engine", choices=["embedded", "restate"], default="embedded", help="what runs it (embedded)")
    parser.add_argument("--enterprises", type=int, default=3000, help="size of the register (3000)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same extracts (7)")
    parser.add_argument("--keep-dir", type=Path, default=Path("demo-output/imports"), help="where files go")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout, all else on stderr")
    arguments = parser.parse_args()
    if not 1000 <= arguments.enterprises <= 1_000_000:
        parser.error("--enterprises must be from 1000 to 1000000")
    return arguments


async def _demo(arguments: argparse.Namespace, screen: Screen) -> bool:
    folder: Path = arguments.keep_dir
    prepare(folder, _OURS)
    extracts = make_extracts(folder / "extracts", arguments.enterprises, arguments.seed)
    rows = [sum(each.count for name, each in state.items() if name != "names") for state in extracts.expected.values()]
    screen.say(f"made up {len(extracts.zips)} extracts from seed {arguments.seed}: one full, two updates of it")
    screen.say(
        f"their states have {rows[0]}, {rows[1]} and {rows[2]} rows, computed from the zips without a database\n"
    )
    with running_engine(arguments.engine) as engine:
        screen.say(f"engine: {engine.name}; up to {_BATCH_ROWS} rows per batch, each batch one durable step\n")
        report = await Demo(folder, engine, extracts, screen).run()
    screen.say()
    show_result(screen, report)
    if arguments.json:
        sys.stdout.write(json.dumps({"ok": not report.problems, "engine": arguments.engine, **asdict(report)}) + "\n")
    said = "every row is there once, at every extract; the cancelled import left nothing"
    if not verdict(screen, len(report.problems), said, folder):
        return False
    screen.say(f"\nnext   look at it: {this_python()} -m apps.imports serve --dir {folder / 'data'}")
    screen.say("       or read the workflow: apps/imports/workflow.py")
    return True


def main() -> int:
    """Entry point: 0 if every promise held, 1 if not, 130 after Ctrl-C."""
    arguments = _arguments()
    screen = Screen(on_stderr=arguments.json)
    return run_demo(_demo(arguments, screen), screen, arguments.keep_dir / "imports.log", [StoreError])


if __name__ == "__main__":
    sys.exit(main())
