"""The API from the command line's side; errors as one line that says what to do next."""

from __future__ import annotations

import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from apps.leads.booking import LedgerEntry, Receipt
from apps.leads.messages import ErrorBody, JobsPage, LeadItem, LeadsPage, LedgerPage, LogsPage, StepsPage
from apps.leads.model import CostView, JobView, LogLine, StepView
from apps.leads.wallet import WalletView

REQUEST_TIMEOUT_S = 60.0
CONNECTION_ATTEMPTS = 5
"""Over some eight seconds: the server may just be starting."""
LOOK_S = 0.3
"""Between two looks at a job that is followed."""
AWAY_MAX_S = 60.0
"""How long a job is followed without any answer."""

T = TypeVar("T")
_HINTS = {
    401: "set LEADS_API_KEY, or give --key",
    402: "`leads wallet top-up CENTS`",
    404: "see `leads jobs list`",
    503: "try again when the engine is back; the same --client-key is safe",
}


class Refused(Exception):
    """The API said no, or nothing. `hint` says what to do next."""

    def __init__(self, message: str, hint: str = "", body: ErrorBody | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.body = body


class Away(Refused):
    """No answer: it is away, or never was there."""


class ApiClient:
    """Requests to the API of leads. A context manager. Every method raises `Refused`."""

    def __init__(self, url: str, *, key: str | None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.HTTPTransport(retries=CONNECTION_ATTEMPTS)
        self._url = url
        self._http = httpx.Client(transport=transport, base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def start(self, kind: str, body: dict[str, Any]) -> JobView:
        """`kind`: `discovery` or `enrichment`."""
        given = {name: value for name, value in body.items() if value is not None}
        return self._ask("POST", f"/v1/{kind}", JobView, json=given)

    def job(self, job_id: str) -> JobView:
        return self._ask("GET", _job(job_id), JobView)

    def jobs(self, **query: Any) -> JobsPage:
        return self._ask("GET", "/v1/jobs", JobsPage, params=query)

    def steps(self, job_id: str) -> list[StepView]:
        return self._ask("GET", f"{_job(job_id)}/steps", StepsPage).steps

    def logs(self, job_id: str, after: int = 0) -> list[LogLine]:
        return self._ask("GET", f"{_job(job_id)}/logs", LogsPage, params={"after": after}).logs

    def cost(self, job_id: str) -> CostView:
        return self._ask("GET", f"{_job(job_id)}/cost", CostView)

    def cancel(self, job_id: str) -> JobView:
        return self._ask("POST", f"{_job(job_id)}/cancel", JobView)

    def resume(self, job_id: str) -> JobView:
        return self._ask("POST", f"{_job(job_id)}/resume", JobView)

    def follow(self, job_id: str) -> Generator[tuple[JobView, list[LogLine]]]:
        """The job and its new log lines, until it is over. leads may be away for a while meanwhile: the job goes on after it."""
        seen, answered_s = 0, time.monotonic()
        while True:
            try:
                job = self.job(job_id)
                lines = self.logs(job_id, seen)
            except Away:
                if time.monotonic() - answered_s > AWAY_MAX_S:
                    raise
            else:
                seen, answered_s = seen + len(lines), time.monotonic()
                yield job, lines
                if job.status.is_final:
                    return
            time.sleep(LOOK_S)  # between two looks

    def leads(self, job_id: str | None, limit: int = 1000) -> list[LeadItem]:
        query = {"limit": limit} | ({"job_id": job_id} if job_id else {})
        return self._ask("GET", "/v1/leads", LeadsPage, params=query).leads

    def export(self, job_id: str | None, file_format: str) -> bytes:
        query = {"format": file_format} | ({"job_id": job_id} if job_id else {})
        return self._send("GET", "/v1/leads/export", params=query)

    def report(self, lead_id: str) -> bytes:
        """The lead's page."""
        return self._send("GET", f"/leads/{quote(lead_id, safe='/:')}")

    def wallet(self, user_id: str) -> WalletView:
        return self._ask("GET", _wallet(user_id), WalletView)

    def ledger(self, user_id: str, count: int) -> list[LedgerEntry]:
        return self._ask("GET", f"{_wallet(user_id)}/ledger", LedgerPage, params={"count": count}).ledger

    def top_up(self, user_id: str, amount_cents: int, key: str, reference: str) -> Receipt:
        body = {"amount_cents": amount_cents, "key": key, "reference": reference}
        return self._ask("POST", f"{_wallet(user_id)}/top-up", Receipt, json=body)

    def set_tier(self, user_id: str, tier: str, key: str) -> Receipt:
        return self._ask("POST", f"{_wallet(user_id)}/tier", Receipt, json={"tier": tier, "key": key})

    def _ask(self, method: str, path: str, kind: type[T], **request: Any) -> T:
        content = self._send(method, path, **request)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise Refused(f"{self._url} answered something else than leads", "is --url its address?") from error

    def _send(self, method: str, path: str, **request: Any) -> bytes:
        try:
            answer = self._http.request(method, path, **request)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Refused(f"{self._url!r} is no address", "give --url as http://host:port") from error
        except httpx.HTTPError as error:
            hint = "start it with `python -m apps.leads serve`, or say where it is with --url"
            raise Away(f"no answer from {self._url}: {str(error) or type(error).__name__}", hint) from error
        if answer.is_success:
            return answer.content
        try:
            body = msgspec.json.decode(answer.content, type=ErrorBody)
        except msgspec.DecodeError:
            hint = _HINTS.get(answer.status_code, "is --url the address of leads?")
            raise Refused(f"{path}: status {answer.status_code}", hint) from None
        message, _, hint = body.message.partition("; next: ")
        raise Refused(message, _HINTS.get(body.code, hint), body)


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _wallet(user_id: str) -> str:
    return f"/v1/wallets/{quote(user_id, safe='')}"
