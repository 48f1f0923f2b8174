"""Bad rows are left out one by one, each with its file, line and reason; a broken file leaves nothing behind."""

from __future__ import annotations

import csv
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from apps.imports.batches import Applied, NeedsCare, Target, apply_batch, may_go_at_once
from apps.imports.database import transaction
from apps.imports.files import Batch
from apps.imports.formats import BY_NAME
from apps.imports.model import Status
from apps.imports.schema import ddl
from apps.imports.verify import actual
from tests.imports.conftest import Extracts, World
from tests.imports.extracts import enterprise_number, full_extract
from tests.imports.test_files import rewritten

E = [enterprise_number(index) for index in range(30)]
FULL = Target(140, "full", "2025-10-11", 140)
UPDATE = Target(141, "update", "2025-10-12", 140)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(ddl())
    return con


def applied(
    con: duckdb.DuckDBPyConnection, folder: Path, table: str, text: str | bytes, target: Target = FULL, number: int = 1
) -> tuple[int, list[tuple[int, str]]]:
    """How many rows were inserted, and (line, reason) of those left out."""
    batch = written(folder, table, text, number)
    try:
        done = at_once(con, folder, batch, target)
    except NeedsCare:
        with transaction(con):  # as the store does; rows are numbered differently in there
            done = apply_batch(con, batch, batch.path(folder), target)
    return done.inserted, [(reject.line, reject.reason) for reject in done.rejects]


def written(folder: Path, table: str, text: str | bytes, number: int = 1) -> Batch:
    data = text.encode() if isinstance(text, str) else text
    batch = Batch(table, "insert", number, 2, data.count(b"\n"), len(data))
    batch.path(folder).write_bytes(data)
    return batch


def at_once(con: duckdb.DuckDBPyConnection, folder: Path, batch: Batch, target: Target = FULL) -> Applied:
    if not may_go_at_once(batch, target):
        raise NeedsCare
    with transaction(con):
        return apply_batch(con, batch, batch.path(folder), target, at_once=True)


