"""How fast an import is, beside loading the same files by hand with plain DuckDB.

    python -m apps.imports.figures --enterprises 970000     # about 1 GB; needs 6 GB of disk and a few minutes

Each way runs in a process of its own, from the zip on disk to a closed database. By hand means: unzip, one table per
file with the same types, `INSERT ... FROM read_csv`, and nothing else: no checks of rows, no batches, no names, no way
back. The same tables means: by hand into the tables of an import, the columns of the extract and the names included.
Processor time is printed beside the time on the clock: on a busy machine only the former says something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from apps.imports.app import create_app
from apps.imports.batches import Target
from apps.imports.finalize import finalize
from apps.imports.formats import TABLES, Table
from apps.imports.generator import Register
from apps.imports.model import SERVICE, ImportRequest
from apps.imports.schema import ddl
from apps.imports.settings import Settings
from apps.imports.store import Store
from holdfast import Engine

MEMORY_MB = 2048


def by_hand(zip_path: Path, folder: Path, memory_mb: int) -> dict[str, Any]:
    """Unzip and load, table after table."""
    with zipfile.ZipFile(zip_path) as archive:
        archive.extractall(folder)
    config: dict[str, Any] = {"memory_limit": f"{memory_mb}MiB"}
    rows = 0
    with duckdb.connect(str(folder / "kbo.duckdb"), config=config) as con:
        for table in TABLES:
            types = {column.name: column.sql_type for column in table.columns}
            columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
            con.execute(f"CREATE TABLE {table.target} ({columns})")
            rows += con.execute(f"INSERT INTO {table.target} SELECT * FROM {_csv(folder, table)}").fetchall()[0][0]  # noqa: S608 our own names
    return {"rows": rows}


def same_tables(zip_path: Path, folder: Path, memory_mb: int) -> dict[str, Any]:
    """By hand, and what is in the database afterwards is what an import leaves."""
    with zipfile.ZipFile(zip_path) as archive:
        archive.extractall(folder)
    target = Target(140, "full", "2025-10-05", 140)
    rows = 0
    with duckdb.connect(str(folder / "kbo.duckdb"), config={"memory_limit": f"{memory_mb}MiB"}) as con:
        con.execute(ddl())
        for table in TABLES:
            rows += con.execute(
                f"""INSERT INTO {table.target} BY NAME SELECT *, DATE '{target.snapshot_date}' AS snapshot_date,
                {target.extract_number} AS extract_number FROM {_csv(folder, table)}"""  # noqa: S608 our own names
            ).fetchall()[0][0]
        finalize(con, target)
    return {"rows": rows}


def _csv(folder: Path, table: Table) -> str:
    types = {column.name: column.sql_type for column in table.columns}
    return f"""read_csv('{folder}/{table.name}.csv', columns = {types}, header = true, auto_detect = false, delim = ',',
        quote = '"', escape = '"', nullstr = '', allow_quoted_nulls = false, dateformat = '%d-%m-%Y')"""


def by_import(zip_path: Path, folder: Path, memory_mb: int) -> dict[str, Any]:
    """The workflow on the embedded engine, as it comes."""
    return asyncio.run(_import(zip_path, folder, memory_mb))


async def _import(zip_path: Path, folder: Path, memory_mb: int) -> dict[str, Any]:
    settings = Settings.load(
        environ={}, database=str(folder / "kbo.duckdb"), files=folder / "files", memory_limit_mb=memory_mb
    )
    async with Store(settings) as store, Engine(create_app(store, settings), db=folder / "engine.db") as engine:
        result = await engine.client.generic_call(
            SERVICE,
            "run",
            msgspec.json.encode(ImportRequest(source=str(zip_path))),
            key="figures",
            headers={"Content-Type": "application/json"},
        )
        job = await store.job("figures")
        steps = await store.query("SELECT sum(elapsed_s), count(*), max(elapsed_s) FROM import_job_batches")
    assert job is not None
    decoded = json.loads(result)
    in_batches_s, batch_count, longest_s = steps[0]
    return {
        "rows": decoded["rows"],
        "batches": batch_count,
        "batches_s": in_batches_s,
        "longest_batch_s": longest_s,
        "journal_bytes": (folder / "engine.db").stat().st_size,
    }


WAYS: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {
    "by hand": by_hand,
    "the same tables": same_tables,
    "imports": by_import,
}


def measured(way: str, zip_path: Path, scratch: Path, memory_mb: int) -> dict[str, Any]:
    """Run one way in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="figures-", dir=scratch) as folder:
        command = [sys.executable, "-m", "apps.imports.figures", "--way", way, "--zip", str(zip_path), "--in", folder]
        command += ["--memory-mb", str(memory_mb)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 ourselves
        if done.returncode:
            raise SystemExit(f"{way} failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout)


def _child(way: str, zip_path: Path, folder: Path, memory_mb: int) -> None:
    began_s = time.perf_counter()
    found = WAYS[way](zip_path, folder, memory_mb)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "wall_s": time.perf_counter() - began_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss / 1024,
        "database_mb": (folder / "kbo.duckdb").stat().st_size / 1e6,
    }
    sys.stdout.write(json.dumps(found))


def _table(measurements: list[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = [
        "| Way | clock s | processor s | rows/s on the clock | rows per processor s | memory MB | database MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, each in measurements:
        rows = each["rows"]
        lines.append(
            f"| {way} | {each['wall_s']:.1f} | {each['cpu_s']:.1f} | {rows / each['wall_s']:,.0f} "
            f"| {rows / each['cpu_s']:,.0f} | {each['memory_mb']:.0f} | {each['database_mb']:.0f} |"
        )
    return lines


def main() -> int:
    """Entry point: generates, measures, prints Markdown."""
    parser = argparse.ArgumentParser(prog="python -m apps.imports.figures", description=__doc__)
    parser.add_argument("--enterprises", type=int, default=970_000, help="970000 is about 1 GB (970000)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each way runs, in turns (1)")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help=f"DuckDB's limit ({MEMORY_MB})")
    parser.add_argument("--scratch", type=Path, default=None, help="where the files go (the system's place)")
    parser.add_argument("--zip", type=Path, default=None, help="a full extract that is there already")
    parser.add_argument("--way", choices=[*WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        _child(arguments.way, arguments.zip, arguments.folder, arguments.memory_mb)
        return 0
    with tempfile.TemporaryDirectory(prefix="figures-", dir=arguments.scratch) as scratch:
        zip_path = arguments.zip
        if zip_path is None:
            began_s = time.perf_counter()
            with Register(arguments.enterprises, directory=Path(scratch)) as register:
                zip_path = register.write_full(Path(scratch))
            sys.stdout.write(f"generated in {time.perf_counter() - began_s:.0f} s\n")
        with zipfile.ZipFile(zip_path) as archive:
            unzipped = sum(info.file_size for info in archive.infolist())
        sys.stdout.write(f"{unzipped / 1e9:.2f} GB in files, {zip_path.stat().st_size / 1e6:.0f} MB zipped\n")
        load = os.getloadavg()[0]
        sys.stdout.write(
            f"{os.cpu_count()} processors, load {load:.1f} before, DuckDB {duckdb.__version__}, memory limit {arguments.memory_mb} MB\n\n"
        )
        found = [
            (way, measured(way, zip_path, Path(scratch), arguments.memory_mb))
            for _ in range(arguments.rounds)
            for way in WAYS
        ]
    sys.stdout.write("\n".join(_table(found)) + "\n\n")
    best = {way: min(each["cpu_s"] for name, each in found if name == way) for way in WAYS}
    clock = {way: min(each["wall_s"] for name, each in found if name == way) for way in WAYS}
    for way in ("by hand", "the same tables"):
        ratios = (
            f"{clock['imports'] / clock[way]:.2f} on the clock and {best['imports'] / best[way]:.2f} in processor time"
        )
        sys.stdout.write(f"imports takes {ratios} of what loading takes: {way}\n")
    details = next(each for way, each in reversed(found) if way == "imports")
    sys.stdout.write(
        f"{details['batches']} batches, {details['batches_s']:.1f} s in them, the longest {details['longest_batch_s']:.1f} s; "
        f"the engine's journal: {details['journal_bytes'] / 1e3:.0f} kB\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
