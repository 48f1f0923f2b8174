"""The words of imports: what is asked for, how far it is, what came of it. Plain data; knows no file and no database."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

SERVICE = "KboImport"
"""The workflow. Its key is the import id; its handlers are `run` and, shared, `getProgress` (also as `progress`)."""

WORKER_TYPES = ("local", "vercel", "backfill", "web_manual")

WorkerType = Literal["local", "vercel", "backfill", "web_manual"]
ExtractType = Literal["full", "update"]
Operation = Literal["delete", "insert"]

_IMPORT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Status(StrEnum):
    """Where an import stands. The last three are final."""

    PENDING = "pending"
    """Accepted; the file is being fetched, or was not begun yet."""
    PREPARING = "preparing"
    """The zip is here; it is unpacked, checked and cut into batches."""
    PROCESSING = "processing"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the workflow is started with. A plain JSON string in its place is the source alone."""

    source: str
    """Where the zip is: `https://…`, `http://…`, `file://…`, `s3://bucket/key`, or a path on the worker's machine."""
    import_id: str = ""
    """The workflow's key. Empty means: whatever key the workflow was started under."""
    sha256: str | None = None
    """What the zip's SHA-256 has to be, 64 hexadecimal digits; None takes the file as it comes."""
    size_bytes: int | None = None
    """How long the zip has to be; None takes it as it comes."""
    worker_type: WorkerType = "local"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What `getProgress` answers, at any time and for any key. The same object is the K/V entry `progress`."""

    status: Status = Status.PENDING
    import_id: str = ""
    job_id: str = ""
    """A UUID made from the import id; empty before the start."""
    invocation_id: str = ""
    """The engine's name of this run, `inv_1…`: what is cancelled."""
    extract_number: int | None = None
    """As everything below with None: not known before the extract was looked into."""
    extract_type: ExtractType | None = None
    snapshot_date: str | None = None
    """yyyy-mm-dd."""
    step: str | None = None
    """The durable step at work: `download`, `prepare`, `activity-insert-3`, `finalize`, `rollback` …"""
    completed: int = 0
    """Batches done; never decreases, never above `total`."""
    total: int = 0
    current_table: str | None = None
    """`enterprise`, `activity` …: as the file is called."""
    current_operation: Operation | None = None
    current_batch: int | None = None
    """Number within table and operation, from 1."""
    rows_completed: int = 0
    rows_total: int = 0
    rejected_rows: int = 0
    rows_per_second: float | None = None
    """Mean over the batches done, without the time in which nothing ran. None before the first."""
    estimate_s: float | None = None
    """Seconds until the last batch is done at this speed."""
    names_resolved: int | None = None
    """Enterprises of this extract that have a name of their own. Known when completed."""
    error: str | None = None
    """Why it failed, in one line. Also set when cancelled."""

    @property
    def percent(self) -> int:
        """0 to 100, rounded; 100 only when completed."""
        if self.status is Status.COMPLETED:
            return 100
        return min(99, round(100 * self.completed / self.total)) if self.total else 0


class TableResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one import did to one table."""

    table: str
    inserted_rows: int
    closed_rows: int
    """Rows of earlier extracts that this one ended."""
    rejected_rows: int
    current_rows: int
    """What `<table>_current` holds afterwards."""


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the workflow answers when it completed."""

    import_id: str
    job_id: str
    extract_number: int
    extract_type: ExtractType
    snapshot_date: str
    rows: int
    """Inserted rows of all tables."""
    names_resolved: int
    rejected_rows: int
    tables: list[TableResult]
    warnings: list[str]


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `import_jobs`. Times are UTC."""

    import_id: str
    job_id: str
    status: Status
    source: str
    worker_type: str
    sha256: str | None
    extract_number: int | None
    extract_type: ExtractType | None
    snapshot_date: str | None
    completed_batches: int
    total_batches: int
    rows: int
    rejected_rows: int
    names_resolved: int | None
    error: str | None
    warnings: list[str]
    created_at: datetime
    started_at: datetime | None
    """When it was prepared and its batches began."""
    completed_at: datetime | None
    """For all three final states."""

    @property
    def duration_s(self) -> float | None:
        return None if self.completed_at is None else (self.completed_at - self.created_at).total_seconds()


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row that was left out, from `rejected_rows`."""

    import_id: str
    extract_number: int
    file: str
    line: int
    """From 1, the header being line 1."""
    reason: str
    text: str
    """The line, at most 500 characters of it."""


def job_id_of(import_id: str) -> str:
    """SHA-256 of the import id, its first 16 bytes written as a UUID: a run that is repeated finds its own row."""
    return str(uuid.UUID(bytes=hashlib.sha256(import_id.encode()).digest()[:16]))


def check_import_id(import_id: str) -> str:
    """Returns it.

    Raises:
        ValueError: it is not 1 to 128 letters, digits, hyphens and underscores, beginning with a letter or digit.
    """
    if not _IMPORT_ID.fullmatch(import_id):
        raise ValueError(
            f"import id {import_id[:140]!r} must be 1 to 128 letters, digits, '-' and '_', "
            "beginning with a letter or a digit"
        )
    return import_id
