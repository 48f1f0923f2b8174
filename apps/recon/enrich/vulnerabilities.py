"""What services are affected by: their CPE names, and the NVD's answers about these. Durable services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from restate import Context, ObjectContext, Service, TerminalError
from restate.context import RunOptions

from apps.recon.enrich import findings
from apps.recon.enrich.cpe import parse_cpe
from apps.recon.enrich.matching import Applies, applies
from apps.recon.enrich.model import BATCH_MAX, Failure, LookupRequest, LookupResult, Totals, VulnTotals
from apps.recon.enrich.nvd_client import PAGE_MAX, REQUESTS_PER_30S, REQUESTS_PER_30S_WITH_KEY, fetch_page
from apps.recon.enrich.sources import CACHE_TTL, Sources
from apps.recon.inputs import required
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast.patterns import Cache, RateLimiter, fan_out

_APART = " in "
"""Between a CPE name and the database in the key of a cached answer."""

QUESTIONS_AT_ONCE = 4
"""Per batch; the rate limit decides how fast they really go."""


class Identified(msgspec.Struct):
    """Result of the first step."""

    services: int
    names: list[str]
    """CPE names that can be asked about."""
    database: str
    """Whose records the cached answers speak of: another one has its own."""


class Matched(msgspec.Struct):
    """Result of one page of an answer."""

    matches: dict[str, int]
    """CVE id -> `Applies`."""
    next_index: int | None


class Answer(msgspec.Struct):
    """What is cached for a CPE name; the records themselves are in the database."""

    asked_at_ms: int
    matches: dict[str, int]
    """CVE id -> `Applies`."""


class Nvd:
    """The NVD's answers by CPE name, each asked for once a day, at the pace that the NVD allows."""

    def __init__(self, store: Store, settings: Settings, sources: Sources) -> None:
        self._store, self._settings, self._sources = store, settings, sources
        limit = REQUESTS_PER_30S_WITH_KEY if settings.nvd_api_key else REQUESTS_PER_30S
        limit = settings.nvd_requests_per_30s or limit
        # No burst: five at once and one every six seconds after them would be ten in the first thirty.
        self.rate = RateLimiter("NvdRate", limit=limit, per=timedelta(seconds=30), burst=1, wait_max=CACHE_TTL)
        self.answers = Cache("NvdAnswers", self._ask, ttl=CACHE_TTL)
        # A repetition takes no turn of its own, so it waits as long as one.
        self._page_options = RunOptions(
            type_hint=Matched,
            max_attempts=5,
            initial_retry_interval=timedelta(seconds=30 / limit),
            retry_interval_factor=2,
            max_retry_interval=timedelta(minutes=2),
        )

    async def _ask(self, ctx: ObjectContext, key: str) -> Any:
        name = key.rpartition(_APART)[0]
        asked_at_ms = int(await ctx.time() * 1000)
        matches: dict[str, int] = {}
        start_index: int | None = 0
        while start_index is not None:
            await self.rate.wait(ctx, "nvd")
            page = await ctx.run_typed(f"page-{start_index}", self._page, self._page_options, name, start_index)
            matches |= page.matches
            start_index = page.next_index
        return msgspec.to_builtins(Answer(asked_at_ms, matches))

    async def _page(self, name: str, start_index: int) -> Matched:
        """Fetch one page and keep the records that apply."""
        settings = self._settings
        page = await fetch_page(
            settings.nvd_url, name, start_index=start_index, page_size=PAGE_MAX, api_key=settings.nvd_api_key
        )
        cpe = parse_cpe(name)
        how = {each.cve_id: applies(each.configurations, cpe) for each in page.vulnerabilities}
        kept = [each for each in page.vulnerabilities if how[each.cve_id] is not Applies.NO and not each.is_rejected]
        await findings.keep_vulnerabilities(self._store, kept, self._sources.known_exploited)
        return Matched({each.cve_id: int(how[each.cve_id]) for each in kept}, page.next_index)


def vuln_service(store: Store, sources: Sources, nvd: Nvd) -> tuple[Service, Any]:
    """The service, and its handler."""
    service = Service("VulnEnrichment", description="What services are affected by.")

    @service.handler()
    async def run(ctx: Context, request: LookupRequest) -> LookupResult:
        request = required(request)
        if len(request.ips) > BATCH_MAX:
            raise TerminalError(f"{len(request.ips)} addresses; at most {BATCH_MAX} at a time", status_code=400)
        identified = await ctx.run_typed("identify", _identify, RunOptions(type_hint=Identified), store, request.ips)
        counts = VulnTotals(services=identified.services, cpes=len(identified.names))
        if (missing := sources.missing("vuln")) is not None:
            return LookupResult(Totals(skipped=missing), counts)
        begun_at_ms = int(await ctx.time() * 1000)
        keys = [f"{name}{_APART}{identified.database}" for name in identified.names]
        if request.force_refresh:
            await _forget(ctx, nvd.answers, keys, before_ms=request.started_at_ms or begun_at_ms)
        outcomes = await fan_out(
            keys,
            lambda key: ctx.object_call(nvd.answers.get, key=key, arg=None),
            concurrency=QUESTIONS_AT_ONCE,
        )
        answered = zip(identified.names, outcomes, strict=True)
        answers: dict[str, Answer] = {}
        failures: list[Failure] = []
        for name, outcome in answered:
            if outcome.status == "succeeded":
                answers[name] = msgspec.convert(outcome.value, Answer)
            else:
                failures.append(Failure(name, outcome.error))
        matches = {name: each.matches for name, each in answers.items()}
        unanswered = [each.subject for each in failures]
        related = await ctx.run_typed(
            "relate", _relate, RunOptions(type_hint=VulnTotals), store, request.ips, matches, unanswered
        )
        return LookupResult(_totals(begun_at_ms, answers, failures), counts.plus(related))

    return service, run


async def _forget(ctx: Context, answers: Cache, keys: list[str], *, before_ms: int) -> None:
    """Drop answers from before; what another batch of the same run has asked for since is fresh enough."""
    for key in keys:
        entry = await ctx.object_call(answers.peek, key=key, arg=None)
        if entry is not None and entry["computed_at_ms"] < before_ms:
            await ctx.object_call(answers.invalidate, key=key, arg=None)


async def _identify(store: Store, addresses: list[str]) -> Identified:
    services, names = await findings.identify_services(store, addresses)
    return Identified(services, names, await findings.identity(store))


async def _relate(
    store: Store, addresses: list[str], matches: dict[str, dict[str, int]], unanswered: list[str]
) -> VulnTotals:
    answers = {name: {cve_id: Applies(how) for cve_id, how in each.items()} for name, each in matches.items()}
    vulns, relations = await findings.relate(store, addresses, answers, unanswered)
    return VulnTotals(vulns=vulns, relations=relations)


def _totals(begun_at_ms: int, answers: dict[str, Answer], failures: list[Failure]) -> Totals:
    """By CPE name."""
    return Totals(
        asked=len(answers) + len(failures),
        enriched=sum(bool(each.matches) for each in answers.values()),
        from_cache=sum(each.asked_at_ms < begun_at_ms for each in answers.values()),
        not_found=sum(not each.matches for each in answers.values()),
        failed=len(failures),
        failures=failures,
    )
