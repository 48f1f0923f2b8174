"""`holdfast serve --guard`: what a newcomer's handlers do wrong is said, with the line and what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import restate
from click.testing import CliRunner

from holdfast.cli.main import holdfast as command
from holdfast.loading import services_of
from tests.cli.support import ANY_PORTS, Serve, poll

SHOP = """\
import asyncio
import random
import time
from datetime import timedelta

import restate

orders = restate.Service("Orders")
carts = restate.VirtualObject("Carts")
started = []


def stamp() -> float:
    return time.time()


async def mail() -> None:
    await asyncio.Event().wait()


@orders.handler()
async def place(ctx: restate.Context, item: str) -> float:
    started.append(asyncio.create_task(mail()))
    return random.random() + stamp()


@carts.handler()
async def fill(ctx: restate.ObjectContext, count: int) -> int:
    items = await ctx.get("items") or []
    ctx.set("items", items + ["book"] * count)
    return len(items)


@carts.handler()
async def remind(ctx: restate.ObjectContext) -> None:
    await ctx.sleep(timedelta(days=1))


app = restate.app([orders, carts])
"""
READ = {
    "Orders/place: asyncio.create_task() in a handler; start calls and steps through the context": "create_task",
    "Orders/place: random.random() in a handler; use `ctx.uuid()`, `ctx.random()`": "random.random",
    "Orders/place: time.time() in stamp(), which a handler calls; use `await ctx.time()`": "time.time",
}
"""What is told, and what stands in the line."""
SEEN = (
    "Orders/place: a task goes on after its handler",
    "Carts/fill: state 'items' has more than 1000 entries; keep the newest and archive the rest",
    "Carts/remind: an exclusive handler sleeps for long, and its key is locked until then",
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def test_each_pitfall_is_told_with_its_place_and_what_to_do(serve: Serve, shop: Path) -> None:
    served = serve("shop:app", "--guard", cwd=shop)
    told = served.logs()
    lines = SHOP.splitlines()
    for message, text in READ.items():
        [number] = [number for number, line in enumerate(lines, 1) if text in line]
        [warning] = [each for each in told.splitlines() if message in each]
        assert f"shop.py:{number})" in warning
    assert served.post("Orders/place", "a book").status_code == 200, "nothing is forbidden"
    assert served.post("Carts/ada/fill", 1001).json() == 0
    served.send("Carts/bob/remind")
    poll(lambda: all(message in served.logs() for message in SEEN), "not everything was told")
    assert served.stop() == 0


def test_without_the_option_nothing_is_said(serve: Serve, shop: Path) -> None:
    served = serve("shop:app", cwd=shop)
    assert served.post("Orders/place", "a book").status_code == 200
    assert served.stop() == 0
    assert "in a handler" not in served.logs()


def test_what_it_cannot_look_into_is_said_in_one_line() -> None:
    result = CliRunner().invoke(command, ["serve", "--guard", *ANY_PORTS])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: --guard needs MODULE:APP to be what restate.app([...])")


def test_the_services_of_an_application_are_found_and_of_nothing_else() -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None: ...

    services = [restate.Service("Orders"), restate.VirtualObject("Carts")]
    assert services_of(restate.app(services)) == services
    for no_app in (other, object(), None):
        assert services_of(no_app) == []
