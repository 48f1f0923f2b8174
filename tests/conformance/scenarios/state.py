"""State of virtual objects."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.harness import Outcome, Run, failed, ok, scenario

TABLE: list[list[Any]] = [
    ["get", "missing"],
    ["keys"],
    ["set", "a", 1],
    ["get", "a"],
    ["set", "b", {"x": [None, True, "ü"]}],
    ["get", "b"],
    ["keys"],
    ["set", "a", "again"],
    ["get", "a"],
    ["clear", "a"],
    ["clear", "never there"],
    ["get", "a"],
    ["keys"],
    ["set", "c", 0],
    ["set", "d", ""],
    ["get", "c"],
    ["get", "d"],
    ["clear_all"],
    ["keys"],
    ["get", "b"],
    ["set", "e", 5],
    ["get", "e"],
    ["keys"],
]
LAZY_RESULTS = [
    None, [], 1, {"x": [None, True, "ü"]}, ["a", "b"], "again", None, ["b"], 0, "", [], None, 5, ["e"]
]  # fmt: skip
# The SDK answers from its own copy of the state here, in which keys that were cleared are still listed.
EAGER_RESULTS = [*LAZY_RESULTS[:7], ["a", "b", "never there"], *LAZY_RESULTS[8:]]


@scenario({"first": ok(EAGER_RESULTS), "later": ok([["e"], 5])})
async def state_operations(run: Run) -> Outcome:
    first = await run.call("State/apply", run.key(), body=TABLE)
    return {"first": first, "later": await run.call("State/apply", run.key(), body=[["keys"], ["get", "e"]])}


@scenario({"first": ok(LAZY_RESULTS), "later": ok([["e"], 5])})
async def state_operations_with_lazy_state(run: Run) -> Outcome:
    first = await run.call("LazyState/apply", run.key(), body=TABLE)
    return {"first": first, "later": await run.call("LazyState/apply", run.key(), body=[["keys"], ["get", "e"]])}


@scenario({"eager": ok(EAGER_RESULTS), "lazy": ok([["e"], 5, None, None]), "eager again": ok([None, ["f"], 6])})
async def lazy_and_eager_handlers_see_the_same_state(run: Run) -> Outcome:
    lazy = [["keys"], ["get", "e"], ["clear", "e"], ["get", "e"], ["set", "f", 6], ["get", "zzz"]]
    return {
        "eager": await run.call("State/apply", run.key(), body=TABLE),
        "lazy": await run.call("State/apply_lazily", run.key(), body=lazy),
        "eager again": await run.call("State/apply", run.key(), body=[["get", "e"], ["keys"], ["get", "f"]]),
    }


@scenario({"answer": ok([None, ["a", "z"], 1, None, [], 2]), "crashes": {"one": 4, "two": 3, "three": 2}})
async def state_reads_are_replayed(run: Run) -> Outcome:
    """Attempts that fail after reads and writes read the same again, not their own later writes."""
    operations = [
        ["get", "a"], ["set", "a", 1], ["crash", "one"], ["set", "z", 0], ["keys"], ["get", "a"], ["crash", "two"],
        ["clear_all"], ["get", "a"], ["keys"], ["set", "a", 2], ["crash", "three"], ["get", "a"],
    ]  # fmt: skip
    return {
        "answer": await run.call("State/apply", run.key(), body=operations),
        "crashes": run.counts("one", "two", "three"),
    }


@scenario({"answer": ok([None, ["a", "z"], 1, None, [], 2])})
async def lazy_state_reads_are_replayed(run: Run) -> Outcome:
    operations = [
        ["get", "a"], ["set", "a", 1], ["crash", "one"], ["set", "z", 0], ["keys"], ["get", "a"], ["crash", "two"],
        ["clear_all"], ["get", "a"], ["keys"], ["set", "a", 2], ["crash", "three"], ["get", "a"],
    ]  # fmt: skip
    return {"answer": await run.call("LazyState/apply", run.key(), body=operations)}


@scenario({"stored": ok([["a", "b"]]), "later": ok([1, 2]), "lazy": ok([2])})
async def state_that_a_suspended_handler_wrote(run: Run) -> Outcome:
    operations = [["set", "a", 1], ["sleep", 60], ["set", "b", 2], ["sleep", 60], ["keys"]]
    return {
        "stored": await run.call("State/apply", run.key(), body=operations),
        "later": await run.call("State/view", run.key(), body=[["get", "a"], ["get", "b"]]),
        "lazy": await run.call("State/apply_lazily", run.key(), body=[["get", "b"]]),
    }


@scenario({"failure": failed(500, "oh no"), "later": ok([1, ["a"]])})
async def state_stays_when_the_handler_fails(run: Run) -> Outcome:
    failure = await run.call("State/apply", run.key(), body=[["set", "a", 1], ["fail", "oh no"], ["set", "b", 2]])
    return {"failure": failure, "later": await run.call("State/view", run.key(), body=[["get", "a"], ["keys"]])}


@scenario({"during": ok([1, None]), "exclusive": ok([]), "after": ok([1, 2])})
async def shared_handler_sees_writes_as_they_happen(run: Run) -> Outcome:
    operations = [["set", "a", 1], ["sleep", 1], ["gate", "half"], ["set", "b", 2]]
    exclusive = run.start("State/apply", run.key(), body=operations)
    await run.seen("at half")
    during = await run.call("State/view", run.key(), body=[["get", "a"], ["get", "b"]])
    run.open("half")
    return {
        "during": during,
        "exclusive": await exclusive,
        "after": await run.call("State/view", run.key(), body=[["get", "a"], ["get", "b"]]),
    }


@scenario({"refused": True, "state": ok([1])})
async def shared_handler_cannot_write(run: Run) -> Outcome:
    await run.call("State/apply", run.key(), body=[["set", "a", 1]])
    answer = await run.call("State/view_once", run.key(), body=[["set", "a", 2], ["sleep", 1]])
    return {"refused": answer["status"] >= 400, "state": await run.call("State/view", run.key(), body=[["get", "a"]])}


@scenario({"one": ok([1]), "two": ok([2]), "other": ok([3]), "lazy": ok([None])})
async def state_is_private_to_service_and_key(run: Run) -> Outcome:
    await run.call("State/apply", run.key("one"), body=[["set", "a", 1]])
    await run.call("State/apply", run.key("two"), body=[["set", "a", 2]])
    await run.call("OtherState/apply", run.key("one"), body=[["set", "a", 3]])
    return {
        "one": await run.call("State/view", run.key("one"), body=[["get", "a"]]),
        "two": await run.call("State/view", run.key("two"), body=[["get", "a"]]),
        "other": await run.call("OtherState/apply", run.key("one"), body=[["get", "a"]]),
        "lazy": await run.call("LazyState/view", run.key("one"), body=[["get", "a"]]),
    }


@scenario({"within": ok([None, ["none"], [], []]), "later": ok([["none"], None, []]), "lazy": ok([["none"], []])})
async def empty_value_is_a_value(run: Run) -> Outcome:
    """None is stored as empty bytes: it reads as None, and its key exists."""
    operations = [["set", "none", None], ["get", "none"], ["keys"], ["get_bytes", "none"]]
    operations += [["sleep", 1], ["get_bytes", "none"]]
    return {
        "within": await run.call("State/apply", run.key(), body=operations),
        "later": await run.call("State/view", run.key(), body=[["keys"], ["get", "none"], ["get_bytes", "none"]]),
        "lazy": await run.call("State/apply_lazily", run.key(), body=[["keys"], ["get_bytes", "none"]]),
    }


@scenario({"within": ok([[0, 255, 128]]), "later": ok([[0, 255, 128]]), "keys": ok([["with/slash", "ü", "ключ ☃"]])})
async def binary_values_and_unicode_names(run: Run) -> Outcome:
    operations = [["set_bytes", "ü", [0, 255, 128]], ["set", "ключ ☃", 1], ["set", "with/slash", 2]]
    return {
        "within": await run.call("State/apply", run.key(), body=[*operations, ["get_bytes", "ü"]]),
        "later": await run.call("State/apply_lazily", run.key(), body=[["get_bytes", "ü"]]),
        "keys": await run.call("State/view", run.key(), body=[["keys"]]),
    }


@scenario({"eager": ok([1_000_000]), "lazy": ok([1_000_000])})
async def one_megabyte_of_state(run: Run) -> Outcome:
    await run.call("State/apply", run.key(), body=[["set", "big", "x" * 1_000_000]])
    return {
        "eager": await run.call("State/view", run.key(), body=[["size", "big"]]),
        "lazy": await run.call("State/apply_lazily", run.key(), body=[["size", "big"]]),
    }


@scenario({"totals": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "total": ok(10)})
async def increments_never_get_lost(run: Run) -> Outcome:
    answers = await asyncio.gather(*(run.call("State/increment", run.key(), body=1) for _ in range(10)))
    return {
        "totals": sorted(answer["value"] for answer in answers),
        "total": await run.call("State/increment", run.key(), body=0),
    }


@scenario({"answers": [1, 2], "crashes": {"crash": 4}})
async def increment_counts_once_under_retry(run: Run) -> Outcome:
    """The first call fails twice after its write; its write counts once."""
    answers = [await run.call("State/increment_with_retry", run.key()) for _ in range(2)]
    return {"answers": [answer["value"] for answer in answers], "crashes": run.counts("crash")}


@scenario([True] * 6)
async def keys_of_all_kinds(run: Run) -> Outcome:
    names = ["simple", "ünïcode ☃", "with/slash", "a b+c?d#e%20", "ключ", "x" * 500]
    answers = [await run.call("State/who", run.key(name), body=None) for name in names]
    return [answer["value"] == f"T~{name}" for name, answer in zip(names, answers, strict=True)]


@scenario({"accepted": 202, "holder": ok([1]), "after": ok([None, 42, ["b"]])})
async def operator_replaces_the_state(run: Run) -> Outcome:
    """The whole state of the key, behind the lock: who runs does not notice."""
    key = run.key()
    holder = run.start("State/apply", key, body=[["set", "a", 1], ["sleep", 1], ["gate", "leave"], ["get", "a"]])
    await run.seen("at leave")
    document = {"object_key": key, "new_state": {"b": list(b"42")}}
    accepted = await run.backend.admin.post("/services/State/state", json=document)
    run.open("leave")
    return {
        "accepted": accepted.status_code,
        "holder": await holder,
        "after": await run.call("State/apply", key, body=[["get", "a"], ["get", "b"], ["keys"]]),
    }
