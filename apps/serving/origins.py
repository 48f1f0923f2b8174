"""Which requests a browser sends on its user's behalf: what the applications that hold sessions or forms ask."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers


def host_name(host: str) -> str:
    """`localhost:3002` -> `localhost`, `[::1]:3002` -> `::1`; empty where it is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_same_origin(headers: Headers, host: str) -> bool:
    """True also for clients that are no browsers: they send neither header, and carry nobody's rights but their own."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    # The scheme is left out: a proxy may speak TLS for us.
    return origin is None or origin.partition("://")[2] == host
