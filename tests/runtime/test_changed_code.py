"""Code that changed under an invocation in flight: what the user is told, and that it goes on when the code is right.

Every test runs real SDK code twice over one database: the version that recorded the journal, then another one.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import Engine
from holdfast.core import ids
from holdfast.runtime.introspect import InvocationInfo
from tests.runtime import changing, programs
from tests.runtime.changing import application, at
from tests.runtime.support import result, send, status, until
from tests.support.restate_server import serving_h2c


@pytest.fixture(autouse=True)
def fresh() -> None:
    changing.ran.clear()
    programs.notes.pop("paid", None)


async def begin(db: Path, target: str, entries: int, **settings: Any) -> str:
    """Record a journal with the first version of the code, up to the awakeable; the invocation's id."""
    async with Engine(application("first"), db=db, **settings) as engine:
        invocation = await send(engine, target, "order 1")
        await until(lambda: engine.describe(invocation).journal_size == entries)
    return invocation


CHARGE, CALL, PACK = (1, 1), (2, 3), (3, 6)
"""(number among the commands, index in the journal) of what the first version recorded."""
RESERVE = "Call Stock/reserve"

# Version of the code -> place in the journal, what is recorded there, what the code does now, the line, the difference.
MISMATCHES = {
    "step renamed": (CHARGE, 'Run "charge"', 'does Run "bill"', at("step renamed"), "name: charge != bill"),
    "step added": (CHARGE, 'Run "charge"', 'does Run "check"', at("step added"), "name: charge != check"),
    "step removed": (CHARGE, 'Run "charge"', "does Call", at("call"), None),
    "step replaced": (CHARGE, 'Run "charge"', "does Call", at("step replaced"), None),
    "sleep inserted": (CALL, RESERVE, "does Sleep", at("sleep inserted"), None),
    "target changed": (CALL, RESERVE, "does Call Stock/release", at("call"), "handler_name: reserve != release"),
    "argument changed": (
        *(CALL, RESERVE, f"does {RESERVE} with another parameter", at("call")),
        """parameter: '"pen"' != '"ink"'""",
    ),
    "steps swapped": (PACK, 'Run "pack"', 'does Run "label"', at("steps swapped"), "name: pack != label"),
    "end removed": (PACK, 'Run "pack"', "returns from Orders/place", at("end removed"), None),
}


@pytest.mark.parametrize("protocol_version_max", [6, 7])
@pytest.mark.parametrize("version", MISMATCHES)
async def test_a_mismatch_pauses_and_says_what_where_and_how_to_go_on(
    version: str, protocol_version_max: int, tmp_path: Path
) -> None:
    (number, index), recorded, now, where, difference = MISMATCHES[version]
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10, protocol_version_max=protocol_version_max)
    async with Engine(application(version), db=tmp_path / "a.db", protocol_version_max=protocol_version_max) as engine:
        info = await paused(engine, invocation)
        events = engine.journal_events(invocation)
        text = info.last_failure or ""
        assert text.splitlines()[0] == (
            f"journal mismatch at command {number} (journal entry {index}): recorded {recorded}, "
            f"but the code now {now} ({where}, in {'_pack' if version == 'steps swapped' else 'place'}) [RT0016]"
        )
        assert (difference is None) or (f"  {difference}" in text.splitlines())
        assert f"holdfast invocations resume {invocation} --deployment latest" in text
        assert f"holdfast invocations restart-as-new {invocation}" in text
        assert (f"--from {index - 1}" in text) == (index > 1)
        assert info.last_failure_code == 570
        (failure, pause) = events
        assert [failure["ty"], pause["ty"]] == ["TransientError", "Paused"]
        assert (failure["recorded"], failure["attempted"], failure["journal_index"]) == (recorded, now, index)
        assert failure["source_line"].startswith(where)
        assert changing.ran["charge"] == 1, "nothing runs again before the mismatch is found"

    await goes_on(tmp_path / "a.db", invocation, ["charge", "pen", "cash"])
    assert {name: changing.ran[name] for name in ("charge", "pack", "label")} == {"charge": 1, "pack": 1, "label": 1}


async def paused(engine: Engine, invocation: str) -> InvocationInfo:
    await engine.resume(invocation)
    await status(engine, invocation, "paused")
    info = engine.describe(invocation)
    assert info is not None
    return info


async def goes_on(db: Path, invocation: str, expected: Any) -> None:
    """The code was put right: the invocation completes after a resume, with what it has recorded."""
    async with Engine(application("first"), db=db) as engine:
        await engine.resume(invocation, deployment="latest")
        await engine.resolve_awakeable(programs.notes["paid"][0], b'"cash"')
        assert await result(engine, invocation) == expected


async def test_an_inserted_await_is_named_with_what_it_awaits(tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application("await inserted"), db=tmp_path / "a.db") as engine:
        info = await paused(engine, invocation)
    awakeable = programs.notes["paid"][0]
    assert (info.last_failure or "").splitlines()[0] == (
        f"journal mismatch: the code now awaits Awakeable {awakeable} ({at('await inserted')}, in place), for which "
        'nothing is recorded; the journal goes on to Run "label", command 4 (journal entry 8) [RT0016]'
    )
    await goes_on(tmp_path / "a.db", invocation, ["charge", "pen", "cash"])


