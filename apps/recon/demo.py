"""The demo: hundreds of signed scans, a kill -9 in the middle, and a check of every row afterwards.

    python -m apps.recon.demo [--jobs N] [--seed N] [--keep-dir DIR] [--plain]

This process is the scanner and the judge. The engine, the workflow and the API run in a child process, which is what
gets killed and started again on the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from apps.recon.demo_campaign import campaign_over, listening, open_ports, start_campaign
from apps.recon.demo_child import Child
from apps.recon.demo_scans import UNFINISHED_MAX, DemoFailed, Item, Scanner, real_items, workload
from apps.recon.demo_verify import Report, verify
from apps.recon.serve import ENGINE_FILE, STORE_DIRECTORY
from apps.recon.surreal import StoreError
from apps.serving import demo
from holdfast import HoldfastError

_POLL_S = 0.1
# Far longer than anything takes; a machine that is merely slow still makes progress.
_STALLED_S = 30
# What a demo leaves behind: the databases, their lock files and journals, the log.
_OURS = (f"{ENGINE_FILE}*", f"{STORE_DIRECTORY}*", "serve.log*")


SETTINGS = {
    # One scanner sends everything, and as fast as it can.
    "RECON_INGEST_PER_MINUTE": "100000",
    "RECON_ADDRESS_PER_MINUTE": "100000",
    "RECON_READ_PER_MINUTE": "100000",
    # `make demo-recon` shows enrichment; here it would only take time.
    "RECON_ENRICH": "false",
    "RECON_LOG_LEVEL": "warning",
}


@dataclass(slots=True)
class Outcome:
    """What happened while the jobs ran."""

    killed_at_count: int
    """Jobs that were final when the process was killed."""
    unfinished_count: int
    """Jobs that were accepted but not final at that moment."""
    restarted_at_s: float
    """Unix seconds at which the second process was started."""
    elapsed_s: float


class Show(Protocol):
    def __call__(self, done: int, part: str) -> None: ...


class Screen(demo.Screen):
    """What a person sees. Plain: lines only, for logs and pipes."""

    def __init__(self, *, plain: bool, on_stderr: bool = False) -> None:
        super().__init__(plain=plain, on_stderr=on_stderr)
        self._plain = plain or not self.console.is_terminal
        self._shown = -1

    @contextmanager
    def progress(self, total: int) -> Generator[Show]:
        """Yields what shows the number of final jobs, and in which part of the run we are."""
        if self._plain:

            def show_line(done: int, part: str) -> None:
                self._line(done, total, part)

            yield show_line
            return
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("", total=total)

            def show_bar(done: int, part: str) -> None:
                bar.update(task, completed=done, description=part)

            yield show_bar

    def _line(self, done: int, total: int, part: str) -> None:
        tenth = done * 10 // total
        if tenth != self._shown:
            self._shown = tenth
            self.say(f"{done:>5} of {total} jobs: {part}")


async def run_jobs(items: list[Item], directory: Path, screen: Screen) -> tuple[Outcome, Scanner]:
    """Submit everything, kill the child half-way, start it again, wait until all jobs are final, stop it cleanly.

    Raises:
        DemoFailed: a process did not start or stop as it should, or jobs stopped making progress.
    """
    began_s = time.monotonic()
    # However quickly they are done: when half of them are, a third is still to come.
    scanner = Scanner(items, unfinished_max=min(UNFINISHED_MAX, max(1, len(items) // 6)))
    child = await Child.start(directory, settings=SETTINGS)
    submitting = asyncio.create_task(scanner.run())
    try:
        with screen.progress(len(items)) as show:
            scanner.up(child.url)
            done = await _watch(
                child, scanner, submitting, until=len(items) // 2, show=partial(show, part="before the kill")
            )
            unfinished = len(scanner.accepted) - done
            scanner.down()
            await child.kill()
            text = f" of process {child.pid}: {done} jobs done, {unfinished} in the middle"
            screen.say(text, label="kill -9", style="bold red")
            restarted_at_s = time.time()
            child = await Child.start(directory, settings=SETTINGS)
            screen.say(f"started again as process {child.pid}, on the same files")
            scanner.up(child.url)
            await _watch(
                child, scanner, submitting, until=len(items), done=done, show=partial(show, part="after the kill")
            )
        await submitting
        await child.stop()
    finally:
        submitting.cancel()
        child.discard()
    return Outcome(done, unfinished, restarted_at_s, time.monotonic() - began_s), scanner


async def _watch(
    child: Child,
    scanner: Scanner,
    submitting: asyncio.Task[None],
    *,
    until: int,
    done: int = 0,
    show: Callable[[int], None],
) -> int:
    """Follow the number of final jobs until it reaches `until`. Returns it."""
    moved_s = time.monotonic()
    async with httpx.AsyncClient(base_url=child.url, timeout=30) as http:
        while done < until:
            if submitting.done():
                submitting.result()  # raises what stopped it, if it did not simply finish
            now_done = await _count_final(http)
            if now_done > done:
                scanner.finished(now_done - done)
                done, moved_s = now_done, time.monotonic()
                show(done)
            elif time.monotonic() - moved_s > _STALLED_S:
                raise DemoFailed(f"no job finished for {_STALLED_S} s; the log is {child.log}")
            await asyncio.sleep(_POLL_S)
    return done


async def _count_final(http: httpx.AsyncClient) -> int:
    total = 0
    for state in ("completed", "failed"):
        answer = await http.get("/v1/jobs", params={"state": state, "limit": 1})
        total += answer.raise_for_status().json()["total"]
    return total


async def run_campaign(directory: Path) -> str:
    """A small campaign on the same files: does it find what listens on this machine? Returns a line that says so.

    Raises:
        DemoFailed: it found something else, or did not end.
    """
    addresses = [f"127.44.0.{number}" for number in (2, 5, 11)]
    child = await Child.start(directory, settings=SETTINGS)
    try:
        async with listening(addresses) as listeners, httpx.AsyncClient(base_url=child.url, timeout=30) as http:
            await start_campaign(http, "demo", ["127.44.0.0/28"], listeners.port)
            status = await campaign_over(http, "demo")
            found = await open_ports(http, "demo")
        await child.stop()
    finally:
        child.discard()
    if status["status"] != "complete" or found != {address: [listeners.port] for address in addresses}:
        raise DemoFailed(f"the campaign ended with {status} and found {found}; {', '.join(addresses)} were listening")
    return f"{status['scanned']} addresses of this machine scanned, {len(found)} listeners found, as many as there were"


def show_result(screen: Screen, items: list[Item], outcome: Outcome, scanner: Scanner, report: Report) -> None:
    """The table, and the problems if there are any."""
    table = Table(show_header=False, title="what is on disk", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    recovery = report.first_completed_at_s
    rows: list[tuple[str, str]] = [
        ("jobs completed", f"{report.completed_count}"),
        ("jobs failed, as they should (nothing usable in the file)", f"{report.failed_count}"),
        ("hosts", f"{report.host_count}"),
        ("ports", f"{report.port_count}"),
        ("edges host to port", f"{report.edge_count}"),
        ("killed at", f"{outcome.killed_at_count} of {len(items)} jobs"),
        ("jobs in the middle at that moment", f"{outcome.unfinished_count}"),
        ("submissions sent again, not one of them counted twice", f"{scanner.resent_count}"),
        ("steps recorded", f"{report.recorded_step_count}"),
        ("recorded steps re-executed", f"{report.repeated_recorded_count}"),
        ("steps cut off before they were recorded, and repeated", f"{report.repeated_unrecorded_count}"),
        (
            "recovery: process start to first job done",
            "-" if recovery is None else f"{recovery - outcome.restarted_at_s:.2f} s",
        ),
        ("all jobs, both processes", f"{outcome.elapsed_s:.1f} s"),
    ]
    for row in rows:
        table.add_row(*row)
    screen.console.print(table)
    for problem in report.problems[:10]:
        screen.say(f" {problem}", label="wrong:", style="bold red")


def prepare(directory: Path) -> None:
    """Make `directory` empty of an earlier demo. Raises: DemoFailed: something else is in it; nothing was deleted."""
    demo.prepare(directory, _OURS)


def _say_next(screen: Screen, directory: Path) -> None:
    python = demo.this_python()
    engine, store, example = (
        directory / ENGINE_FILE,
        directory / STORE_DIRECTORY,
        "apps/recon/data/nmap/libnmap_fullscan.xml",
    )
    for line in (
        "",
        f"files  {engine} (the engine's journal, SQLite)",
        f"       {store}/ (jobs, hosts, ports, edges: SurrealDB)",
        "next   look at a workflow's journal (the second and third command in another terminal):",
        f"         RECON_DIR={directory} {python} -m holdfast.cli serve apps.recon.app:app --db {engine}",
        f"         {python} -m holdfast.cli invocations list --limit 5",
        f"         {python} -m holdfast.cli invocations show ID",
        "       or go on with these files and send a scan of your own:",
        f"         {python} -m apps.recon serve --dir {directory}",
        f"         {python} -m apps.recon keygen; {python} -m apps.recon submit {example} --wait",
        "         http://127.0.0.1:3000 in a browser",
        "       or read the workflow: apps/recon/workflow.py",
    ):
        screen.say(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m apps.recon.demo", description="recon, killed and judged.")
    parser.add_argument("--jobs", type=int, default=300, help="how many scans to submit (300)")
    parser.add_argument("--seed", type=int, default=7, help="decides the generated scans and the order (7)")
    parser.add_argument(
        "--keep-dir", type=Path, default=Path("demo-output/demo"), help="where files go (demo-output/demo)"
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a progress bar")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout, all else on stderr")
    arguments = parser.parse_args()
    if not 2 <= arguments.jobs <= 10_000:
        parser.error("--jobs must be from 2 to 10000")
    return arguments


async def _demo(arguments: argparse.Namespace, screen: Screen) -> bool:
    items = workload(arguments.jobs, arguments.seed)
    real_count = min(len(real_items()), arguments.jobs)
    screen.say(f"{real_count} real scans of naabu, masscan and nmap (apps/recon/data, origins in its README)")
    if generated_count := arguments.jobs - real_count:
        screen.say(
            f"{generated_count} generated ones in naabu's format, made up from seed {arguments.seed}, for volume"
        )
    screen.say("each signed with Ed25519, posted, parsed by a durable workflow, merged into one graph\n")
    prepare(arguments.keep_dir)
    outcome, scanner = await run_jobs(items, arguments.keep_dir, screen)
    screen.say("stopped cleanly; now comparing the databases with the input\n")
    report = await verify(arguments.keep_dir, scanner.accepted, restarted_at_s=outcome.restarted_at_s)
    if len(scanner.accepted) != len(items):
        report.problems.append(f"{len(items) - len(scanner.accepted)} scans were never accepted")
    show_result(screen, items, outcome, scanner, report)
    if arguments.json:
        print(json.dumps({"ok": not report.problems, **asdict(outcome), **asdict(report)}, default=str))
    if not report.problems:
        screen.say(label="campaign", text=f": {await run_campaign(arguments.keep_dir)}", style="bold")
    promise = "every accepted job ended once, nothing recorded ran again, every count agrees"
    demo.verdict(screen, len(report.problems), promise, arguments.keep_dir)
    if outcome.killed_at_count == len(items):
        screen.say(
            " every job was done before the kill came, so it proved little; try more jobs",
            label="note:",
            style="bold red",
        )
    _say_next(screen, arguments.keep_dir)
    return not report.problems


def main() -> int:
    """Entry point: 0 if every promise held, 1 if not, 130 after Ctrl-C."""
    arguments = _arguments()
    screen = Screen(plain=arguments.plain, on_stderr=arguments.json)
    expected = (StoreError, HoldfastError)
    return demo.run_demo(_demo(arguments, screen), screen, arguments.keep_dir / "serve.log", expected)


if __name__ == "__main__":
    sys.exit(main())
