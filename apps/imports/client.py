"""The API from the command line's side: requests with patience, errors as one line that says what to do next."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec
from httpx_retries import Retry, RetryTransport

from apps.imports.messages import Accepted, ErrorBody, HistoryPage
from apps.imports.model import Progress

REQUEST_TIMEOUT_S = 30.0
LOOK_S = 0.5
"""Between two looks at an import that is followed."""


class Refused(Exception):
    """The API said no, or nothing. `hint` says what to do next; `status` is the import's, where that is the reason."""

    def __init__(self, message: str, hint: str, status: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status


class ApiClient:
    """Requests to the API of imports. A context manager.

    Args:
        url: Where it is.
        token: If it asks for one.
        patience_s: Seconds for which one request is tried again, if the API or its engine is away or overloaded.
    """

    def __init__(self, url: str, *, token: str | None, patience_s: float) -> None:
        retry = Retry(
            total=max(1, math.ceil(patience_s) * 4),  # the seconds are the limit, not the count
            total_timeout=max(patience_s, 0.001),
            allowed_methods=("GET", "POST"),
            retry_on_exceptions=(httpx.NetworkError, httpx.RemoteProtocolError),
            backoff_factor=0.1,
            backoff_jitter=0.5,
            max_backoff_wait=5.0,
        )
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = RetryTransport(transport=httpx.HTTPTransport(), retry=retry)
        self._http = httpx.Client(transport=transport, base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def start(self, body: dict[str, Any]) -> Accepted:
        """Start an import. Raises `Refused`."""
        return msgspec.json.decode(self._ask("POST", "/api/imports/start", json=body), type=Accepted)

    def progress(self, import_id: str) -> Progress:
        """How far it is. Raises `Refused`."""
        return msgspec.json.decode(self._ask("GET", f"{_path(import_id)}/progress"), type=Progress)

    def follow(self, import_id: str) -> Generator[Progress]:
        """Every change of the progress, the first at once; ends after a final one. Raises `Refused`."""
        last = self.progress(import_id)
        yield last
        while not last.status.is_final:
            time.sleep(LOOK_S)  # between two looks
            if (found := self.progress(import_id)) != last:
                last = found
                yield last

    def cancel(self, import_id: str) -> None:
        """Ask for its end. Raises `Refused`."""
        self._ask("POST", f"{_path(import_id)}/cancel")

    def history(self, limit: int, cursor: str | None) -> HistoryPage:
        """Imports, newest first. Raises `Refused`."""
        query = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        return msgspec.json.decode(self._ask("GET", "/api/imports", params=query), type=HistoryPage)

    def _ask(self, method: str, path: str, **request: Any) -> bytes:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.UnsupportedProtocol as error:
            raise Refused(f"{self._url!r} is no address", "give --url as http://host:port") from error
        except httpx.HTTPError as error:
            hint = "start it with `python -m apps.imports serve`, or say where it is with --url"
            raise Refused(f"no answer from {self._url}: {str(error) or type(error).__name__}", hint) from error
        if answer.is_success:
            return answer.content
        if answer.status_code == 401:
            raise Refused(f"{self._url} asks for a token", "set IMPORTS_TOKEN, or give --token")
        raise _refusal(answer)


def _path(import_id: str) -> str:
    return f"/api/imports/{quote(import_id, safe='')}"


def _refusal(answer: httpx.Response) -> Refused:
    try:
        body = msgspec.json.decode(answer.content, type=ErrorBody)
    except msgspec.DecodeError:
        return Refused(f"status {answer.status_code}: {answer.text[:200]}", "is --url the address of imports?")
    hints = {
        "already_started": "follow it with `imports watch`, or choose another --id",
        "not_found": "see `imports history`",
        "engine_away": "try again when the engine is back; the same id is safe",
    }
    return Refused(body.message, hints.get(body.error, "see `imports --help`"), body.status)
