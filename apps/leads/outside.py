"""HTTP clients for other people's services. Reading the certificates takes some 20 ms: once per process is enough."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx

_tls = cache(httpx.create_ssl_context)


def http_client(**arguments: Any) -> httpx.AsyncClient:
    """A client; arguments as of `httpx.AsyncClient`."""
    return httpx.AsyncClient(verify=_tls(), **arguments)
