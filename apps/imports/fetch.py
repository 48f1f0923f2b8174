"""Brings a zip to where it is kept: from a web server, an object store or a path. Blocks; runs in a thread.

What was fetched before an interruption is not fetched again: the next attempt asks for the rest, on condition that the
file there is still the same. Beside the zip lies a note of what is known about it; when it says complete, it is.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from apps.imports.files import Interrupted
from apps.imports.object_store import ObjectStore, signed_headers
from apps.imports.settings import Settings

_T = TypeVar("_T")

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_STOP_LOOK_S = 0.1
_REDIRECTS_MAX = 5
_RETRIED_STATUSES = frozenset({408, 425, 429})
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})
"""A path with one of these will not be readable a moment later."""


class NotFetchable(Exception):
    """The file cannot be had, whatever is tried: it is not there, not allowed, or not the one that was meant."""


class FetchFailed(Exception):
    """This attempt failed; another one may succeed, and goes on where this one stopped."""


class Fetched(msgspec.Struct, frozen=True):
    """A complete zip: what the journal holds of it."""

    sha256: str
    size_bytes: int


class _Note(msgspec.Struct, omit_defaults=True):
    """What is known about a stored zip."""

    source: str
    validator: str | None = None
    """ETag or Last-Modified of the file that the stored part belongs to."""
    fetched: Fetched | None = None
    """Set when complete."""


def fetch(
    source: str,
    path: Path,
    *,
    settings: Settings,
    sha256: str | None,
    size_bytes: int | None,
    stop: threading.Event,
) -> Fetched:
    """Bring `source` to `path`, or find it there.

    Args:
        path: Where the zip is to be. `<path>.part` and `<path>.json` belong to it.
        sha256, size_bytes: What it has to be; None takes it as it comes.
    Raises:
        NotFetchable, FetchFailed
        Interrupted: `stop` was set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    note = _read_note(path)
    if note is not None and note.source == source and (kept := note.fetched) is not None:
        # Without a checksum only the source can tell whether it is still the same file.
        is_same = kept.sha256 == sha256 if sha256 else _is_unchanged(source, note, settings, stop)
        if is_same and _is_whole(path, kept):
            return kept
    part = path.with_name(path.name + ".part")
    if note is None or note.source != source or note.fetched is not None:
        part.unlink(missing_ok=True)
        note = _Note(source)
    local = _local_path(source)
    if local is not None:
        _copy(local, part, settings.zip_bytes_max, stop)
    else:
        _until_stopped(_download(source, part, path, note, settings), stop)
    fetched = _verified(part, sha256, size_bytes, stop)
    part.replace(path)
    note.fetched = fetched
    if local is not None:
        note.validator = _file_validator(local)
    _write_note(path, note)
    return fetched


def forget(path: Path) -> None:
    """Remove a stored zip and what belongs to it."""
    for each in (path, path.with_name(path.name + ".part"), _note_path(path)):
        each.unlink(missing_ok=True)


def _local_path(source: str) -> Path | None:
    """None for what is fetched over the network.

    Raises:
        NotFetchable: an address of a kind that nobody here knows, or none at all.
    """
    try:
        scheme = urlsplit(source).scheme.lower()
    except ValueError as error:
        raise NotFetchable(f"the source is no address: {error}") from error
    if scheme in ("http", "https", "s3"):
        return None
    if scheme == "file":
        return Path(unquote(urlsplit(source).path))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise NotFetchable(f"cannot fetch {scheme}:// addresses; give https://, s3://, file:// or a path")
    return Path(source)


def _copy(source: Path, part: Path, bytes_max: int, stop: threading.Event) -> None:
    """A copy, so that the file may be removed meanwhile, and is left alone by us when the import is over."""
    try:
        found = source.stat()
        if stat.S_ISDIR(found.st_mode):
            raise NotFetchable(f"{source} is a directory; give the zip")
        if not stat.S_ISREG(found.st_mode):  # a pipe may never be written to, a device never end
            raise NotFetchable(f"{source} is no regular file; give the zip")
        if found.st_size > bytes_max:
            raise NotFetchable(f"{source} is larger than {bytes_max} bytes (IMPORTS_ZIP_BYTES_MAX)")
        with source.open("rb") as reader, part.open("wb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                if stop.is_set():
                    raise Interrupted
                writer.write(block)
    except ValueError as error:  # a NUL in it
        raise NotFetchable(f"cannot read {str(source)!r}: {error}") from error
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise NotFetchable(f"cannot read {str(source)[:200]}: {error.strerror}") from error


def _until_stopped(work: Coroutine[Any, Any, _T], stop: threading.Event) -> _T:
    """Run it in an event loop of this thread's own: there, also a read from a server that says nothing can be ended."""

    async def run() -> _T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait({task}, timeout=_STOP_LOOK_S)
            if stop.is_set() and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise Interrupted
        return task.result()

    return asyncio.run(run())


async def _download(source: str, part: Path, path: Path, note: _Note, settings: Settings) -> None:
    offset = part.stat().st_size if part.exists() and note.validator else 0
    headers = {"accept-encoding": "identity"}
    if offset and note.validator:
        headers |= {"range": f"bytes={offset}-", "if-range": note.validator}
    try:
        async with _stream(source, headers, settings) as (client, request):
            answer = await client.send(request, stream=True)
            try:
                await _receive(answer, part, path, note, offset, settings.zip_bytes_max)
            finally:
                await answer.aclose()
    except httpx.TooManyRedirects as error:
        raise NotFetchable(f"{_shown(source)} redirects more than {_REDIRECTS_MAX} times") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise NotFetchable(f"{_shown(source)} is no address: {error}") from error
    except httpx.HTTPError as error:
        raise FetchFailed(f"{_shown(source)} does not answer: {str(error) or type(error).__name__}") from error


class _stream:  # noqa: N801 used like a function
    """A client and the request for `source`, signed where it is an object's address."""

    def __init__(self, source: str, headers: dict[str, str], settings: Settings, method: str = "GET") -> None:
        url = source
        if source.lower().startswith("s3://"):
            try:
                url = ObjectStore.from_environment(settings.s3_endpoint, os.environ).url(source)
            except ValueError as error:
                raise NotFetchable(str(error)) from error
            headers = headers | signed_headers(method, url, os.environ)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True, max_redirects=_REDIRECTS_MAX)
        self._request = self._client.build_request(method, url, headers=headers)

    async def __aenter__(self) -> tuple[httpx.AsyncClient, httpx.Request]:
        return self._client, self._request

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


