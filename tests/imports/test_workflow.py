"""The import workflow as a specification, on both engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from apps.imports.model import Progress, Status, job_id_of
from apps.imports.verify import Expected, actual, differences
from tests.imports.conftest import Extracts, World, until
from tests.imports.extracts import full_extract
from tests.imports.test_fetch import Source, serving

NUMBER = {"full": 140, "update": 141, "second_update": 142, "later_full": 143}


async def test_what_readers_see_equals_an_independent_computation_after_every_extract(
    world: World, extracts: Extracts
) -> None:
    expected, at = Expected(), {}
    for name, number in NUMBER.items():
        result = await world.run(name, getattr(extracts, name))
        expected.apply(getattr(extracts, name))
        at[number] = expected.fingerprints()
        assert differences(expected.fingerprints(), await actual(world.store)) == []
        assert result.extract_number == number
        assert result.rejected_rows == 0
        assert {each.table: each.current_rows for each in result.tables} == {
            table: print_.count for table, print_ in expected.fingerprints().items() if table != "names"
        }
    for number, fingerprints in at.items():  # and the past is still there
        assert differences(fingerprints, await actual(world.store, at_extract=number)) == []


async def test_one_step_per_batch_each_with_its_own_name_in_the_order_of_tables_and_deletes_first(
    world: World, extracts: Extracts
) -> None:
    await world.run("full", extracts.full)
    invocation_id = await world.start("update", str(extracts.update))
    await world.over("update")
    steps = await world.steps(invocation_id)
    progress = await world.progress("update")
    assert steps[:2] == ["download", "prepare"]
    assert steps[-1] == "finalize"
    batches = steps[2:-1]
    assert len(set(batches)) == len(batches) == progress.total == progress.completed
    order = ["code", "enterprise", "establishment", "denomination", "address", "contact", "activity", "branch"]
    places = [(order.index(table), operation) for table, operation, _ in (step.split("-") for step in batches)]
    assert places == sorted(places)  # `delete` sorts before `insert`
    assert {operation for _, operation in places} == {"delete", "insert"}
    planned = await world.store.query(
        "SELECT count(*), count(DISTINCT (table_name, operation, batch_number)), bool_and(state = 'completed') "
        "FROM import_job_batches WHERE job_id = $1",
        [job_id_of(world.job_name("update"))],
    )
    assert planned == [(len(batches), len(batches), True)]


async def test_readers_see_the_extract_before_until_finalize_switches(world: World, extracts: Extracts) -> None:
    await world.run("full", extracts.full)
    before = await actual(world.store)
    reached, go_on = world.store.hold("activity-insert-1")
    await world.start("update", str(extracts.update))
    await reached.wait()
    assert differences(before, await actual(world.store)) == []
    there = await world.store.query("SELECT count(*) FROM denominations WHERE extract_number = 141")
    assert there[0][0] > 0  # but they are in the table
    go_on.set()
    await world.over("update")
    assert differences(before, await actual(world.store)) != []


async def test_progress_is_answered_while_a_batch_is_at_work_and_never_goes_back(
    world: World, extracts: Extracts
) -> None:
    reached, go_on = world.store.hold("activity-insert-2")
    invocation_id = await world.start("full", str(extracts.full))
    seen = [await world.progress("full")]
    await reached.wait()

    async def at_work() -> Progress | None:  # a server records the state a moment after the step began
        progress = await world.progress("full")
        return progress if progress.step == "activity-insert-2" else None

    seen.append(await until(at_work))
    assert seen[-1].status is Status.PROCESSING
    assert seen[-1].step == "activity-insert-2"
    assert (seen[-1].current_table, seen[-1].current_operation, seen[-1].current_batch) == ("activity", "insert", 2)
    assert seen[-1].invocation_id == invocation_id
    assert seen[-1].rows_per_second is not None
    go_on.set()
    await world.over("full")
    seen.append(await world.progress("full"))
    assert [each.completed for each in seen] == sorted(each.completed for each in seen)
    assert (seen[-1].status, seen[-1].percent, seen[-1].completed) == (Status.COMPLETED, 100, seen[-1].total)
    assert seen[-1].rows_completed == seen[-1].rows_total
    assert seen[-1].names_resolved == sum(1 for number, name, _ in _names(extracts.full) if number != name)


def _names(zip_path: Path) -> list[tuple[str | None, ...]]:
    expected = Expected()
    expected.apply(zip_path)
    return expected.names()


async def test_an_import_that_was_never_started_is_pending(world: World) -> None:
    progress = await world.progress("nobody")
    assert (progress.status, progress.job_id, progress.total) == (Status.PENDING, "", 0)


async def test_one_extract_is_imported_once_and_an_older_one_is_refused(world: World, extracts: Extracts) -> None:
    await world.run("full", extracts.full)
    await world.run("update", extracts.update)
    rows = await world.rows()
    again = await world.run("again", extracts.update, status=409)
    assert again == f"extract 141 was imported by {world.job_name('update')}"
    older = await world.run("older", extracts.full, status=409)
    assert older == f"extract 140 was imported by {world.job_name('full')}"
    await world.run("second", extracts.second_update)
    after = await world.rows()
    assert (await world.progress("again")).status is Status.FAILED
    assert after["enterprises"] > rows["enterprises"]


async def test_an_extract_that_is_older_than_what_readers_see_is_refused(world: World, extracts: Extracts) -> None:
    await world.run("later", extracts.later_full)
    message = await world.run("older", extracts.update, status=409)
    assert message == "extract 141 is older than extract 143, which was imported"


async def test_a_second_import_waits_for_nobody_and_says_who_is_at_work(world: World, extracts: Extracts) -> None:
    reached, go_on = world.store.hold("enterprise-insert-1")
    await world.start("full", str(extracts.full))
    await reached.wait()
    message = await world.run("other", extracts.update, status=409)
    assert message == f"import {world.job_name('full')} is processing; wait until it is over, or cancel it"
    go_on.set()
    assert (await world.over("full")).status_code == 200


async def test_a_gap_is_told_as_a_warning(world: World, extracts: Extracts) -> None:
    await world.run("full", extracts.full)
    result = await world.run("second", extracts.second_update)
    assert result.warnings == [
        "extract 141 was never imported: what changed there is missing until the next full extract"
    ]


@pytest.mark.parametrize("batch", ["code-insert-1", "denomination-delete-1", "activity-insert-1"])
async def test_cancel_stops_before_the_next_batch_and_leaves_no_trace(
    world: World, extracts: Extracts, batch: str
) -> None:
    await world.run("full", extracts.full)
    before, rows = await actual(world.store), await world.rows()
    reached, go_on = world.store.hold(batch)
    invocation_id = await world.start("update", str(extracts.update))
    await reached.wait()
    await world.cancel(invocation_id)
    answer = await world.over("update")
    assert (answer.status_code, answer.json()["message"]) == (409, "cancelled")
    go_on.set()  # what was still at work must not write after the rollback
    progress = await world.progress("update")
    assert (progress.status, progress.error) == (Status.CANCELLED, "cancelled")
    assert await world.rows() == rows | {"import_jobs": rows["import_jobs"] + 1}
    assert differences(before, await actual(world.store)) == []
    job = await world.store.job(world.job_name("update"))
    assert job is not None
    assert (job.status, job.rows, job.completed_at is not None) == (Status.CANCELLED, 0, True)
    assert [path.name for path in world.settings.files.rglob("*.csv")] == []
    assert len(list(world.settings.files.rglob("extract.zip"))) == 1  # kept for another try

    result = await world.run("again", extracts.update)
    assert result.extract_number == 141
    assert not list(world.settings.files.rglob("extract.zip"))
    expected = Expected()
    expected.apply(extracts.full)
    expected.apply(extracts.update)
    assert differences(expected.fingerprints(), await actual(world.store)) == []


async def test_progress_and_history_count_the_same_batches_of_a_cancelled_import(
    world: World, extracts: Extracts
) -> None:
    reached, go_on = world.store.hold_after("enterprise-insert-1")
    invocation_id = await world.start("full", str(extracts.full))
    await reached.wait()
    await world.cancel(invocation_id)
    await world.over("full")
    go_on.set()
    progress, job = await world.progress("full"), await world.store.job(world.job_name("full"))
    assert job is not None
    assert (progress.status, job.status) == (Status.CANCELLED, Status.CANCELLED)
    assert (progress.completed, progress.total) == (job.completed_batches, job.total_batches)


async def test_the_zip_of_a_cancelled_import_serves_the_next_try_when_the_source_is_gone(
    world: World, extracts: Extracts, tmp_path: Path
) -> None:
    source = Path(shutil.copy(extracts.full, tmp_path / "source.zip"))
    reached, go_on = world.store.hold("activity-insert-1")
    invocation_id = await world.start("first", str(source))
    await reached.wait()
    await world.cancel(invocation_id)
    await world.over("first")
    go_on.set()
    source.unlink()
    assert (await world.run("second", source)).extract_number == 140


async def test_staged_batches_that_are_lost_are_made_again_from_the_zip(world: World, extracts: Extracts) -> None:
    reached, go_on = world.store.hold("establishment-insert-1")
    await world.start("full", str(extracts.full))
    await reached.wait()
    directory = next(world.settings.files.glob("batches/*"))
    for path in directory.glob("a*.csv"):
        path.unlink()
    go_on.set()
    assert (await world.over("full")).status_code == 200
    expected = Expected()
    expected.apply(extracts.full)
    assert differences(expected.fingerprints(), await actual(world.store)) == []


async def test_a_request_may_be_an_object_with_a_checksum(world: World, extracts: Extracts) -> None:
    wrong = await world.run("wrong", {"source": str(extracts.full), "sha256": "0" * 64}, status=400)
    assert wrong.startswith("the file's SHA-256 is ")
    job = await world.store.job(world.job_name("wrong"))
    assert job is not None
    assert (job.status, job.error) == (Status.FAILED, wrong)
    result = await world.run("right", {"source": str(extracts.full), "worker_type": "backfill"})
    entry = await world.store.job(world.job_name("right"))
    assert entry is not None
    assert (entry.worker_type, entry.rows, entry.total_batches) == ("backfill", result.rows, entry.completed_batches)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"source": ""}, "the request has no source; give the address of the zip"),
        ({"nothing": 1}, "the request is neither an address nor an import request"),
        ({"source": "x.zip", "import_id": "other"}, "but the request is for import other"),
        (
            {"source": "ftp://example.org/x.zip"},
            "cannot fetch ftp:// addresses; give https://, s3://, file:// or a path",
        ),
        ({"source": "nowhere/x.zip"}, "cannot read nowhere/x.zip: No such file or directory"),
    ],
)
async def test_a_request_that_can_never_succeed_fails_at_once(world: World, body: dict[str, str], message: str) -> None:
    assert message in await world.run("bad", body, status=400)


async def test_a_server_that_is_busy_is_asked_again(world: World, extracts: Extracts) -> None:
    source = Source()
    source.body, source.statuses = extracts.full.read_bytes(), [503, 429]
    with serving(source):
        assert (await world.run("full", source.url)).extract_number == 140
    assert len(source.asked) == 3


@pytest.mark.parametrize("overrides", [{"fetch_patience_s": 0.5}])
async def test_a_server_that_never_answers_fails_the_import_after_its_time(world: World) -> None:
    with serving(Source()) as gone:
        url = gone.url
    assert "does not answer" in await world.run("gone", url, status=500)
    progress = await world.progress("gone")
    assert progress.status is Status.FAILED
    assert "does not answer" in (progress.error or "")


@pytest.mark.parametrize("overrides", [{"keep_zip_hours": 0.0}])
async def test_the_zip_of_a_failed_import_goes_when_its_time_is_over(world: World, tmp_path: Path) -> None:
    await world.run("broken", full_extract(tmp_path, 140, broken_file="contact"), status=422)

    async def is_gone() -> bool:
        return not list(world.settings.files.rglob("extract.zip"))

    await until(is_gone)


async def test_an_import_that_was_killed_can_be_started_again_after_a_purge(world: World, extracts: Extracts) -> None:
    reached, go_on = world.store.hold("activity-insert-1")
    invocation_id = await world.start("full", str(extracts.full))
    await reached.wait()
    killed = await world.admin.patch(f"/invocations/{invocation_id}/kill")
    assert killed.is_success, killed.text
    await world.over("full")
    other = await world.run("other", extracts.full, status=409)
    assert other.startswith(f"import {world.job_name('full')} is processing")
    purged = await world.admin.patch(f"/invocations/{invocation_id}/purge")
    assert purged.is_success, purged.text
    go_on.set()
    await world.run("full", extracts.full)
    expected = Expected()
    expected.apply(extracts.full)
    assert differences(expected.fingerprints(), await actual(world.store)) == []


async def test_a_database_that_is_locked_for_a_while_only_delays_the_import(world: World, extracts: Extracts) -> None:
    await world.store.close()
    other = GatedOther(world)
    async with other:
        await world.start("full", str(extracts.full))
        await until(other.was_met)
    assert (await world.over("full")).status_code == 200


class GatedOther:
    """Somebody else who has the database file open."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = type(world.store)(world.settings)

    async def __aenter__(self) -> None:
        await self._store.open()

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()

    async def was_met(self) -> bool:
        """Whether the import has begun, and could not open the file."""
        return (await self._world.progress("full")).step == "download"