def test_each_bad_row_has_its_line_and_reason(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    inserted, rejects = applied(
        con,
        tmp_path,
        "enterprise",
        f'"{E[0]}","AC","000","2","610",,14-03-2005\n'
        f'"{E[1]}","AC","000","2","610",,14-13-2005\n'
        f'"{E[2]}","AC","000"\n'
        f'"{E[3]}","AC","000","2","610",,14-03-2005,"x"\n'
        f'"0400.000.099","AC","000","2","610",,\n'
        f'"2.000.001.230","AC","000","2","610",,\n'
        f',"AC","000","2","610",,\n'
        "\n"
        f'"{E[4]}","A\nC","000","2","610","",\n'
        f'"{E[5]}","AC","000","1","610",,\n'
        f'"{E[5]}","AC","000","2","610",,\n'
        "garbage\n",
    )
    assert inserted == 3
    assert rejects == [
        (2, 'Error when converting column "start_date". Could not convert string "14-13-2005" to \'DATE\''),
        (3, "type_of_enterprise: Expected Number of Columns: 7 Found: 3"),
        (4, "Expected Number of Columns: 7 Found: 8"),
        (5, "the check digits of EnterpriseNumber are wrong"),
        (6, "EnterpriseNumber is not an enterprise number dddd.ddd.ddd"),
        (7, "EnterpriseNumber is missing"),
        (8, "the line is empty"),
        (11, "the same row comes again below"),
        (13, "status: Expected Number of Columns: 7 Found: 1"),
    ]
    kept = con.execute("SELECT enterprise_number, status, type_of_enterprise FROM enterprises ORDER BY ALL").fetchall()
    assert kept == [(E[0], "AC", "2"), (E[4], "A\nC", "2"), (E[5], "AC", "2")]  # of two the last one counts


ACTIVITIES = [f'"{number}","003","2025","01110","MAIN"\n' for number in E]


def test_a_clean_batch_of_a_full_extract_goes_into_its_table_at_once(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    for number in (1, 2):
        batch = written(tmp_path, "activity", "".join(ACTIVITIES[number * 10 : number * 10 + 10]), number)
        assert at_once(con, tmp_path, batch) == Applied(10, 0, [])
    assert con.execute(
        "SELECT count(*), count(DISTINCT entity_number), any_value(extract_number) FROM activities"
    ).fetchall() == [(20, 20, 140)]
    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'batch'").fetchall() == [(0,)]
    for table, row in (
        ("enterprise", f'"{E[0]}","AC","000","2","610",,\n'),
        ("branch", f'"9.000.000.001",,"{E[0]}"\n'),
    ):
        assert at_once(con, tmp_path, written(tmp_path, table, row)).inserted == 1


@pytest.mark.parametrize(
    ("table", "text"),
    [
        pytest.param(
            "activity", "".join([*ACTIVITIES, ACTIVITIES[0].replace(E[0], "0400.000.099")]), id="check digits"
        ),
        pytest.param("activity", "".join([*ACTIVITIES, "garbage\n"]), id="columns"),
        pytest.param("activity", "".join([*ACTIVITIES, "\n"]), id="empty line"),
        pytest.param("activity", "".join([*ACTIVITIES, ',"003","2025","01110","MAIN"\n']), id="no key"),
        pytest.param("activity", "".join([f'"{E[0]}","003","20\n25","01110","MAIN"\n', *ACTIVITIES]), id="line end"),
        pytest.param("denomination", f'"{E[0]}","2","001","{"x" * 321}"\n', id="too long"),
        pytest.param("denomination", f'"{E[0]}","2","001","caf\xe9"\n'.encode("latin-1"), id="no UTF-8"),
        pytest.param("enterprise", f'"{E[0]}","AC","000","2","610",,14-13-2005\n', id="date"),
        pytest.param("enterprise", f'"{E[1]}","AC","000","2","610",,\n' * 2, id="twice in the batch"),
        pytest.param("enterprise", f'"{E[0]}","AC","000","1","610",,\n', id="in the batch before"),
    ],
)
def test_a_batch_with_anything_unusual_is_given_up_and_leaves_nothing(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, table: str, text: str | bytes
) -> None:
    at_once(con, tmp_path, written(tmp_path, "enterprise", f'"{E[0]}","AC","000","2","610",,\n'))
    before = {
        name: con.execute(f"SELECT count(*) FROM {name}").fetchall()
        for name in ("enterprises", "activities", "denominations")
    }
    with pytest.raises(NeedsCare):
        at_once(con, tmp_path, written(tmp_path, table, text, number=2))
    assert before == {name: con.execute(f"SELECT count(*) FROM {name}").fetchall() for name in before}


def test_bytes_that_are_no_utf_8_are_a_bad_row(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    text = f'"{E[0]}","2","001","caf\xe9"\n"{E[1]}","2","001","ok"\n'.encode("latin-1")
    inserted, rejects = applied(con, tmp_path, "denomination", text)
    assert inserted == 1
    assert [line for line, _ in rejects] == [1]
    assert "not utf-8" in rejects[0][1]


def test_a_quote_that_is_never_closed_takes_the_next_row_with_it_and_says_so(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [f'"{number}","2","001","name"\n' for number in E[:5]]
    rows[1] = f'"{E[1]}","2","001","name\n'
    inserted, rejects = applied(con, tmp_path, "denomination", "".join(rows))
    assert inserted == 3
    assert [line for line, _ in rejects] == [2, 3]
    assert rejects[0][1].startswith("denomination: Value with unterminated quote found")
    assert rejects[1][1] == "lost with the row above, in which a quote is not closed"


def test_nothing_and_known_empty_are_told_apart(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    applied(con, tmp_path, "contact", f'"{E[0]}","ENT",,""\n')
    assert con.execute("SELECT contact_type, value FROM contacts").fetchall() == [(None, "")]


def test_a_row_that_an_earlier_batch_brought_is_left_alone(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    row = f'"{E[0]}","003","2025","01110","MAIN"\n'
    other = f'"{E[0]}","003","2025","01137","MAIN"\n'
    assert applied(con, tmp_path, "activity", row, UPDATE) == (1, [])
    assert applied(con, tmp_path, "activity", row + other, UPDATE, 2) == (1, [(1, "the same row came before")])


def test_in_a_full_extract_only_rows_that_could_differ_are_compared(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    address = f'"{E[0]}","REGO",,,"1000","a","a","s","s","%d","","",\n'
    assert applied(con, tmp_path, "address", address % 1 + address % 2) == (1, [(1, "the same row comes again below")])
    assert applied(con, tmp_path, "address", address % 3, number=2) == (0, [(1, "the same row came before")])
    activity = f'"{E[0]}","003","2025","01110","MAIN"\n'
    assert applied(con, tmp_path, "activity", activity * 2) == (2, [])


@pytest.mark.parametrize("seed", range(6))
def test_every_line_is_either_a_row_or_a_reject_whatever_is_wrong(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, seed: int
) -> None:
    """Compared with a reading of the lines by Python's csv module, one by one: no value here has a line end."""
    draw = random.Random(seed)
    lines, good = [], []
    for index in range(400):
        number = enterprise_number(draw.randrange(10**5))
        line = f'"{number}","AC","000","2","610",,01-02-2003'
        kind = draw.random()
        if kind < 0.02:
            line = line.replace("01-02-2003", "01-32-2003")
        elif kind < 0.04:
            line = line.rsplit(",", draw.randrange(1, 5))[0]
        elif kind < 0.06:
            line += ',"more"'
        elif kind < 0.08:
            line = f'"{number[:-1]}x","AC","000","2","610",,01-02-2003'
        elif kind < 0.09:
            line = ""
        elif kind < 0.11:
            line = "".join(draw.choices("abc,;-", k=draw.randrange(1, 30)))
        else:
            good.append((index + 1, number))
        lines.append(line)
    inserted, rejects = applied(con, tmp_path, "enterprise", "\n".join(lines) + "\n")
    rejected = [line for line, _ in rejects]
    assert len(set(rejected)) == len(rejected)
    last = {number: line for line, number in good}
    expected = {line for line, number in good if last[number] == line}
    assert set(rejected) == set(range(1, 401)) - expected
    assert inserted == len(expected)


def test_reading_a_bad_file_again_gives_the_same(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    text = f'"{E[0]}","2","001","a"\n"bad","2","001","b"\nc\n'
    first = applied(con, tmp_path, "denomination", text)
    con.execute("DELETE FROM denominations")
    assert applied(con, tmp_path, "denomination", text) == first == (1, [(2, first[1][0][1]), (3, first[1][1][1])])


def _rows(table: str, *lines: str) -> Callable[[dict[str, bytes]], object]:
    def put(members: dict[str, bytes]) -> None:
        members[f"{table}.csv"] += "".join(f"{line}\n" for line in lines).encode()

    return put


async def test_rejected_rows_are_kept_with_file_and_line_and_the_rest_is_imported(world: World, tmp_path: Path) -> None:
    path = rewritten(full_extract(tmp_path, 140, enterprises=3), _rows("denomination", '"x","2","001","y"', "z"))
    result = await world.run("bad", path)
    assert (result.rejected_rows, result.names_resolved) == (2, 3)
    rejected = await world.store.rejected(world.job_name("bad"))
    assert [(row.file, row.line, row.text) for row in rejected] == [
        ("denomination.csv", 5, '"x","2","001","y"'),
        ("denomination.csv", 6, "z"),
    ]
    assert (await world.progress("bad")).rejected_rows == 2


def _garbage(members: dict[str, bytes]) -> None:
    members["activity.csv"] += b"".join(b'"nonsense %d"\n' % n for n in range(40))


def _cut_short(members: dict[str, bytes]) -> None:
    members["denomination.csv"] = members["denomination.csv"][:-20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_garbage, "activity.csv line 2: activity_group: Expected Number of Columns: 5 Found: 1"),
        (_cut_short, "denomination.csv line 4: the file ends in the middle of a row"),
    ],
)
async def test_a_broken_file_fails_the_import_and_nothing_is_half_applied(
    world: World, extracts: Extracts, tmp_path: Path, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    await world.run("good", extracts.full)
    before, rows = await actual(world.store), await world.rows()
    broken = rewritten(full_extract(tmp_path, 150, enterprises=3), change)
    assert message in await world.run("broken", broken, status=422)
    assert await world.rows() == rows | {"import_jobs": rows["import_jobs"] + 1}
    assert await actual(world.store) == before
    progress = await world.progress("broken")
    assert progress.status is Status.FAILED
    assert progress.error is not None
    assert progress.error.startswith(message)
    assert (await world.run("next", extracts.update)).extract_number == 141


async def test_the_real_update_of_the_register_is_imported_row_by_row(world: World, tmp_path: Path) -> None:
    kbo = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "kbo"
    sample = kbo / "update_0147_legal_persons"
    if not sample.is_dir():
        pytest.skip("the real extract is not ours to ship: ../shared/data/kbo is not here")
    path = tmp_path / "KboOpenData_0147_2025_10_12_Update.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [kbo / "code.csv", *sample.glob("*.csv")]:
            archive.write(file, file.name)
    result = await world.run("real", path)
    assert (result.extract_number, result.extract_type, result.snapshot_date) == (147, "update", "2025-10-11")
    assert result.rejected_rows == 0
    found = {each.table: each.inserted_rows for each in result.tables}
    for table in BY_NAME:
        file = kbo / "code.csv" if table == "code" else sample / f"{table}_insert.csv"
        with file.open(newline="") as lines:
            assert found[table] == len(list(csv.reader(lines))) - 1
    names = dict(await world.store.query("SELECT enterprise_number, primary_name FROM enterprises_current"))
    assert names["1029.025.785"] == "VGDsolutions"
    assert names["0872.480.059"] == "0872.480.059"  # without a name in this extract
    assert result.names_resolved == sum(number != name for number, name in names.items())
