"""The same extract again, after an import of it was cancelled, was killed, or was forgotten by its engine."""

from __future__ import annotations

import pytest

from apps.imports.engine import EngineClient
from apps.imports.messages import parse_start
from apps.imports.model import ImportRequest, Progress, Status
from apps.imports.service import KILLED, AlreadyOver, AlreadyThere, Imports
from apps.imports.verify import Expected, actual, differences
from tests.imports.conftest import Extracts, World, until

BATCH = "activity-insert-1"


@pytest.fixture
def imports(world: World) -> Imports:
    """What a person may do."""
    return Imports(EngineClient(world.ingress, world.admin, "the engine"), world.store)


async def start(world: World, imports: Imports, extracts: Extracts) -> str:
    """As without an id. Returns the one that it got."""
    request = ImportRequest(source=str(extracts.full), import_id=world.job_name("import-140"))
    return (await imports.start(request, is_id_given=False)).workflow_id


async def ended(imports: Imports, import_id: str) -> Progress:
    async def final() -> Progress | None:
        progress = await imports.progress(import_id)
        return progress if progress is not None and progress.status.is_final else None

    return await until(final)


async def assert_imported(world: World, imports: Imports, extracts: Extracts, import_id: str) -> None:
    done = await ended(imports, import_id)
    assert (done.status, done.error) == (Status.COMPLETED, None)
    expected = Expected()
    expected.apply(extracts.full)
    assert differences(expected.fingerprints(), await actual(world.store)) == []
    assert list(world.settings.files.glob("batches/*")) == []


async def test_after_a_cancellation_the_same_start_imports_it(
    world: World, imports: Imports, extracts: Extracts
) -> None:
    reached, go_on = world.store.hold(BATCH)
    first = await start(world, imports, extracts)
    await reached.wait()
    with pytest.raises(AlreadyThere, match="it goes on"):
        await start(world, imports, extracts)
    await imports.cancel(first)
    go_on.set()
    assert (await ended(imports, first)).status is Status.CANCELLED
    second = await start(world, imports, extracts)
    assert second == f"{first}-2"
    await assert_imported(world, imports, extracts, second)


async def test_after_a_kill_the_same_start_imports_it(world: World, imports: Imports, extracts: Extracts) -> None:
    reached, go_on = world.store.hold(BATCH)
    first = await start(world, imports, extracts)
    await reached.wait()
    progress = await imports.progress(first)
    assert progress is not None
    assert (await world.admin.patch(f"/invocations/{progress.invocation_id}/kill")).is_success
    await world.over(first.removeprefix(world.prefix))
    second = await start(world, imports, extracts)
    go_on.set()
    told = await imports.progress(first)
    assert told is not None
    assert (told.status, told.error) == (Status.FAILED, KILLED)
    with pytest.raises(AlreadyOver):
        await imports.cancel(first)
    await assert_imported(world, imports, extracts, second)


async def test_an_import_that_its_engine_forgot_can_be_cancelled(
    world: World, imports: Imports, extracts: Extracts
) -> None:
    reached, go_on = world.store.hold(BATCH)
    first = await start(world, imports, extracts)
    await reached.wait()
    progress = await imports.progress(first)
    assert progress is not None
    for verb in ("kill", "purge"):
        assert (await world.admin.patch(f"/invocations/{progress.invocation_id}/{verb}")).is_success
        await world.over(first.removeprefix(world.prefix))

    async def is_forgotten() -> bool:
        return await imports.engine.state(first) == "unknown"

    await until(is_forgotten)
    go_on.set()
    await imports.cancel(first)
    assert (await ended(imports, first)).status is Status.CANCELLED
    await assert_imported(world, imports, extracts, await start(world, imports, extracts))


def test_only_an_id_that_nobody_chose_may_be_changed() -> None:
    assert parse_start(b'{"source": "x.zip", "import_id": "mine"}').is_id_given
    made = parse_start(b'{"source": "KboOpenData_0140_2025_10_06_Full.zip"}')
    assert (made.is_id_given, made.request.import_id) == (False, "import-140")
