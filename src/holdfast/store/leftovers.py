"""What a crash or a power failure leaves beside a database file, read without SQLite and without changing anything.

Formats: sqlite.org/fileformat2.html, sections 1.3 (header), 3 (rollback journal) and 4 (write-ahead log).
"""

from __future__ import annotations

from pathlib import Path

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


def companions(path: Path) -> list[Path]:
    """Log and rollback journal, as far as they are there and have something in them."""
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
    return [file for file in beside if file.exists() and file.stat().st_size > 0]


def header(path: Path) -> bytes:
    """The database's header as SQLite will see it: that of the log when it has one, which is newer.

    In the file itself it may be old, new, or torn in two when power failed while it was written. Empty means that there
    is no database yet: an empty file, or one whose very first write was cut off.
    """
    for file in companions(path):
        if file.name.endswith("-journal") and _was_empty_before(file):
            return b""
        if file.name.endswith("-wal") and (logged := _header_in_log(file)):
            return logged
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


def _was_empty_before(journal: Path) -> bool:
    with journal.open("rb") as file:
        start = file.read(20)
    return start[:8] == _JOURNAL_MAGIC and start[16:20] == bytes(4)  # the size to go back to: no page


def _header_in_log(log: Path) -> bytes:
    """Of the last frame with the first page; empty if there is none."""
    found = b""
    with log.open("rb") as file:
        start = file.read(_LOG_HEADER_BYTES)
        if int.from_bytes(start[:4], "big") not in _LOG_MAGIC:
            return b""
        page_bytes, salts = int.from_bytes(start[8:12], "big"), start[16:24]
        while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES and frame[8:16] == salts:
            if int.from_bytes(frame[:4], "big") == 1:
                page = file.read(page_bytes)
                found = page[:HEADER_BYTES] if page.startswith(MAGIC) else found
            else:
                file.seek(page_bytes, 1)
    return found
