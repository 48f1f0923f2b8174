"""What an engine's process and a query worker say to each other, over the worker's standard streams.

Requests are pickles: the engine's own data, read by the engine's own code. Answers are JSON and raw bytes: nothing that a
worker sends is ever executed.
"""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from holdfast.runtime.snapshot import Snapshot

Form = Literal["json", "arrow"]


@dataclass(frozen=True, slots=True)
class Open:
    """Begin to read this file now. Answered by an empty `Answer`."""

    path: Path


@dataclass(frozen=True, slots=True)
class Query:
    """Answer a query, over the file that was opened or the snapshot's own copy."""

    sql: str
    form: Form
    snapshot: Snapshot
    rows_max: int
    bytes_max: int
    timeout_s: float


Outcome = Literal["done", "refused", "limited", "missing", "failed"]
"""`missing`: DataFusion is not installed; `failed`: an error of ours, with its traceback."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result in the form that was asked for, or what is wrong with the query."""

    outcome: Outcome = "done"
    text: str = ""
    status: int = 200
    columns: tuple[str, ...] = ()
    row_count: int = 0
    body: bytes = b""


_LENGTH = struct.Struct(">Q")


def send_request(stream: IO[bytes], request: Open | Query) -> None:
    _write(stream, pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
    stream.flush()


def receive_request(stream: IO[bytes]) -> Open | Query | None:
    """The next request; None when the other side is gone."""
    content = _read(stream)
    return None if content is None else cast("Open | Query", pickle.loads(content))  # noqa: S301 see above


def send_answer(stream: IO[bytes], answer: Answer) -> None:
    head = {name: value for name, value in asdict(answer).items() if name != "body"}
    _write(stream, json.dumps(head).encode())
    _write(stream, answer.body)
    stream.flush()


def receive_answer(stream: IO[bytes]) -> Answer | None:
    """The answer; None when the worker is gone."""
    head, body = _read(stream), _read(stream)
    if head is None or body is None:
        return None
    values = cast(dict[str, Any], json.loads(head))
    columns = tuple(values.pop("columns"))
    return Answer(**values, columns=columns, body=body)


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)


def _read(stream: IO[bytes]) -> bytes | None:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    size: int = _LENGTH.unpack(head)[0]
    content = stream.read(size)
    return content if len(content) == size else None
