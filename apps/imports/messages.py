"""What goes over HTTP: bodies of requests and answers, and the rules of a start request. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from apps.imports.model import HistoryEntry, ImportRequest, RejectedRow, TableResult, WorkerType, check_import_id

ENTRIES = 50
ENTRIES_MAX = 500

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EXTRACT_NAME = re.compile(r"KboOpenData_(\d{1,6})_")


class BadRequest(Exception):
    """The request cannot be understood; the text says what is wrong with it."""


class StartBody(msgspec.Struct, frozen=True):
    """Body of a start. Each field in camelCase, or as in the rest of the API."""

    fileUrl: str = ""  # noqa: N815 the names of the API that this one replaces
    source: str = ""
    workflowId: str = ""  # noqa: N815
    import_id: str = ""
    sha256: str | None = None
    size_bytes: int | None = None
    worker_type: WorkerType = "local"


def import_id_of(source: str) -> str | None:
    """The id that an extract's file name makes, `import-<extract number>`; None if there is no number in it."""
    named = _EXTRACT_NAME.search(source.rsplit("/", 1)[-1])
    return None if named is None else f"import-{int(named[1])}"


class Start(msgspec.Struct, frozen=True):
    """A start request, checked."""

    request: ImportRequest
    is_id_given: bool
    """If not, the id is made from the file's name."""


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every error."""

    error: str
    message: str
    status: str | None = None


class CancelAnswer(msgspec.Struct, frozen=True):
    """Answer to a cancel. It is over when the progress says `cancelled`."""

    workflow_id: str
    status: str


class Health(msgspec.Struct, frozen=True):
    """The store answers. `engine` is `up` or `away`: then imports wait, and go on by themselves."""

    status: str
    engine: str


class Accepted(msgspec.Struct, frozen=True):
    """Answer to a start."""

    workflow_id: str
    status: str
    job_id: str
    invocation_id: str
    progress_url: str
    page_url: str


class HistoryPage(msgspec.Struct, frozen=True):
    """Some imports, newest first."""

    imports: list[HistoryEntry]
    next_cursor: str | None
    """For the next older ones; null at the end."""


class Outcome(msgspec.Struct, frozen=True):
    """One import as it is recorded."""

    job: HistoryEntry
    tables: list[TableResult]
    """What it did to each table; empty before it is completed."""
    rejected: list[RejectedRow]
    """The first of the rows that were left out."""


class Away(msgspec.Struct, frozen=True):
    """Event: the engine does not answer; it is asked again."""

    message: str


def shown_source(source: str) -> str:
    """Where a file came from, for people: without user, password and query, which may be keys to it."""
    if "://" not in source:
        return source
    try:
        parts = urlsplit(source)
    except ValueError:  # no address at all; who asks the engine directly can begin such a one
        return f"{source.partition('://')[0]}://…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def parse_start(body: bytes) -> Start:
    """The body of a start, checked.

    Raises:
        BadRequest
    """
    try:
        given = msgspec.json.decode(body, type=StartBody)
    except msgspec.DecodeError as error:  # a validation error is one as well
        raise BadRequest(f"the body is not a start request: {error}") from error
    source = _one_of("fileUrl", given.fileUrl, "source", given.source).strip()
    if not source:
        raise BadRequest("fileUrl is missing: the address or path of the zip")
    try:
        urlsplit(source)
    except ValueError as error:
        raise BadRequest(f"fileUrl is no address: {error}") from error
    import_id = _one_of("workflowId", given.workflowId, "import_id", given.import_id)
    is_id_given = bool(import_id)
    import_id = import_id or import_id_of(source) or ""
    if not import_id:
        raise BadRequest("workflowId is missing, and the file's name has no extract number to make one from")
    if given.sha256 is not None and not _SHA256.fullmatch(given.sha256):
        raise BadRequest("sha256 must be 64 hexadecimal digits")
    if given.size_bytes is not None and given.size_bytes < 0:
        raise BadRequest("size_bytes must not be negative")
    try:
        check_import_id(import_id)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    request = ImportRequest(
        source=source,
        import_id=import_id,
        sha256=None if given.sha256 is None else given.sha256.lower(),
        size_bytes=given.size_bytes,
        worker_type=given.worker_type,
    )
    return Start(request, is_id_given)


def _one_of(first_name: str, first: str, second_name: str, second: str) -> str:
    if first and second and first != second:
        raise BadRequest(f"{first_name} and {second_name} are the same thing; give one of them")
    return first or second
