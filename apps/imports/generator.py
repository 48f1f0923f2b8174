"""Extracts in the register's format, made up: as big as wanted, consistent, and the same again for the same seed.

    python -m apps.imports.generator --enterprises 2000 --updates 2 --out extracts

Nothing in them is real; numbers have right check digits, so a made-up number may by chance be somebody's. The profile
is that of real extracts: shares of types, languages and addresses, rows per entity, the same activity repeated per
version of its code. DuckDB does the work: an extract of 1 GB takes about a minute.
"""

# ruff: noqa: S608 the rows' SQL is `generator_sql`'s

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from datetime import date, timedelta
from pathlib import Path
from shutil import copyfileobj
from types import TracebackType
from typing import Self

import duckdb

from apps.imports.formats import META_FILE, TABLES, Table
from apps.imports.generator_sql import CODES, ROWS, SETUP, Changes, changed
from apps.imports.model import ExtractType, Operation

FIRST_DAY = date(2025, 10, 5)
ENTERPRISES_MAX = 4_000_000
_COMPRESSION = 4
_COPY_BYTES = 1 << 20


class Register:
    """A made-up register that moves from extract to extract. A context manager: it keeps its state on disk."""

    def __init__(
        self,
        enterprises: int,
        *,
        seed: int = 1,
        first_extract: int = 140,
        nace_codes: int = 3300,
        directory: Path | None = None,
    ) -> None:
        """
        Args:
            enterprises: How many there are at first; establishments and all rows follow from it.
            first_extract: Number of the first extract.
            nace_codes: How many codes of activities there are per version, at least 10. Most of the code table.
            directory: For temporary files; None takes the system's.
        Raises:
            ValueError: more enterprises than the register has numbers for.
        """
        if not 1 <= enterprises <= ENTERPRISES_MAX:
            raise ValueError(f"enterprises must be from 1 to {ENTERPRISES_MAX}")
        self.extract_number = first_extract
        self.day = FIRST_DAY
        self._scratch = tempfile.TemporaryDirectory(prefix="register-", dir=directory)
        self._con = duckdb.connect(str(Path(self._scratch.name) / "register.duckdb"))
        for name, value in {"seed": seed % 1_000_003, "extract": first_extract, "nace": nace_codes}.items():
            self._con.execute(f"SET VARIABLE {name} = {int(value)}")
        for statement in SETUP:
            self._con.execute(statement)
        self._add(enterprises)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._con.close()
        self._scratch.cleanup()

    def write_full(self, directory: Path) -> Path:
        """A full extract of the register as it is now. Returns the zip's path."""
        return self._write(directory, "full")

    def write_update(self, directory: Path, changes: Changes | None = None) -> Path:
        """Let a day go by, and write what it changed. Returns the zip's path."""
        self.extract_number += 1
        self.day += timedelta(days=1)
        self._con.execute(f"SET VARIABLE extract = {self.extract_number}")
        changes = changes or Changes()
        (before,) = self._con.execute("SELECT count(*) FROM enterprise_state WHERE ended IS NULL").fetchall()[0]
        for statement in changed(changes):
            self._con.execute(statement)
        self._add(round(before * changes.added))
        return self._write(directory, "update")

    def _add(self, count: int) -> None:
        self._con.execute("SET VARIABLE added = $1", [count])
        for statement in ROWS["add"]:
            self._con.execute(statement)

    def _write(self, directory: Path, kind: ExtractType) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        extracted = self.day + timedelta(days=1)
        name = f"KboOpenData_{self.extract_number:04d}_{extracted:%Y_%m_%d}_{kind.capitalize()}.zip"
        path = directory / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
            meta = self._meta(kind, extracted)
            archive.writestr(_member(META_FILE, self.day, len(meta)), meta)
            for table in TABLES:
                for file, operation in table.files(kind).items():
                    self._copy(archive, file, table, operation, kind)
        return path

    def _meta(self, kind: ExtractType, extracted: date) -> bytes:
        rows = {
            "SnapshotDate": f"{self.day:%d-%m-%Y}",
            "ExtractTimestamp": f"{extracted:%d-%m-%Y} 07:40:18",
            "ExtractType": kind,
            "ExtractNumber": str(self.extract_number),
            "Version": "1.0.0",
        }
        return "".join(f'"{a}","{b}"\n' for a, b in [("Variable", "Value"), *rows.items()]).encode()

    def _copy(self, archive: zipfile.ZipFile, file: str, table: Table, operation: Operation, kind: ExtractType) -> None:
        columns = table.columns[:1] if operation == "delete" else table.columns
        if table.name == "code":
            rows = CODES
        else:
            rows = ROWS[f"{table.name}_{operation}"][0 if kind == "update" or operation == "delete" else 1]
        quoted = ", ".join(f'"{column.header}"' for column in columns if column.kind != "date")
        names = ", ".join(f'"{column.header}"' for column in columns)
        scratch = Path(self._scratch.name) / "rows.csv"
        self._con.execute(
            f"""COPY (SELECT * FROM ({rows}) AS made({names})) TO '{scratch}'
            (FORMAT csv, HEADER false, FORCE_QUOTE ({quoted}), DATEFORMAT '%d-%m-%Y')"""
        )
        header = ",".join(f'"{column.header}"' for column in columns)
        with scratch.open("rb") as source:
            size_bytes = len(header) + 1 + scratch.stat().st_size
            with archive.open(_member(file, self.day, size_bytes), "w") as target:
                target.write(f"{header}\n".encode())
                copyfileobj(source, target, _COPY_BYTES)
        scratch.unlink()


def _member(file: str, day: date, size_bytes: int) -> zipfile.ZipInfo:
    """With a fixed time, so that the same extract is the same zip, byte for byte."""
    info = zipfile.ZipInfo(file, (day.year, day.month, day.day, 7, 40, 18))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = size_bytes
    return info


def main() -> int:
    """Entry point: writes a full extract and updates, one line for each."""
    parser = argparse.ArgumentParser(prog="python -m apps.imports.generator", description="Made-up KBO extracts.")
    parser.add_argument("--enterprises", type=int, default=2000, help="970000 make an extract of about 1 GB (2000)")
    parser.add_argument("--updates", type=int, default=1, help="how many updates follow the full extract (1)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same extracts (1)")
    parser.add_argument("--first-extract", type=int, default=140, help="number of the full extract (140)")
    parser.add_argument("--out", type=Path, default=Path("extracts"), help="where the zips go (extracts)")
    arguments = parser.parse_args()
    if not 1 <= arguments.enterprises <= ENTERPRISES_MAX:
        parser.error(f"--enterprises must be from 1 to {ENTERPRISES_MAX}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Register(
        arguments.enterprises, seed=arguments.seed, first_extract=arguments.first_extract, directory=arguments.out
    ) as register:
        sys.stdout.write(f"{register.write_full(arguments.out)}\n")
        for _ in range(arguments.updates):
            sys.stdout.write(f"{register.write_update(arguments.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
