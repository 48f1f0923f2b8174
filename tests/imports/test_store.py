"""The database file: one writer, ours or refused; MotherDuck by its connection string, the token never shown."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

from apps.imports import jobs
from apps.imports.formats import Meta
from apps.imports.model import ImportRequest, job_id_of
from apps.imports.schema import ddl
from apps.imports.settings import InvalidSetting, Settings
from apps.imports.store import Store, StoreInUse, StoreRefused
from tests.support.processes import run_python

TOKEN = "md-t0ken-that-nobody-may-see"  # a made-up one


def settings(folder: Path, **flags: object) -> Settings:
    return Settings.load(environ={}, database=str(folder / "kbo.duckdb"), files=folder / "files", **flags)


async def test_a_file_has_one_writer_and_the_other_is_told_which_process_it_is(tmp_path: Path) -> None:
    async with Store(settings(tmp_path)):
        program = (
            "import asyncio; from pathlib import Path\n"
            "from apps.imports.settings import Settings; from apps.imports.store import Store, StoreInUse\n"
            "settings = Settings.load(environ={}, database='kbo.duckdb')\n"
            "try: asyncio.run(Store(settings).open())\n"
            "except StoreInUse as error: print(error)\n"
        )
        said = await asyncio.to_thread(run_python, program, path=tmp_path)
        assert "is in use by process" in said
        assert "a database file has one writer" in said
        with pytest.raises(StoreInUse):  # in this process as well
            await Store(settings(tmp_path)).open()
    async with Store(settings(tmp_path)) as store:
        assert await store.history() == []


async def test_a_file_that_another_program_has_open_is_in_use(tmp_path: Path) -> None:
    program = f"import duckdb, sys; con = duckdb.connect({str(tmp_path / 'kbo.duckdb')!r}); print(1, flush=True); sys.stdin.read()"
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with await asyncio.to_thread(subprocess.Popen, command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(StoreInUse, match=str(other.pid)):
            await Store(settings(tmp_path)).open()
        other.communicate(timeout=60)


def test_of_two_processes_on_one_motherduck_only_one_gets_to_work(tmp_path: Path) -> None:
    """Two connections stand for the two processes: a file would not let the second one in."""
    meta = Meta(140, "full", date(2025, 10, 5), datetime(2025, 10, 5, 6, 0), "R018")  # noqa: DTZ001 as in the file
    with duckdb.connect() as con, con.cursor() as other:
        con.execute(ddl())
        for import_id in ("a", "b"):
            jobs.begin(con, ImportRequest(source="x.zip", import_id=import_id))
        con.begin()
        other.begin()
        jobs.claim(con, job_id_of("a"), meta, settings(tmp_path))
        with pytest.raises(duckdb.Error, match=r"(?i)conflict"):
            jobs.claim(other, job_id_of("b"), meta, settings(tmp_path))
        other.rollback()
        con.commit()
        with pytest.raises(jobs.Refused, match="import a is preparing"):  # as the engine's repetition finds it
            jobs.claim(other, job_id_of("b"), meta, settings(tmp_path))


async def test_a_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "kbo.duckdb")) as con:
        con.execute("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(StoreRefused, match=r"holds other tables \(theirs\)"):
        await Store(settings(tmp_path)).open()
    with duckdb.connect(str(tmp_path / "kbo.duckdb")) as con:
        assert con.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("theirs",)]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kbo.duckdb").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreRefused, match="cannot open"):
        await Store(settings(tmp_path)).open()


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with Store(settings(tmp_path)):
        pass
    with duckdb.connect(str(tmp_path / "kbo.duckdb")) as con:
        con.execute("UPDATE imports_meta SET schema_version = 99")
    with pytest.raises(StoreRefused, match="schema version 99; this program knows 1"):
        await Store(settings(tmp_path)).open()


async def test_the_questions_of_the_documentation_can_be_asked(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "apps" / "imports" / "data.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    questions = [line for line in block.splitlines() if line]
    async with Store(settings(tmp_path)) as store:
        assert [await store.query(question) for question in questions] == [[], [(0,)], []]


async def test_motherduck_is_opened_by_its_connection_string_and_the_token_is_in_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the error that there is no MotherDuck here: its extension is neither installed nor to be had."""
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"MOTHERDUCK_TOKEN": TOKEN, "MOTHERDUCK_DATABASE": "register"}
    chosen = Settings.load(environ=environ, files=tmp_path)
    assert chosen.database_url == "md:register"
    assert TOKEN not in repr(chosen)
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreRefused, match="cannot open md:register: ") as caught:
        await Store(chosen).open()
    assert TOKEN not in str(caught.value)
    assert TOKEN not in caplog.text
    assert caught.value.__cause__ is None  # the original error may hold it


def test_flags_go_before_the_environment_and_the_environment_before_defaults(tmp_path: Path) -> None:
    environ = {"RESTATE_INGRESS_URL": "http://a:1/", "IMPORTS_BATCH_ROWS": "5", "IMPORTS_FILES": "", "X": "y"}
    loaded = Settings.load(environ=environ, batch_rows=7, ingress_url=None)
    assert (loaded.ingress_url, loaded.batch_rows, loaded.files) == ("http://a:1", 7, Path("imports-data/files"))
    assert loaded.database_url == "imports-data/kbo.duckdb"
    assert not loaded.is_motherduck


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"IMPORTS_BATCH_ROWS": "many"}, "IMPORTS_BATCH_ROWS is 'many'; it must be a number"),
        ({"IMPORTS_BATCH_ROWS": "0"}, "IMPORTS_BATCH_ROWS is 0; it must be at least 1"),
        ({"RESTATE_ADMIN_URL": "localhost:9070"}, "RESTATE_ADMIN_URL is 'localhost:9070'; it must be an http"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(environ=environ)
    assert message in str(caught.value)
