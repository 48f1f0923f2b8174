"""The API as commands use it: a call, and its failure in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import click
import httpx

API_URL = "http://127.0.0.1:3000"

RETRY_PAUSES_S = (1, 2, 4)
"""Before each further attempt of a request that the server could not take: it may be restarting."""


class Failure(click.ClickException):
    """What the user reads: one line, and what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        click.echo(
            f"error: {self.message}" + (f"\nnext: {self.hint}" if self.hint else ""), file=file, err=file is None
        )


class WrongRequest(Failure):
    """Trying again will not help."""

    exit_code = 2


class Api:
    """Calls of one command. Wrong requests are never repeated; what the server could not take is, a few times."""

    def __init__(
        self,
        url: str = API_URL,
        token: str | None = None,
        *,
        as_json: bool = False,
        pauses_s: Sequence[float] = RETRY_PAUSES_S,
    ) -> None:
        self.url = url.rstrip("/")
        self.as_json = as_json
        self._pauses_s = pauses_s
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer. Query parameters that are None are left out.

        Raises:
            Failure: no answer, or one that is an error.
        """
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """The same with a JSON body."""
        return self._call("POST", path, json={} if body is None else body)

    def post_bytes(self, path: str, body: bytes) -> Any:
        """The same with a body that is JSON already and must arrive as it is."""
        return self._call("POST", path, content=body, headers={"Content-Type": "application/json"})

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def show(self, result: Any) -> None:
        """A result: JSON when asked for, else one `name: value` per line."""
        if self.as_json or not isinstance(result, dict):
            click.echo(json.dumps(result, indent=None if self.as_json else 2))
            return
        members: dict[str, Any] = result
        width = max((len(name) for name in members), default=0)
        for name, value in members.items():
            click.echo(f"{name:{width}}  {_cell(value)}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = "") -> None:
        """Rows for people. Commands with `--json` show the answer itself instead."""
        cells = [[name.upper() for name in columns], *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        for row in cells:
            line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())
        if note:
            click.echo(note, err=True)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {**self._headers, **arguments.pop("headers", {})}
        answer: httpx.Response | None = None
        for pause_s in (*self._pauses_s, None):
            problem = ""
            try:
                answer = httpx.request(method, self.url + path, headers=headers, timeout=60, **arguments)
            except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                answer, problem = None, str(error) or type(error).__name__
                if not isinstance(error, httpx.ConnectError | httpx.ReadError | httpx.RemoteProtocolError):
                    pause_s = None  # noqa: PLW2901 - a wrong URL does not get better
            if (answer is not None and answer.status_code < 500) or pause_s is None:
                break
            click.echo(f"note: {problem or f'the server answered {answer and answer.status_code}'}; again", err=True)
            time.sleep(pause_s)
        if answer is None:
            raise Failure(f"{self.url} cannot be reached: {problem}", hint="is recon running there? see --url")
        if answer.is_error:
            raise _refused(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise Failure(f"{self.url} does not answer as recon does", hint="see --url") from None


def _refused(answer: httpx.Response) -> Failure:
    code = ""
    try:
        message, code = str(answer.json()["message"]), answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        message = f"{answer.url.host} answered {answer.status_code} {answer.text[:200]}".strip()
    is_scanner = code == "invalid_signature"
    hints = {
        401: "check the scanner's clock and key" if is_scanner else "give it by --token or RECON_ADMIN_TOKEN",
        403: "",
        429: f"wait {answer.headers.get('retry-after', 'some')} s",
    }
    kind = WrongRequest if answer.status_code < 500 else Failure
    return kind(message, hint=hints.get(answer.status_code, ""))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value)
