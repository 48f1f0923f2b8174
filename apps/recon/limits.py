"""How often one caller may ask: token buckets in memory, and who the caller is.

Limits protect this process, so they live in it: a restart forgives everybody, and every replica counts for itself.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from apps.recon.http import ApiError
from apps.recon.settings import Network, Settings

BUCKETS_MAX = 10_000
"""Callers remembered at a time; the one that has not asked for longest is forgotten first."""


class TokenBuckets:
    """So many per minute for each caller, the whole minute's worth at once at most."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left and when that was so, by caller."""

    def take(self, caller: str) -> float:
        """Take one token. Returns 0, or the seconds until there is one when there was none."""
        now_s = self._clock()
        tokens, at_s = self._buckets.pop(caller, (float(self.per_minute), now_s))
        tokens = min(float(self.per_minute), tokens + (now_s - at_s) * self.per_minute / 60)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self.per_minute
        self._buckets[caller] = (tokens if wait_s else tokens - 1, now_s)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return wait_s


class RequestLimits:
    """The three limits of the API."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = settings.trusted_proxies
        self._scanners = TokenBuckets(settings.ingest_per_minute, clock=clock)
        self._submitters = TokenBuckets(settings.address_per_minute, clock=clock)
        self._readers = TokenBuckets(settings.read_per_minute, clock=clock)

    def count_submission(self, request: Request) -> None:
        """Before verification, which costs more than counting. Raises: ApiError 429."""
        _count(self._submitters, caller_address(request, self._proxies), "submissions from this address")

    def count_scanner(self, scanner_key: str) -> None:
        """After verification, or anybody could use up a scanner's share. Raises: ApiError 429."""
        _count(self._scanners, scanner_key, "submissions with this key")

    def count_read(self, request: Request) -> None:
        """Any other request. Raises: ApiError 429."""
        _count(self._readers, caller_address(request, self._proxies), "requests from this address")


def caller_address(request: Request, proxies: tuple[Network, ...]) -> str:
    """The caller's address without its port. Behind a configured proxy it is what the nearest proxy that is not
    configured, or the caller itself, appended to X-Forwarded-For; anybody else's X-Forwarded-For is ignored.
    """
    address = request.client.host if request.client else "unknown"
    hops = [hop.strip() for value in request.headers.getlist("x-forwarded-for") for hop in value.split(",")]
    while hops and _is_within(address, proxies):
        address = hops.pop()
    return address


def _is_within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _count(buckets: TokenBuckets, caller: str, what: str) -> None:
    wait_s = buckets.take(caller)
    if wait_s:
        seconds = math.ceil(wait_s)
        raise ApiError(
            429,
            "rate_limit_exceeded",
            f"more than {buckets.per_minute} {what} in a minute; try again in {seconds} s",
            {
                "Retry-After": str(seconds),
                "X-RateLimit-Limit": str(buckets.per_minute),
                "X-RateLimit-Window": "60",
            },
        )
