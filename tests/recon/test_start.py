"""What goes wrong at start and is said at once: addresses that are something else, a folder that another demo uses."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from apps.recon.engines import EngineUnavailable, register, serve_worker
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.serving.demo import DemoFailed, prepare
from tests.recon.conftest import GENEROUS
from tests.support.restate_server import RunningRestate, free_ports

REPOSITORY = Path(__file__).resolve().parents[2]


async def test_an_admin_address_that_does_not_answer(tmp_path: Path):
    [nobody] = free_ports(1)
    settings = Settings(restate_admin_url=f"http://127.0.0.1:{nobody}", startup_wait=timedelta(seconds=0.1))
    with pytest.raises(EngineUnavailable, match="check RESTATE_ADMIN_URL"):
        await register("http://127.0.0.1:1", settings)


@pytest.mark.restate_server
@pytest.mark.parametrize(("wrong", "variable"), [("ingress", "RESTATE_INGRESS_URL"), ("admin", "RESTATE_ADMIN_URL")])
async def test_an_address_that_is_something_else_is_named_and_nothing_is_registered(
    wrong: str, variable: str, restate_server: RunningRestate, tmp_path: Path
):
    """The two addresses of a server are easily taken for each other."""
    right = {"restate_ingress_url": restate_server.ingress_url, "restate_admin_url": restate_server.admin_url}
    other = restate_server.admin_url if wrong == "ingress" else restate_server.ingress_url
    settings = dataclasses.replace(GENEROUS, **{**right, f"restate_{wrong}_url": other}, worker_port=0)
    async with httpx.AsyncClient(base_url=restate_server.admin_url) as http, Store(tmp_path / "surreal") as store:
        before = (await http.get("/deployments")).json()
        with pytest.raises(EngineUnavailable, match=rf"{other} is no .*; check {variable}"):
            async with serve_worker(store, settings):
                pass
        assert (await http.get("/deployments")).json() == before


async def test_an_ingress_that_does_not_answer(tmp_path: Path):
    [nobody] = free_ports(1)
    settings = dataclasses.replace(
        GENEROUS, restate_ingress_url=f"http://127.0.0.1:{nobody}", startup_wait=timedelta(seconds=0.1), worker_port=0
    )
    async with Store(tmp_path / "surreal") as store:
        with pytest.raises(EngineUnavailable, match="check RESTATE_INGRESS_URL"):
            async with serve_worker(store, settings):
                pass


async def test_two_demos_do_not_share_a_folder(tmp_path: Path):
    """The second says so, and leaves the files of the first alone; when that has ended, it may go on."""
    code = "from pathlib import Path; from apps.serving.demo import prepare; import sys; prepare(Path(sys.argv[1]), ['*']); print(1, flush=True); input()"
    folder = tmp_path / "demo"
    command = [sys.executable, "-c", code, str(folder)]
    first = await asyncio.create_subprocess_exec(
        *command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    await first.stdout.readline()
    (folder / "mine").touch()
    with pytest.raises(DemoFailed, match=r"another demo is using .*; wait for it, or choose another --keep-dir"):
        prepare(folder, ["*"])
    assert (folder / "mine").exists()
    await first.communicate(b"\n")
    prepare(folder, ["*"])
    assert list(folder.iterdir()) == []


def test_the_commands_of_the_parts_are_there_whatever_was_imported_first():
    code = """if True:
        import apps.recon.campaigns, click
        from apps.recon.cli import recon
        print(*recon.list_commands(click.Context(recon)))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {"campaigns", "approvals", "threats", "contributor", "enrich", "query", "jobs"} <= set(done.stdout.split())
