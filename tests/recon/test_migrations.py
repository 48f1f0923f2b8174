"""Changes of the schema: numbered, recorded, applied once, and never half."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from apps.recon import parts
from apps.recon.migrations import Migration, all_migrations, migrate, ordered
from apps.recon.model import IngestRequest
from apps.recon.schema import MIGRATIONS
from apps.recon.store import Store
from apps.recon.surreal import StoreError, StoreRefused, Surreal

FIRST = Migration(1, "a table", "DEFINE TABLE OVERWRITE a SCHEMAFULL; DEFINE FIELD OVERWRITE n ON a TYPE int")
SECOND = Migration(2, "an index", "DEFINE INDEX OVERWRITE a_n ON a FIELDS n UNIQUE")
BROKEN = Migration(3, "half of it", "DEFINE TABLE OVERWRITE b SCHEMAFULL; THROW 'no more'")


@pytest.fixture
async def surreal(tmp_path: Path) -> AsyncIterator[Surreal]:
    surreal = await Surreal.open(tmp_path / "surreal")
    yield surreal
    await surreal.close()


async def tables(surreal: Surreal) -> set[str]:
    (info,) = await surreal.read("INFO FOR DB")
    return set(info["tables"])


async def test_each_is_applied_once_and_recorded(surreal: Surreal):
    assert await migrate(surreal, [FIRST]) == [FIRST]
    await surreal.write("CREATE a:x SET n = 1")
    assert await migrate(surreal, [FIRST, SECOND]) == [SECOND]
    assert await migrate(surreal, [FIRST, SECOND]) == []
    (rows,) = await surreal.read("SELECT number, name, checksum FROM migration ORDER BY number")
    assert rows == [{"number": m.number, "name": m.name, "checksum": m.checksum} for m in (FIRST, SECOND)]
    assert await surreal.read("SELECT VALUE n FROM a") == [[1]]


async def test_one_that_fails_leaves_nothing_and_can_be_tried_again(surreal: Surreal):
    with pytest.raises(StoreError, match=r"migration 3 \(half of it\) failed: .*no more"):
        await migrate(surreal, [FIRST, BROKEN])
    assert await tables(surreal) == {"a", "migration"}
    repaired = replace(BROKEN, sql="DEFINE TABLE OVERWRITE b SCHEMAFULL")
    assert await migrate(surreal, [FIRST, repaired]) == [repaired]
    assert await tables(surreal) == {"a", "b", "migration"}


async def test_one_that_was_edited_after_its_release_is_refused(surreal: Surreal):
    await migrate(surreal, [FIRST])
    with pytest.raises(StoreRefused, match=r"migration 1 \(a table\) is not what was applied"):
        await migrate(surreal, [replace(FIRST, sql=FIRST.sql + " ")])


async def test_a_database_of_a_newer_version_is_refused(surreal: Surreal):
    await migrate(surreal, [FIRST, SECOND])
    with pytest.raises(StoreRefused, match="migration 2, which this program does not know"):
        await migrate(surreal, [FIRST])


async def test_every_migration_may_run_again_over_its_own_result(surreal: Surreal):
    """As it does when a process died between the change and its record, on an engine where that could be."""
    everything = all_migrations()
    await migrate(surreal, everything)
    before = await surreal.read("INFO FOR DB")
    await surreal.write("DELETE migration")
    assert await migrate(surreal, everything) == everything
    assert await surreal.read("INFO FOR DB") == before


async def test_a_database_from_before_migrations_is_taken_over_with_its_rows(tmp_path: Path):
    path = tmp_path / "surreal"
    async with Store(path) as store:
        await store.create_job(IngestRequest("job-1", "key", 1), "a scan")
        # What the first version left: its tables, and a number in `meta` instead of a table of migrations.
        await store.write("REMOVE TABLE migration; UPSERT meta:store SET schema_version = 1")
    async with Store(path) as again:
        assert (await again.job("job-1")) is not None
        (numbers,) = await again.read("SELECT VALUE number FROM migration")
        assert sorted(numbers) == [each.number for each in all_migrations()]


async def test_jobs_and_sightings_of_an_older_version_are_kept_as_they_were(surreal: Surreal):
    everything = all_migrations()
    await migrate(surreal, [each for each in everything if each.number <= 3])
    await surreal.write(
        """CREATE job:one SET state = 'pending', scanner_key = 'k';
        CREATE submission:one SET scan = 'as it was', observed_at_s = 1;
        CREATE host:h SET address = 'h', first_seen = time::now(), last_seen = time::now();
        RELATE host:h->SEEN_IN:['one', 'h']->job:one SET at = time::now()"""
    )
    columns = "<string>created_at AS created, <string>updated_at AS updated"
    before = await surreal.read(f"SELECT {columns} FROM job")
    await migrate(surreal, everything)
    assert await surreal.read(f"SELECT {columns} FROM job") == before
    (times,) = await surreal.read(
        "SELECT VALUE created_ns = time::nano(created_at) AND updated_ns = time::nano(updated_at) FROM job"
    )
    assert times == [True]
    assert await surreal.read("SELECT VALUE [record::id(id), record::id(host), record::id(job)] FROM sighting") == [
        [[["one", "h"], "h", "one"]]
    ]
    assert await surreal.read("SELECT VALUE scan FROM submission") == [["as it was"]]
    assert "SEEN_IN" not in await tables(surreal)


def test_no_number_is_used_twice():
    with pytest.raises(ValueError, match="both have number 1"):
        ordered([FIRST, replace(SECOND, number=1)])
    assert ordered([SECOND, FIRST]) == [FIRST, SECOND]


def test_each_part_keeps_to_its_numbers():
    ranges = {
        "enrich": range(100, 200),
        "queries": range(200, 300),
        "campaigns": range(300, 400),
        "threats": range(400, 500),
    }
    assert {each.number for each in MIGRATIONS} <= set(range(1, 100))
    for schema in parts.part_schemas():
        name = schema.__name__.split(".")[2]
        assert {each.number for each in schema.MIGRATIONS} <= set(ranges[name]), name
