"""The zip of an extract: looked into without trust, unpacked, and cut into one file per batch.

A zip comes from outside. Only members with an expected name are read, each as a stream that is counted: nothing is
written under a name from the zip, and no number in it is believed.

A batch ends before a line that begins a row, never inside a quoted value. What a row holds is not looked at here: that
is DuckDB's CSV reader's work, batch by batch.
"""

from __future__ import annotations

import csv
import io
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from apps.imports.formats import META_FILE, TABLES, BrokenExtract, Meta, Table, parse_meta
from apps.imports.model import Operation

_BLOCK_BYTES = 1 << 20
_SMALL_BLOCK_BYTES = 1 << 14
_LINE_BYTES_MAX = 1 << 21
"""As in DuckDB's reader, which rejects longer ones; beyond, a file has no lines at all."""
_META_BYTES_MAX = 1 << 16
_MEMBERS_MAX = 64
_RATIO_MAX = 200
"""Real extracts are compressed to about a tenth."""
_RATIO_COUNTS_FROM_BYTES = 100 << 20

# A quote after a line end, followed by text: no quoted value can hold this, because a quote inside is doubled.
_ROW_START = re.compile(rb'\n(?="[^",\r\n])')


class Interrupted(Exception):
    """The work was asked to stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    unzipped_bytes_max: int
    batch_rows: int
    delete_batch_rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, and the file it lies in: `path(directory)`."""

    table: str
    operation: Operation
    number: int
    """From 1, per table and operation."""
    first_line: int
    """Where it begins in its file; the header is line 1."""
    line_count: int
    byte_count: int

    @property
    def name(self) -> str:
        return f"{self.table}-{self.operation}-{self.number}"

    def path(self, directory: Path) -> Path:
        return directory / f"{self.name}.csv"


