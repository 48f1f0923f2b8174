"""Which line of a batch's file a row stands in. Only asked when a batch has bad rows, so a loop over lines will do.

DuckDB's reader says which *record* it rejected, and numbers the rows that it took. A record is a line, except that a
quoted value may hold line ends, that empty lines count as records but give no row, and that a quote which is never
closed swallows the lines up to the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TEXT_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is left out. `line` counts from 1 within the batch's file."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that the CSV reader rejected."""

    record: int
    """From 1."""
    reason: str
    line_count: int
    """How many lines it took."""
    is_unterminated: bool
    """A quote was never closed: the further lines are no part of the value, but lost with it."""


@dataclass(frozen=True, slots=True)
class Record:
    number: int
    row: int | None
    """Which of the rows that were taken, from 0; None if none was."""
    line: int
    lines: list[bytes]


def records(lines: Iterable[bytes], unreadable: dict[int, Unreadable], *, has_one_column: bool) -> Iterator[Record]:
    """The records of a file as DuckDB's reader counts them.

    Args:
        lines: Of the file, with their ends.
        unreadable: By record number.
        has_one_column: Then an empty line is a row.
    """
    source = enumerate(lines, 1)
    number = row = 0
    for line_number, line in source:
        number += 1
        taken = [line]
        if (bad := unreadable.get(number)) is not None:
            for _ in range(bad.line_count - 1):
                taken.append(next(source, (0, b""))[1])
            yield Record(number, None, line_number, taken)
            continue
        if line == b"\n" and not has_one_column:
            yield Record(number, None, line_number, taken)
            continue
        quotes = line.count(b'"')
        while quotes % 2 and (following := next(source, None)) is not None:
            taken.append(following[1])
            quotes += following[1].count(b'"')
        yield Record(number, row, line_number, taken)
        row += 1


def located(
    lines: Iterable[bytes], unreadable: dict[int, Unreadable], bad_rows: dict[int, str], *, has_one_column: bool
) -> Iterator[Reject]:
    """Every row of the file that is left out, with its line.

    Args:
        bad_rows: Row number, from 0 among those taken -> why it is left out after all.
    """
    for record in records(lines, unreadable, has_one_column=has_one_column):
        if (bad := unreadable.get(record.number)) is not None:
            yield Reject(record.line, bad.reason, _text(record.lines[:1] if bad.is_unterminated else record.lines))
            if bad.is_unterminated:
                for further, line in enumerate(record.lines[1:], record.line + 1):
                    yield Reject(further, "lost with the row above, in which a quote is not closed", _text([line]))
        elif record.row is None:
            yield Reject(record.line, "the line is empty", "")
        elif record.row in bad_rows:
            yield Reject(record.line, bad_rows[record.row], _text(record.lines))


def _text(lines: list[bytes]) -> str:
    return b"".join(lines).decode(errors="replace").rstrip("\n")[:TEXT_CHARS_MAX]
