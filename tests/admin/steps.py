"""Rows of several requests that are sent to holdfast and to a Restate server, and what must come back from both."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
CREATED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")

PATIENCE_S = 30
"""For what takes milliseconds on an idle machine."""

_rows = itertools.count()


class Has(dict[str, Any]):
    """A document that has at least these fields."""


class Listed(list[Any]):
    """A list that has at least these items."""


@dataclass(frozen=True, slots=True)
class Starts:
    """A text that begins like this; the rest is not worth comparing."""

    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A request and its answer. `{name}` anywhere is filled in: `{n}` is fresh for each row, `{zoo}` is where the
    endpoints of `zoo.py` are, others were saved by earlier steps."""

    request: str
    status: Any
    """`...` where it does not matter."""
    answer: Any = ""
    """A document, the whole text, or `...` where the words are not worth comparing."""
    body: Any = None
    headers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """Expected."""
    sends: Mapping[str, str] = field(default_factory=dict[str, str])
    until: bool = False
    """Sent again until the answer has the status."""
    save: str = ""
    """Name for the id in the answer: its header x-restate-id, or one of the fields in `_IDS`."""
    ours: tuple[int, Any] | None = None
    """Status and answer of holdfast where it differs on purpose; docs/compatibility.md says why."""


async def play(
    steps: list[Step], apis: Mapping[str, httpx.AsyncClient], known: Mapping[str, str], *, is_holdfast: bool
) -> None:
    """Send the requests of a row, one after the other, and compare.

    Args:
        apis: `admin`, and `ingress` for requests that begin with `ingress:`.
        known: Values of names.
    """
    names = {**known, "n": f"x{os.getpid()}x{next(_rows)}"}
    for step in steps:
        method, path = fill(step.request, names).split(" ", 1)
        api = apis["admin"]
        if path.startswith("ingress:"):
            api, path = apis["ingress"], path.removeprefix("ingress:")
        deadline = time.monotonic() + PATIENCE_S
        answer = await _send(api, method, path, fill(step.body, names), step.sends)
        while step.until and answer.status_code != step.status and time.monotonic() < deadline:
            await asyncio.sleep(0.02)  # between two looks
            answer = await _send(api, method, path, fill(step.body, names), step.sends)
        status, expected = (step.ours if is_holdfast and step.ours is not None else None) or (step.status, step.answer)
        where = f"{method} {path}: {answer.status_code} {answer.text[:600]}"
        assert status is ... or answer.status_code == status, where
        if step.save:
            names[step.save] = _saved(answer)
        _compare(answer, fill(expected, names), where)
        for name, value in step.headers.items():
            found = answer.headers.get(name)
            assert found == (value if value is None else fill(value, names)), f"{where}: header {name} is {found}"


async def _send(api: httpx.AsyncClient, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
    if isinstance(body, bytes):
        return await api.request(method, path, content=body, headers={"content-type": JSON, **headers})
    if body is None:
        return await api.request(method, path, headers=dict(headers))
    return await api.request(method, path, json=body, headers=dict(headers))


def fill(value: Any, names: Mapping[str, str]) -> Any:
    """With the names filled in, everywhere."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], match[0]), value)
    if isinstance(value, Starts):
        return Starts(fill(value.text, names))
    if isinstance(value, dict):
        return type(value)({fill(key, names): fill(item, names) for key, item in value.items()})
    if isinstance(value, list):
        return type(value)(fill(item, names) for item in value)
    return value


def _saved(answer: httpx.Response) -> str:
    if "x-restate-id" in answer.headers:
        return answer.headers["x-restate-id"]
    document = answer.json()
    return next(document[name] for name in _IDS if name in document)


_IDS = ("id", "new_invocation_id", "invocationId", "deployment_id")


def _compare(answer: httpx.Response, expected: Any, where: str) -> None:
    if expected is ...:
        return
    content_type = answer.headers.get("content-type")
    if isinstance(expected, str) and content_type != JSON:
        assert answer.text == expected, where
        assert content_type == (TEXT if expected else None), where
    elif isinstance(expected, Starts):
        assert answer.text.startswith(expected.text), where
        assert content_type == TEXT, where
    else:
        assert content_type == JSON, where
        fault = difference(ordered(answer.json()), ordered(expected))
        assert fault is None, f"{where}\n{fault}"


def ordered(value: Any) -> Any:
    """Restate lists services and handlers in any order; times are checked for their form only."""
    if isinstance(value, dict):
        items = {name: ordered(item) for name, item in value.items()}
        for name in ("services", "handlers"):
            if isinstance(items.get(name), list):
                items[name] = type(items[name])(sorted(items[name], key=lambda item: item.get("name", "")))
        created_at = items.get("created_at")
        if isinstance(created_at, str) and CREATED_AT.fullmatch(created_at):
            items["created_at"] = "TIME"
        return type(value)(items)
    if isinstance(value, list):
        return type(value)(ordered(item) for item in value)
    return value


def difference(found: Any, expected: Any, place: str = "") -> str | None:
    """The first place where two documents differ, for people."""
    if isinstance(expected, Starts):
        is_same = isinstance(found, str) and found.startswith(expected.text)
        return None if is_same else f"{place}: {found!r} does not begin with {expected.text!r}"
    if expected is ...:
        return None
    if isinstance(expected, dict) and isinstance(found, dict):
        names = [*expected] if isinstance(expected, Has) else sorted({*expected, *found})
        return _first(
            difference(found.get(name, _MISSING), expected.get(name, _MISSING), f"{place}.{name}") for name in names
        )
    if isinstance(expected, Listed) and isinstance(found, list):
        for item in expected:
            if all(difference(other, item) is not None for other in found):
                return f"{place}: nothing in the list is like {json.dumps(item)}"
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(found, expected, strict=True))
        return _first(difference(one, other, f"{place}[{index}]") for index, (one, other) in pairs)
    return None if found == expected else f"{place}: {found!r} is not {expected!r}"


_MISSING = "(missing)"


def _first(faults: Any) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


def refusal(message: Any, code: str | None = None) -> dict[str, Any]:
    """The body of a refusal."""
    return {"message": message, "restate_code": code}
