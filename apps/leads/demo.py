"""The demo: a discovery and an enrichment, each killed with SIGKILL half-way, a third job cancelled, every cent counted.

    python -m apps.leads.demo [--engine embedded|restate|hybrid] [--keep-dir DIR] [--json]

This process is the user, the internet and the judge. leads runs in a child process, which is what gets killed and started
again on the same files. Businesses are real (OpenStreetMap, see `data/businesses`); their websites are played by handmade
pages of this machine, whose door is closed at the right moment, so that each kill comes in the middle of the work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from apps.leads import demo_verify
from apps.leads.demo_child import Child
from apps.leads.demo_web import DemoWeb, running_web
from apps.leads.settings import DATA, OwnerSourceSettings, Settings
from apps.leads.web.types import LOOPBACK_ALLOWED, FetchLimits
from apps.serving.demo import DemoFailed, Screen, prepare, restate_server, run_demo, this_python, verdict

USER = "ada"
TOP_UP_CENTS = 2500
NICHE, PLACE, TAG = "restaurant", "Arlon", ("amenity", "restaurant")
EXTRACT = DATA / "businesses" / "arlon_2018-01-07.geojson"
LIMIT = 40
ENRICHED = 12
VISITS_BEFORE_KILL = 3
_OURS = ("data", "leads.log", "report.html", "leads.parquet", "leads.csv")
_POLL_S = 0.05
_STABLE_S = 1.0
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Kill:
    """One job that was killed, and what became of it."""

    job_id: str
    kind: str
    steps_before: int
    """Steps that were done when the process was killed."""
    recovered_s: float
    """From the start of the next process to the end of the job."""
    steps: int = 0


@dataclass(slots=True)
class Report:
    kills: list[Kill] = field(default_factory=list[Kill])
    discovered: int = 0
    enriched: int = 0
    cancelled_s: float = 0.0
    ledger: list[str] = field(default_factory=list[str])
    balance_cents: int = 0
    providers_usd: float = 0.0
    visits: int = 0
    messages: int = 0
    best: list[tuple[float, str, str]] = field(default_factory=list[tuple[float, str, str]])
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


class Demo:
    """One run."""

    def __init__(self, folder: Path, engine: str, variables: dict[str, str], web: DemoWeb, screen: Screen) -> None:
        self._folder = folder
        self._engine = engine
        self._variables = variables
        self._web = web
        self._screen = screen
        self._database = folder / "data" / "leads.db"
        self._jobs: dict[str, str] = {}
        self._done_before: dict[str, demo_verify.Steps] = {}
        self.report = Report()

    async def run(self) -> Report:
        """Raises: DemoFailed: a process did not do as it should, or nothing moved any more."""
        began_s = time.monotonic()
        child = await self._child()
        try:
            await self._top_up(child)
            body = {"niche": NICHE, "location": PLACE, "limit": LIMIT}
            child, discovery = await self._killed_half_way(child, "discovery", body)
            body = {"discovery_job_id": discovery, "limit": ENRICHED}
            child, enrichment = await self._killed_half_way(child, "enrichment", body)
            await self._cancelled_half_way(child, body)
            ledger, wallet = await self._ledger(child)
            await self._keep_files(child, enrichment)
            await self._until("every message was sent", self._all_told)
            await child.stop()
        finally:
            child.discard()
        self._check(discovery, enrichment, ledger, wallet)
        self.report.seconds = time.monotonic() - began_s
        return self.report

    # ---- what happens ----------------------------------------------------------------------------------------------------

    async def _child(self) -> Child:
        return await Child.start(self._engine, self._folder / "leads.log", self._variables)

    async def _top_up(self, child: Child) -> None:
        body = {"amount_cents": TOP_UP_CENTS, "key": "payment-1"}
        for _ in range(2):  # as a shop that did not get the answer
            await child.ask("POST", f"/v1/wallets/{USER}/top-up", json=body)
        self._screen.say(
            f" ${TOP_UP_CENTS / 100:.2f} into the wallet of {USER}; sent twice, booked once", label="top-up "
        )

    async def _start(self, child: Child, kind: str, body: dict[str, Any], key: str) -> str:
        """Start a job, and once more: the same key is the same job."""
        order = body | {"user_id": USER, "client_key": key, "notify": ["team"]}
        jobs = [await child.ask("POST", f"/v1/{kind}", json=order) for _ in range(2)]
        if jobs[0]["job_id"] != jobs[1]["job_id"]:
            raise DemoFailed(f"the same client key made two jobs: {jobs[0]['job_id']}, {jobs[1]['job_id']}")
        return jobs[0]["job_id"]

    async def _killed_half_way(self, child: Child, kind: str, body: dict[str, Any]) -> tuple[Child, str]:
        visited = self._web.visits.copy()
        self._web.close_after(VISITS_BEFORE_KILL)
        job_id = await self._start(child, kind, body, f"{kind}-1")
        self._jobs[job_id] = kind
        before = await self._steps_at_rest(job_id)
        visited_before = self._web.visits - visited
        await child.kill()
        self._screen.say(
            f" in the {kind}: {len(before)} steps done, {visited_before.total()} websites read, "
            f"{self._web.held} at the door",
            label="kill -9",
            style="bold red",
        )
        self._web.open()
        started_s = time.monotonic()
        child = await self._child()
        job = await self._over(child, job_id)
        if job["status"] != "completed":
            raise DemoFailed(f"{kind} {job_id} is {job['status']}: {job['error']}")
        self._done_before[job_id] = before
        self.report.kills.append(Kill(job_id, kind, len(before), time.monotonic() - started_s))
        self._screen.say("        started again on the same files: completed")
        return child, job_id

    async def _steps_at_rest(self, job_id: str) -> demo_verify.Steps:
        """The steps that are done, once somebody waits at the door and nothing else moves: then the journal has them all."""
        last: tuple[float, demo_verify.Steps] = (time.monotonic(), {})

        async def is_at_rest() -> bool:
            nonlocal last
            steps = demo_verify.finished_steps(self._database, job_id)
            if steps != last[1] or self._web.held == 0:
                last = (time.monotonic(), steps)
            return bool(steps) and time.monotonic() - last[0] > _STABLE_S

        await self._until(f"{job_id} is in the middle of its work", is_at_rest)
        return last[1]

    async def _cancelled_half_way(self, child: Child, body: dict[str, Any]) -> None:
        self._web.close_after(1)
        job_id = await self._start(child, "enrichment", body, "enrichment-2")
        self._jobs[job_id] = "cancelled"
        await self._steps_at_rest(job_id)
        held = (await child.ask("GET", f"/v1/wallets/{USER}"))["held_cents"]
        if held != demo_verify.ENRICHMENT_CENTS:
            self.report.problems.append(f"{held} cents are held while the enrichment runs")
        began_s = time.monotonic()
        await child.ask("POST", f"/v1/jobs/{job_id}/cancel")
        self._web.open()
        job = await self._over(child, job_id)
        self.report.cancelled_s = time.monotonic() - began_s
        if (job["status"], job["price_cents"]) != ("cancelled", 0):
            self.report.problems.append(f"the cancelled job is {job['status']} for {job['price_cents']} cents")
        self._screen.say(
            f" of the next one: its hold of {held} cents is released", label="cancel ", style="bold yellow"
        )

    async def _ledger(self, child: Child) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        wallet = await child.ask("GET", f"/v1/wallets/{USER}")
        lines: list[dict[str, Any]] = []

        async def is_whole() -> bool:  # a line may still be on its way
            lines[:] = (await child.ask("GET", f"/v1/wallets/{USER}/ledger?count=1000"))["ledger"]
            return len(lines) == wallet["booking_count"]

        await self._until("the ledger has all its lines", is_whole)
        return lines, wallet

    async def _keep_files(self, child: Child, job_id: str) -> None:
        page = await child.ask("GET", f"/v1/leads?job_id={job_id}&limit=5")
        self.report.best = [
            (one["lead"]["score"], one["lead"]["business"]["name"], (one["lead"]["owner"] or {}).get("name", ""))
            for one in page["leads"]
        ]
        report = await child.ask("GET", f"/leads/{page['leads'][0]['lead_id']}")
        (self._folder / "report.html").write_bytes(report)
        for name in ("leads.parquet", "leads.csv"):
            file_format = name.partition(".")[2]
            content = await child.ask("GET", f"/v1/leads/export?job_id={job_id}&format={file_format}")
            (self._folder / name).write_bytes(content)

    async def _all_told(self) -> bool:
        return len(self._web.messages) >= len(self._jobs)

    async def _over(self, child: Child, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = {}

        async def is_over() -> bool:
            job.update(await child.ask("GET", f"/v1/jobs/{job_id}"))
            return job["status"] not in ("pending", "running")

        await self._until(f"{job_id} is over", is_over)
        return job

    async def _until(self, what: str, look: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not await look():
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {_PATIENCE_S:.0f} s until {what}; see {self._folder / 'leads.log'}")
            await asyncio.sleep(_POLL_S)  # between two looks

    # ---- is it right? ----------------------------------------------------------------------------------------------------

    def _check(self, discovery: str, enrichment: str, ledger: list[dict[str, Any]], wallet: dict[str, Any]) -> None:
        report, path = self.report, self._database
        for kill in report.kills:
            steps = demo_verify.finished_steps(path, kill.job_id)
            kill.steps = len(steps)
            report.problems += demo_verify.unrepeated(self._done_before[kill.job_id], steps)
        report.problems += demo_verify.money(self._jobs, ledger, wallet, TOP_UP_CENTS)
        report.ledger = [f"{line['kind']} {line['amount_cents']:+d}, held {line['held_cents']:+d}" for line in ledger]
        report.balance_cents = wallet["balance_cents"]

        rows = demo_verify.read(path, "SELECT job_id, place_id FROM leads")
        found = {row["place_id"] for row in rows if row["job_id"] == discovery}
        expected = demo_verify.places_in(EXTRACT, *TAG)
        if found != expected:
            report.problems.append(f"{len(found)} businesses were found, {len(expected)} are in the extract")
        for job_id, is_enriched in ((discovery, False), (enrichment, True)):
            count, wrong = demo_verify.scores(path, job_id, is_enriched=is_enriched)
            report.problems += wrong
            if is_enriched:
                report.enriched = count
            else:
                report.discovered = count
        if report.enriched != ENRICHED:
            report.problems.append(f"{report.enriched} businesses were enriched, {ENRICHED} were asked for")

        query = "SELECT count(*) AS count FROM leads WHERE job_id = ? AND scan ->> '$.access.is_reachable'"
        asked = demo_verify.read(path, query, enrichment)[0]["count"]
        for job_id, questions in ((discovery, 0), (enrichment, asked)):
            usd, wrong = demo_verify.costs(path, job_id, questions)
            report.providers_usd += usd
            report.problems += wrong
        report.visits = self._web.visits.total()

        told = [message["embeds"][0]["fields"][0]["value"] for message in self._web.messages]
        report.messages = len(told)
        if sorted(told) != sorted(self._jobs):
            report.problems.append(f"the webhook heard of {told}")


@contextlib.contextmanager
def running_engine(engine: str) -> Generator[dict[str, str]]:
    """The variables that lead to the engine: none where it is in the child, else those of a Restate server of its own.

    Raises:
        DemoFailed: no server is installed, or it does not start.
    """
    if engine == "embedded":
        yield {}
        return
    with restate_server() as server:
        yield {
            "RESTATE_INGRESS_URL": server.ingress_url,
            "RESTATE_ADMIN_URL": server.admin_url,
            "HOLDFAST_WORKFLOW_RESTATE_DRAIN": "200ms",  # at the end nothing runs any more
        }


def settings_of(folder: Path, web: DemoWeb) -> Settings:
    """Sites, owners and webhook of this machine; few sites at a time, so that a kill leaves some unread."""
    return Settings(
        directory=folder.absolute() / "data",
        network=LOOPBACK_ALLOWED,
        site_mirror_url=web.mirror_url,
        discovery_limits=FetchLimits(site_time_s=60, request_time_s=60, pages_max=1, assets_max=0, pause_s=0),
        enrichment_limits=FetchLimits(site_time_s=60, request_time_s=60, pause_s=0),
        scan_concurrency=2,
        scan_batch_size=2,
        owner_sources=(
            OwnerSourceSettings(name="answer_engine", url=f"{web.url}/owners"),
            OwnerSourceSettings(name="website"),
        ),
        webhooks={"team": f"{web.url}/webhook"},
    )


def show_result(screen: Screen, report: Report) -> None:
    """The tables, and the problems if there are any."""
    best = Table(title="best leads", title_justify="left", title_style="bold", box=None)
    for title in ("score", "business", "owner"):
        best.add_column(title)
    for score, name, owner in report.best:
        best.add_row(f"{score:g}", name, owner)
    screen.console.print(best, markup=False)
    table = Table(show_header=False, title="\nwhat is in the databases", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("businesses found, as many as the extract has", f"{report.discovered}")
    table.add_row("businesses enriched, every score recomputed", f"{report.enriched}")
    for kill in report.kills:
        table.add_row(
            f"{kill.kind}: steps done before the kill, none done again", f"{kill.steps_before} of {kill.steps}"
        )
        table.add_row("   process start to end of the job", f"{kill.recovered_s:.2f} s")
    table.add_row("cancel to released hold", f"{report.cancelled_s:.2f} s")
    table.add_row("ledger: " + "; ".join(report.ledger), f"{report.balance_cents}")
    table.add_row("paid to providers, each question once", f"${report.providers_usd:.3f}")
    table.add_row("home pages sent to the scanner", f"{report.visits}")
    table.add_row("messages to the webhook, one per job", f"{report.messages}")
    table.add_row("everything", f"{report.seconds:.1f} s")
    screen.console.print(table)
    for problem in report.problems[:10]:
        screen.say(f" {problem}", label="wrong:", style="bold red")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m apps.leads.demo", description="leads, killed and judged.")
    engines = ["embedded", "restate", "hybrid"]
    parser.add_argument("--engine", choices=engines, default="embedded", help="what runs it (embedded)")
    parser.add_argument("--keep-dir", type=Path, default=Path("demo-output/leads"), help="where files go")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout, all else on stderr")
    return parser.parse_args()


async def _demo(arguments: argparse.Namespace, screen: Screen) -> bool:
    folder: Path = arguments.keep_dir
    prepare(folder, _OURS)
    with running_web() as web, running_engine(arguments.engine) as engine:
        screen.say(
            f"{NICHE}s in {PLACE}, of OpenStreetMap; their websites are played by handmade pages of this machine"
        )
        screen.say(f"engine: {arguments.engine}\n")
        variables = settings_of(folder, web).to_environment() | engine
        for name in ("LEADS_DISCOVERY_ENGINE", "LEADS_ENRICHMENT_ENGINE"):
            variables.pop(name, None)
        report = await Demo(folder, arguments.engine, variables, web, screen).run()
    screen.say()
    show_result(screen, report)
    if arguments.json:
        sys.stdout.write(json.dumps({"ok": not report.problems, "engine": arguments.engine, **asdict(report)}) + "\n")
    said = "nothing was lost, nothing done was done again, and every cent is where it belongs"
    if not verdict(screen, len(report.problems), said, folder):
        return False
    screen.say(f"\nnext   open {folder / 'report.html'}, or {folder / 'leads.csv'}")
    screen.say(f"       look at it: {this_python()} -m apps.leads serve --dir {folder / 'data'}")
    screen.say("       or read the workflows: apps/leads/workflows.py")
    return True


def main() -> int:
    """Entry point: 0 if every promise held, 1 if not, 130 after Ctrl-C."""
    arguments = _arguments()
    screen = Screen(on_stderr=arguments.json)
    return run_demo(_demo(arguments, screen), screen, arguments.keep_dir / "leads.log")


if __name__ == "__main__":
    sys.exit(main())