async def test_a_paused_object_keeps_its_key_and_its_state(tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Box/k/put", 4)
    async with Engine(application("state renamed"), db=tmp_path / "a.db") as engine:
        info = await paused(engine, invocation)
        first = (info.last_failure or "").splitlines()[0]
        assert first.startswith(
            "journal mismatch at command 1 (journal entry 1): recorded SetState what, but the code now does SetState which "
        )
        assert at("state renamed") in first
        behind = await send(engine, "Box/k/put", "next")
        await status(engine, behind, "pending")
        assert engine.state("Box", "k") == {"what": b'"order 1"'}
        await engine.cancel(behind)
    await goes_on(tmp_path / "a.db", invocation, "cash")


async def test_a_workflow_run_cannot_begin_anew_and_is_not_told_to(tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Tour/t/run", 3)
    async with Engine(application("tour renamed"), db=tmp_path / "a.db") as engine:
        text = (await paused(engine, invocation)).last_failure or ""
    assert 'recorded Run "plan", but the code now does Run "draw"' in text
    assert "resume" in text
    assert "restart-as-new" not in text
    await goes_on(tmp_path / "a.db", invocation, "cash")


async def test_it_is_logged_once_for_the_operator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application("step renamed"), db=tmp_path / "a.db") as engine:
        await paused(engine, invocation)
    [record] = [one for one in caplog.records if one.message == "invocation paused"]
    assert record.levelno == logging.ERROR
    assert 'recorded Run "charge"' in vars(record)["error"]


async def test_it_is_retried_as_on_a_restate_server_when_asked_for(tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application("step renamed"), db=tmp_path / "a.db", pause_on_mismatch=False) as engine:
        await engine.resume(invocation)
        await status(engine, invocation, "backing-off")
        text = engine.describe(invocation).last_failure or ""
        assert text.startswith("Found a mismatch between the code paths")


# Version -> what the user is told. Retried: it goes on by itself when the handler is served again.
REMOVED = {
    "handler removed": "Orders/place is not served any more by the application 'app'",
    "service removed": "Orders",
}


@pytest.mark.parametrize("version", REMOVED)
async def test_a_removed_handler_is_waited_for(version: str, tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application(version), db=tmp_path / "a.db") as engine:
        await engine.resume(invocation)
        await status(engine, invocation, "backing-off")
        text = engine.describe(invocation).last_failure or ""
        assert REMOVED[version] in text
        assert "serve it again" in text
    async with Engine(application("first"), db=tmp_path / "a.db") as engine:
        await engine.resolve_awakeable(programs.notes["paid"][0], b'"cash"')
        assert await result(engine, invocation) == ["charge", "pen", "cash"]
    assert changing.ran["charge"] == 1


async def test_the_message_reaches_the_admin_api(tmp_path: Path) -> None:
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application("step renamed"), db=tmp_path / "a.db") as engine:
        await paused(engine, invocation)
        transport = httpx.ASGITransport(engine.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as admin:
            shown = (await admin.get(f"/invocations/{invocation}")).json()
            events = (await admin.get(f"/invocations/{invocation}/journal")).json()["events"]
    assert 'recorded Run "charge"' in shown["last_failure"]
    assert json.dumps(events).count(at("step renamed")) >= 1


async def test_an_endpoint_whose_code_was_changed_in_place(tmp_path: Path) -> None:
    """Deployments are meant to be immutable. The way on is a new one with the right code."""
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        with serving_h2c(application("first")) as first, serving_h2c(application("step renamed")) as changed:
            registered = (await engine.register_deployment(first)).deployment
            invocation = await send(engine, "Orders/place", "order 1")
            await until(lambda: engine.describe(invocation).journal_size == 10)
            await engine.update_deployment(registered.id, uri=changed)
            await engine.pause(invocation)
            await status(engine, invocation, "paused", "suspended")
            text = (await paused(engine, invocation)).last_failure or ""
            assert text.startswith(
                "journal mismatch at command 1 (journal entry 1): "
                'recorded Run "charge", but the code now does Run "bill" [RT0016]'  # no line: the SDK does not send it
            )
            await engine.register_deployment(first)
            await engine.resume(invocation, deployment="latest")
            await engine.resolve_awakeable(programs.notes["paid"][0], b'"cash"')
            assert await result(engine, invocation) == ["charge", "pen", "cash"]
    assert changing.ran["charge"] == 1


# Version of the code -> what it keeps of the journal, its result, and how often each step ran in all.
ANEW = {
    "step renamed": (0, ["bill", "pen", "cash"], {"charge": 1, "bill": 1, "pack": 2, "label": 2}),
    "steps swapped": (5, ["charge", "pen", "cash"], {"charge": 1, "pack": 2, "label": 2}),
}


@pytest.mark.parametrize("version", ANEW)
async def test_it_can_begin_anew_with_the_code_of_now(version: str, tmp_path: Path) -> None:
    """The other way on that the message names, under a new id."""
    kept, expected, times = ANEW[version]
    invocation = await begin(tmp_path / "a.db", "Orders/place", 10)
    async with Engine(application(version), db=tmp_path / "a.db") as engine:
        await paused(engine, invocation)
        await engine.kill(invocation)
        anew = await engine.restart_as_new(invocation, from_index=kept)
        own = ids.invocation_bytes(anew)
        found = await until(lambda: [one for one in programs.notes["paid"] if ids.awakeable_parts(one)[0] == own])
        await engine.resolve_awakeable(found[0], b'"cash"')
        assert await result(engine, anew) == expected
    assert changing.ran == times
