"""Who announces addresses and where they are: two durable services of the same shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from restate import Context, Service, TerminalError
from restate.context import RunOptions

from apps.recon.enrich import cymru, mmdb, places
from apps.recon.enrich.model import BATCH_MAX, Failure, LookupRequest, LookupResult, Totals
from apps.recon.enrich.places import AddressKind, Lookup
from apps.recon.enrich.sources import CACHE_TTL, Sources
from apps.recon.inputs import required
from apps.recon.store import Store
from holdfast.patterns import EXTERNAL_CALL, RateLimiter, batches

T = TypeVar("T")

NAMES: dict[AddressKind, str] = {"asn": "AsnEnrichment", "geo": "GeoEnrichment"}
WHOIS_TIMEOUT_S = 30.0

# The source of what needs no look-up: a private network is announced by nobody.
_NOBODY = "reserved"
_WHOIS = "whois"
_CANCELLED = 409


class Looked(msgspec.Struct):
    """Result of the first step."""

    from_cache: int
    to_ask: list[str]
    """Addresses that no file has, for the whois server."""


def lookup_service(kind: AddressKind, store: Store, sources: Sources, whois_rate: RateLimiter) -> tuple[Service, Any]:
    """The service for one kind, and its handler."""
    service = Service(NAMES[kind], description={"asn": "Who announces addresses.", "geo": "Where addresses are."}[kind])

    @service.handler()
    async def run(ctx: Context, request: LookupRequest) -> LookupResult:
        request = required(request)
        if len(request.ips) > BATCH_MAX:
            raise TerminalError(f"{len(request.ips)} addresses; at most {BATCH_MAX} at a time", status_code=400)
        if (missing := sources.missing(kind)) is not None:
            return LookupResult(Totals(skipped=missing))
        request.started_at_ms = request.started_at_ms or int(await ctx.time() * 1000)
        looked = await ctx.run_typed("look", _look, RunOptions(type_hint=Looked), kind, store, sources, request)
        failures: list[Failure] = []
        for number, part in enumerate(batches(looked.to_ask, cymru.BATCH_MAX), 1):
            await whois_rate.wait(ctx, "whois")
            try:
                await ctx.run_typed(f"whois-{number}", _ask_whois, EXTERNAL_CALL, store, sources, part)
            except TerminalError as error:
                if error.status_code == _CANCELLED:
                    raise
                failures += [Failure(address, error.message) for address in part]
        failed = {each.subject for each in failures}
        asked = [address for address in request.ips if address not in failed]
        found = await ctx.run_typed("apply", _apply, RunOptions(type_hint=int), kind, store, asked)
        return LookupResult(
            Totals(
                asked=len(request.ips),
                enriched=found,
                from_cache=looked.from_cache,
                not_found=len(asked) - found,
                failed=len(failures),
                failures=failures,
            )
        )

    return service, run


async def _look(kind: AddressKind, store: Store, sources: Sources, request: LookupRequest) -> Looked:
    """Look up in the file what is not kept already, and tell which addresses only the whois server may know."""
    known = await places.read_lookups(store, kind, request.ips)
    kept = {ip for ip, each in known.items() if _is_good(each, kind, sources, request)}
    missing = [ip for ip in request.ips if ip not in kept]
    database = sources.asn if kind == "asn" else sources.city
    found: dict[str, Any] = {ip: _find(kind, database, ip) for ip in missing}
    to_ask: list[str] = []
    if kind == "asn" and sources.whois is not None:
        to_ask = [ip for ip in missing if found[ip] is None and sources.is_public(ip)]
    in_file = {ip: each for ip, each in found.items() if ip not in to_ask}
    if in_file:
        await places.keep_lookups(store, kind, database.version if database else _NOBODY, in_file)
    # What this run has looked up itself, before it was cut off, is not from the cache.
    begun_at_s = request.started_at_ms / 1000
    return Looked(sum(known[ip].looked_up_at.timestamp() < begun_at_s for ip in kept), to_ask)


def _find(kind: AddressKind, database: mmdb.Database | None, address: str) -> cymru.Origin | mmdb.Place | None:
    if database is None:
        return None
    return mmdb.find_origin(database, address) if kind == "asn" else mmdb.find_place(database, address)


def _is_good(lookup: Lookup, kind: AddressKind, sources: Sources, request: LookupRequest) -> bool:
    """Whether what is kept is as good as looking again."""
    looked_up_at_ms = lookup.looked_up_at.timestamp() * 1000
    if request.force_refresh and looked_up_at_ms < request.started_at_ms:
        return False
    database = sources.asn if kind == "asn" else sources.city
    own = database.version if database else _NOBODY
    with_whois = kind == "asn" and sources.whois is not None
    if lookup.source == own and lookup.result is None and with_whois and sources.is_public(lookup.address):
        return False  # the file does not have it; now there is somebody else to ask
    if lookup.source != own and not (with_whois and lookup.source == _WHOIS):
        return False  # from another release of the file, or from what is no longer configured
    return datetime.now(UTC) - lookup.looked_up_at < CACHE_TTL


async def _ask_whois(store: Store, sources: Sources, addresses: list[str]) -> None:
    assert sources.whois is not None
    host, port = sources.whois
    answer = await cymru.ask(addresses, host=host, port=port, timeout_s=WHOIS_TIMEOUT_S)
    await places.keep_lookups(store, "asn", _WHOIS, answer)


async def _apply(kind: AddressKind, store: Store, addresses: list[str]) -> int:
    """Write what is kept about these addresses into the graph. Returns how many of them were found."""
    lookups = await places.read_lookups(store, kind, addresses)
    if kind == "asn":
        await places.apply_asn(store, {ip: _result(each, cymru.Origin) for ip, each in lookups.items()})
    else:
        await places.apply_geo(store, {ip: _result(each, mmdb.Place) for ip, each in lookups.items()})
    return sum(each.result is not None for each in lookups.values())


def _result(lookup: Lookup, type_: type[T]) -> T | None:
    return None if lookup.result is None else msgspec.convert(lookup.result, type_)
