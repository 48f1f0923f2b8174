"""What the database must hold, computed from the zips by other means: Python's csv reader, dictionaries, no SQL.

Slow and simple on purpose. The demo, the crash tests and whoever doubts an import compare with it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from apps.imports.formats import NAME_LANGUAGES, NAME_TYPE, TABLES, Table
from apps.imports.store import Store

Row = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Of a set of rows, in any order."""

    count: int
    checksum: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Fingerprint:
        count = total = 0
        for row in rows:
            text = "\x1f".join("\\N" if value is None else value for value in row)
            total += int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "big")
            count += 1
        return cls(count, total % (1 << 64))


class Expected:
    """The register's state after the extracts that were applied."""

    def __init__(self) -> None:
        self.extract_number = 0
        self._tables: dict[str, dict[str, list[Row]]] = {table.name: {} for table in TABLES}

    def apply(self, zip_path: Path) -> None:
        """Apply one extract without bad rows."""
        with zipfile.ZipFile(zip_path) as archive:
            meta = {row[0]: row[1] for row in _read(archive, "meta.csv")}
            self.extract_number = int(meta["ExtractNumber"] or 0)
            is_full = meta["ExtractType"] == "full"
            for table in TABLES:
                rows = self._tables[table.name]
                if is_full or not table.has_deletes:
                    rows.clear()
                for file, operation in table.files("full" if is_full else "update").items():
                    if operation == "delete":
                        for (key,) in _read(archive, file):
                            rows.pop(key or "", None)
                    else:
                        for row in _read(archive, file, table):
                            rows.setdefault(row[0] or "", []).append(row)

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, with dates as yyyy-mm-dd."""
        return [row for rows in self._tables[table].values() for row in rows]

    def names(self) -> list[Row]:
        """Number, name and the name's language of every enterprise."""
        return [(number, *self._name(number)) for number in self._tables["enterprise"]]

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Of every table, and of the names."""
        found = {table.name: Fingerprint.of(self.rows(table.name)) for table in TABLES}
        return found | {"names": Fingerprint.of(self.names())}

    def _name(self, number: str) -> tuple[str, str | None]:
        of_type = [row for row in self._tables["denomination"].get(number, []) if row[2] == NAME_TYPE and row[3]]
        for language in NAME_LANGUAGES:
            # Two names in one language: the lesser by its bytes, as the database has it.
            names = sorted((row[3] or "" for row in of_type if row[1] == language), key=str.encode)
            if names:
                return names[0], language
        return number, None


async def actual(store: Store, *, at_extract: int | None = None) -> dict[str, Fingerprint]:
    """Fingerprints of what readers of `store` see, now or at an earlier extract."""
    found: dict[str, Fingerprint] = {}
    for table in TABLES:
        found[table.name] = await _of(store, table.target, ", ".join(table.column_names), at_extract)
    names = "enterprise_number, primary_name, primary_name_language"
    return found | {"names": await _of(store, "enterprises", names, at_extract)}


def differences(expected: dict[str, Fingerprint], found: dict[str, Fingerprint]) -> list[str]:
    """One line for each table that is not as it should be."""
    lines: list[str] = []
    for name, want in expected.items():
        have = found[name]
        if want.count != have.count:
            lines.append(f"{name}: {have.count} rows, expected {want.count}")
        elif want != have:
            lines.append(f"{name}: {have.count} rows as expected, but with another content")
    return lines


async def _of(store: Store, target: str, columns: str, at_extract: int | None) -> Fingerprint:
    source = f"{target}_current" if at_extract is None else f"{target}_at({int(at_extract)})"
    rows = await store.query(f"SELECT {columns} FROM {source}")  # noqa: S608 names of our own tables
    return Fingerprint.of(tuple(_text(value) for value in row) for row in rows)


def _text(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, date) else value


def _read(archive: zipfile.ZipFile, file: str, table: Table | None = None) -> list[tuple[str | None, ...]]:
    """Rows without the header. `""` and nothing are told apart by asking the line: Python's reader does not."""
    text = archive.read(file).decode()
    rows = list(csv.reader(io.StringIO(text)))[1:]
    empties = _known_empty(text)
    dates = [] if table is None else [place for place, column in enumerate(table.columns) if column.kind == "date"]
    result: list[tuple[str | None, ...]] = []
    for number, row in enumerate(rows):
        values = [value if value or (number, place) in empties else None for place, value in enumerate(row)]
        for place in dates:
            if (value := values[place]) is not None:
                values[place] = f"{value[6:]}-{value[3:5]}-{value[:2]}"
        result.append(tuple(values))
    return result


def _known_empty(text: str) -> set[tuple[int, int]]:
    """(row, column) of values written as two quotes with nothing between."""
    found: set[tuple[int, int]] = set()
    for number, line in enumerate(text.split("\n")[1:]):
        if '""' not in line:
            continue
        place, inside, field = 0, False, ""
        for letter in f"{line},":
            if letter == "," and not inside:
                if field == '""':
                    found.add((number, place))
                place, field = place + 1, ""
                continue
            inside ^= letter == '"'
            field += letter
    return found