async def _receive(
    answer: httpx.Response,
    part: Path,
    path: Path,
    note: _Note,
    offset: int,
    bytes_max: int,
) -> None:
    status = answer.status_code
    if status == 416:  # what we have is not a beginning of what is there
        part.unlink(missing_ok=True)
        raise FetchFailed(f"{_shown(note.source)} changed while it was fetched; beginning anew")
    if status not in (200, 206):
        text = f"{_shown(note.source)} answered {status}"
        raise FetchFailed(text) if status >= 500 or status in _RETRIED_STATUSES else NotFetchable(text)
    is_rest = status == 206 and answer.headers.get("content-range", "").startswith(f"bytes {offset}-")
    if status == 206 and not is_rest:
        raise FetchFailed(f"{_shown(note.source)} answered with another part than was asked for")
    size = offset if is_rest else 0
    expected = answer.headers.get("content-length")
    total = size + int(expected) if expected and expected.isdigit() else None
    if total is not None and total > bytes_max:
        raise NotFetchable(f"{_shown(note.source)} has {total} bytes; at most {bytes_max} (IMPORTS_ZIP_BYTES_MAX)")
    note.validator = _validator(answer.headers)
    _write_note(path, note)
    with part.open("ab" if is_rest else "wb") as file:
        async for block in answer.aiter_raw(_BLOCK_BYTES):
            size += len(block)
            if size > bytes_max:
                raise NotFetchable(f"{_shown(note.source)} sends more than {bytes_max} bytes (IMPORTS_ZIP_BYTES_MAX)")
            file.write(block)
    if total is not None and size != total:
        raise FetchFailed(f"{_shown(note.source)} ended after {size} of {total} bytes")


def _verified(part: Path, sha256: str | None, size_bytes: int | None, stop: threading.Event) -> Fetched:
    digest, size = hashlib.sha256(), 0
    for block in _blocks(part):
        if stop.is_set():
            raise Interrupted
        digest.update(block)
        size += len(block)
    fetched = Fetched(digest.hexdigest(), size)
    wrong = ""
    if size_bytes is not None and size != size_bytes:
        wrong = f"the file has {size} bytes, not {size_bytes}"
    elif sha256 is not None and fetched.sha256 != sha256.lower():
        wrong = f"the file's SHA-256 is {fetched.sha256}, not {sha256.lower()}"
    if wrong:
        part.unlink()
        raise NotFetchable(wrong)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    return fetched


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _is_whole(path: Path, fetched: Fetched) -> bool:
    return path.exists() and path.stat().st_size == fetched.size_bytes


def _is_unchanged(source: str, note: _Note, settings: Settings, stop: threading.Event) -> bool:
    """Whether the file at `source` is still the one that is kept. Unreachable counts as unchanged: we have it."""
    local = _local_path(source)
    if local is not None:
        return not local.exists() or _file_validator(local) == note.validator

    async def ask() -> httpx.Response:
        async with _stream(source, {}, settings, "HEAD") as (client, request):
            return await client.send(request)

    try:
        answer = _until_stopped(ask(), stop)
    except httpx.HTTPError:
        return True
    return not answer.is_success or _validator(answer.headers) == note.validator


def _file_validator(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def _validator(headers: httpx.Headers) -> str | None:
    """A strong ETag, or the date. A weak one does not promise the same bytes."""
    etag = headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified")


def _shown(source: str) -> str:
    """Without user, password and query: presigned addresses hold secrets."""
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or parts.netloc}{parts.path}"[:200]


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_note(path: Path) -> _Note | None:
    try:
        return msgspec.json.decode(_note_path(path).read_bytes(), type=_Note)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_note(path: Path, note: _Note) -> None:
    temporary = path.with_name(path.name + ".json.new")
    temporary.write_bytes(msgspec.json.encode(note))
    temporary.replace(_note_path(path))
