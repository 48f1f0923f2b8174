"""Accepting: a job and its scan come to disk in one transaction, which all submissions of the same moment share.

A transaction costs an fsync, and one writes at a time. So whoever comes while one is under way waits for the next, and
that takes along all who wait: a hundred scanners at once wait for two transactions, not for a hundred.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field
from typing import Any, cast

from apps.recon import statements
from apps.recon.model import IngestRequest
from apps.recon.surreal import StoreUnavailable, Surreal

SHARED_MAX = 100
SHARED_BYTES_MAX = 8 << 20
"""Submissions in one transaction, and their packed scans together. One that is larger goes alone."""

INLINE_CHARS_MAX = 64 * 1024
"""A longer scan is packed and unpacked by another thread."""

_LEVEL = 1
"""Of zlib, the quickest. It makes a tenth of what scanners print."""


def _futures() -> list[asyncio.Future[dict[str, Any]]]:
    return []


@dataclass(slots=True)
class _Waiting:
    row: dict[str, Any]
    done: list[asyncio.Future[dict[str, Any]]] = field(default_factory=_futures)
    """One for each who sent it: the same submission may come twice at once."""


class SubmissionWriter:
    """Writes submissions, those that wait at the same time together."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._writing: asyncio.Task[None] | None = None

    async def create(self, surreal: Surreal, request: IngestRequest, scan: str) -> dict[str, Any]:
        """Create the job with its scan, or find it. Returns the job's row, which is on disk.

        Raises:
            StoreError: the database failed; the job may be there or not.
        """
        row = {
            "id": request.job_id,
            "scanner_key": request.scanner_key,
            "observed_at_s": request.observed_at_s,
            "packed_scan": await pack(scan),
        }
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request.job_id, _Waiting(row)).done.append(done)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(surreal), name="recon submissions")
        return await done

    async def _write_all(self, surreal: Surreal) -> None:
        """Until nobody waits. Whoever comes meanwhile is in the next transaction."""
        while self._waiting:
            taken = self._take()
            try:
                await _write(surreal, taken)
            except Exception as error:  # noqa: BLE001 whatever it is, those who wait must hear of it
                if len(taken) == 1 or isinstance(error, StoreUnavailable):
                    _fail(taken, error)
                    continue
                for each in taken:  # what is wrong with one must not be the others' error
                    try:
                        await _write(surreal, [each])
                    except Exception as its_own:  # noqa: BLE001
                        _fail([each], its_own)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size_bytes = 0
        for waiting in list(self._waiting.values())[:SHARED_MAX]:
            size_bytes += len(waiting.row["packed_scan"])
            if taken and size_bytes > SHARED_BYTES_MAX:
                break
            taken.append(self._waiting.pop(waiting.row["id"]))
        return taken


async def _write(surreal: Surreal, submissions: list[_Waiting]) -> None:
    results = await surreal.write_urgently(statements.CREATE_JOBS, rows=[each.row for each in submissions])
    found = {row["id"].id: row for row in cast("list[dict[str, Any]]", results[-1])}
    for each in submissions:
        for done in each.done:
            if not done.done():  # its caller may have gone
                done.set_result(found[each.row["id"]])


def _fail(submissions: list[_Waiting], error: Exception) -> None:
    for done in (each for submission in submissions for each in submission.done):
        if not done.done():
            done.set_exception(error)


async def pack(scan: str) -> bytes:
    """A scan as it waits in the database."""
    return _pack(scan) if len(scan) <= INLINE_CHARS_MAX else await asyncio.to_thread(_pack, scan)


async def unpack(packed: bytes) -> str:
    """What `pack` was given."""
    return _unpack(packed) if len(packed) <= INLINE_CHARS_MAX // 16 else await asyncio.to_thread(_unpack, packed)


def _pack(scan: str) -> bytes:
    return zlib.compress(scan.encode(), _LEVEL)


def _unpack(packed: bytes) -> str:
    return zlib.decompress(packed).decode()
