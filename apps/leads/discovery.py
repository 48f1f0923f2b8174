"""Discovery, the fast tier: search -> scan the websites -> score. Service `discovery`, handler `discover`.

    search                       one request of a directory, or
    start-search, look-…, fetch-results                     a crawler's run, with durable waits between looks
    list-websites, scan-websites-1 … n                      20 sites per step, 5 at a time, 10 s each
    score

Businesses and scans go to the database; steps give counts. What a run of the job has done before is not done again.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
from restate import Context, Service, TerminalError

from apps.leads.actor import ActorDirectory, ActorRun
from apps.leads.directory import BusinessDirectory, Found, InstantDirectory, OsmFiles, Overpass, SearchQuery
from apps.leads.model import (
    Business,
    CostEvent,
    DiscoveryRequest,
    DiscoveryResult,
    DiscoveryStats,
    JobOrder,
    Lead,
)
from apps.leads.score import discovery_score
from apps.leads.settings import Settings
from apps.leads.sites import look_at
from apps.leads.steps import Steps, is_cancellation, surely
from apps.leads.store import Store
from apps.leads.web.types import SiteScan
from holdfast.patterns import batches, idempotency_key

SERVICE = "discovery"


class SearchOutcome(msgspec.Struct, kw_only=True):
    found_count: int
    duplicate_count: int
    lead_count: int


class ScanOutcome(msgspec.Struct, kw_only=True):
    scanned_count: int
    failed_count: int
    """Sites that did not answer."""
    warnings: list[str] = []


def open_directory(name: str, settings: Settings) -> BusinessDirectory:
    """The configured directory of that name.

    Raises:
        TerminalError: 422, with the names there are.
    """
    if name == "osm":
        return OsmFiles(settings.osm_files)
    if name == "overpass" and settings.overpass_url:
        return Overpass(settings.overpass_url)
    if name == "apify" and settings.actor is not None:
        return ActorDirectory(settings.actor, settings.unit_costs)
    known = ", ".join(settings.directories())
    raise TerminalError(f"directory: {name!r} is not configured; there is {known}", status_code=422)


def check_discovery(request: DiscoveryRequest, settings: Settings) -> None:
    """Can this be answered? Asked before anything is kept or paid.

    Raises:
        TerminalError: 422, with the field.
    """
    open_directory(request.directory or settings.business_directory, settings).check(SearchQuery.of(request))


def discovery_service(store: Store, settings: Settings) -> tuple[Service, Any]:
    """The service and its handler."""
    service = Service(SERVICE, description="Finds businesses and looks at their websites")

    @service.handler()
    async def discover(ctx: Context, order: JobOrder) -> DiscoveryResult:
        return await _Discovery(ctx, store, settings, order).run()

    return service, discover


class _Discovery:
    """One run of one discovery."""

    def __init__(self, ctx: Context, store: Store, settings: Settings, order: JobOrder) -> None:
        self._ctx = ctx
        self._store = store
        self._settings = settings
        self._job_id = order.job_id
        self._run = order.run
        self._cost_max_usd = order.cost_max_usd
        self._request = msgspec.convert(order.request, DiscoveryRequest)
        self._query = SearchQuery.of(self._request)
        self._steps = Steps(ctx, store, order.job_id, order.run)

    async def run(self) -> DiscoveryResult:
        directory = open_directory(self._request.directory or self._settings.business_directory, self._settings)
        if isinstance(directory, InstantDirectory):
            outcome = await self._steps.run(
                "search", lambda: self._search(directory), SearchOutcome, retry=self._settings.search_retry
            )
        elif isinstance(directory, ActorDirectory):
            outcome = await self._crawl(directory)
        else:
            raise TerminalError(f"directory {directory.name} cannot be asked", status_code=500)
        warnings: list[str] = []
        if self._request.scan:
            places = await self._steps.run("list-websites", self._places, summary=len)
            for number, batch in enumerate(batches(places, self._settings.scan_batch_size), start=1):
                scanned = await self._scan_step(number, batch)
                warnings += scanned.warnings
        return await self._steps.run("score", lambda: self._score(outcome, warnings), DiscoveryResult)

    # ---- search ----------------------------------------------------------------------------------------------------------

    async def _search(self, directory: InstantDirectory) -> SearchOutcome:
        before = await self._done_before("search")
        return before or await self._keep(await directory.search(self._query), directory, "search")

    async def _crawl(self, directory: ActorDirectory) -> SearchOutcome:
        """A crawler's run. When this discovery ends before it does, it is aborted: it costs money."""
        before = await self._steps.run("find-results", lambda: self._done_before("fetch-results"), SearchOutcome)
        if before is not None:
            return before
        self._check_cost(directory)
        retry = self._settings.search_retry
        key = idempotency_key("search", self._job_id, self._run)
        run = await self._steps.run("start-search", lambda: directory.start(self._query, key), ActorRun, retry=retry)
        run_id = run.id
        try:
            for number in range(1, directory.settings.polls_max + 1):
                if run.is_over:
                    break
                await self._ctx.sleep(timedelta(seconds=directory.settings.poll_wait_s))
                run = await self._steps.run(f"look-{number}", lambda: directory.look(run_id), ActorRun, retry=retry)
        except TerminalError:
            await surely(lambda: self._abort(directory, run_id))
            raise
        if not run.is_over:
            await self._abort(directory, run_id)
            raise TerminalError(f"the crawler's run {run_id} did not end in time", status_code=504)
        if run.status != "SUCCEEDED":
            raise TerminalError(f"the crawler's run {run_id} ended as {run.status}", status_code=502)
        dataset_id = run.dataset_id

        async def fetch() -> SearchOutcome:
            return await self._keep(await directory.fetch(dataset_id, self._query), directory, "fetch-results")

        return await self._steps.run("fetch-results", fetch, SearchOutcome, retry=retry)

    def _check_cost(self, directory: ActorDirectory) -> None:
        """Before anything is asked. Raises: TerminalError: 422: the results would cost more than the tier allows."""
        limit_usd, each_usd, count = self._cost_max_usd, directory.result_cost_usd, self._query.max_results
        if limit_usd is not None and round(count * each_usd * 1e6) > round(limit_usd * 1e6):
            raise TerminalError(
                f"limit: {count} results would cost ${count * each_usd:.2f}, over the tier's limit of ${limit_usd:.2f} "
                f"for one job; next: ask for at most {int(limit_usd / each_usd)}",
                status_code=422,
            )

    async def _abort(self, directory: ActorDirectory, run_id: str) -> None:
        try:
            await self._steps.run(
                "abort-search", lambda: directory.abort(run_id), ActorRun, retry=self._settings.search_retry
            )
        except TerminalError as error:
            # It costs money until its own end, which is no reason to keep this discovery from ending.
            if is_cancellation(error):
                raise

    async def _done_before(self, step: str) -> SearchOutcome | None:
        """What an earlier run of this job found."""
        result = await self._store.step_result(self._job_id, step)
        return None if result is None else msgspec.convert(result, SearchOutcome)

    async def _keep(self, found: Found, directory: BusinessDirectory, step: str) -> SearchOutcome:
        await self._store.records.keep_businesses(self._job_id, found.businesses)
        cost = CostEvent(
            step=step,
            type="map_search",
            provider=directory.name,
            quantity=found.found_count,
            unit="result",
            cost_usd=round(found.found_count * directory.result_cost_usd, 6),
            run=self._run,
        )
        await self._store.add_costs(self._job_id, [cost])
        await self._steps.log(
            "info", step, f"{directory.name} found {found.found_count}, {found.duplicate_count} of them twice"
        )
        return SearchOutcome(
            found_count=found.found_count,
            duplicate_count=found.duplicate_count,
            lead_count=len(found.businesses),
        )

    # ---- websites --------------------------------------------------------------------------------------------------------

    async def _places(self) -> list[str]:
        return await self._store.records.places_to_scan(self._job_id)

    async def _scan_step(self, number: int, places: list[str]) -> ScanOutcome:
        name = f"scan-websites-{number}"
        return await self._steps.run(name, lambda: self._scan(name, places), ScanOutcome)

    async def _scan(self, step: str, places: list[str]) -> ScanOutcome:
        """Look at the sites that nobody has looked at yet; each scan is kept as soon as it is there."""
        slots = asyncio.Semaphore(self._settings.scan_concurrency)
        businesses = await self._store.records.unscanned(self._job_id, places)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._scan_one(step, business, slots)) for business in businesses]
        warnings = [warning for task in tasks if (warning := task.result())]
        return ScanOutcome(
            scanned_count=len(businesses) - len(warnings), failed_count=len(warnings), warnings=warnings[:10]
        )

    async def _scan_one(self, step: str, business: Business, slots: asyncio.Semaphore) -> str | None:
        async with slots:
            scan = await look_at(business, self._settings)
        await self._store.records.keep_scan(self._job_id, business.place_id, scan)
        cost = CostEvent(
            step=step,
            subject=business.place_id,
            type="website_scan",
            provider="own",
            quantity=1,
            unit="site",
            cost_usd=0.0,
            duration_ms=scan.access.elapsed_ms,
            run=self._run,
        )
        await self._store.add_costs(self._job_id, [cost])
        if scan.is_reachable:
            await self._steps.log("info", step, f"{business.website} answered in {scan.access.elapsed_ms} ms")
            return None
        why = scan.failure.message if scan.failure is not None else "no page"
        await self._steps.log("warning", step, f"{business.website} could not be scanned: {why}")
        return f"{business.name}: {why}"

    # ---- score -----------------------------------------------------------------------------------------------------------

    async def _score(self, outcome: SearchOutcome, warnings: list[str]) -> DiscoveryResult:
        leads = await self._store.records.leads(self._job_id)
        reports = {
            lead.business.place_id: discovery_score(
                lead.business,
                lead.scan,
                self._settings.weights,
                is_scanned=self._request.scan,
            )
            for lead in leads
        }
        await self._store.records.keep_discovery_scores(self._job_id, reports)
        return DiscoveryResult(
            job_id=self._job_id,
            found_count=outcome.found_count,
            duplicate_count=outcome.duplicate_count,
            lead_count=len(leads),
            best_score=max((report.score for report in reports.values()), default=None),
            stats=stats_of(leads),
            warnings=warnings[:20],
        )


def stats_of(leads: list[Lead]) -> DiscoveryStats:
    """Counts over the leads of a job."""
    scans: list[SiteScan] = [lead.scan for lead in leads if lead.scan is not None and lead.scan.is_reachable]
    return DiscoveryStats(
        total=len(leads),
        with_website=sum(lead.business.website is not None for lead in leads),
        scanned=len(scans),
        with_ads=sum(scan.runs_ads for scan in scans),
        with_booking=sum(scan.has_booking for scan in scans),
        with_chat=sum(scan.has_chat for scan in scans),
        seo_ok=sum(scan.is_seo_ok for scan in scans),
        ai_readable=sum(scan.is_ai_readable for scan in scans),
    )