class Extract:
    """A zip on disk that was looked into. Close it, or use it as a context manager."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Checks the list of members, not their contents.

        Raises:
            BrokenExtract: no zip, or one that must not be unpacked, or files are missing.
        """
        self._path = path
        self._limits = limits
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, OSError) as error:
            raise BrokenExtract(f"the file is not a zip that can be read: {error}") from error
        try:
            self._members = _checked_members(self._zip, limits)
            if META_FILE not in self._members:
                raise BrokenExtract(f"{META_FILE} is missing in the zip")
            self.meta: Meta = parse_meta(self._read_meta())
            expected: dict[str, tuple[Table, Operation]] = {
                name: (table, operation)
                for table in TABLES
                for name, operation in table.files(self.meta.extract_type).items()
            }
            if missing := [name for name in expected if name not in self._members]:
                raise BrokenExtract(f"{missing[0]} is missing in the zip of this {self.meta.extract_type} extract")
            self._files = expected
            self.ignored = sorted(set(self._members) - set(expected) - {META_FILE})
            """Members that no extract of this type has."""
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Extract:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()

    @property
    def unzipped_bytes(self) -> int:
        """As the zip says, of the files that are unpacked."""
        return sum(self._members[name].file_size for name in self._files)

    def stage(self, directory: Path, stop: threading.Event) -> list[Batch]:
        """Unpack into `directory`, one file per batch without a header, in the order in which they are to be applied.

        The same zip and limits give the same batches.

        Raises:
            BrokenExtract: a file is not what it should be.
            Interrupted: `stop` was set.
        """
        largest_first = sorted(self._files, key=lambda name: -self._members[name].file_size)
        budget = _Budget(self._limits.unzipped_bytes_max)
        with ThreadPoolExecutor(2, "stage") as pool:  # zlib and the disk work outside the interpreter's lock
            futures = {name: pool.submit(self._stage_file, name, directory, budget, stop) for name in largest_first}
        by_file = {name: future.result() for name, future in futures.items()}
        return [batch for name in self._files for batch in by_file[name]]

    def _stage_file(self, name: str, directory: Path, budget: _Budget, stop: threading.Event) -> list[Batch]:
        table, operation = self._files[name]
        try:
            with (
                zipfile.ZipFile(self._path) as own,
                own.open(self._members[name]) as stream,
                ThreadPoolExecutor(1, "unzip") as reader,
            ):
                cutter = _Cutter(name, table, operation, directory, self._rows(table, operation))
                blocks = budget.counted(name, stream, self._members[name].file_size, stop)
                return cutter.cut(_ahead(blocks, reader))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise BrokenExtract(f"{name}: cannot be unpacked: {error}") from error

    def _rows(self, table: Table, operation: Operation) -> int:
        if not table.has_deletes:
            return 1 << 40  # compared as a whole with what is there: must not be cut
        return self._limits.delete_batch_rows if operation == "delete" else self._limits.batch_rows

    def _read_meta(self) -> list[list[str]]:
        try:
            with self._zip.open(self._members[META_FILE]) as stream:
                data = stream.read(_META_BYTES_MAX)
            return [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, csv.Error) as error:
            raise BrokenExtract(f"{META_FILE}: cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise BrokenExtract(f"{META_FILE}: is not UTF-8") from error


def _checked_members(archive: zipfile.ZipFile, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MEMBERS_MAX:
        raise BrokenExtract(f"the zip has {len(infos)} members; an extract has about 16")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        if name in members:
            raise BrokenExtract(f"the zip has two members named {name[:80]!r}")
        if "/" in name or "\\" in name or "\0" in name or name in ("", ".", "..") or info.is_dir():
            raise BrokenExtract(f"the zip has a member {name[:80]!r}; files of an extract lie at the top level")
        if (mode := info.external_attr >> 16) and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BrokenExtract(f"the zip's member {name[:80]!r} is a link or a device, not a file")
        if info.flag_bits & 0x1:
            raise BrokenExtract(f"the zip's member {name[:80]!r} is encrypted")
        if info.file_size > _RATIO_COUNTS_FROM_BYTES and info.file_size > _RATIO_MAX * max(1, info.compress_size):
            raise BrokenExtract(f"the zip's member {name[:80]!r} would be more than {_RATIO_MAX} times its size")
        members[name] = info
    total = sum(info.file_size for info in infos)
    if total > limits.unzipped_bytes_max:
        raise BrokenExtract(f"the zip would unpack to {total} bytes; at most {limits.unzipped_bytes_max} are allowed")
    return members


def _ahead(blocks: Iterator[bytes], reader: ThreadPoolExecutor) -> Iterator[bytes]:
    """The same blocks, the next one being unpacked while one is cut and written: one file is most of an extract."""
    coming = reader.submit(next, blocks, None)
    while (block := coming.result()) is not None:
        coming = reader.submit(next, blocks, None)
        yield block


class _Budget:
    """Counts what really comes out of the zip, over all files."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._lock = threading.Lock()

    def counted(self, name: str, stream: IO[bytes], declared: int, stop: threading.Event) -> Iterator[bytes]:
        """Blocks of `stream`, as long as they are what the zip says and within the limit."""
        read = 0
        block_bytes = _BLOCK_BYTES if declared > _BLOCK_BYTES else _SMALL_BLOCK_BYTES
        while block := stream.read(block_bytes):
            if stop.is_set():
                raise Interrupted
            read += len(block)
            with self._lock:
                self._left -= len(block)
                too_much = self._left < 0
            if too_much or read > declared:
                raise BrokenExtract(f"{name}: unpacks to more than the zip says or the limit allows")
            yield block


class _Cutter:
    """Cuts one file into batches of `rows` rows; more only where values with line ends are in the way."""

    def __init__(self, name: str, table: Table, operation: Operation, directory: Path, rows: int) -> None:
        self._name = name
        self._header = table.header(operation)
        self._table = table.name
        self._operation: Operation = operation
        self._directory = directory
        self._rows = rows
        self._batches: list[Batch] = []
        self._out: IO[bytes] | None = None
        self._lines = 0
        self._bytes = 0
        self._next_line = 2

    def cut(self, blocks: Iterator[bytes]) -> list[Batch]:
        try:
            rest = self._after_header(blocks)
            for block in blocks:
                data = rest + block
                end = data.rfind(b"\n") + 1
                rest = data[end:]
                if len(rest) > _LINE_BYTES_MAX:
                    line = self._next_line + self._lines + data.count(b"\n")
                    raise BrokenExtract(f"{self._name} line {line}: is longer than {_LINE_BYTES_MAX} bytes")
                if end:
                    self._take(data[:end])
            if rest:
                self._take(self._last_line(rest))
            self._finish()
        finally:
            if self._out is not None:
                self._out.close()
        return self._batches

    def _after_header(self, blocks: Iterator[bytes]) -> bytes:
        """Checks the first line; writes the rest of its block and returns what is left of an unfinished line."""
        data = b""
        while b"\n" not in data and len(data) <= _META_BYTES_MAX:
            block = next(blocks, None)
            if block is None:
                break
            data += block
        header, _, data = data.partition(b"\n")
        if header.endswith(b"\r"):
            raise BrokenExtract(f"{self._name} line 1: lines end with CR LF; in this format they end with LF")
        try:
            found = next(csv.reader([header.decode("utf-8-sig")]), [])
        except (UnicodeDecodeError, csv.Error):
            found = []
        if found != self._header:
            raise BrokenExtract(
                f"{self._name} line 1: the header is {header[:200].decode(errors='replace')!r}, "
                f"expected {','.join(self._header)}"
            )
        end = data.rfind(b"\n") + 1
        if end:
            self._take(data[:end])
        return data[end:]

    def _last_line(self, rest: bytes) -> bytes:
        """A last line without an end is taken if it is certainly whole: its last value is quoted to the end."""
        try:
            fields = next(csv.reader([rest.decode()]))
            whole = rest.endswith(b'"') and rest.count(b'"') % 2 == 0 and len(fields) == len(self._header)
        except (UnicodeDecodeError, csv.Error):
            whole = False
        if not whole:
            line = self._next_line + self._lines
            raise BrokenExtract(f"{self._name} line {line}: the file ends in the middle of a row")
        return rest + b"\n"

    def _take(self, data: bytes) -> None:
        """`data`: whole lines."""
        while (lines := data.count(b"\n")) + self._lines >= self._rows:
            at = self._cut_at(data)
            if at is None:
                break
            self._write(data[:at], data.count(b"\n", 0, at))
            self._finish()
            data = data[at:]
        if data:
            self._write(data, lines)

    def _cut_at(self, data: bytes) -> int | None:
        """Where in `data` the batch is full and a row begins; None if that cannot be seen in there."""
        position = -1
        for _ in range(self._rows - self._lines):
            position = data.index(b"\n", position + 1)
        row = _ROW_START.search(data, max(position, 0))
        return None if row is None else row.start() + 1

    def _write(self, data: bytes, lines: int) -> None:
        if self._out is None:
            self._out = self._current(0).path(self._directory).open("wb")
        self._out.write(data)
        self._lines += lines
        self._bytes += len(data)

    def _current(self, byte_count: int) -> Batch:
        number = len(self._batches) + 1
        return Batch(self._table, self._operation, number, self._next_line, self._lines, byte_count)

    def _finish(self) -> None:
        if self._out is None:
            return
        self._out.close()
        self._out = None
        self._batches.append(self._current(self._bytes))
        self._next_line += self._lines
        self._lines = self._bytes = 0
