"""One request to the NVD's CVE API 2.0, or to a mirror of it. No retries here: they are the engine's."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from restate import TerminalError

from apps.recon.enrich.nvd import NotAnAnswer, Page, decode_page
from holdfast.patterns import raise_for_status

PAGE_MAX = 2000
"""Records per page; the API gives no more."""
REQUESTS_PER_30S, REQUESTS_PER_30S_WITH_KEY = 5, 50
ANSWER_BYTES_MAX = 64 * 1024 * 1024
_TIMEOUT_S = 60.0

# What the NVD answers to too many requests; everywhere else it means "never".
_TOO_MANY = 403


async def fetch_page(url: str, cpe: str, *, start_index: int, page_size: int, api_key: str | None) -> Page:
    """Ask for the vulnerabilities of one CPE name, from the `start_index`-th on.

    Raises:
        TerminalError: the API refuses the request and will refuse it again (404: it does not take this name).
        RetryableError: it may work later; as late as Retry-After says.
        httpx.TransportError, NotAnAnswer: the same.
    """
    headers = {"apiKey": api_key} if api_key else {}
    query = {"cpeName": cpe, "startIndex": str(start_index), "resultsPerPage": str(page_size)}
    async with (
        httpx.AsyncClient(timeout=_TIMEOUT_S, headers=headers) as http,
        http.stream("GET", url, params=query) as answer,
    ):
        if answer.status_code != 200:
            reason = answer.headers.get("message") or answer.reason_phrase
            status = 429 if answer.status_code == _TOO_MANY else answer.status_code
            raise_for_status(
                status, f"NVD: {answer.status_code} {reason}", retry_after_s=_retry_after_s(answer.headers)
            )
            raise TerminalError(f"NVD: unexpected answer {answer.status_code}", status_code=502)
        return decode_page(await _body(answer))


async def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise TerminalError(f"NVD: an answer of more than {ANSWER_BYTES_MAX} bytes", status_code=502)
    if not body:
        raise NotAnAnswer("NVD: an empty answer")
    return bytes(body)


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds from now, whichever of its two forms the header has."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
